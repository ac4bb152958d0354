//! Receipts are true: nodes that share a log, some of them killed, disconnected or gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use larder::testing::{
    fence::FenceStamp,
    purge::{Acknowledgement, DedupOutcome, LogEvent, LogUnavailable, PurgeReceipt},
};

use crate::support::{
    fleet::Fleet,
    log::{FaultProxy, LogNode, UNSYNCED_TTL, may_use, tag_purge},
    process::Process,
    proxy::request,
    redis::{Redis, WriteRefusal},
    resp::Value,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::Wire,
    within, within_seconds,
};

const LEASE: Duration = Duration::from_secs(3);
const NODES: &str = "{larder:log}:nodes";
const TIMEOUT: Duration = Duration::from_secs(10);

/// Three nodes, the last one behind a fault proxy, with a log old enough to know all nodes.
struct Three {
    redis: Redis,
    bridge: FaultProxy,
    nodes: [LogNode; 3],
}

impl Three {
    async fn start() -> Self {
        let redis = Redis::start().await;
        let bridge = FaultProxy::to(&redis).await;
        let (url, other) = (redis.url(), bridge.url());
        let (one, two, three) =
            tokio::join!(LogNode::start(&url), LogNode::start(&url), LogNode::start(&other));
        let nodes = [one, two, three];
        for node in &nodes {
            node.purge("each knows the others by now").await;
        }
        grow_old(&redis, &nodes[0]).await;
        Self { redis, bridge, nodes }
    }

    /// Returns the stamp of a response requested now by the last node.
    fn stamp(&self) -> FenceStamp {
        self.nodes[2].stamp()
    }

    async fn purge(&self) -> PurgeReceipt {
        self.nodes[0].log.append(tag_purge("a"), TIMEOUT).await.unwrap()
    }

    /// Returns whether the last node may use a response with the purged tag.
    fn uses(&self, stamp: FenceStamp) -> bool {
        self.nodes[2].may_use(stamp, "a")
    }
}

/// Backdates the start of the log in Redis.
async fn grow_old(redis: &Redis, node: &LogNode) {
    let began = format!("{:016x} 1", node.fence().log.0);
    assert!(!redis.command(&["HSET", NODES, "log", &began]).await.is_error());
}

fn counts(receipt: &PurgeReceipt) -> (u32, u32) {
    assert_eq!(receipt.acknowledgement, Acknowledgement::Given, "{receipt:?}");
    assert_eq!(receipt.missing, []);
    (receipt.applied, receipt.total)
}

#[tokio::test]
async fn a_purge_is_acknowledged_once_every_node_has_applied_it() {
    within(async {
        let three = Three::start().await;
        for _ in 0..50 {
            let stamps = three.nodes.each_ref().map(LogNode::stamp);
            let receipt = three.purge().await;
            assert_eq!(counts(&receipt), (3, 3));
            for (node, stamp) in three.nodes.iter().zip(stamps) {
                assert!(node.fence().seq >= receipt.seq);
                assert!(!node.may_use(stamp, "a"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_takes_milliseconds() {
    within(async {
        let three = Three::start().await;
        let mut times = Vec::new();
        for _ in 0..200 {
            let asked = Instant::now();
            assert_eq!(counts(&three.purge().await), (3, 3));
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        println!("acknowledged by 3 nodes: p50 {:?}, p99 {:?}", times[100], times[198]);
        // Far above the usual time, and low enough to detect polling.
        assert!(times[100] < Duration::from_millis(100), "{:?}", times[100]);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_killed_is_waited_for_until_its_lease_ends() {
    within(async {
        let Three { redis: _redis, nodes: [one, _two, three], .. } = Three::start().await;
        let (applied_purges, stamp) = (Arc::clone(three.log.applied_purges()), three.stamp());
        drop(three);
        let receipt = one.log.append(tag_purge("a"), TIMEOUT).await.unwrap();
        assert_eq!(counts(&receipt), (2, 3));
        assert!(!applied_purges.is_synced(Instant::now()));
        assert!(!may_use(&applied_purges, stamp, "a"));
        // Its lease has ended: from now on the limit for unsynced nodes applies.
        let asked = Instant::now();
        assert_eq!(counts(&one.log.append(tag_purge("a"), TIMEOUT).await.unwrap()), (2, 3));
        assert!(asked.elapsed() >= UNSYNCED_TTL);
        assert!(asked.elapsed() < LEASE);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_uses_nothing_older_once_a_purge_is_acknowledged() {
    within(async {
        for cut_off in [FaultProxy::block, FaultProxy::close] {
            let three = Three::start().await;
            cut_off(&three.bridge);
            let stamp = three.stamp();
            assert!(three.uses(stamp));
            assert_eq!(counts(&three.purge().await), (2, 3));
            assert!(!three.uses(stamp));
            // Again, with a response requested without a lease.
            let stamp = three.stamp();
            assert!(three.uses(stamp));
            assert_eq!(counts(&three.purge().await), (2, 3));
            assert!(!three.uses(stamp));
            three.bridge.open();
            three.nodes[2].wait_for_seq(three.nodes[0].fence().seq).await;
            three.nodes[2].wait_until_following().await;
            assert_eq!(counts(&three.purge().await), (3, 3));
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_missing_when_time_is_up_is_named() {
    within(async {
        let three = Three::start().await;
        three.bridge.block();
        let ack_timeout = Duration::from_millis(100);
        let receipt = three.nodes[0].log.append(tag_purge("a"), ack_timeout).await.unwrap();
        assert!(!receipt.is_acknowledged());
        assert_eq!((receipt.applied, receipt.total), (2, 3));
        assert_eq!(receipt.missing, [three.nodes[2].log.node().unwrap()]);
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_a_node_that_has_signed_off() {
    within(async {
        let three = Three::start().await;
        let stamp = three.stamp();
        three.nodes[2].log.leave().await;
        assert!(!three.uses(stamp));
        let asked = Instant::now();
        assert_eq!(counts(&three.purge().await), (2, 2));
        assert!(asked.elapsed() < UNSYNCED_TTL, "{:?}", asked.elapsed());
    })
    .await;
}

#[tokio::test]
async fn what_is_pending_is_appended_before_a_node_signs_off() {
    within(async {
        let Three { redis: _redis, nodes: [one, two, _three], .. } = Three::start().await;
        let stamp = one.stamp();
        two.log.append_eventually(tag_purge("a"));
        two.log.leave().await;
        one.until(|_| !one.may_use(stamp, "a")).await;
    })
    .await;
}

#[tokio::test]
async fn a_flushed_redis_forgets_nobody() {
    within(async {
        let three = Three::start().await;
        three.bridge.block();
        let (old, stamp) = (three.nodes[0].fence(), three.stamp());
        three.redis.flush().await;
        three.nodes[0].wait_for_other_log(old).await;
        assert_eq!(counts(&three.purge().await), (2, 3));
        assert!(!three.uses(stamp));
        grow_old(&three.redis, &three.nodes[0]).await;
        let stamp = three.stamp();
        assert!(three.uses(stamp));
        // A node that has never seen the disconnected one learns of it.
        let fresh = LogNode::start(&three.redis.url()).await;
        assert_eq!(counts(&fresh.log.append(tag_purge("a"), TIMEOUT).await.unwrap()), (3, 4));
        assert!(!three.uses(stamp));
    })
    .await;
}

#[tokio::test]
async fn a_purge_right_after_a_flush_waits_for_leases_that_nobody_knows() {
    within(async {
        let redis = Redis::start().await;
        let bridge = FaultProxy::to(&redis).await;
        let stranger = LogNode::start(&bridge.url()).await;
        let stamp = stranger.stamp();
        bridge.block();
        redis.flush().await;
        let fresh = LogNode::start(&redis.url()).await;
        assert!(stranger.may_use(stamp, "a"));
        let receipt = fresh.log.append(tag_purge("a"), TIMEOUT).await.unwrap();
        assert_eq!(counts(&receipt), (1, 1));
        assert!(!stranger.may_use(stamp, "a"));
        let receipt = fresh.log.append(tag_purge("a"), TIMEOUT).await.unwrap();
        assert_eq!(counts(&receipt), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_restarts_empty_forgets_nobody() {
    within(async {
        let three = Three::start().await;
        three.bridge.block();
        let (old, stamp) = (three.nodes[0].fence(), three.stamp());
        three.redis.restart().await;
        tokio::join!(
            three.nodes[0].wait_for_other_log(old),
            three.nodes[1].wait_for_other_log(old)
        );
        tokio::join!(three.nodes[0].wait_until_following(), three.nodes[1].wait_until_following());
        assert_eq!(counts(&three.purge().await), (2, 3));
        assert!(!three.uses(stamp));
    })
    .await;
}

#[tokio::test]
async fn a_lost_list_of_nodes_is_made_anew() {
    within(async {
        let three = Three::start().await;
        three.bridge.block();
        let stamp = three.stamp();
        three.redis.command(&["DEL", NODES]).await;
        assert_eq!(counts(&three.purge().await), (2, 3));
        assert!(!three.uses(stamp));
        assert_eq!(three.nodes[0].raises(), []);
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_never_longer_than_a_lease_whatever_the_clock_of_redis_was() {
    within(async {
        let three = Three::start().await;
        let node = three.nodes[2].log.node().unwrap().to_string();
        let value = three.redis.command(&["HGET", NODES, &node]).await.text();
        three.bridge.block();
        let (_, rest) = value.split_once(' ').unwrap();
        // Written by a clock a hundred years ahead.
        let ahead = format!("4900000000000 {rest}");
        three.redis.command(&["HSET", NODES, &node, &ahead]).await;
        let asked = Instant::now();
        assert_eq!(counts(&three.purge().await), (2, 3));
        assert!(asked.elapsed() < LEASE + Duration::from_secs(1), "{:?}", asked.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_node_that_may_not_renew_its_lease_has_none() {
    within(async {
        let three = Three::start().await;
        three.redis.refuse_writes(WriteRefusal::Memory).await;
        // With a lease that is renewed each second, it stays synced for more than a second.
        let applied_purges = three.nodes[0].log.applied_purges();
        while applied_purges.is_synced(Instant::now() + Duration::from_secs(1)) {
            three.redis.command(&["PING"]).await;
        }
        three.redis.accept_writes().await;
        while !applied_purges.is_synced(Instant::now() + Duration::from_secs(1)) {
            three.redis.command(&["PING"]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_redis_there_is_no_receipt() {
    within(async {
        let three = Three::start().await;
        three.redis.kill();
        three.nodes[0].wait_until_lagging().await;
        let appended = three.nodes[0].log.append(tag_purge("a"), TIMEOUT).await;
        assert_eq!(appended, Err(LogUnavailable));
    })
    .await;
}

#[tokio::test]
async fn a_node_without_its_lease_names_no_other_node_live() {
    within(async {
        let redis = Redis::start().await;
        let metrics = larder::testing::telemetry::Metrics::new();
        let nodes = [LogNode::start(&redis.url()).await, LogNode::start(&redis.url()).await];
        nodes[0].log.append(tag_purge("a"), Duration::ZERO).await.unwrap();
        nodes[0].log.observe(&metrics);
        assert_eq!(metrics.purge_nodes.with_label_values(&["live"]).get(), 2);
        assert_eq!(metrics.purge_nodes.with_label_values(&["gone"]).get(), 0);
    })
    .await;
}

// ── Coordination of the fleet ──

#[tokio::test]
async fn a_purge_under_one_key_is_appended_once_in_the_fleet() {
    within(async {
        let three = Three::start().await;
        let [one, two, _] = &three.nodes;
        let purge = async |node: &LogNode, key| {
            node.log.append_deduplicated(tag_purge("a"), key, TIMEOUT).await.unwrap()
        };
        let DedupOutcome::Appended(first) = purge(one, "delivery-1").await else {
            panic!("it is new")
        };
        assert_eq!(counts(&first), (3, 3));
        let stamp = three.stamp();
        let DedupOutcome::Duplicate(again) = purge(two, "delivery-1").await else {
            panic!("it is known")
        };
        assert_eq!((again.seq, counts(&again)), (first.seq, (3, 3)));
        assert!(three.uses(stamp), "nothing was purged again");
        let other = purge(two, "delivery-2").await;
        assert_eq!(other.into_receipt().seq, first.seq + 1);
    })
    .await;
}

#[tokio::test]
async fn of_all_nodes_that_ask_at_once_one_has_the_turn() {
    within(async {
        let three = Three::start().await;
        let hour = Duration::from_hours(1);
        let send = |node: usize| three.nodes[node].log.dedup("a", hour);
        let (one, two, three) = tokio::join!(send(0), send(1), send(2));
        let turns = [one, two, three].map(Result::unwrap);
        assert_eq!(turns.iter().filter(|turn| **turn).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_role_goes_to_another_node_when_it_is_given_up_or_its_holder_dies() {
    within(async {
        let Three { redis, bridge: _bridge, nodes: [one, two, three] } = Three::start().await;
        let role = one.log.acquire_lease("poller").await.unwrap().unwrap();
        assert!(role.is_held());
        assert!(two.log.acquire_lease("poller").await.unwrap().is_none());
        drop(role);
        let role = loop {
            if let Some(role) = two.log.acquire_lease("poller").await.unwrap() {
                break role;
            }
        };
        drop(two);
        // Without renewal the lease ends after its duration at the latest.
        let taken = Instant::now();
        let next = loop {
            redis.command(&["PING"]).await;
            if let Some(role) = three.log.acquire_lease("poller").await.unwrap() {
                break role;
            }
        };
        assert!(next.is_held() && !role.is_held());
        assert!(taken.elapsed() < LEASE + Duration::from_secs(1), "{:?}", taken.elapsed());
    })
    .await;
}

#[tokio::test]
async fn what_one_node_remembers_all_recall() {
    within(async {
        let three = Three::start().await;
        let [one, two, _] = &three.nodes;
        assert_eq!(one.log.fleet_value("poll:sales").await, Ok(None));
        one.log.set_fleet_value("poll:sales", "version 1").await.unwrap();
        one.log.set_fleet_value("poll:sales", "version 2").await.unwrap();
        assert_eq!(two.log.fleet_value("poll:sales").await, Ok(Some("version 2".to_owned())));
    })
    .await;
}

#[tokio::test]
async fn every_node_hears_of_every_record_in_one_order() {
    within(async {
        let three = Three::start().await;
        let first = three.nodes[0].fence().seq + 1;
        let mut readers = three.nodes.each_ref().map(|node| node.log.subscribe());
        for tag in ["a", "b", "c"] {
            three.nodes[1].purge(tag).await;
        }
        for reader in &mut readers {
            let mut next = async || loop {
                match reader.next().await {
                    LogEvent::Record { record, .. } if record.seq >= first => return record,
                    _earlier => {}
                }
            };
            for (seq, tag) in (first..).zip(["a", "b", "c"]) {
                let record = next().await;
                assert_eq!((record.seq, &record.purge), (seq, &tag_purge(tag)));
                assert!(record.at.millis() > 0);
            }
        }
        let recent = three.nodes[2].log.recent_records();
        assert_eq!(recent[0].seq, first + 2);
        assert_eq!(three.nodes[2].log.oldest_seq(), recent.last().map(|record| record.seq));
    })
    .await;
}

// ── Whole nodes ──

/// Three processes that share a Redis, with a webhook that purges the tag `t` without
/// authentication.
async fn processes(redis: &Redis, origin: &str) -> Fleet {
    let webhook = "[[webhook]]\nname = \"shop\"\nscheme = \"bearer\"\nsecrets = [\"secret\"]\n\
                   [[webhook.on]]\npurge = [\"t\"]\n";
    let fleet = Fleet::start(3, origin, &format!("{webhook}[store]\n{}", redis.store())).await;
    for node in &fleet.nodes {
        while !node.get_admin("/readyz").await.body.contains("purge log: synced") {}
    }
    let log = redis.command(&["XREVRANGE", "larder:log", "+", "-", "COUNT", "1"]).await;
    let fields: Vec<_> = log.members()[0].members()[1].members().iter().map(Value::text).collect();
    let at = fields.iter().position(|field| field == "log").unwrap();
    redis.command(&["HSET", NODES, "log", &format!("{} 1", fields[at + 1])]).await;
    fleet
}

async fn deliver(node: &Process) -> (u16, String) {
    let fields = [("authorization", "Bearer secret"), ("content-length", "2")];
    let call = request("POST", "/_larder/webhooks/shop", &fields) + "{}";
    let reply = Wire::connect(node.address).await.exchange(call).await;
    let (_, nodes) = reply.body.split_once(",\"nodes\":").unwrap();
    (reply.status(), nodes.trim_end_matches('}').to_owned())
}

#[tokio::test]
async fn processes_hang_and_go_and_no_purge_is_acknowledged_too_early() {
    within_seconds(60, async {
        let counted = |request: &OriginRequest| {
            OriginResponse::fresh(request.before.to_string()).with("xkey", "t")
        };
        let origin = ScriptedOrigin::start(move |request| counted(request)).await;
        let redis = Redis::start().await;
        let fleet = processes(&redis, &origin.url()).await;
        // A response contains the number of earlier origin requests.
        let number =
            async |node: usize| -> usize { fleet.get(node, "/a").await.body.parse().unwrap() };
        for node in 0..3 {
            number(node).await;
        }
        let before = origin.requests();
        let (status, nodes) = deliver(&fleet.nodes[0]).await;
        assert_eq!((status, &*nodes), (200, r#"{"applied":3,"total":3"#));
        for node in [2, 1, 0] {
            assert!(number(node).await >= before);
        }
        // One node hangs. When it resumes it still has the older response, but no lease.
        fleet.nodes[2].signal("STOP");
        let before = origin.requests();
        let (status, nodes) = deliver(&fleet.nodes[0]).await;
        assert_eq!((status, &*nodes), (200, r#"{"applied":2,"total":3"#));
        fleet.nodes[2].signal("CONT");
        assert!(number(2).await >= before);
        // One node shuts down gracefully.
        fleet.nodes[1].signal("TERM");
        assert!(fleet.nodes[1].ended().await.success());
        let (status, nodes) = deliver(&fleet.nodes[0]).await;
        assert_eq!((status, &*nodes), (200, r#"{"applied":2,"total":2"#));
    })
    .await;
}

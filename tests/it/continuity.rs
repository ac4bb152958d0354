//! Subscribers to the records continue with a continuing log, and learn of possible gaps.

use std::time::Duration;

use larder::testing::{
    fence::{LogId, Purge},
    purge::{DedupOutcome, LogEvent, LogEvents},
};

use crate::support::{
    fleet::{Fleet, short_sleep},
    log::{FaultProxy, LogNode, start_two, tag_purge},
    proxy::request,
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within, within_seconds,
};

const KEY: &str = "larder:log";

/// Returns the next record with selectors; panics if records may be missing before it.
async fn next(records: &mut LogEvents) -> (LogId, u64, Purge) {
    loop {
        match records.next().await {
            LogEvent::Begin { fence, .. } => panic!("something is missing before {fence:?}"),
            LogEvent::Record { log, record } if !record.purge.selectors.is_empty() => {
                return (log, record.seq, record.purge.clone());
            }
            LogEvent::Record { .. } => {}
        }
    }
}

/// Waits for a possible gap.
async fn breaks(records: &mut LogEvents) {
    while !matches!(records.next().await, LogEvent::Begin { .. }) {}
}

/// Subscribes to future records.
async fn from_now_on(node: &LogNode) -> LogEvents {
    let mut records = node.log.subscribe();
    breaks(&mut records).await;
    while records.try_next().is_some() {}
    records
}

/// Purges as soon as the log is reachable.
async fn purge(node: &LogNode, tag: &str) -> u64 {
    loop {
        match node.log.append(tag_purge(tag), Duration::ZERO).await {
            Ok(receipt) => return receipt.seq,
            Err(_unavailable) => short_sleep().await,
        }
    }
}

#[tokio::test]
async fn nodes_that_knew_everything_go_on_in_the_log_of_an_empty_server() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        let mut heard = [from_now_on(&one).await, from_now_on(&other).await];
        let first = purge(&one, "a").await;
        other.wait_for_seq(first).await;
        let old = one.fence();
        redis.restart().await;
        tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
        let second = purge(&other, "b").await;
        for records in &mut heard {
            assert_eq!(next(records).await, (old.log, first, tag_purge("a")));
            assert_eq!(next(records).await, (other.fence().log, second, tag_purge("b")));
        }
    })
    .await;
}

/// Gives the server a new run id, as a restart that keeps all data does.
async fn another_run(redis: &Redis, node: &LogNode) {
    let old = node.fence();
    let (id, log) = (format!("{}-0", old.seq + 1), format!("{:016x}", old.log.0));
    let record = Purge::boundary().to_json();
    let entry = ["log", &log, "run", "0ther", "nonce", "0000000000000001", "record", &record];
    let added = redis.command(&[&["XADD", KEY, &id], &entry[..]].concat()).await;
    assert_eq!(added.text(), id);
    node.wait_for_other_log(old).await;
}

#[tokio::test]
async fn a_server_that_restarts_with_everything_is_nothing_to_hear_of() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        let mut heard = from_now_on(&other).await;
        let Ok(DedupOutcome::Appended(first)) =
            one.log.append_deduplicated(tag_purge("a"), "key", Duration::ZERO).await
        else {
            panic!("it is new");
        };
        another_run(&redis, &one).await;
        other.wait_for_seq(one.fence().seq).await;
        let again =
            other.log.append_deduplicated(tag_purge("a"), "key", Duration::ZERO).await.unwrap();
        let DedupOutcome::Duplicate(again) = again else { panic!("it is in the log") };
        assert_eq!(again.seq, first.seq);
        let second = purge(&one, "b").await;
        assert_eq!(next(&mut heard).await.1, first.seq);
        assert_eq!(next(&mut heard).await.1, second);
        let new = LogNode::start(&redis.url()).await;
        let mut all = new.log.subscribe();
        breaks(&mut all).await;
        assert_eq!([next(&mut all).await.1, next(&mut all).await.1], [first.seq, second]);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_is_lost_with_the_server_is_told_of_to_who_has_not_heard_it() {
    within(async {
        let redis = Redis::start().await;
        let bridge = FaultProxy::to(&redis).await;
        let (one, other) = start_two(&bridge.url(), &redis.url()).await;
        let mut heard = from_now_on(&one).await;
        bridge.block();
        purge(&other, "a").await;
        let old = one.fence();
        assert_ne!(old, other.fence());
        redis.restart().await;
        bridge.close();
        bridge.open();
        one.wait_for_other_log(old).await;
        breaks(&mut heard).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_does_not_come_back_with_the_server_may_have_known_more() {
    within_seconds(40, async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        let mut heard = from_now_on(&one).await;
        while one.log.append(tag_purge("a"), Duration::from_secs(5)).await.unwrap().total < 2 {}
        drop(other);
        redis.restart().await;
        breaks(&mut heard).await;
    })
    .await;
}

/// Returns the JSON response of a node's admin listener to a `GET`.
async fn get_json(address: std::net::SocketAddr, target: &str) -> serde_json::Value {
    let fields = [("authorization", "Bearer secret")];
    let answer = Wire::connect(address).await.exchange(request("GET", target, &fields)).await;
    assert_eq!(answer.status(), 200, "{target}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_node_that_starts_knows_what_was_purged_before() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(&request.target)).await;
        let toml = format!("[events]\ntags = [\"tile:*\"]\n[store]\n{}", redis.store());
        let mut fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let first = fleet.purge(0, r#"{"tags":["tile:a"]}"#).await;
        let place = get_json(fleet.nodes[0].address, "/_larder/sync").await["next"].clone();
        let second = fleet.purge(1, r#"{"tags":["tile:b"]}"#).await;
        fleet.replace(1).await;
        fleet.ready(&redis).await;
        let mut wire = Wire::connect(fleet.nodes[1].address).await;
        let fields = [("last-event-id", place.as_str().unwrap())];
        wire.write(request("GET", "/_larder/events", &fields)).await;
        let before = wire.read_until("event: purge\n").await;
        assert!(before.ends_with(&format!("id: {second}\nevent: purge\n")), "{before}");
        assert!(!before.contains("reset"), "{before}");
        let target = format!("/_larder/sync?since={}", first - 1);
        let synced = get_json(fleet.nodes[1].address, &target).await;
        assert_eq!(synced["purges"].as_array().unwrap().len(), 2, "{synced}");
        let purges = get_json(fleet.nodes[1].admin, "/v1/purges").await;
        assert_eq!(purges["purges"][1]["seq"], first);
        let one = get_json(fleet.nodes[1].admin, &format!("/v1/purges/{first}")).await;
        assert_eq!(one["selectors"][0]["tag"], "tile:a");
    })
    .await;
}

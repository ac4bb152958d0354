//! The purge log in Redis, shared by several nodes, with all kinds of faults.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use larder::testing::{
    fence::{FenceStamp, Purge},
    purge::{LogUnavailable, WatermarkRaise},
    redis::{Settings, TlsSettings},
};
use tokio::task::JoinSet;

use crate::support::{
    log::{FaultProxy, LogNode, start_two, tag_purge},
    redis::{Redis, RedisAuth, Transport, WriteRefusal},
    within, within_seconds,
};

const KEY: &str = "larder:log";
/// Time limit for detecting a hung server.
const NOTICED: Duration = Duration::from_millis(1_800);

#[tokio::test]
async fn nodes_see_each_others_purges() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        let before = other.stamp();
        let seq = one.purge("a").await;
        other.wait_for_seq(seq).await;
        assert_eq!(one.fence(), other.fence());
        assert!(!other.may_use(before, "a"));
        assert!(other.may_use(before, "b"));
        assert!(other.may_use(other.stamp(), "a"));
        assert_eq!((one.raises(), other.raises()), (vec![], vec![]));
    })
    .await;
}

#[tokio::test]
async fn an_appended_purge_is_applied_when_the_call_returns() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        for _ in 0..50 {
            let before = node.stamp();
            let seq = node.purge("a").await;
            assert!(node.fence().seq >= seq);
            assert!(!node.may_use(before, "a"));
        }
    })
    .await;
}

#[tokio::test]
async fn purges_of_many_callers_have_one_order_without_gaps() {
    within(async {
        let redis = Redis::start().await;
        let nodes = [
            Arc::new(LogNode::start(&redis.url()).await),
            Arc::new(LogNode::start(&redis.url()).await),
        ];
        let first = nodes[0].fence().seq + 1;
        let mut callers = JoinSet::new();
        for number in 0..200 {
            let node = Arc::clone(&nodes[number % 2]);
            callers.spawn(async move { node.purge(&format!("tag-{number}")).await });
        }
        let mut seqs = callers.join_all().await;
        seqs.sort_unstable();
        assert_eq!(seqs, (first..first + 200).collect::<Vec<_>>());
        for node in &nodes {
            node.wait_for_seq(first + 199).await;
            assert_eq!(node.raises(), []);
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_node_knows_what_was_purged_before_it_came() {
    within(async {
        let redis = Redis::start().await;
        let one = LogNode::start(&redis.url()).await;
        let before = one.stamp();
        one.purge("a").await;
        let fresh = LogNode::start(&redis.url()).await;
        assert_eq!(fresh.fence(), one.fence());
        let from_elsewhere = FenceStamp { version: 0, ..before };
        assert!(!fresh.may_use(from_elsewhere, "a"));
        assert!(fresh.may_use(from_elsewhere, "b"));
        assert_eq!(fresh.raises(), []);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_cut_off_goes_on_from_where_it_was() {
    within(async {
        let redis = Redis::start().await;
        let bridge = FaultProxy::to(&redis).await;
        let (one, other) = start_two(&redis.url(), &bridge.url()).await;
        let before = other.stamp();
        bridge.close();
        other.wait_until_lagging().await;
        assert_eq!(other.log.append(tag_purge("c"), Duration::ZERO).await, Err(LogUnavailable));
        one.purge("a").await;
        let seq = one.purge("b").await;
        assert!(other.fence().seq < seq);
        bridge.open();
        other.wait_for_seq(seq).await;
        other.wait_until_following().await;
        assert!(!other.may_use(before, "a"));
        assert!(!other.may_use(before, "b"));
        assert!(other.may_use(before, "c"));
        assert_eq!(other.raises(), []);
    })
    .await;
}

#[tokio::test]
async fn connections_that_end_are_made_anew() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        tokio::join!(one.wait_until_lagging(), other.wait_until_lagging());
        tokio::join!(one.wait_until_following(), other.wait_until_following());
        let seq = one.purge("a").await;
        other.wait_for_seq(seq).await;
        assert_eq!(other.raises(), []);
    })
    .await;
}

#[tokio::test]
async fn a_flushed_log_begins_anew_and_everything_stored_before_is_dead() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        one.purge("a").await;
        let (old, before) = (one.fence(), [one.stamp(), other.stamp()]);
        redis.flush().await;
        tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
        assert!(one.fence().seq > old.seq);
        assert!(!one.may_use(before[0], "b"));
        assert!(!other.may_use(before[1], "b"));
        assert_eq!(one.raises(), [WatermarkRaise::Empty]);
        assert_eq!(other.raises(), [WatermarkRaise::Empty]);
        let seq = other.purge("c").await;
        one.wait_for_seq(seq).await;
        assert_eq!(one.fence(), other.fence());
    })
    .await;
}

#[tokio::test]
async fn a_server_that_restarts_empty_has_another_log() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        one.purge("a").await;
        let (old, before) = (one.fence(), other.stamp());
        redis.restart().await;
        tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
        tokio::join!(one.wait_until_following(), other.wait_until_following());
        assert!(!other.may_use(before, "b"));
        let seq = one.purge("c").await;
        other.wait_for_seq(seq).await;
        assert_eq!(one.fence(), other.fence());
    })
    .await;
}

#[tokio::test]
async fn a_hung_server_is_noticed_and_found_again() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        let before = node.stamp();
        redis.stop().await;
        let stopped = Instant::now();
        node.wait_until_lagging().await;
        assert!(stopped.elapsed() < NOTICED, "{:?}", stopped.elapsed());
        let asked = Instant::now();
        assert_eq!(node.log.append(tag_purge("a"), Duration::ZERO).await, Err(LogUnavailable));
        assert!(asked.elapsed() < Duration::from_millis(100));
        node.log.append_eventually(tag_purge("kept"));
        redis.cont();
        let continued = Instant::now();
        node.wait_until_following().await;
        assert!(continued.elapsed() < Duration::from_secs(3), "{:?}", continued.elapsed());
        node.purge("b").await;
        assert!(!node.may_use(before, "kept"));
        assert!(node.may_use(before, "c"));
        assert_eq!(node.raises(), []);
    })
    .await;
}

#[tokio::test]
async fn an_append_to_a_hung_server_does_not_wait_for_ever() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        redis.stop().await;
        let asked = Instant::now();
        assert_eq!(node.log.append(tag_purge("a"), Duration::ZERO).await, Err(LogUnavailable));
        assert!(asked.elapsed() < Duration::from_millis(2_500), "{:?}", asked.elapsed());
    })
    .await;
}

#[tokio::test]
async fn records_that_were_trimmed_before_they_were_read_raise_the_floor() {
    within(async {
        let redis = Redis::start().await;
        let bridge = FaultProxy::to(&redis).await;
        let (one, other) = start_two(&redis.url(), &bridge.url()).await;
        let before = other.stamp();
        bridge.close();
        other.wait_until_lagging().await;
        for tag in ["a", "b", "c"] {
            one.purge(tag).await;
        }
        redis.command(&["XTRIM", KEY, "MAXLEN", "1"]).await;
        bridge.open();
        other.wait_for_seq(one.fence().seq).await;
        assert!(!other.may_use(before, "d"));
        assert_eq!(other.raises(), [WatermarkRaise::Gap]);
        assert_eq!(one.raises(), []);
        assert_eq!(one.fence(), other.fence());
    })
    .await;
}

/// Returns the fields of the last entry by name.
async fn last_entry(redis: &Redis) -> Vec<(String, String)> {
    let reply = redis.command(&["XREVRANGE", KEY, "+", "-", "COUNT", "1"]).await;
    let fields = reply.members()[0].members()[1].members();
    fields.chunks(2).map(|pair| (pair[0].text(), pair[1].text())).collect()
}

async fn last_field(redis: &Redis, name: &str) -> String {
    let mut fields = last_entry(redis).await.into_iter();
    fields.find_map(|(given, value)| (given == name).then_some(value)).unwrap()
}

/// Replaces the log atomically by another one.
async fn plant(redis: &Redis, id: &str, log: &str, run: &str) {
    const SCRIPT: &str = "redis.call('DEL', KEYS[1]) return redis.call('XADD', KEYS[1], ARGV[1], \
        'log', ARGV[2], 'run', ARGV[3], 'nonce', '0000000000000001', 'at', '1', 'record', '{}')";
    let reply = redis.command(&["EVAL", SCRIPT, "1", KEY, id, log, run]).await;
    assert_eq!(reply.text(), id);
}

#[tokio::test]
async fn a_foreign_log_kills_everything_wherever_it_stands() {
    within(async {
        for id in ["1-0", "3-0", "4-0", "90-0"] {
            let redis = Redis::start().await;
            let node = LogNode::start(&redis.url()).await;
            node.purge("a").await;
            assert_eq!(node.purge("b").await, 3);
            let (old, before) = (node.fence(), node.stamp());
            let run = last_field(&redis, "run").await;
            plant(&redis, id, "00000000000000ff", &run).await;
            node.wait_for_other_log(old).await;
            assert!(!node.may_use(before, "c"), "{id}");
            assert!(!node.raises().is_empty(), "{id}");
            let seq = node.purge("c").await;
            // If the node's own last record is missing, it appends a loss record.
            let more = if matches!(id, "1-0" | "3-0") { 2 } else { 1 };
            assert_eq!(format!("{}-0", seq - more), id);
            assert_eq!(node.fence().log.0, 0xff, "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_log_rewritten_must_not_go_on() {
    within(async {
        for id in ["1-0", "3-0"] {
            let redis = Redis::start().await;
            let node = LogNode::start(&redis.url()).await;
            node.purge("a").await;
            assert_eq!(node.purge("b").await, 3);
            let (old, before) = (node.fence(), node.stamp());
            let (run, log) = (last_field(&redis, "run").await, last_field(&redis, "log").await);
            plant(&redis, id, &log, &run).await;
            node.wait_for_other_log(old).await;
            assert!(!node.may_use(before, "c"), "{id}");
            assert_eq!(node.raises(), [WatermarkRaise::Foreign], "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_from_another_run_of_the_server_must_not_go_on() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        let (old, before) = (one.fence(), other.stamp());
        let log = last_field(&redis, "log").await;
        let entry = ["log", &log, "run", "0ther", "nonce", "0000000000000001", "record", "{}"];
        let command = [&["XADD", KEY, "2-0"], &entry[..]].concat();
        assert_eq!(redis.command(&command).await.text(), "2-0");
        tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
        assert!(!other.may_use(before, "a"));
        assert_eq!(one.raises(), [WatermarkRaise::Restart]);
        assert_eq!(other.raises(), [WatermarkRaise::Restart]);
    })
    .await;
}

#[tokio::test]
async fn what_others_write_into_the_log_kills_everything_and_the_log_goes_on() {
    within(async {
        for id in ["*", "1-7", "2-0", "18446744073709551615-18446744073709551615"] {
            let redis = Redis::start().await;
            let (one, other) = start_two(&redis.url(), &redis.url()).await;
            let (old, before) = (one.fence(), [one.stamp(), other.stamp()]);
            let reply = redis.command(&["XADD", KEY, id, "hello", "there"]).await;
            assert!(!reply.is_error(), "{}", reply.text());
            tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
            assert!(!one.may_use(before[0], "a"), "{id}");
            assert!(!other.may_use(before[1], "a"), "{id}");
            let before = other.stamp();
            let seq = one.purge("a").await;
            other.wait_for_seq(seq).await;
            assert_eq!(one.fence(), other.fence());
            assert!(!other.may_use(before, "a"), "{id}");
            let fresh = LogNode::start(&redis.url()).await;
            assert_eq!(fresh.fence(), one.fence());
        }
    })
    .await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_purges_everything() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        let before = node.stamp();
        let (run, log) = (last_field(&redis, "run").await, last_field(&redis, "log").await);
        let record = r#"{"mode":"hard","selectors":[{"phase":"of the moon"}],"source":"api"}"#;
        let entry = ["log", &log, "run", &run, "nonce", "0000000000000001", "record", record];
        redis.command(&[&["XADD", KEY, "2-0"], &entry[..]].concat()).await;
        node.wait_for_seq(2).await;
        assert!(!node.may_use(before, "a"));
        assert!(node.may_use(node.stamp(), "a"));
        assert_eq!(node.raises(), []);
    })
    .await;
}

#[tokio::test]
async fn an_entry_taken_out_of_the_log_does_not_stop_it() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        let seq = node.purge("a").await;
        let (old, before) = (node.fence(), node.stamp());
        redis.command(&["XDEL", KEY, &format!("{seq}-0")]).await;
        node.wait_for_other_log(old).await;
        assert!(!node.may_use(before, "b"));
        let before = node.stamp();
        assert!(node.purge("b").await > seq);
        assert!(!node.may_use(before, "b"));
    })
    .await;
}

#[tokio::test]
async fn purges_are_kept_while_writes_are_refused() {
    within(async {
        for refusal in [WriteRefusal::Memory, WriteRefusal::Replica] {
            let redis = Redis::start().await;
            let (one, other) = start_two(&redis.url(), &redis.url()).await;
            let before = [one.stamp(), other.stamp()];
            redis.refuse_writes(refusal).await;
            assert_eq!(
                one.log.append(tag_purge("a"), Duration::ZERO).await,
                Err(LogUnavailable),
                "{refusal:?}"
            );
            one.log.append_eventually(tag_purge("b"));
            one.log.append_eventually(tag_purge("c"));
            assert!(!one.may_use(before[0], "b"));
            assert!(other.may_use(before[1], "b"));
            redis.accept_writes().await;
            other.until(|_| !other.may_use(before[1], "c")).await;
            assert!(!other.may_use(before[1], "b"));
        }
    })
    .await;
}

#[tokio::test]
async fn purges_are_kept_while_there_is_no_server() {
    within(async {
        let redis = Redis::start().await;
        let url = redis.url();
        redis.kill();
        let node = LogNode::of(&Settings::parse(&url).unwrap());
        assert_eq!(node.log.append(tag_purge("a"), Duration::ZERO).await, Err(LogUnavailable));
        let before = node.stamp();
        node.log.append_eventually(tag_purge("a"));
        assert!(!node.may_use(before, "a"));
        redis.restart().await;
        node.wait_for_seq(2).await;
        let record = last_field(&redis, "record").await;
        assert_eq!(serde_json::from_str::<Purge>(&record).unwrap(), tag_purge("a"));
    })
    .await;
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_the_run_follows_too() {
    within(async {
        let redis = Redis::start().await;
        let may = ["ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-info"];
        assert_eq!(redis.command(&may).await.text(), "OK");
        let url = redis.url().replace("redis://", "redis://limited:secret@");
        let (one, other) = start_two(&url, &redis.url()).await;
        let seq = one.purge("a").await;
        other.wait_for_seq(seq).await;
        let seq = other.purge("b").await;
        one.wait_for_seq(seq).await;
        let old = one.fence();
        redis.flush().await;
        tokio::join!(one.wait_for_other_log(old), other.wait_for_other_log(old));
        assert_eq!(
            (one.raises(), other.raises()),
            (vec![WatermarkRaise::Empty], vec![WatermarkRaise::Empty])
        );
    })
    .await;
}

#[tokio::test]
async fn the_log_needs_no_more_than_what_is_documented() {
    within(async {
        let redis = Redis::start().await;
        let document = include_str!("../../docs/purge-log.md");
        let (_, rules) = document.split_once("```text\nACL SETUSER larder ").unwrap();
        let (rules, _) = rules.split_once("\n```").unwrap();
        let rules = rules.replace("{prefix}", "larder").replace("{password}", "secret");
        let words: Vec<&str> =
            ["ACL", "SETUSER", "limited"].into_iter().chain(rules.split_whitespace()).collect();
        assert_eq!(redis.command(&words).await.text(), "OK");
        let url = redis.url().replace("redis://", "redis://limited:secret@");
        let node = LogNode::start(&url).await;
        assert_eq!(node.purge("a").await, 2);
        let old = node.fence();
        redis.command(&["XADD", KEY, "18446744073709551615-0", "hello", "there"]).await;
        node.wait_for_other_log(old).await;
        let log = redis.command(&["ACL", "LOG"]).await;
        assert_eq!(log.members(), [], "{log:?}");
    })
    .await;
}

/// Reloads the server's data from disk, as a restart does, without a new run id.
async fn reload(redis: &Redis) {
    assert_eq!(redis.command(&["DEBUG", "RELOAD", "NOSAVE"]).await.text(), "OK");
}

#[tokio::test]
async fn a_log_that_comes_back_whole_goes_on_and_a_shorter_one_does_not() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        node.purge("a").await;
        assert_eq!(redis.command(&["SAVE"]).await.text(), "OK");
        let before = node.stamp();
        reload(&redis).await;
        node.purge("b").await;
        assert!(node.may_use(before, "c"));
        assert_eq!(node.raises(), []);
        let old = node.fence();
        reload(&redis).await;
        node.wait_for_other_log(old).await;
        assert!(!node.may_use(before, "c"));
        assert_eq!(node.raises(), [WatermarkRaise::Foreign]);
    })
    .await;
}

#[tokio::test]
async fn the_log_is_reached_however_redis_is() {
    within(async {
        for (reach, access) in [
            (Transport::Tcp, RedisAuth::Password),
            (Transport::Tcp, RedisAuth::User),
            (Transport::Tls, RedisAuth::User),
            (Transport::Unix, RedisAuth::Anyone),
            (Transport::Unix, RedisAuth::Password),
        ] {
            let redis = Redis::with(reach, access).await;
            let mut settings = Settings::parse(&redis.url()).unwrap();
            if let Some(tls) = &mut settings.tls {
                *tls = TlsSettings { ca: Some(redis.authority()), ..TlsSettings::default() };
            }
            let node = LogNode::of(&settings);
            node.wait_until_following().await;
            assert_eq!(node.purge("a").await, 2, "{reach:?} {access:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_no_reason_to_end() {
    within(async {
        let redis = Redis::with(Transport::Tcp, RedisAuth::Password).await;
        let url = redis.url().replace("p%40", "q%40");
        let node = LogNode::of(&Settings::parse(&url).unwrap());
        assert_eq!(node.log.append(tag_purge("a"), Duration::ZERO).await, Err(LogUnavailable));
        let right = redis.command(&["CONFIG", "SET", "requirepass", "q@ss:w/rd%1"]).await;
        assert_eq!(right.text(), "OK");
        node.wait_until_following().await;
    })
    .await;
}

#[tokio::test]
async fn a_log_that_is_dropped_leaves_no_connection() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        // The two connections of the node, and this one.
        assert_eq!(redis.info("clients", "connected_clients").await, "3");
        drop(node);
        while redis.info("clients", "connected_clients").await != "1" {}
    })
    .await;
}

#[tokio::test]
async fn what_redis_executes_late_is_not_in_the_log() {
    within(async {
        let redis = Redis::start().await;
        let node = LogNode::start(&redis.url()).await;
        node.purge("a").await;
        let entries = redis.command(&["XLEN", KEY]).await.text();
        redis.stop().await;
        let sent = Instant::now();
        let append = node.log.append(tag_purge("late"), Duration::ZERO);
        let once = node.log.dedup("daily", Duration::from_hours(1));
        let (appended, turn) = tokio::join!(append, once);
        assert_eq!((appended, turn), (Err(LogUnavailable), Err(LogUnavailable)));
        // Redis executes it by its own clock, after the deadline of the append.
        tokio::time::sleep_until((sent + Duration::from_millis(2_200)).into()).await;
        redis.cont();
        assert_eq!(redis.command(&["XLEN", KEY]).await.text(), entries);
        node.wait_until_following().await;
        assert_eq!(node.log.dedup("daily", Duration::from_hours(1)).await, Ok(true), "a turn");
    })
    .await;
}

#[tokio::test]
async fn a_role_that_redis_gives_late_is_held_by_nobody() {
    within(async {
        let redis = Redis::start().await;
        let (one, other) = start_two(&redis.url(), &redis.url()).await;
        redis.stop().await;
        let sent = Instant::now();
        assert!(one.log.acquire_lease("poll").await.is_err());
        tokio::time::sleep_until((sent + Duration::from_millis(1_200)).into()).await;
        redis.cont();
        other.wait_until_lagging().await;
        other.wait_until_following().await;
        let begin = Instant::now();
        while other.log.acquire_lease("poll").await.unwrap().is_none() {
            assert!(begin.elapsed() < Duration::from_secs(1), "nobody has it");
        }
    })
    .await;
}

#[tokio::test]
async fn a_backlog_of_large_records_is_read_in_pieces() {
    within_seconds(60, async {
        let redis = Redis::start().await;
        let one = LogNode::start(&redis.url()).await;
        let mut last = 0;
        for number in 0..40 {
            last = one.purge(&format!("{number}{}", "x".repeat(512 << 10))).await;
        }
        // Redis disconnects clients with a larger output buffer.
        let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 4mb 0 0"];
        assert_eq!(redis.command(&limit).await.text(), "OK");
        let other = LogNode::of(&Settings::parse(&redis.url()).unwrap());
        other.wait_for_seq(last).await;
        assert!(other.raises().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_hundred_nodes_acknowledge_many_purges_at_once() {
    within_seconds(60, async {
        const OTHERS: u64 = 100;
        const PURGES: u64 = 10;
        let redis = Redis::start().await;
        let node = Arc::new(LogNode::start(&redis.url()).await);
        let log = format!("{:016x}", node.fence().log.0);
        let mut connection = redis.connect().await.unwrap();
        let first = node.fence().seq;
        for id in 1..=OTHERS {
            let value = format!("99999999999999 1000 on {log} {first}");
            let id = format!("{id:016x}");
            connection.command(&["HSET", "{larder:log}:nodes", &id, &value]).await.unwrap();
        }
        connection
            .command(&["HSET", "{larder:log}:nodes", "log", &format!("{log} 1")])
            .await
            .unwrap();
        let mut purges = JoinSet::new();
        for number in 0..PURGES {
            let node = Arc::clone(&node);
            purges.spawn(async move {
                let ack_timeout = Duration::from_secs(10);
                node.log.append(tag_purge(&number.to_string()), ack_timeout).await.unwrap()
            });
        }
        node.wait_for_seq(first + PURGES).await;
        // All nodes report each purge at once, in one step of the server.
        let channel = {
            let channels = redis.command(&["PUBSUB", "CHANNELS", "*:node:*"]).await;
            channels.members()[0].text()
        };
        let script = "for seq = ARGV[2] + 1, ARGV[2] + ARGV[3] do for id = 1, 100 do \
                      redis.call('PUBLISH', KEYS[1], string.format('%016x', id) .. ' ' .. ARGV[1] \
                      .. ' ' .. string.format('%.0f', seq)) end end";
        let told = Instant::now();
        let (first, count) = (first.to_string(), PURGES.to_string());
        let words = ["EVAL", script, "1", &channel, &log, &first, &count];
        assert!(!connection.command(&words).await.unwrap().is_error());
        let receipts = purges.join_all().await;
        assert!(told.elapsed() < Duration::from_millis(500), "{:?}", told.elapsed());
        for receipt in receipts {
            assert_eq!((receipt.applied, receipt.total), (101, 101), "{receipt:?}");
        }
    })
    .await;
}

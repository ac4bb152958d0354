//! How far back the purge log reaches: the records kept in Redis, and those known to a late node.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder::testing::{
    fence::{Fence, FenceStamp, LogId, ResponseAttributes},
    purge::{IncompleteResponse, LogRetention},
    redis::Settings,
};

use crate::support::{
    log::{LogNode, tag_purge},
    redis::Redis,
    within,
};

const KEY: &str = "larder:log";

async fn length(redis: &Redis) -> u64 {
    redis.command(&["XLEN", KEY]).await.text().parse().unwrap()
}

/// Starts a node with this retention.
async fn keeping(redis: &Redis, retention: LogRetention) -> LogNode {
    let node = LogNode::with_retention(&Settings::parse(&redis.url()).unwrap(), retention);
    node.wait_until_following().await;
    node
}

async fn purge_often(node: &LogNode, count: u64) {
    for _ in 0..count {
        node.log.append(tag_purge("a"), Duration::ZERO).await.unwrap();
    }
}

#[tokio::test]
async fn records_stay_as_long_as_responses_and_a_few_however_old_they_are() {
    within(async {
        let redis = Redis::start().await;
        let lifetime = Duration::from_hours(24);
        let young =
            keeping(&redis, LogRetention { min_records: 200, max_records: 100_000, lifetime })
                .await;
        purge_often(&young, 900).await;
        assert!(length(&redis).await > 900, "all of them are younger than responses get");
        let node = keeping(
            &redis,
            LogRetention { min_records: 200, max_records: 100_000, lifetime: Duration::ZERO },
        );
        let node = node.await;
        purge_often(&node, 20).await;
        // Redis trims a hundred entries at a time.
        let left = length(&redis).await;
        assert!((200..=400).contains(&left), "{left}");
        assert_eq!((young.raises(), node.raises()), (vec![], vec![]));
    })
    .await;
}

#[tokio::test]
async fn there_are_never_more_records_than_memory_was_meant_for() {
    within(async {
        let redis = Redis::start().await;
        let lifetime = Duration::from_hours(24);
        let node =
            keeping(&redis, LogRetention { min_records: 100, max_records: 300, lifetime }).await;
        purge_often(&node, 900).await;
        let left = length(&redis).await;
        assert!((300..=400).contains(&left), "{left}");
        assert_eq!(node.raises(), []);
    })
    .await;
}

/// Appends the records of 1,000 users with `ARGV[1]` writes each, 20 ms apart, up to now.
const TEN_MINUTES: &str = r#"
    local count, now = tonumber(ARGV[1]), tonumber(ARGV[2])
    for seq = 1, count do
      local user = seq % 1000
      local record = string.format('{"mode":"hard","selectors":[{"all":[{"user":"%032x"},'
        .. '{"url":"api.example/stocks/%d"}]},{"tag":"stocks:%d"}],"source":"write"}',
        user, seq % 7, user)
      redis.call('XADD', KEYS[1], seq .. '-0', 'at', now - (count - seq) * 20,
        'log', '00000000000000aa', 'run', '', 'nonce', string.format('%016x', seq),
        'by', '00000000000000bb', 'record', record)
    end
    return redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)"#;

#[tokio::test]
async fn a_node_that_starts_after_thirty_thousand_writes_keeps_what_they_did_not_select() {
    const WRITES: u64 = 30_000;
    within(async {
        let redis = Redis::start().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().to_string();
        let count = WRITES.to_string();
        let taken = redis.command(&["EVAL", TEN_MINUTES, "1", KEY, &count, &now]).await.text();
        let a_record = taken.parse::<u64>().unwrap() / WRITES;
        assert!(a_record < 350, "{a_record} bytes a record");

        let started = Instant::now();
        let node = LogNode::start(&redis.url()).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let log = LogId(0xaa);
        assert_eq!(node.fence(), Fence { log, seq: WRITES });

        // A response stored in Redis before the first write, by a node that has ended.
        let stored = FenceStamp { fence: Fence { log, seq: 0 }, version: 0, began: 0 };
        let is_kept = |user: Option<&str>, url: &str, tag: &str| {
            let attributes = ResponseAttributes { user, ..ResponseAttributes::default() };
            let tags = [tag.to_owned()];
            let expected =
                IncompleteResponse { url: url.as_bytes(), attributes, tags: Some(&tags) };
            node.log.applied_purges().may_join(&stored, &expected, Instant::now())
        };
        let seventh = format!("{:032x}", 7);
        assert!(is_kept(None, "api.example/holidays", "holidays"), "for a day, and nobody's");
        assert!(is_kept(None, "api.example/stocks/1", "market"), "only users' own were purged");
        assert!(!is_kept(None, "api.example/portfolio", "stocks:7"));
        assert!(!is_kept(Some(&seventh), "api.example/stocks/0", "x"));
        assert!(is_kept(Some(&seventh), "api.example/notes", "x"), "of the same user");

        assert_eq!(node.raises(), []);
        let (selectors, evicted) = node.log.applied_purges().selectors();
        assert_eq!(
            (selectors, evicted),
            (8_000, 0),
            "one place for each, however often it is purged"
        );
        let reach = node.log.applied_purges().reach(SystemTime::now().into()).as_secs();
        assert!((599..700).contains(&reach), "{reach}");
    })
    .await;
}

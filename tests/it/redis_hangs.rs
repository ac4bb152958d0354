//! After a hang of Redis, requests are immediately as fast as before.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    fleet::Fleet,
    latency_turn,
    load::{Load, LoadReport, RequestNumber},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    within_seconds,
};

const NODES: usize = 3;
const CLIENTS: usize = 12;
/// Interval between requests of a client: 200 requests a second in total.
const EVERY: Duration = Duration::from_millis(60);
const A_SECOND: usize = 200;
/// Number of targets with responses that expire after a second, so that a fetch is usually in
/// progress.
const TARGETS: usize = 40;
/// Maximum increase of the 99th percentile.
const SLOWER: Duration = Duration::from_millis(60);
/// Number of seconds after a hang that are compared.
const AFTER: usize = 3;

fn short(RequestNumber { client, before }: RequestNumber) -> String {
    format!("/short/{}", (client * 7 + before) % TARGETS)
}

/// Returns a number from the environment; the benchmark runs the same test for longer.
fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Merges the samples of several windows.
fn joined(outcome: &LoadReport, windows: &[(Instant, Instant)]) -> LoadReport {
    let of = |(begin, end): &(Instant, Instant)| outcome.between(*begin, *end).samples;
    LoadReport { samples: windows.iter().flat_map(of).collect() }
}

#[tokio::test]
async fn after_a_hang_of_redis_requests_are_as_fast_as_before() {
    let _turn = latency_turn().await;
    let hangs = setting("LARDER_TEST_HANGS", 2);
    let seconds = setting("LARDER_TEST_HANG_SECONDS", 2);
    within_seconds(60 + 20 * hangs as u64, async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(request.before.to_string()).with("cache-control", "max-age=1")
        })
        .await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, NODES, &origin.url(), "").await;
        let load = Load::over(&fleet.addresses()).clients(CLIENTS).every(EVERY).asking(short);
        let running = load.start();
        running.more(2 * A_SECOND).await;
        let (mut calm, mut after) = (Vec::new(), Vec::new());
        for _ in 0..hangs {
            let begin = Instant::now();
            running.more(AFTER * A_SECOND).await;
            calm.push((begin, Instant::now()));
            redis.stop().await;
            running.more(seconds * A_SECOND).await;
            redis.cont();
            let resumed = Instant::now();
            running.more(AFTER * A_SECOND).await;
            after.push((resumed, resumed + Duration::from_secs(AFTER as u64)));
        }
        let outcome = running.stop().await;
        let (calm, after) = (joined(&outcome, &calm), joined(&outcome, &after));
        let figures = format!("{hangs} hangs of {seconds} s\ncalm: {calm}\nafter: {after}");
        println!("{figures}");
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert!(after.percentile(99) < calm.percentile(99) + SLOWER, "{figures}");
    })
    .await;
}

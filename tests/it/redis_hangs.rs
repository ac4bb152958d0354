//! A Redis that hung and goes on: requests are as fast as before at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    fleet::Fleet,
    load::{Load, LoadReport, RequestNumber},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    within_seconds,
};

const NODES: usize = 3;
const CLIENTS: usize = 12;
/// Each client asks this often: 200 requests in a second altogether.
const EVERY: Duration = Duration::from_millis(60);
const A_SECOND: usize = 200;
/// Responses that end after a second, so that most of the time some node fetches.
const TARGETS: usize = 40;
/// By how much the slowest of a hundred requests may be slower than usual.
const SLOWER: Duration = Duration::from_millis(60);
/// The seconds after a hang that are compared.
const AFTER: usize = 3;

fn short(RequestNumber { client, before }: RequestNumber) -> String {
    format!("/short/{}", (client * 7 + before) % TARGETS)
}

/// A number of the environment: the benchmark runs the same test for longer.
fn setting(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// The samples of several windows in one.
fn joined(outcome: &LoadReport, windows: &[(Instant, Instant)]) -> LoadReport {
    let of = |(begin, end): &(Instant, Instant)| outcome.between(*begin, *end).samples;
    LoadReport { samples: windows.iter().flat_map(of).collect() }
}

#[tokio::test]
async fn after_a_hang_of_redis_requests_are_as_fast_as_before() {
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

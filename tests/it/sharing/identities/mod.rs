//! Nobody gets what belongs to another: random users with every sort of credential ask two nodes, and the
//! origin stamps each answer with whom it saw.
//!
//! The seed decides what each client asks. `LARDER_CHECK_REQUESTS` and `LARDER_CHECK_SEED` make the run
//! longer, or another one.

mod act;
mod judge;
mod origin;
mod request;
mod run;
mod stamp;
mod token;
mod world;

use std::{fmt::Write as _, sync::Arc};

use larder::testing::purge::planted::PlantedBug;
use tokio::sync::Mutex;

use self::{run::Plan, world::World};
use crate::support::within_seconds;

/// Requests of a run: with verified tokens, and with exact credentials.
const REQUESTS: (usize, usize) =
    if cfg!(feature = "planted-bugs") { (170_000, 40_000) } else { (12_000, 6_000) };

/// Runs take turns: each wants the machine for itself.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURNS: Mutex<()> = Mutex::const_new(());
    TURNS.lock().await
}

fn from_environment<T: std::str::FromStr>(name: &str, usual: T) -> T {
    let text = std::env::var(name).ok();
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What a run has come to.
fn summary(world: &World) -> String {
    let counts = world.counts.lock().unwrap();
    let mut lines = String::new();
    for (what, count) in counts.iter() {
        writeln!(lines, "  {count:>7} {what}").unwrap();
    }
    let violations = world.violations.lock().unwrap();
    format!("{lines}{}", violations.join("\n"))
}

async fn asked(plan: Plan) -> Arc<World> {
    let _turn = turn().await;
    let Plan { seed, requests, bug, has_tokens } = plan;
    println!("seed {seed}, {requests} requests, tokens: {has_tokens}, {bug:?}");
    let begun = std::time::Instant::now();
    let world = within_seconds(1200, plan.run()).await;
    println!("{:.1} s\n{}", begun.elapsed().as_secs_f64(), summary(&world));
    world
}

/// Fewer than this may be none by chance.
const FEW: usize = 5;

/// Enough of everything happened: at least so many in 100,000 requests. What a short run has a few of only may
/// be missing in it.
fn is_telling(world: &World, requests: usize, least: &[(&str, usize)]) {
    let counts = world.counts.lock().unwrap();
    for (what, share) in least {
        let count = counts.get(*what).copied().unwrap_or(0);
        let wanted = share * requests / 100_000;
        if wanted < FEW {
            continue;
        }
        assert!(count >= wanted, "only {count} of {what}, not {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_what_the_partition_does_not_allow() {
    let seed = from_environment("LARDER_CHECK_SEED", 1);
    let requests = from_environment("LARDER_CHECK_REQUESTS", REQUESTS.0);
    let world = asked(Plan { seed, requests, bug: None, has_tokens: true }).await;
    assert!(world.violations.lock().unwrap().is_empty(), "seed {seed}: {}", summary(&world));
    is_telling(&world, requests, &TELLING);
    is_telling(&world, requests, &TELLING_OF_TOKENS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_credentials_share_with_no_others() {
    let seed = from_environment("LARDER_CHECK_SEED", 1);
    let requests = from_environment("LARDER_CHECK_REQUESTS", REQUESTS.1);
    let world = asked(Plan { seed, requests, bug: None, has_tokens: false }).await;
    assert!(world.violations.lock().unwrap().is_empty(), "seed {seed}: {}", summary(&world));
    is_telling(&world, requests, &TELLING);
}

/// What login requests have fetched ahead, as the nodes count it.
const WARMED: &str = "larder_warm_outcomes_total stored";

const TELLING: [(&str, usize); 13] = [
    ("HIT user", 500),
    ("HIT everyone", 1000),
    ("HIT plain", 20),
    ("STALE user", 20),
    ("MISS user", 500),
    ("BYPASS user", 100),
    ("401 credentials", 500),
    ("401 weather", 20),
    ("503", 20),
    ("write", 300),
    ("logout", 50),
    ("login", 50),
    (WARMED, 20),
];

const TELLING_OF_TOKENS: [(&str, usize); 6] = [
    ("HIT tenant", 1000),
    ("HIT member", 1000),
    ("STALE tenant", 50),
    ("STALE member", 50),
    ("403", 20),
    ("revocation", 50),
];

/// Whether a bug that is planted is found, as what it is.
async fn is_found(bug: PlantedBug, wrong: &str) {
    let plan = Plan { seed: 1, requests: 100_000, bug: Some(bug), has_tokens: true };
    let world = asked(plan).await;
    let violations = world.violations.lock().unwrap();
    let is_wrong = |found: &String| found.starts_with(wrong);
    assert!(violations.iter().any(is_wrong), "{bug:?} is not found: {violations:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_key_without_the_partition_is_found() {
    is_found(PlantedBug::KeyWithoutPartition, "stamped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_fetch_that_partitions_share_is_found() {
    is_found(PlantedBug::CollapseWithoutPartition, "stamped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_refresh_with_the_credentials_of_another_is_found() {
    is_found(PlantedBug::RefreshForAnother, "stamped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_warm_up_with_the_credentials_of_another_is_found() {
    is_found(PlantedBug::WarmForAnother, "stamped").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_stale_answer_after_the_end_of_its_token_is_found() {
    is_found(PlantedBug::ExpiredWhileStale, "fetched with a token that has ended").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_cookie_for_everyone_is_found() {
    is_found(PlantedBug::CookieForEveryone, "a cookie on what everyone shares").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_refusal_that_others_get_is_found() {
    is_found(PlantedBug::SharedRefusal, "somebody else's refusal").await;
}

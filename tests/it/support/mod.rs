//! The test harness: raw connections, scripted origins, servers with any handler, proxies in this
//! process or their own, fleets, Redis servers, load, certificates, gates.

pub(crate) mod certificate;
pub(crate) mod fleet;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod resp;
pub(crate) mod script;
pub(crate) mod serving;
pub(crate) mod token;
pub(crate) mod wire;

use std::{future::Future, time::Duration};

use tokio::sync::{Mutex, MutexGuard};

/// Runs a test's body with a time limit, so that a hang fails.
pub(crate) fn within<T>(body: impl Future<Output = T>) -> impl Future<Output = T> {
    within_seconds(20, body)
}

/// Runs a test's body with another time limit.
pub(crate) async fn within_seconds<T>(seconds: u64, body: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), body).await.expect("the test hangs")
}

/// Serialises the tests that compare latencies: two of them at once would measure each other.
pub(crate) async fn latency_turn() -> MutexGuard<'static, ()> {
    static TURNS: Mutex<()> = Mutex::const_new(());
    TURNS.lock().await
}

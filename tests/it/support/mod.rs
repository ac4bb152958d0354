//! What the tests share: raw connections, scripted origins, a server with any handler, a whole
//! proxy in this process or in one of its own, certificates, gates.

pub(crate) mod certificate;
pub(crate) mod gate;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod script;
pub(crate) mod serving;
pub(crate) mod wire;

use std::{future::Future, time::Duration};

/// Runs a test's body; a hang is a failure that says so.
pub(crate) async fn within<T>(body: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), body).await.expect("the test hangs")
}

//! What the nodes of a fleet agree on besides the log: turns, and words that all remember.

use std::{sync::Arc, time::Duration};

use fred::{error::Error, interfaces::KeysInterface as _};

use super::{
    Redis,
    holding::Holding,
    session::{Appender, within},
    shared::Shared,
};
use crate::purge::{Unavailable, random};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a word is remembered that nobody says again.
const MEMORY: Duration = Duration::from_hours(24 * 90);

/// When a value is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Always,
    /// Only if there is none.
    New,
}

impl Redis {
    /// Whether nobody has asked with this key within this time.
    pub(in crate::purge) async fn once(
        &self,
        key: &str,
        within: Duration,
    ) -> Result<bool, Unavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.done("once", key));
        let set = set(&self.shared, &appender, (key, "1".to_owned()), (within, Only::New));
        Ok(answered(set).await?.is_some())
    }

    /// A role that no other node has.
    pub(in crate::purge) async fn hold(&self, name: &str) -> Result<Option<Holding>, Unavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("role", name));
        Holding::take(Arc::clone(&self.shared), &appender, key).await
    }

    /// The word that was remembered last under this name.
    pub(in crate::purge) async fn recall(&self, name: &str) -> Result<Option<String>, Unavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("word", name));
        answered(Box::pin(appender.client.get::<Option<String>, _>(key))).await
    }

    /// Has all nodes remember a word.
    pub(in crate::purge) async fn remember(
        &self,
        name: &str,
        word: &str,
    ) -> Result<(), Unavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("word", name));
        let set = set(&self.shared, &appender, (key, word.to_owned()), (MEMORY, Only::Always));
        answered(set).await.map(drop)
    }
}

/// `SET`, unless Redis gets to it only after nobody waits any more. Nothing if there was a value already.
pub(super) async fn set(
    shared: &Shared,
    appender: &Appender,
    (key, value): (String, String),
    (lasts, only): (Duration, Only),
) -> Result<Option<String>, Error> {
    let lasts = lasts.as_millis().max(1).to_string();
    let only = if only == Only::New { "new" } else { "any" };
    let call = (vec![key], vec![value, lasts, only.to_owned()]);
    Box::pin(shared.run(&appender.client, &shared.scripts.set, call, PATIENCE)).await
}

/// A value of its own.
pub(super) fn own() -> String {
    super::entry::spelled(random())
}

pub(super) async fn answered<T>(
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Unavailable> {
    let answer = within(PATIENCE, async { Ok(answer.await?) }).await;
    answer.map_err(|failure| {
        tracing::debug!(%failure, "the fleet cannot be asked");
        Unavailable
    })
}

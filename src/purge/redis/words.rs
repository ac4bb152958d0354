//! What the nodes of a fleet agree on besides the log: turns, and words that all remember.

use std::{sync::Arc, time::Duration};

use fred::{
    error::Error,
    interfaces::KeysInterface as _,
    types::{Expiration, SetOptions},
};

use super::{
    Redis,
    holding::Holding,
    session::{Appender, within},
};
use crate::purge::{Unavailable, random};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a word is remembered that nobody says again.
const MEMORY: Duration = Duration::from_hours(24 * 90);

impl Redis {
    /// Whether nobody has asked with this key within this time.
    pub(in crate::purge) async fn once(
        &self,
        key: &str,
        within: Duration,
    ) -> Result<bool, Unavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.done("once", key));
        let set = set(&appender, key, "1".to_owned(), (within, Some(SetOptions::NX)));
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
        let set = set(&appender, key, word.to_owned(), (MEMORY, None));
        answered(set).await.map(drop)
    }
}

/// `SET`: nothing where it was refused because of its condition.
pub(super) async fn set(
    appender: &Appender,
    key: String,
    value: String,
    (lasts, only): (Duration, Option<SetOptions>),
) -> Result<Option<String>, Error> {
    let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX).max(1);
    Box::pin(appender.client.set(key, value, Some(Expiration::PX(lasts)), only, false)).await
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

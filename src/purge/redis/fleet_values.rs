//! Coordination beside the log: deduplication, leader leases, and values shared by the fleet.

use std::{sync::Arc, time::Duration};

use fred::{error::Error, interfaces::KeysInterface as _};

use super::{
    RedisLog,
    leader_lease::RedisLeaderLease,
    session::{Appender, with_deadline},
    state::LogState,
};
use crate::purge::{LogUnavailable, random};

/// Timeout of a call.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to live of a shared value.
const VALUE_TTL: Duration = Duration::from_hours(24 * 90);

/// When a value is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetCondition {
    Always,
    /// Only if the key does not exist.
    IfAbsent,
}

impl RedisLog {
    /// Returns whether this key is new within this time.
    pub(in crate::purge) async fn dedup(
        &self,
        key: &str,
        within: Duration,
    ) -> Result<bool, LogUnavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.hashed("once", key));
        let set =
            set(&self.shared, &appender, (key, "1".to_owned()), (within, SetCondition::IfAbsent));
        Ok(with_reply_timeout(set).await?.is_some())
    }

    /// Acquires a leader lease, unless another node holds it.
    pub(in crate::purge) async fn acquire_lease(
        &self,
        name: &str,
    ) -> Result<Option<RedisLeaderLease>, LogUnavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("role", name));
        RedisLeaderLease::acquire(Arc::clone(&self.shared), &appender, key).await
    }

    /// Returns the value stored last under this name.
    pub(in crate::purge) async fn fleet_value(
        &self,
        name: &str,
    ) -> Result<Option<String>, LogUnavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("word", name));
        with_reply_timeout(Box::pin(appender.client.get::<Option<String>, _>(key))).await
    }

    /// Stores a value for all nodes.
    pub(in crate::purge) async fn set_fleet_value(
        &self,
        name: &str,
        value: &str,
    ) -> Result<(), LogUnavailable> {
        let (appender, key) = (self.appender()?, self.shared.keys.named("word", name));
        let set = set(
            &self.shared,
            &appender,
            (key, value.to_owned()),
            (VALUE_TTL, SetCondition::Always),
        );
        with_reply_timeout(set).await.map(drop)
    }
}

/// Runs `SET` with a deadline. Returns none if the condition was not met.
pub(super) async fn set(
    shared: &LogState,
    appender: &Appender,
    (key, value): (String, String),
    (ttl, condition): (Duration, SetCondition),
) -> Result<Option<String>, Error> {
    let ttl = ttl.as_millis().max(1).to_string();
    let condition = if condition == SetCondition::IfAbsent { "new" } else { "any" };
    let call = (vec![key], vec![value, ttl, condition.to_owned()]);
    Box::pin(shared.run(&appender.client, &shared.scripts.set, call, REPLY_TIMEOUT)).await
}

/// Returns a random value that identifies a lease holder.
pub(super) fn random_token() -> String {
    super::stream_entry::to_hex(random())
}

pub(super) async fn with_reply_timeout<T>(
    reply: impl Future<Output = Result<T, Error>>,
) -> Result<T, LogUnavailable> {
    let reply = with_deadline(REPLY_TIMEOUT, async { Ok(reply.await?) }).await;
    reply.map_err(|failure| {
        tracing::debug!(%failure, "fleet call failed");
        LogUnavailable
    })
}

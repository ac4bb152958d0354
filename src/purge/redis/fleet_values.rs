//! Values that the nodes of a fleet share in Redis.

use std::time::Duration;

use fred::interfaces::KeysInterface as _;

use super::{
    session_error::{SessionError, with_deadline},
    state::LogState,
};
use crate::purge::LogUnavailable;

/// Timeout of a call to Redis.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to live of a shared value.
const VALUE_TTL: Duration = Duration::from_hours(24 * 90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetCondition {
    Always,
    /// Set the value only if the key does not exist.
    IfAbsent,
}

/// Stores a value for the time `ttl` if `condition` is met. Returns `None` if it is not met.
pub(super) async fn set(
    shared: &LogState,
    (key, value): (String, String),
    (ttl, condition): (Duration, SetCondition),
) -> Result<Option<String>, LogUnavailable> {
    let appender = shared.appender()?;
    let ttl = ttl.as_millis().max(1).to_string();
    let condition = if condition == SetCondition::IfAbsent { "new" } else { "any" };
    let call = (vec![key], vec![value, ttl, condition.to_owned()]);
    let run = Box::pin(shared.run(&appender, &shared.scripts.set, call, REPLY_TIMEOUT));
    run.await.map_err(|failure| unavailable(&failure))
}

/// Stores a value for all nodes.
pub(super) async fn set_value(
    shared: &LogState,
    key: String,
    value: &str,
) -> Result<(), LogUnavailable> {
    set(shared, (key, value.to_owned()), (VALUE_TTL, SetCondition::Always)).await.map(drop)
}

pub(super) async fn value(
    shared: &LogState,
    key: String,
) -> Result<Option<String>, LogUnavailable> {
    let appender = shared.appender()?;
    let reply = Box::pin(appender.get(key));
    with_deadline(REPLY_TIMEOUT, async { Ok(reply.await?) })
        .await
        .map_err(|failure| unavailable(&failure))
}

pub(super) fn unavailable(failure: &SessionError) -> LogUnavailable {
    tracing::debug!(%failure, "fleet call failed");
    LogUnavailable
}

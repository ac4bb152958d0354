//! Appends purges to the stream, and waits for the nodes to apply them.

use std::time::Instant;

use tokio::time::{sleep_until, timeout};

use super::{
    membership::AppendedRecord,
    reply::{self, AppendReply, IdempotencyResult},
    session_error::SessionError,
    state::{APPEND_TIMEOUT, LogState},
};
use crate::{
    fence::{LogId, Purge},
    purge::{
        LogRetention, LogUnavailable, PurgeReceipt,
        ack_timeout::AckDeadlines,
        identifier::{random_id, to_hex},
    },
    redis::RedisClient,
};

/// How long an idempotency key is remembered: a day, in milliseconds.
const DEDUP_WINDOW_MS: u64 = 86_400_000;

/// Appends a purge, and waits until this node has applied its record.
pub(super) async fn append(
    shared: &LogState,
    appender: &RedisClient,
    purge: &Purge,
    once: Option<String>,
) -> Result<(AppendedRecord, IdempotencyResult), LogUnavailable> {
    let until_applied = async {
        let before = shared.applied_purges.fence().log;
        let entered = append_record(shared, appender, purge, once).await.map_err(|failure| {
            tracing::warn!(%failure, "could not append a purge to the log");
            LogUnavailable
        })?;
        let (AppendedRecord { fence, .. }, _) = entered;
        // If the log has been replaced, the purge was lost with the old log.
        let has_gone_on = |log| log != fence.log && log != before;
        let mut sync_state = shared.sync_state.subscribe();
        let decided = sync_state.wait_for(|sync_state| {
            sync_state.has_reached(fence) || has_gone_on(sync_state.fence.log)
        });
        match decided.await {
            Ok(sync_state) if sync_state.has_reached(fence) => Ok(entered),
            _ => Err(LogUnavailable),
        }
    };
    timeout(APPEND_TIMEOUT, until_applied).await.unwrap_or(Err(LogUnavailable))
}

/// Waits until no node can serve the purged responses, or until the deadline.
///
/// The wait needs no further call to Redis, since a node uses a renewed lease only after it has
/// applied the record.
pub(super) async fn await_acknowledgement(
    shared: &LogState,
    appended: &AppendedRecord,
    deadlines: AckDeadlines,
) -> Result<PurgeReceipt, LogUnavailable> {
    let (mut sync_state, mut membership_changed) =
        (shared.sync_state.subscribe(), shared.membership_changed.subscribe());
    loop {
        let log = sync_state.borrow_and_update().fence.log;
        membership_changed.mark_unchanged();
        let now = Instant::now();
        let ack_status = shared.membership.lock().ack_status(appended, now);
        let Some(recheck_at) = ack_status.recheck_at else {
            shared.applied_purges.mark_acknowledged(appended.fence);
            return Ok(ack_status.receipt);
        };
        if log != appended.fence.log {
            return Err(LogUnavailable);
        }
        let deadline = deadlines.select(ack_status.awaits_live);
        if now >= deadline {
            return Ok(ack_status.receipt);
        }
        tokio::select! {
            _ = sync_state.changed() => {}
            _ = membership_changed.changed() => {}
            () = sleep_until(recheck_at.min(deadline).into()) => {}
        }
    }
}

/// Appends a purge, unless its idempotency key `once` was used before. Returns the new or the
/// earlier record.
pub(super) async fn append_record(
    shared: &LogState,
    appender: &RedisClient,
    purge: &Purge,
    once: Option<String>,
) -> Result<(AppendedRecord, IdempotencyResult), SessionError> {
    let known = shared.applied_purges.fence().seq;
    let record = [to_hex(random_id()), purge.to_json()];
    let keys = shared.keys.stream_and_nodes().into_iter().chain(once).collect();
    let entered = run_append(shared, appender, (known, String::new()), (keys, record)).await?;
    let answered = Instant::now();
    shared.update_membership(&entered.snapshot, answered);
    let ttl = shared.applied_purges.unsynced_ttl();
    let record = AppendedRecord::new(entered.fence, answered, &entered.snapshot, ttl);
    Ok((record, entered.occurrence))
}

/// Starts a new log, unless the current log may continue. The log `doubted` may not.
pub(super) async fn start_new_log(
    shared: &LogState,
    appender: &RedisClient,
    doubted: Option<LogId>,
    known: u64,
) -> Result<(), SessionError> {
    let doubted = doubted.map(|log| to_hex(log.0)).unwrap_or_default();
    let nothing = [String::new(), String::new()];
    let _last =
        run_append(shared, appender, (known, doubted), (shared.keys.stream_and_nodes(), nothing))
            .await?;
    Ok(())
}

async fn run_append(
    shared: &LogState,
    appender: &RedisClient,
    (known, doubted): (u64, String),
    (keys, [nonce, record]): (Vec<String>, [String; 2]),
) -> Result<AppendReply, SessionError> {
    let LogRetention { min_records, max_records, lifetime } = *shared.retention.lock();
    let arguments = vec![
        to_hex(random_id()),
        known.to_string(),
        doubted,
        nonce,
        record,
        Purge::boundary().to_json(),
        shared.node.to_string(),
        DEDUP_WINDOW_MS.to_string(),
        min_records.to_string(),
        max_records.to_string(),
        lifetime.as_millis().to_string(),
    ];
    let call = (keys, arguments);
    let reply = shared.run(appender, &shared.scripts.append, call, APPEND_TIMEOUT).await?;
    reply::append_reply(&reply).ok_or(SessionError::InvalidReply)
}

//! A session with Redis: two connections that end together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::{
    interfaces::{EventInterface as _, PubsubInterface as _, StreamsInterface},
    types::{Message, Value},
};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    try_join,
};

use super::{
    append::{append_record, start_new_log},
    cursor::{EntryAction, StreamCursor, SyncDecision},
    membership::MembershipSnapshot,
    reply::{self, ViewReply},
    session_error::{SessionError, with_deadline},
    state::{APPEND_TIMEOUT, LogState},
    stream_entry::{LogEntry, StreamEntry, StreamPosition},
};
use crate::{
    fence::Purge,
    purge::{WatermarkRaise, identifier::to_hex},
    redis::{RedisClient, RedisClientKind},
};

/// Maximum time for which one `XREAD` blocks.
const BLOCK_TIME: Duration = Duration::from_millis(500);
/// Interval between two views of the stream.
const VIEW_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of entries of one blocking `XREAD`; each entry may take 1 MiB.
const MAX_BLOCKING_ENTRIES: u64 = 16;
/// Number of bytes of records that are read at a time during catch-up.
const BATCH_BYTES: usize = 1 << 20;
/// Maximum number of new logs that a session starts in a row.
const MAX_NEW_LOGS: u32 = 3;

/// The position that a node has to reach before its renewed lease takes effect.
struct CatchUpGoal {
    requested_at: Instant,
    seq: u64,
    /// The membership at the time of the request; `None` if the lease was not granted.
    lease: Option<MembershipSnapshot>,
}

/// Runs a session until the session fails, and advances `cursor` with each record applied.
pub(super) async fn run_session(shared: &LogState, cursor: &mut StreamCursor) -> SessionError {
    let (tail, appender) = match open(shared).await {
        Ok(connections) => connections,
        Err(failure) => return failure,
    };
    let messages = match subscribe(shared, &appender).await {
        Ok(messages) => messages,
        Err(failure) => return failure,
    };
    let appender = Arc::new(appender);
    tokio::select! {
        failure = Box::pin(follow(shared, &tail, &appender, cursor)) => failure,
        failure = send_reports(shared, &appender) => failure,
        failure = receive_reports(shared, messages) => failure,
    }
}

async fn open(shared: &LogState) -> Result<(RedisClient, RedisClient), SessionError> {
    let connector = &shared.connector;
    let tail = Box::pin(
        connector.connect(RedisClientKind::Supervised(BLOCK_TIME + shared.reply_timeout())),
    );
    // A hundred nodes may report many purges at once, so this connection needs a large buffer.
    let appender = Box::pin(connector.connect(RedisClientKind::Subscriber(APPEND_TIMEOUT)));
    with_deadline(connector.connect_deadline(), async { Ok(try_join!(tail, appender)?) }).await
}

/// Subscribes to the position reports of other nodes.
///
/// If the ACL denies `SUBSCRIBE`, positions are delayed by up to a second, until the next view.
async fn subscribe(
    shared: &LogState,
    appender: &RedisClient,
) -> Result<Receiver<Message>, SessionError> {
    let messages = appender.message_rx();
    let channel = shared.keys.channel(shared.node);
    let subscribed = Box::pin(appender.subscribe(channel));
    match with_deadline(APPEND_TIMEOUT, async { Ok(subscribed.await) }).await? {
        Err(error) if appender.is_closed() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(
                %error,
                "SUBSCRIBE denied: purge acknowledgements are delayed by up to a second"
            );
        }
        Ok(()) => {}
    }
    Ok(messages)
}

/// Receives the position reports of other nodes.
async fn receive_reports(shared: &LogState, mut messages: Receiver<Message>) -> SessionError {
    loop {
        match messages.recv().await {
            Ok(message) => {
                if let Some((node, position)) = reply::position_report(&message.value) {
                    shared.peer_reported(node, position);
                }
            }
            // The next view contains the missed positions.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Reports this node's position to the nodes that wait for it.
async fn send_reports(shared: &LogState, appender: &RedisClient) -> SessionError {
    loop {
        shared.report_due.notified().await;
        let due_reports = shared.take_due_reports();
        let position = shared.applied_purges.fence();
        let own = [shared.node.to_string(), to_hex(position.log.0), position.seq.to_string()];
        let channels = due_reports.into_iter().map(|node| shared.keys.channel(node));
        let arguments = own.into_iter().chain(channels).collect();
        let call = (shared.keys.stream_and_nodes(), arguments);
        let report = &shared.scripts.report;
        match shared.run::<Value>(appender, report, call, APPEND_TIMEOUT).await {
            Err(SessionError::Redis(error)) if !appender.is_closed() => {
                tracing::debug!(%error, "could not report the applied position");
            }
            Err(failure) => return failure,
            Ok(_) => {}
        }
    }
}

async fn follow(
    shared: &LogState,
    tail: &RedisClient,
    appender: &Arc<RedisClient>,
    cursor: &mut StreamCursor,
) -> SessionError {
    loop {
        let round = async {
            let goal = reconcile(shared, tail, appender, cursor).await?;
            apply_entries(shared, tail, appender, cursor, &goal).await
        };
        if let Err(failure) = round.await {
            return failure;
        }
    }
}

/// Compares the cursor with the stream until the node can follow the stream. Moves the cursor or
/// starts a new log if necessary. Renews the lease with each comparison.
async fn reconcile(
    shared: &LogState,
    tail: &RedisClient,
    appender: &RedisClient,
    cursor: &mut StreamCursor,
) -> Result<CatchUpGoal, SessionError> {
    let mut is_loss_appended = false;
    for _ in 0..MAX_NEW_LOGS {
        // The time before the request, so that the lease ends on this node before other nodes
        // consider it ended.
        let requested_at = Instant::now();
        let call = (shared.keys.stream_and_nodes(), view_arguments(shared, cursor, requested_at));
        let reply = shared.run(tail, &shared.scripts.view, call, shared.reply_timeout()).await?;
        let ViewReply { view, lease } =
            reply::view_reply(&reply).ok_or(SessionError::InvalidReply)?;
        if let Some(snapshot) = &lease {
            shared.update_membership(snapshot, Instant::now());
        }
        match cursor.decide(&view) {
            SyncDecision::Continue(seq) => return Ok(CatchUpGoal { requested_at, seq, lease }),
            // Applied records are missing, and other nodes may never have received these records. A
            // loss record must inform the other nodes before this node appears in the new log.
            SyncDecision::Begin { raise: Some(WatermarkRaise::Foreign), .. }
                if !is_loss_appended && matches!(cursor, StreamCursor::At(_)) =>
            {
                append_loss(shared, appender).await?;
                is_loss_appended = true;
            }
            SyncDecision::Begin { position, raise, until } => {
                shared.begin(position.fence, raise);
                shared.publish_position();
                *cursor = StreamCursor::At(position);
                return Ok(CatchUpGoal { requested_at, seq: until, lease });
            }
            SyncDecision::StartNewLog(doubted) => {
                start_new_log(shared, appender, doubted, cursor.seq()).await?;
            }
        }
    }
    Err(SessionError::LogNotStable)
}

/// Appends a loss record, which states that earlier records may be lost.
async fn append_loss(shared: &LogState, appender: &RedisClient) -> Result<(), SessionError> {
    tracing::warn!("purge log records were lost: appending a loss record");
    append_record(shared, appender, &Purge::loss(), None).await.map(drop)
}

/// Returns the arguments of `view.lua`: this node, its position, and the nodes to restore.
fn view_arguments(shared: &LogState, cursor: &StreamCursor, now: Instant) -> Vec<String> {
    let applied = shared.applied_purges.fence();
    let own = [
        cursor.id(),
        shared.node.to_string(),
        shared.applied_purges.unsynced_ttl().as_millis().to_string(),
        to_hex(applied.log.0),
        applied.seq.to_string(),
    ];
    let restored = shared.membership.lock().to_restore(now);
    let others = restored.into_iter().flat_map(|restored| {
        let ttl = restored.ttl.as_millis().to_string();
        [restored.node.to_string(), restored.left.to_string(), ttl]
    });
    own.into_iter().chain(others).collect()
}

/// Applies existing and new entries until the next view of the stream is due.
async fn apply_entries(
    shared: &LogState,
    tail: &RedisClient,
    appender: &Arc<RedisClient>,
    cursor: &mut StreamCursor,
    goal: &CatchUpGoal,
) -> Result<(), SessionError> {
    let mut has_renewed = false;
    // Existing entries are read in batches of bounded size, and new entries as they arrive.
    let mut is_behind = true;
    loop {
        if !has_renewed && cursor.seq() >= goal.seq {
            if let Some(snapshot) = &goal.lease {
                shared.renew_lease(goal.requested_at, appender);
                if shared.misses_a_member(snapshot, Instant::now()) {
                    append_loss(shared, appender).await?;
                }
            }
            has_renewed = true;
        }
        let left = VIEW_INTERVAL.saturating_sub(goal.requested_at.elapsed()).min(BLOCK_TIME);
        let left = u64::try_from(left.as_millis()).unwrap_or_default();
        if left == 0 {
            return Ok(());
        }
        let entries = if is_behind {
            read_batch(shared, tail, cursor.id()).await?
        } else {
            read_blocking(shared, tail, (cursor.id(), left)).await?
        };
        is_behind = if is_behind {
            !entries.is_empty()
        } else {
            entries.len() as u64 >= MAX_BLOCKING_ENTRIES
        };
        let mut appended_by = Vec::new();
        for entry in entries {
            let (StreamCursor::At(position), Some(log_entry)) =
                (&mut *cursor, entry.to_log_entry())
            else {
                *cursor = StreamCursor::Lost;
                break;
            };
            appended_by.extend(log_entry.by);
            apply_entry(shared, position, log_entry);
        }
        shared.queue_reports(appended_by.into_iter());
        shared.publish_position();
        if *cursor == StreamCursor::Lost {
            return Ok(());
        }
    }
}

/// Reads one batch of entries after the entry `after`.
async fn read_batch(
    shared: &LogState,
    tail: &RedisClient,
    after: String,
) -> Result<Vec<StreamEntry>, SessionError> {
    let call = (vec![shared.keys.log.clone()], vec![after, BATCH_BYTES.to_string()]);
    let reply: Value = shared.run(tail, &shared.scripts.read, call, shared.reply_timeout()).await?;
    reply::read_entries(&reply).ok_or(SessionError::InvalidReply)
}

/// Reads the next few entries after the entry `after`. Waits up to `millis` milliseconds for them.
async fn read_blocking(
    shared: &LogState,
    tail: &RedisClient,
    (after, millis): (String, u64),
) -> Result<Vec<StreamEntry>, SessionError> {
    let reply =
        Box::pin(tail.xread(Some(MAX_BLOCKING_ENTRIES), Some(millis), &shared.keys.log, after));
    let reply: Value =
        with_deadline(shared.reply_timeout() + BLOCK_TIME, async { Ok(reply.await?) }).await?;
    reply::xread_entries(&reply).ok_or(SessionError::InvalidReply)
}

/// Applies an entry, and raises the low watermark first if necessary.
fn apply_entry(shared: &LogState, position: &mut StreamPosition, log_entry: LogEntry) {
    match position.action_for(&log_entry) {
        EntryAction::Skip => return,
        EntryAction::Apply => {}
        EntryAction::BeginAndApply(fence, raise) => shared.begin(fence, Some(raise)),
    }
    shared.applied_purges.apply(&log_entry.record);
    if log_entry.record.purge.is_loss() {
        shared.note_loss();
    }
    *position = log_entry.position;
}

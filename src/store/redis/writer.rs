//! The writer executes queued writes in order, over one connection.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::{
    interfaces::KeysInterface as _,
    types::{Expiration, Value},
};
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};

use super::{
    breaker::Generation,
    chunks,
    connection::{BatchingConnection, TrafficClass},
    error::CommandError,
    inner::StoreInner,
    leases,
    queue::QueuedWrite,
    scripts::{self, millis},
    sealing::SealContext,
};
use crate::{
    entry::{
        Entry, VARY_TTL, VariantIndex,
        codec::{self, DecodedHead, EncodeOptions, EncodedEntry},
    },
    redis::ScriptCall,
    telemetry::{DropCause, StoreOperationOutcome},
};

const BATCH: usize = 64;

pub(super) async fn run(inner: Arc<StoreInner>) {
    let mut connection = None;
    loop {
        let taken = inner.queue.take(BATCH).await;
        let Some(generation) = wait_for_permit(&inner).await else {
            let writes = taken.writes.iter();
            writes
                .for_each(|write| inner.metrics.count_dropped(write.operation(), DropCause::Open));
            continue;
        };
        let connection = connection_for(&inner, &mut connection, generation);
        execute_all(&inner, &connection, &coalesce(&taken.writes)).await;
    }
}

/// Executes a batch, with as much concurrency as the order of its writes allows.
///
/// A script that Redis has not cached yet is sent twice, so a later command may overtake it.
/// Therefore, earlier writes complete before an entry is removed or a lease ends.
async fn execute_all(inner: &StoreInner, connection: &BatchingConnection, writes: &[QueuedWrite]) {
    let mut started_writes = Vec::with_capacity(writes.len());
    let mut releases = Vec::new();
    for write in writes {
        match write {
            QueuedWrite::ReleaseLease { .. } => releases.push(execute(inner, connection, write)),
            QueuedWrite::Remove { .. } => {
                join_all(started_writes.drain(..)).await;
                started_writes.push(execute(inner, connection, write));
            }
            _ if is_large(write) => {
                join_all(started_writes.drain(..)).await;
                execute(inner, connection, write).await;
            }
            _ => started_writes.push(execute(inner, connection, write)),
        }
    }
    join_all(started_writes).await;
    join_all(releases).await;
}

/// Merges all additions to the same index into one write, because concurrent additions would
/// conflict.
fn coalesce(writes: &[QueuedWrite]) -> Vec<QueuedWrite> {
    let mut indexes: HashMap<u128, usize> = HashMap::new();
    let mut left: Vec<QueuedWrite> = Vec::with_capacity(writes.len());
    for write in writes {
        if let QueuedWrite::AddVariants { digest, variants } = write {
            let index = *indexes.entry(*digest).or_insert(left.len());
            if let Some(QueuedWrite::AddVariants { variants: known, .. }) = left.get_mut(index) {
                Arc::make_mut(known).merge(variants, |_| false);
                continue;
            }
        }
        left.push(write.clone());
    }
    left
}

/// Returns the current generation, or `None` if the breaker is open. Before the first probe, waits
/// for its result.
async fn wait_for_permit(inner: &StoreInner) -> Option<Generation> {
    let mut permit = inner.breaker.permit();
    while permit.is_none() && !inner.breaker.is_open() {
        permit = inner.breaker.permit_within(Duration::from_secs(1)).await;
    }
    permit
}

fn connection_for(
    inner: &StoreInner,
    connection: &mut Option<Arc<BatchingConnection>>,
    generation: Generation,
) -> Arc<BatchingConnection> {
    let usable = connection.take().filter(|connection| connection.is_usable(generation));
    let usable = usable.unwrap_or_else(|| inner.pool.open(generation, TrafficClass::Bulk));
    Arc::clone(connection.insert(usable))
}

/// Returns whether a write is large enough to be executed alone.
fn is_large(write: &QueuedWrite) -> bool {
    let limit = u64::from(chunks::SIZE.get());
    matches!(write, QueuedWrite::Put { entry, .. } if entry.heap_size() as u64 > limit)
}

async fn execute(inner: &StoreInner, connection: &BatchingConnection, write: &QueuedWrite) {
    let started = Instant::now();
    let result = match write {
        QueuedWrite::Put { digest, entry, ttl } => {
            put(inner, connection, *digest, entry, *ttl).await
        }
        QueuedWrite::AddVariants { digest, variants } => {
            add_variants(inner, connection, *digest, variants).await
        }
        QueuedWrite::Remove { digest } => unlink(connection, inner.keys.entry(*digest)).await,
        QueuedWrite::ReleaseLease { digest, token, result } => {
            leases::release(inner, connection, *digest, token, *result).await
        }
    };
    inner.breaker.record_write(&result);
    let outcome = result.map_or_else(|error| error.outcome(), |()| StoreOperationOutcome::Ok);
    inner.metrics.observe(write.operation(), outcome, started.elapsed());
}

async fn put(
    inner: &StoreInner,
    connection: &BatchingConnection,
    digest: u128,
    entry: &Entry,
    ttl: Duration,
) -> Result<(), CommandError> {
    let options = EncodeOptions {
        compress_above: inner.settings.compress_above,
        chunk: chunks::SIZE,
        body_id: fastrand::u64(..),
        clock_offset: inner.clock.offset(),
    };
    let context = SealContext::new(digest, entry.key_text());
    let written = inner.encode(context, entry, options).await;
    let EncodedEntry { head, chunks } = written.ok_or(CommandError::EncryptionFailed)?;
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let keys = inner.keys.chunks(digest, options.body_id, count);
    let sent = stream::iter(keys.zip(chunks)).map(|(key, chunk)| {
        let expiration = expiration(ttl);
        connection.call(|session| async move {
            session.set::<(), _, _>(key, chunk, Some(expiration), None, false).await
        })
    });
    sent.buffered(chunks::MAX_CONCURRENT).try_collect::<Vec<()>>().await?;
    let head = Bytes::from(head);
    let lasts = [millis(ttl), millis(VARY_TTL)].map(Value::from);
    let arguments = [Value::from(head.clone())].into_iter().chain(lasts).collect();
    let keys = vec![inner.keys.entry(digest)];
    let written: Option<Bytes> =
        connection.run(&scripts::PUT, ScriptCall { keys, arguments }, None).await?;
    // The chunks of the replaced entry are orphaned; or the new chunks, if the new entry was not
    // stored.
    let orphaned = written.unwrap_or(head);
    unlink_chunks(inner, connection, context, &orphaned).await
}

/// Maximum number of attempts to merge an index that other nodes change concurrently.
const MAX_MERGE_ATTEMPTS: usize = 16;

/// Merges variants into the stored index by compare-and-swap.
async fn add_variants(
    inner: &StoreInner,
    connection: &BatchingConnection,
    digest: u128,
    variants: &Arc<VariantIndex>,
) -> Result<(), CommandError> {
    for _ in 0..MAX_MERGE_ATTEMPTS {
        let key = inner.keys.entry(digest);
        let found =
            connection.call(|session| async move { session.get::<Option<Bytes>, _>(key).await });
        let found = match found.await {
            // A stored value that is not a string is replaced.
            Err(CommandError::Unexpected(_)) => None,
            found => found?,
        };
        let found = found.unwrap_or_default();
        let context = SealContext::new(digest, &variants.target);
        let (index, lost) = merged_index(inner, context, &found, variants);
        if replace_if_unchanged(inner, connection, (context, &found), index).await? {
            for variant in lost {
                unlink(connection, inner.keys.entry(variant)).await?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Merges variants into the index `found`. Returns the result, and the variants removed to make
/// room.
fn merged_index(
    inner: &StoreInner,
    context: SealContext,
    found: &[u8],
    added: &Arc<VariantIndex>,
) -> (Entry, Vec<u128>) {
    if let Ok(DecodedHead::Entry(entry)) = inner.read_head_inline(context, found)
        && let Entry::Variants(mut index) = entry.with_clock_offset(-inner.clock.offset())
        && index.target == added.target
    {
        let lost = Arc::make_mut(&mut index).merge(added, |_| false);
        return (Entry::Variants(index), lost);
    }
    (Entry::Variants(Arc::clone(added)), Vec::new())
}

/// Replaces the entry if the stored entry is still `found`. Returns whether it was replaced.
async fn replace_if_unchanged(
    inner: &StoreInner,
    connection: &BatchingConnection,
    (context, found): (SealContext, &Bytes),
    index: Entry,
) -> Result<bool, CommandError> {
    let clock_offset = inner.clock.offset();
    let options =
        EncodeOptions { compress_above: usize::MAX, chunk: chunks::SIZE, body_id: 0, clock_offset };
    let written = inner.encode(context, &index, options).await;
    let new = written.ok_or(CommandError::EncryptionFailed)?.head;
    let ttl = inner.ttl(&index);
    let before = found.slice(..found.len().min(codec::PREFIX_LENGTH));
    let arguments = vec![Bytes::from(new).into(), millis(ttl).into(), before.into()];
    let keys = vec![inner.keys.entry(context.digest)];
    let call = ScriptCall { keys, arguments };
    Ok(connection.run::<i64>(&scripts::REPLACE, call, None).await? == 1)
}

/// Removes the chunks that belong to an entry's head, if there are any.
async fn unlink_chunks(
    inner: &StoreInner,
    connection: &BatchingConnection,
    context: SealContext,
    head: &[u8],
) -> Result<(), CommandError> {
    let Ok(DecodedHead::Chunked(old)) = inner.read_head_inline(context.unchecked(), head) else {
        return Ok(());
    };
    for key in inner.keys.chunks(context.digest, old.body_id(), old.count()) {
        unlink(connection, key).await?;
    }
    Ok(())
}

async fn unlink(connection: &BatchingConnection, key: Bytes) -> Result<(), CommandError> {
    connection.call(|session| async move { session.unlink(key).await }).await
}

fn expiration(ttl: Duration) -> Expiration {
    Expiration::PX(millis(ttl))
}

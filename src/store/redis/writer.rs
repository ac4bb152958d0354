//! The writer: what waits in the queue goes to Redis, in order, over one connection.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::{interfaces::KeysInterface as _, types::Expiration};
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};

use super::{
    Shared, claims,
    fault::Fault,
    guard::Epoch,
    lane::{Lane, Load},
    queue::Write,
};
use crate::{
    entry::{
        Entry,
        codec::{self, Decoded, Encoded, Packing},
    },
    telemetry::{Dropped, Operation, Outcome},
};

/// Writes that go out together.
const BATCH: usize = 64;
/// The longest content that stands in its entry's own value, and the length of the parts where it is
/// longer: what a small answer may have to wait behind.
const CHUNK: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();
/// Parts of one body that are on their way at once.
const CHUNKS: usize = 8;

/// Writes what comes, for ever.
pub async fn write(shared: Arc<Shared>) {
    let mut lane = None;
    loop {
        let taken = shared.queue.take(BATCH).await;
        let Some(epoch) = admitted(&shared).await else {
            let writes = taken.writes.iter();
            writes.for_each(|write| shared.metrics.dropped(write.operation(), Dropped::Open));
            continue;
        };
        let lane = lane_for(&shared, &mut lane, epoch);
        let mut small = Vec::with_capacity(taken.writes.len());
        for write in &taken.writes {
            if is_large(write) {
                join_all(small.drain(..)).await;
                carry_out(&shared, &lane, write).await;
            } else {
                small.push(carry_out(&shared, &lane, write));
            }
        }
        join_all(small).await;
    }
}

/// The epoch, once it is known whether there is one.
async fn admitted(shared: &Shared) -> Option<Epoch> {
    let mut decided = shared.guard.admits();
    while decided.is_none() && !shared.guard.is_open() {
        decided = shared.guard.admits_within(Duration::from_secs(1)).await;
    }
    decided
}

fn lane_for(shared: &Shared, lane: &mut Option<Arc<Lane>>, epoch: Epoch) -> Arc<Lane> {
    let usable = lane.take().filter(|lane| lane.is_usable(epoch));
    let usable = usable.unwrap_or_else(|| shared.lanes.begin(epoch, Load::Large));
    Arc::clone(lane.insert(usable))
}

/// Whether a write takes long enough to be done apart from others.
fn is_large(write: &Write) -> bool {
    let length = match write {
        Write::Put { entry, .. } => entry.heap_size(),
        Write::Remove { .. } | Write::Land { .. } => 0,
    };
    length as u64 > u64::from(CHUNK.get())
}

async fn carry_out(shared: &Shared, lane: &Lane, write: &Write) {
    let started = Instant::now();
    let result = match write {
        Write::Put { digest, entry, keep } => put(shared, lane, *digest, entry, *keep).await,
        Write::Remove { digest } => {
            let key = shared.keys.entry(*digest);
            lane.ask(|session| async move { session.unlink::<(), _>(key).await }).await
        }
        Write::Land { digest, token, landed } => {
            claims::land(shared, lane, *digest, token, *landed).await
        }
    };
    shared.guard.note_write(&result);
    let outcome = result.map_or_else(|fault| fault.outcome(), |()| Outcome::Ok);
    shared.metrics.observe(write.operation(), outcome, started.elapsed());
}

async fn put(
    shared: &Shared,
    lane: &Lane,
    digest: u128,
    entry: &Entry,
    keep: Duration,
) -> Result<(), Fault> {
    let packing = Packing {
        compress_above: shared.settings.compress_above,
        chunk: CHUNK,
        generation: super::random(),
    };
    let Encoded { head, chunks } = encoded(entry, packing).await;
    let (key, keep) = (shared.keys.entry(digest), expiration(keep));
    if chunks.is_empty() {
        let head = Bytes::from(head);
        let set = |session: fred::clients::Client| async move {
            session.set::<(), _, _>(key, head, Some(keep), None, false).await
        };
        return lane.ask(set).await;
    }
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let keys = shared.keys.chunks(digest, packing.generation, count);
    let sent = stream::iter(keys.zip(chunks)).map(|(key, chunk)| {
        let keep = keep.clone();
        lane.ask(|session| async move {
            session.set::<(), _, _>(key, chunk, Some(keep), None, false).await
        })
    });
    sent.buffered(CHUNKS).try_collect::<Vec<()>>().await?;
    let head = Bytes::from(head);
    let replaced: Option<Bytes> = lane
        .ask(|session| async move { session.set(key, head, Some(keep), None, true).await })
        .await?;
    unlink_chunks(shared, lane, digest, replaced).await
}

/// Takes away the parts of a body that was replaced.
async fn unlink_chunks(
    shared: &Shared,
    lane: &Lane,
    digest: u128,
    replaced: Option<Bytes>,
) -> Result<(), Fault> {
    let limit = shared.settings.max_entry;
    let decoded = replaced.and_then(|head| codec::decode(&head, limit));
    let Some(Decoded::Chunked(old)) = decoded else { return Ok(()) };
    for key in shared.keys.chunks(digest, old.generation(), old.count()) {
        lane.ask(|session| async move { session.unlink::<(), _>(key).await }).await?;
    }
    Ok(())
}

/// Compressing takes its time where there is much: then it is done elsewhere.
async fn encoded(entry: &Entry, packing: Packing) -> Encoded {
    if entry.heap_size() as u64 <= u64::from(CHUNK.get()) {
        return codec::encode(entry, packing);
    }
    let moved = entry.clone();
    match tokio::task::spawn_blocking(move || codec::encode(&moved, packing)).await {
        Ok(encoded) => encoded,
        Err(_) => codec::encode(entry, packing),
    }
}

fn expiration(keep: Duration) -> Expiration {
    Expiration::PX(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX).max(1))
}

impl Write {
    const fn operation(&self) -> Operation {
        match self {
            Self::Put { .. } => Operation::Put,
            Self::Remove { .. } => Operation::Remove,
            Self::Land { .. } => Operation::Land,
        }
    }
}

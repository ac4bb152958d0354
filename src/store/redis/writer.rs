//! The writer: what waits in the queue goes to Redis, in order, over one connection.

use std::{
    collections::HashMap,
    num::NonZeroU32,
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
    Shared, claims,
    fault::Fault,
    guard::Epoch,
    lane::{Lane, Load},
    queue::Write,
    scripts,
    sealing::Subject,
};
use crate::{
    entry::{
        Entry, LEARNED, Variants,
        codec::{self, Decoded, Encoded, Packing},
    },
    redis::Call,
    telemetry::{Dropped, Operation, Outcome},
};

/// Writes that go out together.
const BATCH: usize = 64;
/// The longest content that stands in its entry's own value, and the length of the parts where it is
/// longer: what a small answer may have to wait behind.
pub const CHUNK: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();
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
        carry_out_all(&shared, &lane, &together(&taken.writes)).await;
    }
}

/// Carries out writes, as many at once as keep their order. A script that Redis does not know yet is sent
/// twice, so what was begun before is finished before an entry is removed, or a lease ends.
async fn carry_out_all(shared: &Shared, lane: &Lane, writes: &[Write]) {
    let mut begun = Vec::with_capacity(writes.len());
    let mut lands = Vec::new();
    for write in writes {
        match write {
            Write::Land { .. } => lands.push(carry_out(shared, lane, write)),
            Write::Remove { .. } => {
                join_all(begun.drain(..)).await;
                begun.push(carry_out(shared, lane, write));
            }
            _ if is_large(write) => {
                join_all(begun.drain(..)).await;
                carry_out(shared, lane, write).await;
            }
            _ => begun.push(carry_out(shared, lane, write)),
        }
    }
    join_all(begun).await;
    join_all(lands).await;
}

/// The writes, with all that is added to one index as one of them: they would only be in each other's way.
fn together(writes: &[Write]) -> Vec<Write> {
    let mut indexes: HashMap<u128, usize> = HashMap::new();
    let mut left: Vec<Write> = Vec::with_capacity(writes.len());
    for write in writes {
        if let Write::Place { digest, variants } = write {
            let place = *indexes.entry(*digest).or_insert(left.len());
            if let Some(Write::Place { variants: known, .. }) = left.get_mut(place) {
                Arc::make_mut(known).merge(variants, |_| false);
                continue;
            }
        }
        left.push(write.clone());
    }
    left
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
        Write::Place { .. } | Write::Remove { .. } | Write::Land { .. } => 0,
    };
    length as u64 > u64::from(CHUNK.get())
}

async fn carry_out(shared: &Shared, lane: &Lane, write: &Write) {
    let started = Instant::now();
    let result = match write {
        Write::Put { digest, entry, keep } => put(shared, lane, *digest, entry, *keep).await,
        Write::Place { digest, variants } => place(shared, lane, *digest, variants).await,
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
        ahead: shared.time.ahead(),
    };
    let subject = Subject::new(digest, entry.key_text());
    let written = shared.written(subject, entry, packing).await;
    let Encoded { head, chunks } = written.ok_or(Fault::Unsealed)?;
    let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
    let keys = shared.keys.chunks(digest, packing.generation, count);
    let sent = stream::iter(keys.zip(chunks)).map(|(key, chunk)| {
        let keep = expiration(keep);
        lane.ask(|session| async move {
            session.set::<(), _, _>(key, chunk, Some(keep), None, false).await
        })
    });
    sent.buffered(CHUNKS).try_collect::<Vec<()>>().await?;
    let head = Bytes::from(head);
    let lasts = [millis(keep), millis(LEARNED)].map(Value::from);
    let arguments = [Value::from(head.clone())].into_iter().chain(lasts).collect();
    let keys = vec![shared.keys.entry(digest)];
    let written: Option<Bytes> = lane.run(&scripts::PUT, Call { keys, arguments }, None).await?;
    // What was not written leaves its own parts behind.
    let without_use = written.unwrap_or(head);
    unlink_chunks(shared, lane, subject, &without_use).await
}

/// How often an index is read and merged anew, where other nodes write it in between.
const MERGES: usize = 16;

/// Merges variants into the index that is there, whatever others add to it meanwhile.
async fn place(
    shared: &Shared,
    lane: &Lane,
    digest: u128,
    variants: &Arc<Variants>,
) -> Result<(), Fault> {
    for _ in 0..MERGES {
        let key = shared.keys.entry(digest);
        let found = lane.ask(|session| async move { session.get::<Option<Bytes>, _>(key).await });
        let found = match found.await {
            // No string at all: it is replaced.
            Err(Fault::Strange(_)) => None,
            found => found?,
        };
        let found = found.unwrap_or_default();
        let subject = Subject::new(digest, &variants.target);
        let (index, lost) = with(shared, subject, &found, variants);
        if replace(shared, lane, (subject, &found), index).await? {
            let keys: Vec<Bytes> = lost.into_iter().map(|lost| shared.keys.entry(lost)).collect();
            for key in keys {
                lane.ask(|session| async move { session.unlink::<(), _>(key).await }).await?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// An index with what is added to it, and the variants that lose their places.
fn with(
    shared: &Shared,
    subject: Subject,
    found: &[u8],
    added: &Arc<Variants>,
) -> (Entry, Vec<u128>) {
    let mut index = match shared.read_head_here(subject, found) {
        Ok(Decoded::Entry(entry)) => match entry.by_clock_ahead(-shared.time.ahead()) {
            Entry::Variants(index) if index.target == added.target => index,
            _ => return (Entry::Variants(Arc::clone(added)), Vec::new()),
        },
        _ => return (Entry::Variants(Arc::clone(added)), Vec::new()),
    };
    let lost = Arc::make_mut(&mut index).merge(added, |_| false);
    (Entry::Variants(index), lost)
}

/// Whether the entry was still what was found, and is replaced.
async fn replace(
    shared: &Shared,
    lane: &Lane,
    (subject, found): (Subject, &Bytes),
    index: Entry,
) -> Result<bool, Fault> {
    let ahead = shared.time.ahead();
    let packing = Packing { compress_above: usize::MAX, chunk: CHUNK, generation: 0, ahead };
    let written = shared.written(subject, &index, packing).await;
    let new = written.ok_or(Fault::Unsealed)?.head;
    let keep = shared.keep(&index);
    let before = found.slice(..found.len().min(codec::PREFIX));
    let arguments = vec![Bytes::from(new).into(), millis(keep).into(), before.into()];
    let keys = vec![shared.keys.entry(subject.digest)];
    let call = Call { keys, arguments };
    Ok(lane.run::<i64>(&scripts::REPLACE, call, None).await? == 1)
}

/// Takes away the parts of a body whose head this is, if it is one.
async fn unlink_chunks(
    shared: &Shared,
    lane: &Lane,
    subject: Subject,
    head: &[u8],
) -> Result<(), Fault> {
    let Ok(Decoded::Chunked(old)) = shared.read_head_here(subject.as_found(), head) else {
        return Ok(());
    };
    for key in shared.keys.chunks(subject.digest, old.generation(), old.count()) {
        lane.ask(|session| async move { session.unlink::<(), _>(key).await }).await?;
    }
    Ok(())
}

fn expiration(keep: Duration) -> Expiration {
    Expiration::PX(millis(keep))
}

fn millis(keep: Duration) -> i64 {
    i64::try_from(keep.as_millis()).unwrap_or(i64::MAX).max(1)
}

impl Write {
    const fn operation(&self) -> Operation {
        match self {
            Self::Put { .. } | Self::Place { .. } => Operation::Put,
            Self::Remove { .. } => Operation::Remove,
            Self::Land { .. } => Operation::Land,
        }
    }
}

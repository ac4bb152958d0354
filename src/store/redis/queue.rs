//! The queue of writes to Redis, bounded in number and bytes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    entry::{Entry, VariantIndex},
    store::LeaseResult,
    telemetry::{StoreMetrics, StoreOperation},
};

const MAX_ENTRIES: usize = 8192;
/// The maximum number of bytes of entries that are queued or being written.
const MAX_BYTES: usize = 64 << 20;
/// The maximum number of queued writes. Writes without an entry take almost no memory.
const MAX_WRITES: usize = 4 * MAX_ENTRIES;

#[derive(Debug, Clone)]
pub(super) enum QueuedWrite {
    Put {
        digest: u128,
        entry: Entry,
        ttl: Duration,
    },
    /// Adds variants to the index of their target.
    AddVariants {
        digest: u128,
        variants: Arc<VariantIndex>,
    },
    Remove {
        digest: u128,
    },
    /// Ends a lease; the token proves ownership.
    ReleaseLease {
        digest: u128,
        token: String,
        result: LeaseResult,
    },
}

/// A queue of writes in order of arrival.
///
/// Queued entries can be looked up, so this node never reads an entry that it has replaced.
pub(super) struct WriteQueue {
    state: Mutex<PendingWrites>,
    /// The number of digests in `state.pending`, so that a lookup in an empty queue takes no lock.
    pending: AtomicUsize,
    removals: AtomicU64,
    queued: Notify,
    written: Notify,
    metrics: Arc<StoreMetrics>,
}

#[derive(Default)]
struct PendingWrites {
    writes: VecDeque<QueuedWrite>,
    /// The values that keys will have after all queued writes, by key digest.
    pending: HashMap<u128, PendingEntry>,
    entries: usize,
    /// The total size of entries that are queued or being written, in bytes.
    bytes: usize,
}

struct PendingEntry {
    entry: Option<Entry>,
    writes: usize,
}

/// The value that the key with a digest will have after all queued writes.
#[derive(Debug)]
pub(super) enum PendingValue {
    /// No queued write concerns the digest.
    Unchanged,
    /// The last queued write stores this entry.
    Entry(Entry),
    /// The last queued write removes the entry.
    Removed,
}

/// Writes taken from the queue. The writes count as queued until the batch is dropped.
pub(super) struct WriteBatch<'a> {
    pub writes: Vec<QueuedWrite>,
    queue: &'a WriteQueue,
}

impl WriteQueue {
    pub(super) fn new(metrics: Arc<StoreMetrics>) -> Self {
        Self {
            state: Mutex::default(),
            pending: AtomicUsize::new(0),
            removals: AtomicU64::new(0),
            queued: Notify::new(),
            written: Notify::new(),
            metrics,
        }
    }

    /// Appends a write. Returns `false` if the queue is full.
    pub(super) fn push(&self, write: QueuedWrite) -> bool {
        let mut state = self.state.lock();
        if state.has_no_room(&write) {
            return false;
        }
        state.count_in(&write);
        state.writes.push_back(write);
        self.update_metrics(&state);
        drop(state);
        self.queued.notify_one();
        true
    }

    /// Returns the value that the key with this digest will have after all queued writes.
    pub(super) fn pending(&self, digest: u128) -> PendingValue {
        if self.pending.load(Acquire) == 0 {
            return PendingValue::Unchanged;
        }
        match self.state.lock().pending.get(&digest) {
            None => PendingValue::Unchanged,
            Some(PendingEntry { entry: Some(entry), .. }) => PendingValue::Entry(entry.clone()),
            Some(PendingEntry { entry: None, .. }) => PendingValue::Removed,
        }
    }

    /// Returns a number that changes with each removal.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Acquire)
    }

    /// Changes the number that [`removals`](Self::removals) returns.
    ///
    /// Must be called before any other effect of a removal, even if the queue is full.
    pub(super) fn note_removal(&self) {
        self.removals.fetch_add(1, AcqRel);
    }

    /// Waits for writes, and takes the next writes from the queue: at least one, at most `max`.
    pub(super) async fn take(&self, max: usize) -> WriteBatch<'_> {
        loop {
            if let Some(taken) = self.take_now(max) {
                return taken;
            }
            self.queued.notified().await;
        }
    }

    pub(super) async fn wait_empty(&self) {
        loop {
            let written = self.written.notified();
            if self.pending.load(Acquire) == 0 && self.state.lock().writes.is_empty() {
                return;
            }
            written.await;
        }
    }

    fn take_now(&self, max: usize) -> Option<WriteBatch<'_>> {
        let mut state = self.state.lock();
        if state.writes.is_empty() {
            return None;
        }
        let count = max.min(state.writes.len());
        let writes: Vec<QueuedWrite> = state.writes.drain(..count).collect();
        state.entries -= writes.iter().filter(|write| write.is_entry()).count();
        self.update_metrics(&state);
        Some(WriteBatch { writes, queue: self })
    }

    fn update_metrics(&self, state: &PendingWrites) {
        self.pending.store(state.pending.len(), Release);
        self.metrics.queue_writes.set(i64::try_from(state.writes.len()).unwrap_or(i64::MAX));
        self.metrics.queue_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
    }
}

impl PendingWrites {
    fn has_no_room(&self, write: &QueuedWrite) -> bool {
        let bytes = write.bytes();
        self.writes.len() >= MAX_WRITES
            || (write.is_entry() && self.entries >= MAX_ENTRIES)
            || (bytes > 0 && self.bytes > 0 && self.bytes + bytes > MAX_BYTES)
    }

    fn count_in(&mut self, write: &QueuedWrite) {
        self.bytes += write.bytes();
        self.entries += usize::from(write.is_entry());
        if let Some((digest, entry)) = write.resulting_value() {
            let pending =
                self.pending.entry(digest).or_insert(PendingEntry { entry: None, writes: 0 });
            pending.entry = match entry {
                Some(Entry::Variants(added)) => {
                    merge_variants(pending.entry.take(), Some(added)).map(Entry::Variants)
                }
                entry => entry,
            };
            pending.writes += 1;
        }
    }

    fn count_out(&mut self, write: &QueuedWrite) {
        self.bytes -= write.bytes();
        let Some((digest, _)) = write.resulting_value() else { return };
        if let Some(pending) = self.pending.get_mut(&digest) {
            pending.writes -= 1;
            if pending.writes == 0 {
                self.pending.remove(&digest);
            }
        }
    }
}

impl Drop for WriteBatch<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        self.writes.iter().for_each(|write| state.count_out(write));
        self.queue.update_metrics(&state);
        drop(state);
        self.queue.written.notify_waiters();
    }
}

impl QueuedWrite {
    /// Returns the operation under which metrics count this write.
    pub(super) const fn operation(&self) -> StoreOperation {
        match self {
            Self::Put { .. } | Self::AddVariants { .. } => StoreOperation::Put,
            Self::Remove { .. } => StoreOperation::Remove,
            Self::ReleaseLease { .. } => StoreOperation::Publish,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { entry, .. } => entry.heap_size(),
            Self::AddVariants { variants, .. } => variants.heap_size(),
            Self::Remove { .. } | Self::ReleaseLease { .. } => 0,
        }
    }

    fn is_entry(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::AddVariants { .. })
    }

    /// Returns the digest that the write changes, and its new value (`None` if removed). Returns
    /// `None` if the write releases a lease.
    fn resulting_value(&self) -> Option<(u128, Option<Entry>)> {
        match self {
            Self::Put { digest, entry, .. } => Some((*digest, Some(entry.clone()))),
            Self::AddVariants { digest, variants } => {
                Some((*digest, Some(Entry::Variants(Arc::clone(variants)))))
            }
            Self::Remove { digest } => Some((*digest, None)),
            Self::ReleaseLease { .. } => None,
        }
    }
}

/// Merges the index `added` into `found`. If only one of them is an index, returns that index.
pub(super) fn merge_variants(
    found: Option<Entry>,
    added: Option<Arc<VariantIndex>>,
) -> Option<Arc<VariantIndex>> {
    match (found, added) {
        (Some(Entry::Variants(mut found)), Some(added)) => {
            Arc::make_mut(&mut found).merge(&added, |_| false);
            Some(found)
        }
        (Some(Entry::Variants(found)), None) => Some(found),
        (_, added) => added,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::CacheKey, telemetry::Metrics};

    fn put(digest: u128, bytes: usize) -> QueuedWrite {
        let key = CacheKey::from_text(&vec![b'x'; bytes]);
        let entry = Entry::Variants(Arc::new(VariantIndex::new(&key)));
        QueuedWrite::Put { digest, entry, ttl: Duration::from_mins(1) }
    }

    fn digests(taken: &WriteBatch<'_>) -> Vec<u128> {
        let digest = |write: &QueuedWrite| match write {
            QueuedWrite::Put { digest, .. }
            | QueuedWrite::AddVariants { digest, .. }
            | QueuedWrite::Remove { digest }
            | QueuedWrite::ReleaseLease { digest, .. } => *digest,
        };
        taken.writes.iter().map(digest).collect()
    }

    #[tokio::test]
    async fn writes_keep_their_order() {
        let queue = WriteQueue::new(Metrics::new().for_redis());
        for digest in 0..5 {
            assert!(queue.push(QueuedWrite::Remove { digest }));
        }
        assert_eq!(digests(&queue.take(3).await), [0, 1, 2]);
        assert_eq!(digests(&queue.take(3).await), [3, 4]);
    }

    #[tokio::test]
    async fn bytes_count_until_they_are_written() {
        let queue = WriteQueue::new(Metrics::new().for_redis());
        assert!(queue.push(put(1, MAX_BYTES / 2)));
        assert!(queue.push(put(2, MAX_BYTES / 4)));
        assert!(!queue.push(put(3, MAX_BYTES / 2)), "no room");
        assert!(queue.push(QueuedWrite::Remove { digest: 3 }), "what weighs nothing still goes in");
        let taken = queue.take(2).await;
        assert!(!queue.push(put(4, MAX_BYTES / 2)), "what is on its way still takes its room");
        drop(taken);
        assert!(queue.push(put(4, MAX_BYTES / 2)));
    }

    #[tokio::test]
    async fn what_waits_can_be_looked_up_until_it_is_written() {
        let queue = WriteQueue::new(Metrics::new().for_redis());
        assert!(matches!(queue.pending(1), PendingValue::Unchanged));
        queue.push(put(1, 10));
        queue.push(QueuedWrite::Remove { digest: 2 });
        assert!(matches!(queue.pending(1), PendingValue::Entry(_)));
        assert!(matches!(queue.pending(2), PendingValue::Removed));
        let first = queue.take(1).await;
        queue.push(QueuedWrite::Remove { digest: 1 });
        drop(first);
        assert!(matches!(queue.pending(1), PendingValue::Removed), "the last word counts");
        drop(queue.take(2).await);
        assert!(matches!(queue.pending(1), PendingValue::Unchanged));
        assert!(matches!(queue.pending(2), PendingValue::Unchanged));
        queue.wait_empty().await;
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let queue = WriteQueue::new(Metrics::new().for_redis());
        let taken =
            (0..MAX_WRITES).take_while(|digest| queue.push(put(*digest as u128, 1))).count();
        assert_eq!(taken, MAX_ENTRIES);
        let removed =
            (0..u128::MAX).take_while(|digest| queue.push(QueuedWrite::Remove { digest: *digest }));
        assert_eq!(removed.count(), MAX_WRITES - MAX_ENTRIES);
    }

    #[tokio::test]
    async fn an_entry_larger_than_the_queue_goes_through_alone() {
        let queue = WriteQueue::new(Metrics::new().for_redis());
        assert!(queue.push(put(1, MAX_BYTES + 1)));
        assert!(!queue.push(put(2, 1)));
    }
}

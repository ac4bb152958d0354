//! What is still to be written: one queue, bounded in number and in bytes.

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
    entry::{Entry, Variants},
    store::Landed,
    telemetry::StoreMetrics,
};

/// Entries that may wait.
const ENTRIES: usize = 8192;
/// Bytes that entries on their way may take.
const BYTES: usize = 64 << 20;
/// Of all writes; what is not an entry takes next to nothing.
const WRITES: usize = 4 * ENTRIES;

/// Something to be written.
#[derive(Debug, Clone)]
pub enum Write {
    /// An entry, to be kept for this long.
    Put {
        /// The digest of its key.
        digest: u128,
        /// The entry.
        entry: Entry,
        /// For how long.
        keep: Duration,
    },
    /// Variants that are to be added to the index of their target.
    Place {
        /// The digest of the target's key.
        digest: u128,
        /// They and what selects them.
        variants: Arc<Variants>,
    },
    /// An entry that is to be gone.
    Remove {
        /// The digest of its key.
        digest: u128,
    },
    /// The end of a lease.
    Land {
        /// The digest of its key.
        digest: u128,
        /// What proves whose it is.
        token: String,
        /// What came of it.
        landed: Landed,
    },
}

/// Writes in the order in which they came.
///
/// What waits can be looked up: nobody on this node reads what it has just replaced.
pub struct Queue {
    waiting: Mutex<Waiting>,
    /// How many digests can be looked up, so that a look at an empty queue takes no lock.
    pending: AtomicUsize,
    removed: AtomicU64,
    come: Notify,
    written: Notify,
    metrics: Arc<StoreMetrics>,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Write>,
    /// What is to stand under each digest once all is written.
    pending: HashMap<u128, Pending>,
    entries: usize,
    /// Of the entries that wait and of those on their way.
    bytes: usize,
}

struct Pending {
    entry: Option<Entry>,
    writes: usize,
}

/// What the writes that wait make of a digest.
#[derive(Debug)]
pub enum Outlook {
    /// They leave it alone.
    Unchanged,
    /// This is going to stand under it.
    Entry(Entry),
    /// Nothing is going to.
    Nothing,
}

/// Writes taken out of the queue. They count as waiting until this is dropped.
pub struct Taken<'a> {
    /// The writes, in order.
    pub writes: Vec<Write>,
    queue: &'a Queue,
}

impl Queue {
    /// An empty queue.
    pub fn new(metrics: Arc<StoreMetrics>) -> Self {
        Self {
            waiting: Mutex::default(),
            pending: AtomicUsize::new(0),
            removed: AtomicU64::new(0),
            come: Notify::new(),
            written: Notify::new(),
            metrics,
        }
    }

    /// Puts a write at the end; false where there is no room for it.
    pub fn push(&self, write: Write) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.has_no_room(&write) {
            return false;
        }
        waiting.count_in(&write);
        waiting.writes.push_back(write);
        self.show(&waiting);
        drop(waiting);
        self.come.notify_one();
        true
    }

    /// What is going to stand under this digest.
    pub fn pending(&self, digest: u128) -> Outlook {
        if self.pending.load(Acquire) == 0 {
            return Outlook::Unchanged;
        }
        match self.waiting.lock().pending.get(&digest) {
            None => Outlook::Unchanged,
            Some(Pending { entry: Some(entry), .. }) => Outlook::Entry(entry.clone()),
            Some(Pending { entry: None, .. }) => Outlook::Nothing,
        }
    }

    /// A number that changes with each entry that is to be removed.
    pub fn removed(&self) -> u64 {
        self.removed.load(Acquire)
    }

    /// Changes that number. It has to change before anything else does that a removal changes, and also if
    /// there is no room to write it.
    pub fn note_removal(&self) {
        self.removed.fetch_add(1, AcqRel);
    }

    /// The next writes: at least one, at most `most`.
    pub async fn take(&self, most: usize) -> Taken<'_> {
        loop {
            if let Some(taken) = self.take_now(most) {
                return taken;
            }
            self.come.notified().await;
        }
    }

    /// Waits until nothing waits any more.
    pub async fn emptied(&self) {
        loop {
            let written = self.written.notified();
            if self.pending.load(Acquire) == 0 && self.waiting.lock().writes.is_empty() {
                return;
            }
            written.await;
        }
    }

    fn take_now(&self, most: usize) -> Option<Taken<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.writes.is_empty() {
            return None;
        }
        let count = most.min(waiting.writes.len());
        let writes: Vec<Write> = waiting.writes.drain(..count).collect();
        waiting.entries -= writes.iter().filter(|write| write.is_entry()).count();
        self.show(&waiting);
        Some(Taken { writes, queue: self })
    }

    fn show(&self, waiting: &Waiting) {
        self.pending.store(waiting.pending.len(), Release);
        self.metrics.queue_writes.set(i64::try_from(waiting.writes.len()).unwrap_or(i64::MAX));
        self.metrics.queue_bytes.set(i64::try_from(waiting.bytes).unwrap_or(i64::MAX));
    }
}

impl Waiting {
    fn has_no_room(&self, write: &Write) -> bool {
        let bytes = write.bytes();
        self.writes.len() >= WRITES
            || (write.is_entry() && self.entries >= ENTRIES)
            || (bytes > 0 && self.bytes > 0 && self.bytes + bytes > BYTES)
    }

    fn count_in(&mut self, write: &Write) {
        self.bytes += write.bytes();
        self.entries += usize::from(write.is_entry());
        if let Some((digest, entry)) = write.leaves() {
            let place = self.pending.entry(digest).or_insert(Pending { entry: None, writes: 0 });
            place.entry = match entry {
                Some(Entry::Variants(added)) => {
                    super::merged(place.entry.take(), Some(added)).map(Entry::Variants)
                }
                entry => entry,
            };
            place.writes += 1;
        }
    }

    fn count_out(&mut self, write: &Write) {
        self.bytes -= write.bytes();
        let Some((digest, _)) = write.leaves() else { return };
        if let Some(place) = self.pending.get_mut(&digest) {
            place.writes -= 1;
            if place.writes == 0 {
                self.pending.remove(&digest);
            }
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        self.writes.iter().for_each(|write| waiting.count_out(write));
        self.queue.show(&waiting);
        drop(waiting);
        self.queue.written.notify_waiters();
    }
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Put { entry, .. } => entry.heap_size(),
            Self::Place { variants, .. } => variants.heap_size(),
            Self::Remove { .. } | Self::Land { .. } => 0,
        }
    }

    fn is_entry(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Place { .. })
    }

    /// What stands under which digest once it is written.
    fn leaves(&self) -> Option<(u128, Option<Entry>)> {
        match self {
            Self::Put { digest, entry, .. } => Some((*digest, Some(entry.clone()))),
            Self::Place { digest, variants } => {
                Some((*digest, Some(Entry::Variants(Arc::clone(variants)))))
            }
            Self::Remove { digest } => Some((*digest, None)),
            Self::Land { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::CacheKey, telemetry::Metrics};

    fn put(digest: u128, bytes: usize) -> Write {
        let key = CacheKey::from_text(&vec![b'x'; bytes]);
        let entry = Entry::Variants(Arc::new(Variants::new(&key)));
        Write::Put { digest, entry, keep: Duration::from_mins(1) }
    }

    fn digests(taken: &Taken<'_>) -> Vec<u128> {
        let digest = |write: &Write| match write {
            Write::Put { digest, .. }
            | Write::Place { digest, .. }
            | Write::Remove { digest }
            | Write::Land { digest, .. } => *digest,
        };
        taken.writes.iter().map(digest).collect()
    }

    #[tokio::test]
    async fn writes_keep_their_order() {
        let queue = Queue::new(Metrics::new().of_redis());
        for digest in 0..5 {
            assert!(queue.push(Write::Remove { digest }));
        }
        assert_eq!(digests(&queue.take(3).await), [0, 1, 2]);
        assert_eq!(digests(&queue.take(3).await), [3, 4]);
    }

    #[tokio::test]
    async fn bytes_count_until_they_are_written() {
        let queue = Queue::new(Metrics::new().of_redis());
        assert!(queue.push(put(1, BYTES / 2)));
        assert!(queue.push(put(2, BYTES / 4)));
        assert!(!queue.push(put(3, BYTES / 2)), "no room");
        assert!(queue.push(Write::Remove { digest: 3 }), "what weighs nothing still goes in");
        let taken = queue.take(2).await;
        assert!(!queue.push(put(4, BYTES / 2)), "what is on its way still takes its room");
        drop(taken);
        assert!(queue.push(put(4, BYTES / 2)));
    }

    #[tokio::test]
    async fn what_waits_can_be_looked_up_until_it_is_written() {
        let queue = Queue::new(Metrics::new().of_redis());
        assert!(matches!(queue.pending(1), Outlook::Unchanged));
        queue.push(put(1, 10));
        queue.push(Write::Remove { digest: 2 });
        assert!(matches!(queue.pending(1), Outlook::Entry(_)));
        assert!(matches!(queue.pending(2), Outlook::Nothing));
        let first = queue.take(1).await;
        queue.push(Write::Remove { digest: 1 });
        drop(first);
        assert!(matches!(queue.pending(1), Outlook::Nothing), "the last word counts");
        drop(queue.take(2).await);
        assert!(matches!(queue.pending(1), Outlook::Unchanged));
        assert!(matches!(queue.pending(2), Outlook::Unchanged));
        queue.emptied().await;
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let queue = Queue::new(Metrics::new().of_redis());
        let taken = (0..WRITES).take_while(|digest| queue.push(put(*digest as u128, 1))).count();
        assert_eq!(taken, ENTRIES);
        let removed =
            (0..u128::MAX).take_while(|digest| queue.push(Write::Remove { digest: *digest }));
        assert_eq!(removed.count(), WRITES - ENTRIES);
    }

    #[tokio::test]
    async fn an_entry_larger_than_the_queue_goes_through_alone() {
        let queue = Queue::new(Metrics::new().of_redis());
        assert!(queue.push(put(1, BYTES + 1)));
        assert!(!queue.push(put(2, 1)));
    }
}

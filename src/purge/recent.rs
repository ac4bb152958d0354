//! The last records applied: a list for queries, and subscriptions to new records.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
};

/// Maximum number of records kept.
const MAX_RECORDS: usize = 4096;

/// Maximum total size of the records as JSON, in bytes. The last record is always kept.
const MAX_BYTES: usize = 16 << 20;

/// Assumed maximum skew between the clocks of the log and of this node.
const SKEW: Duration = Duration::from_mins(1);

/// The records applied last, bounded in number and size.
///
/// At startup a node applies the records found in the log, so they may be older than the node.
#[derive(Debug)]
pub(super) struct RecentRecords {
    kept: Mutex<RecordBuffer>,
    /// Number of events pushed so far.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct RecordBuffer {
    items: VecDeque<BufferedEvent>,
    bytes: usize,
    /// Number of events dropped from the front.
    evicted: u64,
}

#[derive(Debug)]
enum BufferedEvent {
    /// A point before which records may be missing.
    Begin {
        fence: Fence,
        at: Timestamp,
    },
    Record {
        log: LogId,
        size: usize,
        record: Arc<PurgeRecord>,
    },
}

/// A subscription to the applied records, which returns each record once and in order.
///
/// A subscription has no buffer of its own, so that a slow subscriber costs no memory.
#[derive(Debug)]
pub struct LogEvents {
    recent: Arc<RecentRecords>,
    count: watch::Receiver<u64>,
    /// Number of events returned or skipped so far.
    passed: u64,
    has_begun: bool,
}

/// An event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A point after which no record is missing, as a log position and as a time.
    ///
    /// Position and time apply to this log and to logs that continue it without a gap. Each
    /// subscription starts with this event, and receives it again if records were lost or the
    /// subscriber was too slow.
    Begin {
        /// The position directly before the next record.
        fence: Fence,
        /// A time after which no appended record is missing.
        at: Timestamp,
    },
    /// The next record.
    Record {
        /// The log that contains the record.
        log: LogId,
        /// The record itself.
        record: Arc<PurgeRecord>,
    },
}

impl Default for RecentRecords {
    fn default() -> Self {
        Self { kept: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl RecentRecords {
    /// Adds a point before which records may be missing.
    pub(super) fn begin(&self, fence: Fence) {
        let at = Timestamp::from(SystemTime::now()).saturating_add(SKEW);
        self.take(BufferedEvent::Begin { fence, at });
    }

    /// Adds the next record of the log with this id.
    pub(super) fn push(&self, log: LogId, record: &PurgeRecord) {
        let size = record.purge.to_json().len();
        self.take(BufferedEvent::Record { log, size, record: Arc::new(record.clone()) });
        if record.purge.is_loss() {
            self.begin(Fence { log, seq: record.seq });
        }
    }

    fn take(&self, item: BufferedEvent) {
        let count = self.kept.lock().take(item);
        self.count.send_replace(count);
    }

    pub(super) fn list(&self) -> Vec<Arc<PurgeRecord>> {
        self.kept
            .lock()
            .items
            .iter()
            .rev()
            .filter_map(BufferedEvent::record)
            .map(Arc::clone)
            .collect()
    }

    /// Returns the kept records of a log between two sequence numbers, both exclusive.
    pub(super) fn between(&self, log: LogId, after: u64, before: u64) -> Vec<Arc<PurgeRecord>> {
        let kept = self.kept.lock();
        let of_log = kept.items.iter().rev().filter_map(|item| item.record_of(log));
        let earlier = of_log.skip_while(|record| record.seq >= before);
        let mut between: Vec<_> =
            earlier.take_while(|record| record.seq > after).map(Arc::clone).collect();
        between.reverse();
        between
    }

    /// Returns the sequence number of the oldest record kept, if any.
    pub(super) fn oldest_seq(&self) -> Option<u64> {
        self.kept.lock().items.iter().find_map(BufferedEvent::record).map(|record| record.seq)
    }

    /// Subscribes to the records kept and to all further records.
    pub(super) fn subscribe(self: &Arc<Self>) -> LogEvents {
        let (count, passed) = (self.count.subscribe(), self.kept.lock().evicted);
        LogEvents { recent: Arc::clone(self), count, passed, has_begun: false }
    }
}

impl RecordBuffer {
    /// Adds an event, and evicts the oldest beyond the limits. Returns the number of events so far.
    fn take(&mut self, item: BufferedEvent) -> u64 {
        self.bytes += item.size();
        self.items.push_back(item);
        while self.items.len() > MAX_RECORDS || (self.bytes > MAX_BYTES && self.items.len() > 1) {
            let oldest = self.items.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.size());
            self.evicted += 1;
        }
        self.evicted + self.items.len() as u64
    }
}

impl BufferedEvent {
    fn size(&self) -> usize {
        match self {
            Self::Begin { .. } => 0,
            Self::Record { size, .. } => *size,
        }
    }

    fn record_of(&self, log: LogId) -> Option<&Arc<PurgeRecord>> {
        match self {
            Self::Record { log: of, record, .. } if *of == log => Some(record),
            _ => None,
        }
    }

    fn record(&self) -> Option<&Arc<PurgeRecord>> {
        match self {
            Self::Begin { .. } => None,
            Self::Record { record, .. } => Some(record),
        }
    }
}

impl LogEvents {
    /// Waits for the next event and returns it. Cancel-safe.
    pub async fn next(&mut self) -> LogEvent {
        loop {
            self.count.mark_unchanged();
            if let Some(event) = self.try_next() {
                return event;
            }
            // Never fails: the sender exists as long as `self.recent`.
            let _told = self.count.changed().await;
        }
    }

    /// Returns the next event, or `None` if there is no further event yet.
    pub fn try_next(&mut self) -> Option<LogEvent> {
        let kept = self.recent.kept.lock();
        if self.passed < kept.evicted {
            (self.passed, self.has_begun) = (kept.evicted, false);
        }
        let index = usize::try_from(self.passed - kept.evicted).unwrap_or(usize::MAX);
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        Some(match kept.items.get(index) {
            None => {
                self.has_begun = has_begun;
                return None;
            }
            Some(BufferedEvent::Record { log, record, .. }) if !has_begun => {
                let fence = Fence { log: *log, seq: record.seq.saturating_sub(1) };
                LogEvent::Begin { fence, at: record.at }
            }
            Some(BufferedEvent::Record { log, record, .. }) => {
                self.passed += 1;
                LogEvent::Record { log: *log, record: Arc::clone(record) }
            }
            Some(BufferedEvent::Begin { fence, at }) => {
                self.passed += 1;
                let first = kept.items.get(index + 1).and_then(BufferedEvent::record);
                let at = first.map_or(*at, |first| first.at.min(*at));
                LogEvent::Begin { fence: *fence, at }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Purge, Selector};

    const LOG: LogId = LogId(7);

    fn record(seq: u64, bytes: usize) -> PurgeRecord {
        let selectors = vec![Selector::Tag("x".repeat(bytes).into())];
        let purge = Purge { selectors, ..Purge::boundary() };
        PurgeRecord { seq, at: Timestamp::from_millis(seq), purge }
    }

    fn recent(seqs: std::ops::RangeInclusive<u64>) -> Arc<RecentRecords> {
        let recent = Arc::new(RecentRecords::default());
        seqs.for_each(|seq| recent.push(LOG, &record(seq, 1)));
        recent
    }

    fn kept(recent: &RecentRecords) -> Vec<u64> {
        recent.list().iter().map(|record| record.seq).collect()
    }

    /// Drains the subscription. Returns sequence numbers, and whether each belongs to a `Begin`.
    fn drain(records: &mut LogEvents) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| records.try_next())
            .map(|event| match event {
                LogEvent::Begin { fence, .. } => (fence.seq, true),
                LogEvent::Record { record, .. } => (record.seq, false),
            })
            .collect()
    }

    #[test]
    fn the_last_records_are_kept_latest_first() {
        let recent = recent(1..=MAX_RECORDS as u64 + 1);
        assert_eq!(kept(&recent), (2..=MAX_RECORDS as u64 + 1).rev().collect::<Vec<_>>());
        assert_eq!(recent.oldest_seq(), Some(2));
    }

    #[test]
    fn fewer_records_are_kept_if_they_are_large_but_always_the_last() {
        let recent = RecentRecords::default();
        (1..=17).for_each(|seq| recent.push(LOG, &record(seq, 1 << 20)));
        assert_eq!(kept(&recent), (3..=17).rev().collect::<Vec<_>>());
        recent.push(LOG, &record(18, MAX_BYTES));
        assert_eq!(kept(&recent), [18]);
        recent.push(LOG, &record(19, 1));
        assert_eq!(kept(&recent), [19]);
    }

    #[test]
    fn records_between_two_positions_are_found() {
        let recent = recent(1..=5);
        recent.begin(Fence { log: LogId(8), seq: 5 });
        recent.push(LogId(8), &record(6, 1));
        let between = |log, after, before| {
            let records = recent.between(log, after, before);
            records.iter().map(|record| record.seq).collect::<Vec<_>>()
        };
        assert_eq!(between(LOG, 2, 5), [3, 4]);
        assert_eq!(between(LOG, 0, 9), [1, 2, 3, 4, 5]);
        assert_eq!((between(LOG, 3, 4), between(LOG, 5, 9)), (vec![], vec![]));
        assert_eq!(between(LogId(8), 0, 9), [6]);
    }

    #[tokio::test]
    async fn each_record_is_delivered_once_and_in_order() {
        let recent = Arc::new(RecentRecords::default());
        let mut records = recent.subscribe();
        assert_eq!(records.try_next(), None);
        recent.begin(Fence { log: LOG, seq: 3 });
        (4..=5).for_each(|seq| recent.push(LOG, &record(seq, 1)));
        assert_eq!(drain(&mut records), [(3, true), (4, false), (5, false)]);
        let next = tokio::spawn(async move { records.next().await });
        recent.push(LOG, &record(6, 1));
        let record = Arc::new(record(6, 1));
        assert_eq!(next.await.unwrap(), LogEvent::Record { log: LOG, record });
        let late = drain(&mut recent.subscribe());
        assert_eq!(late, [(3, true), (4, false), (5, false), (6, false)]);
    }

    #[test]
    fn a_slow_subscriber_gets_a_new_beginning() {
        let recent = recent(1..=1);
        let mut slow = recent.subscribe();
        assert_eq!(drain(&mut slow), [(0, true), (1, false)]);
        let last = MAX_RECORDS as u64 + 3;
        (2..=last).for_each(|seq| recent.push(LOG, &record(seq, 1)));
        let (fence, at) = (Fence { log: LOG, seq: 3 }, Timestamp::from_millis(4));
        assert_eq!(slow.try_next(), Some(LogEvent::Begin { fence, at }));
        assert_eq!(drain(&mut slow), (4..=last).map(|seq| (seq, false)).collect::<Vec<_>>());
    }

    #[test]
    fn possible_gaps_are_marked_in_order() {
        let recent = recent(1..=2);
        recent.begin(Fence { log: LogId(8), seq: 20 });
        recent.push(LogId(8), &record(21, 1));
        let loss = PurgeRecord { seq: 22, at: Timestamp::from_millis(22), purge: Purge::loss() };
        recent.push(LogId(8), &loss);
        let mut records = recent.subscribe();
        let expected = [(0, true), (1, false), (2, false), (20, true), (21, false), (22, false)];
        assert_eq!(drain(&mut records), [&expected[..], &[(22, true)]].concat());
        assert_eq!(kept(&recent), [22, 21, 2, 1]);
    }

    #[test]
    fn a_beginning_with_old_records_starts_at_the_first_one() {
        let recent = Arc::new(RecentRecords::default());
        recent.begin(Fence { log: LOG, seq: 3 });
        let at = |recent: &Arc<RecentRecords>| match recent.subscribe().try_next().unwrap() {
            LogEvent::Begin { at, .. } => at,
            LogEvent::Record { .. } => panic!(),
        };
        assert!(at(&recent) > Timestamp::from(SystemTime::now()));
        recent.push(LOG, &record(4, 1));
        assert_eq!(at(&recent), Timestamp::from_millis(4));
    }
}

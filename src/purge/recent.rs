//! The last records applied: for whoever asks what was purged, and for those who want to hear of each.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::fence::Record;

/// How many records are kept.
const MOST: usize = 1000;

/// How many bytes they may have as JSON; the last record is kept whatever it has.
const BYTES: usize = 16 << 20;

/// The records that this node applied last, within bounds.
#[derive(Debug)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
    /// How many there were.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first, each with its size.
    records: VecDeque<(usize, Arc<Record>)>,
    bytes: usize,
    /// How many there were before them.
    gone: u64,
}

/// The records as they are applied, each once and in order. It holds no records itself, so it costs
/// nothing to lag behind.
#[derive(Debug)]
pub struct Records {
    recent: Arc<Recent>,
    count: watch::Receiver<u64>,
    /// How many there were before the next.
    passed: u64,
}

/// What somebody who hears of records hears next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The next record.
    Record(Arc<Record>),
    /// The reader was too slow: records are gone that it has not seen. Next comes the record at this
    /// place, the oldest there is.
    Lagged {
        /// Where it goes on.
        from: u64,
    },
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Recent {
    pub(super) fn push(&self, record: &Record) {
        let (size, record) = (record.purge.write().len(), Arc::new(record.clone()));
        let count = {
            let mut kept = self.kept.lock();
            kept.bytes += size;
            kept.records.push_back((size, record));
            while kept.records.len() > MOST || (kept.bytes > BYTES && kept.records.len() > 1) {
                let oldest = kept.records.pop_front().map_or(0, |(size, _)| size);
                kept.bytes -= oldest;
                kept.gone += 1;
            }
            kept.gone + kept.records.len() as u64
        };
        self.count.send_replace(count);
    }

    /// The latest first.
    pub(super) fn list(&self) -> Vec<Arc<Record>> {
        self.kept.lock().records.iter().rev().map(|(_, record)| Arc::clone(record)).collect()
    }

    /// Those that are kept of the places between these two.
    pub(super) fn between(&self, after: u64, before: u64) -> Vec<Arc<Record>> {
        let kept = self.kept.lock();
        let first = kept.records.partition_point(|(_, record)| record.seq <= after);
        let later = kept.records.range(first..).map(|(_, record)| record);
        later.take_while(|record| record.seq < before).cloned().collect()
    }

    /// The place of the oldest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.kept.lock().records.front().map(|(_, record)| record.seq)
    }

    /// Those that come, after those that are kept and come after this place.
    pub(super) fn records(self: &Arc<Self>, after: Option<u64>) -> Records {
        let count = self.count.subscribe();
        let kept = self.kept.lock();
        let is_known =
            |(_, record): &(usize, Arc<Record>)| after.is_none_or(|seq| record.seq <= seq);
        let known = kept.records.iter().rposition(is_known).map_or(0, |last| last + 1);
        let passed = kept.gone + known as u64;
        Records { recent: Arc::clone(self), count, passed }
    }
}

impl Records {
    /// The next record, as soon as there is one. Nothing is lost where this is cancelled.
    pub async fn next(&mut self) -> Heard {
        loop {
            self.count.mark_unchanged();
            if let Some(heard) = self.try_next() {
                return heard;
            }
            // What is told of lives as long as this does.
            let _told = self.count.changed().await;
        }
    }

    /// The next record, if there is one.
    pub fn try_next(&mut self) -> Option<Heard> {
        let kept = self.recent.kept.lock();
        if self.passed < kept.gone {
            self.passed = kept.gone;
            let from = kept.records.front().map_or(0, |(_, record)| record.seq);
            return Some(Heard::Lagged { from });
        }
        let index = usize::try_from(self.passed - kept.gone).unwrap_or(usize::MAX);
        let (_, record) = kept.records.get(index)?;
        self.passed += 1;
        Some(Heard::Record(Arc::clone(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fence::{Purge, Selector},
        field::Timestamp,
    };

    fn record(seq: u64, bytes: usize) -> Record {
        let selectors = vec![Selector::Tag("x".repeat(bytes).into())];
        let purge = Purge { selectors, ..Purge::boundary() };
        Record { seq, at: Timestamp::from_millis(0), purge }
    }

    fn kept(recent: &Recent) -> Vec<u64> {
        recent.list().iter().map(|record| record.seq).collect()
    }

    fn heard(records: &mut Records) -> Vec<u64> {
        std::iter::from_fn(|| records.try_next())
            .map(|heard| match heard {
                Heard::Record(record) => record.seq,
                Heard::Lagged { from } => panic!("lagged, from {from}"),
            })
            .collect()
    }

    #[test]
    fn the_last_thousand_are_kept_the_latest_first() {
        let recent = Recent::default();
        (1..=1001).for_each(|seq| recent.push(&record(seq, 1)));
        assert_eq!(kept(&recent), (2..=1001).rev().collect::<Vec<_>>());
        assert_eq!(recent.oldest(), Some(2));
    }

    #[test]
    fn fewer_are_kept_where_they_are_large_but_always_the_last() {
        let recent = Recent::default();
        (1..=17).for_each(|seq| recent.push(&record(seq, 1 << 20)));
        assert_eq!(kept(&recent), (3..=17).rev().collect::<Vec<_>>());
        recent.push(&record(18, BYTES));
        assert_eq!(kept(&recent), [18]);
        recent.push(&record(19, 1));
        assert_eq!(kept(&recent), [19]);
    }

    #[test]
    fn those_between_two_places_are_found() {
        let recent = Recent::default();
        (1..=5).for_each(|seq| recent.push(&record(seq, 1)));
        let between = |after, before| {
            recent.between(after, before).iter().map(|record| record.seq).collect::<Vec<_>>()
        };
        assert_eq!(between(2, 5), [3, 4]);
        assert_eq!(between(0, 9), [1, 2, 3, 4, 5]);
        assert_eq!((between(3, 4), between(5, 9)), (vec![], vec![]));
    }

    #[tokio::test]
    async fn each_record_is_heard_of_once_and_in_order() {
        let recent = Arc::new(Recent::default());
        (1..=5).for_each(|seq| recent.push(&record(seq, 1)));
        assert_eq!(heard(&mut recent.records(Some(3))), [4, 5]);
        assert_eq!(heard(&mut recent.records(Some(0))), [1, 2, 3, 4, 5]);
        let mut new = recent.records(None);
        assert_eq!(new.try_next(), None);
        let next = tokio::spawn(async move { new.next().await });
        recent.push(&record(6, 1));
        assert_eq!(next.await.unwrap(), Heard::Record(Arc::new(record(6, 1))));
    }

    #[test]
    fn who_is_too_slow_learns_from_where_to_go_on() {
        let recent = Arc::new(Recent::default());
        recent.push(&record(1, 1));
        let mut slow = recent.records(Some(0));
        (2..=1003).for_each(|seq| recent.push(&record(seq, 1)));
        assert_eq!(slow.try_next(), Some(Heard::Lagged { from: 4 }));
        assert_eq!(heard(&mut slow), (4..=1003).collect::<Vec<_>>());
    }
}

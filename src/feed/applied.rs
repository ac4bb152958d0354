//! The applied purge log as a source of the feed.

use std::sync::Arc;

use tokio::sync::watch;

use super::{LogSource, LogUpdate};
use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
    purge::{self, PurgeLog, SyncState, TailState},
};

/// The records that this node has applied: a batch of known records, then each new record.
pub(crate) struct AppliedRecords {
    records: purge::LogEvents,
    sync_state: watch::Receiver<SyncState>,
    has_caught_up: bool,
}

impl AppliedRecords {
    /// Subscribes to the records that this node applies from a log.
    pub(crate) fn of(log: &PurgeLog) -> Self {
        Self { records: log.subscribe(), sync_state: log.sync_state(), has_caught_up: false }
    }

    /// Waits until the node has caught up with the log; `None` if the log has ended.
    ///
    /// Clients that resume during catch-up would get a `reset`.
    async fn caught_up(&mut self) -> Option<()> {
        if !self.has_caught_up {
            self.sync_state
                .wait_for(|sync_state| sync_state.link == TailState::Following)
                .await
                .ok()?;
            self.has_caught_up = true;
        }
        Some(())
    }

    /// Returns an update that starts at `fence` and contains all records known so far.
    fn begin(&mut self, mut fence: Fence, mut at: Timestamp) -> LogUpdate {
        let mut records: Vec<(LogId, Arc<PurgeRecord>)> = Vec::new();
        while let Some(update) = self.records.try_next() {
            match update {
                purge::LogEvent::Record { log, record } => records.push((log, record)),
                purge::LogEvent::Begin { fence: later, at: since } => {
                    (fence, at) = (later, since);
                    records.clear();
                }
            }
        }
        LogUpdate::Begin { fence, at, records }
    }
}

impl LogSource for AppliedRecords {
    async fn next(&mut self) -> Option<LogUpdate> {
        self.caught_up().await?;
        loop {
            tokio::select! {
                update = self.records.next() => return Some(match update {
                    purge::LogEvent::Record { log, record } => LogUpdate::Record(log, record),
                    purge::LogEvent::Begin { fence, at } => self.begin(fence, at),
                }),
                changed = self.sync_state.changed() => changed.ok()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fence::Purge, purge::WatermarkRaise};

    /// Returns the sequence number in a `Begin`, and the sequence numbers of the update's records.
    fn positions(update: Option<LogUpdate>) -> (Option<u64>, Vec<u64>) {
        match update.unwrap() {
            LogUpdate::Begin { fence, records, .. } => {
                (Some(fence.seq), records.iter().map(|(_, record)| record.seq).collect())
            }
            LogUpdate::Record(_, record) => (None, vec![record.seq]),
        }
    }

    #[tokio::test]
    async fn known_records_come_at_once_and_then_each_new_one() {
        let log = PurgeLog::in_memory();
        log.append_eventually(Purge::boundary());
        let mut applied = AppliedRecords::of(&log);
        log.append_eventually(Purge::boundary());
        assert_eq!(positions(applied.next().await), (Some(0), vec![1, 2]));
        log.append_eventually(Purge::boundary());
        log.append_eventually(Purge::boundary());
        assert_eq!(positions(applied.next().await), (None, vec![3]));
        assert_eq!(positions(applied.next().await), (None, vec![4]));
    }

    #[tokio::test]
    async fn a_log_that_continues_the_last_is_no_beginning_and_any_other_is() {
        let log = PurgeLog::in_memory();
        let mut applied = AppliedRecords::of(&log);
        assert_eq!(positions(applied.next().await), (Some(0), vec![]));
        log.append_eventually(Purge::boundary());
        log.applied_purges().begin(Fence { log: LogId(5), seq: 1 }, Some(WatermarkRaise::Restart));
        log.applied_purges().apply(&PurgeRecord {
            seq: 2,
            at: Timestamp::from_millis(0),
            purge: Purge::boundary(),
        });
        assert_eq!(positions(applied.next().await), (None, vec![1]));
        let Some(LogUpdate::Record(LogId(5), _)) = applied.next().await else { panic!() };
        let begin = |log, seq, raise| (Fence { log: LogId(log), seq }, Some(raise));
        let others = [
            begin(6, 70, WatermarkRaise::Empty),
            begin(7, 70, WatermarkRaise::Foreign),
            begin(7, 90, WatermarkRaise::Gap),
            begin(8, 89, WatermarkRaise::Restart),
        ];
        for (fence, raise) in others {
            log.applied_purges().begin(fence, raise);
            assert_eq!(positions(applied.next().await), (Some(fence.seq), vec![]), "{raise:?}");
        }
    }

    #[tokio::test]
    async fn a_lagging_source_starts_over() {
        let log = PurgeLog::in_memory();
        let mut applied = AppliedRecords::of(&log);
        assert_eq!(positions(applied.next().await), (Some(0), vec![]));
        (0..5000).for_each(|_| log.append_eventually(Purge::boundary()));
        assert_eq!(positions(applied.next().await), (Some(904), (905..=5000).collect()));
        log.append_eventually(Purge::boundary());
        assert_eq!(positions(applied.next().await), (None, vec![5001]));
    }

    #[tokio::test]
    async fn a_dropped_log_ends_the_source() {
        let log = PurgeLog::in_memory();
        let mut applied = AppliedRecords::of(&log);
        assert_eq!(positions(applied.next().await), (Some(0), vec![]));
        drop(log);
        assert_eq!(applied.next().await, None);
    }
}

//! What this node applies of the purge log, as the feed hears it.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Heard, Records};
use crate::{
    fence::{Fence, LogId, Record},
    field::Timestamp,
    purge::{self, Link, Log, Standing},
};

/// The records of a log: those that the node has when it first follows it, at once, and then each as it
/// is applied.
pub struct Applied {
    records: purge::Records,
    standing: watch::Receiver<Standing>,
    has_followed: bool,
}

impl Applied {
    /// What is applied of this log.
    pub fn of(log: &Log) -> Self {
        Self { records: log.records(), standing: log.standing(), has_followed: false }
    }

    /// Waits until the node has applied all there was when it came: a client that goes on from a
    /// place in the middle would get a `reset`.
    async fn followed(&mut self) -> Option<()> {
        if !self.has_followed {
            self.standing.wait_for(|standing| standing.link == Link::Following).await.ok()?;
            self.has_followed = true;
        }
        Some(())
    }

    /// What begins here, with all that is known of it.
    fn begin(&mut self, mut fence: Fence, mut at: Timestamp) -> Heard {
        let mut records: Vec<(LogId, Arc<Record>)> = Vec::new();
        while let Some(heard) = self.records.try_next() {
            match heard {
                purge::Heard::Record { log, record } => records.push((log, record)),
                purge::Heard::Begin { fence: later, at: since } => {
                    (fence, at) = (later, since);
                    records.clear();
                }
            }
        }
        Heard::Begin { fence, at, records }
    }
}

impl Records for Applied {
    async fn next(&mut self) -> Option<Heard> {
        self.followed().await?;
        loop {
            tokio::select! {
                heard = self.records.next() => return Some(match heard {
                    purge::Heard::Record { log, record } => Heard::Record(log, record),
                    purge::Heard::Begin { fence, at } => self.begin(fence, at),
                }),
                changed = self.standing.changed() => changed.ok()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fence::Purge, purge::Rise};

    /// The places of what is heard, the first that of a beginning where there is one.
    fn places(heard: Option<Heard>) -> (Option<u64>, Vec<u64>) {
        match heard.unwrap() {
            Heard::Begin { fence, records, .. } => {
                (Some(fence.seq), records.iter().map(|(_, record)| record.seq).collect())
            }
            Heard::Record(_, record) => (None, vec![record.seq]),
        }
    }

    #[tokio::test]
    async fn what_is_known_is_heard_at_once_and_then_each_record() {
        let log = Log::in_memory();
        log.record(Purge::boundary());
        let mut applied = Applied::of(&log);
        log.record(Purge::boundary());
        assert_eq!(places(applied.next().await), (Some(0), vec![1, 2]));
        log.record(Purge::boundary());
        log.record(Purge::boundary());
        assert_eq!(places(applied.next().await), (None, vec![3]));
        assert_eq!(places(applied.next().await), (None, vec![4]));
    }

    #[tokio::test]
    async fn a_log_that_continues_the_last_is_no_beginning_and_any_other_is() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(places(applied.next().await), (Some(0), vec![]));
        log.record(Purge::boundary());
        log.fences().begin(Fence { log: LogId(5), seq: 1 }, Some(Rise::Restart));
        log.fences().apply(&Record {
            seq: 2,
            at: Timestamp::from_millis(0),
            purge: Purge::boundary(),
        });
        assert_eq!(places(applied.next().await), (None, vec![1]));
        let Some(Heard::Record(LogId(5), _)) = applied.next().await else { panic!() };
        let begin = |log, seq, rise| (Fence { log: LogId(log), seq }, Some(rise));
        let others = [
            begin(6, 70, Rise::Empty),
            begin(7, 70, Rise::Foreign),
            begin(7, 90, Rise::Gap),
            begin(8, 89, Rise::Restart),
        ];
        for (fence, rise) in others {
            log.fences().begin(fence, rise);
            assert_eq!(places(applied.next().await), (Some(fence.seq), vec![]), "{rise:?}");
        }
    }

    #[tokio::test]
    async fn who_lags_begins_anew() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(places(applied.next().await), (Some(0), vec![]));
        (0..5000).for_each(|_| log.record(Purge::boundary()));
        assert_eq!(places(applied.next().await), (Some(904), (905..=5000).collect()));
        log.record(Purge::boundary());
        assert_eq!(places(applied.next().await), (None, vec![5001]));
    }

    #[tokio::test]
    async fn a_log_that_is_gone_is_heard_of_no_more() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(places(applied.next().await), (Some(0), vec![]));
        drop(log);
        assert_eq!(applied.next().await, None);
    }
}

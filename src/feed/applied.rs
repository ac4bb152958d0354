//! What this node applies of the purge log, as the feed hears it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{Heard, Records};
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
    purge::{self, Fences, Log, Rise, Standing},
};

/// How far the clock of the log and this node's may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// The records of a log, from when it is asked for the first.
pub struct Applied {
    fences: Arc<Fences>,
    records: purge::Records,
    standing: watch::Receiver<Standing>,
    account: Option<Account>,
}

/// Something whose records follow each other without a gap: one log, as long as none is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    log: LogId,
    /// How often this node could not go on from where it was.
    breaks: u64,
}

impl Applied {
    /// What is applied of this log.
    pub fn of(log: &Log) -> Self {
        let (fences, records) = (Arc::clone(log.fences()), log.records(None));
        Self { fences, records, standing: log.standing(), account: None }
    }

    /// The account that what was applied last belongs to; none before there is a log.
    fn account(&self) -> Option<Account> {
        let is_break = |rise: &Rise| *rise != Rise::Capacity;
        let breaks = Rise::ALL.into_iter().filter(is_break);
        let breaks = breaks.map(|rise| self.fences.rises(rise)).sum();
        let log = self.fences.fence().log;
        (log != LogId::default()).then_some(Account { log, breaks })
    }

    /// Begins where this node is. What was heard before that and not told is left out: a record is told
    /// of after it is applied, so nothing that comes after this place is among it, or its number shows
    /// the gap.
    fn begin(&mut self) -> (Fence, Timestamp) {
        while self.records.try_next().is_some() {}
        let now = Timestamp::from(SystemTime::now());
        (self.fences.fence(), now.saturating_add(SKEW))
    }
}

impl Records for Applied {
    async fn next(&mut self) -> Option<Heard> {
        loop {
            let account = self.account();
            if account != self.account && account.is_some() {
                self.account = account;
                let (fence, at) = self.begin();
                return Some(Heard::Begin { fence, at });
            }
            tokio::select! {
                heard = self.records.next() => match heard {
                    purge::Heard::Record(record) if self.account() == self.account => {
                        return Some(Heard::Record(record));
                    }
                    purge::Heard::Record(_) => {}
                    purge::Heard::Lagged { .. } => self.account = None,
                },
                changed = self.standing.changed() => changed.ok()?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Purge;

    /// The place of what is heard, and whether another account begins there.
    fn place(heard: Option<Heard>) -> (u64, bool) {
        match heard.unwrap() {
            Heard::Begin { fence, .. } => (fence.seq, true),
            Heard::Record(record) => (record.seq, false),
        }
    }

    #[tokio::test]
    async fn each_record_is_heard_once_from_where_the_node_is() {
        let log = Log::in_memory();
        log.record(Purge::boundary());
        let mut applied = Applied::of(&log);
        assert_eq!(place(applied.next().await), (1, true));
        log.record(Purge::boundary());
        log.record(Purge::boundary());
        assert_eq!(place(applied.next().await), (2, false));
        assert_eq!(place(applied.next().await), (3, false));
    }

    #[tokio::test]
    async fn another_log_begins_another_account() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(place(applied.next().await), (0, true));
        log.record(Purge::boundary());
        log.fences().begin(Fence { log: LogId(5), seq: 70 }, Some(Rise::Foreign));
        assert_eq!(place(applied.next().await), (70, true));
        log.fences().begin(Fence { log: LogId(5), seq: 90 }, Some(Rise::Gap));
        assert_eq!(place(applied.next().await), (90, true));
    }

    #[tokio::test]
    async fn who_lags_begins_anew() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(place(applied.next().await), (0, true));
        (0..2000).for_each(|_| log.record(Purge::boundary()));
        assert_eq!(place(applied.next().await), (2000, true));
        log.record(Purge::boundary());
        assert_eq!(place(applied.next().await), (2001, false));
    }

    #[tokio::test]
    async fn a_log_that_is_gone_is_heard_of_no_more() {
        let log = Log::in_memory();
        let mut applied = Applied::of(&log);
        assert_eq!(place(applied.next().await), (0, true));
        drop(log);
        assert_eq!(applied.next().await, None);
    }
}

//! Where the feed hears of purges from.

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    fence::{Fence, LogId, Record},
    field::Timestamp,
};

/// The records of a purge log, as a node applies them.
pub trait Records: Send + 'static {
    /// What comes next; none where nothing will come any more.
    fn next(&mut self) -> impl Future<Output = Option<Heard>> + Send;
}

/// What is heard of a purge log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// What follows begins here: it has every record after `fence`, and every record since `at`. Comes
    /// first, and again where records may be missing.
    Begin {
        /// The place before the first record that follows.
        fence: Fence,
        /// A time after which no record was appended that does not follow.
        at: Timestamp,
        /// The records that follow so far, the oldest first, each with the log that it is in.
        records: Vec<(LogId, Arc<Record>)>,
    },
    /// The next record, and the log that it is in. Where that is another one it continues the last: its
    /// numbers go on, and nothing is missing between them.
    Record(LogId, Arc<Record>),
}

/// What somebody else sends.
impl Records for mpsc::Receiver<Heard> {
    async fn next(&mut self) -> Option<Heard> {
        self.recv().await
    }
}

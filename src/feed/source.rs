//! Where the feed hears of purges from.

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
};

/// The records of a purge log, as a node applies them.
pub trait LogSource: Send + 'static {
    /// What comes next; none where nothing will come any more.
    fn next(&mut self) -> impl Future<Output = Option<LogUpdate>> + Send;
}

/// What is heard of a purge log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogUpdate {
    /// What follows begins here: it has every record after `fence`, and every record since `at`. Comes
    /// first, and again where records may be missing.
    Begin {
        /// The position before the first record that follows.
        fence: Fence,
        /// A time after which no record was appended that does not follow.
        at: Timestamp,
        /// The records that follow so far, the oldest first, each with the log that it is in.
        records: Vec<(LogId, Arc<PurgeRecord>)>,
    },
    /// The next record, and the log that it is in. Where that is another one it continues the last: its
    /// numbers go on, and nothing is missing between them.
    Record(LogId, Arc<PurgeRecord>),
}

/// What somebody else sends.
impl LogSource for mpsc::Receiver<LogUpdate> {
    async fn next(&mut self) -> Option<LogUpdate> {
        self.recv().await
    }
}

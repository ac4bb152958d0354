//! The source of purge records for the feed.

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
};

/// A stream of the records of a purge log.
pub trait LogSource: Send + 'static {
    /// Waits for the next update and returns it, or `None` at the end of the log.
    fn next(&mut self) -> impl Future<Output = Option<LogUpdate>> + Send;
}

/// An update from a purge log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogUpdate {
    /// A point from which no record is missing, as a log position and as a time.
    ///
    /// This update comes first, and again if records may be missing.
    Begin {
        /// The position before the first record in `records`.
        fence: Fence,
        /// A time after which no appended record is missing.
        at: Timestamp,
        /// The records known so far, oldest first, each with its log.
        records: Vec<(LogId, Arc<PurgeRecord>)>,
    },
    /// The next record and its log. A different log continues the previous one without a gap.
    Record(LogId, Arc<PurgeRecord>),
}

impl LogSource for mpsc::Receiver<LogUpdate> {
    async fn next(&mut self) -> Option<LogUpdate> {
        self.recv().await
    }
}

//! The source of purge records for the feed.

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
};

/// A stream of the records of a purge log.
pub trait LogSource: Send + 'static {
    /// Returns the next update; none at the end.
    fn next(&mut self) -> impl Future<Output = Option<LogUpdate>> + Send;
}

/// An update from a purge log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogUpdate {
    /// A point from which records are complete: all after `fence`, and all since `at`.
    ///
    /// Comes first, and again if records may be missing.
    Begin {
        /// The position before the first record that follows.
        fence: Fence,
        /// A time such that every record appended later follows.
        at: Timestamp,
        /// The records known so far, oldest first, each with its log.
        records: Vec<(LogId, Arc<PurgeRecord>)>,
    },
    /// The next record and its log. Another log continues the previous one without a gap.
    Record(LogId, Arc<PurgeRecord>),
}

impl LogSource for mpsc::Receiver<LogUpdate> {
    async fn next(&mut self) -> Option<LogUpdate> {
        self.recv().await
    }
}

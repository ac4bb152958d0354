//! The settings of a poll.

use std::time::Duration;

use super::{DocumentUrl, VersionFrom};
use crate::{fence::PurgeMode, warm::WarmPlan};

/// A polled data version and the tags that depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The name in logs, metrics and purges.
    pub name: Box<str>,
    /// The URL of the document with the version.
    pub source: DocumentUrl,
    /// The time between two polls, at least a second.
    pub every: Duration,
    /// The location of the version in a response.
    pub version: VersionFrom,
    /// The tags to purge when the version changes.
    pub purge: Box<[Box<str>]>,
    /// The mode of the poll's purges.
    pub mode: PurgeMode,
    /// The targets to fetch after each purge.
    pub warm: WarmPlan,
    /// The delay until a second purge after a change, for data that loads late; `None` disables it.
    pub delay: Option<Duration>,
    /// The age above which a metric reports a version as overdue; `None` disables it.
    pub alert_after: Option<Duration>,
}

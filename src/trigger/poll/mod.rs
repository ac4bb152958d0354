//! Polls: fetch an external data version at intervals, and purge tags when it changes.
//!
//! One node of the fleet polls; the others read its result. The version is stored for the fleet
//! after the purge, never before, so that the next leader repeats a purge that did not complete.

mod fetch;
mod run;
mod state;
mod version;

use std::time::Duration;

use crate::{fence::PurgeMode, warm::WarmPlan};

pub(crate) use crate::origin::document_url::{DocumentUrl, InvalidDocumentUrl};
pub(super) use run::run;
pub(crate) use state::{PollState, Polls};
pub(crate) use version::{Cardinality, VersionFrom};

/// A polled data version and the tags that depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// The name in logs, metrics and purges.
    pub name: Box<str>,
    /// The URL of the document with the version.
    pub source: DocumentUrl,
    /// The time between two polls, at least a second.
    pub every: Duration,
    /// How to extract the version from a response.
    pub version: VersionFrom,
    /// The tags to purge when the version changes.
    pub purge: Box<[Box<str>]>,
    /// The mode of these purges.
    pub mode: PurgeMode,
    /// What to fetch after each purge.
    pub warm: WarmPlan,
    /// The delay after a change until the tags are purged again, for data that loads late.
    pub delay: Option<Duration>,
    /// The age from which a metric reports the version as overdue.
    pub alert_after: Option<Duration>,
}

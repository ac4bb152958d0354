//! Polls: a data version that somebody else keeps is looked at again and again; when it changes, tags
//! are purged.
//!
//! One node of the fleet asks, the others listen to what it finds. The version is remembered by the
//! fleet after the purge, never before: whoever takes over purges what its predecessor did not.

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

/// A data version and what depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// Its name in logs, metrics and purges.
    pub name: Box<str>,
    /// Where the version is told.
    pub source: DocumentUrl,
    /// The time between two looks; at least a second.
    pub every: Duration,
    /// What of the answer is the version.
    pub version: VersionFrom,
    /// The tags that are purged when it changes.
    pub purge: Box<[Box<str>]>,
    /// Whether what they select is gone or only stale.
    pub mode: PurgeMode,
    /// What is fetched after each purge.
    pub warm: WarmPlan,
    /// How long after a change the tags are purged once more, for data that loads late.
    pub delay: Option<Duration>,
    /// A version this old is overdue, as a metric says.
    pub alert_after: Option<Duration>,
}

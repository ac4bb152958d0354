//! Polls: fetch an external data version at intervals, and purge tags when it changes.
//!
//! One node of the fleet, the leader, polls; the other nodes read its result. The version is stored
//! for the fleet after the purge, never before, so that the next leader repeats a purge that did
//! not complete.

mod fetch;
mod run;
mod settings;
mod state;
mod version;

pub(crate) use crate::origin::document_url::DocumentUrl;
pub(super) use run::run;
pub(crate) use settings::Poll;
pub(crate) use state::{PollState, Polls};
pub(crate) use version::VersionFrom;

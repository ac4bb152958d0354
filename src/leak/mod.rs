//! Leak detection: whether responses of a shared route depend on the requester.
//!
//! A route without a partition for each user shares its responses. If these depend on the
//! requester, clients get each other's data. [`RequesterComparison`] detects this: Larder asks the
//! origin alternately for two requesters. The difference between their responses has to persist
//! while each requester's own responses stay the same. A route with a leak is quarantined:
//! [`QuarantineTable`] is the state that the nodes of a fleet share.

mod body;
mod comparison;
mod names;
mod quarantine;

pub(crate) use body::MAX_BODY;
pub(crate) use comparison::{ComparedRequester, LeakEvidence, RequesterComparison, Verdict};
pub(crate) use names::RequesterNames;
pub(crate) use quarantine::{ClearError, QuarantineTable, QuarantinedRoute};

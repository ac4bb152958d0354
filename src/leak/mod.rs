//! Leak detection: whether responses of a shared route depend on the requester.
//!
//! The responses of a route without a partition of its own for each user are shared. If they
//! depend on the requester nevertheless, clients get each other's data. [`RequesterComparison`]
//! decides that: the origin is asked alternately for two requesters, and the difference between
//! their responses has to persist while each requester's own responses stay the same. A route with
//! a leak is quarantined: [`QuarantineTable`] is the state that the nodes of a fleet share.

mod body;
mod comparison;
mod names;
mod quarantine;

pub(crate) use body::MAX_BODY;
pub(crate) use comparison::{ComparedRequester, LeakEvidence, RequesterComparison, Verdict};
pub(crate) use names::RequesterNames;
pub(crate) use quarantine::{ClearError, QuarantineTable, QuarantinedRoute};

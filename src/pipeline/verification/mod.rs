//! Verification: comparing stored responses with those of the origin, before and while they are
//! served.
//!
//! In *shadow mode* clients always get the origin's response. A second pipeline, over a store of
//! its own, makes the decisions that the cache would make, and each response that it would have
//! served is compared with the one that the client gets. An *audit* compares a share of the hits in
//! the background.

mod audit;
mod comparing;
mod figures;
mod inputs;
mod report;
mod shadow;
mod slots;

pub(super) use audit::{AuditedHit, is_audited};
pub(crate) use figures::FiguresByRoute;
pub(super) use inputs::RememberedInputs;
pub(crate) use report::VerificationReport;
pub(super) use slots::VerificationSlots;

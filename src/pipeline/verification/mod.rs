//! Verification: stored responses are compared with those of the origin, before or while they are
//! served.
//!
//! In *shadow mode*, clients always get the origin's response. A second pipeline with its own store
//! makes the decisions that the cache would make. Each response that it would have served is
//! compared with the response that the client gets. An *audit* compares a share of the hits in the
//! background.

mod audit;
mod comparing;
mod figures;
mod inputs;
mod report;
mod shadow;
mod slots;

pub(super) use audit::{AuditedHit, HitToAudit, is_audited};
pub(crate) use figures::FiguresByRoute;
pub(super) use inputs::RememberedInputs;
pub(crate) use report::VerificationReport;
pub(super) use slots::VerificationSlots;

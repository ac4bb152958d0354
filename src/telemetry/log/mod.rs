//! Non-blocking log output: stream queues, messages, repetition limits.

mod queue;
mod repetition;
mod stderr;
mod text;

pub(crate) use queue::{LogQueue, unbuffered};
pub(crate) use stderr::StderrLog;

pub(super) use queue::QueueLimits;
pub(super) use stderr::{DROPPED, SUPPRESSED};
pub(super) use text::Escaped;

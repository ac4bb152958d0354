//! Log output that never makes its callers wait: the queue before each stream, messages, repetitions.

mod messages;
mod output;
mod repetition;
mod text;

pub use messages::Messages;
pub use output::{Output, unbuffered};

pub(super) use messages::{DROPPED, HELD_BACK};
pub(super) use output::QueueLimits;
pub(super) use text::Visible;

//! Log output that never makes its callers wait: the queue before each stream, messages, repetitions.

mod messages;
mod output;
mod repetition;
mod text;

pub use messages::Messages;
pub(super) use messages::{DROPPED, HELD_BACK};
pub use output::{Output, QueueLimits, unbuffered};
pub use text::Visible;

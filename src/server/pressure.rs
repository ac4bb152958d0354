//! A flag that is set while memory or origin connections are scarce.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// A shared flag, set while memory or origin connections are scarce. While it is set, the responses
/// to clients that do not read are dropped sooner.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    pub fn set_high(&self, is_high: bool) {
        self.0.store(is_high, Relaxed);
    }

    pub fn is_high(&self) -> bool {
        self.0.load(Relaxed)
    }
}

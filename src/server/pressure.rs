//! A flag for scarce memory or origin connections.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// A shared flag. While it is set, clients that do not read lose their responses sooner.
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

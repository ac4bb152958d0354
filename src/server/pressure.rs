//! Whether memory or connections to the origin are short.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// A flag that clones share. While it is set, clients that do not read lose their responses sooner.
#[derive(Debug, Clone, Default)]
pub struct Pressure(Arc<AtomicBool>);

impl Pressure {
    /// Says whether something is short.
    pub fn set_high(&self, is_high: bool) {
        self.0.store(is_high, Relaxed);
    }

    /// Whether something is short.
    pub fn is_high(&self) -> bool {
        self.0.load(Relaxed)
    }
}

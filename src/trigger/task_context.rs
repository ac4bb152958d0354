//! The services that schedules and polls use.

use std::sync::Arc;

use crate::{field::Timestamp, telemetry::Metrics, warm::WarmQueue};

/// A function that returns the wall-clock time.
pub(crate) type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The services of a node that schedules and polls use.
pub(crate) struct TaskContext<F> {
    /// The fleet and its purge log.
    pub fleet: Arc<F>,
    /// The queue of targets to warm.
    pub warm: WarmQueue,
    pub now: WallClock,
    pub metrics: Arc<Metrics>,
}

impl<F> Clone for TaskContext<F> {
    fn clone(&self) -> Self {
        Self {
            fleet: Arc::clone(&self.fleet),
            warm: self.warm.clone(),
            now: Arc::clone(&self.now),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

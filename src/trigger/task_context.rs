//! The dependencies of schedules and polls.

use std::sync::Arc;

use crate::{field::Timestamp, telemetry::Metrics, warm::WarmQueue};

/// Returns the wall-clock time.
pub(crate) type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The dependencies of schedules and polls.
pub(crate) struct TaskContext<F> {
    /// The fleet and its purge log.
    pub fleet: Arc<F>,
    /// The queue of targets to fetch ahead.
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

//! Locks and atomics for code that is model-checked. With the feature `models`, they belong to a
//! scheduler that explores how threads interleave (`src/pipeline/models.rs`).

#[cfg(not(feature = "models"))]
mod primitives {
    use std::time::Duration;

    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) use parking_lot::Mutex;

    /// Waits for a future; returns `None` if it takes longer than `limit`.
    pub(crate) async fn with_timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }
}

#[cfg(feature = "models")]
mod primitives {
    use std::time::Duration;

    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
    use shuttle::sync::{self, MutexGuard};

    /// Waits for a future without a limit: the scheduler has no clock.
    pub(crate) async fn with_timeout<F: Future>(_limit: Duration, future: F) -> Option<F::Output> {
        Some(future.await)
    }

    /// The scheduler's lock with the interface of `parking_lot`, which has no poisoning.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

pub(crate) use primitives::{AtomicU64, Mutex, Ordering, with_timeout};

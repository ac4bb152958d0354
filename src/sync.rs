//! Locks and atomics of what several threads share in a few places that are modelled: with the feature
//! `models`, those of a scheduler that tries the orders in which threads may run (`src/pipeline/models.rs`).

#[cfg(not(feature = "models"))]
mod primitives {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) use parking_lot::Mutex;
}

#[cfg(feature = "models")]
mod primitives {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
    use shuttle::sync::{self, MutexGuard};

    /// The scheduler's lock with the interface of `parking_lot`, which knows no poisoning.
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

pub(crate) use primitives::{AtomicU64, Mutex, Ordering};

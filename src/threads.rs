//! Numbers of threads, for state that each thread has for itself.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns the number of cores that this process may use, or 1 if it is unknown.
pub(crate) fn core_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the number of this thread. Threads are numbered in the order of their first call.
pub(crate) fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

//! Evicted responses that clients still read: their memory is outside the budget.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::entry::{Entry, StoredResponse};

/// Only responses larger than this, in bytes, are counted.
const LARGE: usize = 64 << 10;

/// The limit for the total size of pinned responses, in bytes.
const LIMIT: u64 = 16 << 20;

/// Evicted responses with bodies that clients still read.
#[derive(Default)]
pub(super) struct PinnedResponses {
    responses: Mutex<Vec<Arc<StoredResponse>>>,
    bytes: AtomicU64,
}

impl PinnedResponses {
    /// Starts counting an evicted entry if it is a large response in use.
    pub(super) fn track(&self, entry: Entry) {
        let Entry::Response(response) = entry else { return };
        if response.heap_size() <= LARGE || !response.is_being_read() {
            return;
        }
        let mut responses = self.responses.lock();
        if !responses.iter().any(|known| Arc::ptr_eq(known, &response)) {
            responses.push(response);
        }
        self.sweep(&mut responses);
    }

    /// Returns the total size of pinned responses. Checks whether each is still read.
    pub(super) fn bytes(&self) -> u64 {
        self.sweep(&mut self.responses.lock());
        self.bytes.load(Relaxed)
    }

    /// Returns whether the pinned bytes exceed the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.bytes.load(Relaxed) > LIMIT && self.bytes() > LIMIT
    }

    fn sweep(&self, responses: &mut Vec<Arc<StoredResponse>>) {
        responses.retain(|response| response.is_being_read());
        let bytes: usize = responses.iter().map(|response| response.heap_size()).sum();
        self.bytes.store(bytes as u64, Relaxed);
    }
}

//! Tracks evicted responses that requests still use. Their memory is outside the budget.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::entry::{Entry, StoredResponse};

/// The size in bytes above which an evicted response is tracked.
const LARGE: usize = 64 << 10;

/// The limit for the total size of pinned responses, in bytes.
const LIMIT: u64 = 16 << 20;

/// Evicted responses that clients still read, or that requests are about to send or encode.
#[derive(Default)]
pub(super) struct PinnedResponses {
    responses: Mutex<Vec<Arc<StoredResponse>>>,
    bytes: AtomicU64,
}

impl PinnedResponses {
    /// Starts tracking an evicted entry if it is a large response in use.
    pub(super) fn track(&self, entry: Entry) {
        let Entry::Response(response) = entry else { return };
        if response.heap_size() <= LARGE || !is_in_use(&response) {
            return;
        }
        let mut responses = self.responses.lock();
        if !responses.iter().any(|known| Arc::ptr_eq(known, &response)) {
            responses.push(response);
        }
        self.sweep(&mut responses);
    }

    /// Returns the total size of pinned responses in bytes, after removing those no longer in use.
    pub(super) fn bytes(&self) -> u64 {
        self.sweep(&mut self.responses.lock());
        self.bytes.load(Relaxed)
    }

    /// Returns whether the pinned bytes exceed the limit, after removing responses no longer in
    /// use. The node checks this several times a second, so that none of them stays for long.
    pub(super) fn is_over_limit(&self) -> bool {
        self.bytes.load(Relaxed) > 0 && self.bytes() > LIMIT
    }

    /// Returns the number of tracked responses, including those no longer in use.
    #[cfg(test)]
    pub(super) fn tracked(&self) -> usize {
        self.responses.lock().len()
    }

    fn sweep(&self, responses: &mut Vec<Arc<StoredResponse>>) {
        responses.retain(is_in_use);
        let bytes: usize = responses.iter().map(|response| bytes_of(response)).sum();
        self.bytes.store(bytes as u64, Relaxed);
    }
}

fn is_in_use(response: &Arc<StoredResponse>) -> bool {
    Arc::strong_count(response) > 1 || response.is_being_read()
}

fn bytes_of(response: &StoredResponse) -> usize {
    let coded = response.forms.iter().map(|form| form.bytes.len());
    let files = response.forms.files().map(|file| file.size());
    response.heap_size() + coded.chain(files).sum::<usize>()
}

//! This node's requests that wait for fetches by other nodes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::store::LeaseResult;

/// The waiters by digest, and the name of this node in messages.
pub(super) struct LeaseWaiters {
    node: String,
    is_subscribed: AtomicBool,
    by_digest: Mutex<HashMap<u128, Vec<LeaseWaiter>>>,
    next: AtomicU64,
}

struct LeaseWaiter {
    id: u64,
    sender: oneshot::Sender<LeaseResult>,
}

impl LeaseWaiters {
    pub(super) fn new() -> Self {
        Self {
            node: format!("{:016x}", fastrand::u64(..)),
            is_subscribed: AtomicBool::new(false),
            by_digest: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Records whether this node receives messages. If it does not, all waits end.
    pub(super) fn set_subscribed(&self, is_subscribed: bool) {
        self.is_subscribed.store(is_subscribed, Relaxed);
        if !is_subscribed {
            self.by_digest.lock().clear();
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Relaxed)
    }

    /// Delivers the result of a fetch to this node's waiters.
    pub(super) fn notify(&self, digest: u128, result: LeaseResult) {
        let waiters = self.by_digest.lock().remove(&digest).unwrap_or_default();
        for waiter in waiters {
            let _gone_already = waiter.sender.send(result);
        }
    }

    /// Registers a waiter for the lease of this digest.
    pub(super) fn register(self: &Arc<Self>, digest: u128) -> Registration {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.by_digest.lock().entry(digest).or_default().push(LeaseWaiter { id, sender });
        Registration { waiters: Arc::clone(self), digest, id, receiver }
    }
}

/// A waiter's registration. Dropping it removes the waiter.
pub(super) struct Registration {
    waiters: Arc<LeaseWaiters>,
    pub digest: u128,
    id: u64,
    pub receiver: oneshot::Receiver<LeaseResult>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waiters = self.waiters.by_digest.lock();
        if let Some(waiting) = waiters.get_mut(&self.digest) {
            waiting.retain(|waiter| waiter.id != self.id);
            if waiting.is_empty() {
                waiters.remove(&self.digest);
            }
        }
    }
}

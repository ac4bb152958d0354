//! The thread that serves a new connection.
//!
//! Threads that accept on the same socket wake up together, and the first one accepts all clients
//! that wait. Connections that are opened at once, as a pool of a client is, would stay on one core
//! for as long as they last. Therefore a thread hands new connections over if another thread has
//! clearly fewer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// A thread keeps a new connection if it has at most this many more than another thread, or an
/// eighth more. Handing a connection over wakes the other thread, which costs about as much as
/// accepting it.
const TOLERATED_LEAD: usize = 2;

/// The threads that accept on one socket.
#[derive(Debug, Default)]
pub(super) struct Placement {
    threads: Mutex<Vec<Arc<ServingThread>>>,
}

#[derive(Debug)]
struct ServingThread {
    runtime: Handle,
    connections: AtomicUsize,
}

/// A thread that serves connections of a socket, until this value is dropped.
pub(super) struct PlacementMember {
    placement: Arc<Placement>,
    own: Arc<ServingThread>,
}

/// Counts a connection as served by a thread until this value is dropped.
#[derive(Debug)]
pub(super) struct PlacedConnection(Arc<ServingThread>);

impl Placement {
    /// Adds the thread of the current runtime.
    pub(super) fn join(self: &Arc<Self>) -> PlacementMember {
        let own = ServingThread { runtime: Handle::current(), connections: AtomicUsize::new(0) };
        let own = Arc::new(own);
        self.threads.lock().push(Arc::clone(&own));
        PlacementMember { placement: Arc::clone(self), own }
    }
}

impl PlacementMember {
    /// Chooses a thread for a connection that this thread has accepted.
    pub(super) fn place(&self) -> PlacedConnection {
        let threads = self.placement.threads.lock();
        let least = threads.iter().min_by_key(|thread| thread.connections.load(Relaxed));
        let chosen = match least {
            Some(least) if is_ahead(&self.own, least) => least,
            _ => &self.own,
        };
        chosen.connections.fetch_add(1, Relaxed);
        PlacedConnection(Arc::clone(chosen))
    }

    /// Returns the runtime of a connection that another thread serves.
    pub(super) fn other_runtime<'a>(&self, placed: &'a PlacedConnection) -> Option<&'a Handle> {
        (!Arc::ptr_eq(&placed.0, &self.own)).then_some(&placed.0.runtime)
    }
}

fn is_ahead(own: &ServingThread, least: &ServingThread) -> bool {
    let least = least.connections.load(Relaxed);
    own.connections.load(Relaxed) > least + TOLERATED_LEAD.max(least / 8)
}

impl Drop for PlacementMember {
    fn drop(&mut self) {
        self.placement.threads.lock().retain(|thread| !Arc::ptr_eq(thread, &self.own));
    }
}

impl Drop for PlacedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

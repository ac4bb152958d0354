//! Graceful shutdown: listeners close, and open connections finish their requests.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A phase of the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum DrainPhase {
    /// Clients should connect elsewhere. New connections are still accepted, but each HTTP/1.1
    /// response closes its connection, and HTTP/2 connections get a GOAWAY.
    Leaving = 1,
    /// Listeners are closed. Requests in flight may finish.
    Draining,
}

/// A shutdown signal shared by the listeners and connections of a process.
#[derive(Clone, Default)]
pub struct Drain {
    state: Arc<DrainState>,
}

#[derive(Default)]
struct DrainState {
    /// The [`DrainPhase`]; zero before the shutdown.
    phase: AtomicU8,
    listeners: AtomicUsize,
    open: Mutex<OpenConnections>,
    started: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    connections: HashMap<u64, Waker>,
}

impl Drain {
    /// Creates a signal for a process that is not shutting down.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the phase [`DrainPhase::Leaving`].
    pub fn leave(&self) {
        self.state.enter_phase(DrainPhase::Leaving);
    }

    /// Begins the drain: listeners stop accepting, and each connection closes after its current
    /// request.
    pub fn start(&self) {
        self.state.enter_phase(DrainPhase::Draining);
        self.state.started.notify_waiters();
        self.state.emptied.notify_waiters();
    }

    /// Returns whether clients should connect elsewhere. Costs one relaxed load.
    pub fn is_leaving(&self) -> bool {
        self.state.has_reached(DrainPhase::Leaving)
    }

    /// Waits until the drain begins.
    pub async fn started(&self) {
        loop {
            let mut started = std::pin::pin!(self.state.started.notified());
            started.as_mut().enable();
            if self.state.has_reached(DrainPhase::Draining) {
                return;
            }
            started.await;
        }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.state.open.lock().connections.len()
    }

    /// Counts a listener as open until the guard is dropped; or an accepted connection, until its
    /// task has registered it.
    pub(super) fn register_listener(&self) -> ListenerGuard {
        self.state.listeners.fetch_add(1, Ordering::Relaxed);
        ListenerGuard(Arc::clone(&self.state))
    }

    /// Waits until no listener and no connection is open, for at most the time `deadline`. Returns
    /// the number of connections still open.
    ///
    /// Upgraded connections (WebSocket) count as open, and get the same time as requests in flight.
    pub async fn finished(&self, deadline: Duration) -> usize {
        let emptied = async {
            loop {
                let mut emptied = std::pin::pin!(self.state.emptied.notified());
                emptied.as_mut().enable();
                // In this order: an accepted connection counts as a listener until it counts as open.
                if self.state.listeners.load(Ordering::Acquire) == 0 && self.open() == 0 {
                    return;
                }
                emptied.await;
            }
        };
        let _ = tokio::time::timeout(deadline, emptied).await;
        self.open()
    }

    /// Counts a connection as open until all copies of the guard are dropped; phase changes wake its
    /// task.
    pub(super) fn register(&self, waker: &Waker) -> DrainGuard {
        let mut open = self.state.open.lock();
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, waker.clone());
        let registration = Registration { state: Arc::clone(&self.state), id };
        DrainGuard { state: Arc::clone(&self.state), _registration: Arc::new(registration) }
    }
}

/// Counts a listener as open until this guard is dropped.
pub(super) struct ListenerGuard(Arc<DrainState>);

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::AcqRel);
        self.0.emptied.notify_waiters();
    }
}

/// Counts a connection as open until all its copies are dropped.
#[derive(Clone)]
pub(super) struct DrainGuard {
    state: Arc<DrainState>,
    _registration: Arc<Registration>,
}

/// A connection that is counted as open.
struct Registration {
    state: Arc<DrainState>,
    id: u64,
}

impl DrainState {
    fn enter_phase(&self, phase: DrainPhase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        for connection in self.open.lock().connections.values() {
            connection.wake_by_ref();
        }
    }

    fn has_reached(&self, phase: DrainPhase) -> bool {
        self.phase.load(Ordering::Relaxed) >= phase as u8
    }
}

impl DrainGuard {
    pub(super) fn has_reached(&self, phase: DrainPhase) -> bool {
        self.state.has_reached(phase)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let is_last = {
            let mut open = self.state.open.lock();
            open.connections.remove(&self.id);
            open.connections.is_empty()
        };
        if is_last {
            self.state.emptied.notify_waiters();
        }
    }
}

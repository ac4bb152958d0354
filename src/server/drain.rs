//! Ending well: no new connections, the open ones finish what they are doing.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A signal shared by the listeners and connections of a process; clones are the same signal.
#[derive(Clone, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_started: AtomicBool,
    open: Mutex<Open>,
    started: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Waker>,
}

impl Drain {
    /// A signal not given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal: listeners stop accepting, each connection ends after the request at hand.
    pub fn start(&self) {
        self.shared.is_started.store(true, Ordering::Release);
        self.shared.started.notify_waiters();
        for connection in self.shared.open.lock().connections.values() {
            connection.wake_by_ref();
        }
        self.shared.emptied.notify_waiters();
    }

    /// Whether the signal has been given.
    pub fn is_started(&self) -> bool {
        self.shared.is_started.load(Ordering::Relaxed)
    }

    /// Waits for the signal.
    pub async fn started(&self) {
        loop {
            let mut started = std::pin::pin!(self.shared.started.notified());
            started.as_mut().enable();
            if self.shared.is_started.load(Ordering::Acquire) {
                return;
            }
            started.await;
        }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.lock().connections.len()
    }

    /// Waits until no connection is open, at most for `deadline`; gives how many are left.
    ///
    /// Upgraded connections (WebSocket) do not count: they have no end of their own.
    pub async fn finished(&self, deadline: Duration) -> usize {
        let emptied = async {
            loop {
                let mut emptied = std::pin::pin!(self.shared.emptied.notified());
                emptied.as_mut().enable();
                if self.open() == 0 {
                    return;
                }
                emptied.await;
            }
        };
        let _ = tokio::time::timeout(deadline, emptied).await;
        self.open()
    }

    /// Counts a connection in; its task is woken at the signal.
    pub(super) fn enter(&self, waker: &Waker) -> Entered {
        let mut open = self.shared.open.lock();
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, waker.clone());
        Entered { shared: Arc::clone(&self.shared), id }
    }
}

/// A connection that has been counted in; counted out when dropped.
pub(super) struct Entered {
    shared: Arc<Shared>,
    id: u64,
}

impl Entered {
    pub(super) fn is_draining(&self) -> bool {
        self.shared.is_started.load(Ordering::Relaxed)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let is_last = {
            let mut open = self.shared.open.lock();
            open.connections.remove(&self.id);
            open.connections.is_empty()
        };
        if is_last {
            self.shared.emptied.notify_waiters();
        }
    }
}

//! Limits on the connections to one server and on the requests queued for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::ConnectionLimits;

/// Limits the connections to one server, and the requests queued for a connection.
pub(super) struct ConnectionLimiter {
    permits: Arc<Semaphore>,
    pub(super) limits: ConnectionLimits,
    pending: AtomicUsize,
    rejected: AtomicU64,
}

/// A permit for one connection; released when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A queued request; leaves the queue when dropped.
pub(super) struct QueuedRequest<'a>(&'a ConnectionLimiter);

/// Statistics of the connections to an origin's servers, and of the requests queued for them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Number of connections, including idle ones, but not tunnels.
    pub connections: usize,
    /// Number of requests queued for a connection.
    pub pending: usize,
    /// Number of requests rejected since the start because the queue was full or the wait too long.
    pub rejected: u64,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        Self { permits, limits, pending: AtomicUsize::new(0), rejected: AtomicU64::new(0) }
    }

    /// Returns a permit, or `None` if no permit is free.
    pub(super) fn try_acquire(&self) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(ConnectionPermit { _permit: Some(permit) })
    }

    /// Waits for a permit. Permits are granted in the order of the calls.
    pub(super) async fn acquire(&self) -> ConnectionPermit {
        // The semaphore is never closed.
        ConnectionPermit { _permit: Arc::clone(&self.permits).acquire_owned().await.ok() }
    }

    /// Enters the queue. Returns `None` if it is full.
    pub(super) fn enter_queue(&self) -> Option<QueuedRequest<'_>> {
        let room = |pending: usize| (pending < self.limits.pending).then_some(pending + 1);
        self.pending.fetch_update(Relaxed, Relaxed, room).ok()?;
        Some(QueuedRequest(self))
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.load(Relaxed)
    }

    pub(super) fn count_rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn load(&self) -> ConnectionStats {
        ConnectionStats {
            connections: self.limits.connections.saturating_sub(self.permits.available_permits()),
            pending: self.pending(),
            rejected: self.rejected.load(Relaxed),
        }
    }
}

impl Drop for QueuedRequest<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

impl std::ops::Add for ConnectionStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            pending: self.pending + other.pending,
            rejected: self.rejected + other.rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connections_and_the_queue_have_their_limits() {
        let pending_timeout = Duration::from_secs(1);
        let capacity = ConnectionLimiter::new(ConnectionLimits {
            connections: 1,
            pending: 1,
            pending_timeout,
        });
        let permit = capacity.try_acquire().unwrap();
        assert!(capacity.try_acquire().is_none());
        let queue_slot = capacity.enter_queue().unwrap();
        assert!(capacity.enter_queue().is_none());
        assert_eq!(capacity.load(), ConnectionStats { connections: 1, pending: 1, rejected: 0 });
        drop((permit, queue_slot));
        capacity.count_rejected();
        assert_eq!(capacity.load(), ConnectionStats { connections: 0, pending: 0, rejected: 1 });
        assert!(capacity.try_acquire().is_some() && capacity.enter_queue().is_some());
    }
}

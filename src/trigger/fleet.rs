//! The interface through which schedules and polls use the fleet: purges, de-duplication, leases,
//! shared values.

use std::{future::Future, sync::Arc, time::Duration};

use super::Purger;
use crate::{
    fence::Purge,
    purge::{LeaderLease, LogUnavailable},
};

/// The nodes that share one purge log.
pub(crate) trait Fleet: Send + Sync + 'static {
    /// A lease that only one node holds at a time.
    type Lease: Lease;

    /// Appends a purge, and returns once this node has applied it.
    fn purge(&self, purge: Purge) -> impl Future<Output = Result<(), LogUnavailable>> + Send;

    /// Appends a purge unless a node appended a purge with this key in the last 24 hours.
    fn purge_deduplicated(
        &self,
        purge: Purge,
        key: &str,
    ) -> impl Future<Output = Result<(), LogUnavailable>> + Send;

    /// Marks a key as used. Returns `true` if no node used it within the time `within` before.
    fn dedup(
        &self,
        key: &str,
        within: Duration,
    ) -> impl Future<Output = Result<bool, LogUnavailable>> + Send;

    /// Acquires the lease with this name; `None` if another node holds it or Redis is unreachable.
    fn acquire_lease(&self, name: &str) -> impl Future<Output = Option<Self::Lease>> + Send;

    /// Returns the last value that a node stored under this name, if any.
    fn value(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<String>, LogUnavailable>> + Send;

    /// Stores a value under this name for all nodes.
    fn set_value(
        &self,
        name: &str,
        value: &str,
    ) -> impl Future<Output = Result<(), LogUnavailable>> + Send;
}

/// A lease held by this node, released on drop.
pub(crate) trait Lease: Send + Sync + 'static {
    /// Returns true while this node holds the lease.
    fn is_held(&self) -> bool;
}

/// The [`Fleet`] implementation for nodes that share a purge log.
pub(crate) struct LogFleet {
    purger: Arc<Purger>,
}

impl LogFleet {
    pub(crate) fn new(purger: Arc<Purger>) -> Self {
        Self { purger }
    }
}

impl Lease for LeaderLease {
    fn is_held(&self) -> bool {
        Self::is_held(self)
    }
}

impl Fleet for LogFleet {
    type Lease = LeaderLease;

    async fn purge(&self, purge: Purge) -> Result<(), LogUnavailable> {
        self.purger.purge(purge).await.map(drop)
    }

    async fn purge_deduplicated(&self, purge: Purge, key: &str) -> Result<(), LogUnavailable> {
        self.purger.purge_deduplicated(purge, key).await.map(drop)
    }

    async fn dedup(&self, key: &str, within: Duration) -> Result<bool, LogUnavailable> {
        self.purger.log().dedup(key, within).await
    }

    async fn acquire_lease(&self, name: &str) -> Option<LeaderLease> {
        self.purger.log().acquire_lease(name).await.ok().flatten()
    }

    async fn value(&self, name: &str) -> Result<Option<String>, LogUnavailable> {
        self.purger.log().fleet_value(name).await
    }

    async fn set_value(&self, name: &str, value: &str) -> Result<(), LogUnavailable> {
        self.purger.log().set_fleet_value(name, value).await
    }
}

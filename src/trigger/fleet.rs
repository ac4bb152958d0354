//! What schedules and polls need of the other nodes: the purge log, turns, leases, and a few remembered
//! words.

use std::{future::Future, sync::Arc, time::Duration};

use super::Purger;
use crate::{
    fence::Purge,
    purge::{LeaderLease, LogUnavailable},
};

/// The nodes that share one purge log.
pub(crate) trait Fleet: Send + Sync + 'static {
    /// A role that one node at a time has.
    type Lease: Lease;

    /// Appends a purge; when this returns, this node has applied it.
    fn purge(&self, purge: Purge) -> impl Future<Output = Result<(), LogUnavailable>> + Send;

    /// The same, but nothing is appended where a purge was with this key in the last 24 hours, by
    /// whichever node.
    fn purge_deduplicated(
        &self,
        purge: Purge,
        key: &str,
    ) -> impl Future<Output = Result<(), LogUnavailable>> + Send;

    /// Whether this node is the first to ask with this key within this time.
    fn dedup(
        &self,
        key: &str,
        within: Duration,
    ) -> impl Future<Output = Result<bool, LogUnavailable>> + Send;

    /// The role of this name, unless another node has it or nobody can say.
    fn acquire_lease(&self, name: &str) -> impl Future<Output = Option<Self::Lease>> + Send;

    /// What some node remembered last under this name.
    fn value(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<String>, LogUnavailable>> + Send;

    /// Has all nodes remember this, until another value takes its place.
    fn set_value(
        &self,
        name: &str,
        value: &str,
    ) -> impl Future<Output = Result<(), LogUnavailable>> + Send;
}

/// A role that this node has; given up when dropped.
pub(crate) trait Lease: Send + Sync + 'static {
    /// Whether it is still this node's.
    fn is_held(&self) -> bool;
}

/// The fleet as its purge log knows it.
pub(crate) struct LogFleet {
    purger: Arc<Purger>,
}

impl LogFleet {
    /// The nodes that share the log of this purger.
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

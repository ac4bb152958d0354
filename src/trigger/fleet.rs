//! What schedules and polls need of the other nodes: the purge log, turns, leases, and a few remembered
//! words.

use std::{future::Future, sync::Arc, time::Duration};

use super::Purger;
use crate::{
    fence::Purge,
    purge::{Holding, Unavailable},
};

/// The nodes that share one purge log.
pub trait Fleet: Send + Sync + 'static {
    /// A role that one node at a time has.
    type Lease: Lease;

    /// Appends a purge; when this returns, this node has applied it.
    fn purge(&self, purge: Purge) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// The same, but nothing is appended where a purge was with this key in the last 24 hours, by
    /// whichever node.
    fn purge_once(
        &self,
        purge: Purge,
        key: &str,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Whether this node is the first to ask with this key within this time.
    fn once(
        &self,
        key: &str,
        within: Duration,
    ) -> impl Future<Output = Result<bool, Unavailable>> + Send;

    /// The role of this name, unless another node has it or nobody can say.
    fn hold(&self, name: &str) -> impl Future<Output = Option<Self::Lease>> + Send;

    /// What some node remembered last under this name.
    fn recall(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<String>, Unavailable>> + Send;

    /// Has all nodes remember this, until another value takes its place.
    fn remember(
        &self,
        name: &str,
        value: &str,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// A role that this node has; given up when dropped.
pub trait Lease: Send + Sync + 'static {
    /// Whether it is still this node's.
    fn is_held(&self) -> bool;
}

/// The fleet as its purge log knows it.
pub struct Nodes {
    purger: Arc<Purger>,
}

impl Nodes {
    /// The nodes that share the log of this purger.
    pub fn new(purger: Arc<Purger>) -> Self {
        Self { purger }
    }
}

impl Lease for Holding {
    fn is_held(&self) -> bool {
        Self::is_held(self)
    }
}

impl Fleet for Nodes {
    type Lease = Holding;

    async fn purge(&self, purge: Purge) -> Result<(), Unavailable> {
        self.purger.purge(purge).await.map(drop)
    }

    async fn purge_once(&self, purge: Purge, key: &str) -> Result<(), Unavailable> {
        self.purger.purge_once(purge, key).await.map(drop)
    }

    async fn once(&self, key: &str, within: Duration) -> Result<bool, Unavailable> {
        self.purger.log().once(key, within).await
    }

    async fn hold(&self, name: &str) -> Option<Holding> {
        self.purger.log().hold(name).await.ok().flatten()
    }

    async fn recall(&self, name: &str) -> Result<Option<String>, Unavailable> {
        self.purger.log().recall(name).await
    }

    async fn remember(&self, name: &str, value: &str) -> Result<(), Unavailable> {
        self.purger.log().remember(name, value).await
    }
}

//! Fleet-wide request collapsing: if several nodes miss the same key, one node fetches it.

use http::StatusCode;
use tokio::sync::oneshot;

/// The outcome of claiming the fetch for a key that is in no tier.
#[derive(Debug)]
pub(crate) enum FetchClaim {
    /// This node fetches. Other nodes wait until the lease ends.
    Lead(FetchLease),
    Follow(RemoteFetch),
    /// The node is alone, or coordination is unavailable: fetch without a lease.
    Uncoordinated,
}

/// The outcome of a fetch, as reported to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseResult {
    /// The response is in the store.
    Stored,
    /// The response is for one client only, so each request needs a fetch of its own.
    NotShareable,
    Failed(OriginFailure),
    /// The fetching node died or gave up: another node may fetch instead.
    Abandoned,
}

/// A failure of the origin, as reported to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OriginFailure {
    /// The status for clients: the origin's, or the status of Larder's own response if there is
    /// none.
    pub status: StatusCode,
    /// The origin's `Retry-After`, in seconds, if sent.
    pub retry_after: Option<u32>,
    /// Whether every connection failed before a response began.
    pub is_disconnected: bool,
}

/// The exclusive right of this node to fetch a key.
///
/// Dropping the lease releases it with [`LeaseResult::Abandoned`].
#[derive(Debug)]
pub(crate) struct FetchLease(oneshot::Sender<LeaseResult>);

/// A fetch in progress on another node.
#[derive(Debug)]
pub(crate) struct RemoteFetch(oneshot::Receiver<LeaseResult>);

impl FetchLease {
    /// Returns a lease, and the receiver of its result.
    pub(crate) fn new() -> (Self, oneshot::Receiver<LeaseResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Ends the lease. Earlier puts reach the store before other nodes receive the result.
    pub(crate) fn release(self, result: LeaseResult) {
        let _nobody_listens = self.0.send(result);
    }
}

impl RemoteFetch {
    /// Returns the sender for another node's result, and the handle that awaits the result.
    pub(crate) fn new() -> (oneshot::Sender<LeaseResult>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Waits for the result. The wait is bounded, because a lease expires if it is not renewed.
    pub(crate) async fn result(self) -> LeaseResult {
        self.0.await.unwrap_or(LeaseResult::Abandoned)
    }
}

//! Fleet-wide request collapsing: one node fetches what several nodes miss.

use http::StatusCode;
use tokio::sync::oneshot;

/// The outcome of claiming the fetch for a key that is in no tier.
#[derive(Debug)]
pub(crate) enum FetchClaim {
    /// This node fetches. Other nodes wait until the lease ends.
    Lead(FetchLease),
    Follow(RemoteFetch),
    /// There is no other node, or coordination is unavailable: fetch without a lease.
    Uncoordinated,
}

/// The outcome of a fetch, as reported to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseResult {
    /// The response is in the store.
    Stored,
    /// The response is for one client only: each request fetches its own.
    NotShareable,
    Failed(OriginFailure),
    /// The fetching node died or gave up: another node may take over.
    Abandoned,
}

/// A failure of the origin, as reported to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OriginFailure {
    /// The status for clients: the origin's, or that of Larder's own response if the origin sent
    /// none.
    pub status: StatusCode,
    /// The origin's `Retry-After`, in seconds.
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

    /// Ends the lease. Other nodes receive the result after earlier puts have reached the store.
    pub(crate) fn release(self, result: LeaseResult) {
        let _nobody_listens = self.0.send(result);
    }
}

impl RemoteFetch {
    /// Returns the sender of another node's result, and the handle to await it.
    pub(crate) fn new() -> (oneshot::Sender<LeaseResult>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// Waits for the result. The wait is bounded, because a lease expires unless it is renewed.
    pub(crate) async fn result(self) -> LeaseResult {
        self.0.await.unwrap_or(LeaseResult::Abandoned)
    }
}

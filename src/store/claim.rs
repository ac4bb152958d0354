//! Fleet-wide collapsing: which node fetches what several nodes lack.

use http::StatusCode;
use tokio::sync::oneshot;

/// What a node is to do about a key that no tier can answer.
#[derive(Debug)]
pub(crate) enum FetchClaim {
    /// It fetches. The others wait until the lease ends.
    Lead(FetchLease),
    /// Another node fetches.
    Follow(RemoteFetch),
    /// Nobody can be asked, or there is nobody to ask.
    Uncoordinated,
}

/// What came of a fetch, for the other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseResult {
    /// It is stored: the store has it.
    Stored,
    /// It is for its asker alone: everyone asks for themselves.
    NotShareable,
    /// The origin failed.
    Failed(OriginFailure),
    /// The one who fetched has died, or given up: another may take the lead.
    Abandoned,
}

/// How the origin failed a node, as other nodes learn it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OriginFailure {
    /// The status that clients get: the origin's, or that of Larder's own response if none came.
    pub status: StatusCode,
    /// Seconds for which the origin wants to be left alone (`Retry-After`).
    pub retry_after: Option<u32>,
    /// Whether there was no connection, or none that lasted until the response began.
    pub is_disconnected: bool,
}

/// The right to fetch for the whole fleet. Dropped, it counts as released with [`LeaseResult::Abandoned`].
#[derive(Debug)]
pub(crate) struct FetchLease(oneshot::Sender<LeaseResult>);

/// Another node's fetch.
#[derive(Debug)]
pub(crate) struct RemoteFetch(oneshot::Receiver<LeaseResult>);

impl FetchLease {
    /// A lease, and where its end is told.
    pub(crate) fn new() -> (Self, oneshot::Receiver<LeaseResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Ends the lease. What was put into the store before is there when the others hear of it.
    pub(crate) fn release(self, result: LeaseResult) {
        let _nobody_listens = self.0.send(result);
    }
}

impl RemoteFetch {
    /// Another node's fetch, and where its end is to be told.
    pub(crate) fn new() -> (oneshot::Sender<LeaseResult>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// How it ended. Bounded: a lease that is not renewed runs out.
    pub(crate) async fn result(self) -> LeaseResult {
        self.0.await.unwrap_or(LeaseResult::Abandoned)
    }
}

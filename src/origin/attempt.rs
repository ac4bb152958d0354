//! Failed attempts to get a response from one server, and whether to send the request again.

use super::{
    connections::ConnectionAge,
    error::{OriginError, RequestDelivery},
};

/// A failed attempt to send a request to one server.
pub(super) struct AttemptFailure {
    pub(super) error: OriginError,
    pub(super) delivery: RequestDelivery,
    pub(super) replay: ReplayState,
}

/// Whether a request without a response can be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplayState {
    /// Nothing of the request was sent.
    Unsent,
    /// The origin stated that it has not processed the request. The whole request can be sent
    /// again.
    Unprocessed,
    /// At least part of the request was sent. The whole request can be sent again.
    Replayable,
    /// The body of the request can no longer be sent again.
    Lost,
}

impl AttemptFailure {
    /// Returns whether the request may be sent to another server. `is_allowed` states whether the
    /// request's method permits a retry.
    pub(super) fn may_retry_elsewhere(&self, is_allowed: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.replay {
            ReplayState::Unsent | ReplayState::Unprocessed => true,
            ReplayState::Replayable => is_allowed && is_closed,
            ReplayState::Lost => false,
        }
    }

    /// Returns whether to send the request to the same server again, because the connection was
    /// dead or the server rejected the request unprocessed.
    pub(super) fn may_retry_here(&self, age: ConnectionAge, is_idempotent: bool) -> bool {
        let is_closed = matches!(self.error, OriginError::Closed { .. });
        match self.replay {
            ReplayState::Unprocessed => true,
            ReplayState::Unsent => age == ConnectionAge::Reused && is_closed,
            ReplayState::Replayable => {
                age == ConnectionAge::Reused && self.may_retry_elsewhere(is_idempotent)
            }
            ReplayState::Lost => false,
        }
    }
}

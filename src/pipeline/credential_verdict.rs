//! What an origin response says about the request's credentials.

use http::StatusCode;

/// What an origin response says about the request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialVerdict {
    /// The origin accepts the credentials.
    Accepted,
    /// The origin refuses the credentials.
    Refused,
    /// The origin denies this target to the credentials.
    Denied,
    /// The response says nothing about the credentials.
    None,
}

impl CredentialVerdict {
    /// Returns the verdict of a response to a safe request, by its status.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Refused,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Denied,
            status if status.is_success() => Self::Accepted,
            _ => Self::None,
        }
    }
}

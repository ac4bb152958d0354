//! What an origin response says about the credentials of its request.

use http::StatusCode;

/// What an origin response says about the credentials of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialVerdict {
    /// The origin accepts them.
    Accepted,
    /// The origin refuses them.
    Refused,
    /// The origin denies them this target.
    Denied,
    /// It says nothing about them.
    None,
}

impl CredentialVerdict {
    /// Returns the verdict of a response to a safe request.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Refused,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Denied,
            status if status.is_success() => Self::Accepted,
            _ => Self::None,
        }
    }
}

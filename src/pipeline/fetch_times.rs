//! When an origin request was sent, and when its response arrived.

use crate::field::Timestamp;

/// When a request was sent to the origin, and when its response head arrived.
#[derive(Clone, Copy)]
pub(super) struct FetchTimes {
    /// When it was sent, by the wall clock.
    pub requested_at: Timestamp,
    /// When the response head arrived, by the wall clock.
    pub received_at: Timestamp,
    /// When the response head arrived, by the monotonic clock that stored responses age by.
    pub received_steady: Timestamp,
}

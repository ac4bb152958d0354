//! A connection while its response is being read.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{body::Upload, pool::Http1, server::Server};

/// A connection may take this long from the end of its response until it is ready again.
const SETTLING: Duration = Duration::from_secs(5);

/// What a response in progress holds on to: its connection (none on HTTP/2, which is shared anyway) and its
/// place in the server's count.
pub(super) struct Lease {
    pub(super) sender: Option<Http1>,
    pub(super) upload: Option<Arc<Upload>>,
    pub(super) in_flight: InFlight,
}

impl Lease {
    /// The response has been read to its end: the connection may take the next request.
    pub(super) fn give_back(mut self) {
        let is_sent = self.upload.as_ref().is_none_or(|upload| upload.is_finished());
        let Some(mut sender) = self.sender.take().filter(|_| is_sent) else {
            return;
        };
        let server = Arc::clone(&self.in_flight.0);
        if sender.is_ready() {
            server.pool.put(sender);
        } else if !sender.is_closed() {
            tokio::spawn(async move {
                let is_ready = tokio::time::timeout(SETTLING, sender.ready()).await;
                if matches!(is_ready, Ok(Ok(()))) {
                    server.pool.put(sender);
                }
            });
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

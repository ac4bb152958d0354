//! Resources held by a response in progress.

use std::sync::Arc;

use super::{
    connections::InFlightGuard,
    http1::Http1Connection,
    http2::{StreamPermit, UploadTask},
    request_body::UploadProgress,
};

/// Resources held by a response in addition to its connection: the guard that counts it as in
/// flight, the request's upload and, on HTTP/2, the stream.
pub(super) struct ResponseGuard {
    pub(super) upload: Option<Arc<UploadProgress>>,
    pub(super) in_flight: InFlightGuard,
    pub(super) stream: Option<StreamGuard>,
}

/// A stream of an HTTP/2 connection. Dropping the guard before the response ends aborts the upload.
pub(super) struct StreamGuard {
    pub(super) upload_task: Option<UploadTask>,
    pub(super) _permit: Arc<StreamPermit>,
}

impl ResponseGuard {
    /// Ends the response. Returns an HTTP/1.1 connection to the pool.
    pub(super) fn release(mut self, connection: Option<Box<Http1Connection>>) {
        if let Some(upload_task) = self.stream.as_mut().and_then(|stream| stream.upload_task.take())
        {
            upload_task.finish_in_background();
        }
        if let Some(connection) = connection {
            self.in_flight.put(connection);
        }
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.cancel();
        }
    }
}

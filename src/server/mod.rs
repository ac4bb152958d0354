//! Client connections: listeners, TLS, HTTP/1.1 and HTTP/2, limits, drain. Knows nothing of caching.

pub mod connection;
pub mod interim;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;

pub use connection::Connection;
pub use interim::Interim;

/// What answers requests: the pipeline on the public listener, the route table on the admin listener.
pub trait Handler: Send + Sync + 'static {
    /// The body of its responses.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static;

    /// Answers one request. Dropped where the client goes away first.
    fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

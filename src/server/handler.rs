//! The interface between a server and the code that responds to requests.

use std::{convert::Infallible, error::Error, future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;

use super::{
    connection::Connection,
    immediate::{Deferrer, ImmediateResponder},
    incoming::Incoming,
};

/// Responds to requests. The pipeline handles requests on the public listener, the route table on
/// the admin listener.
pub trait Handler: Send + Sync + 'static {
    /// The body of the handler's responses.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send>
        + Send
        + Unpin
        + 'static;

    /// Responds to one request. The returned future is dropped if the client disconnects before it
    /// completes.
    fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Returns a responder for the requests of a connection that have this header section. `None` if
    /// the handler cannot respond to these requests without hyper. The responder may defer responses
    /// that take time.
    fn immediate_responder(
        self: &Arc<Self>,
        _fields: HeaderMap,
        _connection: &Arc<Connection>,
        _deferrer: &Arc<dyn Deferrer<Self::Body>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        None::<Infallible>
    }
}

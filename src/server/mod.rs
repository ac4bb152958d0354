//! Client connections: listeners, TLS, HTTP/1.1 and HTTP/2, limits, drain. Knows nothing of caching.
//!
//! A request that reaches a [`Handler`] has exactly one valid `Host` (HTTP/1.0 may have none), a target in
//! origin form (or `*` for OPTIONS), an unambiguous length, and a head within the limits. Over HTTP/2 it has
//! at most one `Cookie` field.

mod accept;
mod activity;
pub mod body_limits;
pub mod connection;
mod cookie_crumbs;
pub mod drain;
mod file_reserve;
mod framing;
pub mod fuzzed;
mod head_budget;
mod http1_io;
mod incoming;
pub mod interim;
pub mod listener;
mod parse_error;
mod pressure;
mod protocol;
mod refusal;
mod send_queue;
mod service;
pub mod settings;
mod stall;
pub(crate) mod stream;
mod syscall;
pub mod tls;
pub mod tunnel;
mod validate;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};

pub use accept::serve;
pub use body_limits::{BodyLimits, ClientBodyError, LimitedBody};
pub use connection::{Connection, ForwardedHeaders};
pub use drain::Drain;
pub use incoming::{Incoming, IncomingError};
pub use interim::InterimSender;
pub use listener::{BoundAddress, Listener, ListenerCounters, TcpOptions};
pub use pressure::Pressure;
pub use refusal::{RefusalObserver, RefusedRequest, RequestRefusal};
pub use settings::Settings;
pub use tunnel::{Tunnel, TunnelLimiter};

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

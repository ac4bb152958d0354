//! Client connections: listeners, TLS, HTTP/1.1 and HTTP/2, limits, drain. Independent of caching.
//!
//! A request passed to a [`Handler`] has exactly one valid `Host` (HTTP/1.0 may have none), a
//! target in origin form (or `*` for OPTIONS), an unambiguous length, and a head within the limits.
//! Over HTTP/2 it has at most one `Cookie` field. The same is true of a request passed to an
//! [`ImmediateResponder`].

mod accept;
mod activity;
mod attempt_backoff;
pub(crate) mod body_limits;
pub(crate) mod connection;
mod connection_driver;
mod cookie_crumbs;
mod deferred;
pub(crate) mod drain;
pub(crate) mod encode;
mod fast_path;
mod file_reserve;
mod framing;
#[cfg(fuzzing)]
pub(crate) mod fuzzed;
mod handler;
mod head_budget;
mod http1_io;
mod http2_io;
mod immediate;
mod incoming;
pub(crate) mod interim;
mod linger;
pub(crate) mod listener;
pub(crate) mod message_length;
mod parse_error;
mod placement;
mod pressure;
mod protocol;
mod refusal;
mod send_queue;
mod service;
pub(crate) mod settings;
mod slow_reader;
mod stall;
pub(crate) mod stream;
mod syscall;
pub(crate) mod tls;
pub(crate) mod tls_socket;
pub(crate) mod tunnel;
mod unread;
mod validate;

pub use accept::serve;
pub(crate) use attempt_backoff::AttemptBackoff;
pub(crate) use body_limits::BodyLimits;
pub use connection::Connection;
pub(crate) use connection::ForwardedHeaders;
pub use drain::Drain;
pub use fast_path::FastPathMode;
pub use handler::Handler;
pub use immediate::{Declined, Deferrer, ImmediateResponder, PlainRequest, ResponseBatch};
pub use incoming::Incoming;
pub(crate) use interim::InterimSender;
pub(crate) use listener::TcpOptions;
pub(crate) use pressure::Pressure;
pub(crate) use refusal::{RefusalObserver, RefusedRequest};
pub use settings::Settings;
pub(crate) use tunnel::{Tunnel, TunnelLimiter};
pub(crate) use unread::client_network;
pub use {body_limits::ClientBodyError, body_limits::LimitedBody};
pub use {listener::BoundAddress, listener::Listener, listener::ListenerCounters};

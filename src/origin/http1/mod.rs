//! HTTP/1.1 towards an origin: one exchange at a time over a connection. The task that needs the
//! response drives the exchange. A connection has no task or channel of its own, because each would
//! cost more than the protocol itself.

mod body;
mod chunked;
mod connection;
mod exchange;
#[cfg(fuzzing)]
pub mod fuzzed;
mod header_cache;
mod keep_alive;
mod outgoing;
mod request;
mod response;

pub(super) use body::{Http1Body, ResponseContent};
pub(super) use connection::Http1Connection;
pub(super) use exchange::{Exchange, ExchangeError, ExchangeOptions, ExchangeResponse};
pub(super) use response::{MAX_HEADER_LINES, TOO_MANY_LINES};

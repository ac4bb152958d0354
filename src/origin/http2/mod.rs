//! HTTP/2 towards an origin (RFC 9113): concurrent requests over one connection, up to the origin's
//! limit on streams.

mod body;
mod connection;
mod driver;
mod error;
mod exchange;
mod head;
mod streams;

pub(super) use body::Http2Body;
pub(super) use connection::{Http2Connection, ReservedStream};
pub(super) use error::{is_refusal, is_unprocessed, is_violation};
pub(super) use exchange::{Exchange, ExchangeResponse, UploadTask};
pub(super) use head::head;
pub(super) use streams::StreamPermit;

//! Request bodies from hyper, with a check that they are complete.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body;

use super::stream::Protocol;

/// A body from hyper that fails if its end was not received.
///
/// An HTTP/2 body ends with `END_STREAM` (RFC 9113 §8.1), but hyper also ends it without an error
/// if the stream or the connection ends with `NO_ERROR`. An HTTP/1.1 body ends with its last chunk,
/// or at its length (RFC 9112 §8).
pub struct Incoming {
    /// `None` if the request has no body, and hyper has not read it.
    body: Option<body::Incoming>,
    protocol: Protocol,
}

/// The reason why a received body is not complete.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// The connection or the stream failed, or the data is not HTTP.
    #[error(transparent)]
    Failed(#[from] hyper::Error),
    /// The body stopped before its end.
    #[error("the body stopped before its end")]
    Truncated,
}

impl Incoming {
    /// Wraps the body of a request in this version of HTTP.
    pub(crate) fn new(body: body::Incoming, version: Version) -> Self {
        let protocol = if version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
        Self { body: Some(body), protocol }
    }

    /// Returns the body of an HTTP/1.1 request without one.
    pub(crate) fn empty() -> Self {
        Self { body: None, protocol: Protocol::Http1 }
    }

    fn has_ended(&self) -> bool {
        match self.protocol {
            Protocol::Http2 => self.is_end_stream(),
            Protocol::Http1 => self.size_hint().exact().is_none_or(|left| left == 0),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
            Some(frame) => Some(frame.map_err(IncomingError::Failed)),
            None if self.has_ended() => None,
            None => Some(Err(IncomingError::Truncated)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

//! HTTP/1.1 towards an origin: one exchange at a time over a connection. The task that needs the
//! response drives it. A connection has no task and no channel of its own: each would cost more
//! than the protocol does.

mod body;
mod chunked;
#[cfg(fuzzing)]
pub mod fuzzed;
mod header_cache;
mod keep_alive;
mod outgoing;
mod request;
mod response;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header, response::Parts};
use tokio::time::{Instant, Sleep};

use super::{
    body::{RequestBody, RequestBodyError, UploadProgress},
    capacity::ConnectionPermit,
    error::RequestDelivery,
    upgrade::UpgradedConnection,
};
use crate::{field::hop, server::InterimSender, server::stream::Stream};
pub(super) use body::Body;
use outgoing::{RequestWriter, SendError};
use response::ReceivedHead;
pub(super) use response::{MAX_HEADER_LINES, TOO_MANY_LINES};

/// The error for a head that exceeds the limit.
pub(super) const HEAD_TOO_LONG: &str = "the response head exceeds origin.max_header_bytes";

/// A connection, idle or in an exchange.
pub(crate) struct Connection {
    stream: Stream,
    /// Received bytes of an incomplete head.
    received: BytesMut,
    /// Reset only when it fires: most exchanges only look at it.
    timer: Option<Pin<Box<Sleep>>>,
    permit: ConnectionPermit,
    /// How long the origin keeps the connection open when idle, if it said so.
    idle_limit: Option<Duration>,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection ended or failed.
    Closed(io::Error),
    /// The response is not valid HTTP, or its end is ambiguous.
    Invalid(&'static str),
    /// The response did not begin in time.
    TimedOut,
    /// The request's body failed.
    Body(RequestBodyError),
}

/// A response: its head and its content.
pub(crate) struct ExchangeResponse {
    pub(super) head: Parts,
    pub(super) content: ResponseContent,
}

/// The content that follows a head.
pub(super) enum ResponseContent {
    /// All of it, and the connection if it can be reused.
    Whole(Bytes, Option<Box<Connection>>),
    /// A body that is still being received.
    Streaming(Body),
    /// A connection that has switched protocols.
    Upgraded(UpgradedConnection),
}

impl Connection {
    pub(super) fn new(stream: Stream, permit: ConnectionPermit) -> Self {
        Self { stream, received: BytesMut::new(), timer: None, permit, idle_limit: None }
    }

    /// Returns how long the origin keeps the connection open when idle, less a margin, if it said
    /// so.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        self.idle_limit
    }

    /// Like [`Self::is_idle`], but always makes a system call.
    pub(super) fn is_open_and_empty(&self) -> bool {
        self.received.is_empty() && self.stream.is_open_and_empty()
    }

    /// Returns whether an idle connection is still open and has received nothing. Makes a system
    /// call only after a readiness event.
    pub(super) fn is_idle(&mut self) -> bool {
        self.stream.is_idle()
    }

    /// Completes when the origin has been silent for too long.
    fn poll_timer(&mut self, cx: &mut Context<'_>, until: Instant, limit: Duration) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// Parameters of an exchange.
pub(super) struct ExchangeOptions<'a> {
    /// The request's `Host`.
    pub(super) host: HeaderValue,
    /// The start of the exchange.
    pub(super) since: Instant,
    /// How long the origin may be silent before its response.
    pub(super) first_byte_timeout: Duration,
    /// The size limit of a response head, in bytes.
    pub(super) header_bytes: usize,
    /// The progress of the client's upload.
    pub(super) upload: Option<&'a UploadProgress>,
    /// The receiver of interim responses.
    pub(super) interim: Option<InterimSender>,
}

/// A request in progress, until the head of its response arrives.
pub(super) struct Exchange<'a> {
    connection: Box<Connection>,
    outgoing: RequestWriter,
    is_sent: bool,
    request_info: RequestInfo,
    options: ExchangeOptions<'a>,
    since: Instant,
    progress: u32,
}

/// Properties of a request that are needed to read its response.
#[derive(Clone, Copy)]
struct RequestInfo {
    is_head: bool,
    is_upgrade: bool,
}

impl<'a> Exchange<'a> {
    /// Creates an exchange that sends the request with this body.
    pub(super) fn new(
        connection: Box<Connection>,
        (request, body): (&Request<RequestBody>, RequestBody),
        options: ExchangeOptions<'a>,
    ) -> Self {
        let request_info = RequestInfo {
            is_head: *request.method() == Method::HEAD,
            is_upgrade: request.headers().contains_key(header::UPGRADE),
        };
        let outgoing = RequestWriter::new(request, body, &options.host);
        let since = options.since;
        Self { connection, outgoing, is_sent: false, request_info, options, since, progress: 0 }
    }

    /// Returns whether the origin may have received some of the request.
    pub(super) fn delivery(&self) -> RequestDelivery {
        if self.outgoing.has_been_sent() {
            RequestDelivery::Possible
        } else {
            RequestDelivery::Unsent
        }
    }

    /// Sends the request and waits for the head of the final response.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ReceivedHead, ExchangeError>> {
        if !self.is_sent
            && let Poll::Ready(sent) = self.outgoing.poll(&mut self.connection.stream, cx)
        {
            self.is_sent = true;
            match sent {
                Err(SendError::Body(error)) => return Poll::Ready(Err(ExchangeError::Body(error))),
                Err(SendError::Io(error)) if !self.outgoing.has_been_sent() => {
                    return Poll::Ready(Err(ExchangeError::Closed(error)));
                }
                // An origin that rejects a request early may have responded with the reason.
                Err(SendError::Io(_)) | Ok(()) => {}
            }
        }
        if let Poll::Ready(head) = self.poll_head(cx) {
            return Poll::Ready(head);
        }
        ready!(self.poll_first_byte_timeout(cx));
        Poll::Ready(Err(ExchangeError::TimedOut))
    }

    /// Returns the response that begins with this head.
    pub(super) fn into_response(mut self, head: ReceivedHead) -> ExchangeResponse {
        let ReceivedHead { parts, length, persists, rest, .. } = head;
        self.connection.idle_limit = keep_alive::idle_limit(&parts.headers);
        let content = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            // A tunnel may stay open for days: it gives its connection permit back.
            let Connection { mut stream, .. } = *self.connection;
            stream.unread(&rest);
            ResponseContent::Upgraded(UpgradedConnection::new(stream))
        } else {
            let unsent = (!self.outgoing.is_finished()).then_some(self.outgoing);
            Body::begin(self.connection, (length, persists), rest, unsent)
        };
        ExchangeResponse { head: parts, content }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedHead, ExchangeError>> {
        loop {
            let connection = &mut *self.connection;
            if !connection.received.is_empty() {
                match response::parse(&mut connection.received, self.request_info.is_head) {
                    Ok(Some(head)) if head.bytes > self.options.header_bytes => {
                        return Poll::Ready(Err(ExchangeError::Invalid(HEAD_TOO_LONG)));
                    }
                    Ok(Some(head)) => match self.take(head) {
                        Some(head) => return Poll::Ready(head),
                        None => continue,
                    },
                    Ok(None) if connection.received.len() > self.options.header_bytes => {
                        return Poll::Ready(Err(ExchangeError::Invalid(HEAD_TOO_LONG)));
                    }
                    Ok(None) => {}
                    Err(reason) => return Poll::Ready(Err(ExchangeError::Invalid(reason))),
                }
            }
            match ready!(connection.stream.poll_receive(cx, &mut connection.received)) {
                Ok(0) => {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(ExchangeError::Closed(end)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(ExchangeError::Closed(error))),
            }
        }
    }

    /// Returns the head if it is final; otherwise forwards the interim response.
    fn take(&mut self, mut head: ReceivedHead) -> Option<Result<ReceivedHead, ExchangeError>> {
        match head.parts.status {
            StatusCode::SWITCHING_PROTOCOLS if !self.request_info.is_upgrade => {
                return Some(Err(ExchangeError::Invalid("unrequested 101 Switching Protocols")));
            }
            status if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS => {
                return Some(Ok(head));
            }
            StatusCode::CONTINUE => {
                self.options.upload.inspect(|upload| upload.open());
            }
            status => {
                if let Some(interim) = &self.options.interim {
                    hop::remove(&mut head.parts.headers);
                    interim.send(status, &head.parts.headers);
                }
            }
        }
        drop(head.parts);
        self.connection.received = BytesMut::from(head.rest);
        None
    }

    /// Completes when the origin has had the whole request for too long. Time spent waiting for the
    /// client's upload does not count.
    fn poll_first_byte_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.options.first_byte_timeout;
        loop {
            ready!(self.connection.poll_timer(cx, self.since + limit, limit));
            match self.options.upload {
                Some(upload) if upload.waits_for_client() => {}
                Some(upload) if upload.progress() != self.progress => {
                    self.progress = upload.progress();
                }
                _ => return Poll::Ready(()),
            }
            self.since = Instant::now();
        }
    }
}

//! An exchange: a request, and the head of its response.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::{HeaderValue, Method, StatusCode, response::Parts};
use tokio::time::Instant;

use super::{
    body::{Http1Body, ResponseContent},
    connection::Http1Connection,
    outgoing::{RequestWriter, SendError},
    response::{self, ReceivedHead},
};
use crate::{
    field::hop,
    origin::{
        error::RequestDelivery,
        origin_request::OriginRequest,
        request_body::{RequestBody, RequestBodyError, UploadProgress},
        upgrade::UpgradedConnection,
    },
    server::InterimSender,
};

/// The error for a head that exceeds the limit.
const HEAD_TOO_LONG: &str = "the response head exceeds origin.max_header_bytes";

/// The reason why an exchange gave no response.
#[derive(Debug)]
pub(in crate::origin) enum ExchangeError {
    Closed(io::Error),
    /// The response is not valid HTTP, or its end is ambiguous.
    Invalid(&'static str),
    TimedOut,
    Body(RequestBodyError),
}

/// A response: its head and its content.
pub(in crate::origin) struct ExchangeResponse {
    pub(in crate::origin) head: Parts,
    pub(in crate::origin) content: ResponseContent,
}

/// Parameters of an exchange.
pub(in crate::origin) struct ExchangeOptions<'a> {
    /// The `Host` field added to requests that have none.
    pub(in crate::origin) default_host: &'a HeaderValue,
    pub(in crate::origin) since: Instant,
    /// Maximum time from the request's last byte to the head of the response.
    pub(in crate::origin) first_byte_timeout: Duration,
    /// Maximum size of a response head, in bytes.
    pub(in crate::origin) header_bytes: usize,
    pub(in crate::origin) upload: Option<&'a UploadProgress>,
    pub(in crate::origin) interim: Option<InterimSender>,
}

/// A request in progress, until the head of its response arrives.
pub(in crate::origin) struct Exchange<'a> {
    connection: Box<Http1Connection>,
    outgoing: RequestWriter,
    is_sent: bool,
    is_head: bool,
    is_upgrade: bool,
    options: ExchangeOptions<'a>,
    since: Instant,
    progress: u32,
}

impl<'a> Exchange<'a> {
    /// Creates an exchange that sends the request with `body`.
    pub(in crate::origin) fn new(
        mut connection: Box<Http1Connection>,
        (request, body): (&OriginRequest, RequestBody),
        options: ExchangeOptions<'a>,
    ) -> Self {
        let buffer = std::mem::take(&mut connection.buffer);
        Self {
            connection,
            outgoing: RequestWriter::new((request, body), options.default_host, buffer),
            is_sent: false,
            is_head: request.method == Method::HEAD,
            is_upgrade: request.fields.has_upgrade(),
            since: options.since,
            options,
            progress: 0,
        }
    }

    /// Returns whether the origin may have received part of the request.
    pub(in crate::origin) fn delivery(&self) -> RequestDelivery {
        if self.outgoing.has_been_sent() {
            RequestDelivery::Possible
        } else {
            RequestDelivery::Unsent
        }
    }

    /// Sends the request. Completes with the head of the final response.
    pub(in crate::origin) fn poll(
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
                // An origin that rejects a request early may have sent a response nevertheless.
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
    pub(in crate::origin) fn into_response(mut self, head: ReceivedHead) -> ExchangeResponse {
        let ReceivedHead { parts, length, persists, idle_limit, rest, .. } = head;
        self.connection.idle_limit = idle_limit;
        let content = if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            // A tunnel may stay open for days, so its connection permit is released.
            let Http1Connection { mut stream, .. } = *self.connection;
            stream.unread(&rest);
            ResponseContent::Upgraded(UpgradedConnection::new(stream))
        } else {
            let unsent = match self.outgoing.take_buffer() {
                None => Some(self.outgoing),
                Some(buffer) => {
                    self.connection.keep(buffer);
                    None
                }
            };
            Http1Body::begin(self.connection, (length, persists), rest, unsent)
        };
        ExchangeResponse { head: parts, content }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReceivedHead, ExchangeError>> {
        loop {
            let connection = &mut *self.connection;
            if !connection.received.is_empty() {
                match response::parse(&mut connection.received, self.is_head) {
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

    /// Returns the head if it is final. Otherwise forwards the interim response and returns `None`.
    fn take(&mut self, mut head: ReceivedHead) -> Option<Result<ReceivedHead, ExchangeError>> {
        match head.parts.status {
            StatusCode::SWITCHING_PROTOCOLS if !self.is_upgrade => {
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

    /// Completes if the origin has not responded within the timeout after the whole request was
    /// sent. Time spent waiting for the client's upload does not count.
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

//! The account of a request that an endpoint of Larder's own answers, given when its response ends.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::{
    clear,
    front::{Made, WEBHOOKS},
    method::PURGE,
};

/// The status of a request whose client went away before there was one, as in nginx's log.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request that was answered, and what came of it.
#[derive(Debug)]
pub struct Answered {
    /// Which endpoint it was: a word of a closed list.
    pub endpoint: &'static str,
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The fields.
    pub headers: HeaderMap,
    /// When its head had been read.
    pub started: Instant,
    /// The status.
    pub status: StatusCode,
    /// Body bytes sent.
    pub bytes: u64,
}

impl Answered {
    /// The host asked for.
    pub fn host(&self) -> &str {
        let host = self.headers.get(header::HOST);
        host.and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}

/// Tells of a request when it is dropped: at the end of its response, or when its client goes away.
pub(super) struct Report {
    answered: Answered,
    observer: Arc<dyn Fn(&Answered) + Send + Sync>,
}

impl Report {
    /// Begins the account of a request.
    pub(super) fn begin<B>(
        request: &Request<B>,
        observer: Arc<dyn Fn(&Answered) + Send + Sync>,
    ) -> Self {
        let answered = Answered {
            endpoint: endpoint_of(request.method(), request.uri().path()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            started: Instant::now(),
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or_default(),
            bytes: 0,
        };
        Self { answered, observer }
    }

    /// The response is at hand as a whole.
    pub(super) fn ended(mut self, response: Response<Bytes>) -> Response<Bytes> {
        self.answered.status = response.status();
        self.answered.bytes = response.body().len() as u64;
        response
    }

    /// The response goes on for a while; the account is given when its body is dropped.
    pub(super) fn carried_by(mut self, response: Response<Made>) -> Response<Made> {
        self.answered.status = response.status();
        response.map(|body| Reported { body, report: self }.boxed_unsync())
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        (self.observer)(&self.answered);
    }
}

fn endpoint_of(method: &Method, path: &str) -> &'static str {
    match path {
        _ if method.as_str() == PURGE => "purge",
        "/_larder/events" => "events",
        "/_larder/sync" => "sync",
        "/_larder/version" => "version",
        clear::PATH => "clear",
        path if path.starts_with(WEBHOOKS) => "webhook",
        _ => "unknown",
    }
}

struct Reported {
    body: Made,
    report: Report,
}

impl Body for Reported {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.report.answered.bytes += bytes as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Access records of requests to Larder's own endpoints. A record is reported when the response
//! ends.

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
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

use super::{clear, purge_method::PURGE, webhook::PATH_PREFIX};

/// A response body that is produced while it is sent.
pub(crate) type StreamingBody = UnsyncBoxBody<Bytes, Infallible>;

/// The status logged if the client disconnects before there is a response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// One request to an endpoint, and its outcome.
#[derive(Debug)]
pub(crate) struct AccessRecord {
    /// The name of the endpoint, from a closed list.
    pub endpoint: &'static str,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// The time at which the head of the request was complete.
    pub started: Instant,
    pub status: StatusCode,
    /// Number of bytes of the response body that were sent.
    pub bytes: u64,
}

impl AccessRecord {
    /// Returns the request's `Host`; empty if it has none.
    pub(crate) fn host(&self) -> &str {
        let host = self.headers.get(header::HOST);
        host.and_then(|host| host.to_str().ok()).unwrap_or_default()
    }
}

/// Reports the access record of a request when dropped: at the end of the response, or when the
/// client disconnects.
pub(super) struct AccessReporter {
    record: AccessRecord,
    observer: Arc<dyn Fn(&AccessRecord) + Send + Sync>,
}

impl AccessReporter {
    /// Starts the record of a request.
    pub(super) fn begin<B>(
        request: &Request<B>,
        observer: Arc<dyn Fn(&AccessRecord) + Send + Sync>,
    ) -> Self {
        let record = AccessRecord {
            endpoint: endpoint_of(request.method(), request.uri().path()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            started: Instant::now(),
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or_default(),
            bytes: 0,
        };
        Self { record, observer }
    }

    /// Records the status and size of a response with a complete body. The record is then reported.
    pub(super) fn finish(mut self, response: Response<Bytes>) -> Response<Bytes> {
        self.record.status = response.status();
        self.record.bytes = response.body().len() as u64;
        response
    }

    /// Records the status of a streaming response. The record is reported when the body is dropped.
    pub(super) fn finish_with_body(
        mut self,
        response: Response<StreamingBody>,
    ) -> Response<StreamingBody> {
        self.record.status = response.status();
        response.map(|body| ReportedBody { body, reporter: self }.boxed_unsync())
    }
}

impl Drop for AccessReporter {
    fn drop(&mut self) {
        (self.observer)(&self.record);
    }
}

fn endpoint_of(method: &Method, path: &str) -> &'static str {
    match path {
        _ if method.as_str() == PURGE => "purge",
        "/_larder/events" => "events",
        "/_larder/sync" => "sync",
        "/_larder/version" => "version",
        clear::PATH => "clear",
        path if path.starts_with(PATH_PREFIX) => "webhook",
        _ => "unknown",
    }
}

struct ReportedBody {
    body: StreamingBody,
    reporter: AccessReporter,
}

impl Body for ReportedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.reporter.record.bytes += bytes as u64;
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

//! Connects hyper to a [`Handler`], and makes the checks that apply to every request.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body;

use super::{
    Connection, Drain, Handler, Incoming, ListenerCounters,
    activity::ConnectionActivity,
    cookie_crumbs,
    head_budget::{HeadReservation, OverBudget},
    interim::InterimChannel,
    refusal::{RefusedRequest, RequestRefusal},
    send_queue::QueuedBytes,
    settings::Settings,
    stall::StreamProgress,
    validate::{ValidatedHost, validate},
};

/// The value of `Connection` in the last response on a connection.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Handles the requests of one connection.
pub(super) struct Service<H> {
    pub(super) handler: Arc<H>,
    pub(super) connection: Arc<Connection>,
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) counters: Arc<ListenerCounters>,
    pub(super) validated_host: ValidatedHost,
    pub(super) settings: Arc<Settings>,
    pub(super) drain: Drain,
    /// The queue for interim responses; `None` over HTTP/2.
    pub(super) channel: Option<Arc<InterimChannel>>,
}

/// A request in progress. It ends when the response's body is dropped.
pub(super) struct RequestGuard<H> {
    pub(super) service: Arc<Service<H>>,
    version: Version,
}

impl<H> RequestGuard<H> {
    /// Records that the response failed. In HTTP/1.0, only a reset of the connection can signal the
    /// failure.
    fn abort(&self) {
        if self.version < Version::HTTP_11 {
            self.service.activity.reset_at_close();
        }
    }
}

impl<H: Handler> RequestGuard<H> {
    /// Completes the head of the final response. The request ends with the response's body.
    pub(super) fn serve(self, response: Response<H::Body>) -> Response<ServedBody<H>> {
        self.serve_rest(response, None)
    }

    /// Like [`Self::serve`], for a response whose body has been polled, and gave this frame.
    pub(super) fn serve_rest(
        self,
        mut response: Response<H::Body>,
        untaken: Option<Untaken<H::Body>>,
    ) -> Response<ServedBody<H>> {
        let service = &*self.service;
        service.close_interim();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            service.activity.become_tunnel();
        } else if self.version < Version::HTTP_2 && service.drain.is_leaving() {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        let stream = service.paced_stream(response.body().size_hint().lower());
        let request_guard = self;
        response.map(|body| ServedBody::Handler { body, request_guard, stream, untaken })
    }
}

impl<H> Drop for RequestGuard<H> {
    fn drop(&mut self) {
        self.service.activity.end();
    }
}

impl<H: Handler> Service<H> {
    /// Handles a request. Must be called in the order of arrival: the call itself counts the
    /// request, before the future is first polled.
    ///
    /// Moves the request as little as possible, since every hit passes through here.
    pub(super) fn call(
        self: &Arc<Self>,
        mut request: Request<body::Incoming>,
    ) -> impl Future<Output = Result<Response<ServedBody<H>>, Infallible>> + Send + use<H> {
        let number = self.activity.begin();
        let version = request.version();
        let request_guard = RequestGuard { service: Arc::clone(self), version };
        let validated = self.validate(&mut request, number);
        async move {
            let service = &*request_guard.service;
            let head = match validated {
                Ok(head) => head,
                Err(refusal) => return Ok(service.refuse(refusal, &request)),
            };
            let request = request.map(|body| Incoming::new(body, version));
            let response = service.handler.handle(request, &service.connection).await;
            service.interim_written().await;
            drop(head);
            Ok(request_guard.serve(response))
        }
    }

    /// Counts a request that needs no validation, and opens the queue for its interim responses.
    pub(super) fn begin_validated(self: &Arc<Self>, version: Version) -> RequestGuard<H> {
        let number = self.activity.begin();
        if let Some(channel) = &self.channel {
            channel.open_for(number);
        }
        RequestGuard { service: Arc::clone(self), version }
    }

    /// Returns whether interim responses wait to be written.
    pub(super) fn has_interim(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_queued())
    }

    /// Closes the queue of interim responses, since the final response is about to be written.
    pub(super) fn close_interim(&self) {
        if let Some(channel) = &self.channel {
            channel.close();
        }
    }

    /// Waits until the interim responses are written, which the final response must not overtake.
    pub(super) async fn interim_written(&self) {
        if let Some(channel) = &self.channel
            && channel.is_queued()
        {
            channel.flushed().await;
        }
    }

    /// Checks request number `number` of the connection, and opens the queue for its interim
    /// responses.
    fn validate(
        &self,
        request: &mut Request<body::Incoming>,
        number: u32,
    ) -> Result<Option<HeadReservation>, RequestRefusal> {
        if !request.body().is_end_stream() {
            self.activity.linger_at_close();
        }
        let head = if self.channel.is_some() {
            self.activity.refusal(number).map_or(Ok(None), Err)?
        } else {
            self.validate_http2(request)?
        };
        validate(request, &self.validated_host)?;
        if request.body().size_hint().lower() > self.connection.body.bytes {
            return Err(RequestRefusal::BodyTooLarge);
        }
        if let Some(channel) = &self.channel
            && request.version() == Version::HTTP_11
        {
            channel.open_for(number);
        }
        Ok(head)
    }

    /// Makes the checks for HTTP/2 that the framing validator makes for HTTP/1.1.
    fn validate_http2(
        &self,
        request: &mut Request<body::Incoming>,
    ) -> Result<Option<HeadReservation>, RequestRefusal> {
        cookie_crumbs::join(request.headers_mut());
        // For HTTP/1.1, the framing validator checks the number of lines.
        if request.headers().len() > self.settings.header_count {
            return Err(RequestRefusal::HeaderTooLarge);
        }
        let head = HeadReservation::acquire(request.headers(), &self.counters, &self.activity);
        head.map_err(|OverBudget| RequestRefusal::TooManyLargeHeads)
    }

    /// Records that the head of a response is ready, and the minimum length of its body. Returns
    /// the paced stream for the body, or `None` over HTTP/1.1, which has no streams.
    fn paced_stream(&self, length: u64) -> Option<Box<PacedStream>> {
        let progress = if self.channel.is_none() { StreamProgress::current() } else { None }?;
        progress.note_head(length);
        Some(Box::new(PacedStream { progress, rest: Bytes::new() }))
    }

    fn refuse<B>(&self, refusal: RequestRefusal, request: &Request<B>) -> Response<ServedBody<H>> {
        self.counters.count_refusal(refusal);
        self.activity.linger_at_close();
        let _paced_from_here = self.paced_stream(0);
        let mut response = refusal.response();
        self.settings.report_refusal(&RefusedRequest {
            refusal,
            method: Some(request.method()),
            path: request.uri().path(),
            headers: Some(request.headers()),
            status: response.status(),
            bytes: response.body().len() as u64,
        });
        if request.version() < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        response.map(|problem| ServedBody::Problem { problem: Some(problem) })
    }
}

/// Size of the chunks that are passed to HTTP/2, in bytes. The client has to read most of a chunk
/// before the next chunk is queued, so a response occupies little memory in the queue.
const CHUNK_BYTES: usize = 16 * 1024;

/// Removes and returns the next chunk. The last chunk is copied: it may stay queued after the
/// response is dropped, and would keep the whole response in memory.
fn next_chunk(rest: &mut Bytes) -> Bytes {
    if rest.len() > CHUNK_BYTES {
        return rest.split_to(CHUNK_BYTES);
    }
    Bytes::copy_from_slice(&std::mem::take(rest))
}

/// The current data of a response that is sent in chunks, and its progress.
pub(super) struct PacedStream {
    progress: Arc<StreamProgress>,
    /// The part of the current data that has not been sent yet.
    rest: Bytes,
}

impl PacedStream {
    /// Returns whether the end of the response may be queued now.
    fn may_end(&self, queued: &QueuedBytes) -> bool {
        self.rest.is_empty() && self.progress.chunks.may_end(queued)
    }
}

/// A frame (or failure) of a body that was polled and is still to be sent, and the body's size hint
/// from before the poll. Boxed, since most bodies have none.
pub(super) type Untaken<B> = Box<(Result<Frame<Bytes>, <B as Body>::Error>, SizeHint)>;

/// The body of a response, from the handler or the server's own problem document.
pub(super) enum ServedBody<H: Handler> {
    Handler {
        body: H::Body,
        request_guard: RequestGuard<H>,
        stream: Option<Box<PacedStream>>,
        untaken: Option<Untaken<H::Body>>,
    },
    Problem {
        problem: Option<Bytes>,
    },
}

impl<H: Handler> Body for ServedBody<H> {
    type Data = Bytes;
    type Error = <H::Body as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Handler { body, request_guard, stream, untaken } => {
                if let Some(untaken) = untaken.take() {
                    let (frame, _) = *untaken;
                    if frame.is_err() {
                        request_guard.abort();
                    }
                    return Poll::Ready(Some(frame));
                }
                let Some(stream) = stream else {
                    let frame = ready!(Pin::new(body).poll_frame(cx));
                    if matches!(frame, Some(Err(_))) {
                        request_guard.abort();
                    }
                    return Poll::Ready(frame);
                };
                let PacedStream { progress, rest } = &mut **stream;
                let (chunks, queued) = (&progress.chunks, &request_guard.service.activity.queued);
                if rest.is_empty() {
                    ready!(chunks.poll_may_end(cx, queued));
                    let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                        progress.note_body_pending();
                        return Poll::Pending;
                    };
                    progress.note_sent(0);
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        Some(Ok(Ok(data))) if data.len() > CHUNK_BYTES => *rest = data,
                        Some(Ok(Ok(data))) => {
                            progress.note_sent(data.len());
                            let data = chunks.queue(data, queued);
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => return Poll::Ready(None),
                    }
                }
                let mut chunk = next_chunk(rest);
                progress.note_sent(chunk.len());
                if rest.is_empty() {
                    chunk = chunks.queue(chunk, queued);
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Self::Problem { problem } => {
                Poll::Ready(problem.take().map(|problem| Ok(Frame::data(problem))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler { body, request_guard, stream, untaken } => {
                let queued = &request_guard.service.activity.queued;
                stream.as_ref().is_none_or(|stream| stream.may_end(queued))
                    && untaken.is_none()
                    && body.is_end_stream()
            }
            Self::Problem { problem } => problem.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Handler { body, untaken, .. } => match untaken.as_deref() {
                Some((_, hint)) => *hint,
                None => body.size_hint(),
            },
            Self::Problem { problem } => {
                SizeHint::with_exact(problem.as_ref().map_or(0, |problem| problem.len() as u64))
            }
        }
    }
}

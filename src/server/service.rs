//! From hyper's service to a [`Handler`]: what has to hold for every request, whatever answers it.

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
    Connection, Counters, Drain, Handler, Incoming,
    admission::{KnownHost, admit},
    crumbs,
    heads::{LargeHead, NoRoom},
    interim::Channel,
    queued::QueuedBytes,
    refusal::{Refusal, Refused},
    settings::Settings,
    stall::Progress,
    vitals::Vitals,
};

/// The value of `Connection` in the last response of a connection.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// One connection's requests on their way to the handler.
pub(super) struct Service<H> {
    pub(super) handler: Arc<H>,
    pub(super) connection: Arc<Connection>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) counters: Arc<Counters>,
    pub(super) known_host: KnownHost,
    pub(super) settings: Arc<Settings>,
    pub(super) drain: Drain,
    /// HTTP/1.1 only.
    pub(super) channel: Option<Arc<Channel>>,
}

/// A request being answered; over when the response's body is dropped.
pub(super) struct InFlight<H> {
    service: Arc<Service<H>>,
    version: Version,
}

impl<H> InFlight<H> {
    /// The response breaks off. HTTP/1.0 has no chunks to tell.
    fn break_off(&self) {
        if self.version < Version::HTTP_11 {
            self.service.vitals.reset_at_close();
        }
    }
}

impl<H> Drop for InFlight<H> {
    fn drop(&mut self) {
        self.service.vitals.end();
    }
}

impl<H: Handler> Service<H> {
    /// Answers a request. To be called in the order of arrival: requests are counted when it is called, and
    /// not when the future is polled.
    ///
    /// The request is moved as little as can be; this is on the way of every hit.
    pub(super) fn answer(
        self: &Arc<Self>,
        mut request: Request<body::Incoming>,
    ) -> impl Future<Output = Result<Response<Answer<H>>, Infallible>> + Send + use<H> {
        let call = self.vitals.begin();
        let version = request.version();
        let in_flight = InFlight { service: Arc::clone(self), version };
        let admitted = self.admit(&mut request, call);
        async move {
            let service = &*in_flight.service;
            let head = match admitted {
                Ok(head) => head,
                Err(refusal) => return Ok(service.refuse(refusal, &request)),
            };
            let request = request.map(|body| Incoming::new(body, version));
            let mut response = service.handler.handle(request, &service.connection).await;
            if let Some(channel) = &service.channel {
                // The final response must not overtake the interim ones.
                if channel.is_queued() {
                    channel.flushed().await;
                }
                channel.close();
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                service.vitals.become_tunnel();
            } else if version < Version::HTTP_2 && service.drain.is_leaving() {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            drop(head);
            let stream = service.watched_stream();
            Ok(response.map(|body| Answer::Handler { body, in_flight, stream }))
        }
    }

    /// Checks the request that is `call`-th on this connection, and opens the way for its interim responses.
    fn admit(
        &self,
        request: &mut Request<body::Incoming>,
        call: u32,
    ) -> Result<Option<LargeHead>, Refusal> {
        if !request.body().is_end_stream() {
            self.vitals.linger_at_close();
        }
        let head = if self.channel.is_some() {
            self.vitals.refusal(call).map_or(Ok(None), Err)?
        } else {
            self.admit_http2(request)?
        };
        admit(request, &self.known_host)?;
        if request.body().size_hint().lower() > self.connection.body.bytes {
            return Err(Refusal::BodyTooLarge);
        }
        if let Some(channel) = &self.channel
            && request.version() == Version::HTTP_11
        {
            channel.open_for(call);
        }
        Ok(head)
    }

    /// Checks what the watch over raw bytes has checked on HTTP/1.1.
    fn admit_http2(
        &self,
        request: &mut Request<body::Incoming>,
    ) -> Result<Option<LargeHead>, Refusal> {
        crumbs::join(request.headers_mut());
        // HTTP/1.1 has been checked before.
        if request.headers().len() > self.settings.header_count {
            return Err(Refusal::HeaderTooLarge);
        }
        let head = LargeHead::take(request.headers(), &self.counters, &self.vitals);
        head.map_err(|NoRoom| Refusal::HeadsBusy)
    }

    /// Notes that the head of a response is ready, if its stream is watched: on HTTP/2.
    fn watched_stream(&self) -> Option<Box<Watched>> {
        let progress = if self.channel.is_none() { Progress::of_this_stream() } else { None }?;
        progress.note_given();
        Some(Box::new(Watched { progress, rest: Bytes::new() }))
    }

    fn refuse<B>(&self, refusal: Refusal, request: &Request<B>) -> Response<Answer<H>> {
        self.counters.refuse(refusal);
        self.vitals.linger_at_close();
        let _watched_from_here = self.watched_stream();
        let mut response = refusal.response();
        self.settings.refused(&Refused {
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
        response.map(|problem| Answer::Problem { problem: Some(problem) })
    }
}

/// Bytes of a body that are given to HTTP/2 at once: a client has to take most of them before it gets more,
/// so that a response holds little memory in the queue of its connection.
const PIECE: usize = 16 * 1024;

/// Takes the next piece of what is left. The last one is a copy: it may wait in the connection's queue after
/// the rest of the response is gone, and would keep all of it in memory.
fn next_piece(rest: &mut Bytes) -> Bytes {
    if rest.len() > PIECE {
        return rest.split_to(PIECE);
    }
    Bytes::copy_from_slice(&std::mem::take(rest))
}

/// A stream whose response is given out in pieces, and how far it has got.
pub(super) struct Watched {
    progress: Arc<Progress>,
    /// What is left of the data at hand.
    rest: Bytes,
}

impl Watched {
    /// Whether the response may end behind what was given of it.
    fn may_end(&self, queued: &QueuedBytes) -> bool {
        self.rest.is_empty() && self.progress.pieces.may_end(queued)
    }
}

pin_project_lite::pin_project! {
    /// The body of a response: the handler's, or a problem document of the server's own.
    #[project = AnswerProjection]
    pub(super) enum Answer<H: Handler> {
        Handler {
            #[pin]
            body: H::Body,
            in_flight: InFlight<H>,
            stream: Option<Box<Watched>>,
        },
        Problem { problem: Option<Bytes> },
    }
}

impl<H: Handler> Body for Answer<H> {
    type Data = Bytes;
    type Error = <H::Body as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project() {
            AnswerProjection::Handler { body, in_flight, stream } => {
                let Some(stream) = stream else {
                    let frame = ready!(body.poll_frame(cx));
                    if matches!(frame, Some(Err(_))) {
                        in_flight.break_off();
                    }
                    return Poll::Ready(frame);
                };
                let Watched { progress, rest } = &mut **stream;
                let (pieces, queued) = (&progress.pieces, &in_flight.service.vitals.queued);
                if rest.is_empty() {
                    ready!(pieces.poll_may_end(cx, queued));
                    let Poll::Ready(frame) = body.poll_frame(cx) else {
                        progress.note_source_waits();
                        return Poll::Pending;
                    };
                    progress.note_given();
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        Some(Ok(Ok(data))) if data.len() > PIECE => *rest = data,
                        Some(Ok(Ok(data))) => {
                            let data = pieces.queue(data, queued);
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => return Poll::Ready(None),
                    }
                }
                progress.note_given();
                let mut piece = next_piece(rest);
                if rest.is_empty() {
                    piece = pieces.queue(piece, queued);
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            AnswerProjection::Problem { problem } => {
                Poll::Ready(problem.take().map(|problem| Ok(Frame::data(problem))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler { body, in_flight, stream } => {
                let queued = &in_flight.service.vitals.queued;
                stream.as_ref().is_none_or(|stream| stream.may_end(queued)) && body.is_end_stream()
            }
            Self::Problem { problem } => problem.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Handler { body, .. } => body.size_hint(),
            Self::Problem { problem } => {
                SizeHint::with_exact(problem.as_ref().map_or(0, |problem| problem.len() as u64))
            }
        }
    }
}

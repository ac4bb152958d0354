//! From hyper's service to a [`Handler`]: what has to hold for every request, whatever answers it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Connection, Counters, Handler,
    admission::admit,
    interim::Channel,
    refusal::Refusal,
    vitals::{InFlight, Vitals},
};

/// One connection's requests on their way to the handler.
pub(super) struct Service<H> {
    pub(super) handler: Arc<H>,
    pub(super) connection: Arc<Connection>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) counters: Arc<Counters>,
    /// Header lines allowed; HTTP/1.1 has been checked before.
    pub(super) header_count: usize,
    /// HTTP/1.1 only.
    pub(super) channel: Option<Arc<Channel>>,
}

impl<H: Handler> Service<H> {
    /// Counts the request; has to be called in the order of arrival.
    pub(super) fn begin(&self) -> (u32, InFlight) {
        self.vitals.begin()
    }

    /// Answers the request that is `call`-th on this connection.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        call: u32,
        in_flight: InFlight,
    ) -> Response<Answer<H::Body>> {
        let version = request.version();
        if !request.body().is_end_stream() {
            self.vitals.linger_at_close();
        }
        let request = match self.check(request, call) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(refusal, version),
        };
        let response = match &self.channel {
            Some(channel) if version == Version::HTTP_11 => {
                self.answer_with_interim(request, call, channel).await
            }
            _ => self.handler.handle(request, &self.connection).await,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.vitals.become_tunnel();
        }
        response.map(|body| Answer::Handler { body, in_flight })
    }

    /// The final response must not overtake the interim ones.
    async fn answer_with_interim(
        &self,
        request: Request<Incoming>,
        call: u32,
        channel: &Channel,
    ) -> Response<H::Body> {
        channel.open_for(call);
        let response = self.handler.handle(request, &self.connection).await;
        if channel.is_queued() {
            channel.flushed().await;
        }
        channel.close();
        response
    }

    fn check(&self, request: Request<Incoming>, call: u32) -> Result<Request<Incoming>, Refusal> {
        if self.channel.is_some() {
            self.vitals.refusal(call).map_or(Ok(()), Err)?;
        } else if request.headers().len() > self.header_count {
            return Err(Refusal::HeaderTooLarge);
        }
        let (mut head, body) = request.into_parts();
        admit(&mut head)?;
        if body.size_hint().lower() > self.connection.body.bytes {
            return Err(Refusal::BodyTooLarge);
        }
        Ok(Request::from_parts(head, body))
    }

    fn refuse(&self, refusal: Refusal, version: Version) -> Response<Answer<H::Body>> {
        self.counters.refuse(refusal);
        self.vitals.linger_at_close();
        let mut response = refusal.response();
        if version < Version::HTTP_2 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|problem| Answer::Problem { problem: Some(problem) })
    }
}

pin_project_lite::pin_project! {
    /// The body of a response: the handler's, or a problem document of the server's own.
    #[project = AnswerProjection]
    pub(super) enum Answer<B> {
        Handler { #[pin] body: B, in_flight: InFlight },
        Problem { problem: Option<Bytes> },
    }
}

impl<B: Body<Data = Bytes>> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project() {
            AnswerProjection::Handler { body, .. } => body.poll_frame(cx),
            AnswerProjection::Problem { problem } => {
                Poll::Ready(problem.take().map(|problem| Ok(Frame::data(problem))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Handler { body, .. } => body.is_end_stream(),
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

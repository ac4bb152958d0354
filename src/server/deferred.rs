//! Responses on the fast path that take time: the connection waits for them without hyper.
//!
//! If the response has its whole body when it is ready, it is sent without hyper. Otherwise hyper
//! takes over, at the latest when the response is ready: it reads the head of a request, and the
//! service gives it the response to the request that the fast path has read.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame};
use hyper::{body, ext::ReasonPhrase};
use parking_lot::Mutex;

use super::{
    Handler, encode,
    immediate::{Deferrer, ResponseBatch},
    service::{RequestGuard, ServedBody, Service, Untaken},
};

/// The deferred response of a connection, for its I/O.
pub(super) trait PollDeferred: Send + Sync {
    /// Appends the deferred response once it is ready.
    ///
    /// # Errors
    /// Fails if only hyper can send the response, or what is sent before it.
    fn poll_append(
        &self,
        cx: &mut Context<'_>,
        batch: &mut ResponseBatch,
    ) -> Poll<Result<(), NeedsHyper>>;

    /// Returns a head for hyper to read: that of a request with the method and the version of the
    /// deferred one, which alone concern how hyper sends the response.
    fn head_for_hyper(&self) -> &'static [u8];
}

/// The error if hyper has to take over.
#[derive(Debug)]
pub(super) struct NeedsHyper;

/// The requests of one HTTP/1.1 connection: those that hyper has read, and one whose response is
/// deferred.
pub(super) struct Requests<H: Handler> {
    service: Arc<Service<H>>,
    deferred: Mutex<Option<Deferred<H>>>,
}

/// A deferred response. Its request has the method `HEAD` or `GET`.
struct Deferred<H: Handler> {
    is_head: bool,
    response: DeferredResponse<H>,
}

enum DeferredResponse<H: Handler> {
    Awaited(RequestGuard<H>, BoxFuture<'static, Response<H::Body>>),
    /// A response that hyper has to send.
    Ready(Box<Response<ServedBody<H>>>),
}

impl<H: Handler> Requests<H> {
    pub(super) fn new(service: &Arc<Service<H>>) -> Self {
        Self { service: Arc::clone(service), deferred: Mutex::new(None) }
    }

    /// Responds to a request that hyper has read: with the deferred response, if there is one.
    pub(super) fn call(
        &self,
        request: Request<body::Incoming>,
    ) -> impl Future<Output = Result<Response<ServedBody<H>>, Infallible>> + Send + use<H> {
        match self.deferred.lock().take() {
            Some(Deferred { response, .. }) => Either::Left(response.complete()),
            None => Either::Right(self.service.call(request)),
        }
    }
}

impl<H: Handler> DeferredResponse<H> {
    async fn complete(self) -> Result<Response<ServedBody<H>>, Infallible> {
        Ok(match self {
            Self::Awaited(request_guard, response) => {
                let response = response.await;
                request_guard.service.interim_written().await;
                request_guard.serve(response)
            }
            Self::Ready(response) => *response,
        })
    }
}

impl<H: Handler> Deferrer<H::Body> for Requests<H> {
    fn defer(&self, method: &Method, response: BoxFuture<'static, Response<H::Body>>) {
        let request_guard = self.service.begin_validated(Version::HTTP_11);
        let is_head = *method == Method::HEAD;
        let response = DeferredResponse::Awaited(request_guard, response);
        *self.deferred.lock() = Some(Deferred { is_head, response });
    }
}

impl<H: Handler> PollDeferred for Requests<H> {
    fn poll_append(
        &self,
        cx: &mut Context<'_>,
        batch: &mut ResponseBatch,
    ) -> Poll<Result<(), NeedsHyper>> {
        let mut deferred = self.deferred.lock();
        let Some(Deferred { is_head, response: awaited }) = &mut *deferred else {
            return Poll::Ready(Ok(()));
        };
        let DeferredResponse::Awaited(request_guard, future) = awaited else {
            return Poll::Ready(Err(NeedsHyper));
        };
        let polled = future.as_mut().poll(cx);
        // hyper's turn sends interim responses, before the final response.
        let has_interim = request_guard.service.has_interim();
        let Poll::Ready(mut response) = polled else {
            return if has_interim { Poll::Ready(Err(NeedsHyper)) } else { Poll::Pending };
        };
        if has_interim {
            *future = Box::pin(ready(response));
            return Poll::Ready(Err(NeedsHyper));
        }
        let untaken = if request_guard.service.drain.is_leaving() {
            None
        } else {
            match append(cx, *is_head, &mut response, batch) {
                Ok(()) => {
                    request_guard.service.close_interim();
                    *deferred = None;
                    return Poll::Ready(Ok(()));
                }
                Err(untaken) => untaken,
            }
        };
        if let Some(Deferred { is_head, response: DeferredResponse::Awaited(request_guard, _) }) =
            deferred.take()
        {
            let response = Box::new(request_guard.serve_rest(response, untaken));
            let response = DeferredResponse::Ready(response);
            *deferred = Some(Deferred { is_head, response });
        }
        Poll::Ready(Err(NeedsHyper))
    }

    fn head_for_hyper(&self) -> &'static [u8] {
        match &*self.deferred.lock() {
            Some(Deferred { is_head: true, .. }) => b"HEAD / HTTP/1.1\r\n\r\n",
            _ => b"GET / HTTP/1.1\r\n\r\n",
        }
    }
}

/// Appends a response if its whole body is ready, and in one piece. Otherwise appends nothing, and
/// returns the piece that is ready, if there is one.
fn append<B: Body<Data = Bytes> + Unpin>(
    cx: &mut Context<'_>,
    is_head: bool,
    response: &mut Response<B>,
    batch: &mut ResponseBatch,
) -> Result<(), Option<Untaken<B>>> {
    if response.extensions().get::<ReasonPhrase>().is_some() {
        return Err(None);
    }
    let has_body = !response.body().is_end_stream();
    let hint = response.body().size_hint();
    let length = if has_body { hint.exact() } else { Some(0) };
    let Some(Ok(length)) = length.map(usize::try_from) else { return Err(None) };
    let method = if is_head { Method::HEAD } else { Method::GET };
    let head = (&method, response.status());
    if (is_head && has_body)
        || encode::response_head(batch.head(), head, response.headers(), length).is_err()
    {
        return Err(None);
    }
    if !has_body {
        return Ok(());
    }
    let frame = match Pin::new(response.body_mut()).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(body) if body.len() == length => {
                batch.push_body(&body, || body.clone());
                return Ok(());
            }
            Ok(part) => Some(Ok(Frame::data(part))),
            Err(trailers) => Some(Ok(trailers)),
        },
        Poll::Ready(Some(Err(error))) => Some(Err(error)),
        Poll::Ready(None) | Poll::Pending => None,
    };
    batch.undo(0);
    Err(frame.map(|frame| Box::new((frame, hint))))
}

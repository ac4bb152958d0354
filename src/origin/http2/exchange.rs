//! One request and the head of its response on one stream.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, HeaderName, Request, Response, response::Parts};
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use super::{Body, ReservedStream, StreamPermit, head::normalize_length};
use crate::{
    field::hop,
    origin::body::{RequestBody, RequestBodyError, announced_trailers},
    server::InterimSender,
};

/// After the end of its response, a request that is still being sent may take this long.
const SEND_GRACE: Duration = Duration::from_secs(5);

/// A request on its way, until the head of its response is there.
pub(in crate::origin) struct Exchange {
    response: ResponseFuture,
    upload_task: Option<UploadTask>,
    permit: Arc<StreamPermit>,
}

/// The head of a response, its body, and what both hold on to.
pub(in crate::origin) type ExchangeResponse =
    (Parts, Body, (Arc<StreamPermit>, Option<UploadTask>));

/// The sending of a request's body; ends when this is dropped.
pub(in crate::origin) struct UploadTask {
    task: AbortHandle,
}

impl ReservedStream {
    /// Opens the stream and sends what there is of the request.
    pub(in crate::origin) fn send(
        mut self,
        head: Request<()>,
        body: RequestBody,
    ) -> Result<Exchange, h2::Error> {
        let is_whole = body.is_end_stream();
        let announced = announced_trailers(head.headers());
        let (response, stream) = self.sender.send_request(head, is_whole)?;
        let permit = Arc::new(self.permit);
        let outgoing = BodyWriter { body, stream, announced, _permit: Arc::clone(&permit) };
        let upload_task = if is_whole { None } else { UploadTask::start(outgoing) };
        Ok(Exchange { response, upload_task, permit })
    }
}

impl Exchange {
    /// Ready with the final response's head. Interim responses go to the client.
    pub(in crate::origin) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        interim: Option<&InterimSender>,
    ) -> Poll<Result<Response<RecvStream>, h2::Error>> {
        while let Poll::Ready(Some(head)) = self.response.poll_informational(cx) {
            let mut head = head?;
            hop::remove(head.headers_mut());
            interim.inspect(|interim| interim.send(head.status(), head.headers()));
        }
        Pin::new(&mut self.response).poll(cx)
    }

    /// Has the connection take no further streams.
    pub(in crate::origin) fn retire_connection(&self) {
        self.permit.retire_connection();
    }

    /// The response that begins with this head, and what it holds on to.
    pub(in crate::origin) fn into_response(
        self,
        response: Response<RecvStream>,
    ) -> ExchangeResponse {
        let (mut parts, stream) = response.into_parts();
        let length = normalize_length(&mut parts.headers);
        (parts, Body::new(stream, length), (self.permit, self.upload_task))
    }
}

impl UploadTask {
    /// Sends what there is at once; the rest in a task, if there is a rest.
    fn start(outgoing: BodyWriter) -> Option<Self> {
        let mut sending = Box::pin(outgoing.send());
        let mut cx = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut cx).is_ready() {
            return None;
        }
        Some(Self { task: tokio::spawn(sending).abort_handle() })
    }

    /// Lets the sending go on for a while after the end of the response.
    pub(in crate::origin) fn finish_in_background(self) {
        if self.task.is_finished() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(SEND_GRACE).await;
            drop(self);
        });
    }
}

impl Drop for UploadTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body and the stream that it is sent on.
struct BodyWriter {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Trailer fields that may be sent.
    announced: Vec<HeaderName>,
    /// The stream counts until this half of it is closed, too.
    _permit: Arc<StreamPermit>,
}

/// Why a body is not sent to its end.
enum BodySendError {
    Body(RequestBodyError),
    /// The origin has reset the stream, or the connection is gone.
    Origin,
}

impl BodyWriter {
    /// Sends the body to its end. A body that fails resets the stream: the origin must not take what it has
    /// for all there is.
    async fn send(mut self) {
        let sent = poll_fn(|cx| self.poll_send(cx)).await;
        if let Err(BodySendError::Body(error)) = sent {
            tracing::debug!(%error, "a request body broke off");
            self.stream.send_reset(Reason::CANCEL);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodySendError>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(BodySendError::Origin));
            }
            // One byte is asked for at least: the body is read only if some of it can be sent.
            self.stream.reserve_capacity(1);
            if self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    _ => return Poll::Ready(Err(BodySendError::Origin)),
                }
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let frame = frame.transpose().map_err(BodySendError::Body)?;
            let (sent, is_last) = match frame.map(Frame::into_data) {
                None => (self.stream.send_data(Bytes::new(), true), true),
                Some(Ok(data)) => {
                    let is_last = self.body.is_end_stream();
                    (self.stream.send_data(data, is_last), is_last)
                }
                Some(Err(frame)) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    (self.stream.send_trailers(announced_only(&trailers, &self.announced)), true)
                }
            };
            if sent.is_err() {
                return Poll::Ready(Err(BodySendError::Origin));
            }
            if is_last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The trailer fields that were announced.
fn announced_only(trailers: &HeaderMap, announced: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in trailers {
        if announced.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

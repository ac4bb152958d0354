//! An exchange on one stream: a request, and the head of its response.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderMap, HeaderName, Request, Response, response::Parts};
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use super::{body::Http2Body, connection::ReservedStream, streams::StreamPermit};
use crate::{
    field::hop,
    origin::{
        content_length,
        request_body::{RequestBody, RequestBodyError, UPLOAD_GRACE, announced_trailers},
    },
    server::InterimSender,
};

/// A request in progress, until the head of its response arrives.
pub(in crate::origin) struct Exchange {
    response: ResponseFuture,
    upload_task: Option<UploadTask>,
    permit: Arc<StreamPermit>,
}

/// A response's head and body. The response keeps the permit and the upload alive.
pub(in crate::origin) type ExchangeResponse =
    (Parts, Http2Body, (Arc<StreamPermit>, Option<UploadTask>));

/// The task that uploads a request's body. It is aborted when this handle is dropped.
pub(in crate::origin) struct UploadTask {
    task: AbortHandle,
}

impl ReservedStream {
    /// Opens the stream and sends the available part of the request.
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
    /// Completes with the head of the final response. Sends interim responses to the client.
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

    /// Retires the connection: no further streams are opened on it.
    pub(in crate::origin) fn retire_connection(&self) {
        self.permit.retire_connection();
    }

    /// Returns the response that begins with this head, and the guards to keep until its end.
    pub(in crate::origin) fn into_response(
        self,
        response: Response<RecvStream>,
    ) -> ExchangeResponse {
        let (mut parts, stream) = response.into_parts();
        let length = content_length::normalize(&mut parts.headers);
        (parts, Http2Body::new(stream, length), (self.permit, self.upload_task))
    }
}

impl UploadTask {
    /// Sends the available data, and spawns a task for the rest. Returns `None` if all is sent.
    fn start(outgoing: BodyWriter) -> Option<Self> {
        let mut sending = Box::pin(outgoing.send());
        let mut cx = Context::from_waker(Waker::noop());
        if sending.as_mut().poll(&mut cx).is_ready() {
            return None;
        }
        Some(Self { task: tokio::spawn(sending).abort_handle() })
    }

    /// Lets the upload continue for at most `UPLOAD_GRACE` after the end of the response.
    pub(in crate::origin) fn finish_in_background(self) {
        if self.task.is_finished() {
            return;
        }
        tokio::spawn(async move {
            tokio::time::sleep(UPLOAD_GRACE).await;
            drop(self);
        });
    }
}

impl Drop for UploadTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request's body, and the stream to send it on.
struct BodyWriter {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Trailer fields that may be sent, since the request announced them.
    announced: Vec<HeaderName>,
    /// Keeps the stream counted as open until its sending half is closed.
    _permit: Arc<StreamPermit>,
}

/// The reason why a request body was not sent completely.
enum BodySendError {
    Body(RequestBodyError),
    /// The origin reset the stream, or the connection is closed.
    Origin,
}

impl BodyWriter {
    /// Sends the whole body. Resets the stream if reading the body fails, so that the origin does
    /// not mistake a part of the body for the whole.
    async fn send(mut self) {
        let sent = poll_fn(|cx| self.poll_send(cx)).await;
        if let Err(BodySendError::Body(error)) = sent {
            tracing::debug!(%error, "request body failed");
            self.stream.send_reset(Reason::CANCEL);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodySendError>> {
        loop {
            if self.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(BodySendError::Origin));
            }
            // Reserves at least one byte, so that the body is read only if data can be sent.
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

/// Returns the trailer fields that were announced; the others are not sent.
fn announced_only(trailers: &HeaderMap, announced: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in trailers {
        if announced.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

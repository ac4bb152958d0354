//! Response bodies on their way from an origin.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::{
    field::hop,
    origin::{http1, http2, lease::Lease, server::look_at_sockets, upgrade::Upgraded},
};

/// The body of an origin's response.
///
/// Its connection is used again once it has been read to its end; dropped earlier, or failed, it is closed.
pub struct ResponseBody {
    source: Source,
    /// None where there is nothing to wait for.
    lease: Option<Lease>,
    /// None where it may pause for as long as it likes.
    patience: Option<Patience>,
}

/// Proof that all of a response body has come: what is stored, or ended as complete, takes one.
///
/// Given out by [`ResponseBody::completion`] alone, once the protocol has said that the body is over: by
/// `END_STREAM` (RFC 9113 §8.1), by the last chunk, at its `Content-Length`, or, in a body that has neither, by
/// a clean close of the connection (RFC 9112 §8; over TLS, one with `close_notify`).
#[derive(Debug, Clone, Copy)]
pub struct Complete(());

#[cfg(test)]
impl Complete {
    /// Proof of a body that a test has made up.
    pub(crate) fn made_up() -> Self {
        Self(())
    }
}

/// Where a response body comes from.
pub(in crate::origin) enum Source {
    /// All of it is there; taken when it has been read.
    Whole(Bytes),
    Http1(http1::Body),
    Http2(http2::Body),
    /// It broke off, which is told when what came before has had its chance to be written.
    Broken(Option<BoxError>),
    /// All of it has been read.
    Ended,
    /// It broke off, and its reader has been told.
    Failed,
    /// The connection speaks another protocol from now on.
    Upgraded(Option<Upgraded>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a response body ended early. Its `Display` is for the log, not for the client.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// No byte came for the origin's `idle_timeout`.
    #[error("the origin stopped sending the response body")]
    Silent,
    /// The connection or the stream ended before the body did, or what came is not HTTP.
    #[error("the response body broke off")]
    Broken(#[source] BoxError),
}

type ResponseFrame = Option<Result<Frame<Bytes>, ResponseBodyError>>;

impl ResponseBody {
    /// A body that is there already.
    pub(in crate::origin) fn whole(bytes: Bytes) -> Self {
        let mut body = Self { source: Source::Whole(bytes), lease: None, patience: None };
        body.note_end();
        body
    }

    /// A body that fails where it pauses for longer than `pause`, if there is such a limit.
    pub(in crate::origin) fn new(source: Source, lease: Lease, pause: Option<Duration>) -> Self {
        let patience = pause.map(Patience::new);
        let mut body = Self { source, lease: Some(lease), patience };
        body.note_end();
        body
    }

    /// The connection, where the origin has switched protocols.
    pub fn take_upgraded(&mut self) -> Option<Upgraded> {
        if let Source::Upgraded(upgraded) = &mut self.source { upgraded.take() } else { None }
    }

    /// Proof that all of it has come and been read; none before, and none if it broke off.
    pub fn completion(&self) -> Option<Complete> {
        matches!(self.source, Source::Ended).then_some(Complete(()))
    }

    /// Gives the connection back once the body is over.
    fn note_end(&mut self) {
        if !self.is_end_stream() {
            return;
        }
        let lease = self.lease.take();
        if matches!(self.source, Source::Upgraded(_)) {
            return;
        }
        let source = std::mem::replace(&mut self.source, Source::Ended);
        let Some(lease) = lease else { return };
        match source {
            Source::Http1(body) => lease.give_back(body.into_connection()),
            _ => lease.give_back(None),
        }
    }

    fn fail(&mut self, error: ResponseBodyError) -> Poll<ResponseFrame> {
        let cause = &error as &dyn std::error::Error;
        tracing::warn!(error = cause, "a response from the origin broke off");
        self.source = Source::Failed;
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<ResponseFrame> {
        let frame = match &mut self.source {
            Source::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Http1(body) => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            Source::Http2(body) => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            Source::Broken(error) => {
                let error = error.take().map(ResponseBodyError::Broken);
                return Poll::Ready(error.map(Err));
            }
            Source::Ended | Source::Failed | Source::Upgraded(_) => None,
        };
        if let Some(Err(error)) = frame {
            self.source = Source::Broken(Some(error));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame.and_then(Result::ok).map(Ok))
    }
}

fn without_head_fields(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            hop::remove_from_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ResponseFrame> {
        let this = &mut *self;
        let Poll::Ready(frame) = this.poll_source(cx) else {
            let Some(patience) = &mut this.patience else {
                return Poll::Pending;
            };
            ready!(patience.poll_lost(cx));
            return this.fail(ResponseBodyError::Silent);
        };
        if let Some(patience) = &mut this.patience {
            patience.regain();
        }
        match frame {
            Some(Err(error)) => this.fail(error),
            frame => {
                this.note_end();
                Poll::Ready(frame.map(|frame| frame.map(without_head_fields)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
            Source::Broken(_) | Source::Failed => false,
            Source::Ended | Source::Upgraded(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Broken(_) | Source::Failed => SizeHint::default(),
            Source::Ended | Source::Upgraded(_) => SizeHint::with_exact(0),
        }
    }
}

/// The wait for the next bytes, which may take only so long.
///
/// A body that never keeps its reader waiting needs no timer, and the timer of one that does is set anew
/// only when it fires.
struct Patience {
    limit: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Lets the runtime look for what has come before the wait counts as over.
    last_look: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting_since: None, timer: None, last_look: None }
    }

    /// Something came.
    fn regain(&mut self) {
        self.waiting_since = None;
        self.last_look = None;
    }

    /// Ready when nothing has come for too long.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if since.elapsed() >= limit {
                let look = self.last_look.get_or_insert_with(|| Box::pin(look_at_sockets()));
                return look.as_mut().poll(cx);
            }
            timer.as_mut().reset(since + limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_pause_that_is_too_long_is_one_too_many() {
        let limit = Duration::from_secs(10);
        let mut patience = Patience::new(limit);
        let started = Instant::now();
        for _ in 0..4 {
            let wait = poll_fn(|cx| patience.poll_lost(cx));
            assert!(tokio::time::timeout(Duration::from_secs(7), wait).await.is_err());
            patience.regain();
        }
        poll_fn(|cx| patience.poll_lost(cx)).await;
        assert_eq!(started.elapsed().as_secs(), 38);
    }
}

//! Response bodies from an origin.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{
    http1::Http1Body, http2::Http2Body, reactor::yield_to_reactor, response_guard::ResponseGuard,
    upgrade::UpgradedConnection,
};
use crate::field::hop;

/// The body of an origin's response.
///
/// The connection is reused once the body has been read to its end. If the body is dropped earlier
/// or fails, the connection is closed.
pub struct ResponseBody {
    source: BodySource,
    /// The resources held until the body ends; `None` afterwards. Boxed, to keep responses small.
    receiving: Option<Box<BodyReceiver>>,
    /// Frames that were read ahead, in order. These frames are returned before further frames from
    /// the source.
    ahead: Option<Box<FramesAhead>>,
}

/// Resources that a body holds until its end.
struct BodyReceiver {
    guard: ResponseGuard,
    /// The limit for pauses; `None` if the body may pause without limit.
    read_timeout: Option<ReadTimeout>,
}

/// Frames that were read ahead. Boxed in a [`ResponseBody`], since most bodies have no such frames.
#[derive(Debug, Default)]
struct FramesAhead(VecDeque<Frame<Bytes>>);

/// The result of reading a body ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadAheadOutcome {
    /// The body was read to its end.
    Whole,
    /// The body is longer than the limit.
    TooLong,
    /// The body failed. The failure is returned after the data that was read.
    Failed,
}

/// Proof that a response body is complete; required to store it.
///
/// Only [`ResponseBody::completion`] creates it, after the protocol has signalled the end:
/// `END_STREAM` (RFC 9113 §8.1), the last chunk, `Content-Length` bytes, or, if none of these
/// applies, a clean close of the connection (RFC 9112 §8; over TLS, one with `close_notify`).
#[derive(Debug, Clone, Copy)]
pub struct CompletionProof(());

#[cfg(test)]
impl CompletionProof {
    /// Creates a proof without a body, for tests.
    pub(crate) fn for_test() -> Self {
        Self(())
    }
}

/// The source of a response body.
pub(super) enum BodySource {
    /// The whole body is in memory.
    Whole(Bytes),
    Http1(Box<Http1Body>),
    Http2(Box<Http2Body>),
    /// The body failed. The error is returned at the next poll, so that earlier data can be written
    /// first.
    Broken(Option<BoxError>),
    Ended,
    /// The body failed, and the error has been returned.
    Failed,
    Upgraded(Option<UpgradedConnection>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a response body ended early. `Display` is for the log, not for the client.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// No byte arrived during `origin.idle_timeout`.
    #[error("the origin stopped sending the response body")]
    TimedOut,
    /// The connection or the stream ended before the body did, or the data is not HTTP.
    #[error("the response body ended early")]
    Broken(#[source] BoxError),
}

type ResponseFrame = Option<Result<Frame<Bytes>, ResponseBodyError>>;

impl ResponseBody {
    pub(super) fn from_bytes(bytes: Bytes) -> Self {
        let source = BodySource::Whole(bytes);
        let mut body = Self { source, receiving: None, ahead: None };
        body.release_at_end();
        body
    }

    /// Creates a streamed body that fails if it pauses for longer than `timeout`.
    pub(super) fn new(source: BodySource, guard: ResponseGuard, timeout: Option<Duration>) -> Self {
        let receiving = BodyReceiver { guard, read_timeout: timeout.map(ReadTimeout::new) };
        let mut body = Self { source, receiving: Some(Box::new(receiving)), ahead: None };
        body.release_at_end();
        body
    }

    /// Returns the bytes of the body if all are in memory, else the unchanged body as an error.
    pub(crate) fn into_whole(self) -> Result<Bytes, Self> {
        match self {
            Self { source: BodySource::Whole(bytes), ahead: None, .. } => Ok(bytes),
            body => Err(body),
        }
    }

    /// Returns the connection of a response that switched protocols; `None` for other responses.
    pub fn take_upgraded(&mut self) -> Option<UpgradedConnection> {
        if let BodySource::Upgraded(upgraded) = &mut self.source { upgraded.take() } else { None }
    }

    /// Returns proof that the body was read to its end without a failure, else `None`.
    pub fn completion(&self) -> Option<CompletionProof> {
        (!self.has_frames_ahead() && matches!(self.source, BodySource::Ended))
            .then_some(CompletionProof(()))
    }

    /// Reads ahead up to `limit` bytes. Later reads still return the whole body.
    pub(crate) async fn read_ahead(&mut self, limit: usize) -> ReadAheadOutcome {
        while !self.is_source_ended() {
            if self.bytes_ahead().map(Bytes::len).sum::<usize>() > limit {
                return ReadAheadOutcome::TooLong;
            }
            match poll_fn(|cx| self.poll_next(cx)).await {
                Some(Ok(frame)) => self.ahead.get_or_insert_default().0.push_back(frame),
                Some(Err(error)) => {
                    self.source = BodySource::Broken(Some(Box::new(error)));
                    return ReadAheadOutcome::Failed;
                }
                None => break,
            }
        }
        let is_too_long = self.bytes_ahead().map(Bytes::len).sum::<usize>() > limit;
        if is_too_long { ReadAheadOutcome::TooLong } else { ReadAheadOutcome::Whole }
    }

    /// Returns the data that was read ahead.
    pub(crate) fn bytes_ahead(&self) -> impl Iterator<Item = &Bytes> {
        self.ahead.iter().flat_map(|frames| frames.0.iter()).filter_map(Frame::data_ref)
    }

    fn has_frames_ahead(&self) -> bool {
        self.ahead.as_ref().is_some_and(|frames| !frames.0.is_empty())
    }

    /// Releases the connection if the body has ended.
    fn release_at_end(&mut self) {
        if !self.is_source_ended() {
            return;
        }
        let receiving = self.receiving.take();
        if matches!(self.source, BodySource::Upgraded(_)) {
            return;
        }
        let source = std::mem::replace(&mut self.source, BodySource::Ended);
        let Some(guard) = receiving.map(|receiving| receiving.guard) else { return };
        match source {
            BodySource::Http1(body) => guard.release(body.into_connection()),
            _ => guard.release(None),
        }
    }

    fn fail(&mut self, error: ResponseBodyError) -> Poll<ResponseFrame> {
        let cause = &error as &dyn std::error::Error;
        tracing::warn!(error = cause, "origin response ended early");
        self.source = BodySource::Failed;
        self.receiving = None;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<ResponseFrame> {
        let frame = match &mut self.source {
            BodySource::Whole(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            BodySource::Http1(body) => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            BodySource::Http2(body) => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map_err(BoxError::from))
            }
            BodySource::Broken(error) => {
                let error = error.take().map(ResponseBodyError::Broken);
                return Poll::Ready(error.map(Err));
            }
            BodySource::Ended | BodySource::Failed | BodySource::Upgraded(_) => None,
        };
        if let Some(Err(error)) = frame {
            self.source = BodySource::Broken(Some(error));
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
        match self.ahead.as_mut().and_then(|frames| frames.0.pop_front()) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.has_frames_ahead() && self.is_source_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead: usize = self.bytes_ahead().map(Bytes::len).sum();
        let mut size = self.source_size();
        if let Some(upper) = size.upper() {
            size.set_upper(upper + ahead as u64);
        }
        size.set_lower(size.lower() + ahead as u64);
        size
    }
}

impl ResponseBody {
    /// Polls the next frame from the source.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<ResponseFrame> {
        let Poll::Ready(frame) = self.poll_source(cx) else {
            let Some(read_timeout) = self.read_timeout() else {
                return Poll::Pending;
            };
            ready!(read_timeout.poll_elapsed(cx));
            return self.fail(ResponseBodyError::TimedOut);
        };
        if let Some(read_timeout) = self.read_timeout() {
            read_timeout.reset();
        }
        match frame {
            Some(Err(error)) => self.fail(error),
            frame => {
                self.release_at_end();
                Poll::Ready(frame.map(|frame| frame.map(without_head_fields)))
            }
        }
    }

    fn read_timeout(&mut self) -> Option<&mut ReadTimeout> {
        self.receiving.as_mut()?.read_timeout.as_mut()
    }

    fn is_source_ended(&self) -> bool {
        match &self.source {
            BodySource::Whole(bytes) => bytes.is_empty(),
            BodySource::Http1(body) => body.is_end_stream(),
            BodySource::Http2(body) => body.is_end_stream(),
            BodySource::Broken(_) | BodySource::Failed => false,
            BodySource::Ended | BodySource::Upgraded(_) => true,
        }
    }

    fn source_size(&self) -> SizeHint {
        match &self.source {
            BodySource::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodySource::Http1(body) => body.size_hint(),
            BodySource::Http2(body) => body.size_hint(),
            BodySource::Broken(_) | BodySource::Failed => SizeHint::default(),
            BodySource::Ended | BodySource::Upgraded(_) => SizeHint::with_exact(0),
        }
    }
}

/// The maximum pause between two reads of a body.
///
/// The timer is created when a read first has to wait, and is reset only when it fires.
struct ReadTimeout {
    limit: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The last poll for I/O before the read times out, once started.
    final_poll: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl ReadTimeout {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting_since: None, timer: None, final_poll: None }
    }

    /// Records that data has arrived.
    fn reset(&mut self) {
        self.waiting_since = None;
        self.final_poll = None;
    }

    /// Completes when no data has arrived for the duration of `limit`.
    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if since.elapsed() >= limit {
                let poll = self.final_poll.get_or_insert_with(|| Box::pin(yield_to_reactor()));
                return poll.as_mut().poll(cx);
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
        let mut read_timeout = ReadTimeout::new(limit);
        let started = Instant::now();
        for _ in 0..4 {
            let wait = poll_fn(|cx| read_timeout.poll_elapsed(cx));
            assert!(tokio::time::timeout(Duration::from_secs(7), wait).await.is_err());
            read_timeout.reset();
        }
        poll_fn(|cx| read_timeout.poll_elapsed(cx)).await;
        assert_eq!(started.elapsed().as_secs(), 38);
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_read_again() {
        let mut body = ResponseBody::from_bytes(Bytes::from_static(b"text"));
        assert_eq!(body.read_ahead(3).await, ReadAheadOutcome::TooLong);
        assert_eq!(body.read_ahead(4).await, ReadAheadOutcome::Whole);
        assert_eq!(body.bytes_ahead().collect::<Vec<_>>(), ["text"]);
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(4), false));
        assert!(body.completion().is_none(), "nobody has read it yet");
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "text");
        assert!(body.is_end_stream() && body.completion().is_some());
        assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_none());
    }

    #[tokio::test]
    async fn a_failure_ahead_is_one_after_what_was_read() {
        let error = std::io::Error::other("reset");
        let mut body = ResponseBody::from_bytes(Bytes::new());
        body.source = BodySource::Broken(Some(error.into()));
        body.ahead.get_or_insert_default().0.push_back(Frame::data(Bytes::from_static(b"a")));
        assert_eq!(body.read_ahead(10).await, ReadAheadOutcome::Failed);
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "a");
        assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().is_err());
        assert!(body.completion().is_none() && !body.is_end_stream());
    }
}

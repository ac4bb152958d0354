//! Bodies towards the origin and back.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{error::UploadFailure, http1, lease::Lease, upgrade::Upgraded};
use crate::server::{BodyError, BodyLimits, Limited};

/// The body of a request to an origin.
#[derive(Default)]
pub enum RequestBody {
    /// No body at all.
    #[default]
    Empty,
    /// These bytes.
    Full(Bytes),
    /// What the client sends, streamed; made by [`RequestBody::client`].
    Client(Box<ClientBody>),
}

/// A client's body on its way to the origin.
pub struct ClientBody {
    body: Limited<Incoming>,
    upload: Option<Arc<Upload>>,
    patience: Option<Pin<Box<Sleep>>>,
}

/// Why a request body ended early, as hyper sees it.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client's side failed.
    #[error(transparent)]
    Client(BodyError),
    /// The origin has answered without wanting the body.
    #[error("the origin did not want the body")]
    Unwanted,
    /// It is not as long as it said.
    #[error("the body is not as long as it said")]
    Misfit,
}

impl RequestBody {
    /// The client's body, held to these limits; empty where there is none.
    pub fn client(body: Incoming, limits: BodyLimits) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let body = Limited::new(body, limits);
        Self::Client(Box::new(ClientBody { body, upload: None, patience: None }))
    }

    /// The same body again, where that is possible without keeping what was sent.
    pub(super) fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Client(_) => None,
        }
    }

    /// Lets the sender of a client's body see how it fares.
    pub(super) fn attach(&mut self, hold: Hold) -> Option<Arc<Upload>> {
        let Self::Client(client) = self else {
            return None;
        };
        let upload = Arc::new(Upload::default());
        if let Hold::UntilContinue(patience) = hold {
            upload.gate.store(HELD, Relaxed);
            client.patience = Some(Box::pin(tokio::time::sleep(patience)));
        }
        client.upload = Some(Arc::clone(&upload));
        Some(upload)
    }
}

/// Whether a client's body is sent at once.
#[derive(Clone, Copy)]
pub(super) enum Hold {
    No,
    /// Not before the origin says 100, or for this long (RFC 9110 §10.1.1).
    UntilContinue(Duration),
}

const OPEN: u8 = 0;
const HELD: u8 = 1;
const UNWANTED: u8 = 2;

/// How the sending of a client's body fares.
#[derive(Default)]
pub(super) struct Upload {
    gate: AtomicU8,
    waker: AtomicWaker,
    progress: AtomicU32,
    state: AtomicU8,
    failure: OnceLock<UploadFailure>,
}

const SENDING: u8 = 0;
const WAITING_FOR_CLIENT: u8 = 1;
const FINISHED: u8 = 2;

impl Upload {
    /// The origin wants the body.
    pub(super) fn open(&self) {
        if self.gate.compare_exchange(HELD, OPEN, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// The origin's response is over: what is still held back is not wanted any more.
    pub(super) fn give_up(&self) {
        if self.gate.compare_exchange(HELD, UNWANTED, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// A number that changes whenever something has been sent.
    pub(super) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    /// Whether the client is what keeps the request from being complete.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING_FOR_CLIENT
    }

    /// How it failed, if it was the client's side that failed.
    pub(super) fn failure(&self) -> Option<UploadFailure> {
        self.failure.get().copied()
    }
}

impl ClientBody {
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        let Some(upload) = &self.upload else {
            return Poll::Ready(Ok(()));
        };
        if upload.gate.load(Relaxed) == HELD {
            upload.waker.register(cx.waker());
        }
        match upload.gate.load(Relaxed) {
            UNWANTED => return Poll::Ready(Err(RequestBodyError::Unwanted)),
            HELD => {
                if let Some(patience) = &mut self.patience {
                    ready!(patience.as_mut().poll(cx));
                }
                upload.open();
            }
            _ => {}
        }
        self.patience = None;
        Poll::Ready(Ok(()))
    }

    fn note(&self, frame: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        let Some(upload) = &self.upload else { return };
        let state = match frame {
            Poll::Pending => WAITING_FOR_CLIENT,
            Poll::Ready(None) => FINISHED,
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => FINISHED,
            Poll::Ready(Some(Ok(_))) => SENDING,
            Poll::Ready(Some(Err(error))) => {
                let _ = upload.failure.set(UploadFailure::from(error));
                SENDING
            }
        };
        upload.state.store(state, Relaxed);
        if frame.is_ready() {
            upload.progress.fetch_add(1, Relaxed);
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Err(unwanted) = ready!(self.poll_gate(cx)) {
            return Poll::Ready(Some(Err(unwanted)));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.note(&frame);
        frame.map_err(RequestBodyError::Client)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Client(client) => client.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Client(client) => client.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(client) => client.body.size_hint(),
        }
    }
}

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

/// Where a response body comes from.
pub(super) enum Source {
    /// All of it is there; taken when it has been read.
    Whole(Bytes),
    Http1(http1::Body),
    /// It broke off, which is told when what came before has had its chance to be written.
    Broken(Option<http1::BodyError>),
    Http2(Incoming),
    /// The connection speaks another protocol from now on.
    Upgraded(Option<Upgraded>),
}

/// Why a response body ended early. Its `Display` is for the log, not for the client.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// No byte came for the origin's `idle_timeout`.
    #[error("the origin stopped sending the response body")]
    Silent,
    /// The connection ended before the body did, or what came is not HTTP.
    #[error("the response body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

type ResponseFrame = Option<Result<Frame<Bytes>, ResponseBodyError>>;

impl ResponseBody {
    /// A body that is there already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(bytes), lease: None, patience: None }
    }

    /// A body that fails where it pauses for longer than `pause`, if there is such a limit.
    pub(super) fn new(source: Source, lease: Lease, pause: Option<Duration>) -> Self {
        let patience = pause.map(Patience::new);
        let mut body = Self { source, lease: Some(lease), patience };
        body.give_back_at_end();
        body
    }

    /// The connection, where the origin has switched protocols.
    pub fn take_upgraded(&mut self) -> Option<Upgraded> {
        if let Source::Upgraded(upgraded) = &mut self.source { upgraded.take() } else { None }
    }

    fn give_back_at_end(&mut self) {
        if self.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        let source = std::mem::replace(&mut self.source, Source::Whole(Bytes::new()));
        let Some(lease) = self.lease.take() else { return };
        match source {
            Source::Http1(body) => lease.give_back(body.into_connection()),
            upgraded @ Source::Upgraded(_) => self.source = upgraded,
            Source::Whole(_) | Source::Broken(_) | Source::Http2(_) => {}
        }
    }

    fn fail(&mut self, error: ResponseBodyError) -> Poll<ResponseFrame> {
        self.source = Source::Whole(Bytes::new());
        self.lease = None;
        Poll::Ready(Some(Err(error)))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<ResponseFrame> {
        match &mut self.source {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Http1(body) => match ready!(body.poll_frame(cx)) {
                Some(Err(error)) => {
                    self.source = Source::Broken(Some(error));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                frame => Poll::Ready(frame.map(|frame| frame.map_err(broken))),
            },
            Source::Broken(error) => Poll::Ready(error.take().map(|error| Err(broken(error)))),
            Source::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(broken)))
            }
            Source::Upgraded(_) => Poll::Ready(None),
        }
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ResponseBodyError {
    ResponseBodyError::Broken(error.into())
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
            Some(Ok(frame)) => {
                this.give_back_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.fail(error),
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
            Source::Broken(_) => false,
            Source::Upgraded(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Broken(_) => SizeHint::default(),
            Source::Upgraded(_) => SizeHint::with_exact(0),
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
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting_since: None, timer: None }
    }

    /// Something came.
    fn regain(&mut self) {
        self.waiting_since = None;
    }

    /// Ready when nothing has come for too long.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if since.elapsed() >= limit {
                return Poll::Ready(());
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

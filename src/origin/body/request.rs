//! Request bodies on their way to an origin.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    field::forwarding,
    origin::error::{Delivery, UploadFailure},
    server::{BodyError, BodyLimits, Incoming, Limited},
};

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
    upload: Arc<Upload>,
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
        let upload = Arc::default();
        Self::Client(Box::new(ClientBody { body, upload, patience: None }))
    }

    /// How the sending of a client's body fares; none if there is no such body.
    pub fn upload(&self) -> Option<&Arc<Upload>> {
        match self {
            Self::Empty | Self::Full(_) => None,
            Self::Client(client) => Some(&client.upload),
        }
    }

    /// Notes that some of the request is on the wire.
    pub(in crate::origin) fn note_sent(&self) {
        self.upload().inspect(|upload| upload.note_sent());
    }

    /// The same body again, where that is possible without keeping what was sent.
    pub(in crate::origin) fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Client(_) => None,
        }
    }

    /// Lets the sender of a client's body see how it fares.
    pub(in crate::origin) fn attach(&mut self, hold: Hold) -> Option<Arc<Upload>> {
        let Self::Client(client) = self else {
            return None;
        };
        if let Hold::UntilContinue(patience) = hold {
            client.upload.gate.store(HELD, Relaxed);
            client.patience = Some(Box::pin(tokio::time::sleep(patience)));
        }
        Some(Arc::clone(&client.upload))
    }
}

/// Whether a client's body is sent at once.
#[derive(Clone, Copy)]
pub(in crate::origin) enum Hold {
    No,
    /// Not before the origin says 100, or for this long (RFC 9110 §10.1.1).
    UntilContinue(Duration),
}

const OPEN: u8 = 0;
const HELD: u8 = 1;
const UNWANTED: u8 = 2;

/// How the sending of a client's body fares.
#[derive(Default)]
pub struct Upload {
    gate: AtomicU8,
    is_sent: AtomicBool,
    waker: AtomicWaker,
    progress: AtomicU32,
    state: AtomicU8,
    failure: OnceLock<UploadFailure>,
}

const SENDING: u8 = 0;
const WAITING_FOR_CLIENT: u8 = 1;
const FINISHED: u8 = 2;

impl Upload {
    /// Whether all of the body has come from the client.
    pub fn has_come_whole(&self) -> bool {
        self.state.load(Relaxed) == FINISHED
    }

    /// Whether an origin may have some of the request.
    pub fn delivery(&self) -> Delivery {
        if self.is_sent.load(Relaxed) { Delivery::Possible } else { Delivery::Unsent }
    }

    pub(in crate::origin) fn note_sent(&self) {
        self.is_sent.store(true, Relaxed);
    }

    /// The origin wants the body.
    pub(in crate::origin) fn open(&self) {
        if self.gate.compare_exchange(HELD, OPEN, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// The origin's response is over: what is still held back is not wanted any more.
    pub(in crate::origin) fn give_up(&self) {
        if self.gate.compare_exchange(HELD, UNWANTED, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// A number that changes whenever something has been sent.
    pub(in crate::origin) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    /// Whether the client is what keeps the request from being complete.
    pub(in crate::origin) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING_FOR_CLIENT
    }

    /// How it failed, if it was the client's side that failed.
    pub(in crate::origin) fn failure(&self) -> Option<UploadFailure> {
        self.failure.get().copied()
    }
}

impl ClientBody {
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        let upload = &self.upload;
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
        let upload = &self.upload;
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
        Poll::Ready(ready!(frame).map(|frame| match frame {
            Ok(frame) => Ok(without_forged_trailers(frame)),
            Err(error) => Err(RequestBodyError::Client(error)),
        }))
    }
}

/// Takes fields out of a client's trailers that say of its request, connection or identity what only its
/// head, or a proxy, may say: some origins add trailers to the fields of the head (RFC 9110 §6.5.1).
fn without_forged_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            forwarding::remove_from_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
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

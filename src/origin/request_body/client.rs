//! A client's body that is sent to the origin. The body can be replayed while its beginning is
//! buffered.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::upload::{BodyStart, UploadProgress};
use crate::{
    field::forwarding,
    server::{ClientBodyError, Incoming, LimitedBody},
};

/// Maximum number of bytes of a body that are buffered until the origin responds. A longer body
/// cannot be replayed.
const MAX_REPLAY_BYTES: usize = 64 * 1024;

/// A handle to a client's body. Only the newest handle reads; it starts at the first byte.
pub struct ClientBody {
    shared: Arc<Mutex<SharedBody>>,
    attempt: u32,
    upload: Arc<UploadProgress>,
    continue_timeout: Option<Pin<Box<Sleep>>>,
}

/// A function that is called with each part of a body as the part is read.
pub(crate) type UploadObserver = Box<dyn FnMut(&[u8]) + Send>;

struct SharedBody {
    body: LimitedBody<Incoming>,
    observer: Option<UploadObserver>,
    /// The attempt that the newest handle belongs to.
    attempt: u32,
    /// All frames read so far, while the body is replayable. Afterwards, the frames that the newest
    /// attempt has not read yet.
    buffer: VecDeque<BufferedFrame>,
    buffered_bytes: usize,
    /// Number of buffered frames that the newest attempt has read.
    next: usize,
    is_replayable: bool,
}

#[derive(Clone)]
enum BufferedFrame {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The reason why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    #[error(transparent)]
    Client(ClientBodyError),
    /// The origin responded without requesting the body, or a newer attempt reads the body instead.
    #[error("the origin did not request the body")]
    Unwanted,
    /// The body is longer or shorter than its declared length.
    #[error("the body does not match its declared length")]
    LengthMismatch,
}

type FrameResult = Option<Result<Frame<Bytes>, RequestBodyError>>;

impl ClientBody {
    pub(super) fn new(body: LimitedBody<Incoming>) -> Self {
        Self::of(SharedBody::new(body))
    }

    /// Creates a body that begins with bytes that have been read already. The body can be replayed
    /// until more bytes are read.
    pub(super) fn resumed(read: Bytes, rest: LimitedBody<Incoming>) -> Self {
        let mut shared = SharedBody::new(rest);
        shared.buffered_bytes = read.len();
        shared.buffer.push_back(BufferedFrame::Data(read));
        Self::of(shared)
    }

    fn of(shared: SharedBody) -> Self {
        let (shared, upload) = (Arc::new(Mutex::new(shared)), Arc::default());
        Self { shared, attempt: 0, upload, continue_timeout: None }
    }

    /// Calls `observer` with the buffered data, and with each further part as it is read.
    pub(super) fn observe(&self, mut observer: UploadObserver) {
        let mut shared = self.shared.lock();
        for part in &shared.buffer {
            if let BufferedFrame::Data(data) = part {
                observer(data);
            }
        }
        shared.observer = Some(observer);
    }

    pub(super) fn upload(&self) -> &Arc<UploadProgress> {
        &self.upload
    }

    /// Returns a handle that starts at the first byte and replaces all other handles. `None` if the
    /// beginning is no longer buffered.
    pub(super) fn replay(&self) -> Option<Self> {
        let mut shared = self.shared.lock();
        if !shared.is_replayable {
            return None;
        }
        shared.attempt += 1;
        shared.next = 0;
        let (attempt, upload) = (shared.attempt, Arc::clone(&self.upload));
        Some(Self { shared: Arc::clone(&self.shared), attempt, upload, continue_timeout: None })
    }

    pub(super) fn is_replayable(&self) -> bool {
        self.shared.lock().is_replayable
    }

    /// Frees the replay buffer.
    pub(super) fn discard_replay(&self) {
        self.shared.lock().discard_replay();
    }

    pub(super) fn hold(&mut self, start: BodyStart) {
        if let BodyStart::AfterContinue(continue_timeout) = start {
            self.upload.hold();
            self.continue_timeout = Some(Box::pin(tokio::time::sleep(continue_timeout)));
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<FrameResult> {
        if let Err(unwanted) = ready!(self.poll_gate(cx)) {
            return Poll::Ready(Some(Err(unwanted)));
        }
        let mut shared = self.shared.lock();
        if shared.attempt != self.attempt {
            return Poll::Ready(Some(Err(RequestBodyError::Unwanted)));
        }
        if let Some(part) = shared.next_buffered() {
            self.upload.note_progress();
            return Poll::Ready(Some(Ok(part.into())));
        }
        let read = shared.poll_body(cx);
        self.upload.record_read(&read, shared.body.is_end_stream());
        read.map_err(RequestBodyError::Client)
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        match self.upload.poll_gate(cx) {
            Poll::Ready(passed) => passed.map_err(|_| RequestBodyError::Unwanted)?,
            Poll::Pending => {
                if let Some(continue_timeout) = &mut self.continue_timeout {
                    ready!(continue_timeout.as_mut().poll(cx));
                }
                self.upload.open();
            }
        }
        self.continue_timeout = None;
        Poll::Ready(Ok(()))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        shared.has_replayed() && shared.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock();
        let ahead: u64 = shared.buffer.iter().skip(shared.next).map(BufferedFrame::len).sum();
        match shared.body.size_hint().exact() {
            Some(left) => SizeHint::with_exact(left + ahead),
            None => SizeHint::default(),
        }
    }
}

impl SharedBody {
    fn new(body: LimitedBody<Incoming>) -> Self {
        Self {
            body,
            observer: None,
            attempt: 0,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            next: 0,
            is_replayable: true,
        }
    }

    fn has_replayed(&self) -> bool {
        self.next == self.buffer.len()
    }

    fn next_buffered(&mut self) -> Option<BufferedFrame> {
        if !self.is_replayable {
            return self.buffer.pop_front();
        }
        let part = self.buffer.get(self.next)?.clone();
        self.next += 1;
        Some(part)
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let read = Pin::new(&mut self.body).poll_frame(cx);
        let read = read.map_ok(without_forged_trailers);
        match &read {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(observer), Some(data)) = (&mut self.observer, frame.data_ref()) {
                    observer(data);
                }
                self.buffer(frame);
            }
            Poll::Ready(Some(Err(_))) => self.discard_replay(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        read
    }

    fn buffer(&mut self, frame: &Frame<Bytes>) {
        if !self.is_replayable {
            return;
        }
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => BufferedFrame::Data(data.clone()),
            (None, Some(trailers)) => BufferedFrame::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.buffered_bytes =
            self.buffered_bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        self.buffer.push_back(part);
        self.next += 1;
        if self.buffered_bytes > MAX_REPLAY_BYTES {
            self.discard_replay();
        }
    }

    fn discard_replay(&mut self) {
        self.is_replayable = false;
        self.buffer.drain(..self.next.min(self.buffer.len()));
        self.next = 0;
    }
}

impl BufferedFrame {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

impl From<BufferedFrame> for Frame<Bytes> {
    fn from(part: BufferedFrame) -> Self {
        match part {
            BufferedFrame::Data(data) => Frame::data(data),
            BufferedFrame::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// Removes trailer fields that are valid only in a head, such as `Host`, or only from a proxy, such
/// as forwarding fields. Some origins merge trailers into the head (RFC 9110 §6.5.1).
fn without_forged_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            forwarding::remove_from_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

//! A client's body on its way to the origin, which can be sent again while its beginning is kept.

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

use super::{
    request::RequestBodyError,
    upload::{Hold, Upload},
};
use crate::{
    field::forwarding,
    server::{BodyError, Incoming, Limited},
};

/// Bytes of a body that are kept until the origin responds. Of a longer body nothing can be sent again.
const KEPT_BYTES: usize = 64 * 1024;

/// A handle on a client's body. Only the newest one reads; it begins at the first byte.
pub struct ClientBody {
    source: Arc<Mutex<Source>>,
    attempt: u32,
    upload: Arc<Upload>,
    patience: Option<Pin<Box<Sleep>>>,
}

struct Source {
    body: Limited<Incoming>,
    /// The attempt whose handle reads.
    attempt: u32,
    /// What has been read, if it can be sent again; otherwise what the newest attempt has yet to read of it.
    kept: VecDeque<Part>,
    kept_bytes: usize,
    /// How many of the kept parts the newest attempt has read.
    next: usize,
    is_whole: bool,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

type Read = Option<Result<Frame<Bytes>, RequestBodyError>>;

impl ClientBody {
    pub(super) fn new(body: Limited<Incoming>) -> Self {
        let source = Source {
            body,
            attempt: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            next: 0,
            is_whole: true,
        };
        let (source, upload) = (Arc::new(Mutex::new(source)), Arc::default());
        Self { source, attempt: 0, upload, patience: None }
    }

    pub(super) fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// A handle that begins at the first byte and replaces all others; none once a part is no longer kept.
    pub(super) fn again(&self) -> Option<Self> {
        let mut source = self.source.lock();
        if !source.is_whole {
            return None;
        }
        source.attempt += 1;
        source.next = 0;
        let (attempt, upload) = (source.attempt, Arc::clone(&self.upload));
        Some(Self { source: Arc::clone(&self.source), attempt, upload, patience: None })
    }

    /// Whether [`Self::again`] would return a handle.
    pub(super) fn is_whole(&self) -> bool {
        self.source.lock().is_whole
    }

    /// Frees what was kept to be sent again.
    pub(super) fn forget(&self) {
        self.source.lock().forget();
    }

    pub(super) fn hold(&mut self, hold: Hold) {
        if let Hold::UntilContinue(patience) = hold {
            self.upload.hold();
            self.patience = Some(Box::pin(tokio::time::sleep(patience)));
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Read> {
        if let Err(unwanted) = ready!(self.poll_gate(cx)) {
            return Poll::Ready(Some(Err(unwanted)));
        }
        let mut source = self.source.lock();
        if source.attempt != self.attempt {
            return Poll::Ready(Some(Err(RequestBodyError::Unwanted)));
        }
        if let Some(part) = source.next_kept() {
            self.upload.note_progress();
            return Poll::Ready(Some(Ok(part.into())));
        }
        let read = source.poll_body(cx);
        self.upload.note(&read, source.body.is_end_stream());
        read.map_err(RequestBodyError::Client)
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        match self.upload.poll_gate(cx) {
            Poll::Ready(passed) => passed.map_err(|_| RequestBodyError::Unwanted)?,
            Poll::Pending => {
                if let Some(patience) = &mut self.patience {
                    ready!(patience.as_mut().poll(cx));
                }
                self.upload.open();
            }
        }
        self.patience = None;
        Poll::Ready(Ok(()))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        source.has_read_kept() && source.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = self.source.lock();
        let ahead: u64 = source.kept.iter().skip(source.next).map(Part::len).sum();
        match source.body.size_hint().exact() {
            Some(left) => SizeHint::with_exact(left + ahead),
            None => SizeHint::default(),
        }
    }
}

impl Source {
    fn has_read_kept(&self) -> bool {
        self.next == self.kept.len()
    }

    fn next_kept(&mut self) -> Option<Part> {
        if !self.is_whole {
            return self.kept.pop_front();
        }
        let part = self.kept.get(self.next)?.clone();
        self.next += 1;
        Some(part)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let read = Pin::new(&mut self.body).poll_frame(cx);
        let read = read.map_ok(without_forged_trailers);
        match &read {
            Poll::Ready(Some(Ok(frame))) => self.keep(frame),
            Poll::Ready(Some(Err(_))) => self.forget(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        read
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if !self.is_whole {
            return;
        }
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Part::Data(data.clone()),
            (None, Some(trailers)) => Part::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.kept_bytes = self.kept_bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        self.kept.push_back(part);
        self.next += 1;
        if self.kept_bytes > KEPT_BYTES {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.is_whole = false;
        self.kept.drain(..self.next.min(self.kept.len()));
        self.next = 0;
    }
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

impl From<Part> for Frame<Bytes> {
    fn from(part: Part) -> Self {
        match part {
            Part::Data(data) => Frame::data(data),
            Part::Trailers(trailers) => Frame::trailers(trailers),
        }
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

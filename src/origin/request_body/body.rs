//! Request bodies on their way to an origin.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    client::{ClientBody, RequestBodyError, UploadObserver},
    upload::{BodyStart, UploadProgress},
};
use crate::server::{BodyLimits, Incoming, LimitedBody};

/// The body of a request to an origin.
#[derive(Default)]
pub enum RequestBody {
    /// No body.
    #[default]
    Empty,
    /// A body in memory.
    Full(Bytes),
    /// The client's streamed body, created by [`RequestBody::client`].
    Client(Box<ClientBody>),
}

impl RequestBody {
    /// Wraps the client's body and applies these limits. Returns `Empty` if the client sends no
    /// body.
    pub fn client(body: Incoming, limits: BodyLimits) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Client(Box::new(ClientBody::new(LimitedBody::new(body, limits))))
    }

    /// Wraps the rest of the client's body after the bytes in `read`, which are sent first.
    pub(crate) fn resumed(read: Bytes, rest: LimitedBody<Incoming>) -> Self {
        Self::Client(Box::new(ClientBody::resumed(read, rest)))
    }

    /// Calls `observer` once for each part of a client's body, as the part is read.
    pub(crate) fn observed(self, observer: UploadObserver) -> Self {
        if let Self::Client(client) = &self {
            client.observe(observer);
        }
        self
    }

    /// Returns the progress of a client's upload; `None` for other bodies.
    pub fn upload(&self) -> Option<&Arc<UploadProgress>> {
        match self {
            Self::Empty | Self::Full(_) => None,
            Self::Client(client) => Some(client.upload()),
        }
    }

    /// Records that part of the request was written over HTTP/1.1. From now on, the origin may
    /// process the request.
    pub(in crate::origin) fn note_sent(&self) {
        if let Self::Client(client) = self {
            client.upload().note_sent();
            client.discard_replay();
        }
    }

    /// Returns a new handle that starts at the first byte and replaces all earlier handles. `None`
    /// if the beginning is no longer buffered.
    pub(in crate::origin) fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Client(client) => Some(Self::Client(Box::new(client.replay()?))),
        }
    }

    pub(in crate::origin) fn is_replayable(&self) -> bool {
        match self {
            Self::Empty | Self::Full(_) => true,
            Self::Client(client) => client.is_replayable(),
        }
    }

    pub(in crate::origin) fn discard_replay(&self) {
        if let Self::Client(client) = self {
            client.discard_replay();
        }
    }

    /// Returns the progress of a client's upload; `None` for other bodies. Holds the body back if
    /// `start` requires it.
    pub(in crate::origin) fn observe_upload(
        &mut self,
        start: BodyStart,
    ) -> Option<Arc<UploadProgress>> {
        let Self::Client(client) = self else {
            return None;
        };
        client.hold(start);
        Some(Arc::clone(client.upload()))
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
            Self::Client(client) => client.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(client) => client.size_hint(),
        }
    }
}

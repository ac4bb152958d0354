//! Request bodies on their way to an origin.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    client::ClientBody,
    upload::{BodyStart, UploadProgress},
};
use crate::server::{BodyLimits, ClientBodyError, Incoming, LimitedBody};

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

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client's side failed.
    #[error(transparent)]
    Client(ClientBodyError),
    /// The origin has answered without wanting the body, or it is being sent again.
    #[error("the origin did not want the body")]
    Unwanted,
    /// It is not as long as it said.
    #[error("the body is not as long as it said")]
    LengthMismatch,
}

impl RequestBody {
    /// The client's body, held to these limits; empty where there is none.
    pub fn client(body: Incoming, limits: BodyLimits) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Client(Box::new(ClientBody::new(LimitedBody::new(body, limits))))
    }

    /// How the sending of a client's body fares; none if there is no such body.
    pub fn upload(&self) -> Option<&Arc<UploadProgress>> {
        match self {
            Self::Empty | Self::Full(_) => None,
            Self::Client(client) => Some(client.upload()),
        }
    }

    /// Notes that some of the request is on an HTTP/1.1 wire: it cannot be known to be unprocessed any more.
    pub(in crate::origin) fn note_sent(&self) {
        if let Self::Client(client) = self {
            client.upload().note_sent();
            client.discard_replay();
        }
    }

    /// The same body from its beginning; none once it is no longer kept whole. The new one replaces all
    /// earlier ones.
    pub(in crate::origin) fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Client(client) => Some(Self::Client(Box::new(client.replay()?))),
        }
    }

    /// Whether it can be sent again.
    pub(in crate::origin) fn is_replayable(&self) -> bool {
        match self {
            Self::Empty | Self::Full(_) => true,
            Self::Client(client) => client.is_replayable(),
        }
    }

    /// Frees what was kept to be sent again.
    pub(in crate::origin) fn discard_replay(&self) {
        if let Self::Client(client) = self {
            client.discard_replay();
        }
    }

    /// Lets the sender of a client's body see how it fares.
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

//! Writes a request: its head, and its body as it arrives.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::request::{self, RequestLength};
use crate::origin::{
    origin_request::OriginRequest,
    request_body::{RequestBody, RequestBodyError, announced_trailers},
};

/// Maximum size, in bytes, of body parts that are copied into the buffer of pending bytes and
/// written together with them.
const JOINED_BYTES: usize = 8 * 1024;

/// The unsent part of a request.
pub(super) struct RequestWriter {
    body: RequestBody,
    framing: RequestFraming,
    /// The bytes to write first, from position `start`.
    written: Vec<u8>,
    start: usize,
    /// The body data to write next.
    data: Bytes,
    /// Trailer fields that may be sent, since the request announced them.
    announced: Vec<HeaderName>,
    is_sent: bool,
    state: SendState,
}

/// The way in which the end of the body is marked.
enum RequestFraming {
    /// The end is marked by `Content-Length`. Holds the number of bytes left.
    Plain(u64),
    FirstChunk,
    NextChunk,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    Sending,
    /// The whole body has been read, but not yet sent.
    BodyRead,
    /// The whole request has been sent.
    Sent,
}

/// The reason why a request could not be sent completely.
pub(super) enum SendError {
    Body(RequestBodyError),
    Io(io::Error),
}

impl RequestWriter {
    /// Creates a writer that sends the request with `body`. Writes into `buffer`, which is empty.
    pub(super) fn new(
        (request, body): (&OriginRequest, RequestBody),
        default_host: &HeaderValue,
        mut buffer: Vec<u8>,
    ) -> Self {
        let length = RequestLength::of(&body);
        let (framing, announced) = match length {
            RequestLength::Absent => (RequestFraming::Plain(0), Vec::new()),
            RequestLength::Known(length) => (RequestFraming::Plain(length), Vec::new()),
            RequestLength::Chunked if request.fields.announces_trailers() => {
                (RequestFraming::FirstChunk, announced_trailers(&request.fields.to_map()))
            }
            RequestLength::Chunked => (RequestFraming::FirstChunk, Vec::new()),
        };
        request::write_head(&mut buffer, request, default_host, length);
        let state =
            if length == RequestLength::Absent { SendState::BodyRead } else { SendState::Sending };
        let (written, start, data, is_sent) = (buffer, 0, Bytes::new(), false);
        Self { body, framing, written, start, data, announced, is_sent, state }
    }

    pub(super) fn has_been_sent(&self) -> bool {
        self.is_sent
    }

    /// Returns the buffer if the whole request has been sent, else `None`.
    pub(super) fn take_buffer(&mut self) -> Option<Vec<u8>> {
        (self.state == SendState::Sent).then(|| std::mem::take(&mut self.written))
    }

    /// Sends all available bytes. Completes when the whole request has been sent.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            self.gather(cx)?;
            if self.start < self.written.len() || !self.data.is_empty() {
                ready!(self.poll_write(wire, cx)).map_err(SendError::Io)?;
                continue;
            }
            ready!(Pin::new(&mut *wire).poll_flush(cx)).map_err(SendError::Io)?;
            if self.state == SendState::Sending {
                return Poll::Pending;
            }
            self.state = SendState::Sent;
            return Poll::Ready(Ok(()));
        }
    }

    /// Reads frames of the body that can be written together with the pending bytes.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        while self.state == SendState::Sending
            && self.data.is_empty()
            && self.written.len() < JOINED_BYTES
        {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(());
            };
            match frame.transpose().map_err(SendError::Body)?.map(Frame::into_data) {
                Some(Ok(data)) => self.take(data)?,
                Some(Err(frame)) => self.finish(frame.into_trailers().ok().as_ref())?,
                None => self.finish(None)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, data: Bytes) -> Result<(), SendError> {
        if data.is_empty() {
            return Ok(());
        }
        let length = data.len() as u64;
        match &mut self.framing {
            RequestFraming::Plain(left) => {
                *left = left.checked_sub(length).ok_or_else(length_mismatch)?;
            }
            RequestFraming::FirstChunk | RequestFraming::NextChunk => {
                let line = format!("{}{length:x}\r\n", self.end_of_chunk());
                self.written.extend_from_slice(line.as_bytes());
                self.framing = RequestFraming::NextChunk;
            }
        }
        if data.len() <= JOINED_BYTES {
            self.written.extend_from_slice(&data);
        } else {
            self.data = data;
        }
        // If the data was copied, the end of the body is written together with it.
        if self.data.is_empty() && self.body.is_end_stream() { self.finish(None) } else { Ok(()) }
    }

    /// Returns the line end of the previous chunk; empty before the first chunk.
    fn end_of_chunk(&self) -> &'static str {
        if matches!(self.framing, RequestFraming::NextChunk) { "\r\n" } else { "" }
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), SendError> {
        self.state = SendState::BodyRead;
        if let RequestFraming::Plain(left) = self.framing {
            return if left == 0 { Ok(()) } else { Err(length_mismatch()) };
        }
        let end = self.end_of_chunk();
        self.written.extend_from_slice(end.as_bytes());
        self.written.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            if self.announced.contains(name) {
                request::push(&mut self.written, name, value.as_bytes());
            }
        }
        self.written.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.written.get(self.start..).filter(|rest| !rest.is_empty()) {
            self.start += ready!(poll_some(wire, cx, rest))?;
            if !self.is_sent {
                self.is_sent = true;
                self.body.note_sent();
            }
        }
        self.written.clear();
        self.start = 0;
        while !self.data.is_empty() {
            let length = ready!(poll_some(wire, cx, &self.data))?;
            self.data.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_some<W: AsyncWrite + Unpin>(
    wire: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(wire).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        length => Poll::Ready(Ok(length)),
    }
}

/// Returns the error for a body that does not have its declared length.
fn length_mismatch() -> SendError {
    SendError::Body(RequestBodyError::LengthMismatch)
}

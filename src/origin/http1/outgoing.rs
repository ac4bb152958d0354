//! A request on its way out: its head, and its body as it comes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use super::request::{self, RequestLength};
use crate::origin::body::{RequestBody, RequestBodyError, announced_trailers};

/// Up to so many bytes of a body are copied behind what is written anyway.
const JOINED_BYTES: usize = 8 * 1024;

/// What is left to send of a request.
pub(super) struct RequestWriter {
    body: RequestBody,
    framing: RequestFraming,
    /// To be written first, from `start` on.
    written: Vec<u8>,
    start: usize,
    /// To be written next.
    data: Bytes,
    /// Trailer fields that may be sent.
    announced: Vec<HeaderName>,
    /// Whether something has been sent.
    is_sent: bool,
    state: SendState,
}

/// How the bytes of a body are told from what follows.
enum RequestFraming {
    /// There are so many left.
    Plain(u64),
    FirstChunk,
    NextChunk,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    Sending,
    /// All of the body has been taken.
    BodyRead,
    /// All has been sent.
    Sent,
}

/// Why a request cannot be sent to its end.
pub(super) enum SendError {
    /// Its body failed.
    Body(RequestBodyError),
    /// The connection failed.
    Io(io::Error),
}

impl RequestWriter {
    /// The whole request, with this body.
    pub(super) fn new(
        request: &Request<RequestBody>,
        body: RequestBody,
        host: &HeaderValue,
    ) -> Self {
        let length = RequestLength::of(&body);
        let (framing, announced) = match length {
            RequestLength::Absent => (RequestFraming::Plain(0), Vec::new()),
            RequestLength::Known(length) => (RequestFraming::Plain(length), Vec::new()),
            RequestLength::Chunked => {
                (RequestFraming::FirstChunk, announced_trailers(request.headers()))
            }
        };
        let written = request::head(request, host, length);
        let state =
            if length == RequestLength::Absent { SendState::BodyRead } else { SendState::Sending };
        let (start, data, is_sent) = (0, Bytes::new(), false);
        Self { body, framing, written, start, data, announced, is_sent, state }
    }

    /// Whether something has been sent.
    pub(super) fn has_been_sent(&self) -> bool {
        self.is_sent
    }

    /// Whether all has been sent.
    pub(super) fn is_finished(&self) -> bool {
        self.state == SendState::Sent
    }

    /// Sends all there is; ready when that was all.
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

    /// Takes from the body what may be written together with what is to be written anyway.
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
                *left = left.checked_sub(length).ok_or_else(length_mismatch)?
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
        // The end is taken at once where it costs no copy: it may go out with what is written now.
        if self.data.is_empty() && self.body.is_end_stream() { self.finish(None) } else { Ok(()) }
    }

    /// What separates the last chunk from the next.
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

/// A body that is not as long as it said.
fn length_mismatch() -> SendError {
    SendError::Body(RequestBodyError::LengthMismatch)
}

//! Response bodies over HTTP/2.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};

/// A body that is complete only after `END_STREAM` (RFC 9113 §8.1).
pub(in crate::origin) struct Http2Body {
    stream: RecvStream,
    /// The number of bytes left of the declared length; `None` if no length was declared.
    left: Option<u64>,
    state: ReadState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Data,
    Trailers,
    Done,
}

/// The reason why a response body failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::origin) enum Http2BodyError {
    #[error(transparent)]
    Failed(#[from] h2::Error),
    #[error("the body stopped before its end")]
    Truncated,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self { stream, left: length, state: ReadState::Data }
    }

    pub(in crate::origin) fn is_end_stream(&self) -> bool {
        self.state == ReadState::Done || self.stream.is_end_stream()
    }

    pub(in crate::origin) fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    pub(in crate::origin) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http2BodyError>>> {
        if self.state == ReadState::Data {
            match ready!(self.stream.poll_data(cx)).transpose()? {
                Some(data) => {
                    self.take(&data);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.state = ReadState::Trailers,
            }
        }
        if self.state == ReadState::Done {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        self.state = ReadState::Done;
        Poll::Ready(match trailers {
            Some(trailers) => Some(Ok(Frame::trailers(trailers))),
            None if self.stream.is_end_stream() => None,
            None => Some(Err(Http2BodyError::Truncated)),
        })
    }

    /// Subtracts the data's size from the remaining length, and releases flow-control capacity.
    fn take(&mut self, data: &Bytes) {
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        // Fails only if the stream has ended.
        let _no_more_comes = self.stream.flow_control().release_capacity(data.len());
    }
}

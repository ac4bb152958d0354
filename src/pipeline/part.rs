//! A range of a body that is still arriving.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::fill::FillReader;
use crate::field::range::ByteRange;

/// The bytes of one range, given out as they come; what lies before is skipped.
pub struct Part {
    reader: FillReader,
    skip: u64,
    left: u64,
}

impl Part {
    /// This range of what the reader reads from its first byte.
    pub fn new(reader: FillReader, range: ByteRange) -> Self {
        Self { reader, skip: range.first(), left: range.len() }
    }

    /// What of the next chunk belongs to the range.
    fn cut(&mut self, mut chunk: Bytes) -> Bytes {
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let mut chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
        chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= chunk.len() as u64;
        chunk
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = <FillReader as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        while this.left > 0 {
            let frame = match ready!(Pin::new(&mut this.reader).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            let Ok(chunk) = frame.into_data() else { continue };
            let chunk = this.cut(chunk);
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

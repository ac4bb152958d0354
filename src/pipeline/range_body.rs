//! One range of a body that is still arriving.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{body_slice::detached_slice, tee::TeeReader};
use crate::field::range::ByteRange;

/// The bytes of one range of a body, as they arrive. Bytes before the range are skipped.
pub(crate) struct RangeBody {
    reader: TeeReader,
    skip: u64,
    left: u64,
}

impl RangeBody {
    /// Creates a body that reads this range.
    pub(crate) fn new(reader: TeeReader, range: ByteRange) -> Self {
        Self { reader, skip: range.first(), left: range.len() }
    }

    /// Returns the part of the next chunk that belongs to the range.
    fn cut(&mut self, chunk: &Bytes) -> Bytes {
        let first = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= first as u64;
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let part = detached_slice(chunk, first..first.saturating_add(left).min(chunk.len()));
        self.left -= part.len() as u64;
        part
    }
}

impl Body for RangeBody {
    type Data = Bytes;
    type Error = <TeeReader as Body>::Error;

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
            let chunk = this.cut(&chunk);
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

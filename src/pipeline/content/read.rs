//! Reads the whole content of a request, within limits.

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;

use super::budget::ContentShare;
use crate::{
    origin::{RequestBody, UploadFailure},
    policy::Reason,
    server::{BodyLimits, Incoming, LimitedBody},
};

/// Maximum length of content that becomes part of a key, in bytes. Longer content is not keyed.
pub(in crate::pipeline) const MAX_BYTES: usize = 64 << 10;

/// The outcome of reading the content of a request.
pub(in crate::pipeline) enum ReadOutcome {
    /// The complete content, and its share of the memory budget. Trailers are discarded: `Vary`
    /// cannot name them.
    Whole(Bytes, ContentShare),
    /// The content cannot be part of a key. The body begins with the bytes that were read.
    Passed(RequestBody, Reason),
    /// The client failed to send the content.
    Failed(UploadFailure),
}

/// Reads the content of a request up to [`MAX_BYTES`].
///
/// `limits` applies to the content's size and pauses. `share` limits the memory that the client's
/// requests take together.
pub(in crate::pipeline) async fn read(
    body: Incoming,
    limits: BodyLimits,
    mut share: ContentShare,
) -> ReadOutcome {
    let mut body = LimitedBody::new(body, limits);
    let mut content = Vec::new();
    match collect(&mut body, &mut content, &mut share).await {
        Ok(()) => ReadOutcome::Whole(content.into(), share),
        Err(ReadStop::Refused(reason)) => {
            ReadOutcome::Passed(RequestBody::resumed(content.into(), body), reason)
        }
        Err(ReadStop::Failed(failure)) => ReadOutcome::Failed(failure),
    }
}

/// Why the content of a request was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadStop {
    /// The content is too large, or there is no memory for it.
    Refused(Reason),
    Failed(UploadFailure),
}

/// Appends the content to a buffer, which holds the bytes read so far if reading stops early.
async fn collect<B>(
    body: &mut LimitedBody<B>,
    content: &mut Vec<u8>,
    share: &mut ContentShare,
) -> Result<(), ReadStop>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadStop::Failed(UploadFailure::from(&error)))?;
        let Ok(chunk) = frame.into_data() else { continue };
        content.extend_from_slice(&chunk);
        if content.len() > MAX_BYTES {
            return Err(ReadStop::Refused(Reason::BodyKeyTooLarge));
        }
        share.grow(chunk.len()).map_err(|_| ReadStop::Refused(Reason::BodyKeyBudget))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures_util::{StreamExt, stream};
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::pipeline::content::ContentBudget;

    const LIMITS: BodyLimits = BodyLimits { bytes: 1 << 20, idle_timeout: Duration::from_mins(1) };

    /// Reads a body of these chunks and trailers, which then ends, or stalls if not `is_ended`.
    async fn collected(
        chunks: &[&'static str],
        is_ended: bool,
        limits: BodyLimits,
    ) -> (Result<(), ReadStop>, usize) {
        let frames = chunks.iter().map(|chunk| Frame::data(Bytes::from_static(chunk.as_bytes())));
        let frames = frames.chain([Frame::trailers(HeaderMap::new())]).map(std::io::Result::Ok);
        let frames: Vec<_> = frames.collect();
        let rest = if is_ended { stream::empty().boxed() } else { stream::pending().boxed() };
        let body = StreamBody::new(stream::iter(frames).chain(rest));
        let mut share = Arc::new(ContentBudget::default()).share(None);
        let mut content = Vec::new();
        let read = collect(&mut LimitedBody::new(body, limits), &mut content, &mut share).await;
        (read, content.len())
    }

    #[tokio::test(start_paused = true)]
    async fn content_is_read_to_its_end_or_what_was_read_is_kept() {
        assert_eq!(collected(&["{", "}"], true, LIMITS).await, (Ok(()), 2));
        assert_eq!(collected(&[], true, LIMITS).await, (Ok(()), 0));
        let timed_out = Err(ReadStop::Failed(UploadFailure::TimedOut));
        assert_eq!(collected(&["{"], false, LIMITS).await, (timed_out, 1));
        let long: &'static str = "x".repeat(MAX_BYTES).leak();
        assert_eq!(collected(&[long], true, LIMITS).await, (Ok(()), MAX_BYTES));
        let refused = Err(ReadStop::Refused(Reason::BodyKeyTooLarge));
        assert_eq!(collected(&[long, "x", "y"], false, LIMITS).await, (refused, MAX_BYTES + 1));
        let small = BodyLimits { bytes: 3, ..LIMITS };
        let too_large = Err(ReadStop::Failed(UploadFailure::TooLarge));
        assert_eq!(collected(&["ab", "cd"], true, small).await, (too_large, 2));
    }
}

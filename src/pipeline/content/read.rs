//! Reads the content of a request whole, within limits.

use bytes::Bytes;
use http_body_util::BodyExt;

use super::budget::ContentShare;
use crate::{
    origin::{RequestBody, UploadFailure},
    policy::Reason,
    server::{BodyLimits, Incoming, LimitedBody},
};

/// Content of more bytes is not part of a key: the request passes.
pub(in crate::pipeline) const MAX_BYTES: usize = 64 << 10;

/// The outcome of reading the content of a request.
pub(in crate::pipeline) enum ReadOutcome {
    /// All of it, and the memory that it counts against. Trailers are left out: no `Vary` can name
    /// them.
    Whole(Bytes, ContentShare),
    /// It may not be part of a key. The body begins with what was read.
    Passed(RequestBody, Reason),
    /// The client failed to send it.
    Failed(UploadFailure),
}

/// Reads the content of a request up to [`MAX_BYTES`].
///
/// The client's own limits apply: `limits` on its size and its pauses, and the share on what its
/// requests take together.
pub(in crate::pipeline) async fn read(
    body: Incoming,
    limits: BodyLimits,
    mut share: ContentShare,
) -> ReadOutcome {
    let mut body = LimitedBody::new(body, limits);
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return ReadOutcome::Failed(UploadFailure::from(&error)),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        content.extend_from_slice(&chunk);
        let refusal = if content.len() > MAX_BYTES {
            Some(Reason::BodyKeyTooLarge)
        } else {
            share.grow(chunk.len()).err().map(|_| Reason::BodyKeyBudget)
        };
        if let Some(reason) = refusal {
            return ReadOutcome::Passed(RequestBody::resumed(content.into(), body), reason);
        }
    }
    ReadOutcome::Whole(content.into(), share)
}

//! Compares a stored response with a live one, without blocking a thread for long.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json_path::JsonPath;

use super::slots::VerificationSlots;
use crate::{
    comparison::{
        ComparedResponse, Comparison, SkipReason, compare_contents, compare_heads_and_bytes,
    },
    entry::StoredResponse,
    parsing::ParseQueue,
    pipeline::state::Pipeline,
    policy::{stale, validation},
};

/// Maximum length of a body without a content coding that is parsed inline, in bytes.
const INLINE_BYTES: usize = 16 << 10;

/// The head of a live response.
pub(super) type LiveHead<'a> = (StatusCode, &'a HeaderMap);

/// Compares the heads of two responses if the live response has no body to compare: after `HEAD`, a
/// range, a `304` or an error. Returns `None` if it has a body to compare.
pub(super) fn compare_without_body(
    stored: &StoredResponse,
    (status, headers): LiveHead<'_>,
    is_head: bool,
) -> Option<Comparison> {
    if stale::is_error(status) {
        return Some(Comparison::Skipped(SkipReason::OriginError));
    }
    if matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) {
        return Some(Comparison::Skipped(SkipReason::Partial));
    }
    if status == StatusCode::NOT_MODIFIED {
        return Some(if has_same_tag(stored, headers) {
            Comparison::Same
        } else {
            Comparison::Skipped(SkipReason::Partial)
        });
    }
    if !is_head {
        return None;
    }
    Some(if status != stored.status {
        let stored = ComparedResponse::of(stored);
        let live = ComparedResponse { status, headers: headers.clone(), body: Bytes::new() };
        compare_heads_and_bytes(&stored, &live).unwrap_or(Comparison::Skipped(SkipReason::Partial))
    } else if has_same_tag(stored, headers) {
        Comparison::Same
    } else {
        Comparison::Skipped(SkipReason::Partial)
    })
}

/// Returns whether both responses have the same entity tag from the origin.
pub(super) fn has_same_tag(stored: &StoredResponse, live: &HeaderMap) -> bool {
    let tag = |headers: &HeaderMap| headers.contains_key(http::header::ETAG);
    let known = stored.fields().unpack(0);
    stored.etag == validation::EtagOrigin::Origin
        && tag(&known)
        && tag(live)
        && validation::confirms(&known, live)
}

/// Compares a stored response with a complete live one.
pub(super) async fn compare<S>(
    pipeline: &Pipeline<S>,
    stored: &StoredResponse,
    live: ComparedResponse,
    ignore: &Arc<[JsonPath]>,
) -> Comparison {
    let pair = (ComparedResponse::of(stored), live);
    compare_pair(pair, ignore, (&pipeline.verification_slots, &pipeline.parsing)).await
}

/// Compares two responses. Parses long documents on another thread. Does the same with bodies in a
/// content coding, because their decoded length is unknown.
async fn compare_pair(
    (stored, live): (ComparedResponse, ComparedResponse),
    ignore: &Arc<[JsonPath]>,
    (slots, parsing): (&VerificationSlots, &ParseQueue),
) -> Comparison {
    if let Some(comparison) = compare_heads_and_bytes(&stored, &live) {
        return comparison;
    }
    let is_short = |response: &ComparedResponse| {
        !response.headers.contains_key(http::header::CONTENT_ENCODING)
            && response.body.len() <= INLINE_BYTES
    };
    if is_short(&stored) && is_short(&live) {
        return compare_contents(&stored, &live, ignore);
    }
    let Some(_slot) = slots.document() else {
        return Comparison::Skipped(SkipReason::Busy);
    };
    let ignore = Arc::clone(ignore);
    let compared = parsing.run(move || compare_contents(&stored, &live, &ignore)).await;
    compared.unwrap_or(Comparison::Skipped(SkipReason::Busy))
}

impl ComparedResponse {
    fn of(stored: &StoredResponse) -> Self {
        let (status, headers) = (stored.status, stored.fields().unpack(0));
        Self { status, headers, body: stored.body() }
    }
}

/// Joins the chunks of a body. Copies only if there are several chunks.
pub(super) fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [] => Bytes::new(),
        [whole] => whole.clone(),
        chunks => chunks.concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use futures_util::FutureExt as _;
    use http::{HeaderValue, header};

    use super::*;

    /// Returns a response with a JSON array of this many zeros.
    fn zeros(count: usize, coding: Option<&'static str>) -> ComparedResponse {
        let json = format!("[{}]", vec!["0"; count].join(","));
        let body = if coding.is_some() { gzip(json.as_bytes()) } else { json.into_bytes() };
        let coding = coding.map(HeaderValue::from_static);
        let headers = coding.into_iter().map(|coding| (header::CONTENT_ENCODING, coding)).collect();
        ComparedResponse { status: StatusCode::OK, headers, body: body.into() }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn a_short_body_that_decodes_to_a_long_one_does_not_hold_up_the_thread() {
        let (slots, parsing, ignore) =
            (VerificationSlots::default(), ParseQueue::default(), Arc::from([]));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let queue = parsing.clone();
        let holder = tokio::spawn(async move { queue.run(move || released.recv()).await });
        let short = (zeros(1000, None), zeros(1001, None));
        let inline = compare_pair(short, &ignore, (&slots, &parsing)).now_or_never();
        assert!(matches!(inline, Some(Comparison::Different(_))), "{inline:?}");
        tokio::task::yield_now().await;
        let bomb = (zeros(250_000, Some("gzip")), zeros(1, Some("gzip")));
        assert!(bomb.0.body.len() < 2 << 10, "{}", bomb.0.body.len());
        let mut compared = Box::pin(compare_pair(bomb, &ignore, (&slots, &parsing)));
        assert!((&mut compared).now_or_never().is_none(), "it waits for its turn elsewhere");
        release.send(()).unwrap();
        assert!(matches!(compared.await, Comparison::Different(_)));
        drop(holder);
    }
}

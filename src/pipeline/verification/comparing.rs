//! Compares a stored response with a live one, without blocking a thread for long.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json_path::JsonPath;

use crate::{
    comparison::{
        ComparedResponse, Comparison, SkipReason, compare_contents, compare_heads_and_bytes,
    },
    entry::StoredResponse,
    pipeline::state::Pipeline,
    policy::{stale, validation},
};

/// Maximum length of a body that is parsed inline, in bytes.
const INLINE_BYTES: usize = 16 << 10;

/// The head of a live response.
pub(super) type LiveHead<'a> = (StatusCode, &'a HeaderMap);

/// Compares the heads of two responses if the live one has no body to compare: after `HEAD`, a
/// range, a `304` or an error. Returns `None` if it has one.
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

/// Compares a stored response with a complete live one. Long documents are parsed on another
/// thread.
pub(super) async fn compare<S>(
    pipeline: &Pipeline<S>,
    stored: &StoredResponse,
    live: ComparedResponse,
    ignore: &Arc<[JsonPath]>,
) -> Comparison {
    let stored = ComparedResponse::of(stored);
    if let Some(comparison) = compare_heads_and_bytes(&stored, &live) {
        return comparison;
    }
    let is_short = |response: &ComparedResponse| {
        let is_coded = response.headers.contains_key(http::header::CONTENT_ENCODING);
        response.body.len() <= if is_coded { INLINE_BYTES / 8 } else { INLINE_BYTES }
    };
    if is_short(&stored) && is_short(&live) {
        return compare_contents(&stored, &live, ignore);
    }
    let Some(_slot) = pipeline.verification_slots.document() else {
        return Comparison::Skipped(SkipReason::Busy);
    };
    let ignore = Arc::clone(ignore);
    let compared = pipeline.parsing.run(move || compare_contents(&stored, &live, &ignore)).await;
    compared.unwrap_or(Comparison::Skipped(SkipReason::Busy))
}

impl ComparedResponse {
    fn of(stored: &StoredResponse) -> Self {
        let (status, headers) = (stored.status, stored.fields().unpack(0));
        Self { status, headers, body: stored.body() }
    }
}

/// Joins the chunks of a body. Copies unless there is only one.
pub(super) fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [] => Bytes::new(),
        [whole] => whole.clone(),
        chunks => chunks.concat().into(),
    }
}

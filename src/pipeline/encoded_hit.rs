//! Encodes a hit directly into the bytes that hyper's server would send for `deliver::hit`.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    thread::LocalKey,
};

use bytes::Bytes;
use http::{StatusCode, header};

use super::{
    body::BodyContent,
    clock::ReceivedAt,
    config_snapshot::{ConfigSnapshot, ServerTiming},
    deliver::{CacheDecision, Responder},
    finish,
    head_cache::{HeadCache, HeadKey},
    received_request::ReceivedRequest,
    representation::Representation,
    state::Pipeline,
};
use crate::{
    entry::ResponseId,
    field::presence::FieldPresence,
    policy::{CacheResult, validation},
    server::{Declined, ResponseBatch, encode},
    store::Store,
};

/// A thread's cache of encoded heads.
type EncodedHeads = RefCell<HeadCache<Box<[u8]>>>;

thread_local! {
    static WHOLE: EncodedHeads = RefCell::new(HeadCache::new());
    static NOT_MODIFIED: EncodedHeads = RefCell::new(HeadCache::new());
}

/// Appends a fresh stored response to the batch, and accounts for the request. `listed` is a stored
/// response whose tag the `If-None-Match` of requests with the same fields lists.
///
/// # Errors
/// Fails if only hyper can encode the response. The request has then had no effect.
pub(super) fn append(
    (pipeline, config, route): (&Arc<Pipeline<impl Store>>, &ConfigSnapshot, usize),
    received: ReceivedAt,
    request: &ReceivedRequest<'_>,
    (presence, form): (FieldPresence, Representation<'_>),
    listed: &Cell<Option<ResponseId>>,
    batch: &mut ResponseBatch,
) -> Result<(), Declined> {
    if form.stored.has_trailers() {
        return Err(Declined::Request);
    }
    let decision = CacheDecision::hit(CacheResult::Hit, None);
    let (method, headers) = (request.method, request.headers);
    let responder = Responder { config, route, received, method, headers };
    let (status, length) = if responder.sends_whole(presence) {
        append_whole(pipeline, &responder, form, decision, batch)?
    } else if lists_tag(&responder, form, (presence, listed)) {
        append_not_modified(&responder, form, decision, batch)?
    } else {
        append_selected(&responder, form, decision, batch)?
    };
    let response = (decision.outcome(), status, length);
    finish::record_hit(config, route, received, request, response);
    Ok(())
}

/// Appends a complete response, with a head that stays the same for a second. Returns the status
/// and the length of the body.
fn append_whole(
    pipeline: &Arc<Pipeline<impl Store>>,
    responder: &Responder<'_>,
    form: Representation<'_>,
    decision: CacheDecision,
    batch: &mut ResponseBatch,
) -> Result<(StatusCode, u64), Declined> {
    let (status, length) = (form.stored.status, form.body_length());
    append_head(&WHOLE, responder.head_key(form), batch.head(), |bytes| {
        let headers = responder.make_head(&form.stored.fields(), form, decision);
        encode::response_head(bytes, (responder.method, status), &headers, form.body_bytes().len())
    })?;
    pipeline.push_body(form, batch);
    Ok((status, length))
}

/// Returns whether the request lists the tag of the stored response, and gets the same `304` as all
/// such requests. Always `false` with `Server-Timing`, or if the route chooses among codings.
fn lists_tag(
    responder: &Responder<'_>,
    form: Representation<'_>,
    (presence, listed): (FieldPresence, &Cell<Option<ResponseId>>),
) -> bool {
    let stored = form.stored;
    let is_same_for_all = responder.config.server_timing == ServerTiming::Off
        && !responder.config.route(responder.route).encodes();
    if !presence.has(FieldPresence::CONDITION) || !is_same_for_all {
        return false;
    }
    if listed.get() == Some(stored.id) {
        return true;
    }
    let is_listed = |tag: &[u8]| validation::is_tag_listed(responder.headers, stored.status, tag);
    let is_listed = stored.fields().first(header::ETAG.as_str()).is_some_and(is_listed);
    if is_listed {
        listed.set(Some(stored.id));
    }
    is_listed
}

/// Appends a `304` with a head that stays the same for a second. Returns its status and the length of
/// its body.
fn append_not_modified(
    responder: &Responder<'_>,
    form: Representation<'_>,
    decision: CacheDecision,
    batch: &mut ResponseBatch,
) -> Result<(StatusCode, u64), Declined> {
    append_head(&NOT_MODIFIED, responder.head_key(form), batch.head(), |bytes| {
        let (head, _no_body, _) = responder.select_stored(form, decision);
        encode::response_head(bytes, (responder.method, head.status()), head.headers(), 0)
    })?;
    Ok((StatusCode::NOT_MODIFIED, 0))
}

/// Appends the cached head with this key, or encodes and caches it.
fn append_head(
    heads: &'static LocalKey<EncodedHeads>,
    key: HeadKey,
    bytes: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), encode::NotPlain>,
) -> Result<(), Declined> {
    heads.with_borrow_mut(|heads| {
        if let Some(head) = heads.find(&key) {
            bytes.extend_from_slice(head);
            return Ok(());
        }
        let start = bytes.len();
        encode(bytes).map_err(|encode::NotPlain| Declined::Request)?;
        if let Some(head) = bytes.get(start..) {
            heads.insert(key, head.into());
        }
        Ok(())
    })
}

/// Appends the part of a response that a `HEAD`, a condition or a range selects. Returns the status
/// and the length of the body.
fn append_selected(
    responder: &Responder<'_>,
    form: Representation<'_>,
    decision: CacheDecision,
    batch: &mut ResponseBatch,
) -> Result<(StatusCode, u64), Declined> {
    let (head, content, length) = responder.select_stored(form, decision);
    let body = match content {
        BodyContent::Full(bytes) => bytes,
        BodyContent::Empty | BodyContent::HeadOnly(_) => Bytes::new(),
        _ => return Err(Declined::Request),
    };
    let (status, headers) = (head.status(), head.headers());
    encode::response_head(batch.head(), (responder.method, status), headers, body.len())
        .map_err(|encode::NotPlain| Declined::Request)?;
    batch.push_body(&body, || body.clone());
    Ok((status, length))
}

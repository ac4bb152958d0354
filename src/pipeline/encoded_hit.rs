//! A hit as bytes: the response of `deliver::hit` in the form that hyper's server gives it.

use std::cell::RefCell;

use bytes::Bytes;
use http::StatusCode;

use super::{
    body::BodyContent,
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    deliver::{CacheDecision, Responder},
    finish,
    head_cache::HeadCache,
    received_request::ReceivedRequest,
    representation::Representation,
};
use crate::{
    field::presence::FieldPresence,
    policy::CacheResult,
    server::{Declined, ResponseBatch, encode},
};

thread_local! {
    static HEADS: RefCell<HeadCache<Box<[u8]>>> = RefCell::new(HeadCache::new());
}

/// Appends a fresh stored response to the batch, and accounts for the request.
///
/// # Errors
/// Fails if only hyper can encode the response. The request has then had no effect.
pub(super) fn append(
    (config, route): (&ConfigSnapshot, usize),
    received: ReceivedAt,
    request: &ReceivedRequest<'_>,
    (presence, form): (FieldPresence, Representation<'_>),
    batch: &mut ResponseBatch,
) -> Result<(), Declined> {
    if form.stored.has_trailers() {
        return Err(Declined::Request);
    }
    let decision = CacheDecision::hit(CacheResult::Hit, None);
    let (method, headers) = (request.method, request.headers);
    let responder = Responder { config, route, received, method, headers };
    let (status, length) = if responder.sends_whole(presence) {
        append_whole(&responder, form, decision, batch)?
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
    responder: &Responder<'_>,
    form: Representation<'_>,
    decision: CacheDecision,
    batch: &mut ResponseBatch,
) -> Result<(StatusCode, u64), Declined> {
    let (key, status, body) = (responder.head_key(form), form.stored.status, form.body_bytes());
    HEADS.with_borrow_mut(|heads| {
        let bytes = batch.head();
        if let Some(head) = heads.find(&key) {
            bytes.extend_from_slice(head);
            return Ok(());
        }
        let headers = responder.make_head(&form.stored.fields(), form, decision);
        let start = bytes.len();
        encode::response_head(bytes, (responder.method, status), &headers, body.len())
            .map_err(|encode::NotPlain| Declined::Request)?;
        if let Some(head) = bytes.get(start..) {
            heads.insert(key, head.into());
        }
        Ok(())
    })?;
    batch.push_body(body, || form.body());
    Ok((status, body.len() as u64))
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

//! Delivery: what the client gets, and how it is told where it came from.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    admit::is_chosen_by_cookies,
    body::{Body, BodyContent},
    config_snapshot::{ConfigSnapshot, ServerTiming},
    finish::{self, CacheOutcome, ReceivedAt, RequestAccounting},
    flight_result::StreamingResponse,
    head_cache,
    range_body::{RangeBody, detached_slice},
    tee::TeeReader,
};
use crate::{
    entry::StoredResponse,
    field::{
        Timestamp, common, list,
        presence::FieldPresence,
        range::{ByteRange, unsatisfied_content_range},
    },
    key::vary,
    origin::ResponseBody,
    policy::{
        CacheResult, CacheStatus, ForwardReason, Reason,
        cache_status::{CACHE_STATUS, Collapsed, Handling, StoreDecision, X_API_CACHE},
        cors, downstream, tag,
        validation::{self, Precondition, RangeOutcome},
    },
    problem::Problem,
    route::Route,
};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Fields that a delivery may add to a stored header section.
const ADDED: usize = 7;

/// What the client is told about where its response came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheDecision {
    /// What `X-API-Cache` says.
    pub result: CacheResult,
    /// Why the origin was asked, if it was.
    pub forward: Option<ForwardReason>,
    /// What it answered.
    pub origin_status: Option<StatusCode>,
    /// Whether the response is being stored.
    pub stored: StoreDecision,
    /// Whether the request waited for another's fetch.
    pub collapsed: Collapsed,
    /// The detail.
    pub reason: Option<Reason>,
}

impl CacheDecision {
    /// The origin was asked for this reason.
    pub(super) fn forwarded(
        result: CacheResult,
        forward: ForwardReason,
        reason: Option<Reason>,
    ) -> Self {
        let forward = Some(forward);
        Self {
            result,
            forward,
            origin_status: None,
            stored: StoreDecision::No,
            collapsed: Collapsed::No,
            reason,
        }
    }

    /// The store answered.
    pub(super) fn hit(result: CacheResult, reason: Option<Reason>) -> Self {
        let (forward, origin_status) = (None, None);
        Self {
            result,
            forward,
            origin_status,
            stored: StoreDecision::No,
            collapsed: Collapsed::No,
            reason,
        }
    }

    /// The same for a request that waited for another's fetch.
    pub(super) fn collapsed(self) -> Self {
        Self { collapsed: Collapsed::Yes, ..self }
    }

    fn outcome(self) -> CacheOutcome {
        CacheOutcome { result: self.result, reason: self.reason }
    }

    fn write(self, headers: &mut HeaderMap, ttl: Option<i64>) {
        let handling = match self.forward {
            None => Handling::Hit,
            Some(forward) => Handling::Forwarded {
                forward,
                status: self.origin_status,
                stored: self.stored,
                collapsed: self.collapsed,
            },
        };
        let status = CacheStatus { handling, ttl, detail: self.reason };
        headers.append(CACHE_STATUS, cached_value(status));
        headers.insert(X_API_CACHE, self.result.header_value());
    }
}

/// Values of `Cache-Status` that each thread remembers.
const CACHED_VALUES: usize = 16;

thread_local! {
    static VALUES: RefCell<Vec<(CacheStatus, HeaderValue)>> = const { RefCell::new(Vec::new()) };
}

/// The value of `Cache-Status`; of a response that is not stored it is one of a few, written once.
fn cached_value(status: CacheStatus) -> HeaderValue {
    if status.ttl.is_some() {
        return status.header_value();
    }
    VALUES.with_borrow_mut(|values| {
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == status) {
            return value.clone();
        }
        let value = status.header_value();
        if values.len() == CACHED_VALUES {
            values.clear();
        }
        values.push((status, value.clone()));
        value
    })
}

/// Answers with a fresh stored response. The hot path: nothing is awaited, cloned whole or locked.
pub(super) fn hit<B>(
    config: &ConfigSnapshot,
    route: usize,
    received: ReceivedAt,
    request: &Request<B>,
    (presence, stored): (FieldPresence, &StoredResponse),
) -> Response<Body> {
    let decision = CacheDecision::hit(CacheResult::Hit, None);
    let (method, headers) = (request.method(), request.headers());
    let responder = Responder { config, route, received, method, headers };
    let is_plain = !presence.has(FieldPresence::CONDITION.with(FieldPresence::RANGE))
        && *method == Method::GET
        && config.server_timing == ServerTiming::Off;
    let (head, content, length) = if is_plain {
        let length = stored.body_length();
        (response(stored.status, responder.hit_head(stored, decision)), full_body(stored), length)
    } else {
        responder.select_stored(stored, decision)
    };
    let status = head.status();
    finish::record_hit(config, route, received, request, (decision.outcome(), status, length));
    head.map(|()| Body::already_accounted(content))
}

/// Who is answered.
pub(super) struct Responder<'a> {
    /// The configuration in force.
    pub config: &'a ConfigSnapshot,
    /// The route's index.
    pub route: usize,
    /// When it asked.
    pub received: ReceivedAt,
    /// How.
    pub method: &'a Method,
    /// With which fields.
    pub headers: &'a HeaderMap,
}

impl Responder<'_> {
    /// Answers with a stored response, fresh or not.
    pub(super) fn stored(
        &self,
        response: &StoredResponse,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        let (head, content, _) = self.select_stored(response, decision);
        accounting.record_response(decision.outcome(), head.status());
        head.map(|()| Body::new(content, accounting))
    }

    /// Answers with a response that is on its way to the store. `headers` are those this client may
    /// see. A client that has this very representation already, or wants a range or the head alone, is
    /// spared the rest.
    pub(super) fn streaming(
        &self,
        streaming: &StreamingResponse,
        mut headers: HeaderMap,
        reader: TeeReader,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        let received = self.received.steady;
        let (status, content) = self.select_streaming(streaming.status, &mut headers, reader);
        if streaming.by_cookies {
            vary_by_cookie(&mut headers);
        }
        self.describe_passed(&mut headers, decision, Some(streaming.freshness.ttl(received)));
        accounting.record_response(decision.outcome(), status);
        response(status, headers).map(|()| Body::new(content, accounting))
    }

    /// Answers with what the origin sent to this client alone.
    pub(super) fn passed(
        &self,
        origin: Response<ResponseBody>,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        let (mut head, body) = origin.into_parts();
        self.describe_passed(&mut head.headers, decision, None);
        accounting.record_response(decision.outcome(), head.status);
        // For a `HEAD` that found something stored a `GET` was sent, and its answer has a body.
        let is_passed = *self.method != Method::HEAD || body.is_end_stream();
        let content =
            if is_passed { BodyContent::Origin(Box::new(body)) } else { BodyContent::Empty };
        Response::from_parts(head, Body::new(content, accounting))
    }

    /// Answers a write with what the origin sent, which is on its way to the store as well and stays fresh
    /// for `ttl` seconds.
    pub(super) fn written(
        &self,
        (status, mut headers): (StatusCode, HeaderMap),
        (reader, ttl): (TeeReader, i64),
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        self.describe_passed(&mut headers, decision, Some(ttl));
        accounting.record_response(decision.outcome(), status);
        response(status, headers).map(|()| Body::new(BodyContent::Tee(reader), accounting))
    }

    /// Answers with a problem document of Larder's own.
    pub(super) fn problem(
        &self,
        problem: Problem,
        decision: CacheDecision,
        accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        self.local(problem.into_response(), decision, accounting)
    }

    /// Answers with a response of Larder's own.
    pub(super) fn local(
        &self,
        mut response: Response<Bytes>,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<Body> {
        decision.write(response.headers_mut(), None);
        self.add_server_timing(response.headers_mut(), decision);
        accounting.record_response(decision.outcome(), response.status());
        response.map(|bytes| Body::new(BodyContent::Full(bytes), accounting))
    }

    fn route(&self) -> &Route {
        self.config.route(self.route)
    }

    fn describe_passed(&self, headers: &mut HeaderMap, decision: CacheDecision, ttl: Option<i64>) {
        headers.reserve(ADDED);
        let vary = &self.route().vary;
        if decision.result != CacheResult::Bypass && !vary.is_empty() {
            vary::add_to_vary(headers, vary.fields());
        }
        tag::strip(headers);
        headers.remove(SURROGATE_CONTROL);
        let is_stored =
            matches!(decision.stored, StoreDecision::Yes | StoreDecision::UnlessTooLong);
        if is_stored && let Some(value) = &self.route().client_cache {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        if decision.result != CacheResult::Bypass || is_stored {
            self.keep_private(headers);
        }
        cors::expose_headers(headers);
        decision.write(headers, ttl.filter(|_| is_stored));
        self.add_server_timing(headers, decision);
    }

    /// The head of a hit on all of a response; the same for everyone who asks within a second.
    fn hit_head(&self, stored: &StoredResponse, decision: CacheDecision) -> HeaderMap {
        let now = self.received.steady;
        let key = head_cache::HeadKey {
            response: stored.id,
            route: (self.config.id, self.route),
            age: stored.freshness.age_seconds(now),
            ttl: stored.freshness.ttl(now),
        };
        head_cache::get_or_make(key, || {
            let mut headers = stored.detached_fields().unpack(ADDED);
            // The server writes the length of a whole body by itself.
            headers.remove(header::CONTENT_LENGTH);
            self.describe_stored(stored, decision, now, &mut headers);
            for (name, value) in &mut headers {
                *value = common::interned(name, value.clone());
            }
            headers
        })
    }

    fn select_stored(
        &self,
        stored: &StoredResponse,
        decision: CacheDecision,
    ) -> (Response<()>, BodyContent, u64) {
        let now = self.received.steady;
        let mut headers = stored.fields().unpack(ADDED);
        let (status, content) = self.select(stored, &mut headers);
        self.describe_stored(stored, decision, now, &mut headers);
        let length = match &content {
            BodyContent::Full(bytes) => bytes.len() as u64,
            BodyContent::FullWithTrailers(both) => both.0.len() as u64,
            _ => 0,
        };
        (response(status, headers), content, length)
    }

    /// The same of a response that is on its way. A range of it can be told only where its length is
    /// known; otherwise all of it is the answer (RFC 9110 §14.2).
    fn select_streaming(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        reader: TeeReader,
    ) -> (StatusCode, BodyContent) {
        let precondition =
            validation::evaluate(self.headers, status, headers, self.received.steady);
        if precondition == Precondition::NotModified {
            validation::retain_for_not_modified(headers);
            return (StatusCode::NOT_MODIFIED, BodyContent::Empty);
        }
        if *self.method == Method::HEAD {
            return (status, BodyContent::Empty);
        }
        let Some(length) = reader.size_hint().exact() else {
            return (status, BodyContent::Tee(reader));
        };
        match validation::evaluate_range(self.headers, status, headers, length) {
            RangeOutcome::Full => (status, BodyContent::Tee(reader)),
            RangeOutcome::Partial(range) => {
                describe_part(headers, range, length);
                (StatusCode::PARTIAL_CONTENT, BodyContent::Range(RangeBody::new(reader, range)))
            }
            RangeOutcome::Unsatisfiable => {
                (describe_unsatisfied(headers, length), BodyContent::Empty)
            }
        }
    }

    /// What the request asks for of a stored response: all of it, a range, or only whether it changed.
    fn select(
        &self,
        stored: &StoredResponse,
        headers: &mut HeaderMap,
    ) -> (StatusCode, BodyContent) {
        let received = stored.freshness.received_at;
        let precondition = validation::evaluate(self.headers, stored.status, headers, received);
        if precondition == Precondition::NotModified {
            validation::retain_for_not_modified(headers);
            return (StatusCode::NOT_MODIFIED, BodyContent::Empty);
        }
        if *self.method == Method::HEAD {
            return (stored.status, BodyContent::HeadOnly(stored.body_length()));
        }
        let length = stored.body_length();
        match validation::evaluate_range(self.headers, stored.status, headers, length) {
            RangeOutcome::Full => {
                if stored.has_trailers() {
                    headers.remove(header::CONTENT_LENGTH);
                }
                (stored.status, full_body(stored))
            }
            RangeOutcome::Partial(range) => {
                describe_part(headers, range, length);
                (StatusCode::PARTIAL_CONTENT, BodyContent::Full(slice(&stored.body(), range)))
            }
            RangeOutcome::Unsatisfiable => {
                (describe_unsatisfied(headers, length), BodyContent::Empty)
            }
        }
    }

    fn describe_stored(
        &self,
        stored: &StoredResponse,
        decision: CacheDecision,
        now: Timestamp,
        headers: &mut HeaderMap,
    ) {
        headers.remove(SURROGATE_CONTROL);
        headers.insert(header::AGE, HeaderValue::from(stored.freshness.age_seconds(now)));
        if is_chosen_by_cookies(stored.key_text(), &stored.freshness) {
            vary_by_cookie(headers);
        }
        if let Some(value) = &self.route().client_cache {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        self.keep_private(headers);
        cors::expose_headers(headers);
        decision.write(headers, Some(stored.freshness.ttl(now)));
        self.add_server_timing(headers, decision);
    }

    /// Keeps what belongs to a partition out of the caches behind this one.
    fn keep_private(&self, headers: &mut HeaderMap) {
        if self.route().rule.partition.needs_identity() {
            downstream::make_private(headers);
        }
    }

    fn add_server_timing(&self, headers: &mut HeaderMap, decision: CacheDecision) {
        if self.config.server_timing == ServerTiming::Off {
            return;
        }
        let elapsed = self.received.started.elapsed();
        headers.append(SERVER_TIMING, server_timing(decision.result, elapsed));
    }
}

/// The whole body of a stored response, and its trailers.
fn full_body(stored: &StoredResponse) -> BodyContent {
    if stored.has_trailers() {
        BodyContent::FullWithTrailers(Box::new((stored.body(), stored.trailers())))
    } else {
        BodyContent::Full(stored.body())
    }
}

/// Tells caches behind this one that cookies choose the response.
fn vary_by_cookie(headers: &mut HeaderMap) {
    let says_so = list::members(headers, header::VARY)
        .any(|member| member == b"*" || member.eq_ignore_ascii_case(b"cookie"));
    if !says_so {
        headers.append(header::VARY, HeaderValue::from_static("Cookie"));
    }
}

fn describe_part(headers: &mut HeaderMap, range: ByteRange, length: u64) {
    headers.insert(header::CONTENT_RANGE, range.content_range(length));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.len()));
}

fn describe_unsatisfied(headers: &mut HeaderMap, length: u64) -> StatusCode {
    headers.insert(header::CONTENT_RANGE, unsatisfied_content_range(length));
    headers.remove(header::CONTENT_LENGTH);
    StatusCode::RANGE_NOT_SATISFIABLE
}

fn slice(body: &Bytes, range: ByteRange) -> Bytes {
    let first = usize::try_from(range.first()).unwrap_or(usize::MAX).min(body.len());
    let last = usize::try_from(range.last()).unwrap_or(usize::MAX);
    detached_slice(body, first..last.saturating_add(1).clamp(first, body.len()))
}

/// How long this node took, for the front end's tools.
fn server_timing(result: CacheResult, elapsed: std::time::Duration) -> HeaderValue {
    let millis = elapsed.as_secs_f64() * 1e3;
    let text = format!("cache;desc=\"{}\", larder;dur={millis:.2}", result.as_str());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("cache"))
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

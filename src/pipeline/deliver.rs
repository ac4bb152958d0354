//! Delivery: builds the response to the client, with the fields that describe the cache's decision.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    body::{BodyContent, DeliveredBody},
    body_slice::detached_slice,
    clock::ReceivedAt,
    config_snapshot::{ConfigSnapshot, ServerTiming},
    finish::{self, CacheOutcome, RequestAccounting},
    flight_result::StreamingResponse,
    head_cache::{HeadCache, HeadKey},
    observed_body::{BodyObserver, ObservedBody},
    range_body::RangeBody,
    received_request::ReceivedRequest,
    representation::{self, Representation},
    selecting_fields::is_chosen_by_cookies,
    tee::TeeReader,
};
use crate::{
    coding::coded_tag,
    entry::{PackedFields, StoredResponse},
    field::{
        Timestamp, coding, common, list,
        presence::FieldPresence,
        range::{ByteRange, unsatisfied_content_range},
    },
    key::vary,
    origin::ResponseBody,
    policy::{
        CacheResult, CacheStatus, ForwardReason, Reason,
        cache_status::{CACHE_STATUS, Collapsed, ResponseSource, StoredStatus, X_API_CACHE},
        cors, downstream, tag,
        validation::{self, PreconditionOutcome, RangeOutcome},
    },
    problem::Problem,
    route::Route,
};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Number of fields that delivery may add to a stored header section.
const ADDED: usize = 7;

/// The cache's decision about a request, as `Cache-Status` and `X-API-Cache` report it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheDecision {
    /// The value of `X-API-Cache`.
    pub result: CacheResult,
    /// Why the request was forwarded; `None` if it was not forwarded.
    pub forward: Option<ForwardReason>,
    /// The origin's status; `None` if the origin did not respond or was not contacted.
    pub origin_status: Option<StatusCode>,
    /// Whether the response is being stored.
    pub stored: StoredStatus,
    /// Whether the request shared the fetch of another request.
    pub collapsed: Collapsed,
    pub reason: Option<Reason>,
}

impl CacheDecision {
    /// Creates the decision for a request that was forwarded.
    pub(super) fn forwarded(
        result: CacheResult,
        forward: ForwardReason,
        reason: Option<Reason>,
    ) -> Self {
        Self { forward: Some(forward), ..Self::hit(result, reason) }
    }

    /// Creates the decision for a request that is answered from the store.
    pub(super) fn hit(result: CacheResult, reason: Option<Reason>) -> Self {
        let (forward, origin_status) = (None, None);
        let (stored, collapsed) = (StoredStatus::No, Collapsed::No);
        Self { result, forward, origin_status, stored, collapsed, reason }
    }

    /// Returns the decision, marked as collapsed.
    pub(super) fn collapsed(self) -> Self {
        Self { collapsed: Collapsed::Yes, ..self }
    }

    pub(super) fn outcome(self) -> CacheOutcome {
        CacheOutcome { result: self.result, reason: self.reason }
    }

    fn write(self, headers: &mut HeaderMap, ttl: Option<i64>) {
        let handling = match self.forward {
            None => ResponseSource::Hit,
            Some(forward) => ResponseSource::Forwarded {
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

/// Number of `Cache-Status` values that each thread remembers.
const CACHED_VALUES: usize = 16;

thread_local! {
    static VALUES: RefCell<Vec<(CacheStatus, HeaderValue)>> = const { RefCell::new(Vec::new()) };
    static HEADS: RefCell<HeadCache<HeaderMap>> = RefCell::new(HeadCache::new());
}

/// Returns the value of `Cache-Status`. Values without a TTL are few, so threads remember them.
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

/// Responds with a fresh stored response. The hot path: no await, no full copy, no lock.
pub(super) fn hit(
    config: &ConfigSnapshot,
    route: usize,
    received: ReceivedAt,
    request: &ReceivedRequest<'_>,
    (presence, form): (FieldPresence, Representation<'_>),
) -> Response<DeliveredBody> {
    let decision = CacheDecision::hit(CacheResult::Hit, None);
    let (method, headers) = (request.method, request.headers);
    let responder = Responder { config, route, received, method, headers };
    let (head, content, length) = responder.select_fresh((presence, form), decision);
    let status = head.status();
    finish::record_hit(config, route, received, request, (decision.outcome(), status, length));
    head.map(|()| DeliveredBody::already_accounted(content))
}

/// A request, with methods that build the response to it.
pub(super) struct Responder<'a> {
    pub config: &'a ConfigSnapshot,
    pub route: usize,
    pub received: ReceivedAt,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

impl Responder<'_> {
    /// Responds with a stored response, fresh or stale.
    pub(super) fn stored(
        &self,
        form: Representation<'_>,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        let (head, content, _) = self.select_stored(form, decision);
        accounting.record_response(decision.outcome(), head.status());
        head.map(|()| DeliveredBody::new(content, accounting))
    }

    /// Responds with a fresh stored response to a request that was already accounted for.
    pub(super) fn fresh(
        &self,
        (presence, form): (FieldPresence, Representation<'_>),
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        let (head, content, _) = self.select_fresh((presence, form), decision);
        accounting.record_response(decision.outcome(), head.status());
        head.map(|()| DeliveredBody::new(content, accounting))
    }

    /// Responds with a response that is still being stored; `headers` are the fields that this
    /// client may see.
    ///
    /// Sends no body if the client has the representation or requested only the head. Sends a part
    /// of the body for a range.
    pub(super) fn streaming(
        &self,
        streaming: &StreamingResponse,
        mut headers: HeaderMap,
        reader: TeeReader,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        let received = self.received.steady;
        if streaming.stored != StoredStatus::No {
            let length = reader.size_hint().exact();
            let head = (streaming.status, &mut headers);
            representation::announce_codings(self.route(), head, length);
        }
        let (status, content) = self.select_streaming(streaming.status, &mut headers, reader);
        if streaming.by_cookies {
            vary_by_cookie(&mut headers);
        }
        self.describe_passed(&mut headers, decision, Some(streaming.freshness.ttl(received)));
        accounting.record_response(decision.outcome(), status);
        response(status, headers).map(|()| DeliveredBody::new(content, accounting))
    }

    /// Responds with a response for this client only.
    pub(super) fn passed(
        &self,
        origin: Response<ResponseBody>,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        let (mut head, body) = origin.into_parts();
        self.describe_passed(&mut head.headers, decision, None);
        accounting.record_response(decision.outcome(), head.status);
        // A `HEAD` for a stored response was sent as a `GET`, so the origin's response has a body.
        let is_passed = *self.method != Method::HEAD || body.is_end_stream();
        let content = match body.into_whole() {
            _ if !is_passed => BodyContent::Empty,
            Ok(bytes) => BodyContent::Full(bytes),
            Err(body) => BodyContent::Origin(body),
        };
        Response::from_parts(head, DeliveredBody::new(content, accounting))
    }

    /// Responds with a response for this client only, and reports the end of its body.
    pub(super) fn observed(
        &self,
        origin: Response<ResponseBody>,
        observer: BodyObserver,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        let (mut head, body) = origin.into_parts();
        self.describe_passed(&mut head.headers, decision, None);
        accounting.record_response(decision.outcome(), head.status);
        let content = BodyContent::Observed(Box::new(ObservedBody::new(body, observer)));
        Response::from_parts(head, DeliveredBody::new(content, accounting))
    }

    /// Responds to a write with a response that is also being stored, and stays fresh for `ttl`
    /// seconds.
    pub(super) fn written(
        &self,
        (status, mut headers): (StatusCode, HeaderMap),
        (reader, ttl): (TeeReader, i64),
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        self.describe_passed(&mut headers, decision, Some(ttl));
        accounting.record_response(decision.outcome(), status);
        response(status, headers).map(|()| DeliveredBody::new(BodyContent::Tee(reader), accounting))
    }

    pub(super) fn problem(
        &self,
        problem: Problem,
        decision: CacheDecision,
        accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        self.local(problem.into_response(), decision, accounting)
    }

    /// Responds with a response that Larder generated.
    pub(super) fn local(
        &self,
        mut response: Response<Bytes>,
        decision: CacheDecision,
        mut accounting: Box<RequestAccounting>,
    ) -> Response<DeliveredBody> {
        decision.write(response.headers_mut(), None);
        self.add_server_timing(response.headers_mut(), decision);
        accounting.record_response(decision.outcome(), response.status());
        response.map(|bytes| DeliveredBody::new(BodyContent::Full(bytes), accounting))
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
        strip_fields_for_caches(headers);
        let is_stored = matches!(decision.stored, StoredStatus::Yes | StoredStatus::UnlessTooLong);
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

    /// Returns the head of a hit on a complete response. The head stays the same for a second.
    fn hit_head(&self, form: Representation<'_>, decision: CacheDecision) -> HeaderMap {
        HEADS.with_borrow_mut(|heads| {
            let key = self.head_key(form);
            if let Some(headers) = heads.find(&key) {
                return headers.clone();
            }
            let mut headers = self.make_head(&form.stored.detached_fields(), form, decision);
            for (name, value) in &mut headers {
                *value = common::interned(name, value.clone());
            }
            heads.insert(key, headers.clone());
            headers
        })
    }

    /// Returns the key under which the head of a hit on a complete response is cached.
    pub(super) fn head_key(&self, form: Representation<'_>) -> HeadKey {
        let (stored, now) = (form.stored, self.received.steady);
        HeadKey {
            response: stored.id,
            coding: form.coding(),
            route: (self.config.id, self.route),
            age: stored.freshness.age_seconds(now),
            ttl: stored.freshness.ttl(now),
        }
    }

    /// Makes the head of a hit on a complete response, from its stored fields.
    pub(super) fn make_head(
        &self,
        fields: &PackedFields,
        form: Representation<'_>,
        decision: CacheDecision,
    ) -> HeaderMap {
        let mut headers = fields.unpack(ADDED);
        // The server writes the length of a complete body itself.
        headers.remove(header::CONTENT_LENGTH);
        form.describe(self.route(), &mut headers);
        self.describe_stored(form.stored, decision, self.received.steady, &mut headers);
        headers
    }

    /// Returns whether a fresh stored response is sent as a whole, with a head that other requests
    /// also get.
    pub(super) fn sends_whole(&self, presence: FieldPresence) -> bool {
        !presence.has(FieldPresence::CONDITION.with(FieldPresence::RANGE))
            && *self.method != Method::HEAD
            && self.config.server_timing == ServerTiming::Off
    }

    /// Selects what to send from a fresh stored response: usually all of it, with a cached head.
    fn select_fresh(
        &self,
        (presence, form): (FieldPresence, Representation<'_>),
        decision: CacheDecision,
    ) -> (Response<()>, BodyContent, u64) {
        if !self.sends_whole(presence) {
            return self.select_stored(form, decision);
        }
        let head = response(form.stored.status, self.hit_head(form, decision));
        (head, full_body(form), form.body_length())
    }

    pub(super) fn select_stored(
        &self,
        form: Representation<'_>,
        decision: CacheDecision,
    ) -> (Response<()>, BodyContent, u64) {
        let now = self.received.steady;
        let mut headers = form.stored.fields().unpack(ADDED);
        form.describe(self.route(), &mut headers);
        let (status, content) = self.select(form, &mut headers);
        self.describe_stored(form.stored, decision, now, &mut headers);
        let length = match &content {
            BodyContent::Full(bytes) => bytes.len() as u64,
            BodyContent::FullWithTrailers(both) => both.0.len() as u64,
            _ => 0,
        };
        (response(status, headers), content, length)
    }

    /// Selects what to send from a streaming response. A range needs a known length; otherwise the
    /// whole body is sent (RFC 9110 §14.2).
    fn select_streaming(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        reader: TeeReader,
    ) -> (StatusCode, BodyContent) {
        let precondition = self.evaluate_precondition(status, headers, self.received.steady);
        if precondition == PreconditionOutcome::NotModified {
            let tag = headers.get(header::ETAG).cloned();
            self.describe_not_modified(headers, tag);
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

    /// Selects what to send from a stored response: the whole body, a range, or a `304`.
    fn select(
        &self,
        form: Representation<'_>,
        headers: &mut HeaderMap,
    ) -> (StatusCode, BodyContent) {
        let stored = form.stored;
        let received = stored.freshness.received_at;
        let precondition = self.evaluate_precondition(stored.status, headers, received);
        if precondition == PreconditionOutcome::NotModified {
            let tag = stored.fields().unpack(0).remove(header::ETAG);
            self.describe_not_modified(headers, tag);
            return (StatusCode::NOT_MODIFIED, BodyContent::Empty);
        }
        if *self.method == Method::HEAD {
            return (stored.status, BodyContent::HeadOnly(form.body_length()));
        }
        let length = form.body_length();
        match validation::evaluate_range(self.headers, stored.status, headers, length) {
            RangeOutcome::Full => {
                if stored.has_trailers() {
                    headers.remove(header::CONTENT_LENGTH);
                }
                (stored.status, full_body(form))
            }
            RangeOutcome::Partial(range) => {
                describe_part(headers, range, length);
                (StatusCode::PARTIAL_CONTENT, BodyContent::Full(slice(&form.body(), range)))
            }
            RangeOutcome::Unsatisfiable => {
                (describe_unsatisfied(headers, length), BodyContent::Empty)
            }
        }
    }

    /// Evaluates the client's conditions. If the client has a current copy in another coding that
    /// it accepts, the `304` carries the tag of that copy.
    fn evaluate_precondition(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        received_at: Timestamp,
    ) -> PreconditionOutcome {
        if self.route().encodes()
            && status == StatusCode::OK
            && let Some(tag) = coded_tag::confirmed(self.headers, headers.get(header::ETAG))
        {
            headers.insert(header::ETAG, tag);
            return PreconditionOutcome::NotModified;
        }
        validation::evaluate(self.headers, status, headers, received_at)
    }

    /// Turns a header section into that of a `304`. `tag` is the entity tag of the stored response.
    ///
    /// A client that sends a date does not say which form of the body it has. Its `304` carries the
    /// weak tag that all forms share, or no tag if the stored response has no tag.
    fn describe_not_modified(&self, headers: &mut HeaderMap, tag: Option<HeaderValue>) {
        validation::retain_for_not_modified(headers);
        if !self.route().encodes()
            || self.headers.contains_key(header::IF_NONE_MATCH)
            || !coding::is_negotiated(headers)
        {
            return;
        }
        match tag {
            Some(tag) => headers.insert(header::ETAG, coded_tag::shared_by_forms(tag)),
            None => headers.remove(header::ETAG),
        };
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

    /// Marks responses of a partition as private for downstream caches.
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

/// Removes the fields that an origin sends for caches on the path to it.
fn strip_fields_for_caches(headers: &mut HeaderMap) {
    // Most responses have none; one pass over the names detects this.
    if headers.keys().any(|name| tag::is_stripped(name) || *name == SURROGATE_CONTROL) {
        tag::strip(headers);
        headers.remove(SURROGATE_CONTROL);
    }
}

/// Returns the complete body of a stored response, with its trailers.
fn full_body(form: Representation<'_>) -> BodyContent {
    if form.stored.has_trailers() {
        BodyContent::FullWithTrailers(Box::new((form.body(), form.stored.trailers())))
    } else {
        BodyContent::Full(form.body())
    }
}

/// Adds `Vary: Cookie` for downstream caches.
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

/// Formats the time spent in this node as `Server-Timing`.
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

//! Delivery: what the client gets, and how it is told where it came from.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    admit::is_chosen_by_cookies,
    body::{Body, Content},
    fill::FillReader,
    finish::{self, Finish, Outcome, Received},
    heads,
    landing::Arriving,
    part::{Part, part_of},
    site::{ServerTiming, Site},
};
use crate::{
    entry::StoredResponse,
    field::{
        Timestamp, common, list,
        presence::Presence,
        range::{ByteRange, unsatisfied_content_range},
    },
    key::vary,
    origin::ResponseBody,
    policy::{
        CacheResult, CacheStatus, Forward, Reason,
        cache_status::{CACHE_STATUS, Collapsed, Handling, Stored, X_API_CACHE},
        downstream, exposed, tag,
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
pub struct Told {
    /// What `X-API-Cache` says.
    pub result: CacheResult,
    /// Why the origin was asked, if it was.
    pub forward: Option<Forward>,
    /// What it answered.
    pub origin_status: Option<StatusCode>,
    /// Whether the response is being stored.
    pub stored: Stored,
    /// Whether the request waited for another's fetch.
    pub collapsed: Collapsed,
    /// The detail.
    pub reason: Option<Reason>,
}

impl Told {
    /// The origin was asked for this reason.
    pub fn forwarded(result: CacheResult, forward: Forward, reason: Option<Reason>) -> Self {
        let forward = Some(forward);
        Self {
            result,
            forward,
            origin_status: None,
            stored: Stored::No,
            collapsed: Collapsed::No,
            reason,
        }
    }

    /// The store answered.
    pub fn hit(result: CacheResult, reason: Option<Reason>) -> Self {
        let (forward, origin_status) = (None, None);
        Self {
            result,
            forward,
            origin_status,
            stored: Stored::No,
            collapsed: Collapsed::No,
            reason,
        }
    }

    /// The same for a request that waited for another's fetch.
    pub fn collapsed(self) -> Self {
        Self { collapsed: Collapsed::Yes, ..self }
    }

    fn outcome(self) -> Outcome {
        Outcome { result: self.result, reason: self.reason }
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
        headers.append(CACHE_STATUS, remembered(status));
        headers.insert(X_API_CACHE, self.result.header_value());
    }
}

/// Values of `Cache-Status` that each thread remembers.
const REMEMBERED: usize = 16;

thread_local! {
    static VALUES: RefCell<Vec<(CacheStatus, HeaderValue)>> = const { RefCell::new(Vec::new()) };
}

/// The value of `Cache-Status`; of a response that is not stored it is one of a few, written once.
fn remembered(status: CacheStatus) -> HeaderValue {
    if status.ttl.is_some() {
        return status.header_value();
    }
    VALUES.with_borrow_mut(|values| {
        if let Some((_, value)) = values.iter().find(|(known, _)| *known == status) {
            return value.clone();
        }
        let value = status.header_value();
        if values.len() == REMEMBERED {
            values.clear();
        }
        values.push((status, value.clone()));
        value
    })
}

/// Answers with a fresh stored response. The hot path: nothing is awaited, cloned whole or locked.
pub fn hit<B>(
    site: &Site,
    route: usize,
    received: Received,
    request: &Request<B>,
    (presence, stored): (Presence, &StoredResponse),
) -> Response<Body> {
    let told = Told::hit(CacheResult::Hit, None);
    let (method, headers) = (request.method(), request.headers());
    let asker = Asker { site, route, received, method, headers };
    let is_plain = !presence.has(Presence::CONDITION.with(Presence::RANGE))
        && *method == Method::GET
        && site.server_timing == ServerTiming::Off;
    let (head, content, length) = if is_plain {
        let length = stored.body_length();
        (response(stored.status, asker.ready_head(stored, told)), all_of(stored), length)
    } else {
        asker.select_stored(stored, told)
    };
    let status = head.status();
    finish::at_once(site, route, received, request, (told.outcome(), status, length));
    head.map(|()| Body::accounted(content))
}

/// Who is answered.
pub struct Asker<'a> {
    /// The configuration in force.
    pub site: &'a Site,
    /// The route's index.
    pub route: usize,
    /// When it asked.
    pub received: Received,
    /// How.
    pub method: &'a Method,
    /// With which fields.
    pub headers: &'a HeaderMap,
}

impl Asker<'_> {
    /// Answers with a stored response, fresh or not.
    pub fn stored(
        &self,
        response: &StoredResponse,
        told: Told,
        mut finish: Box<Finish>,
    ) -> Response<Body> {
        let (head, content, _) = self.select_stored(response, told);
        finish.answered(told.outcome(), head.status());
        head.map(|()| Body::new(content, finish))
    }

    /// Answers with a response that is on its way to the store. `headers` are those this client may
    /// see. A client that has this very representation already, or wants a range or the head alone, is
    /// spared the rest.
    pub fn arriving(
        &self,
        arriving: &Arriving,
        mut headers: HeaderMap,
        reader: FillReader,
        told: Told,
        mut finish: Box<Finish>,
    ) -> Response<Body> {
        let received = self.received.steady;
        let (status, content) = self.select_arriving(arriving.status, &mut headers, reader);
        if arriving.by_cookies {
            vary_by_cookie(&mut headers);
        }
        self.describe_passed(&mut headers, told, Some(arriving.freshness.ttl(received)));
        finish.answered(told.outcome(), status);
        response(status, headers).map(|()| Body::new(content, finish))
    }

    /// Answers with what the origin sent to this client alone.
    pub fn passing(
        &self,
        origin: Response<ResponseBody>,
        told: Told,
        mut finish: Box<Finish>,
    ) -> Response<Body> {
        let (mut head, body) = origin.into_parts();
        self.describe_passed(&mut head.headers, told, None);
        finish.answered(told.outcome(), head.status);
        // For a `HEAD` that found something stored a `GET` was sent, and its answer has a body.
        let is_passed = *self.method != Method::HEAD || body.is_end_stream();
        let content = if is_passed { Content::Passing(Box::new(body)) } else { Content::Empty };
        Response::from_parts(head, Body::new(content, finish))
    }

    /// Answers a write with what the origin sent, which is on its way to the store as well and stays fresh
    /// for `ttl` seconds.
    pub fn written(
        &self,
        (status, mut headers): (StatusCode, HeaderMap),
        (reader, ttl): (FillReader, i64),
        told: Told,
        mut finish: Box<Finish>,
    ) -> Response<Body> {
        self.describe_passed(&mut headers, told, Some(ttl));
        finish.answered(told.outcome(), status);
        response(status, headers).map(|()| Body::new(Content::Filling(reader), finish))
    }

    /// Answers with a problem document of Larder's own.
    pub fn problem(&self, problem: Problem, told: Told, finish: Box<Finish>) -> Response<Body> {
        self.own(problem.into_response(), told, finish)
    }

    /// Answers with a response of Larder's own.
    pub fn own(
        &self,
        mut response: Response<Bytes>,
        told: Told,
        mut finish: Box<Finish>,
    ) -> Response<Body> {
        told.write(response.headers_mut(), None);
        self.time(response.headers_mut(), told);
        finish.answered(told.outcome(), response.status());
        response.map(|bytes| Body::new(Content::Whole(bytes), finish))
    }

    fn route(&self) -> &Route {
        self.site.route(self.route)
    }

    fn describe_passed(&self, headers: &mut HeaderMap, told: Told, ttl: Option<i64>) {
        headers.reserve(ADDED);
        let vary = &self.route().vary;
        if told.result != CacheResult::Bypass && !vary.is_empty() {
            vary::name_all(headers, vary.fields());
        }
        tag::strip(headers);
        headers.remove(SURROGATE_CONTROL);
        let is_stored = matches!(told.stored, Stored::Yes | Stored::UnlessTooLong);
        if is_stored && let Some(value) = &self.route().client_cache {
            headers.insert(header::CACHE_CONTROL, value.clone());
        }
        if told.result != CacheResult::Bypass || is_stored {
            self.keep_private(headers);
        }
        exposed::expose(headers);
        told.write(headers, ttl.filter(|_| is_stored));
        self.time(headers, told);
    }

    /// The head of a hit on all of a response; the same for everyone who asks within a second.
    fn ready_head(&self, stored: &StoredResponse, told: Told) -> HeaderMap {
        let now = self.received.steady;
        let of = heads::Of {
            response: stored.id,
            route: (self.site.id, self.route),
            age: stored.freshness.age_seconds(now),
            ttl: stored.freshness.ttl(now),
        };
        heads::ready(of, || {
            let mut headers = stored.detached_fields().unpack(ADDED);
            // The server writes the length of a whole body by itself.
            headers.remove(header::CONTENT_LENGTH);
            self.describe_stored(stored, told, now, &mut headers);
            for (name, value) in &mut headers {
                *value = common::interned(name, value.clone());
            }
            headers
        })
    }

    fn select_stored(&self, stored: &StoredResponse, told: Told) -> (Response<()>, Content, u64) {
        let now = self.received.steady;
        let mut headers = stored.fields().unpack(ADDED);
        let (status, content) = self.select(stored, &mut headers);
        self.describe_stored(stored, told, now, &mut headers);
        let length = match &content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Trailed(both) => both.0.len() as u64,
            _ => 0,
        };
        (response(status, headers), content, length)
    }

    /// The same of a response that is on its way. A range of it can be told only where its length is
    /// known; otherwise all of it is the answer (RFC 9110 §14.2).
    fn select_arriving(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        reader: FillReader,
    ) -> (StatusCode, Content) {
        let precondition =
            validation::evaluate(self.headers, status, headers, self.received.steady);
        if precondition == Precondition::NotModified {
            validation::retain_for_not_modified(headers);
            return (StatusCode::NOT_MODIFIED, Content::Empty);
        }
        if *self.method == Method::HEAD {
            return (status, Content::Empty);
        }
        let Some(length) = reader.size_hint().exact() else {
            return (status, Content::Filling(reader));
        };
        match validation::evaluate_range(self.headers, status, headers, length) {
            RangeOutcome::Full => (status, Content::Filling(reader)),
            RangeOutcome::Partial(range) => {
                describe_part(headers, range, length);
                (StatusCode::PARTIAL_CONTENT, Content::Part(Part::new(reader, range)))
            }
            RangeOutcome::Unsatisfiable => (describe_unsatisfied(headers, length), Content::Empty),
        }
    }

    /// What the request asks for of a stored response: all of it, a range, or only whether it changed.
    fn select(&self, stored: &StoredResponse, headers: &mut HeaderMap) -> (StatusCode, Content) {
        let received = stored.freshness.received_at;
        let precondition = validation::evaluate(self.headers, stored.status, headers, received);
        if precondition == Precondition::NotModified {
            validation::retain_for_not_modified(headers);
            return (StatusCode::NOT_MODIFIED, Content::Empty);
        }
        if *self.method == Method::HEAD {
            return (stored.status, Content::Described(stored.body_length()));
        }
        let length = stored.body_length();
        match validation::evaluate_range(self.headers, stored.status, headers, length) {
            RangeOutcome::Full => {
                if stored.has_trailers() {
                    headers.remove(header::CONTENT_LENGTH);
                }
                (stored.status, all_of(stored))
            }
            RangeOutcome::Partial(range) => {
                describe_part(headers, range, length);
                (StatusCode::PARTIAL_CONTENT, Content::Whole(slice(&stored.body(), range)))
            }
            RangeOutcome::Unsatisfiable => (describe_unsatisfied(headers, length), Content::Empty),
        }
    }

    fn describe_stored(
        &self,
        stored: &StoredResponse,
        told: Told,
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
        exposed::expose(headers);
        told.write(headers, Some(stored.freshness.ttl(now)));
        self.time(headers, told);
    }

    /// Keeps what belongs to a partition out of the caches behind this one.
    fn keep_private(&self, headers: &mut HeaderMap) {
        if self.route().rule.partition.needs_identity() {
            downstream::make_private(headers);
        }
    }

    fn time(&self, headers: &mut HeaderMap, told: Told) {
        if self.site.server_timing == ServerTiming::Off {
            return;
        }
        let elapsed = self.received.started.elapsed();
        headers.append(SERVER_TIMING, server_timing(told.result, elapsed));
    }
}

/// The whole body of a stored response, and its trailers.
fn all_of(stored: &StoredResponse) -> Content {
    if stored.has_trailers() {
        Content::Trailed(Box::new((stored.body(), stored.trailers())))
    } else {
        Content::Whole(stored.body())
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
    part_of(body, first..last.saturating_add(1).clamp(first, body.len()))
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

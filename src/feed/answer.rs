//! The calls of the feed: which there are, who may read the answers, and what they are.

use std::fmt::Write as _;

use aws_lc_rs::{digest, rand};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::json;

use super::{
    Body, Feed, Settings,
    listener::Listener,
    position::{Since, Unreadable, written},
};
use crate::{
    field::entity_tag::{EntityTag, ListMatch, match_weakly},
    problem::Problem,
};

/// What there is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Events,
    Sync,
    Version,
}

/// What a browser sends after a stream has ended, in the words of event streams.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// For how long a browser waits before it comes back, in milliseconds: at least the first, and less than
/// the second after it, so that those whom a node sends away do not come to the next all at once.
const RETRY: (u16, u16) = (1000, 4000);

impl Feed {
    /// Answers a request for the feed; none where the path is not one of the feed's.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let call = match request.uri().path() {
            "/_larder/events" => Call::Events,
            "/_larder/sync" => Call::Sync,
            "/_larder/version" => Call::Version,
            _ => return None,
        };
        let Some(settings) = self.hub.settings() else {
            return Some(off());
        };
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => self.call(call, request, &settings),
            Method::OPTIONS => preflight(),
            _ => wrong_method(),
        };
        response.headers_mut().insert(header::DATE, (self.now)().to_http_date());
        let origin = request.headers().get(header::ORIGIN);
        share(response.headers_mut(), &settings, origin, request.method());
        Some(response)
    }

    fn call<B>(&self, call: Call, request: &Request<B>, settings: &Settings) -> Response<Body> {
        let since = match Since::of_query(request.uri().query()) {
            Ok(since) => since,
            Err(Unreadable) => return unreadable(),
        };
        let is_head = request.method() == Method::HEAD;
        match call {
            Call::Events => {
                let since = of_header(request.headers()).or(since);
                let limit = if is_head { None } else { Some(settings.listeners) };
                self.events(since, limit)
            }
            Call::Sync => answer_document(self.sync(since), request),
            Call::Version => answer_document(self.version(), request),
        }
    }

    /// An event stream; without a limit on listeners only its head is wanted.
    fn events(&self, since: Option<Since>, limit: Option<usize>) -> Response<Body> {
        let body = match limit.map(|limit| self.hub.seat(limit)) {
            None => Empty::new().boxed_unsync(),
            Some(None) => {
                self.hub.metrics.feed.refused.inc();
                return busy("As many listen as may. Come back later, or ask `/_larder/sync`.");
            }
            Some(Some(seat)) => {
                let (place, first) = self.hub.begin(since, (self.now)());
                let first = format!("retry: {}\n\n{first}", retry());
                Listener::new(seat, place, first).into_body()
            }
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // What nginx takes as: do not collect this.
        let unbuffered = HeaderName::from_static("x-accel-buffering");
        headers.insert(unbuffered, HeaderValue::from_static("no"));
        response
    }

    /// What came since then; none before anything is known of a log.
    fn sync(&self, since: Option<Since>) -> Option<String> {
        let known = self.hub.since(since, (self.now)())?;
        let (seq, next, reset) = (known.place.seq, known.token(), known.events.is_none());
        let mut text =
            format!("{{\"seq\":{seq},\"next\":\"{next}\",\"reset\":{reset},\"purges\":[");
        for (number, event) in known.events.iter().flatten().enumerate() {
            text.push_str(if number == 0 { "" } else { "," });
            text.push_str(&String::from_utf8_lossy(event));
        }
        text.push_str("]}");
        Some(text)
    }

    /// How far the log and each data version are; none before anything is known of a log.
    fn version(&self) -> Option<String> {
        let place = self.hub.place()?;
        let poll = |version: super::Version| {
            let changed_at = version.changed_at.map(written);
            let state = json!({ "version": version.version, "changed_at": changed_at });
            (version.name.into_string(), state)
        };
        let polls: serde_json::Map<_, _> = (self.versions)().into_iter().map(poll).collect();
        Some(json!({ "seq": place.seq, "polls": polls }).to_string())
    }
}

/// The place that a browser was at when its stream ended. What it has from somebody else is no place.
fn of_header(headers: &HeaderMap) -> Option<Since> {
    let text = headers.get(LAST_EVENT_ID).filter(|text| !text.is_empty())?;
    Some(text.to_str().ok().and_then(Since::parse).unwrap_or(Since::Elsewhere))
}

/// A document with an entity tag of its own bytes, or that it is the one the client has.
fn answer_document<B>(document: Option<String>, request: &Request<B>) -> Response<Body> {
    let Some(document) = document else {
        return busy("The purge log has not been reached yet. Ask again in a moment.");
    };
    let tag = tag_of(document.as_bytes());
    let known =
        match_weakly(request.headers(), header::IF_NONE_MATCH, EntityTag::parse(tag.as_bytes()));
    let mut response = if known == ListMatch::Matches {
        let mut response = Response::new(Empty::new().boxed_unsync());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Full::new(Bytes::from(document)).boxed_unsync())
    };
    let headers = response.headers_mut();
    if known != ListMatch::Matches {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // A browser may keep it to ask whether it is still so, and for nothing else.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn tag_of(document: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, document);
    let mut tag = String::from("\"");
    for byte in digest.as_ref().iter().take(16) {
        let _infallible = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// Lets pages of allowed origins read an answer (Fetch standard, CORS protocol).
fn share(
    headers: &mut HeaderMap,
    settings: &Settings,
    origin: Option<&HeaderValue>,
    method: &Method,
) {
    let Some(allowed) = settings.origins.allow(origin) else {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        return;
    };
    if allowed != "*" {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if method != Method::OPTIONS {
        let fields = HeaderValue::from_static("Date, ETag, Retry-After");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fields);
        return;
    }
    let fields = HeaderValue::from_static("Cache-Control, If-None-Match, Last-Event-ID");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

fn preflight() -> Response<Body> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn wrong_method() -> Response<Body> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = refuse(status, "Wrong method", "This is read with GET.");
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn off() -> Response<Body> {
    let detail = "Nothing is told here: the configuration has no `[events]`.";
    refuse(StatusCode::NOT_FOUND, "No events", detail)
}

fn unreadable() -> Response<Body> {
    let detail = "`since` is a number or `next` of an earlier answer, or a time as in \
                  `2026-01-31T08:00:00Z`.";
    refuse(StatusCode::BAD_REQUEST, "Unreadable since", detail)
}

fn busy(detail: &'static str) -> Response<Body> {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, "Not now", detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn refuse(status: StatusCode, title: &'static str, detail: &'static str) -> Response<Body> {
    Problem::new(status, title, detail).into_response().map(|body| Full::new(body).boxed_unsync())
}

fn retry() -> u16 {
    let mut drawn = [0; 2];
    let _without_entropy = rand::fill(&mut drawn);
    RETRY.0 + u16::from_le_bytes(drawn) % RETRY.1
}

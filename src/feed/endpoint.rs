//! The endpoints of the feed: access control and responses.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::json;

use super::{
    Feed, FeedBody, Settings,
    listener::EventListener,
    position::{InvalidSince, ResumePosition, to_rfc3339},
    reader::{Caller, ListenerClient},
    slots::ListenerSlot,
};
use crate::{
    field::entity_tag::{EntityTag, ListMatch, match_weakly},
    policy::Reason,
    problem::Problem,
    user::PartitionMember,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedEndpoint {
    Events,
    Sync,
    Version,
}

/// The field that a browser sends when it resumes an event stream.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Reconnection delay of browsers in milliseconds: minimum, and random addition.
///
/// The addition spreads the reconnections of clients when a node shuts down.
const RETRY_MS: (u16, u16) = (1000, 4000);

impl Feed {
    /// Responds to a request for the feed. Returns `None` if the path is not one of its endpoints.
    pub fn respond<B>(&self, request: &Request<B>, caller: &Caller) -> Option<Response<FeedBody>> {
        let endpoint = match request.uri().path() {
            "/_larder/events" => FeedEndpoint::Events,
            "/_larder/sync" => FeedEndpoint::Sync,
            "/_larder/version" => FeedEndpoint::Version,
            _ => return None,
        };
        let Some(settings) = self.hub.settings() else {
            return Some(events_disabled());
        };
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => match self.user(request.headers(), caller, &settings) {
                Ok(user) => self.serve(endpoint, request, &settings, (caller, user)),
                Err(reason) => identity_required(reason),
            },
            Method::OPTIONS => preflight(),
            _ => wrong_method(),
        };
        let headers = response.headers_mut();
        headers.insert(header::DATE, (self.now)().to_http_date());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        let origin = request.headers().get(header::ORIGIN);
        add_cors_headers(response.headers_mut(), &settings, origin, request.method());
        Some(response)
    }

    /// Returns the user of a request, or `None` if the client sees only the public tags.
    ///
    /// Fails for an unidentified client if the feed shows no public tags.
    fn user(
        &self,
        headers: &HeaderMap,
        caller: &Caller,
        settings: &Settings,
    ) -> Result<Option<Arc<PartitionMember>>, Reason> {
        if !settings.has_user_tags() {
            return Ok(None);
        }
        match (self.identify)(headers, caller.peer) {
            Ok(user) => Ok(Some(user)),
            Err(reason) if settings.is_for_users_only() => Err(reason),
            Err(_) => Ok(None),
        }
    }

    fn serve<B>(
        &self,
        endpoint: FeedEndpoint,
        request: &Request<B>,
        settings: &Settings,
        (caller, user): (&Caller, Option<Arc<PartitionMember>>),
    ) -> Response<FeedBody> {
        let since = match ResumePosition::of_query(request.uri().query()) {
            Ok(since) => since,
            Err(InvalidSince) => return invalid_since(),
        };
        let is_head = request.method() == Method::HEAD;
        match endpoint {
            FeedEndpoint::Events => {
                let since = since_header(request.headers()).or(since);
                if is_head {
                    return stream(Empty::new().boxed_unsync());
                }
                let client = ListenerClient::of(caller, user.as_deref());
                let Some(slot) = self.hub.slots.take(settings, client, user.as_ref()) else {
                    self.hub.metrics.feed.refused.inc();
                    return unavailable(
                        "The limit of event streams is reached. Retry later, or poll `/_larder/sync`.",
                    );
                };
                // Checked again: now that the slot is taken, a revocation ends the stream. This
                // check catches an earlier revocation.
                match self.user(request.headers(), caller, settings) {
                    Ok(still) if still.is_some() == user.is_some() => self.events(since, slot),
                    Ok(_) => identity_required(Reason::Recheck),
                    Err(reason) => identity_required(reason),
                }
            }
            FeedEndpoint::Sync => document_response(self.sync(since, user.as_deref()), request),
            FeedEndpoint::Version => document_response(self.version(), request),
        }
    }

    /// Returns the event stream of a listener.
    fn events(&self, since: Option<ResumePosition>, slot: ListenerSlot) -> Response<FeedBody> {
        let now = (self.now)();
        let (position, first) = self.hub.begin(since, now);
        let first = format!("retry: {}\n\n{first}", random_retry_ms());
        let expires = slot.channel.as_ref().and_then(|channel| channel.user.expires);
        let left = expires.map(|expires| expires.saturating_since(now));
        stream(EventListener::new(Arc::clone(&self.hub), slot, position, first, left).into_body())
    }

    /// Returns the purges since a position as JSON, or `None` if no log is known yet.
    fn sync(
        &self,
        since: Option<ResumePosition>,
        user: Option<&PartitionMember>,
    ) -> Option<String> {
        let known = self.hub.backlog(since, (self.now)(), user)?;
        let (seq, next, reset) = (known.position.seq, known.token(), known.events.is_none());
        let mut text =
            format!("{{\"seq\":{seq},\"next\":\"{next}\",\"reset\":{reset},\"purges\":[");
        for (number, event) in known.events.iter().flatten().enumerate() {
            text.push_str(if number == 0 { "" } else { "," });
            text.push_str(&String::from_utf8_lossy(event));
        }
        text.push_str("]}");
        Some(text)
    }

    /// Returns the position and the data versions as JSON, or `None` if no log is known yet.
    fn version(&self) -> Option<String> {
        let position = self.hub.position()?;
        let poll = |version: super::DataVersion| {
            let changed_at = version.changed_at.map(to_rfc3339);
            let state = json!({ "version": version.version, "changed_at": changed_at });
            (version.name.into_string(), state)
        };
        let polls: serde_json::Map<_, _> = (self.versions)().into_iter().map(poll).collect();
        Some(json!({ "seq": position.seq, "polls": polls }).to_string())
    }
}

/// Returns the position in `Last-Event-ID`; `None` without the field. Returns `Foreign` for an id
/// that Larder did not send.
fn since_header(headers: &HeaderMap) -> Option<ResumePosition> {
    let text = headers.get(LAST_EVENT_ID).filter(|text| !text.is_empty())?;
    Some(text.to_str().ok().and_then(ResumePosition::parse).unwrap_or(ResumePosition::Foreign))
}

/// Responds with a document and its entity tag, or with 304 if the client already has the document.
/// Responds with 503 if `document` is `None`.
fn document_response<B>(document: Option<String>, request: &Request<B>) -> Response<FeedBody> {
    let Some(document) = document else {
        return unavailable("This node has not reached the purge log yet. Retry in a moment.");
    };
    let tag = etag_of(document.as_bytes());
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
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn etag_of(document: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, document);
    let digest = const_hex::encode(digest.as_ref().get(..16).unwrap_or_default());
    format!("\"{digest}\"")
}

/// Adds CORS headers for allowed origins (Fetch standard, CORS protocol).
fn add_cors_headers(
    headers: &mut HeaderMap,
    settings: &Settings,
    origin: Option<&HeaderValue>,
    method: &Method,
) {
    let Some(allowed) = settings.origins.allowed_origin(origin) else {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        return;
    };
    if allowed != "*" {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if allowed != "*" && settings.has_user_tags() {
        let credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if method != Method::OPTIONS {
        let fields = HeaderValue::from_static("Date, ETag, Retry-After");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, fields);
        return;
    }
    let fields = HeaderValue::from_static(ALLOWED_FIELDS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

const ALLOWED_FIELDS: &str = "Authorization, Cache-Control, If-None-Match, Last-Event-ID";

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

fn preflight() -> Response<FeedBody> {
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn wrong_method() -> Response<FeedBody> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = problem(status, "Wrong method", "Use GET.");
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn events_disabled() -> Response<FeedBody> {
    let detail = "Events are disabled: the configuration has no `[events]` section.";
    problem(StatusCode::NOT_FOUND, "Events disabled", detail)
}

fn invalid_since() -> Response<FeedBody> {
    let detail = "`since` is a number, `next` of an earlier response, or a time such as \
                  `2026-01-31T08:00:00Z`.";
    problem(StatusCode::BAD_REQUEST, "Invalid since", detail)
}

/// Returns an event stream with this body.
fn stream(body: FeedBody) -> Response<FeedBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Disables response buffering in nginx.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    headers.insert(unbuffered, HeaderValue::from_static("no"));
    response
}

fn identity_required(reason: Reason) -> Response<FeedBody> {
    let detail = match reason {
        Reason::UnverifiedToken => {
            "The token is expired, forged or from another issuer. Sign in again."
        }
        Reason::Recheck => {
            "The credential was revoked by a logout or a 401. Sign in again, and call the API before reconnecting."
        }
        _ => "Events require authentication. Send the token or cookie used for the API.",
    };
    let mut response = problem(StatusCode::UNAUTHORIZED, "Identity required", detail);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn unavailable(detail: &'static str) -> Response<FeedBody> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "Temporarily unavailable", detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn problem(status: StatusCode, title: &'static str, detail: &'static str) -> Response<FeedBody> {
    Problem::new(status, title, detail).into_response().map(|body| Full::new(body).boxed_unsync())
}

fn random_retry_ms() -> u16 {
    RETRY_MS.0 + fastrand::u16(..RETRY_MS.1)
}

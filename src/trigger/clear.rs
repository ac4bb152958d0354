//! `POST /_larder/clear`: purges all stored responses of the user who sends the request.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::purger::{Purger, json_response, receipt_status, unavailable_response};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    policy::Reason,
    problem::Problem,
    purge::{LogUnavailable, PurgeReceipt},
    user::PartitionMember,
};

/// The path of the endpoint.
pub(super) const PATH: &str = "/_larder/clear";

/// The minimum interval between two purges of a user. Requests during the interval share one purge.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The number of tracked users at which finished entries are removed.
const MAX_TRACKED_USERS: usize = 1024;

/// The field `X-Requested-With`. Forms cannot send it, and other origins' pages need a preflight.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The users with a clear request that is in progress or less than a second old.
#[derive(Default)]
pub(super) struct UserClearThrottle(Mutex<HashMap<Arc<str>, Arc<LastClear>>>);

/// The time and receipt of a user's last purge, locked while a purge is in progress.
#[derive(Default)]
struct LastClear(tokio::sync::Mutex<Option<(Instant, PurgeReceipt)>>);

/// A request to clear a user's responses. Does not contain the user.
pub(super) struct UserClearRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    /// Other origins whose pages may send clear requests.
    pub(super) origins: &'a [HeaderValue],
}

/// The result of the check against cross-site request forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginCheck {
    /// The request was sent by a page from the same host or an allowed origin, or by no page.
    Allowed,
    /// The request was sent by a page from another origin, or its origin is unknown.
    Forbidden,
}

impl UserClearRequest<'_> {
    /// Checks that the request was not forged by a page from another origin.
    ///
    /// Browsers attach cookies to forged requests, and a gateway may turn a cookie into a trusted
    /// field. Browsers never attach `Authorization` without a page's script.
    fn check_origin(&self) -> OriginCheck {
        let is_own = match self.headers.get(header::ORIGIN) {
            Some(origin) => self.is_same_host(origin) || self.origins.contains(origin),
            None => [header::AUTHORIZATION, REQUESTED_WITH]
                .iter()
                .any(|name| self.headers.contains_key(name)),
        };
        if is_own { OriginCheck::Allowed } else { OriginCheck::Forbidden }
    }

    fn is_same_host(&self, origin: &HeaderValue) -> bool {
        let host = self.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, name)| host == Some(name.as_bytes()))
    }

    /// Returns true if the browser should clear its own cache for this host as well.
    fn clears_browser(&self) -> bool {
        self.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "site_data=cache"))
    }

    /// Responds to the request. `user` is an error if the user could not be identified.
    pub(super) async fn respond(
        &self,
        user: Result<Arc<PartitionMember>, Reason>,
        (throttle, purger): (&UserClearThrottle, &Purger),
    ) -> Response<Bytes> {
        let mut response = match *self.method {
            Method::POST => self.clear(user, throttle, purger).await,
            Method::OPTIONS => preflight(),
            _ => wrong_method(),
        };
        self.add_cors_headers(response.headers_mut());
        response
    }

    async fn clear(
        &self,
        user: Result<Arc<PartitionMember>, Reason>,
        throttle: &UserClearThrottle,
        purger: &Purger,
    ) -> Response<Bytes> {
        let owner = match user.map(|user| user.owner.clone()) {
            Ok(Some(owner)) => owner,
            Ok(None) => return identity_required(Reason::NoIdentity),
            Err(reason) => return identity_required(reason),
        };
        if self.check_origin() == OriginCheck::Forbidden {
            return forbidden();
        }
        let Ok(receipt) = throttle.clear(&owner, purger).await else {
            return unavailable_response();
        };
        let nodes = serde_json::json!({ "applied": receipt.applied, "total": receipt.total });
        let document = serde_json::json!({ "seq": receipt.seq, "nodes": nodes });
        let mut response = json_response(receipt_status(&receipt), &document);
        if self.clears_browser() {
            let cache = HeaderValue::from_static("\"cache\"");
            response.headers_mut().insert(HeaderName::from_static("clear-site-data"), cache);
        }
        response
    }

    /// Allows pages of the listed origins to read the response (Fetch standard, CORS protocol), and
    /// forbids storing it.
    fn add_cors_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let origin = self.headers.get(header::ORIGIN);
        let Some(origin) = origin.filter(|origin| self.origins.contains(origin)) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
        if *self.method == Method::OPTIONS {
            let fields = HeaderValue::from_static("Authorization, X-Requested-With");
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        }
    }
}

impl UserClearThrottle {
    /// Purges all responses of an owner.
    ///
    /// A request that had to wait uses the last purge, if that purge began after the request
    /// arrived.
    async fn clear(
        &self,
        owner: &Arc<str>,
        purger: &Purger,
    ) -> Result<PurgeReceipt, LogUnavailable> {
        let arrived = Instant::now();
        let last_clear = self.entry(owner, arrived);
        let mut last = last_clear.0.lock().await;
        if let Some((started, receipt)) = last.as_ref() {
            if *started > arrived {
                return Ok(receipt.clone());
            }
            sleep_until(*started + MIN_INTERVAL).await;
        }
        let started = Instant::now();
        let receipt = purger.purge(purge_of_owner(owner)).await?;
        *last = Some((started, receipt.clone()));
        Ok(receipt)
    }

    fn entry(&self, owner: &Arc<str>, now: Instant) -> Arc<LastClear> {
        let mut entries = self.0.lock();
        if entries.len() >= MAX_TRACKED_USERS {
            entries.retain(|_, last_clear| last_clear.is_running(now));
        }
        Arc::clone(entries.entry(Arc::clone(owner)).or_default())
    }
}

impl LastClear {
    /// Returns whether a request uses the entry, or its [`MIN_INTERVAL`] has not elapsed.
    fn is_running(&self, now: Instant) -> bool {
        match self.0.try_lock() {
            Ok(last) => last.as_ref().is_some_and(|(started, _)| now < *started + MIN_INTERVAL),
            Err(_) => true,
        }
    }
}

fn purge_of_owner(owner: &str) -> Purge {
    let selectors = vec![Selector::User(owner.into())];
    Purge {
        mode: PurgeMode::Hard,
        selectors,
        source: PurgeSource::Clear,
        reason: None,
        warm: false,
    }
}

fn identity_required(reason: Reason) -> Response<Bytes> {
    let detail = match reason {
        Reason::UnverifiedToken => {
            "The token cannot be verified: it is expired, forged or of another issuer."
        }
        _ => {
            "Send the token or cookie that the API accepts: only the user's own responses are cleared."
        }
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "Identity required", detail);
    super::purge_method::with_bearer_challenge(problem.into_response())
}

fn forbidden() -> Response<Bytes> {
    let detail = "Pages of other origins may not clear stored responses. Send `X-Requested-With`, or list the page's origin in `events.allow_origins`.";
    Problem::new(StatusCode::FORBIDDEN, "Origin not allowed", detail).into_response()
}

fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn wrong_method() -> Response<Bytes> {
    let detail = "Use POST to clear stored responses.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{purge::PurgeLog, telemetry::Metrics, trigger::SelectorResolver};

    fn purger() -> (Arc<PurgeLog>, Purger) {
        let log = Arc::new(PurgeLog::in_memory());
        let resolver = SelectorResolver {
            normalize: Box::new(|_| vec![Selector::Everything]),
            owners: Box::new(|_, _| Vec::new()),
        };
        (Arc::clone(&log), Purger::new(log, Metrics::new(), resolver))
    }

    fn member() -> Arc<PartitionMember> {
        Arc::new(PartitionMember {
            partition_digest: [0; 16],
            owner: Some("owner".into()),
            user: Some("42".into()),
            issuer: "".into(),
            credential: 1,
            expires: None,
        })
    }

    async fn ask(
        (method, uri): (Method, &'static str),
        fields: &[(&'static str, &'static str)],
        user: Result<Arc<PartitionMember>, Reason>,
    ) -> (Response<Bytes>, Arc<PurgeLog>) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "api.test")].iter().chain(fields) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let (log, purger) = purger();
        let origins = [HeaderValue::from_static("https://app.test")];
        let uri = Uri::from_static(uri);
        let request =
            UserClearRequest { method: &method, uri: &uri, headers: &headers, origins: &origins };
        (request.respond(user, (&UserClearThrottle::default(), &purger)).await, log)
    }

    #[tokio::test]
    async fn a_user_clears_only_its_own_responses() {
        let fields = [("authorization", "Bearer x")];
        let (response, log) = ask((Method::POST, PATH), &fields, Ok(member())).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), r#"{"nodes":{"applied":1,"total":1},"seq":1}"#);
        assert_eq!(response.headers()["cache-control"], "private, no-store");
        assert!(!response.headers().contains_key("clear-site-data"));
        let purge = &log.recent_records()[0].purge;
        assert_eq!(purge.selectors, [Selector::User("owner".into())]);
        assert_eq!((&purge.source, purge.mode), (&PurgeSource::Clear, PurgeMode::Hard));
        let uri = "/_larder/clear?site_data=cache";
        let (response, _) = ask((Method::POST, uri), &fields, Ok(member())).await;
        assert_eq!(response.headers()["clear-site-data"], "\"cache\"");
    }

    #[tokio::test]
    async fn a_page_of_another_origin_clears_nothing() {
        for (fields, expected) in [
            (&[][..], 403),
            (&[("cookie", "session=x")], 403),
            (&[("cookie", "session=x"), ("origin", "https://evil.test")], 403),
            (&[("x-requested-with", "x"), ("origin", "https://evil.test")], 403),
            (&[("authorization", "Bearer x"), ("origin", "https://evil.test")], 403),
            (&[("origin", "null")], 403),
            (&[("origin", "https://app.test")], 200),
            (&[("origin", "https://api.test")], 200),
            (&[("x-requested-with", "x")], 200),
        ] {
            let (response, log) = ask((Method::POST, PATH), fields, Ok(member())).await;
            assert_eq!(response.status(), expected, "{fields:?}");
            assert_eq!(log.recent_records().len(), usize::from(expected == 200), "{fields:?}");
        }
    }

    #[tokio::test]
    async fn clearing_requires_an_identified_user_and_post() {
        let fields = [("authorization", "Bearer x")];
        for reason in [Reason::NoIdentity, Reason::UnverifiedToken, Reason::Recheck] {
            let (response, log) = ask((Method::POST, PATH), &fields, Err(reason)).await;
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert!(log.recent_records().is_empty());
        }
        let (response, _) = ask((Method::GET, PATH), &fields, Ok(member())).await;
        assert_eq!(
            (response.status(), &response.headers()["allow"]),
            (StatusCode::METHOD_NOT_ALLOWED, &METHODS)
        );
        let origin = [("origin", "https://app.test")];
        let (response, _) = ask((Method::OPTIONS, PATH), &origin, Err(Reason::NoIdentity)).await;
        assert_eq!(response.status(), 204);
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.test");
        assert_eq!(response.headers()["access-control-allow-credentials"], "true");
        assert_eq!(response.headers()["access-control-allow-methods"], "POST");
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_purges_once_a_second_and_each_request_is_covered() {
        let (log, purger) = purger();
        let (throttle, owner) = (UserClearThrottle::default(), Arc::from("owner"));
        let begun = Instant::now();
        assert_eq!(throttle.clear(&owner, &purger).await.unwrap().seq, 1);
        let each = (0..50).map(|_| throttle.clear(&owner, &purger));
        let receipts = futures_util::future::join_all(each).await;
        assert!(receipts.iter().all(|receipt| receipt.as_ref().unwrap().seq == 2));
        assert_eq!((log.recent_records().len(), begun.elapsed()), (2, MIN_INTERVAL));
        let other = Arc::from("other");
        assert_eq!(throttle.clear(&other, &purger).await.unwrap().seq, 3);
        assert_eq!(begun.elapsed(), MIN_INTERVAL, "others do not wait");
    }
}

//! `POST /_larder/clear`: a user makes invalid what is stored of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::purger::{Purger, json, status, unavailable};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    policy::Reason,
    problem::Problem,
    purge::{Receipt, Unavailable},
    user::Member,
};

/// Where it is asked for.
pub const PATH: &str = "/_larder/clear";

/// One user purges no more often than this: what is asked for in between is purged together.
const INTERVAL: Duration = Duration::from_secs(1);

/// Users remembered before those that are over are forgotten.
const MANY: usize = 1024;

/// A field that no form sends, and no page of another origin without leave.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Users who clear what is stored of theirs, or did so within the last second.
#[derive(Default)]
pub(super) struct Clearing(Mutex<HashMap<Arc<str>, Arc<Turn>>>);

/// One user's turn.
#[derive(Default)]
struct Turn(tokio::sync::Mutex<Option<(Instant, Receipt)>>);

/// What a request asks for, apart from who sends it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    /// Pages of which other origins may ask.
    pub(super) origins: &'a [HeaderValue],
}

/// Whether a page sent the request, and whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    /// One of this host or of an origin that is listed.
    Allowed,
    /// One of another origin, or nothing tells.
    Forbidden,
}

impl Asked<'_> {
    /// Whether another origin's page cannot have made a browser send this without its user's will.
    ///
    /// Browsers send cookies along, and some gateways make a field of them; they send no `Authorization` by
    /// themselves.
    fn page(&self) -> Page {
        let is_own = match self.headers.get(header::ORIGIN) {
            Some(origin) => self.is_same_host(origin) || self.origins.contains(origin),
            None => [header::AUTHORIZATION, REQUESTED_WITH]
                .iter()
                .any(|name| self.headers.contains_key(name)),
        };
        if is_own { Page::Allowed } else { Page::Forbidden }
    }

    fn is_same_host(&self, origin: &HeaderValue) -> bool {
        let host = self.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, name)| host == Some(name.as_bytes()))
    }

    /// Whether the browser is to drop what it keeps of this host, too.
    fn clears_browser(&self) -> bool {
        self.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "site_data=cache"))
    }

    /// Answers a request of this user, or of an unknown one.
    pub(super) async fn answer(
        &self,
        user: Result<Arc<Member>, Reason>,
        (clearing, purger): (&Clearing, &Purger),
    ) -> Response<Bytes> {
        let mut response = match *self.method {
            Method::POST => self.clear(user, clearing, purger).await,
            Method::OPTIONS => preflight(),
            _ => wrong_method(),
        };
        self.share(response.headers_mut());
        response
    }

    async fn clear(
        &self,
        user: Result<Arc<Member>, Reason>,
        clearing: &Clearing,
        purger: &Purger,
    ) -> Response<Bytes> {
        let owner = match user.map(|user| user.owner.clone()) {
            Ok(Some(owner)) => owner,
            Ok(None) => return unidentified(Reason::NoIdentity),
            Err(reason) => return unidentified(reason),
        };
        if self.page() == Page::Forbidden {
            return forbidden();
        }
        let Ok(receipt) = clearing.clear(&owner, purger).await else { return unavailable() };
        let nodes = serde_json::json!({ "applied": receipt.applied, "total": receipt.total });
        let document = serde_json::json!({ "seq": receipt.seq, "nodes": nodes });
        let mut response = json(status(&receipt), &document);
        if self.clears_browser() {
            let cache = HeaderValue::from_static("\"cache\"");
            response.headers_mut().insert(HeaderName::from_static("clear-site-data"), cache);
        }
        response
    }

    /// Lets pages of listed origins read the answer (Fetch standard, CORS protocol). Nobody stores it.
    fn share(&self, headers: &mut HeaderMap) {
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

impl Clearing {
    /// Purges what belongs to an owner. Requests that come while another waits share its purge, which begins
    /// after all of them came.
    async fn clear(&self, owner: &Arc<str>, purger: &Purger) -> Result<Receipt, Unavailable> {
        let came = Instant::now();
        let turn = self.turn(owner, came);
        let mut last = turn.0.lock().await;
        if let Some((began, receipt)) = last.as_ref() {
            if *began > came {
                return Ok(receipt.clone());
            }
            sleep_until(*began + INTERVAL).await;
        }
        let began = Instant::now();
        let receipt = purger.purge(of_owner(owner)).await?;
        *last = Some((began, receipt.clone()));
        Ok(receipt)
    }

    fn turn(&self, owner: &Arc<str>, now: Instant) -> Arc<Turn> {
        let mut turns = self.0.lock();
        if turns.len() >= MANY {
            turns.retain(|_, turn| turn.is_running(now));
        }
        Arc::clone(turns.entry(Arc::clone(owner)).or_default())
    }
}

impl Turn {
    /// Whether a request uses it, or its interval is not over.
    fn is_running(&self, now: Instant) -> bool {
        match self.0.try_lock() {
            Ok(last) => last.as_ref().is_some_and(|(began, _)| now < *began + INTERVAL),
            Err(_) => true,
        }
    }
}

fn of_owner(owner: &str) -> Purge {
    let selectors = vec![Selector::User(owner.into())];
    Purge { mode: Mode::Hard, selectors, source: Source::Clear, reason: None, warm: false }
}

fn unidentified(reason: Reason) -> Response<Bytes> {
    let detail = match reason {
        Reason::UnverifiedToken => {
            "The token cannot be verified: it is expired, forged or of another issuer."
        }
        _ => "Send the token or cookie that the API takes: what is cleared is the user's own.",
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "Identity required", detail);
    super::method::challenge(problem.into_response())
}

fn forbidden() -> Response<Bytes> {
    let detail = "A page of another origin may not clear what is stored. Send `X-Requested-With`, or list \
                  the page's origin in `events.allow_origins`.";
    Problem::new(StatusCode::FORBIDDEN, "Origin not allowed", detail).into_response()
}

fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

fn wrong_method() -> Response<Bytes> {
    let detail = "What is stored is cleared with POST.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{purge::Log, telemetry::Metrics, trigger::Resolver};

    fn purger() -> (Arc<Log>, Purger) {
        let log = Arc::new(Log::in_memory());
        let resolver = Resolver {
            normal: Box::new(|_| Selector::Everything),
            owners: Box::new(|_, _| Vec::new()),
        };
        (Arc::clone(&log), Purger::new(log, Metrics::new(), resolver))
    }

    fn member() -> Arc<Member> {
        Arc::new(Member {
            part: [0; 16],
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
        user: Result<Arc<Member>, Reason>,
    ) -> (Response<Bytes>, Arc<Log>) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "api.test")].iter().chain(fields) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let (log, purger) = purger();
        let origins = [HeaderValue::from_static("https://app.test")];
        let uri = Uri::from_static(uri);
        let asked = Asked { method: &method, uri: &uri, headers: &headers, origins: &origins };
        (asked.answer(user, (&Clearing::default(), &purger)).await, log)
    }

    #[tokio::test]
    async fn a_user_clears_what_is_its_own() {
        let fields = [("authorization", "Bearer x")];
        let (answer, log) = ask((Method::POST, PATH), &fields, Ok(member())).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body(), r#"{"nodes":{"applied":1,"total":1},"seq":1}"#);
        assert_eq!(answer.headers()["cache-control"], "private, no-store");
        assert!(!answer.headers().contains_key("clear-site-data"));
        let purge = &log.recent()[0].purge;
        assert_eq!(purge.selectors, [Selector::User("owner".into())]);
        assert_eq!((&purge.source, purge.mode), (&Source::Clear, Mode::Hard));
        let uri = "/_larder/clear?site_data=cache";
        let (answer, _) = ask((Method::POST, uri), &fields, Ok(member())).await;
        assert_eq!(answer.headers()["clear-site-data"], "\"cache\"");
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
            let (answer, log) = ask((Method::POST, PATH), fields, Ok(member())).await;
            assert_eq!(answer.status(), expected, "{fields:?}");
            assert_eq!(log.recent().len(), usize::from(expected == 200), "{fields:?}");
        }
    }

    #[tokio::test]
    async fn only_a_known_user_clears_and_only_with_post() {
        let fields = [("authorization", "Bearer x")];
        for reason in [Reason::NoIdentity, Reason::UnverifiedToken, Reason::Recheck] {
            let (answer, log) = ask((Method::POST, PATH), &fields, Err(reason)).await;
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert!(log.recent().is_empty());
        }
        let (answer, _) = ask((Method::GET, PATH), &fields, Ok(member())).await;
        assert_eq!(
            (answer.status(), &answer.headers()["allow"]),
            (StatusCode::METHOD_NOT_ALLOWED, &METHODS)
        );
        let origin = [("origin", "https://app.test")];
        let (answer, _) = ask((Method::OPTIONS, PATH), &origin, Err(Reason::NoIdentity)).await;
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.test");
        assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
        assert_eq!(answer.headers()["access-control-allow-methods"], "POST");
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_purges_once_a_second_and_each_request_is_covered() {
        let (log, purger) = purger();
        let (clearing, owner) = (Clearing::default(), Arc::from("owner"));
        let begun = Instant::now();
        assert_eq!(clearing.clear(&owner, &purger).await.unwrap().seq, 1);
        let each = (0..50).map(|_| clearing.clear(&owner, &purger));
        let receipts = futures_util::future::join_all(each).await;
        assert!(receipts.iter().all(|receipt| receipt.as_ref().unwrap().seq == 2));
        assert_eq!((log.recent().len(), begun.elapsed()), (2, INTERVAL));
        let other = Arc::from("other");
        assert_eq!(clearing.clear(&other, &purger).await.unwrap().seq, 3);
        assert_eq!(begun.elapsed(), INTERVAL, "others do not wait");
    }
}

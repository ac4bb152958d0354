//! The admin listener: health, metrics and, on one route table, everything an operator calls.

mod auth;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

pub use auth::{Access, Token, Tokens};

use crate::{
    problem::Problem,
    server::{Connection, Handler},
    telemetry::Metrics,
};

/// What answers on the admin listener.
pub struct Admin {
    tokens: Tokens,
    metrics: Arc<Metrics>,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    refresh: Box<dyn Fn() + Send + Sync>,
}

/// Whether this node should be sent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It should.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
}

/// One thing an operator can call.
struct Call {
    method: Method,
    paths: &'static [&'static str],
    access: Access,
    answer: fn(&Admin) -> Response<Bytes>,
}

/// Every call there is. `HEAD` is answered wherever `GET` is.
const CALLS: &[Call] = &[
    Call { method: Method::GET, paths: &["/livez"], access: Access::Open, answer: live },
    Call {
        method: Method::GET,
        paths: &["/readyz", "/healthz", "/health"],
        access: Access::Open,
        answer: Admin::ready,
    },
    Call { method: Method::GET, paths: &["/metrics"], access: Access::Read, answer: Admin::expose },
];

impl Admin {
    /// An admin surface. `refresh` is called before metrics are read, for those that are sampled.
    pub fn new(
        tokens: Tokens,
        metrics: Arc<Metrics>,
        readiness: impl Fn() -> Readiness + Send + Sync + 'static,
        refresh: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (readiness, refresh) = (Box::new(readiness), Box::new(refresh));
        Self { tokens, metrics, readiness, refresh }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Bytes> {
        let path = request.uri().path();
        let mut calls = CALLS.iter().filter(|call| call.paths.contains(&path)).peekable();
        if calls.peek().is_none() {
            let detail = "The admin listener has GET /livez, /readyz and /metrics.";
            return Problem::new(StatusCode::NOT_FOUND, "No such call", detail).into_response();
        }
        let wanted = match *request.method() {
            Method::HEAD => &Method::GET,
            ref other => other,
        };
        let Some(call) = calls.find(|call| call.method == *wanted) else {
            let detail = "This call takes GET.";
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
            return with_header(problem.into_response(), header::ALLOW, "GET, HEAD");
        };
        if !self.tokens.permit(call.access, request.headers()) {
            let detail = "Send `Authorization: Bearer` with an admin token that may do this.";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "Token required", detail);
            return with_header(problem.into_response(), header::WWW_AUTHENTICATE, "Bearer");
        }
        (call.answer)(self)
    }

    fn ready(&self) -> Response<Bytes> {
        match (self.readiness)() {
            Readiness::Ready => text(StatusCode::OK, "ready\n"),
            Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }

    fn expose(&self) -> Response<Bytes> {
        (self.refresh)();
        let response = Response::new(Bytes::from(self.metrics.render()));
        with_header(response, header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
    }
}

impl Handler for Admin {
    type Body = Full<Bytes>;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        _connection: &Arc<Connection>,
    ) -> Response<Full<Bytes>> {
        self.answer(&request).map(Full::new)
    }
}

fn live(_: &Admin) -> Response<Bytes> {
    text(StatusCode::OK, "ok\n")
}

fn text(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    with_header(response, header::CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with_header(
    mut response: Response<Bytes>,
    name: header::HeaderName,
    value: &'static str,
) -> Response<Bytes> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(tokens: Tokens) -> Admin {
        Admin::new(tokens, Metrics::new(), || Readiness::Ready, || {})
    }

    fn ask(admin: &Admin, method: Method, path: &str, token: Option<&str>) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        admin.answer(&request.body(()).unwrap())
    }

    #[test]
    fn every_call_but_health_needs_the_token_where_there_is_one() {
        let admin = admin(Tokens::new(vec![Token::all("secret")]));
        for call in CALLS {
            for path in call.paths {
                let status = |token| ask(&admin, call.method.clone(), path, token).status();
                let without = match call.access {
                    Access::Open => StatusCode::OK,
                    Access::Read | Access::Purge => StatusCode::UNAUTHORIZED,
                };
                assert_eq!(status(None), without, "{path}");
                assert_eq!(status(Some("wrong")), without, "{path}");
                assert_eq!(status(Some("secret")), StatusCode::OK, "{path}");
            }
        }
    }

    #[test]
    fn what_it_does_not_have_it_says_as_a_problem_document() {
        let admin = admin(Tokens::new(Vec::new()));
        assert_eq!(ask(&admin, Method::GET, "/nothing", None).status(), StatusCode::NOT_FOUND);
        let wrong = ask(&admin, Method::POST, "/metrics", None);
        assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(wrong.headers()["content-type"], "application/problem+json");
    }
}

//! `GET /livez`, `/readyz`, `/metrics` and `/v1/shadow`.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::services::{AdminServices, Readiness, ReadinessReport};

pub(super) fn liveness() -> Response<Bytes> {
    text_response(StatusCode::OK, "ok\n")
}

pub(super) fn readiness(services: &AdminServices) -> Response<Bytes> {
    let ReadinessReport { readiness, details } = (services.readiness)();
    let (status, word) = match readiness {
        Readiness::Ready => (StatusCode::OK, "ready"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let lines = [word].into_iter().chain(details.iter().map(String::as_str));
    text_response(status, lines.flat_map(|line| [line, "\n"]).collect::<String>())
}

pub(super) fn metrics(services: &AdminServices) -> Response<Bytes> {
    (services.refresh)();
    let mut response = Response::new(Bytes::from(services.purger.metrics().render()));
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

/// Responds with the results of shadow mode and audits.
pub(super) fn verification(services: &AdminServices) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from((services.verification)()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn text_response(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

//! The sample API behind the demo: a small shop with realistic delays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use crate::server::{Connection, Handler, Incoming};

/// A slow API that counts its requests.
#[derive(Debug, Default)]
pub(super) struct SampleApi {
    requests: AtomicU64,
    price: AtomicU64,
}

/// A response of the sample API and its delay.
struct SampleResponse {
    latency: Duration,
    body: String,
    cache_control: Option<&'static str>,
    etag: Option<String>,
}

impl SampleApi {
    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn respond(&self, method: &Method, path: &str) -> Option<SampleResponse> {
        let price = 1999 + self.price.load(Ordering::Relaxed);
        let sample = match (method, path) {
            (&Method::GET, "/sales/summary") => SampleResponse {
                latency: Duration::from_millis(900),
                body: r#"{"revenue":128450.25,"orders":1893,"currency":"EUR"}"#.to_owned(),
                cache_control: Some("max-age=5, stale-while-revalidate=60"),
                etag: None,
            },
            (&Method::GET, "/products/1") => SampleResponse {
                latency: Duration::from_millis(250),
                body: format!(r#"{{"id":1,"name":"Oak shelf","price_cents":{price}}}"#),
                cache_control: Some("no-cache"),
                etag: Some(format!("\"price-{price}\"")),
            },
            (&Method::PUT, "/products/1") => {
                self.price.fetch_add(100, Ordering::Relaxed);
                SampleResponse {
                    latency: Duration::from_millis(100),
                    body: r#"{"saved":true}"#.to_owned(),
                    cache_control: None,
                    etag: None,
                }
            }
            (&Method::GET, "/cart") => SampleResponse {
                latency: Duration::from_millis(150),
                body: r#"{"items":[]}"#.to_owned(),
                cache_control: Some("private"),
                etag: None,
            },
            (&Method::GET, tile) if tile.starts_with("/dashboard/tiles/") => SampleResponse {
                latency: Duration::from_millis(400),
                body: format!(r#"{{"tile":"{}","value":42}}"#, tile.escape_default()),
                cache_control: None,
                etag: None,
            },
            _ => return None,
        };
        Some(sample)
    }
}

impl Handler for SampleApi {
    type Body = Full<Bytes>;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        _connection: &Arc<Connection>,
    ) -> Response<Full<Bytes>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(sample) = self.respond(request.method(), request.uri().path()) else {
            let mut response = Response::new(Full::from(r#"{"error":"no such resource"}"#));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let etag = sample.etag.and_then(|etag| HeaderValue::try_from(etag).ok());
        if etag.is_some() && request.headers().get(header::IF_NONE_MATCH) == etag.as_ref() {
            return not_modified(etag);
        }
        tokio::time::sleep(sample.latency).await;
        let mut response = Response::new(Full::from(sample.body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = sample.cache_control {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        response
    }
}

fn not_modified(etag: Option<HeaderValue>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

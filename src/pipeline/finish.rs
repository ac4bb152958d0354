//! The end of a request: one metric update and one access-log line.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};

use super::{
    clock::ReceivedAt, config_snapshot::ConfigSnapshot, ingress::requested_host,
    received_request::ReceivedRequest, request_context::RequestContext, sensitive::shown_path,
    state::Pipeline,
};
use crate::{
    forward::request_id::{self, RequestId},
    key::uri::{PathReadings, Scheme, host},
    policy::{CacheResult, Reason},
    telemetry::{AccessLogEntry, RequestObservation},
};

/// Status in the access log if the client disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What the cache did with a request, for clients and operators.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheOutcome {
    /// The value of `X-API-Cache`.
    pub result: CacheResult,
    /// Why the request was not a hit; `None` for a hit.
    pub reason: Option<Reason>,
}

/// The accounting of a request in progress. It reports the request when dropped: at the end of the
/// response body, or when the client disconnects.
pub(crate) struct RequestAccounting {
    config: Arc<ConfigSnapshot>,
    route: usize,
    received: ReceivedAt,
    outcome: CacheOutcome,
    status: Option<StatusCode>,
    bytes: u64,
    logged: Option<Box<LoggedRequest>>,
}

/// The parts of a request that the access log needs. They are kept only if there is a log.
struct LoggedRequest {
    request_id: String,
    method: Method,
    host: String,
    path: String,
}

impl RequestAccounting {
    /// Starts accounting for a request.
    pub(super) fn begin<S>(context: &RequestContext<S>) -> Self {
        let RequestContext { config, route, received, request, .. } = context;
        let (config, route, received) = (Arc::clone(config), *route, *received);
        let logged = config.access_log.is_some().then(|| {
            Box::new(LoggedRequest {
                request_id: context.request_id().to_owned(),
                method: request.method.clone(),
                host: requested_host(&request.headers).to_owned(),
                path: shown_path(config.route(route), request.uri.path()).into_owned(),
            })
        });
        let outcome = CacheOutcome { result: CacheResult::Bypass, reason: None };
        Self { config, route, received, outcome, status: None, bytes: 0, logged }
    }

    /// Records the response that the client receives.
    pub(crate) fn record_response(&mut self, outcome: CacheOutcome, status: StatusCode) {
        self.outcome = outcome;
        self.status = Some(status);
    }

    pub(crate) fn record_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for RequestAccounting {
    fn drop(&mut self) {
        let observation = observation(self.outcome, self.status, self.bytes, self.received);
        if let Some(metrics) = self.config.metrics.get(self.route) {
            metrics.observe(&observation);
        }
        let (Some(log), Some(logged)) = (&self.config.access_log, &self.logged) else { return };
        log.write(&AccessLogEntry {
            at: self.received.at,
            request_id: &logged.request_id,
            method: Some(&logged.method),
            host: &logged.host,
            path: &logged.path,
            route: self.config.route_name(self.route),
            status: self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16()),
            bytes: self.bytes,
            duration: observation.duration,
            cache: Some(self.outcome.result),
            reason: self.outcome.reason.map(Reason::as_str),
        });
    }
}

/// Reports a request whose complete response is available. Borrows everything, since this is the
/// hot path.
pub(super) fn record_hit(
    config: &ConfigSnapshot,
    route: usize,
    received: ReceivedAt,
    request: &ReceivedRequest<'_>,
    (outcome, status, bytes): (CacheOutcome, StatusCode, u64),
) {
    let observation = observation(outcome, Some(status), bytes, received);
    if let Some(metrics) = config.metrics.get(route) {
        metrics.observe(&observation);
    }
    let Some(log) = &config.access_log else { return };
    let made;
    let request_id = if let Some(id) = request_id::from_headers(request.headers) {
        id
    } else {
        made = RequestId::random();
        made.as_str()
    };
    log.write(&AccessLogEntry {
        at: received.at,
        request_id,
        method: Some(request.method),
        host: requested_host(request.headers),
        path: &shown_path(config.route(route), request.path),
        route: config.route_name(route),
        status: status.as_u16(),
        bytes,
        duration: observation.duration,
        cache: Some(outcome.result),
        reason: outcome.reason.map(Reason::as_str),
    });
}

/// The response to a request that never reached the pipeline: the server refused it, or an endpoint
/// of Larder answered it.
#[derive(Debug)]
pub(crate) struct LocalResponse<'a> {
    /// The request's `X-Request-ID`; `None` if it is not usable.
    pub request_id: Option<&'a str>,
    /// The method; `None` if the request could not be parsed.
    pub method: Option<&'a Method>,
    pub host: &'a str,
    pub path: &'a str,
    /// The name of the endpoint; empty if there is none.
    pub route: &'a str,
    pub status: StatusCode,
    pub bytes: u64,
    pub duration: Duration,
    pub reason: Option<&'static str>,
}

impl<S> Pipeline<S> {
    /// Writes the access-log line of a request that did not reach the pipeline.
    pub(crate) fn log_local_response(&self, response: &LocalResponse<'_>) {
        let log = self.config.with(|config| {
            let log = config.access_log.clone()?;
            // Paths of sensitive routes are never logged.
            let host = host::canonical(response.host, Scheme::Http);
            let path = PathReadings::of(response.path);
            let route = config.routes.select_loosest(&Method::GET, &host, &path).route;
            Some((log, shown_path(route, response.path).into_owned()))
        });
        let Some((log, path)) = log else { return };
        let made = RequestId::random();
        log.write(&AccessLogEntry {
            at: self.clock.now(),
            request_id: response.request_id.unwrap_or(made.as_str()),
            method: response.method,
            host: response.host,
            path: &path,
            route: response.route,
            status: response.status.as_u16(),
            bytes: response.bytes,
            duration: response.duration,
            cache: None,
            reason: response.reason,
        });
    }
}

fn observation(
    outcome: CacheOutcome,
    status: Option<StatusCode>,
    bytes: u64,
    received: ReceivedAt,
) -> RequestObservation {
    let duration = received.started.elapsed();
    RequestObservation { result: outcome.result, reason: outcome.reason, status, bytes, duration }
}

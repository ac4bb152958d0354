//! The end of a request: one metric update and one access-log line, whatever became of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Request, StatusCode, header};

use super::{Pipeline, clock::Clock, sensitive::shown_path, site::Site};
use crate::{
    field::Timestamp,
    forward::request_id::{self, RequestId},
    key::target::{Readings, Scheme, host},
    policy::{CacheResult, Reason},
    telemetry::{Line, Observation},
};

/// The status that stands in the access log where the client went away before there was one, as in
/// nginx's.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// When a request's head had been read, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// By the system's clock.
    pub at: Timestamp,
    /// By the monotonic clock.
    pub started: Instant,
    /// The same as a timestamp: by the node's own clock, by which what is stored grows older.
    pub steady: Timestamp,
}

impl Received {
    /// Now.
    pub fn now(clock: &Clock) -> Self {
        let started = Instant::now();
        Self { at: clock.now(), started, steady: clock.steady_at(started) }
    }
}

/// What became of a request, as far as clients and operators are told.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What `X-API-Cache` says.
    pub result: CacheResult,
    /// Why it was not a hit.
    pub reason: Option<Reason>,
}

/// A request under way. Reports it when dropped: at the end of its response's body, or when its client
/// goes away.
pub struct Finish {
    site: Arc<Site>,
    route: usize,
    received: Received,
    outcome: Outcome,
    status: Option<StatusCode>,
    bytes: u64,
    logged: Option<Box<Logged>>,
}

/// What the access log needs of the request's head, kept only where there is a log.
struct Logged {
    request_id: String,
    method: Method,
    host: String,
    path: String,
}

impl Finish {
    /// Begins to account for a request.
    pub fn begin<B>(
        site: Arc<Site>,
        route: usize,
        received: Received,
        request: &Request<B>,
    ) -> Self {
        let logged = site.access_log.is_some().then(|| {
            Box::new(Logged {
                request_id: request_id::usable(request.headers()).unwrap_or_default().to_owned(),
                method: request.method().clone(),
                host: asked_host(request.headers()).to_owned(),
                path: shown_path(site.route(route), request.uri().path()).into_owned(),
            })
        });
        let outcome = Outcome { result: CacheResult::Bypass, reason: None };
        Self { site, route, received, outcome, status: None, bytes: 0, logged }
    }

    /// Notes what the client is told.
    pub fn answered(&mut self, outcome: Outcome, status: StatusCode) {
        self.outcome = outcome;
        self.status = Some(status);
    }

    /// Counts body bytes.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let observation = observation(self.outcome, self.status, self.bytes, self.received);
        if let Some(metrics) = self.site.metrics.get(self.route) {
            metrics.observe(&observation);
        }
        let (Some(log), Some(logged)) = (&self.site.access_log, &self.logged) else { return };
        log.write(&Line {
            at: self.received.at,
            request_id: &logged.request_id,
            method: Some(&logged.method),
            host: &logged.host,
            path: &logged.path,
            route: self.site.route_name(self.route),
            status: self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16()),
            bytes: self.bytes,
            duration: observation.duration,
            cache: Some(self.outcome.result),
            reason: self.outcome.reason.map(Reason::as_str),
        });
    }
}

/// Reports a request whose whole response is at hand. The hot path: borrows everything.
pub fn at_once<B>(
    site: &Site,
    route: usize,
    received: Received,
    request: &Request<B>,
    (outcome, status, bytes): (Outcome, StatusCode, u64),
) {
    let observation = observation(outcome, Some(status), bytes, received);
    if let Some(metrics) = site.metrics.get(route) {
        metrics.observe(&observation);
    }
    let Some(log) = &site.access_log else { return };
    let made;
    let request_id = if let Some(id) = request_id::usable(request.headers()) {
        id
    } else {
        made = RequestId::random();
        made.as_str()
    };
    log.write(&Line {
        at: received.at,
        request_id,
        method: Some(request.method()),
        host: asked_host(request.headers()),
        path: &shown_path(site.route(route), request.uri().path()),
        route: site.route_name(route),
        status: status.as_u16(),
        bytes,
        duration: observation.duration,
        cache: Some(outcome.result),
        reason: outcome.reason.map(Reason::as_str),
    });
}

/// A request that never reached the pipeline: the server refused it, or an endpoint of Larder's own answered.
#[derive(Debug)]
pub struct OwnAnswer<'a> {
    /// The request's `X-Request-ID`, if it is usable.
    pub request_id: Option<&'a str>,
    /// The method; none of a request that could not be read.
    pub method: Option<&'a Method>,
    /// The host asked for.
    pub host: &'a str,
    /// The path asked for.
    pub path: &'a str,
    /// What answered: the name of an endpoint, or nothing.
    pub route: &'a str,
    /// The status.
    pub status: StatusCode,
    /// Body bytes sent.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why it was refused.
    pub reason: Option<&'static str>,
}

impl<S> Pipeline<S> {
    /// Writes the access-log line of a request that this pipeline has not handled.
    pub fn log_own_answer(&self, answer: &OwnAnswer<'_>) {
        let log = self.site.with(|site| {
            let log = site.access_log.clone()?;
            // What a sensitive route governs is in no log, whatever answers it.
            let host = host::canonical(answer.host, Scheme::Http);
            let path = Readings::of(answer.path);
            let route = site.routes.select_loosest(&Method::GET, &host, &path).route;
            Some((log, shown_path(route, answer.path).into_owned()))
        });
        let Some((log, path)) = log else { return };
        let made = RequestId::random();
        log.write(&Line {
            at: self.clock.now(),
            request_id: answer.request_id.unwrap_or(made.as_str()),
            method: answer.method,
            host: answer.host,
            path: &path,
            route: answer.route,
            status: answer.status.as_u16(),
            bytes: answer.bytes,
            duration: answer.duration,
            cache: None,
            reason: answer.reason,
        });
    }
}

fn observation(
    outcome: Outcome,
    status: Option<StatusCode>,
    bytes: u64,
    received: Received,
) -> Observation {
    let duration = received.started.elapsed();
    Observation { result: outcome.result, reason: outcome.reason, status, bytes, duration }
}

/// The host a request asks for. Its target is in origin form by now.
pub fn asked_host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

//! The metric catalogue: every metric with its help text.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use prometheus::{
    Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use super::{
    catalogue::Catalogue,
    encoding::EncodingMetrics,
    feed::FeedMetrics,
    leaks::LeakMetrics,
    log::{DROPPED, SUPPRESSED},
    process::ProcessMetrics,
    purging::PurgeMetrics,
    requests::{CLASSES, RequestCounters, RequestMetrics, class_of},
    store::{StoreMetricFamilies, StoreMetrics},
    trigger::TriggerMetrics,
    user::JwksMetrics,
    verification::VerificationMetrics,
};
use crate::policy::{cache_status::CacheResult, reason::Reason};

/// All metrics of this process.
///
/// Labels are configured names or closed lists, never a path, key, tag or user. [`Metrics::new`] has
/// the help text of each metric.
pub struct Metrics {
    registry: Registry,
    requests: RequestMetrics,
    uncached: IntCounterVec,
    collapsed: IntCounterVec,
    variants_limited: IntCounterVec,
    origin_requests: [IntCounter; STATUS_CLASSES.len()],
    origin_duration: Histogram,
    pub(crate) origin_errors: IntCounterVec,
    pub(crate) origin_connections: IntGauge,
    pub(crate) origin_pending: IntGauge,
    pub(crate) origin_rejected: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) connections_refused: IntCounter,
    pub(crate) accept_errors: IntCounter,
    pub(crate) tunnels: IntGauge,
    pub(crate) tunnels_refused: IntCounter,
    pub(crate) stalled_responses: IntCounter,
    pub(crate) pressure: IntGauge,
    pub(crate) refused_requests: IntCounterVec,
    pub(crate) store_entries: IntGaugeVec,
    pub(crate) store_bytes: IntGaugeVec,
    pub(crate) evictions: IntCounterVec,
    pub(crate) purge_log_seq: IntGauge,
    pub(crate) purge_log_synced: IntGauge,
    pub(crate) purge_log_reach: IntGauge,
    pub(crate) purge_selectors: IntGauge,
    pub(crate) purge_selectors_evicted: IntCounter,
    pub(crate) purge_records: IntCounter,
    pub(crate) purge_pending: IntGauge,
    pub(crate) purge_floor_rises: IntCounterVec,
    /// Nodes of the fleet, by state.
    pub purge_nodes: IntGaugeVec,
    pub(crate) filling_bytes: IntGauge,
    pub(crate) pinned_bytes: IntGauge,
    pub(crate) bodies_not_kept: IntCounterVec,
    pub(crate) encodings: EncodingMetrics,
    /// Metrics of the event feed.
    pub feed: FeedMetrics,
    pub(crate) purging: PurgeMetrics,
    pub(crate) access_log_dropped: IntCounter,
    pub(crate) jwks: JwksMetrics,
    pub(crate) leaks: LeakMetrics,
    pub(crate) triggers: TriggerMetrics,
    pub(crate) verification: VerificationMetrics,
    own_requests: IntCounterVec,
    store: StoreMetricFamilies,
    reload_successful: IntGauge,
    reload_timestamp: Gauge,
    process: ProcessMetrics,
}

impl Metrics {
    /// Creates the metrics in a new registry.
    #[expect(clippy::too_many_lines, reason = "a list, and best read as one")]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let catalogue = Catalogue(&registry);
        let build = catalogue.gauges(
            "larder_build_info",
            "Always 1; the label is the Larder release.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // There is one log per process, independent of metrics.
        for counter in [&*DROPPED, &*SUPPRESSED] {
            catalogue.register(Ok(counter.clone()));
        }
        let requests_to_origin = catalogue.counters(
            "larder_origin_requests_total",
            "Origin requests that got a response, by status class.",
            &["class"],
        );
        let metrics = Self {
            requests: RequestMetrics::new(&catalogue),
            uncached: catalogue.counters(
                "larder_uncached_total",
                "Requests not served from the cache, by the reason in Cache-Status.",
                &["route", "reason"],
            ),
            collapsed: catalogue.counters(
                "larder_collapsed_requests_total",
                "Requests that waited for another request's fetch instead of going to the origin.",
                &["route"],
            ),
            variants_limited: catalogue.counters(
                "larder_variants_limited_total",
                "Stored variants dropped because their target had too many variants.",
                &["route"],
            ),
            origin_requests: STATUS_CLASSES
                .map(|class| requests_to_origin.with_label_values(&[class])),
            origin_duration: catalogue.histogram(
                "larder_origin_duration_seconds",
                "Seconds from sending a request to the origin to its response head.",
            ),
            origin_errors: catalogue.counters(
                "larder_origin_errors_total",
                "Requests without a response from the origin, by kind of failure.",
                &["kind"],
            ),
            origin_connections: catalogue.gauge(
                "larder_origin_connections",
                "Open connections to the origin, idle ones included and tunnels excluded.",
            ),
            origin_pending: catalogue.gauge(
                "larder_origin_pending_requests",
                "Requests that wait for a connection to the origin.",
            ),
            origin_rejected: catalogue.counter(
                "larder_origin_rejected_requests_total",
                "Requests rejected because no connection to the origin was free.",
            ),
            connections: catalogue.gauge("larder_connections", "Open client connections."),
            connections_refused: catalogue.counter(
                "larder_connections_refused_total",
                "Client connections refused because the connection limit was reached.",
            ),
            accept_errors: catalogue.counter(
                "larder_accept_errors_total",
                "Failures to accept a client connection, such as too many open files.",
            ),
            tunnels: catalogue.gauge(
                "larder_tunnels",
                "Open tunnels (WebSocket and other upgrades).",
            ),
            tunnels_refused: catalogue.counter(
                "larder_tunnels_refused_total",
                "Upgrades refused because the tunnel limit was reached.",
            ),
            stalled_responses: catalogue.counter(
                "larder_stalled_responses_total",
                "Responses dropped because their clients did not read them.",
            ),
            pressure: catalogue.gauge(
                "larder_pressure",
                "1 under pressure (memory or origin connections are scarce), 0 otherwise. Unread responses are then dropped sooner.",
            ),
            refused_requests: catalogue.counters(
                "larder_refused_requests_total",
                "Requests rejected before routing, by reason; not included in larder_requests_total.",
                &["reason"],
            ),
            own_requests: catalogue.counters(
                "larder_own_requests_total",
                "Requests to Larder's own endpoints on the public listener, by endpoint and status class; not included in larder_requests_total.",
                &["endpoint", "class"],
            ),
            store_entries: catalogue.gauges("larder_store_entries", "Stored entries, by tier.", &["tier"]),
            store_bytes: catalogue.gauges(
                "larder_store_bytes",
                "Stored bytes, by tier: keys, fields, tags, bodies and overhead.",
                &["tier"],
            ),
            evictions: catalogue.counters(
                "larder_evictions_total",
                "Entries removed from the store, by tier and cause.",
                &["tier", "cause"],
            ),
            purge_log_seq: catalogue.gauge(
                "larder_purge_log_seq",
                "Sequence number of the last purge record that this node has applied.",
            ),
            purge_log_synced: catalogue.gauge(
                "larder_purge_log_synced",
                "1 while this node is certain to know every purge, else 0.",
            ),
            purge_log_reach: catalogue.gauge(
                "larder_purge_log_reach_seconds",
                "Seconds that the purge log reaches back on this node; older responses are not served.",
            ),
            purge_selectors: catalogue.gauge(
                "larder_purge_selectors",
                "Purge selectors that this node remembers individually.",
            ),
            purge_selectors_evicted: catalogue.counter(
                "larder_purge_selectors_evicted_total",
                "Purge selectors merged with others because there were too many to remember individually.",
            ),
            purge_records: catalogue.counter(
                "larder_purge_records_total",
                "Purge records that this node has applied.",
            ),
            purge_pending: catalogue.gauge(
                "larder_purge_pending",
                "Purges applied on this node that are not in the log yet.",
            ),
            purge_floor_rises: catalogue.counters(
                "larder_purge_floor_rises_total",
                "Number of times that this node invalidated all stored responses because purges might be missing, by cause.",
                &["cause"],
            ),
            purge_nodes: catalogue.gauges(
                "larder_purge_nodes",
                "Nodes that purges have to wait for, as known to this node, by state.",
                &["state"],
            ),
            filling_bytes: catalogue.gauge(
                "larder_filling_bytes",
                "Bytes of response bodies that are being stored.",
            ),
            pinned_bytes: catalogue.gauge(
                "larder_store_pinned_bytes",
                "Bytes of large responses that left the memory tier while clients read them.",
            ),
            bodies_not_kept: catalogue.counters(
                "larder_bodies_not_kept_total",
                "Storable response bodies that were not kept for the store, by cause.",
                &["cause"],
            ),
            encodings: EncodingMetrics::new(&catalogue),
            feed: FeedMetrics::new(&catalogue),
            purging: PurgeMetrics::new(&catalogue),
            store: StoreMetricFamilies::new(&catalogue),
            access_log_dropped: catalogue.counter(
                "larder_access_log_dropped_total",
                "Access-log lines dropped because standard output was too slow or failed.",
            ),
            reload_successful: catalogue.gauge(
                "larder_config_last_reload_successful",
                "1 if the last attempt to load the configuration succeeded, else 0.",
            ),
            reload_timestamp: catalogue.seconds(
                "larder_config_last_reload_success_timestamp_seconds",
                "Time at which the current configuration was loaded, in seconds since the Unix epoch.",
            ),
            jwks: JwksMetrics::new(&catalogue),
            leaks: LeakMetrics::new(&catalogue),
            triggers: TriggerMetrics::new(&catalogue),
            verification: VerificationMetrics::new(&catalogue),
            process: ProcessMetrics::new(&catalogue),
            registry,
        };
        metrics.record_reload(ReloadResult::Succeeded);
        Arc::new(metrics)
    }

    /// Counts a response from one of Larder's own endpoints.
    pub fn count_local_response(&self, endpoint: &str, status: StatusCode) {
        if let Some(class) = CLASSES.get(class_of(Some(status))) {
            self.own_requests.with_label_values(&[endpoint, class]).inc();
        }
    }

    /// Records the result of loading a configuration.
    pub fn record_reload(&self, reload: ReloadResult) {
        self.reload_successful.set(i64::from(reload == ReloadResult::Succeeded));
        if reload == ReloadResult::Succeeded {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reload_timestamp.set(now.as_secs_f64());
        }
    }

    /// Counts a response head from the origin, received `after` the request was sent.
    pub fn record_origin_response(&self, status: StatusCode, after: Duration) {
        self.origin_duration.observe(after.as_secs_f64());
        if let Some(class) = self.origin_requests.get(class_of(Some(status))) {
            class.inc();
        }
    }

    /// Returns the metric handles of one route, so that requests look up no metric by label.
    pub fn for_route(self: &Arc<Self>, route: &str) -> RouteMetrics {
        RouteMetrics {
            collapsed: self.collapsed.with_label_values(&[route]),
            variants_limited: self.variants_limited.with_label_values(&[route]),
            results: std::array::from_fn(|_| OnceLock::new()),
            uncached: Reason::ALL.iter().map(|_| OnceLock::new()).collect(),
            route: route.into(),
            metrics: Arc::clone(self),
        }
    }

    /// Returns the metric handles of the Redis store.
    pub fn for_redis(&self) -> Arc<StoreMetrics> {
        Arc::new(self.store.of("redis"))
    }

    /// Renders all metrics in Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        self.process.refresh();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The result of loading a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new configuration is active.
    Succeeded,
    /// The previous configuration stays active.
    Failed,
}

/// The metric handles of one route.
pub struct RouteMetrics {
    /// Requests that waited for another request's fetch.
    pub collapsed: IntCounter,
    /// Variants dropped because their target had too many.
    pub variants_limited: IntCounter,
    results: [OnceLock<Arc<RequestCounters>>; CacheResult::ALL.len()],
    uncached: Box<[OnceLock<IntCounter>]>,
    route: Box<str>,
    metrics: Arc<Metrics>,
}

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The contribution of a finished request to the metrics.
#[derive(Debug, Clone, Copy)]
pub struct RequestObservation {
    /// The outcome in `X-API-Cache`.
    pub result: CacheResult,
    /// The reason why the request was not a hit.
    pub reason: Option<Reason>,
    /// The status; `None` if the client disconnected before the response.
    pub status: Option<StatusCode>,
    /// Body bytes sent.
    pub bytes: u64,
    /// The time from the request's head to the end of the response.
    pub duration: Duration,
}

impl RouteMetrics {
    pub fn route(&self) -> &str {
        &self.route
    }

    /// Counts one request.
    pub fn observe(&self, observation: &RequestObservation) {
        let Some(cell) = self.results.get(observation.result as usize) else { return };
        let RequestObservation { result, status, bytes, duration, .. } = *observation;
        let counters = cell.get_or_init(|| self.metrics.requests.of(&self.route, result));
        counters.count(status, bytes, duration);
        if let Some(reason) = observation.reason {
            self.count_uncached(reason);
        }
    }

    fn count_uncached(&self, reason: Reason) {
        let Some(cell) = self.uncached.get(reason as usize) else { return };
        let labels = &[&*self.route, reason.as_str()];
        cell.get_or_init(|| self.metrics.uncached.with_label_values(labels)).inc();
    }
}

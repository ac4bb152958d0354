//! The metrics of shadow mode and audits.

use prometheus::{CounterVec, HistogramVec, IntCounterVec};

use super::catalogue::Catalogue;

/// The metrics of comparisons between stored and live responses.
pub(crate) struct VerificationMetrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) saved_bytes: IntCounterVec,
    pub(crate) saved_seconds: CounterVec,
    pub(crate) comparisons: IntCounterVec,
    pub(crate) staleness: HistogramVec,
}

impl VerificationMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            requests: catalogue.counters(
                "larder_shadow_requests_total",
                "Requests in shadow mode, by route and by the X-API-Cache outcome that they would have on a live route.",
                &["route", "cache"],
            ),
            saved_bytes: catalogue.counters(
                "larder_shadow_saved_bytes_total",
                "Bytes of bodies that the origin would not have sent if the route had been live.",
                &["route"],
            ),
            saved_seconds: catalogue.seconds_total_by(
                "larder_shadow_saved_seconds_total",
                "Seconds that clients would not have waited for the origin if the route had been live.",
                &["route"],
            ),
            comparisons: catalogue.counters(
                "larder_comparisons_total",
                "Comparisons of stored responses with the origin's, by route, mode (shadow or audit) and result: same, different, or the reason why there was no comparison.",
                &["route", "mode", "result"],
            ),
            staleness: catalogue.ages(
                "larder_staleness_seconds",
                "Age in seconds of stored responses that were found to differ from the origin's.",
                &["route", "mode"],
            ),
        }
    }
}

//! The metrics of the leak detector.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::catalogue::Catalogue;

/// The metric handles of the leak detector.
pub(crate) struct LeakMetrics {
    pub(crate) comparisons: IntCounterVec,
    pub(crate) quarantined: IntGaugeVec,
}

impl LeakMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            comparisons: catalogue.counters(
                "larder_leak_comparisons_total",
                "Comparisons of the origin's responses to two requesters, by result.",
                &["route", "result"],
            ),
            quarantined: catalogue.gauges(
                "larder_route_quarantined",
                "1 while the route is quarantined because its responses depend on the requester, else 0.",
                &["route"],
            ),
        }
    }
}

//! The metrics of purging, of webhooks, and of tags.

use prometheus::IntCounterVec;

use super::metrics::Catalogue;

/// What was asked for, and what came of it.
pub struct PurgeMetrics {
    /// Purges asked for, by source, mode and result.
    pub purges: IntCounterVec,
    /// Deliveries to webhooks, by webhook and result.
    pub deliveries: IntCounterVec,
    /// Tags of webhooks that a delivery had no value for.
    pub unfilled: IntCounterVec,
    /// Purges by writes through the proxy, by what had become of them when the answer went out.
    pub writes: IntCounterVec,
    /// Responses not stored because the tags in their bodies are not known, by route and cause.
    pub untagged: IntCounterVec,
}

impl PurgeMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            purges: catalogue.counters(
                "larder_purges_total",
                "Purges asked for, by source, mode and result.",
                &["source", "mode", "result"],
            ),
            deliveries: catalogue.counters(
                "larder_webhook_deliveries_total",
                "Deliveries to webhooks, by webhook and result.",
                &["webhook", "result"],
            ),
            unfilled: catalogue.counters(
                "larder_webhook_unfilled_total",
                "Tags of webhooks that a delivery's payload had no value for.",
                &["webhook"],
            ),
            writes: catalogue.counters(
                "larder_write_purges_total",
                "Purges by writes through the proxy, by what had become of them when the answer went out.",
                &["result"],
            ),
            untagged: catalogue.counters(
                "larder_untagged_responses_total",
                "Responses that were not stored because of their JSON, or because it could not be read, by cause.",
                &["route", "cause"],
            ),
        }
    }
}

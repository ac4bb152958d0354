//! The metrics of purging, webhooks and tags.

use prometheus::IntCounterVec;

use super::catalogue::Catalogue;

/// The metric handles of purging.
pub(crate) struct PurgeMetrics {
    pub(crate) purges: IntCounterVec,
    pub(crate) deliveries: IntCounterVec,
    pub(crate) unfilled: IntCounterVec,
    pub(crate) writes: IntCounterVec,
    pub(crate) untagged: IntCounterVec,
}

impl PurgeMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            purges: catalogue.counters(
                "larder_purges_total",
                "Requested purges, by source, mode and result.",
                &["source", "mode", "result"],
            ),
            deliveries: catalogue.counters(
                "larder_webhook_deliveries_total",
                "Webhook deliveries, by webhook and result.",
                &["webhook", "result"],
            ),
            unfilled: catalogue.counters(
                "larder_webhook_unfilled_total",
                "Tags of webhook rules for which the payload had no value.",
                &["webhook"],
            ),
            writes: catalogue.counters(
                "larder_write_purges_total",
                "Writes through the proxy that purge, by the state of the purge when the response was sent.",
                &["result"],
            ),
            untagged: catalogue.counters(
                "larder_untagged_responses_total",
                "Responses not stored because of their JSON body, or because the body could not be read, by cause.",
                &["route", "cause"],
            ),
        }
    }
}

//! The metrics of the event feed: listeners and events.

use prometheus::{IntCounter, IntGauge};

use super::catalogue::Catalogue;

/// The metric handles of the feed.
pub struct FeedMetrics {
    /// Number of current listeners.
    pub listeners: IntGauge,
    /// Number of events sent, over all listeners.
    pub sent: IntCounter,
    /// Number of resets sent to listeners that may have missed events.
    pub resets: IntCounter,
    /// Number of listeners rejected because of the limit.
    pub refused: IntCounter,
}

impl FeedMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            listeners: catalogue
                .gauge("larder_event_listeners", "Clients connected to /_larder/events."),
            sent: catalogue.counter(
                "larder_events_sent_total",
                "Events sent to clients, counted once for each client.",
            ),
            resets: catalogue.counter(
                "larder_event_resets_total",
                "Resets sent to clients of /_larder/events that may have missed purges.",
            ),
            refused: catalogue.counter(
                "larder_event_listeners_refused_total",
                "Requests for /_larder/events rejected by events.listeners or events.per_client.",
            ),
        }
    }
}

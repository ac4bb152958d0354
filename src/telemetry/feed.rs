//! The metrics of the feed: who listens to purges, and what they were told.

use prometheus::{IntCounter, IntGauge};

use super::metrics::Catalogue;

/// Their handles.
pub struct FeedMetrics {
    /// Who listens now.
    pub listeners: IntGauge,
    /// Events sent, over all listeners.
    pub sent: IntCounter,
    /// Listeners told that they may have missed something.
    pub resets: IntCounter,
    /// Listeners refused because there were too many.
    pub refused: IntCounter,
}

impl FeedMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            listeners: catalogue
                .gauge("larder_event_listeners", "Clients that listen to /_larder/events now."),
            sent: catalogue.counter(
                "larder_events_sent_total",
                "Events sent to clients: each counts once for every client that it was sent to.",
            ),
            resets: catalogue.counter(
                "larder_event_resets_total",
                "Clients of /_larder/events told to begin anew, because they may have missed purges.",
            ),
            refused: catalogue.counter(
                "larder_event_listeners_refused_total",
                "Requests for /_larder/events refused because as many listened as may.",
            ),
        }
    }
}

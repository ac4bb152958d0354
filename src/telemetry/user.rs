//! The metrics of the published keys that verify tokens.

use prometheus::{IntCounterVec, IntGauge};

use super::catalogue::Catalogue;

/// The metric handles of an issuer's published keys.
#[derive(Clone)]
pub struct JwksMetrics {
    keys: IntGauge,
    fetches: IntCounterVec,
}

impl JwksMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            keys: catalogue.gauge(
                "larder_jwks_keys",
                "Keys of user.jwt.jwks in use; 0 if no keys are known or jwks is not configured.",
            ),
            fetches: catalogue.counters(
                "larder_jwks_fetches_total",
                "Fetches of user.jwt.jwks by this node, by result.",
                &["result"],
            ),
        }
    }

    /// Counts a fetch, and records the number of usable keys after it.
    pub fn record_fetch(&self, succeeded: bool, keys: usize) {
        let result = if succeeded { "succeeded" } else { "failed" };
        self.fetches.with_label_values(&[result]).inc();
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }
}

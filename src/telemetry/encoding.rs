//! Metrics of the coded forms of stored responses.

use prometheus::{Counter, IntCounterVec};

use super::catalogue::Catalogue;

/// Metrics of encoding.
#[derive(Debug)]
pub(crate) struct EncodingMetrics {
    encodings: IntCounterVec,
    pub(crate) seconds: Counter,
}

/// The result of an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EncodingResult {
    /// The coded body is smaller.
    Made,
    /// The coded body is not smaller, so the response is sent as stored.
    NotSmaller,
    /// Too many encodings were waiting already.
    Rejected,
}

impl EncodingResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::NotSmaller => "not-smaller",
            Self::Rejected => "rejected",
        }
    }
}

impl EncodingMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            encodings: catalogue.counters(
                "larder_encodings_total",
                "Encodings of stored responses, by content coding and result.",
                &["coding", "result"],
            ),
            seconds: catalogue.seconds_total(
                "larder_encoding_seconds_total",
                "Seconds spent on encoding stored responses.",
            ),
        }
    }

    /// Counts an encoding with this content coding and result.
    pub(crate) fn count(&self, coding: &str, result: EncodingResult) {
        self.encodings.with_label_values(&[coding, result.as_str()]).inc();
    }
}

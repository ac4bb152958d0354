//! The metrics of a networked store.

use std::{sync::OnceLock, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;

/// An operation of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    /// Read an entry.
    Get,
    /// Store an entry.
    Put,
    /// Remove an entry.
    Remove,
    /// Claim the fetch of an entry.
    Claim,
    /// Publish the result of a fetch to the fleet.
    Publish,
}

impl StoreOperation {
    const COUNT: usize = 5;

    /// Returns the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Claim => "claim",
            Self::Publish => "land",
        }
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperationOutcome {
    /// The entry was found.
    Hit,
    /// The entry was not found.
    Miss,
    /// The operation succeeded.
    Ok,
    /// The entry could not be decoded.
    Damaged,
    /// The entry is encrypted with an unknown secret, or was altered.
    Undecryptable,
    /// The circuit breaker was open.
    Open,
    /// The response did not arrive in time.
    TimedOut,
    /// The connection broke.
    Disconnected,
    /// The queue was full.
    Full,
    /// The store refused the operation.
    Refused,
    /// The response was invalid.
    Error,
}

impl StoreOperationOutcome {
    const COUNT: usize = 11;

    /// Returns the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Ok => "ok",
            Self::Damaged => "damaged",
            Self::Undecryptable => "locked",
            Self::Open => "open",
            Self::TimedOut => "late",
            Self::Disconnected => "gone",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

/// The metric handles of one tier.
pub struct StoreMetrics {
    tier: &'static str,
    operations: IntCounterVec,
    handles: [[OnceLock<IntCounter>; StoreOperationOutcome::COUNT]; StoreOperation::COUNT],
    duration: [Histogram; StoreOperation::COUNT],
    dropped: IntCounterVec,
    /// 1 while the circuit breaker is open.
    pub breaker_open: IntGauge,
    /// Number of times the circuit breaker opened.
    pub breaker_opened: IntCounter,
    refusing_writes: IntGaugeVec,
    /// Number of queued writes.
    pub queue_writes: IntGauge,
    /// Bytes of entries that are queued or being written.
    pub queue_bytes: IntGauge,
}

/// The metric families of all tiers.
pub(super) struct StoreMetricFamilies {
    operations: IntCounterVec,
    duration: HistogramVec,
    dropped: IntCounterVec,
    breaker_open: IntGaugeVec,
    breaker_opened: IntCounterVec,
    refusing_writes: IntGaugeVec,
    queue_writes: IntGaugeVec,
    queue_bytes: IntGaugeVec,
}

impl StoreMetricFamilies {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            operations: catalogue.counters(
                "larder_store_operations_total",
                "Operations on Redis, by operation and result.",
                &["tier", "op", "result"],
            ),
            duration: catalogue.histograms(
                "larder_store_duration_seconds",
                "Duration of operations on Redis, in seconds.",
                &["tier", "op"],
            ),
            dropped: catalogue.counters(
                "larder_store_writes_dropped_total",
                "Writes to Redis that were dropped before they were sent, by cause.",
                &["tier", "op", "cause"],
            ),
            breaker_open: catalogue.gauges(
                "larder_store_breaker_open",
                "1 while the circuit breaker of the store is open, else 0.",
                &["tier"],
            ),
            breaker_opened: catalogue.counters(
                "larder_store_breaker_opened_total",
                "Number of times that the circuit breaker of the store opened.",
                &["tier"],
            ),
            refusing_writes: catalogue.gauges(
                "larder_store_refusing_writes",
                "1 for the reason why the store refuses writes, 0 for other reasons.",
                &["tier", "reason"],
            ),
            queue_writes: catalogue.gauges(
                "larder_store_queue_writes",
                "Writes that wait in the queue for the store.",
                &["tier"],
            ),
            queue_bytes: catalogue.gauges(
                "larder_store_queue_bytes",
                "Bytes of the entries that wait in the queue for the store or are being sent.",
                &["tier"],
            ),
        }
    }

    /// Returns the metric handles of one tier.
    pub(super) fn of(&self, tier: &'static str) -> StoreMetrics {
        let all = [
            StoreOperation::Get,
            StoreOperation::Put,
            StoreOperation::Remove,
            StoreOperation::Claim,
            StoreOperation::Publish,
        ];
        StoreMetrics {
            tier,
            operations: self.operations.clone(),
            handles: all.map(|_| std::array::from_fn(|_| OnceLock::new())),
            duration: all.map(|it| self.duration.with_label_values(&[tier, it.as_str()])),
            dropped: self.dropped.clone(),
            breaker_open: self.breaker_open.with_label_values(&[tier]),
            breaker_opened: self.breaker_opened.with_label_values(&[tier]),
            refusing_writes: self.refusing_writes.clone(),
            queue_writes: self.queue_writes.with_label_values(&[tier]),
            queue_bytes: self.queue_bytes.with_label_values(&[tier]),
        }
    }
}

impl StoreMetrics {
    /// Counts an operation.
    pub fn count(&self, operation: StoreOperation, outcome: StoreOperationOutcome) {
        let outcomes = self.handles.get(operation as usize);
        if let Some(handle) = outcomes.and_then(|outcomes| outcomes.get(outcome as usize)) {
            let labels = &[self.tier, operation.as_str(), outcome.as_str()];
            handle.get_or_init(|| self.operations.with_label_values(labels)).inc();
        }
    }

    /// Counts an operation and its duration.
    pub fn observe(
        &self,
        operation: StoreOperation,
        outcome: StoreOperationOutcome,
        took: Duration,
    ) {
        self.count(operation, outcome);
        if let Some(histogram) = self.duration.get(operation as usize) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Counts a write that was dropped before it was tried.
    pub fn count_dropped(&self, operation: StoreOperation, cause: DropCause) {
        self.dropped.with_label_values(&[self.tier, operation.as_str(), cause.as_str()]).inc();
    }

    /// Sets the gauge of `now`, the current reason for refusing writes, and clears the gauges of
    /// all other reasons.
    pub fn set_refusing_writes(
        &self,
        reasons: impl Iterator<Item = &'static str>,
        now: Option<&str>,
    ) {
        for reason in reasons {
            let gauge = self.refusing_writes.with_label_values(&[self.tier, reason]);
            gauge.set(i64::from(Some(reason) == now));
        }
    }
}

/// The reasons why a write was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropCause {
    /// The queue was full.
    Full,
    /// The circuit breaker was open.
    Open,
}

impl DropCause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Open => "open",
        }
    }
}

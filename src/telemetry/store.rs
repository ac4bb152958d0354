//! The metrics of a store that is reached over a network.

use std::{sync::OnceLock, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperation {
    /// An entry.
    Get,
    /// To keep an entry.
    Put,
    /// To forget an entry.
    Remove,
    /// Who fetches an entry.
    Claim,
    /// To tell the fleet what came of a fetch.
    Publish,
}

impl StoreOperation {
    const COUNT: usize = 5;

    /// The operation as the metrics spell it.
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

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOperationOutcome {
    /// The entry was there.
    Hit,
    /// It was not.
    Miss,
    /// It is done.
    Ok,
    /// What was there could not be read.
    Damaged,
    /// What was there is encrypted by a secret that is not known, or not as it should be.
    Undecryptable,
    /// The store is known to be away and was not asked.
    Open,
    /// The answer did not come in time.
    TimedOut,
    /// The connection broke.
    Disconnected,
    /// Too much was asked at once.
    Full,
    /// The store refused.
    Refused,
    /// The answer made no sense.
    Error,
}

impl StoreOperationOutcome {
    const COUNT: usize = 11;

    /// The outcome as the metrics spell it.
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

/// The metrics of one tier.
pub struct StoreMetrics {
    tier: &'static str,
    operations: IntCounterVec,
    handles: [[OnceLock<IntCounter>; StoreOperationOutcome::COUNT]; StoreOperation::COUNT],
    duration: [Histogram; StoreOperation::COUNT],
    dropped: IntCounterVec,
    /// 1 while nothing is asked because nothing was answered.
    pub breaker_open: IntGauge,
    /// How often that began.
    pub breaker_opened: IntCounter,
    refusing_writes: IntGaugeVec,
    /// Writes that wait.
    pub queue_writes: IntGauge,
    /// Bytes of the entries among them, and of those on their way.
    pub queue_bytes: IntGauge,
}

/// The families of metrics that every tier's are made of.
pub(super) struct StoreMetricFamilies {
    pub(super) operations: IntCounterVec,
    pub(super) duration: HistogramVec,
    pub(super) dropped: IntCounterVec,
    pub(super) breaker_open: IntGaugeVec,
    pub(super) breaker_opened: IntCounterVec,
    pub(super) refusing_writes: IntGaugeVec,
    pub(super) queue_writes: IntGaugeVec,
    pub(super) queue_bytes: IntGaugeVec,
}

impl StoreMetricFamilies {
    /// The handles of one tier.
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

    /// The same for one that took this long.
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

    /// Counts a write that was given up before it was tried.
    pub fn count_dropped(&self, operation: StoreOperation, cause: DropCause) {
        self.dropped.with_label_values(&[self.tier, operation.as_str(), cause.as_str()]).inc();
    }

    /// Says for which reason of all there are writes are refused, if they are.
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

/// Why a write was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropCause {
    /// Too much waits already.
    Full,
    /// The store is away.
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

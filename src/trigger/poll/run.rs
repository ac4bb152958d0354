//! The loop of one poll: acquire the lease, fetch the version, purge, store the version, sleep.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    Poll,
    fetch::{HttpVersionSource, PollResponse, VersionFetchError, VersionSource},
    state::{PollCell, VersionRecord},
};
use crate::{
    fence::{Purge, PurgeSource, Selector},
    origin::SetupError,
    purge::LogUnavailable,
    trigger::{Fleet, Lease, TaskContext},
};

/// The longest pause after failures, as a multiple of `every`.
const MAX_BACKOFF_FACTOR: u32 = 10;

/// The longest pause between two polls.
const MAX_PAUSE: Duration = Duration::from_hours(24 * 10);

/// The longest pause while the purge log is unavailable, or while another node polls, because that
/// node may disappear.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A running poll.
struct Poller<F: Fleet, A> {
    poll: Poll,
    source: A,
    cell: Arc<PollCell>,
    context: TaskContext<F>,
    lease: Option<F::Lease>,
    /// The entity tag of the response that contained the known version, if it had one.
    tag: Option<HeaderValue>,
    failures: u32,
    /// Whether a poll ended without a known version. If so, the first version counts as a change,
    /// since stored responses may be older than it.
    has_missed: bool,
}

/// The outcome of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollOutcome {
    /// This node did not poll, because another node does.
    NotLeader,
    /// The version has not changed.
    Unchanged,
    /// The version is new.
    Changed,
    /// The response has no version.
    Missing,
    /// The fetch failed, or its response was unusable.
    Failed,
    /// A purge was due, but the purge log is unavailable.
    Unavailable,
}

impl PollOutcome {
    /// Returns the value of the metric label for the outcome; `None` if another node polls.
    const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::NotLeader => None,
            Self::Unchanged => Some("same"),
            Self::Changed => Some("changed"),
            Self::Missing => Some("missing"),
            Self::Failed => Some("failed"),
            Self::Unavailable => Some("unavailable"),
        }
    }
}

/// Polls until dropped, and writes results to `cell`.
///
/// Must be called on the runtime that will poll. Fails if the HTTP client cannot be created.
pub(in crate::trigger) fn run<F: Fleet>(
    poll: &Poll,
    cell: Arc<PollCell>,
    context: &TaskContext<F>,
) -> Result<impl Future<Output = ()> + Send + use<F>, SetupError> {
    let source = HttpVersionSource::new(poll)?;
    Ok(Poller::new(poll.clone(), source, cell, context.clone()).run())
}

impl<F: Fleet, A: VersionSource> Poller<F, A> {
    fn new(poll: Poll, source: A, cell: Arc<PollCell>, context: TaskContext<F>) -> Self {
        Self { poll, source, cell, context, lease: None, tag: None, failures: 0, has_missed: false }
    }

    async fn run(mut self) {
        loop {
            let outcome = self.poll_once().await;
            if let Some(result) = outcome.as_str() {
                let metrics = &self.context.metrics.triggers;
                metrics.polls.with_label_values(&[&*self.poll.name, result]).inc();
            }
            self.has_missed |= self.cell.record().is_none();
            self.cell.update_metrics((self.context.now)(), &self.context.metrics);
            self.failures = if outcome == PollOutcome::Failed { self.failures + 1 } else { 0 };
            let pause = pause(self.poll.every, outcome, self.failures, fastrand::u8(..));
            self.wait(pause).await;
        }
    }

    async fn poll_once(&mut self) -> PollOutcome {
        if !self.ensure_leader().await {
            return PollOutcome::NotLeader;
        }
        if self.purge_delayed().await.is_err() {
            return PollOutcome::Unavailable;
        }
        match self.source.fetch(self.tag.as_ref()).await {
            Ok(PollResponse::Unchanged) => PollOutcome::Unchanged,
            Ok(PollResponse::NoVersion) => self.apply_missing().await,
            Ok(PollResponse::Version(version, tag)) => {
                let found = self.apply_version(version).await;
                // The tag is stored only after the purge, so that a failed purge is repeated.
                if found != PollOutcome::Unavailable {
                    self.tag = tag;
                }
                found
            }
            Err(error) => {
                self.log_failure(&error);
                PollOutcome::Failed
            }
        }
    }

    /// Acquires the lease if possible, and returns whether this node holds it. Also reads the
    /// fleet's result, unless this node already held the lease.
    async fn ensure_leader(&mut self) -> bool {
        if self.lease.as_ref().is_some_and(Lease::is_held) {
            return true;
        }
        self.lease = self.context.fleet.acquire_lease(&self.key()).await;
        self.tag = None;
        match self.context.fleet.value(&self.key()).await {
            Ok(Some(text)) => {
                if let Ok(record) = serde_json::from_str(&text) {
                    self.cell.set_record(record);
                }
            }
            Ok(None) => {}
            // Without the last version, this node cannot detect a change, so it gives up the lease.
            Err(LogUnavailable) => self.lease = None,
        }
        self.lease.is_some()
    }

    /// Logs the first of consecutive failures as a warning, and further failures at debug level.
    fn log_failure(&self, error: &VersionFetchError) {
        let poll = &*self.poll.name;
        if self.failures == 0 {
            tracing::warn!(poll, %error, "poll failed");
        } else {
            tracing::debug!(poll, %error, "poll failed again");
        }
    }

    /// Sleeps until the next poll, and runs delayed purges that become due.
    async fn wait(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        while let Some(due) = self.until_due().filter(|due| Instant::now() + *due < end) {
            tokio::time::sleep(due).await;
            if self.purge_delayed().await.is_err() {
                break;
            }
        }
        tokio::time::sleep_until(end).await;
    }

    /// Returns the time until the next delayed purge; `None` without one, or if another node polls.
    fn until_due(&self) -> Option<Duration> {
        self.lease.as_ref().filter(|lease| lease.is_held())?;
        self.cell.record()?.until_due((self.context.now)())
    }

    /// Runs the delayed purges that are due.
    ///
    /// A delayed purge is removed only after it has run, so that another node repeats it if this
    /// node stops before then.
    async fn purge_delayed(&self) -> Result<(), LogUnavailable> {
        let Some(record) = self.cell.record() else { return Ok(()) };
        let Some(rest) = record.without_due((self.context.now)()) else { return Ok(()) };
        self.purge("delayed purge, for data that loads late".to_owned()).await?;
        self.save(rest).await
    }

    async fn apply_version(&self, version: Box<str>) -> PollOutcome {
        let before = self.cell.record();
        if before.as_ref().is_some_and(|before| before.version.as_ref() == Some(&version)) {
            return PollOutcome::Unchanged;
        }
        let is_change = before.is_some() || self.has_missed;
        if is_change && self.purge(format!("version {version}")).await.is_err() {
            return PollOutcome::Unavailable;
        }
        tracing::info!(poll = &*self.poll.name, version = &*version, "data version changed");
        let delay = self.poll.delay.filter(|_| is_change);
        let again_at = before.map(|before| before.again_at).unwrap_or_default();
        let record = VersionRecord::new(Some(version), (self.context.now)(), (again_at, delay));
        match self.save(record).await {
            Ok(()) => PollOutcome::Changed,
            Err(LogUnavailable) => PollOutcome::Unavailable,
        }
    }

    /// Stores a record without a version if no record exists, so that the first version counts as a
    /// change.
    async fn apply_missing(&self) -> PollOutcome {
        if self.cell.record().is_none() {
            let none = VersionRecord::new(None, (self.context.now)(), (Vec::new(), None));
            let _this_node_knows_anyway = self.save(none).await;
        }
        PollOutcome::Missing
    }

    async fn save(&self, record: VersionRecord) -> Result<(), LogUnavailable> {
        if let Ok(text) = serde_json::to_string(&record) {
            self.context.fleet.set_value(&self.key(), &text).await?;
        }
        self.cell.set_record(record);
        Ok(())
    }

    /// Purges the tags and warms the configured targets.
    async fn purge(&self, reason: String) -> Result<(), LogUnavailable> {
        let Poll { name, purge, mode, warm, .. } = &self.poll;
        let purge = Purge {
            mode: *mode,
            selectors: purge.iter().cloned().map(Selector::Tag).collect(),
            source: PurgeSource::Poll(name.clone()),
            reason: Some(reason),
            warm: warm.purged,
        };
        self.context.fleet.purge(purge).await?;
        self.context.warm.push_all(warm);
        Ok(())
    }

    fn key(&self) -> String {
        format!("poll:{}", self.poll.name)
    }
}

/// Returns the pause after an outcome: `every`, longer after failures, shorter if this node is not
/// the leader or the purge log is unavailable.
///
/// `jitter` changes the pause by up to 10 %, so that nodes and polls do not run at the same times.
fn pause(every: Duration, outcome: PollOutcome, failures: u32, jitter: u8) -> Duration {
    let pause = match outcome {
        PollOutcome::Failed => {
            every.saturating_mul(2_u32.saturating_pow(failures).min(MAX_BACKOFF_FACTOR))
        }
        PollOutcome::NotLeader | PollOutcome::Unavailable => every.min(RETRY_PAUSE),
        PollOutcome::Unchanged | PollOutcome::Changed | PollOutcome::Missing => every,
    };
    pause.min(MAX_PAUSE).mul_f64(0.9 + 0.2 * f64::from(jitter) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests;

//! The rounds of one poll: hold the role, look, purge, remember, wait.

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

/// How many times `every` may pass between two looks where they fail.
const MAX_BACKOFF_FACTOR: u32 = 10;

/// The longest wait there is.
const MAX_PAUSE: Duration = Duration::from_hours(24 * 10);

/// The longest wait where another node asks, and might be gone; and where the version has changed and the log
/// cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// One poll at work.
struct Poller<F: Fleet, A> {
    poll: Poll,
    source: A,
    cell: Arc<PollCell>,
    context: TaskContext<F>,
    lease: Option<F::Lease>,
    /// The tag of the answer that told the version that is known.
    tag: Option<HeaderValue>,
    failures: u32,
    /// Whether a round ended without a known version: what was stored since may be older than the first one.
    has_missed: bool,
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollOutcome {
    /// Another node asks.
    NotLeader,
    /// The version is what it was.
    Unchanged,
    /// The version is new.
    Changed,
    /// The answer has no version.
    Missing,
    /// There was no answer that can be used.
    Failed,
    /// The version is new, and the log cannot be reached.
    Unavailable,
}

impl PollOutcome {
    /// The result as metrics spell it; following is none.
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

/// A poll that tells in `cell` what it finds, until dropped. To be called on the runtime that it is to run
/// on; fails where the server cannot be asked at all.
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
            let pause = pause(self.poll.every, outcome, self.failures, random_byte());
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
                // Kept only once all that the answer tells is done.
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

    /// Whether this node is the one that asks; if not, it learns what the other has found.
    async fn ensure_leader(&mut self) -> bool {
        if self.lease.as_ref().is_some_and(Lease::is_held) {
            return true;
        }
        self.lease = self.context.fleet.acquire_lease(&self.key()).await;
        self.tag = None;
        match self.context.fleet.value(&self.key()).await {
            Ok(Some(text)) => {
                if let Ok(known) = serde_json::from_str(&text) {
                    self.cell.set_record(known);
                }
            }
            Ok(None) => {}
            // Without knowing what was purged last, nobody can say what to purge.
            Err(LogUnavailable) => self.lease = None,
        }
        self.lease.is_some()
    }

    /// A first failure is news, the ones after it are not.
    fn log_failure(&self, error: &VersionFetchError) {
        let poll = &*self.poll.name;
        if self.failures == 0 {
            tracing::warn!(poll, %error, "a poll failed");
        } else {
            tracing::debug!(poll, %error, "a poll failed again");
        }
    }

    /// Waits for the next poll, and purges what is due once more meanwhile.
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

    /// The time until tags are purged once more, if this node is the one to do that.
    fn until_due(&self) -> Option<Duration> {
        self.lease.as_ref().filter(|lease| lease.is_held())?;
        self.cell.record()?.until_due((self.context.now)())
    }

    /// Purges once more what is due. Forgotten only after the purge, so that another node does it if this one
    /// ends between the two.
    async fn purge_delayed(&self) -> Result<(), LogUnavailable> {
        let Some(known) = self.cell.record() else { return Ok(()) };
        let Some(rest) = known.without_due((self.context.now)()) else { return Ok(()) };
        self.purge("once more, for data that loads late".to_owned()).await?;
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
        tracing::info!(poll = &*self.poll.name, version = &*version, "the data version changed");
        let delay = self.poll.delay.filter(|_| is_change);
        let again_at = before.map(|before| before.again_at).unwrap_or_default();
        let known = VersionRecord::new(Some(version), (self.context.now)(), (again_at, delay));
        match self.save(known).await {
            Ok(()) => PollOutcome::Changed,
            Err(LogUnavailable) => PollOutcome::Unavailable,
        }
    }

    /// Remembers that there was no version, if none is known: then the first one is a change.
    async fn apply_missing(&self) -> PollOutcome {
        if self.cell.record().is_none() {
            let none = VersionRecord::new(None, (self.context.now)(), (Vec::new(), None));
            let _this_node_knows_anyway = self.save(none).await;
        }
        PollOutcome::Missing
    }

    async fn save(&self, known: VersionRecord) -> Result<(), LogUnavailable> {
        if let Ok(text) = serde_json::to_string(&known) {
            self.context.fleet.set_value(&self.key(), &text).await?;
        }
        self.cell.set_record(known);
        Ok(())
    }

    /// Purges the tags, and has fetched what is to be fetched after that.
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

/// How long to wait after an outcome: `every`, longer after failures, and never in step with other nodes
/// or polls. `jitter` decides between 10 % less and 10 % more.
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

fn random_byte() -> u8 {
    let mut jitter = [128];
    let _without_entropy = aws_lc_rs::rand::fill(&mut jitter);
    let [jitter] = jitter;
    jitter
}

#[cfg(test)]
mod tests;

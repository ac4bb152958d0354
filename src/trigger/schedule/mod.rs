//! Schedules: purge tags or fetch paths at the times of a cron expression, once for the fleet.
//!
//! Every node waits for the same times. At a scheduled time, each node appends the same purge under
//! the same key, and the log accepts only the first. So a purge takes place even if nodes fail. One
//! node, chosen by de-duplication, warms responses. The fleet stores the time of the last run. A
//! node that was suspended or down repeats only the latest missed run.

mod cron;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

pub(crate) use cron::{
    CronError, CronExpression, CronProblem, DEFAULT_ZONE, NICKNAMES, time_zone, time_zones,
};

use super::{Fleet, TaskContext};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    field::Timestamp,
    purge::LogUnavailable,
    warm::WarmPlan,
};

/// The longest sleep before the clock is checked again. Timers stop while a machine is suspended,
/// and clocks can be set.
const MAX_SLEEP: Duration = Duration::from_secs(15);

/// The first and the longest delay before a failed run is retried.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long the fleet remembers that a node has warmed the responses of a run.
const DEDUP_WINDOW: Duration = Duration::from_hours(24);

/// A scheduled action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The name in logs, metrics and purges. Defaults to the cron expression.
    pub name: Option<Box<str>>,
    pub cron: CronExpression,
    /// The tags to purge.
    pub purge: Box<[Box<str>]>,
    /// The mode of the purge.
    pub mode: PurgeMode,
    /// The targets to warm, after the purge if there is one.
    pub warm: WarmPlan,
}

impl Schedule {
    /// Returns the name in logs, metrics and purges.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.cron.as_str())
    }

    /// Returns the key of the schedule's state in the fleet. Equal schedules have equal keys, even
    /// in different releases of Larder.
    fn id(&self) -> String {
        let digest = digest(&SHA256, self.identity().as_bytes());
        let digest = digest.as_ref().get(..16).unwrap_or_default();
        format!("schedule:{}", const_hex::encode(digest))
    }

    /// Returns the text that identifies the schedule: all settings, one per line.
    fn identity(&self) -> String {
        let Self { name, cron, purge, mode, warm } = self;
        let mut lines = vec![
            format!("name {}", name.as_deref().unwrap_or_default()),
            format!("cron {cron}"),
            format!("mode {}", mode.as_str()),
        ];
        lines.extend(purge.iter().map(|tag| format!("purge {tag}")));
        lines.extend(warm.purged.then(|| "warm".to_owned()));
        lines.extend(warm.targets.iter().map(|target| format!("warm {target}")));
        let headers = warm.headers.iter();
        lines.extend(headers.map(|(name, value)| format!("header {name} {value:?}")));
        lines.join("\n")
    }

    fn purge(&self) -> Purge {
        Purge {
            mode: self.mode,
            selectors: self.purge.iter().cloned().map(Selector::Tag).collect(),
            source: PurgeSource::Schedule(self.label().into()),
            reason: None,
            warm: self.warm.purged,
        }
    }
}

/// Runs a schedule until its expression has no further due time.
pub(crate) async fn run<F: Fleet>(schedule: Schedule, context: TaskContext<F>) {
    let runner = ScheduleRunner { id: schedule.id(), schedule, context };
    let mut done = runner.last_completed().await;
    while let Some(next) = runner.schedule.cron.next_after(done) {
        runner.wait_until(next).await;
        let now = (runner.context.now)();
        let last = runner.schedule.cron.last_until(now);
        let due = last.map_or(next, |last| last.max(next));
        runner.run_due(due).await;
        done = due;
    }
}

struct ScheduleRunner<F> {
    id: String,
    schedule: Schedule,
    context: TaskContext<F>,
}

impl<F: Fleet> ScheduleRunner<F> {
    /// Returns the time of the last completed run from the fleet, or the current time for a new
    /// schedule.
    async fn last_completed(&self) -> Timestamp {
        let started = (self.context.now)();
        let mut failures = 0;
        loop {
            match self.context.fleet.value(&self.id).await {
                Ok(Some(text)) => return parse_last_run(&text, started).unwrap_or(started),
                Ok(None) => {
                    self.save(started).await;
                    return started;
                }
                Err(LogUnavailable) => {
                    failures += 1;
                    tokio::time::sleep(backoff(failures, RETRY.0, RETRY.1)).await;
                }
            }
        }
    }

    async fn wait_until(&self, at: Timestamp) {
        loop {
            let left = at.saturating_since((self.context.now)());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(MAX_SLEEP)).await;
        }
    }

    /// Runs the schedule's action. Retries after failures, until the next scheduled time.
    async fn run_due(&self, due: Timestamp) {
        let next = self.schedule.cron.next_after(due);
        let mut failures = 0;
        while let Err(LogUnavailable) = self.try_run(due).await {
            failures += 1;
            self.count("unavailable");
            tokio::time::sleep(backoff(failures, RETRY.0, RETRY.1)).await;
            if next.is_some_and(|next| (self.context.now)() >= next) {
                let schedule = self.schedule.label();
                tracing::warn!(
                    schedule,
                    "scheduled run skipped: the purge log was unavailable until the next run"
                );
                return;
            }
        }
        self.count("done");
        let label = &[self.schedule.label()];
        let last_run = &self.context.metrics.triggers.schedule_last_run;
        last_run.with_label_values(label).set(Duration::from_millis(due.millis()).as_secs_f64());
        self.save(due).await;
    }

    async fn try_run(&self, due: Timestamp) -> Result<(), LogUnavailable> {
        let TaskContext { fleet, warm, .. } = &self.context;
        let key = format!("{}:{}", self.id, due.seconds());
        if !self.schedule.purge.is_empty() {
            fleet.purge_deduplicated(self.schedule.purge(), &key).await?;
        }
        if !self.schedule.warm.targets.is_empty() && fleet.dedup(&key, DEDUP_WINDOW).await? {
            warm.push_all(&self.schedule.warm);
        }
        Ok(())
    }

    /// Stores the time of a completed run. If storing fails, a node that starts may repeat this
    /// run.
    async fn save(&self, done: Timestamp) {
        let _kept = self.context.fleet.set_value(&self.id, &done.seconds().to_string()).await;
    }

    fn count(&self, result: &str) {
        let label = &[self.schedule.label(), result];
        self.context.metrics.triggers.schedule_runs.with_label_values(label).inc();
    }
}

/// Returns the exponential delay after this many failures (at least one).
fn backoff(failures: u32, first: Duration, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(max)
}

/// Parses the stored time of the last run. `None` if the time is so far in the future that a clock
/// must have been wrong.
fn parse_last_run(text: &str, now: Timestamp) -> Option<Timestamp> {
    let done = Timestamp::from_seconds(text.parse().ok()?);
    (done <= now.saturating_add(DEDUP_WINDOW)).then_some(done)
}

#[cfg(test)]
mod tests;

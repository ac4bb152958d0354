//! Schedules: at times that a cron expression tells, tags are purged or paths fetched ahead, once in
//! the whole fleet.
//!
//! Every node waits for the same times. When one comes, each appends the same purge under the same key,
//! and the log takes the first; so no node's death loses it. What is to be fetched ahead is fetched by
//! the node whose turn it is. The fleet remembers the last time that was run: a node that slept, or was
//! not there, runs the last one that was missed, and only that.

mod cron;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

pub(crate) use cron::{
    CronError, CronExpression, CronProblem, DEFAULT_ZONE, NICKNAMES, time_zone, time_zones,
};

use super::{Fleet, TaskContext, tasks::backoff};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    field::Timestamp,
    purge::LogUnavailable,
    warm::WarmPlan,
};

/// The longest wait without a look at the clock: timers stand still while a machine sleeps, and clocks
/// are set.
const MAX_SLEEP: Duration = Duration::from_secs(15);

/// The time before something that failed is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long the fleet knows which node's turn it was.
const DEDUP_WINDOW: Duration = Duration::from_hours(24);

/// What is done when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name in logs, metrics and purges; without one its cron expression stands for it.
    pub name: Option<Box<str>>,
    /// When.
    pub cron: CronExpression,
    /// Tags that are purged.
    pub purge: Box<[Box<str>]>,
    /// Whether what they select is gone or only stale.
    pub mode: PurgeMode,
    /// What is fetched ahead, after the purge if there is one.
    pub warm: WarmPlan,
}

impl Schedule {
    /// Its name in logs, metrics and purges.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.cron.as_str())
    }

    /// The name of its state in the fleet: equal for equal schedules, also across releases of Larder.
    fn id(&self) -> String {
        let digest = digest(&SHA256, self.identity().as_bytes());
        let digest = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        format!("schedule:{}", digest.collect::<String>())
    }

    /// All that makes a schedule another one, a line each.
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

/// Runs a schedule for as long as there are times to come.
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
    /// The time up to which all is done: what the fleet remembers, or the present where it has never
    /// heard of this schedule.
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

    /// Does what is to be done for this time, again and again until it is done or the next time comes.
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

    /// Forgotten where the fleet cannot be reached: then a node that starts may run this time again.
    async fn save(&self, done: Timestamp) {
        let _kept = self.context.fleet.set_value(&self.id, &done.seconds().to_string()).await;
    }

    fn count(&self, result: &str) {
        let label = &[self.schedule.label(), result];
        self.context.metrics.triggers.schedule_runs.with_label_values(label).inc();
    }
}

/// The time that a text tells, unless it is so far ahead that some clock was wrong.
fn parse_last_run(text: &str, now: Timestamp) -> Option<Timestamp> {
    let done = Timestamp::from_seconds(text.parse().ok()?);
    (done <= now.saturating_add(DEDUP_WINDOW)).then_some(done)
}

#[cfg(test)]
mod tests;

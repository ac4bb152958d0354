//! Schedules: at times that a cron expression tells, tags are purged or paths fetched ahead, once in
//! the whole fleet.
//!
//! Every node waits for the same times. When one comes, each appends the same purge under the same key,
//! and the log takes the first; so no node's death loses it. What is to be fetched ahead is fetched by
//! the node whose turn it is. The fleet remembers the last time that was run: a node that slept, or was
//! not there, runs the last one that was missed, and only that.

mod calendar;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

pub use calendar::{
    Calendar, CronError, CronProblem, DEFAULT_ZONE, NICKNAMES, time_zone, time_zones,
};

use super::{Fleet, Surroundings, tasks::backoff};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    field::Timestamp,
    purge::Unavailable,
    warm::WarmPlan,
};

/// The longest wait without a look at the clock: timers stand still while a machine sleeps, and clocks
/// are set.
const SLICE: Duration = Duration::from_secs(15);

/// The time before something that failed is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// How long the fleet knows which node's turn it was.
const TURN: Duration = Duration::from_hours(24);

/// What is done when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name in logs, metrics and purges; without one its cron expression stands for it.
    pub name: Option<Box<str>>,
    /// When.
    pub calendar: Calendar,
    /// Tags that are purged.
    pub purge: Box<[Box<str>]>,
    /// Whether what they select is gone or only stale.
    pub mode: Mode,
    /// What is fetched ahead, after the purge if there is one.
    pub warm: WarmPlan,
}

impl Schedule {
    /// Its name in logs, metrics and purges.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.calendar.as_str())
    }

    /// What the nodes of a fleet call it: the same if it says the same.
    fn id(&self) -> String {
        let Self { name, calendar, purge, mode, warm } = self;
        let text = format!("{calendar}\n{purge:?}\n{warm:?}\n{mode:?}\n{name:?}");
        let digest = digest(&SHA256, text.as_bytes());
        let digest = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        format!("schedule:{}", digest.collect::<String>())
    }

    fn purge(&self) -> Purge {
        Purge {
            mode: self.mode,
            selectors: self.purge.iter().cloned().map(Selector::Tag).collect(),
            source: Source::Schedule(self.label().into()),
            reason: None,
            warm: self.warm.purged,
        }
    }
}

/// Runs a schedule for as long as there are times to come.
pub async fn run<F: Fleet>(schedule: Schedule, surroundings: Surroundings<F>) {
    let runner = Runner { id: schedule.id(), schedule, surroundings };
    let mut done = runner.begin().await;
    while let Some(next) = runner.schedule.calendar.next_after(done) {
        runner.wait_until(next).await;
        let now = (runner.surroundings.now)();
        let last = runner.schedule.calendar.last_until(now);
        let due = last.map_or(next, |last| last.max(next));
        runner.run_for(due).await;
        done = due;
    }
}

struct Runner<F> {
    id: String,
    schedule: Schedule,
    surroundings: Surroundings<F>,
}

impl<F: Fleet> Runner<F> {
    /// The time up to which all is done: what the fleet remembers, or the present where it has never
    /// heard of this schedule.
    async fn begin(&self) -> Timestamp {
        let started = (self.surroundings.now)();
        let mut failures = 0;
        loop {
            match self.surroundings.fleet.recall(&self.id).await {
                Ok(Some(text)) => return remembered(&text, started).unwrap_or(started),
                Ok(None) => {
                    self.remember(started).await;
                    return started;
                }
                Err(Unavailable) => {
                    failures += 1;
                    tokio::time::sleep(backoff(failures, RETRY.0, RETRY.1)).await;
                }
            }
        }
    }

    async fn wait_until(&self, at: Timestamp) {
        loop {
            let left = at.saturating_since((self.surroundings.now)());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(SLICE)).await;
        }
    }

    /// Does what is to be done for this time, again and again until it is done or the next time comes.
    async fn run_for(&self, due: Timestamp) {
        let next = self.schedule.calendar.next_after(due);
        let mut failures = 0;
        while let Err(Unavailable) = self.try_for(due).await {
            failures += 1;
            self.count("unavailable");
            tokio::time::sleep(backoff(failures, RETRY.0, RETRY.1)).await;
            if next.is_some_and(|next| (self.surroundings.now)() >= next) {
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
        let last_run = &self.surroundings.metrics.triggers.schedule_last_run;
        last_run.with_label_values(label).set(Duration::from_millis(due.millis()).as_secs_f64());
        self.remember(due).await;
    }

    async fn try_for(&self, due: Timestamp) -> Result<(), Unavailable> {
        let Surroundings { fleet, warm, .. } = &self.surroundings;
        let key = format!("{}:{}", self.id, due.seconds());
        if !self.schedule.purge.is_empty() {
            fleet.purge_once(self.schedule.purge(), &key).await?;
        }
        if !self.schedule.warm.targets.is_empty() && fleet.once(&key, TURN).await? {
            warm.push_all(&self.schedule.warm);
        }
        Ok(())
    }

    /// Forgotten where the fleet cannot be reached: then a node that starts may run this time again.
    async fn remember(&self, done: Timestamp) {
        let _kept = self.surroundings.fleet.remember(&self.id, &done.seconds().to_string()).await;
    }

    fn count(&self, result: &str) {
        let label = &[self.schedule.label(), result];
        self.surroundings.metrics.triggers.schedule_runs.with_label_values(label).inc();
    }
}

/// The time that a text tells, unless it is so far ahead that some clock was wrong.
fn remembered(text: &str, now: Timestamp) -> Option<Timestamp> {
    let done = Timestamp::from_seconds(text.parse().ok()?);
    (done <= now.saturating_add(TURN)).then_some(done)
}

#[cfg(test)]
mod tests;

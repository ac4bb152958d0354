//! The running schedules and polls of a configuration.

use tokio::task::JoinSet;

use super::{Fleet, Poll, Polls, Schedule, TaskContext, poll, schedule};
use crate::origin::SetupError;

/// The running schedules and polls of one configuration, stopped on drop.
///
/// Stopping the tasks loses nothing, because their state is stored in the fleet.
pub(crate) struct Tasks {
    polls: Polls,
    _running: JoinSet<()>,
}

impl Tasks {
    /// Starts all schedules and polls on the current runtime, or none if one cannot be set up.
    pub(crate) fn start<F: Fleet>(
        schedules: &[Schedule],
        polls: &[Poll],
        context: &TaskContext<F>,
    ) -> Result<Self, SetupError> {
        let mut running = JoinSet::new();
        let started = (context.now)();
        let mut states = Polls::default();
        for poll in polls {
            running.spawn(poll::run(poll, states.add(poll, started), context)?);
        }
        for schedule in schedules {
            running.spawn(schedule::run(schedule.clone(), context.clone()));
        }
        Ok(Self { polls: states, _running: running })
    }

    pub(crate) fn polls(&self) -> &Polls {
        &self.polls
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        field::Timestamp,
        key::uri::TargetUri,
        purge::PurgeLog,
        telemetry::Metrics,
        trigger::{LogFleet, Purger, SelectorResolver},
        warm::{Budget, WarmQueue},
    };

    /// Returns a node without a fleet, and its log. The node's clock follows tokio's clock.
    fn single_node() -> (TaskContext<LogFleet>, Arc<PurgeLog>) {
        let (log, metrics) = (Arc::new(PurgeLog::in_memory()), Metrics::new());
        let resolver = SelectorResolver {
            normalize: Box::new(|target: &TargetUri<'_>| {
                vec![crate::fence::Selector::Url(target.path.into())]
            }),
            owners: Box::new(|_, _| Vec::new()),
        };
        let purger = Purger::new(Arc::clone(&log), Arc::clone(&metrics), resolver);
        let began = tokio::time::Instant::now();
        let base = Timestamp::from_seconds(1_768_024_230);
        let context = TaskContext {
            fleet: Arc::new(LogFleet::new(Arc::new(purger))),
            warm: WarmQueue::new(Budget::default(), Arc::clone(&metrics)),
            now: Arc::new(move || base.saturating_add(began.elapsed())),
            metrics,
        };
        (context, log)
    }

    fn every_minute() -> Schedule {
        Schedule {
            name: None,
            cron: schedule::CronExpression::parse("* * * * *", TimeZone::UTC).unwrap(),
            purge: Box::new(["often".into()]),
            mode: crate::fence::PurgeMode::Hard,
            warm: crate::trigger::fixture::plan(&["/a"]),
        }
    }

    fn poll() -> Poll {
        Poll {
            name: "sales".into(),
            source: poll::DocumentUrl::parse("http://127.0.0.1:1/").unwrap(),
            every: Duration::from_secs(30),
            version: poll::VersionFrom::Validator,
            purge: Box::new(["sales".into()]),
            mode: crate::fence::PurgeMode::Hard,
            warm: crate::warm::WarmPlan::default(),
            delay: None,
            alert_after: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_work_until_they_are_dropped() {
        let (context, log) = single_node();
        let tasks = Tasks::start(&[every_minute()], &[], &context).unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!((log.applied_purges().fence().seq, context.warm.waiting()), (2, 1));
        drop(tasks);
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(log.applied_purges().fence().seq, 2);
        let _again = Tasks::start(&[every_minute()], &[], &context).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(log.applied_purges().fence().seq, 3, "what was due meanwhile");
    }

    #[tokio::test]
    async fn polls_are_listed_before_their_first_result() {
        let (context, _) = single_node();
        let tasks = Tasks::start(&[], &[poll()], &context).unwrap();
        let states = tasks.polls().states();
        assert_eq!((states.len(), &*states[0].name, &states[0].version), (1, "sales", &None));
    }
}

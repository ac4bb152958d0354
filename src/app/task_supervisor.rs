//! Running schedules and polls, replaced as a whole on reload.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    config::Config,
    feed::DataVersion,
    pipeline::{Clock, Pipeline},
    store::TieredStore,
    telemetry::Metrics,
    trigger::{LogFleet, Purger, TaskContext, Tasks},
};

/// Owns the running schedules and polls.
pub(super) struct TaskSupervisor {
    running: Mutex<Tasks>,
    context: TaskContext<LogFleet>,
    runtime: Handle,
}

impl TaskSupervisor {
    /// Starts the schedules and polls of a configuration on the current runtime.
    pub(super) fn start(
        config: &Config,
        pipeline: &Pipeline<TieredStore>,
        purger: &Arc<Purger>,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let context = TaskContext {
            fleet: Arc::new(LogFleet::new(Arc::clone(purger))),
            warm: pipeline.warm_queue().clone(),
            now: Arc::new(move || clock.now()),
            metrics: Arc::clone(metrics),
        };
        let running = Mutex::new(tasks(config, &context)?);
        Ok(Arc::new(Self { running, context, runtime: Handle::current() }))
    }

    /// Replaces schedules and polls with those of another configuration. On failure, keeps the old
    /// schedules and polls.
    pub(super) fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let _runtime = self.runtime.enter();
        let tasks = tasks(config, &self.context)?;
        *self.running.lock() = tasks;
        Ok(())
    }

    /// Returns the data versions found by polls.
    pub(super) fn versions(&self) -> Vec<DataVersion> {
        let states = self.running.lock().polls().states();
        let version = |state: crate::trigger::PollState| DataVersion {
            name: state.name,
            version: state.version,
            changed_at: state.changed_at,
        };
        states.into_iter().map(version).collect()
    }

    /// Updates the metrics of polls.
    pub(super) fn update_metrics(&self) {
        let now = (self.context.now)();
        self.running.lock().polls().update_metrics(now, &self.context.metrics);
    }
}

fn tasks(config: &Config, context: &TaskContext<LogFleet>) -> anyhow::Result<Tasks> {
    Tasks::start(&config.schedules, &config.polls, context).context("cannot set up a poll")
}

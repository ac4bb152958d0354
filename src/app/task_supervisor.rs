//! Schedules and polls at work, replaced as a whole on reload.

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

/// What runs by the clock.
pub(super) struct TaskSupervisor {
    running: Mutex<Tasks>,
    context: TaskContext<LogFleet>,
    runtime: Handle,
}

impl TaskSupervisor {
    /// Sets the schedules and polls of a configuration to work on the current runtime.
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

    /// Puts those of another configuration in their place; keeps the old ones where that fails.
    pub(super) fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let _runtime = self.runtime.enter();
        let tasks = tasks(config, &self.context)?;
        *self.running.lock() = tasks;
        Ok(())
    }

    /// The data versions that polls have found.
    pub(super) fn versions(&self) -> Vec<DataVersion> {
        let states = self.running.lock().polls().states();
        let version = |state: crate::trigger::PollState| DataVersion {
            name: state.name,
            version: state.version,
            changed_at: state.changed_at,
        };
        states.into_iter().map(version).collect()
    }

    /// Brings the metrics of polls up to date.
    pub(super) fn update_metrics(&self) {
        let now = (self.context.now)();
        self.running.lock().polls().update_metrics(now, &self.context.metrics);
    }
}

fn tasks(config: &Config, context: &TaskContext<LogFleet>) -> anyhow::Result<Tasks> {
    Tasks::start(&config.schedules, &config.polls, context).context("a poll cannot be set up")
}

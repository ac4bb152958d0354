//! Schedules and polls at work, replaced as a whole on reload.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    config::Config,
    feed::Version,
    pipeline::{Clock, Pipeline},
    store::Tiered,
    telemetry::Metrics,
    trigger::{Nodes, Purger, Surroundings, Tasks},
};

/// What runs by the clock.
pub struct Timers {
    running: Mutex<Tasks>,
    surroundings: Surroundings<Nodes>,
    runtime: Handle,
}

impl Timers {
    /// Sets the schedules and polls of a configuration to work on the current runtime.
    pub fn start(
        config: &Config,
        pipeline: &Pipeline<Tiered>,
        purger: &Arc<Purger>,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Arc<Self>> {
        let surroundings = Surroundings {
            fleet: Arc::new(Nodes::new(Arc::clone(purger))),
            warm: pipeline.warm().clone(),
            now: Arc::new(move || clock.now()),
            metrics: Arc::clone(metrics),
        };
        let running = Mutex::new(tasks(config, &surroundings)?);
        Ok(Arc::new(Self { running, surroundings, runtime: Handle::current() }))
    }

    /// Puts those of another configuration in their place; keeps the old ones where that fails.
    pub fn replace(&self, config: &Config) -> anyhow::Result<()> {
        let _runtime = self.runtime.enter();
        let tasks = tasks(config, &self.surroundings)?;
        *self.running.lock() = tasks;
        Ok(())
    }

    /// The data versions that polls have found.
    pub fn versions(&self) -> Vec<Version> {
        let states = self.running.lock().polls().states();
        let version = |state: crate::trigger::PollState| Version {
            name: state.name,
            version: state.version,
            changed_at: state.changed_at,
        };
        states.into_iter().map(version).collect()
    }

    /// Brings the metrics of polls up to date.
    pub fn observe(&self) {
        let now = (self.surroundings.now)();
        self.running.lock().polls().observe(now, &self.surroundings.metrics);
    }
}

fn tasks(config: &Config, surroundings: &Surroundings<Nodes>) -> anyhow::Result<Tasks> {
    Tasks::start(&config.schedules, &config.polls, surroundings).context("a poll cannot be set up")
}

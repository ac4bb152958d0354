//! Metrics that are sampled from other counters when read.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use parking_lot::Mutex;

use super::task_supervisor::TaskSupervisor;
use crate::{
    pipeline::Pipeline,
    server::{ListenerCounters, Pressure},
    store::{MemoryUsage, TieredStore},
    telemetry::Metrics,
};

/// Copies counts from other components to the metrics.
pub(super) struct Sampler {
    pipeline: Arc<Pipeline<TieredStore>>,
    metrics: Arc<Metrics>,
    counters: Arc<ListenerCounters>,
    pressure: Pressure,
    task_supervisor: Arc<TaskSupervisor>,
    last: Mutex<LastSample>,
}

#[derive(Default)]
struct LastSample {
    usage: MemoryUsage,
    refused: u64,
    rejected: u64,
}

impl Sampler {
    pub(super) fn new(
        pipeline: &Arc<Pipeline<TieredStore>>,
        task_supervisor: &Arc<TaskSupervisor>,
        metrics: &Arc<Metrics>,
        (counters, pressure): (&Arc<ListenerCounters>, &Pressure),
    ) -> Self {
        Self {
            pipeline: Arc::clone(pipeline),
            task_supervisor: Arc::clone(task_supervisor),
            metrics: Arc::clone(metrics),
            counters: Arc::clone(counters),
            pressure: pressure.clone(),
            last: Mutex::default(),
        }
    }

    /// Updates the sampled metrics.
    pub(super) fn sample(&self) {
        let mut last = self.last.lock();
        self.sample_store(&mut last);
        self.sample_connections(&mut last);
        self.sample_origin(&mut last);
        self.metrics.filling_bytes.set(signed(self.pipeline.fill_budget_used()));
        self.metrics.pinned_bytes.set(signed(self.pipeline.store().pinned_bytes()));
        self.pipeline.log().observe(&self.metrics);
        self.task_supervisor.update_metrics();
    }

    fn sample_store(&self, last: &mut LastSample) {
        let usage = self.pipeline.store().usage();
        let tier = &["memory"];
        self.metrics.store_entries.with_label_values(tier).set(signed(usage.entries));
        self.metrics.store_bytes.with_label_values(tier).set(signed(usage.bytes));
        let shadow = self.pipeline.shadow_usage();
        if shadow != MemoryUsage::default() {
            let tier = &["shadow"];
            self.metrics.store_entries.with_label_values(tier).set(signed(shadow.entries));
            self.metrics.store_bytes.with_label_values(tier).set(signed(shadow.bytes));
        }
        let before = std::mem::replace(&mut last.usage, usage);
        for (cause, now, then) in [
            ("capacity", usage.evicted, before.evicted),
            ("share", usage.evicted_by_share, before.evicted_by_share),
            ("replaced", usage.replaced, before.replaced),
            ("invalidated", usage.removed, before.removed),
            ("too-large", usage.refused, before.refused),
        ] {
            let counter = self.metrics.evictions.with_label_values(&["memory", cause]);
            counter.inc_by(now.saturating_sub(then));
        }
    }

    fn sample_connections(&self, last: &mut LastSample) {
        self.metrics.connections.set(signed(self.counters.open.load(Relaxed) as u64));
        let refused = self.counters.refused.load(Relaxed);
        let before = std::mem::replace(&mut last.refused, refused);
        self.metrics.connections_refused.inc_by(refused.saturating_sub(before));
        self.metrics.tunnels.set(signed(self.counters.tunnels.load(Relaxed) as u64));
        self.metrics.pressure.set(i64::from(self.pressure.is_high()));
        for (counter, count) in [
            (&self.metrics.accept_errors, &self.counters.accept_errors),
            (&self.metrics.tunnels_refused, &self.counters.tunnels_refused),
            (&self.metrics.stalled_responses, &self.counters.stalled),
        ] {
            counter.inc_by(count.load(Relaxed).saturating_sub(counter.get()));
        }
        for (refusal, count) in self.counters.refused_requests() {
            let counter = self.metrics.refused_requests.with_label_values(&[refusal.as_str()]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}

impl Sampler {
    fn sample_origin(&self, last: &mut LastSample) {
        let load = self.pipeline.origin_load();
        self.metrics.origin_connections.set(signed(load.connections as u64));
        self.metrics.origin_pending.set(signed(load.pending as u64));
        // Counters restart from zero on reload.
        let before = std::mem::replace(&mut last.rejected, load.rejected);
        let more = load.rejected.checked_sub(before).unwrap_or(load.rejected);
        self.metrics.origin_rejected.inc_by(more);
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

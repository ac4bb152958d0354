//! Watches memory and the connections to the origin: while either is short, clients that do not read lose
//! their responses sooner.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tikv_jemalloc_ctl::{epoch, stats};

use crate::{
    pipeline::Pipeline,
    server::{ListenerCounters, Pressure},
    store::{Store as _, TieredStore},
};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Bytes beside `store.memory` and what connections take, above which memory is short. The process is to
/// stay under `store.memory` plus 128 MiB plus [`BYTES_PER_CONNECTION`] for each connection.
const ALLOWANCE: u64 = 64 << 20;

/// What one connection may take without memory being short.
const BYTES_PER_CONNECTION: u64 = 32 << 10;

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    /// Memory, or the part of it for responses that were evicted and are still being read.
    Memory,
    /// Connections to the origin: requests wait for one, and responses that are not read may hold them.
    Connections,
}

/// Sets the flag while something is short; for as long as the process runs.
pub(super) async fn watch(
    memory: u64,
    pipeline: Arc<Pipeline<TieredStore>>,
    counters: Arc<ListenerCounters>,
    pressure: Pressure,
) {
    let (mut before, mut waited) = (None, false);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let open = counters.open.load(Relaxed) as u64;
        let is_short = allocated().is_some_and(|bytes| is_short(bytes, memory, open));
        let waits = pipeline.origin_load().pending > 0;
        let shortage = if is_short || pipeline.store().is_over_pinned_limit() {
            Some(Shortage::Memory)
        } else {
            // A request that waited at one look only may have waited for a moment.
            (waits && waited).then_some(Shortage::Connections)
        };
        waited = waits;
        if shortage != before {
            pressure.set_high(shortage.is_some());
            report(shortage);
            before = shortage;
        }
    }
}

fn report(shortage: Option<Shortage>) {
    let what = match shortage {
        None => return tracing::info!("memory and connections to the origin suffice again"),
        Some(Shortage::Memory) => "memory is short",
        Some(Shortage::Connections) => "requests wait for connections to the origin",
    };
    tracing::warn!("{what}: clients that do not read lose their responses after seconds");
}

fn is_short(allocated: u64, memory: u64, connections: u64) -> bool {
    allocated > memory.saturating_add(ALLOWANCE).saturating_add(connections * BYTES_PER_CONNECTION)
}

/// Bytes that the process has allocated; `None` if another allocator is in use.
fn allocated() -> Option<u64> {
    epoch::advance().ok()?;
    stats::allocated::read().ok().map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_beyond_the_store_its_connections_and_an_allowance() {
        let memory = 256 << 20;
        assert!(!is_short(memory + ALLOWANCE, memory, 0));
        assert!(is_short(memory + ALLOWANCE + 1, memory, 0));
        assert!(!is_short(memory + ALLOWANCE + 1, memory, 1));
        assert!(!is_short(u64::MAX, u64::MAX, 1));
    }
}

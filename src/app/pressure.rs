//! Watches the process's memory: while it is short, clients that do not read lose their responses sooner.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tikv_jemalloc_ctl::{epoch, stats};

use crate::{
    pipeline::Pipeline,
    server::{Counters, Pressure},
    store::{Store as _, Tiered},
};

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Bytes beside `store.memory` and what connections take, above which memory is short. The process is to
/// stay under `store.memory` plus 96 MiB plus [`A_CONNECTION`] for each connection.
const ALLOWANCE: u64 = 64 << 20;

/// What one connection may take without memory being short.
const A_CONNECTION: u64 = 32 << 10;

/// Sets the flag while memory is short, or while responses that were evicted and are still being read take
/// more than they may; for as long as the process runs.
pub async fn watch(
    memory: u64,
    pipeline: Arc<Pipeline<Tiered>>,
    counters: Arc<Counters>,
    pressure: Pressure,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        let open = counters.open.load(Relaxed) as u64;
        let is_short = allocated().is_some_and(|bytes| is_short(bytes, memory, open));
        let is_high = is_short || pipeline.store().is_crowded();
        if is_high != pressure.is_high() {
            pressure.set_high(is_high);
            if is_high {
                tracing::warn!(
                    "memory is short: clients that do not read lose their responses after seconds"
                );
            } else {
                tracing::info!("memory is no longer short");
            }
        }
    }
}

fn is_short(allocated: u64, memory: u64, connections: u64) -> bool {
    allocated > memory.saturating_add(ALLOWANCE).saturating_add(connections * A_CONNECTION)
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

//! Monitors memory and origin connections. While either is short, unread responses are dropped
//! sooner.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tikv_jemalloc_ctl::{epoch, stats};
use tokio::time::Instant;

use crate::{
    pipeline::Pipeline,
    server::{ListenerCounters, Pressure},
    store::{Store as _, TieredStore},
};

/// The interval between checks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The interval between reads of the allocator's statistics, which take 0.1 ms to merge.
const ALLOCATOR_INTERVAL: Duration = Duration::from_millis(500);

/// Number of consecutive checks with waiting requests after which origin connections count as
/// short. With fewer checks, a brief wait would suffice.
const WAITS: u32 = 5;

/// How long a resource counts as short after the last check that found a shortage.
const HOLD: Duration = Duration::from_secs(1);

/// Memory counts as short this many bytes above `store.memory` and the connections' allowance.
///
/// The process should stay below `store.memory` plus 128 MiB plus [`BYTES_PER_CONNECTION`] for each
/// connection.
const ALLOWANCE: u64 = 64 << 20;

/// The memory allowance of one connection, in bytes.
const BYTES_PER_CONNECTION: u64 = 40 << 10;

/// A resource that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    /// Memory, or the budget for evicted responses that are still being read.
    Memory,
    /// Origin connections: requests wait for connections that unread responses may occupy.
    Connections,
}

/// Sets `pressure` while a resource is short. Never returns.
pub(super) async fn watch(
    memory: u64,
    pipeline: Arc<Pipeline<TieredStore>>,
    counters: Arc<ListenerCounters>,
    pressure: Pressure,
) {
    let (mut before, mut waits, mut seen_at) = (None, 0_u32, Instant::now());
    let (mut looked_at, mut allocator_is_short) = (Instant::now(), false);
    loop {
        tokio::time::sleep(INTERVAL).await;
        if looked_at.elapsed() >= ALLOCATOR_INTERVAL {
            let open = counters.open.load(Relaxed) as u64;
            let stored = memory + pipeline.shadow_usage().bytes;
            let files = pipeline.store().file_bytes();
            allocator_is_short =
                allocated().is_some_and(|bytes| is_short(bytes + files, stored, open));
            looked_at = Instant::now();
        }
        waits = if pipeline.origin_load().pending > 0 { waits.saturating_add(1) } else { 0 };
        let shortage = if allocator_is_short || pipeline.store().is_over_pinned_limit() {
            Some(Shortage::Memory)
        } else {
            (waits >= WAITS).then_some(Shortage::Connections)
        };
        if shortage.is_some() {
            seen_at = Instant::now();
        } else if seen_at.elapsed() < HOLD {
            continue;
        }
        if shortage != before {
            pressure.set_high(shortage.is_some());
            report(shortage);
            before = shortage;
        }
    }
}

fn report(shortage: Option<Shortage>) {
    let what = match shortage {
        None => return tracing::info!("memory and connections to the origin are sufficient again"),
        Some(Shortage::Memory) => "memory is short",
        Some(Shortage::Connections) => "requests wait for connections to the origin",
    };
    tracing::warn!("{what}: responses that clients do not read are dropped after 3 s");
}

fn is_short(allocated: u64, memory: u64, connections: u64) -> bool {
    allocated > memory.saturating_add(ALLOWANCE).saturating_add(connections * BYTES_PER_CONNECTION)
}

/// Returns the number of allocated bytes; `None` if the allocator is not jemalloc.
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

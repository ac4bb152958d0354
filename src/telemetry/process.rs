//! The standard `process_*` metrics, read from `/proc`.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge};

use super::catalogue::Catalogue;

/// The unit of processor time in `/proc`: a hundredth of a second on all supported platforms.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE: i64 = 4096;

/// The process metrics that Prometheus clients of all languages export.
pub(super) struct ProcessMetrics {
    cpu: Counter,
    resident: IntGauge,
    open_files: IntGauge,
    start: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        let process = Self {
            cpu: catalogue.seconds_total(
                "process_cpu_seconds_total",
                "User and system CPU time spent, in seconds.",
            ),
            resident: catalogue.gauge("process_resident_memory_bytes", "Resident memory in bytes."),
            open_files: catalogue.gauge("process_open_fds", "Open file descriptors."),
            start: catalogue.seconds(
                "process_start_time_seconds",
                "Start time of the process, in seconds since the Unix epoch.",
            ),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        process.start.set(now.as_secs_f64());
        process
    }

    /// Reads the current values. Keeps the last values if `/proc` is unavailable.
    pub(super) fn refresh(&self) {
        if let Some(seconds) = cpu_seconds() {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name may contain anything, so fields are counted from its closing parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

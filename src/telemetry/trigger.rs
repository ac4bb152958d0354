//! The metrics of schedules, polls and warming.

use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;

/// The metric handles of triggers. Labels are configured names and cron expressions, or closed
/// lists.
pub(crate) struct TriggerMetrics {
    pub(crate) schedule_runs: IntCounterVec,
    pub(crate) schedule_last_run: GaugeVec,
    pub(crate) polls: IntCounterVec,
    pub(crate) poll_last_change: GaugeVec,
    pub(crate) poll_version_age: GaugeVec,
    pub(crate) poll_overdue: IntGaugeVec,
    pub(crate) warm_requests: IntCounterVec,
    pub(crate) warm_outcomes: IntCounterVec,
    pub(crate) warm_waiting: IntGauge,
}

impl TriggerMetrics {
    pub(super) fn new(catalogue: &Catalogue<'_>) -> Self {
        Self {
            schedule_runs: catalogue.counters(
                "larder_schedule_runs_total",
                "Runs of schedules, by schedule and result.",
                &["schedule", "result"],
            ),
            schedule_last_run: catalogue.seconds_by(
                "larder_schedule_last_run_timestamp_seconds",
                "Scheduled time of the last run, in seconds since the Unix epoch.",
                &["schedule"],
            ),
            polls: catalogue.counters(
                "larder_polls_total",
                "Polls by this node, by poll and result.",
                &["poll", "result"],
            ),
            poll_last_change: catalogue.seconds_by(
                "larder_poll_last_change_timestamp_seconds",
                "Time at which a poll's data version was first seen, in seconds since the Unix epoch.",
                &["poll"],
            ),
            poll_version_age: catalogue.seconds_by(
                "larder_poll_version_age_seconds",
                "Seconds since a poll's data version was first seen, or since polling began.",
                &["poll"],
            ),
            poll_overdue: catalogue.gauges(
                "larder_poll_overdue",
                "1 if a poll's data version is older than its alert_after, else 0.",
                &["poll"],
            ),
            warm_requests: catalogue.counters(
                "larder_warm_requests_total",
                "Warm-up requests, by result.",
                &["result"],
            ),
            warm_outcomes: catalogue.counters(
                "larder_warm_outcomes_total",
                "Completed warm-up requests, by outcome and reason.",
                &["outcome", "reason"],
            ),
            warm_waiting: catalogue.gauge("larder_warm_waiting", "Queued warm-up requests."),
        }
    }
}

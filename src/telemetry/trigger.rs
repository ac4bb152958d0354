//! The metrics of schedules, polls and warming.

use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalogue::Catalogue;

/// The metric handles of triggers. Labels are configured names and cron expressions, or closed
/// lists.
pub struct TriggerMetrics {
    /// Runs of schedules, by schedule and result.
    pub schedule_runs: IntCounterVec,
    /// When a schedule last ran, in seconds since the Unix epoch.
    pub schedule_last_run: GaugeVec,
    /// Polls, by poll and result.
    pub polls: IntCounterVec,
    /// When a poll's version last changed, in seconds since the Unix epoch.
    pub poll_last_change: GaugeVec,
    /// Seconds since a poll's version last changed.
    pub poll_version_age: GaugeVec,
    /// 1 while the version is older than `alert_after`.
    pub poll_overdue: IntGaugeVec,
    /// Warming requests, by what happened to them.
    pub warm_requests: IntCounterVec,
    /// Executed warming requests, by outcome and reason.
    pub warm_outcomes: IntCounterVec,
    /// Queued warming requests.
    pub warm_waiting: IntGauge,
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
                "When a poll's version was first seen, in seconds since the Unix epoch.",
                &["poll"],
            ),
            poll_version_age: catalogue.seconds_by(
                "larder_poll_version_age_seconds",
                "Seconds since a poll's version was first seen, or since polling began.",
                &["poll"],
            ),
            poll_overdue: catalogue.gauges(
                "larder_poll_overdue",
                "1 if a poll's version is older than its alert_after, else 0.",
                &["poll"],
            ),
            warm_requests: catalogue.counters(
                "larder_warm_requests_total",
                "Requests queued for warming, by result.",
                &["result"],
            ),
            warm_outcomes: catalogue.counters(
                "larder_warm_outcomes_total",
                "Warmed requests, by outcome and reason.",
                &["outcome", "reason"],
            ),
            warm_waiting: catalogue.gauge("larder_warm_waiting", "Requests that wait for warming."),
        }
    }
}

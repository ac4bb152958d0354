//! The latest results of polls, for metrics and `/_larder/version`.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Poll;
use crate::{field::Timestamp, telemetry::Metrics};

/// The latest version found by a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PollState {
    /// The name of the poll.
    pub name: Box<str>,
    /// The version, if one has been found.
    pub version: Option<Box<str>>,
    /// The time at which the version was first seen, if one has been found.
    pub changed_at: Option<Timestamp>,
}

/// All polls of a configuration, with their results.
#[derive(Default, Clone)]
pub(crate) struct Polls(Vec<Arc<PollCell>>);

impl Polls {
    /// Returns the results in the order of the configuration.
    pub(crate) fn states(&self) -> Vec<PollState> {
        self.0.iter().map(|cell| cell.state()).collect()
    }

    /// Updates the metrics about the polled versions.
    pub(crate) fn update_metrics(&self, now: Timestamp, metrics: &Metrics) {
        for cell in &self.0 {
            cell.update_metrics(now, metrics);
        }
    }

    pub(in crate::trigger) fn add(&mut self, poll: &Poll, since: Timestamp) -> Arc<PollCell> {
        let cell = PollCell {
            name: poll.name.clone(),
            alert_after: poll.alert_after,
            since,
            record: Mutex::default(),
        };
        let cell = Arc::new(cell);
        self.0.push(Arc::clone(&cell));
        cell
    }
}

/// The result of one poll.
pub(crate) struct PollCell {
    name: Box<str>,
    alert_after: Option<Duration>,
    /// The time at which polling began.
    since: Timestamp,
    record: Mutex<Option<VersionRecord>>,
}

/// A version as stored in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    /// The version; `None` if no response has had a version.
    pub(super) version: Option<Box<str>>,
    /// The time at which the version was first seen, in milliseconds since the Unix epoch.
    pub(super) changed_at: u64,
    /// The times of delayed purges in milliseconds, earliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) again_at: Vec<u64>,
}

/// The maximum number of delayed purges. Beyond it, the last two are merged into the later one.
const MAX_DELAYED_PURGES: usize = 16;

impl VersionRecord {
    /// Creates the record of a version first seen at `now`. Adds a purge after `delay` to the
    /// delayed purges `again_at`.
    pub(super) fn new(
        version: Option<Box<str>>,
        now: Timestamp,
        (mut again_at, delay): (Vec<u64>, Option<Duration>),
    ) -> Self {
        if let Some(delay) = delay {
            again_at.push(now.saturating_add(delay).millis());
            // Not sorted if the delay was shortened, or the clock set back.
            again_at.sort_unstable();
            if again_at.len() > MAX_DELAYED_PURGES {
                again_at.remove(MAX_DELAYED_PURGES - 1);
            }
        }
        Self { version, changed_at: now.millis(), again_at }
    }

    /// Returns the record without the delayed purges that are due, or `None` if no purge is due.
    pub(super) fn without_due(&self, now: Timestamp) -> Option<Self> {
        let now = now.millis();
        let again_at: Vec<u64> = self.again_at.iter().copied().filter(|at| *at > now).collect();
        (again_at.len() < self.again_at.len()).then(|| Self { again_at, ..self.clone() })
    }

    /// Returns the time until the next delayed purge, if there is one.
    pub(super) fn until_due(&self, now: Timestamp) -> Option<Duration> {
        let next = self.again_at.first()?;
        Some(Timestamp::from_millis(*next).saturating_since(now))
    }
}

impl PollCell {
    pub(super) fn record(&self) -> Option<VersionRecord> {
        self.record.lock().clone()
    }

    pub(super) fn set_record(&self, record: VersionRecord) {
        *self.record.lock() = Some(record);
    }

    fn state(&self) -> PollState {
        let record = self.record();
        let record = record.and_then(|record| Some((record.version?, record.changed_at)));
        PollState {
            name: self.name.clone(),
            changed_at: record.as_ref().map(|(_, at)| Timestamp::from_millis(*at)),
            version: record.map(|(version, _)| version),
        }
    }

    pub(super) fn update_metrics(&self, now: Timestamp, metrics: &Metrics) {
        let (label, metrics) = (&[&*self.name], &metrics.triggers);
        let record = self.record();
        let changed_at = record.filter(|it| it.version.is_some()).map(|it| it.changed_at);
        if let Some(millis) = changed_at {
            let seconds = Duration::from_millis(millis).as_secs_f64();
            metrics.poll_last_change.with_label_values(label).set(seconds);
        }
        let age = now.saturating_since(changed_at.map_or(self.since, Timestamp::from_millis));
        metrics.poll_version_age.with_label_values(label).set(age.as_secs_f64());
        if let Some(alert_after) = self.alert_after {
            let overdue = metrics.poll_overdue.with_label_values(label);
            overdue.set(i64::from(age > alert_after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn changed(now: u64, again_at: Vec<u64>) -> Vec<u64> {
        let now = Timestamp::from_millis(now);
        VersionRecord::new(None, now, (again_at, Some(MINUTE))).again_at
    }

    #[test]
    fn a_further_purge_that_is_due_earlier_comes_first() {
        assert_eq!(changed(0, vec![90_000, 120_000]), [60_000, 90_000, 120_000]);
    }

    #[test]
    fn of_many_further_purges_two_become_one_at_the_later_time() {
        let last = u64::try_from(MAX_DELAYED_PURGES).unwrap();
        let later: Vec<u64> = (1..=last).map(|number| 60_000 * (1 + number)).collect();
        let merged = changed(0, later.clone());
        assert_eq!((merged.len(), merged.first()), (MAX_DELAYED_PURGES, Some(&60_000)));
        assert_eq!(merged.last(), later.last(), "the last one is still to come");
        let earlier: Vec<u64> = (1..=last).collect();
        let merged = changed(0, earlier);
        assert_eq!((merged.len(), merged.last()), (MAX_DELAYED_PURGES, Some(&60_000)));
    }
}

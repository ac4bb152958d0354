//! What polls have found so far, for metrics and whoever asks.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Poll;
use crate::{field::Timestamp, telemetry::Metrics};

/// The version that a poll has found last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollState {
    /// The poll's name.
    pub name: Box<str>,
    /// The version; none where none has been found yet.
    pub version: Option<Box<str>>,
    /// When the version was first seen; none where none has been found yet.
    pub changed_at: Option<Timestamp>,
}

/// All polls of a configuration, with what they have found.
#[derive(Default, Clone)]
pub struct Polls(Vec<Arc<Slot>>);

impl Polls {
    /// What has been found, in the order of the configuration.
    pub fn states(&self) -> Vec<PollState> {
        self.0.iter().map(|slot| slot.state()).collect()
    }

    /// Brings the metrics about ages up to date.
    pub fn observe(&self, now: Timestamp, metrics: &Metrics) {
        for slot in &self.0 {
            slot.observe(now, metrics);
        }
    }

    pub(in crate::trigger) fn add(&mut self, poll: &Poll, since: Timestamp) -> Arc<Slot> {
        let slot = Slot {
            name: poll.name.clone(),
            alert_after: poll.alert_after,
            since,
            known: Mutex::default(),
        };
        let slot = Arc::new(slot);
        self.0.push(Arc::clone(&slot));
        slot
    }
}

/// What one poll has found.
pub struct Slot {
    name: Box<str>,
    alert_after: Option<Duration>,
    /// When polling began.
    since: Timestamp,
    known: Mutex<Option<Known>>,
}

/// A version, as the fleet remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) version: Box<str>,
    /// When it was first seen, in milliseconds since the Unix epoch.
    pub(super) changed_at: u64,
}

impl Slot {
    pub(super) fn known(&self) -> Option<Known> {
        self.known.lock().clone()
    }

    pub(super) fn learn(&self, known: Known) {
        *self.known.lock() = Some(known);
    }

    fn state(&self) -> PollState {
        let known = self.known();
        PollState {
            name: self.name.clone(),
            changed_at: known.as_ref().map(|known| Timestamp::from_millis(known.changed_at)),
            version: known.map(|known| known.version),
        }
    }

    pub(super) fn observe(&self, now: Timestamp, metrics: &Metrics) {
        let (label, metrics) = (&[&*self.name], &metrics.triggers);
        let changed_at = self.known.lock().as_ref().map(|known| known.changed_at);
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

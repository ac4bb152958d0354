//! Rate limit for purges that clients can trigger at will: one purge a second for each subject.
//!
//! A write without a response purges like a success, and a refused credential is published to all
//! nodes. Clients can cause such purges by disconnecting or by repeating requests, and must not
//! fill the purge log. Purges within the second are merged into one at its end; none is dropped.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::fence::Selector;

/// Minimum time between two purges of one subject.
const WINDOW: Duration = Duration::from_secs(1);

/// Maximum number of subjects remembered. Purges of further subjects are not limited.
const SUBJECTS: usize = 4096;

/// The subject of a purge: its selectors, and the client's address if clients are limited
/// separately.
pub(super) type PurgeSubject = (Option<IpAddr>, Vec<Selector>);

/// Recent purges, by subject.
#[derive(Default)]
pub(super) struct PurgeRate {
    windows: Mutex<HashMap<PurgeSubject, RateWindow>>,
}

/// The period of one second after a purge.
struct RateWindow {
    ends: Instant,
    /// Whether another purge follows at the end of the window.
    is_followed: bool,
}

/// When a purge is appended to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PurgeSlot {
    Now,
    /// The purge is written at this time. The caller then calls [`PurgeRate::begin_window`] and
    /// writes it.
    At(Instant),
    /// The purge is merged into a purge that is already scheduled.
    Merged,
}

impl PurgeRate {
    /// Returns when a purge requested at `now` is written.
    pub(super) fn reserve(&self, subject: &PurgeSubject, now: Instant) -> PurgeSlot {
        let mut windows = self.windows.lock();
        match windows.get_mut(subject) {
            Some(window) if window.is_followed => return PurgeSlot::Merged,
            Some(window) if now < window.ends => {
                window.is_followed = true;
                return PurgeSlot::At(window.ends);
            }
            _ => {}
        }
        if windows.len() >= SUBJECTS {
            windows.retain(|_, window| window.is_followed || now < window.ends);
        }
        if windows.len() < SUBJECTS {
            windows.insert(subject.clone(), RateWindow::from(now));
        }
        PurgeSlot::Now
    }

    /// Starts the next window of a subject, whose scheduled purge is written now.
    pub(super) fn begin_window(&self, subject: &PurgeSubject, now: Instant) {
        if let Some(window) = self.windows.lock().get_mut(subject) {
            *window = RateWindow::from(now);
        }
    }
}

impl From<Instant> for RateWindow {
    fn from(begin: Instant) -> Self {
        Self { ends: begin + WINDOW, is_followed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(client: u8, tag: &str) -> PurgeSubject {
        (Some(IpAddr::from([192, 0, 2, client])), vec![Selector::Tag(tag.into())])
    }

    #[test]
    fn later_ones_within_a_second_are_merged_into_one_at_its_end() {
        let (rate, start) = (PurgeRate::default(), Instant::now());
        let (subject, end) = (subject(1, "a"), start + WINDOW);
        let turn = |millis| rate.reserve(&subject, start + Duration::from_millis(millis));
        assert_eq!(turn(0), PurgeSlot::Now);
        assert_eq!(turn(300), PurgeSlot::At(end));
        assert_eq!(turn(600), PurgeSlot::Merged);
        assert_eq!(turn(1100), PurgeSlot::Merged, "what is late is still going to be written");
        rate.begin_window(&subject, start + Duration::from_millis(1200));
        assert_eq!(turn(1300), PurgeSlot::At(start + Duration::from_millis(2200)));
        rate.begin_window(&subject, start + Duration::from_millis(2200));
        assert_eq!(turn(3200), PurgeSlot::Now);
    }

    #[test]
    fn clients_and_targets_are_counted_apart() {
        let (rate, now) = (PurgeRate::default(), Instant::now());
        for subject in [subject(1, "a"), subject(2, "a"), subject(1, "b")] {
            assert_eq!(rate.reserve(&subject, now), PurgeSlot::Now);
        }
    }

    #[test]
    fn the_table_is_bounded_and_drops_nothing() {
        let (rate, start) = (PurgeRate::default(), Instant::now());
        let numbered = |number: usize| subject(1, &number.to_string());
        for number in 0..=SUBJECTS {
            assert_eq!(rate.reserve(&numbered(number), start), PurgeSlot::Now);
        }
        assert_eq!(rate.windows.lock().len(), SUBJECTS);
        assert_eq!(rate.reserve(&numbered(0), start), PurgeSlot::At(start + WINDOW));
        assert_eq!(rate.reserve(&numbered(SUBJECTS), start), PurgeSlot::Now, "not remembered");
        assert_eq!(rate.reserve(&numbered(SUBJECTS), start + WINDOW), PurgeSlot::Now);
        assert_eq!(rate.windows.lock().len(), 2, "the followed one and the new one");
    }
}

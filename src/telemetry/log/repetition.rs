//! Limits on messages that repeat: a Redis or an origin that fails writes a few lines, not one a request.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    time::{Duration, Instant},
};

/// A message may come this often within a window; what follows is counted.
const BURST: u64 = 5;

/// How long a message is counted until it is said how often it came.
const WINDOW: Duration = Duration::from_secs(10);

/// Messages told apart at once; those beyond share one place.
const PLACES: usize = 256;

/// The messages of the last seconds, and how often each came.
#[derive(Debug, Default)]
pub(super) struct Repetitions {
    windows: HashMap<u64, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    seen: u64,
    level: tracing::Level,
    message: Box<str>,
}

/// A message that came more often than it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    pub(super) level: tracing::Level,
    pub(super) message: Box<str>,
    /// How often it came without being written.
    pub(super) times: u64,
}

impl Repetitions {
    /// Whether this message is to be written.
    pub(super) fn admits(&mut self, level: tracing::Level, message: &str, now: Instant) -> bool {
        let mut place = place_of(message);
        let mut message = message;
        if self.windows.len() >= PLACES && !self.windows.contains_key(&place) {
            (place, message) = (0, "other messages");
        }
        let window = self.windows.entry(place).or_insert_with(|| Window {
            began: now,
            seen: 0,
            level,
            message: message.into(),
        });
        window.seen += 1;
        window.seen <= BURST
    }

    /// Returns the messages that were held back in windows that are over.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<Repeated> {
        let mut ended = Vec::new();
        self.windows.retain(|_, window| {
            if now.duration_since(window.began) < WINDOW {
                return true;
            }
            let repeated = window.held_back();
            let goes_on = repeated.is_some();
            ended.extend(repeated);
            // What goes on stays limited: its next lines are those that count it.
            window.began = now;
            window.seen = BURST;
            goes_on
        });
        ended
    }

    /// Takes all that is held back, for the last lines of a process.
    pub(super) fn take(&mut self) -> Vec<Repeated> {
        mem::take(&mut self.windows).into_values().filter_map(|window| window.held_back()).collect()
    }

    /// How many messages are told apart at present.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.windows.len()
    }
}

impl Window {
    fn held_back(&self) -> Option<Repeated> {
        let times = self.seen.checked_sub(BURST).filter(|times| *times > 0)?;
        Some(Repeated { level: self.level, message: self.message.clone(), times })
    }
}

fn place_of(message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn after(seconds: u64) -> impl Fn(Instant) -> Instant {
        move |begin| begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_message_that_repeats_is_counted_and_told_of_later() {
        let (mut repetitions, begin) = (Repetitions::default(), Instant::now());
        let mut written = 0;
        for _ in 0..1000 {
            written += u64::from(repetitions.admits(Level::WARN, "Redis does not answer", begin));
        }
        assert!(repetitions.admits(Level::WARN, "another", begin));
        assert_eq!(written, BURST);
        assert_eq!(repetitions.ended(after(9)(begin)), []);
        let repeated =
            Repeated { level: Level::WARN, message: "Redis does not answer".into(), times: 995 };
        assert_eq!(repetitions.ended(after(10)(begin)), [repeated]);
    }

    #[test]
    fn one_that_goes_on_stays_limited_and_one_that_stops_is_forgotten() {
        let (mut repetitions, begin) = (Repetitions::default(), Instant::now());
        (0..6).for_each(|_| {
            repetitions.admits(Level::WARN, "a", begin);
        });
        assert_eq!(repetitions.ended(after(10)(begin)).len(), 1);
        assert!(!repetitions.admits(Level::WARN, "a", after(11)(begin)));
        assert_eq!(repetitions.ended(after(20)(begin))[0].times, 1);
        assert_eq!(repetitions.ended(after(30)(begin)), []);
        assert_eq!(repetitions.len(), 0);
        assert!(repetitions.admits(Level::WARN, "a", after(31)(begin)));
    }

    #[test]
    fn the_table_is_bounded_and_nothing_is_lost_at_the_end() {
        let (mut repetitions, now) = (Repetitions::default(), Instant::now());
        for number in 0..10_000 {
            repetitions.admits(Level::WARN, &number.to_string(), now);
        }
        assert_eq!(repetitions.len(), PLACES + 1);
        let last = repetitions.take();
        assert_eq!(last.len(), 1);
        assert_eq!((&*last[0].message, last[0].times), ("other messages", 10_000 - 256 - BURST));
        assert_eq!(repetitions.len(), 0);
    }
}

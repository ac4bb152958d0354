//! Limits on repeated messages, so that a failing Redis or origin does not log a line for each
//! request.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    mem,
    time::{Duration, Instant},
};

/// The number of equal messages written in a window. Further messages are only counted.
const BURST: u64 = 5;

/// The length of a window, after which suppressed messages are reported.
const WINDOW: Duration = Duration::from_secs(10);

/// The number of different messages tracked at a time. Further messages share one counter.
const MAX_MESSAGES: usize = 256;

/// The messages of the current windows, and their counts.
#[derive(Debug, Default)]
pub(super) struct RepetitionLimiter {
    windows: HashMap<u64, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    seen: u64,
    level: tracing::Level,
    message: Box<str>,
}

/// A message that was partly suppressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SuppressedMessage {
    pub(super) level: tracing::Level,
    pub(super) message: Box<str>,
    /// The number of times the message was suppressed.
    pub(super) times: u64,
}

impl RepetitionLimiter {
    /// Returns true if this message should be written.
    pub(super) fn admit(&mut self, level: tracing::Level, message: &str, now: Instant) -> bool {
        let mut key = hash_of(message);
        let mut message = message;
        if self.windows.len() >= MAX_MESSAGES && !self.windows.contains_key(&key) {
            (key, message) = (0, "other messages");
        }
        let window = self.windows.entry(key).or_insert_with(|| Window {
            began: now,
            seen: 0,
            level,
            message: message.into(),
        });
        window.seen += 1;
        window.seen <= BURST
    }

    /// Ends the expired windows, and returns the messages that were suppressed in them.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<SuppressedMessage> {
        let mut ended = Vec::new();
        self.windows.retain(|_, window| {
            if now.duration_since(window.began) < WINDOW {
                return true;
            }
            let repeated = window.suppressed();
            let goes_on = repeated.is_some();
            ended.extend(repeated);
            // A message that keeps repeating stays limited: only reports about it are written.
            window.began = now;
            window.seen = BURST;
            goes_on
        });
        ended
    }

    /// Ends all windows, and returns their suppressed messages. Used at the end of the process.
    pub(super) fn take(&mut self) -> Vec<SuppressedMessage> {
        mem::take(&mut self.windows)
            .into_values()
            .filter_map(|window| window.suppressed())
            .collect()
    }

    /// Returns the number of tracked messages.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.windows.len()
    }
}

impl Window {
    fn suppressed(&self) -> Option<SuppressedMessage> {
        let times = self.seen.checked_sub(BURST).filter(|times| *times > 0)?;
        Some(SuppressedMessage { level: self.level, message: self.message.clone(), times })
    }
}

fn hash_of(message: &str) -> u64 {
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
    fn repeated_messages_are_counted_and_reported_later() {
        let (mut repetitions, begin) = (RepetitionLimiter::default(), Instant::now());
        let mut written = 0;
        for _ in 0..1000 {
            written += u64::from(repetitions.admit(Level::WARN, "Redis does not answer", begin));
        }
        assert!(repetitions.admit(Level::WARN, "another", begin));
        assert_eq!(written, BURST);
        assert_eq!(repetitions.ended(after(9)(begin)), []);
        let repeated = SuppressedMessage {
            level: Level::WARN,
            message: "Redis does not answer".into(),
            times: 995,
        };
        assert_eq!(repetitions.ended(after(10)(begin)), [repeated]);
    }

    #[test]
    fn one_that_goes_on_stays_limited_and_one_that_stops_is_forgotten() {
        let (mut repetitions, begin) = (RepetitionLimiter::default(), Instant::now());
        (0..6).for_each(|_| {
            repetitions.admit(Level::WARN, "a", begin);
        });
        assert_eq!(repetitions.ended(after(10)(begin)).len(), 1);
        assert!(!repetitions.admit(Level::WARN, "a", after(11)(begin)));
        assert_eq!(repetitions.ended(after(20)(begin))[0].times, 1);
        assert_eq!(repetitions.ended(after(30)(begin)), []);
        assert_eq!(repetitions.len(), 0);
        assert!(repetitions.admit(Level::WARN, "a", after(31)(begin)));
    }

    #[test]
    fn the_table_is_bounded_and_nothing_is_lost_at_the_end() {
        let (mut repetitions, now) = (RepetitionLimiter::default(), Instant::now());
        for number in 0..10_000 {
            repetitions.admit(Level::WARN, &number.to_string(), now);
        }
        assert_eq!(repetitions.len(), MAX_MESSAGES + 1);
        let last = repetitions.take();
        assert_eq!(last.len(), 1);
        assert_eq!((&*last[0].message, last[0].times), ("other messages", 10_000 - 256 - BURST));
        assert_eq!(repetitions.len(), 0);
    }
}

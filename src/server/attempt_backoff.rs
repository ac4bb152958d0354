//! Exponential backoff, counted in attempts.

/// Limits how many attempts are skipped after a failure: at most `2^MAX_FAILURES - 1`.
const MAX_FAILURES: u32 = 5;

/// Skips attempts at something that failed: about twice as many after each failure in a row.
#[derive(Debug, Default)]
pub(crate) struct AttemptBackoff {
    /// The number of failures in a row, at most [`MAX_FAILURES`].
    failures: u32,
    /// The number of attempts to skip.
    left: u32,
}

impl AttemptBackoff {
    /// Returns whether to skip this attempt.
    pub(crate) fn skips(&mut self) -> bool {
        let skips = self.left > 0;
        self.left = self.left.saturating_sub(1);
        skips
    }

    /// Skips the next attempts: none after the first failure in a row.
    pub(crate) fn note_failure(&mut self) {
        self.left = (1 << self.failures) - 1;
        self.failures = (self.failures + 1).min(MAX_FAILURES);
    }

    /// Ends the backoff.
    pub(crate) fn note_success(&mut self) {
        *self = Self::default();
    }

    /// Returns whether a further failure skips no more attempts than the last one.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.failures == MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes this many attempts, which fail unless skipped. Returns the numbers of those that were
    /// not skipped.
    fn attempts(backoff: &mut AttemptBackoff, count: usize) -> Vec<usize> {
        let made = (0..count).filter(|_| {
            let skips = backoff.skips();
            if !skips {
                backoff.note_failure();
            }
            !skips
        });
        made.collect()
    }

    #[test]
    fn skips_about_twice_as_many_attempts_after_each_failure() {
        let mut backoff = AttemptBackoff::default();
        assert_eq!(attempts(&mut backoff, 100), [0, 1, 3, 7, 15, 31, 63, 95]);
        assert!(backoff.is_at_limit());
    }

    #[test]
    fn a_success_ends_the_backoff() {
        let mut backoff = AttemptBackoff::default();
        attempts(&mut backoff, 100);
        backoff.note_success();
        assert!(!backoff.is_at_limit());
        assert_eq!(attempts(&mut backoff, 4), [0, 1, 3]);
    }
}

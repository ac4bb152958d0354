//! File descriptors reserved for one listener, so that it can still accept clients when the process
//! has no descriptors left.

use std::{fs::File, path::Path};

/// Open descriptors that are closed when a client needs one.
pub(super) struct FileReserve {
    held: Vec<File>,
    size: usize,
}

impl FileReserve {
    pub(super) fn new(size: usize) -> Self {
        let mut reserve = Self { held: Vec::with_capacity(size), size };
        reserve.refill();
        reserve
    }

    /// Closes a reserved descriptor. Returns `false` if no reserved descriptor is left.
    pub(super) fn release_one(&mut self) -> bool {
        self.held.pop().is_some()
    }

    /// Reopens released descriptors, until the reserve is full or opening fails.
    pub(super) fn refill(&mut self) {
        while self.held.len() < self.size {
            let Ok(file) = File::open(Path::new("/dev/null")) else { return };
            self.held.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_taken_back() {
        let mut reserve = FileReserve::new(2);
        assert!(reserve.release_one() && reserve.release_one() && !reserve.release_one());
        reserve.refill();
        assert!(reserve.release_one());
        assert!(!FileReserve::new(0).release_one());
    }
}

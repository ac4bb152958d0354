//! The memory budget of all bodies that are being stored.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::sync::{AtomicU64, Ordering::Relaxed, with_timeout};

/// Maximum length of a small body, in bytes. Small bodies have their own pool.
pub(crate) const SMALL_BODY: usize = 64 << 10;

/// The divisor of the budget that yields the size of the pool of small bodies.
const SMALL_PART: u64 = 4;

/// The number of bytes that all bodies that are being stored may take together.
///
/// Small bodies use their own pool first, then the rest. Large bodies use only the rest, so that
/// they never prevent a small one from being stored.
#[derive(Debug)]
pub(crate) struct FillBudget {
    small: BudgetPool,
    large: BudgetPool,
    freed: Notify,
}

#[derive(Debug)]
struct BudgetPool {
    limit: u64,
    used: AtomicU64,
}

/// The share of one body in the budget. It is returned when dropped.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<FillBudget>,
    size: PoolKind,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolKind {
    Small,
    Large,
}

/// Whether a share fits into the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BudgetState {
    /// The share fits into the budget.
    Available,
    /// The budget is exceeded. The bytes are counted nevertheless.
    Exceeded,
}

impl FillBudget {
    /// Creates a budget of this many bytes.
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        let small = bytes / SMALL_PART;
        let freed = Notify::new();
        Arc::new(Self {
            small: BudgetPool::new(small),
            large: BudgetPool::new(bytes - small),
            freed,
        })
    }

    /// Returns the number of bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.small.used.load(Relaxed) + self.large.used.load(Relaxed)
    }

    /// Returns an empty share, for a body of unknown length.
    pub(crate) fn share(self: &Arc<Self>) -> BudgetShare {
        BudgetShare { budget: Arc::clone(self), size: PoolKind::Small, bytes: 0 }
    }

    /// Reserves room for a body of this length. Without a length, the share starts empty and grows.
    /// Returns `None` if there is no room.
    pub(crate) fn reserve(self: &Arc<Self>, expected: Option<u64>) -> Option<BudgetShare> {
        let bytes = usize::try_from(expected.unwrap_or(0)).ok()?;
        let size = if bytes <= SMALL_BODY && self.small.take_if_free(bytes) {
            PoolKind::Small
        } else if self.large.take_if_free(bytes) {
            PoolKind::Large
        } else {
            return None;
        };
        Some(BudgetShare { budget: Arc::clone(self), size, bytes })
    }

    /// Reserves room for a body that no client waits for. Waits up to `limit`, and returns `None`
    /// if there is still no room.
    pub(crate) async fn reserve_within(
        self: &Arc<Self>,
        expected: Option<u64>,
        limit: Duration,
    ) -> Option<BudgetShare> {
        let reserve = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                freed.as_mut().enable();
                if let Some(share) = self.reserve(expected) {
                    return share;
                }
                freed.await;
            }
        };
        with_timeout(limit, reserve).await
    }

    fn pool(&self, size: PoolKind) -> &BudgetPool {
        match size {
            PoolKind::Small => &self.small,
            PoolKind::Large => &self.large,
        }
    }

    fn give_back(&self, size: PoolKind, bytes: usize) {
        if bytes > 0 {
            self.pool(size).give_back(bytes);
            self.freed.notify_waiters();
        }
    }
}

impl BudgetPool {
    const fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    fn take(&self, bytes: usize) -> BudgetState {
        let before = self.used.fetch_add(bytes as u64, Relaxed);
        if before + bytes as u64 <= self.limit {
            BudgetState::Available
        } else {
            BudgetState::Exceeded
        }
    }

    /// Takes all of these bytes or none. Returns whether it took them. A failed attempt is never
    /// counted, so it cannot make another fail.
    fn take_if_free(&self, bytes: usize) -> bool {
        let more = |used: u64| used.checked_add(bytes as u64).filter(|used| *used <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Relaxed);
    }
}

impl BudgetShare {
    /// Returns the size of this share in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Resizes the share. Returns whether it fits into the budget.
    pub(crate) fn resize(&mut self, bytes: usize) -> BudgetState {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.budget.give_back(self.size, self.bytes - bytes);
            self.bytes = bytes;
            return BudgetState::Available;
        };
        if self.size == PoolKind::Small && bytes > SMALL_BODY {
            return self.move_to_large(0, bytes);
        }
        match (self.budget.pool(self.size).take(more), self.size) {
            (BudgetState::Exceeded, PoolKind::Small) => self.move_to_large(more, bytes),
            (room, _) => {
                self.bytes = bytes;
                room
            }
        }
    }

    /// Moves the share to the pool of large bodies. `taken` bytes were just taken from the small
    /// pool, and are returned to it.
    fn move_to_large(&mut self, taken: usize, bytes: usize) -> BudgetState {
        self.budget.small.give_back(taken);
        self.budget.give_back(PoolKind::Small, self.bytes);
        (self.size, self.bytes) = (PoolKind::Large, bytes);
        self.budget.large.take(bytes)
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.give_back(self.size, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn large_bodies_leave_the_part_of_small_ones_alone() {
        let budget = FillBudget::new(1024 * KIB);
        let large = budget.reserve(Some(768 * KIB)).unwrap();
        assert!(budget.reserve(Some(65 * KIB)).is_none());
        let small: Vec<_> = (0..4).map(|_| budget.reserve(Some(64 * KIB)).unwrap()).collect();
        assert!(budget.reserve(Some(1)).is_none(), "both pools are full");
        assert_eq!(budget.used(), 1024 * KIB);
        drop(large);
        assert!(budget.reserve(Some(1)).is_some(), "small bodies may use the rest as well");
        drop(small);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_share_that_grows_leaves_the_pool_of_small_bodies() {
        let budget = FillBudget::new(1024 * KIB);
        let mut share = budget.share();
        assert_eq!(share.resize(SMALL_BODY), BudgetState::Available);
        assert_eq!(budget.small.used.load(Relaxed), 64 * KIB);
        assert_eq!(share.resize(SMALL_BODY + 1), BudgetState::Available);
        assert_eq!(budget.small.used.load(Relaxed), 0);
        assert_eq!(share.resize(SMALL_BODY * 16), BudgetState::Exceeded);
        assert_eq!(budget.used(), 1024 * KIB, "it counts all the same");
        share.resize(0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn no_length_that_an_origin_announces_is_too_large_to_be_refused() {
        let budget = FillBudget::new(1024 * KIB);
        let held = budget.reserve(Some(1)).unwrap();
        let large = budget.reserve(Some(65 * KIB)).unwrap();
        assert!(budget.reserve(Some(u64::MAX)).is_none());
        drop((held, large));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_client_waits_for_waits_for_room() {
        let budget = FillBudget::new(4);
        let full = budget.reserve(Some(3)).unwrap();
        assert!(budget.reserve_within(Some(3), Duration::from_secs(1)).await.is_none());
        let waiting = budget.reserve_within(Some(3), Duration::from_secs(1));
        let (share, ()) = tokio::join!(waiting, async { drop(full) });
        assert_eq!(share.unwrap().bytes(), 3);
    }
}

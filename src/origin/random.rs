//! Fast random numbers for balancing and request ids. Not for secrets.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u8));
}

/// Returns the next number of this thread (`SplitMix64`, seeded by the system).
pub(crate) fn next() -> u64 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// Returns a number below `bound`; zero if `bound` is zero.
pub(super) fn below(bound: usize) -> usize {
    let wide = u128::from(next()) * bound as u128;
    usize::try_from(wide >> 64).unwrap_or(0)
}

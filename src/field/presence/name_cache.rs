//! A per-thread cache of the presence bits of field names, because clients send the same ones over
//! and over.

use std::cell::RefCell;

use super::FieldPresence;

/// Limits of the cache: its number of names, and the length of each. 12 KiB per thread.
const SLOTS: usize = 256;
const LONGEST: usize = 40;

/// The number of slots tried for a name.
const MAX_PROBES: usize = 4;

thread_local! {
    static CACHE: RefCell<Box<[CachedName; SLOTS]>> =
        RefCell::new(Box::new([const { CachedName::NOTHING }; SLOTS]));
}

struct CachedName {
    length: usize,
    name: [u8; LONGEST],
    presence: FieldPresence,
}

impl CachedName {
    const NOTHING: Self = Self { length: 0, name: [0; LONGEST], presence: FieldPresence(0) };

    fn is(&self, name: &[u8]) -> bool {
        self.length == name.len() && self.name.get(..self.length) == Some(name)
    }

    fn of(name: &[u8], presence: FieldPresence) -> Option<Self> {
        let mut kept = [0; LONGEST];
        kept.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { length: name.len(), name: kept, presence })
    }
}

/// This thread's cache.
pub(super) struct NameCache<'a>(&'a mut [CachedName; SLOTS]);

impl NameCache<'_> {
    /// Calls `read` with this thread's cache.
    pub(super) fn with<T>(read: impl FnOnce(&mut NameCache<'_>) -> T) -> T {
        CACHE.with_borrow_mut(|slots| read(&mut NameCache(slots)))
    }

    /// Returns the presence bits of a name, computed by `find` if they are not cached.
    pub(super) fn presence(
        &mut self,
        name: &str,
        find: impl FnOnce(&str) -> FieldPresence,
    ) -> FieldPresence {
        let bytes = name.as_bytes();
        let Some(first) = slot_of(bytes) else { return find(name) };
        let places = || (first..first + MAX_PROBES).map(|place| place % SLOTS);
        let mut free = first;
        for place in places() {
            match self.0.get(place) {
                Some(known) if known.is(bytes) => return known.presence,
                Some(known) if known.length > 0 => {}
                _ => {
                    free = place;
                    break;
                }
            }
        }
        let presence = find(name);
        if let Some(known) = CachedName::of(bytes, presence)
            && let Some(slot) = self.0.get_mut(free)
        {
            *slot = known;
        }
        presence
    }
}

/// Returns the first slot to try for a name, or `None` for a very short one.
///
/// Names mostly differ in their length, their first or their last characters.
fn slot_of(name: &[u8]) -> Option<usize> {
    let (start, end) = (name.first_chunk::<4>()?, name.last_chunk::<4>()?);
    let start = u32::from_le_bytes(*start) as usize;
    let end = u32::from_le_bytes(*end) as usize;
    let mixed = (start ^ (end << 20) ^ (name.len() << 45)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> 48) % SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_into_once() {
        NameCache::with(|names| {
            assert_eq!(names.presence("x-once", |_| FieldPresence::RANGE), FieldPresence::RANGE);
            assert_eq!(names.presence("x-once", |_| panic!("it is known")), FieldPresence::RANGE);
            assert_eq!(names.presence("x-one", |_| FieldPresence::VIA), FieldPresence::VIA);
        });
    }

    #[test]
    fn more_names_than_there_is_room_for_are_never_mistaken() {
        let name = |number: usize| format!("x-{number:0width$}", width = number % 60);
        let presence = |number: usize| FieldPresence(u16::try_from(number).unwrap());
        NameCache::with(|names| {
            for number in (0..2000).chain(0..2000) {
                let found = names.presence(&name(number), |_| presence(number));
                assert_eq!(found, presence(number), "{}", name(number));
            }
        });
    }
}

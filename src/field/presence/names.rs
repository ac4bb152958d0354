//! What the names of fields came to: clients send the same ones over and over.

use std::cell::RefCell;

use super::Presence;

/// Names that each thread remembers, and how long each may be: 12 KiB.
const SLOTS: usize = 256;
const LONGEST: usize = 40;

/// How many slots a name may stand in.
const TRIED: usize = 4;

thread_local! {
    static LATELY: RefCell<Box<[Remembered; SLOTS]>> =
        RefCell::new(Box::new([const { Remembered::NOTHING }; SLOTS]));
}

struct Remembered {
    length: usize,
    name: [u8; LONGEST],
    presence: Presence,
}

impl Remembered {
    const NOTHING: Self = Self { length: 0, name: [0; LONGEST], presence: Presence(0) };

    fn is(&self, name: &[u8]) -> bool {
        self.length == name.len() && self.name.get(..self.length) == Some(name)
    }

    fn of(name: &[u8], presence: Presence) -> Option<Self> {
        let mut kept = [0; LONGEST];
        kept.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { length: name.len(), name: kept, presence })
    }
}

/// The names that this thread remembers.
pub(super) struct Names<'a>(&'a mut [Remembered; SLOTS]);

impl Names<'_> {
    /// Reads with what this thread remembers.
    pub(super) fn with<T>(read: impl FnOnce(&mut Names<'_>) -> T) -> T {
        LATELY.with_borrow_mut(|slots| read(&mut Names(slots)))
    }

    /// What a name comes to: what it came to before, or what `find` says.
    pub(super) fn presence(&mut self, name: &str, find: impl FnOnce(&str) -> Presence) -> Presence {
        let bytes = name.as_bytes();
        let Some(first) = slot_of(bytes) else { return find(name) };
        let places = || (first..first + TRIED).map(|place| place % SLOTS);
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
        if let Some(known) = Remembered::of(bytes, presence)
            && let Some(slot) = self.0.get_mut(free)
        {
            *slot = known;
        }
        presence
    }
}

/// Where a name is looked for first; none for very short ones. Names mostly differ in their length, their
/// first or their last characters.
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
        Names::with(|names| {
            assert_eq!(names.presence("x-once", |_| Presence::RANGE), Presence::RANGE);
            assert_eq!(names.presence("x-once", |_| panic!("it is known")), Presence::RANGE);
            assert_eq!(names.presence("x-one", |_| Presence::VIA), Presence::VIA);
        });
    }

    #[test]
    fn more_names_than_there_is_room_for_are_never_mistaken() {
        let name = |number: usize| format!("x-{number:0width$}", width = number % 60);
        let presence = |number: usize| Presence(u16::try_from(number).unwrap());
        Names::with(|names| {
            for number in (0..2000).chain(0..2000) {
                let found = names.presence(&name(number), |_| presence(number));
                assert_eq!(found, presence(number), "{}", name(number));
            }
        });
    }
}

//! A cache of the classes of field names: clients send the same names over and over.

/// Maximum number of names in the cache.
const SLOTS: usize = 256;
/// Maximum length of a cached name in bytes.
const LONGEST: usize = 40;

/// The number of slots tried for a name.
const MAX_PROBES: usize = 4;

/// A cache of bounded size: 14 KiB, if a class takes two bytes.
pub(super) struct NameCache<T>(Box<[CachedName<T>; SLOTS]>);

struct CachedName<T> {
    length: usize,
    name: [u8; LONGEST],
    class: T,
}

impl<T: Copy + Default> NameCache<T> {
    pub(super) fn new() -> Self {
        let empty = |_| CachedName { length: 0, name: [0; LONGEST], class: T::default() };
        Self(Box::new(std::array::from_fn(empty)))
    }

    /// Returns the class of a name, computed by `classify` if it is not cached.
    pub(super) fn class(&mut self, name: &str, classify: impl FnOnce(&str) -> T) -> T {
        let bytes = name.as_bytes();
        let Some(first) = slot_of(bytes) else { return classify(name) };
        let slots = || (first..first + MAX_PROBES).map(|slot| slot % SLOTS);
        let mut free = first;
        for slot in slots() {
            match self.0.get(slot) {
                Some(cached) if cached.is(bytes) => return cached.class,
                Some(cached) if cached.length > 0 => {}
                _ => {
                    free = slot;
                    break;
                }
            }
        }
        let class = classify(name);
        if let Some(cached) = CachedName::of(bytes, class)
            && let Some(slot) = self.0.get_mut(free)
        {
            *slot = cached;
        }
        class
    }
}

impl<T> CachedName<T> {
    fn is(&self, name: &[u8]) -> bool {
        self.length == name.len() && self.name.get(..self.length) == Some(name)
    }

    fn of(name: &[u8], class: T) -> Option<Self> {
        let mut kept = [0; LONGEST];
        kept.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { length: name.len(), name: kept, class })
    }
}

/// Returns the first slot to try for a name, or `None` for a very short name.
///
/// Names mostly differ in their length, their first or their last characters.
fn slot_of(name: &[u8]) -> Option<usize> {
    let (start, end) = (name.first_chunk::<4>()?, name.last_chunk::<4>()?);
    let start = u32::from_le_bytes(*start) as usize;
    let end = u32::from_le_bytes(*end) as usize;
    let mixed = (start ^ (end << 20) ^ (name.len() << 45)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> 48) % SLOTS)
}

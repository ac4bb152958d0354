//! Names of selectors: one number for each thing that can be selected.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::Selector;

/// What kind of thing a selector looks at. A tag `x` is no URL `x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Everything,
    Tag,
    Url,
    Prefix,
}

/// Gives selectors and responses their names.
///
/// A name is a hash of 64 bits under keys that are drawn for each table, so nobody outside can look for
/// two that collide; and where two do, a purge of the one selects the other, too, which is safe.
#[derive(Debug, Default)]
pub(super) struct Names {
    keys: RandomState,
    /// Lengths of the prefixes that begin with a host, and of those that begin with a path.
    with_host: Lengths,
    from_path: Lengths,
}

impl Names {
    /// The name of what a selector selects.
    pub(super) fn of(&mut self, selector: &Selector) -> (Kind, u64) {
        match selector {
            Selector::Everything => (Kind::Everything, self.everything()),
            Selector::Tag(tag) => (Kind::Tag, self.tag(tag)),
            Selector::Url(url) => (Kind::Url, self.name(Kind::Url, url.as_bytes())),
            Selector::Prefix(prefix) => {
                let prefix = cut(prefix.as_bytes());
                let is_path = prefix.first() == Some(&b'/');
                let lengths = if is_path { &mut self.from_path } else { &mut self.with_host };
                lengths.insert(prefix.len());
                (Kind::Prefix, self.name(Kind::Prefix, prefix))
            }
        }
    }

    pub(super) fn everything(&self) -> u64 {
        self.name(Kind::Everything, b"")
    }

    pub(super) fn tag(&self, tag: &str) -> u64 {
        self.name(Kind::Tag, tag.as_bytes())
    }

    /// The names under which this URL, in normal form, can be selected: with its host and without.
    pub(super) fn urls(&self, url: &[u8]) -> impl Iterator<Item = u64> {
        let forms = [Some(url), path_of(url)].into_iter().flatten();
        forms.map(|form| self.name(Kind::Url, form))
    }

    /// The names of all prefixes of this URL, with its host and without, that have been named so far.
    pub(super) fn prefixes(&self, url: &[u8]) -> impl Iterator<Item = u64> {
        let path = path_of(url).unwrap_or_default();
        let with_host = self.with_host.up_to(url.len()).filter_map(|length| url.get(..length));
        let from_path = self.from_path.up_to(path.len()).filter_map(|length| path.get(..length));
        with_host.chain(from_path).map(|prefix| self.name(Kind::Prefix, prefix))
    }

    /// Names no prefix any more until the next is given its name.
    pub(super) fn forget_prefixes(&mut self) {
        self.with_host = Lengths::default();
        self.from_path = Lengths::default();
    }

    fn name(&self, kind: Kind, text: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u8(kind as u8);
        hasher.write(text);
        hasher.finish()
    }
}

/// A URL from its path on.
fn path_of(url: &[u8]) -> Option<&[u8]> {
    let start = url.iter().position(|byte| *byte == b'/')?;
    url.get(start..)
}

/// Longer prefixes are cut to this many bytes and then select more, which is safe.
const LONGEST_PREFIX: usize = 1023;

fn cut(prefix: &[u8]) -> &[u8] {
    prefix.get(..LONGEST_PREFIX).unwrap_or(prefix)
}

/// The lengths that occur, a bit for each: they bound how many names a lookup tries.
#[derive(Debug, Default)]
struct Lengths([u64; (LONGEST_PREFIX + 1) / 64]);

impl Lengths {
    fn insert(&mut self, length: usize) {
        if let Some(word) = self.0.get_mut(length / 64) {
            *word |= 1 << (length % 64);
        }
    }

    /// The lengths of at most `longest`, in order.
    fn up_to(&self, longest: usize) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().map(|(place, word)| (place * 64, *word));
        words
            .flat_map(|(start, word)| bits(word).map(move |bit| start + bit))
            .take_while(move |length| *length <= longest)
    }
}

/// The places of the bits that are set, lowest first.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        usize::try_from(lowest).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back_in_order_up_to_the_longest_asked_for() {
        let mut lengths = Lengths::default();
        for length in [1023, 0, 64, 7, 63, 7] {
            lengths.insert(length);
        }
        assert_eq!(lengths.up_to(2000).collect::<Vec<_>>(), [0, 7, 63, 64, 1023]);
        assert_eq!(lengths.up_to(63).collect::<Vec<_>>(), [0, 7, 63]);
        assert_eq!(lengths.up_to(0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn kinds_do_not_share_names() {
        let mut names = Names::default();
        let text = || "/x".into();
        let of_kinds = [Selector::Tag(text()), Selector::Url(text()), Selector::Prefix(text())]
            .map(|selector| names.of(&selector).1);
        assert!(of_kinds[0] != of_kinds[1] && of_kinds[1] != of_kinds[2]);
        assert!(of_kinds[0] != of_kinds[2]);
    }
}

//! Lenient name comparison: case-insensitive, with all word separators alike.

/// Folds a byte of a name for comparison.
///
/// CGI and WSGI turn `-` in field names into `_`. PHP does the same with `.`, ` ` and `[` in the
/// names of cookies and parameters. ASP.NET ignores case in all of them.
pub(crate) const fn folded(byte: u8) -> u8 {
    match byte {
        b'_' | b'.' | b' ' | b'[' => b'-',
        _ => byte.to_ascii_lowercase(),
    }
}

/// Returns whether some server treats two names as the same.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| folded(*one) == folded(*other))
}

/// Returns whether a name matches a pattern, in which each `*` matches any number of characters.
///
/// Needs at most as many steps as the product of both lengths.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // The last `*`, and the position in the name where its match ends.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(in_name) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
            }
            Some(wanted) if folded(*wanted) == folded(*byte) => {
                at += 1;
                in_name += 1;
            }
            _ => {
                let Some((place, end)) = star else { return false };
                star = Some((place, end + 1));
                (at, in_name) = (place + 1, end + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

const MAX_PATTERNS: usize = 320;

/// The number of leading characters that select the patterns to try.
const SIGNIFICANT: usize = 3;

const BUCKETS: usize = 256;

/// Built-in patterns, indexed by the first characters of a name.
///
/// For most names no pattern is tried. No `*` is among the first three characters of a pattern.
#[derive(Debug)]
pub struct PatternSet {
    list: &'static [&'static str],
    /// Positions of the patterns in the list, bucket by bucket.
    order: [u16; MAX_PATTERNS],
    starts: [u16; BUCKETS + 1],
}

#[expect(clippy::indexing_slicing, reason = "evaluated when Larder is compiled")]
#[expect(clippy::cast_possible_truncation, reason = "lists are short")]
impl PatternSet {
    pub const fn new(list: &'static [&'static str]) -> Self {
        let (mut order, mut starts) = ([0; MAX_PATTERNS], [0; BUCKETS + 1]);
        let (mut bucket, mut placed) = (0, 0);
        while bucket < BUCKETS {
            starts[bucket] = placed as u16;
            let mut index = 0;
            while index < list.len() {
                if bucket_of(list[index].as_bytes()) == bucket {
                    order[placed] = index as u16;
                    placed += 1;
                }
                index += 1;
            }
            bucket += 1;
        }
        starts[BUCKETS] = placed as u16;
        Self { list, order, starts }
    }
}

impl PatternSet {
    /// Returns whether one of the patterns matches a name.
    pub fn match_name(&self, name: &[u8]) -> bool {
        let bucket = bucket_of(name);
        let start = self.starts.get(bucket).copied().unwrap_or_default();
        let end = self.starts.get(bucket + 1).copied().unwrap_or_default();
        let places = self.order.get(usize::from(start)..usize::from(end)).unwrap_or_default();
        let mut candidates = places.iter().filter_map(|place| self.list.get(usize::from(*place)));
        candidates.any(|pattern| matches(pattern.as_bytes(), name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().copied()
    }
}

/// Returns the bucket of a name's first characters.
const fn bucket_of(name: &[u8]) -> usize {
    let mut rest = name;
    let (mut hash, mut taken) = (0_usize, 0);
    while taken < SIGNIFICANT {
        let Some((byte, behind)) = rest.split_first() else { break };
        hash = hash * 37 + folded(*byte) as usize;
        rest = behind;
        taken += 1;
    }
    hash % BUCKETS
}

/// A set of lower-case names, indexed by length.
#[derive(Debug)]
pub(crate) struct StaticNameSet {
    list: &'static [&'static str],
    /// For each length, the position of the first name of at least that length.
    starts: [u8; 34],
}

impl StaticNameSet {
    /// Builds the index of a list that is sorted by length. No name is longer than 32 characters.
    #[expect(clippy::indexing_slicing, reason = "evaluated when Larder is compiled")]
    #[expect(clippy::cast_possible_truncation, reason = "lists are short")]
    pub(crate) const fn new(list: &'static [&'static str]) -> Self {
        let mut starts = [0; 34];
        let (mut length, mut index) = (0, 0);
        while length < starts.len() {
            while index < list.len() && list[index].len() < length {
                index += 1;
            }
            starts[length] = index as u8;
            length += 1;
        }
        Self { list, starts }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let (Some(start), Some(end)) =
            (self.starts.get(name.len()), self.starts.get(name.len() + 1))
        else {
            return false;
        };
        let same_length = self.list.get(usize::from(*start)..usize::from(*end));
        same_length.unwrap_or_default().contains(&name)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().copied()
    }
}

/// A set of short words.
///
/// Its index rejects most other words by their length and first character.
#[derive(Debug)]
pub struct WordSet {
    list: &'static [&'static str],
    /// For each first character, a bit set of the lengths of words that begin with it.
    lengths: [u32; 128],
}

impl WordSet {
    /// Builds the index of a list. Words have 1 to 31 characters.
    #[expect(clippy::indexing_slicing, reason = "evaluated when Larder is compiled")]
    pub const fn new(list: &'static [&'static str]) -> Self {
        let mut lengths = [0; 128];
        let mut index = 0;
        while index < list.len() {
            let first = folded(list[index].as_bytes()[0]) as usize;
            lengths[first] |= 1 << list[index].len();
            index += 1;
        }
        Self { list, lengths }
    }

    pub fn has(&self, word: &[u8]) -> bool {
        let Some(first) = word.first() else { return false };
        let lengths = self.lengths.get(usize::from(folded(*first))).copied().unwrap_or_default();
        word.len() < 32
            && lengths & (1 << word.len()) != 0
            && self.list.iter().any(|known| is_same(known.as_bytes(), word))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_compared_as_the_most_lenient_server_does() {
        assert!(is_same(b"X_Api-Key", b"x-api_key"));
        assert!(is_same(b"a.b", b"A_B") && !is_same(b"ab", b"a-b"));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in
            [("_ga*", "_ga_X"), ("*token", "a-token"), ("a*b*c", "AxxbyyC"), ("*", ""), ("a*", "a")]
        {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("_ga*", "_g"), ("*token", "tokens"), ("a*b*c", "acb"), ("", "a")] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    static PATTERNS: PatternSet = PatternSet::new(&["-ab*", "b", "ba", "cxy*d"]);
    static WORDS: WordSet = WordSet::new(&["key", "token"]);
    static EXACT: StaticNameSet = StaticNameSet::new(&["a", "bc", "de"]);

    #[test]
    fn lists_are_searched_by_their_first_character() {
        for name in ["_abc", "B", "ba", "cxyxd"] {
            assert!(PATTERNS.match_name(name.as_bytes()), "{name}");
        }
        for name in ["", "a", "bab", "cxy", "\u{e4}"] {
            assert!(!PATTERNS.match_name(name.as_bytes()), "{name}");
        }
        assert!(EXACT.has("a") && EXACT.has("de") && !EXACT.has("d") && !EXACT.has("abc"));
        assert!(WORDS.has(b"KEY") && WORDS.has(b"token") && !WORDS.has(b"keys") && !WORDS.has(b""));
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_fits_itself_alone(one in "[a-c_-]{0,6}", other in "[a-c_-]{0,6}") {
            prop_assert_eq!(matches(one.as_bytes(), other.as_bytes()), is_same(one.as_bytes(), other.as_bytes()));
        }

        #[test]
        fn a_star_fits_whatever_it_stands_for(start in "[a-c]{0,4}", middle in "[a-c]{0,6}", end in "[a-c]{0,4}") {
            let (pattern, name) = (format!("{start}*{end}"), format!("{start}{middle}{end}"));
            prop_assert!(matches(pattern.as_bytes(), name.as_bytes()));
        }
    }
}

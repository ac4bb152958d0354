//! Hashes of selectors, and the hashes of all selectors that may select a response.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::{
    ResponseAttributes, Selector, credential_tag,
    scanned::ScannedSelectors,
    url::{directory, path_of},
};
use crate::field::Timestamp;

/// The kind of a selector. Equal texts of different kinds have different hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SelectorKind {
    Everything,
    Tag,
    Url,
    Prefix,
    /// A selector that cannot be looked up by a hash of the response; it is matched directly.
    Scanned,
}

/// The set of attributes that a selector restricts, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttributeMask(u8);

/// The set of responses with certain attribute values, or of all responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    attribute_set: AttributeMask,
    hash: u64,
}

/// The kind, attribute set and hash of a selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedSelector {
    pub(super) kind: SelectorKind,
    pub(super) attribute_set: AttributeMask,
    pub(super) hash: u64,
}

impl AttributeMask {
    pub(super) const COUNT: usize = 8;

    /// Returns the set of the attributes that have a value.
    fn of(attributes: ResponseAttributes<'_>) -> Self {
        let ResponseAttributes { user, route, version } = attributes;
        let bits = [user, route, version].map(|attribute| u8::from(attribute.is_some()));
        Self(bits.iter().rev().fold(0, |attribute_set, bit| attribute_set << 1 | bit))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the attribute sets of selectors that may match these attributes.
    pub(super) fn subsets(attributes: ResponseAttributes<'_>) -> impl Iterator<Item = Self> {
        let all = Self::of(attributes).0;
        (0..=all).filter(move |attribute_set| attribute_set & !all == 0).map(Self)
    }

    fn restrict(self, attributes: ResponseAttributes<'_>) -> ResponseAttributes<'_> {
        let ResponseAttributes { user, route, version } = attributes;
        let [user, route, version] = [(user, 1), (route, 2), (version, 4)]
            .map(|(attribute, bit)| attribute.filter(|_| self.0 & bit != 0));
        ResponseAttributes { user, route, version }
    }
}

/// Computes the hashes of selectors, and the hashes to look up for a response.
///
/// Bits 40 to 42 of a hash hold the attribute set. Each table has its own random hash key, so
/// attackers cannot search for collisions. A collision only widens a purge, which is safe.
#[derive(Debug, Default)]
pub(super) struct SelectorIndex {
    keys: RandomState,
    /// Lengths of prefixes with a host; `from_path` contains the lengths of all other prefixes.
    with_host: PrefixLengths,
    from_path: PrefixLengths,
    scanned: ScannedSelectors,
}

impl SelectorIndex {
    /// Adds a selector, and returns its kind, attribute set and hash. `version` is the new version
    /// of the table.
    pub(super) fn insert(&mut self, selector: &Selector, version: u64) -> IndexedSelector {
        let Some((main, attributes)) = as_indexable(selector) else {
            let text = serde_json::to_vec(selector).unwrap_or_default();
            let hash = self.hash(SelectorKind::Scanned, Self::ALL, &text);
            self.scanned.insert(hash, selector, version);
            return IndexedSelector {
                kind: SelectorKind::Scanned,
                attribute_set: AttributeMask(0),
                hash,
            };
        };
        let attribute_set = AttributeMask::of(attributes);
        let scope = self.scope(attribute_set, attributes);
        let (kind, hash) = match main {
            Selector::Tag(tag) => (SelectorKind::Tag, self.tag(scope, tag)),
            Selector::Credential(digest) => {
                (SelectorKind::Tag, self.tag(scope, &credential_tag(digest)))
            }
            Selector::Url(url) => {
                (SelectorKind::Url, self.hash(SelectorKind::Url, scope, url.as_bytes()))
            }
            Selector::Prefix(prefix) => {
                (SelectorKind::Prefix, self.prefix(scope, prefix.as_bytes()))
            }
            _ => (SelectorKind::Everything, self.everything(scope)),
        };
        IndexedSelector { kind, attribute_set, hash }
    }

    pub(super) const ALL: Scope = Scope { attribute_set: AttributeMask(0), hash: 0 };

    /// Returns the scope of responses whose attributes in `attribute_set` have these values.
    pub(super) fn scope(
        &self,
        attribute_set: AttributeMask,
        attributes: ResponseAttributes<'_>,
    ) -> Scope {
        if attribute_set == AttributeMask(0) {
            return Self::ALL;
        }
        Scope {
            attribute_set,
            hash: self.keys.hash_one((attribute_set.0, attribute_set.restrict(attributes))),
        }
    }

    pub(super) fn everything(&self, scope: Scope) -> u64 {
        self.hash(SelectorKind::Everything, scope, b"")
    }

    pub(super) fn tag(&self, scope: Scope, tag: &str) -> u64 {
        self.hash(SelectorKind::Tag, scope, tag.as_bytes())
    }

    /// Returns the hashes of the URL selectors for this normalised URL, with and without its host.
    pub(super) fn urls(&self, scope: Scope, url: &[u8]) -> impl Iterator<Item = u64> {
        let forms = [Some(url), path_of(url)].into_iter().flatten();
        forms.map(move |form| self.hash(SelectorKind::Url, scope, form))
    }

    /// Returns the hashes of those prefixes of a URL whose lengths are in use.
    pub(super) fn prefixes(&self, scope: Scope, url: &[u8]) -> impl Iterator<Item = u64> {
        let path = path_of(url).unwrap_or_default();
        let with_host = self.with_host.up_to(url.len()).filter_map(|length| url.get(..length));
        let from_path = self.from_path.up_to(path.len()).filter_map(|length| path.get(..length));
        let as_directory = [(url, &self.with_host), (path, &self.from_path)]
            .into_iter()
            .filter_map(|(form, lengths)| lengths.directory(form))
            .map(move |prefix| self.hash(SelectorKind::Prefix, scope, &prefix));
        let prefixes = with_host.chain(from_path);
        prefixes
            .map(move |prefix| self.hash(SelectorKind::Prefix, scope, prefix))
            .chain(as_directory)
    }

    /// Returns the hashes of matching scanned selectors that were last purged after the version
    /// `since`.
    pub(super) fn scanned(
        &self,
        since: u64,
        matches: impl Fn(&Selector) -> bool,
    ) -> impl Iterator<Item = u64> {
        self.scanned.since(since, matches)
    }

    /// If there are too many scanned selectors, removes the oldest one for which `must_stay` is
    /// false. Returns its hash and the time of its last purge.
    pub(super) fn pop_excess(
        &mut self,
        must_stay: impl Fn(u64) -> bool,
    ) -> Option<(u64, Option<Timestamp>)> {
        self.scanned.pop_excess(must_stay)
    }

    pub(super) fn advance(&mut self, now: Timestamp) {
        self.scanned.advance(now);
    }

    /// Removes all scanned selectors for which `must_stay` is false.
    pub(super) fn retain_scanned(&mut self, must_stay: impl Fn(u64) -> bool) {
        self.scanned.retain(must_stay);
    }

    /// Clears the prefix lengths in use.
    pub(super) fn clear_prefixes(&mut self) {
        self.with_host = PrefixLengths::default();
        self.from_path = PrefixLengths::default();
    }

    pub(super) fn bytes(&self) -> usize {
        self.scanned.bytes()
    }

    fn prefix(&mut self, scope: Scope, prefix: &[u8]) -> u64 {
        let prefix = truncate_prefix(prefix);
        let is_path = prefix.first() == Some(&b'/');
        let lengths = if is_path { &mut self.from_path } else { &mut self.with_host };
        lengths.insert(prefix.len());
        self.hash(SelectorKind::Prefix, scope, prefix)
    }

    fn hash(&self, kind: SelectorKind, scope: Scope, text: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u8(kind as u8);
        hasher.write_u64(scope.hash);
        hasher.write(text);
        let attribute_set = u64::from(scope.attribute_set.0) << ATTRIBUTE_SET_SHIFT;
        hasher.finish() & !(ATTRIBUTE_SET_MASK << ATTRIBUTE_SET_SHIFT) | attribute_set
    }
}

/// Position of the attribute set in a hash. Hash tables use the lowest and highest bits.
const ATTRIBUTE_SET_SHIFT: u32 = 40;
const ATTRIBUTE_SET_MASK: u64 = AttributeMask::COUNT as u64 - 1;

/// Returns the attribute set stored in a hash.
pub(super) fn attribute_set_of(hash: u64) -> AttributeMask {
    AttributeMask(
        u8::try_from(hash >> ATTRIBUTE_SET_SHIFT & ATTRIBUTE_SET_MASK).unwrap_or_default(),
    )
}

/// Splits a selector into an indexable term and attributes; `None` if this is impossible.
fn as_indexable(selector: &Selector) -> Option<(&Selector, ResponseAttributes<'_>)> {
    let (mut main, mut attributes) = (&Selector::Everything, ResponseAttributes::default());
    for term in selector.terms() {
        let (attribute, wanted) = match term {
            Selector::Everything => continue,
            Selector::User(user) => (&mut attributes.user, user),
            Selector::Route(route) => (&mut attributes.route, route),
            Selector::Version(version) => (&mut attributes.version, version),
            Selector::Tag(_) | Selector::Url(_) | Selector::Prefix(_) | Selector::Credential(_)
                if *main == Selector::Everything =>
            {
                main = term;
                continue;
            }
            _ => return None,
        };
        if attribute.replace(wanted).is_some_and(|known| *known != **wanted) {
            return None;
        }
    }
    Some((main, attributes))
}

/// Maximum length of an indexed prefix in bytes. Longer prefixes are cut and select more, which is
/// safe.
const MAX_PREFIX: usize = 1023;

fn truncate_prefix(prefix: &[u8]) -> &[u8] {
    prefix.get(..MAX_PREFIX).unwrap_or(prefix)
}

/// The set of prefix lengths in use, one bit each. It limits the number of hashes per lookup.
#[derive(Debug, Default)]
struct PrefixLengths([u64; (MAX_PREFIX + 1) / 64]);

impl PrefixLengths {
    fn insert(&mut self, length: usize) {
        if let Some(word) = self.0.get_mut(length / 64) {
            *word |= 1 << (length % 64);
        }
    }

    fn has(&self, length: usize) -> bool {
        self.0.get(length / 64).is_some_and(|word| word & 1 << (length % 64) != 0)
    }

    /// Returns the [`directory`] of a URL, or `None` if its length is not in use.
    fn directory(&self, url: &[u8]) -> Option<Vec<u8>> {
        let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
        if self.has(end + 1) { directory(url) } else { None }
    }

    /// Returns the lengths in use up to `longest`, in order.
    fn up_to(&self, longest: usize) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().map(|(place, word)| (place * 64, *word));
        words
            .flat_map(|(start, word)| bits(word).map(move |bit| start + bit))
            .take_while(move |length| *length <= longest)
    }
}

/// Returns the positions of the set bits, lowest first.
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
    fn lengths_are_returned_in_order_up_to_the_limit() {
        let mut lengths = PrefixLengths::default();
        for length in [1023, 0, 64, 7, 63, 7] {
            lengths.insert(length);
        }
        assert_eq!(lengths.up_to(2000).collect::<Vec<_>>(), [0, 7, 63, 64, 1023]);
        assert_eq!(lengths.up_to(63).collect::<Vec<_>>(), [0, 7, 63]);
        assert_eq!(lengths.up_to(0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn kinds_and_scopes_do_not_share_names() {
        let mut index = SelectorIndex::default();
        let text = || "/x".into();
        let mut selectors = vec![Selector::Everything, Selector::Pattern(text())];
        let whats = [Selector::Tag(text()), Selector::Url(text()), Selector::Prefix(text())];
        let attributes =
            [Selector::User(text()), Selector::Route(text()), Selector::Version(text())];
        for attribute in &attributes {
            let both = |what: &Selector| Selector::All([what.clone(), attribute.clone()].into());
            selectors.extend(whats.iter().map(both));
        }
        selectors.extend(whats);
        selectors.extend(attributes.clone());
        selectors.push(Selector::All(attributes.into()));
        let count = selectors.len();
        let mut found: Vec<u64> = selectors.iter().map(|it| index.insert(it, 1).hash).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count);
    }

    #[test]
    fn equal_selections_have_equal_hashes() {
        let mut index = SelectorIndex::default();
        let (tag, user) = (|| Selector::Tag("t".into()), || Selector::User("u".into()));
        let hash = index.insert(&Selector::All([tag(), user()].into()), 1);
        let nested = Selector::All([Selector::All([tag()].into()), user(), user()].into());
        for same in [Selector::All([user(), tag(), Selector::Everything].into()), nested] {
            assert_eq!(index.insert(&same, 1), hash);
        }
        assert_eq!(
            index.insert(&Selector::All([].into()), 1),
            index.insert(&Selector::Everything, 1)
        );
    }
}

//! Names of selectors: one number for each thing that can be selected.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::{Facets, Selector, credential_tag, listed::Listed};
use crate::field::Timestamp;

/// What kind of thing a selector looks at. A tag `x` is no URL `x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Everything,
    Tag,
    Url,
    Prefix,
    /// Something that no name of a response can stand for: it has to be looked at itself.
    Listed,
}

/// Of which facets a selector says what they have to be: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape(u8);

/// All responses, or those with certain facets: what else a selector says holds among these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    shape: Shape,
    hash: u64,
}

/// What a selector looks at, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) name: u64,
}

impl Shape {
    /// How many there are.
    pub(super) const COUNT: usize = 8;

    /// Of which facets anything is said here.
    fn of(facets: Facets<'_>) -> Self {
        let Facets { user, route, version } = facets;
        let bits = [user, route, version].map(|facet| u8::from(facet.is_some()));
        Self(bits.iter().rev().fold(0, |shape, bit| shape << 1 | bit))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Those of the selectors that may select what has these facets.
    pub(super) fn within(facets: Facets<'_>) -> impl Iterator<Item = Self> {
        let all = Self::of(facets).0;
        (0..=all).filter(move |shape| shape & !all == 0).map(Self)
    }

    /// Of these facets, those that this shape is about.
    fn part(self, facets: Facets<'_>) -> Facets<'_> {
        let Facets { user, route, version } = facets;
        let [user, route, version] = [(user, 1), (route, 2), (version, 4)]
            .map(|(facet, bit)| facet.filter(|_| self.0 & bit != 0));
        Facets { user, route, version }
    }
}

/// Gives selectors and responses their names.
///
/// A name is a hash under keys that are drawn for each table, and in three of its 64 bits the shape. So
/// nobody outside can look for two that collide; if two do, a purge of the one selects the other, too,
/// which is safe.
#[derive(Debug, Default)]
pub(super) struct Names {
    keys: RandomState,
    /// Lengths of the prefixes that begin with a host, and of those that begin with a path.
    with_host: Lengths,
    from_path: Lengths,
    listed: Listed,
}

impl Names {
    /// The name of what a selector selects, as the table gets this version.
    pub(super) fn of(&mut self, selector: &Selector, version: u64) -> Named {
        let Some((what, facets)) = simple(selector) else {
            let text = serde_json::to_vec(selector).unwrap_or_default();
            let name = self.name(Kind::Listed, Self::ALL, &text);
            self.listed.note(name, selector, version);
            return Named { kind: Kind::Listed, shape: Shape(0), name };
        };
        let shape = Shape::of(facets);
        let scope = self.scope(shape, facets);
        let (kind, name) = match what {
            Selector::Tag(tag) => (Kind::Tag, self.tag(scope, tag)),
            Selector::Credential(digest) => (Kind::Tag, self.tag(scope, &credential_tag(digest))),
            Selector::Url(url) => (Kind::Url, self.name(Kind::Url, scope, url.as_bytes())),
            Selector::Prefix(prefix) => (Kind::Prefix, self.prefix(scope, prefix.as_bytes())),
            _ => (Kind::Everything, self.everything(scope)),
        };
        Named { kind, shape, name }
    }

    /// Among all responses.
    pub(super) const ALL: Scope = Scope { shape: Shape(0), hash: 0 };

    /// Among the responses that share these facets with this one, as far as the shape goes.
    pub(super) fn scope(&self, shape: Shape, facets: Facets<'_>) -> Scope {
        if shape == Shape(0) {
            return Self::ALL;
        }
        Scope { shape, hash: self.keys.hash_one((shape.0, shape.part(facets))) }
    }

    pub(super) fn everything(&self, scope: Scope) -> u64 {
        self.name(Kind::Everything, scope, b"")
    }

    pub(super) fn tag(&self, scope: Scope, tag: &str) -> u64 {
        self.name(Kind::Tag, scope, tag.as_bytes())
    }

    /// The names under which this URL, in normal form, can be selected: with its host and without.
    pub(super) fn urls(&self, scope: Scope, url: &[u8]) -> impl Iterator<Item = u64> {
        let forms = [Some(url), path_of(url)].into_iter().flatten();
        forms.map(move |form| self.name(Kind::Url, scope, form))
    }

    /// The names of all prefixes of this URL, with its host and without, that have been named so far.
    pub(super) fn prefixes(&self, scope: Scope, url: &[u8]) -> impl Iterator<Item = u64> {
        let path = path_of(url).unwrap_or_default();
        let with_host = self.with_host.up_to(url.len()).filter_map(|length| url.get(..length));
        let from_path = self.from_path.up_to(path.len()).filter_map(|length| path.get(..length));
        let as_directory = [(url, &self.with_host), (path, &self.from_path)]
            .into_iter()
            .filter_map(|(form, lengths)| lengths.directory(form))
            .map(move |prefix| self.name(Kind::Prefix, scope, &prefix));
        let prefixes = with_host.chain(from_path);
        prefixes.map(move |prefix| self.name(Kind::Prefix, scope, prefix)).chain(as_directory)
    }

    /// The names of those selectors that have to be looked at themselves, came after the version `since`,
    /// and fit.
    pub(super) fn listed(
        &self,
        since: u64,
        fits: impl Fn(&Selector) -> bool,
    ) -> impl Iterator<Item = u64> {
        self.listed.since(since, fits)
    }

    /// Forgets the oldest of those that have to be looked at themselves, if there are too many.
    /// Returns its name and when it came.
    pub(super) fn pop_excess(
        &mut self,
        must_stay: impl Fn(u64) -> bool,
    ) -> Option<(u64, Option<Timestamp>)> {
        self.listed.pop_excess(must_stay)
    }

    /// Notes when what comes from now on was appended.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.listed.advance(now);
    }

    /// Looks at no selector any more, but those that must stay.
    pub(super) fn forget_listed(&mut self, must_stay: impl Fn(u64) -> bool) {
        self.listed.retain(must_stay);
    }

    /// Names no prefix any more until the next is given its name.
    pub(super) fn forget_prefixes(&mut self) {
        self.with_host = Lengths::default();
        self.from_path = Lengths::default();
    }

    /// About how many bytes are kept to look at.
    pub(super) fn bytes(&self) -> usize {
        self.listed.bytes()
    }

    fn prefix(&mut self, scope: Scope, prefix: &[u8]) -> u64 {
        let prefix = cut(prefix);
        let is_path = prefix.first() == Some(&b'/');
        let lengths = if is_path { &mut self.from_path } else { &mut self.with_host };
        lengths.insert(prefix.len());
        self.name(Kind::Prefix, scope, prefix)
    }

    fn name(&self, kind: Kind, scope: Scope, text: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u8(kind as u8);
        hasher.write_u64(scope.hash);
        hasher.write(text);
        let shape = u64::from(scope.shape.0) << SHAPE_AT;
        hasher.finish() & !(SHAPES << SHAPE_AT) | shape
    }
}

/// The lowest bit of the shape in a name. Hash tables use the bits at either end.
const SHAPE_AT: u32 = 40;
const SHAPES: u64 = Shape::COUNT as u64 - 1;

/// Returns the facets that a selector with this name is about.
pub(super) fn shape_of(name: u64) -> Shape {
    Shape(u8::try_from(name >> SHAPE_AT & SHAPES).unwrap_or_default())
}

/// A selector as one thing among the responses with certain facets, if that is all it says.
fn simple(selector: &Selector) -> Option<(&Selector, Facets<'_>)> {
    let (mut what, mut facets) = (&Selector::Everything, Facets::default());
    for term in selector.terms() {
        let (facet, wanted) = match term {
            Selector::Everything => continue,
            Selector::User(user) => (&mut facets.user, user),
            Selector::Route(route) => (&mut facets.route, route),
            Selector::Version(version) => (&mut facets.version, version),
            Selector::Tag(_) | Selector::Url(_) | Selector::Prefix(_) | Selector::Credential(_)
                if *what == Selector::Everything =>
            {
                what = term;
                continue;
            }
            _ => return None,
        };
        if facet.replace(wanted).is_some_and(|known| *known != **wanted) {
            return None;
        }
    }
    Some((what, facets))
}

/// A URL from its path on.
pub(super) fn path_of(url: &[u8]) -> Option<&[u8]> {
    let start = url.iter().position(|byte| *byte == b'/')?;
    url.get(start..)
}

/// A URL up to the end of its path, with a slash there; `None` if it has one. The form of URLs has no
/// trailing slash, but the prefix `/a/` means `/a/`, too.
pub(super) fn directory(url: &[u8]) -> Option<Vec<u8>> {
    let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
    let path = url.get(..end).filter(|path| !path.is_empty() && path.last() != Some(&b'/'))?;
    Some([path, b"/"].concat())
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

    fn has(&self, length: usize) -> bool {
        self.0.get(length / 64).is_some_and(|word| word & 1 << (length % 64) != 0)
    }

    /// The [`directory`] of a URL, if a prefix of its length occurs.
    fn directory(&self, url: &[u8]) -> Option<Vec<u8>> {
        let end = url.iter().position(|byte| *byte == b'?').unwrap_or(url.len());
        if self.has(end + 1) { directory(url) } else { None }
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
    fn kinds_and_scopes_do_not_share_names() {
        let mut names = Names::default();
        let text = || "/x".into();
        let mut selectors = vec![Selector::Everything, Selector::Pattern(text())];
        let whats = [Selector::Tag(text()), Selector::Url(text()), Selector::Prefix(text())];
        let facets = [Selector::User(text()), Selector::Route(text()), Selector::Version(text())];
        for facet in &facets {
            let both = |what: &Selector| Selector::All([what.clone(), facet.clone()].into());
            selectors.extend(whats.iter().map(both));
        }
        selectors.extend(whats);
        selectors.extend(facets.clone());
        selectors.push(Selector::All(facets.into()));
        let count = selectors.len();
        let mut found: Vec<u64> = selectors.iter().map(|it| names.of(it, 1).name).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count);
    }

    #[test]
    fn the_same_selection_has_one_name_however_it_is_written() {
        let mut names = Names::default();
        let (tag, user) = (|| Selector::Tag("t".into()), || Selector::User("u".into()));
        let name = names.of(&Selector::All([tag(), user()].into()), 1);
        let nested = Selector::All([Selector::All([tag()].into()), user(), user()].into());
        for same in [Selector::All([user(), tag(), Selector::Everything].into()), nested] {
            assert_eq!(names.of(&same, 1), name);
        }
        assert_eq!(names.of(&Selector::All([].into()), 1), names.of(&Selector::Everything, 1));
    }
}

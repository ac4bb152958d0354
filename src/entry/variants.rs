//! The index of a target's variants: the selecting fields, and the keys of the variants.

use std::{cmp::Reverse, time::Duration};

use http::HeaderName;

use crate::{
    field::Timestamp,
    key::{CacheKey, vary::VarySet},
};

/// Maximum number of variants of one target. Beyond it, the oldest unused variant is removed: a
/// `Vary` on a field that differs in every request must not fill the store.
pub(super) const MAX_VARIANTS: usize = 64;

/// Maximum number of sets of selecting fields of one target. Each costs a lookup.
const MAX_SELECTIONS: usize = 4;

/// Maximum number of `Accept-Encoding` values of one set.
const MAX_CODINGS: usize = 4;

/// Maximum number of response languages of one set.
const LANGUAGES: usize = 8;

/// The time for which a response without `Vary` inherits the selecting fields of earlier responses.
///
/// Many origins omit `Vary` if a request has none of the selecting fields (RFC 9111 §4.1).
pub(crate) const VARY_TTL: Duration = Duration::from_hours(24);

/// The index of the variants of one target (RFC 9111 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantIndex {
    pub target: Box<[u8]>,
    /// The sets of selecting fields. The set seen last comes first.
    pub selections: Vec<VarySelection>,
    /// Key digests of the most recently stored variants, oldest first; at most `MAX_VARIANTS`.
    pub recent: Vec<u128>,
}

/// A set of selecting fields, and the codings and languages of the variants that it selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarySelection {
    pub set: VarySet,
    /// The time of the last response with these selecting fields, by this node's clock.
    pub seen: Timestamp,
    /// Canonical `Accept-Encoding` values of stored variants, newest first.
    ///
    /// Contains only values without unknown codings.
    pub codings: Vec<Box<[u8]>>,
    /// The languages of stored variants, newest first.
    pub languages: Vec<LanguageVariant>,
}

/// A language of a stored variant, and the preferences of the request for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageVariant {
    /// The variant's `Content-Language`: one tag, as written.
    pub language: Box<[u8]>,
    /// The canonical `Accept-Language` in the variant's key.
    pub accepted: Box<[u8]>,
}

impl VariantIndex {
    pub fn new(target: &CacheKey) -> Self {
        Self { target: target.text().into(), selections: Vec::new(), recent: Vec::new() }
    }

    pub fn of(target: &CacheKey, selection: VarySelection, variant: u128) -> Self {
        let (selections, recent) = (vec![selection], vec![variant]);
        Self { target: target.text().into(), selections, recent }
    }

    /// Returns the newest set of selecting fields, if it still applies to responses without `Vary`.
    pub fn current_selection(&self, now: Timestamp) -> Option<&VarySelection> {
        self.selections.first().filter(|newest| now < newest.seen.saturating_add(VARY_TTL))
    }

    /// Merges a newer index of the same target. Returns the key digests of evicted variants.
    ///
    /// The result does not depend on how nodes group their additions, except for the order of
    /// variants. `take_hit` returns whether a variant was hit since the last call. If so, the
    /// variant counts as new, and stays however many other variants are added.
    pub fn merge(&mut self, newer: &Self, take_hit: impl Fn(u128) -> bool) -> Vec<u128> {
        for selection in newer.selections.iter().rev() {
            self.add(selection);
        }
        self.selections.sort_by_key(|selection| Reverse(selection.seen));
        self.selections.truncate(MAX_SELECTIONS);
        self.recent.retain(|digest| !newer.recent.contains(digest));
        let known = std::mem::take(&mut self.recent);
        let (hit, idle): (Vec<u128>, Vec<u128>) = known.into_iter().partition(|it| take_hit(*it));
        self.recent = [idle, hit, newer.recent.clone()].concat();
        let surplus = self.recent.len().saturating_sub(MAX_VARIANTS);
        self.recent.drain(..surplus).collect()
    }

    fn add(&mut self, newer: &VarySelection) {
        let known = self.selections.iter().position(|known| known.set == newer.set);
        let Some(known) = known.map(|place| self.selections.remove(place)) else {
            return self.selections.insert(0, newer.clone());
        };
        let further = known.codings.iter().filter(|value| !newer.codings.contains(value));
        let mut codings: Vec<_> = newer.codings.iter().chain(further).cloned().collect();
        codings.truncate(MAX_CODINGS);
        let is_new = |known: &&LanguageVariant| {
            !newer.languages.iter().any(|newer| newer.language == known.language)
        };
        let further = known.languages.iter().filter(is_new);
        let mut languages: Vec<_> = newer.languages.iter().chain(further).cloned().collect();
        languages.truncate(LANGUAGES);
        let seen = known.seen.max(newer.seen);
        self.selections.insert(0, VarySelection { set: known.set, seen, codings, languages });
    }

    pub fn heap_size(&self) -> usize {
        let selections: usize = self.selections.iter().map(VarySelection::heap_size).sum();
        self.target.len() + selections + self.recent.len() * size_of::<u128>()
    }
}

impl VarySelection {
    fn heap_size(&self) -> usize {
        let codings = self.codings.iter().map(|value| value.len() + size_of::<Box<[u8]>>());
        let languages = self.languages.iter().map(|known| {
            known.language.len() + known.accepted.len() + size_of::<LanguageVariant>()
        });
        let lists = codings.sum::<usize>() + languages.sum::<usize>();
        size_of::<Self>() + self.set.len() * size_of::<HeaderName>() + lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &'static str, seen: u64, coding: &str, variant: u128) -> VariantIndex {
        let selection = VarySelection {
            set: [HeaderName::from_static(name)].into_iter().collect(),
            seen: Timestamp::from_seconds(seen),
            codings: vec![coding.as_bytes().into()],
            languages: Vec::new(),
        };
        VariantIndex::of(&CacheKey::from_text(b"http://h/"), selection, variant)
    }

    #[test]
    fn what_several_add_is_all_there_and_what_was_named_last_comes_first() {
        let mut all = index("a", 1, "gzip", 1);
        assert!(all.merge(&index("b", 3, "br", 2), |_| false).is_empty());
        assert!(all.merge(&index("a", 2, "br", 3), |_| false).is_empty());
        let sets: Vec<_> = all.selections.iter().map(|it| it.set.iter().next().unwrap()).collect();
        assert_eq!(sets, ["b", "a"]);
        assert_eq!(all.selections[1].seen, Timestamp::from_seconds(2));
        let codings: Vec<&[u8]> = all.selections[1].codings.iter().map(|value| &**value).collect();
        assert_eq!(codings, [&b"br"[..], b"gzip"]);
        assert_eq!(all.recent, [1, 2, 3]);
        let before = all.clone();
        all.merge(&before, |_| false);
        assert_eq!(all, before, "adding what is known changes nothing");
    }

    #[test]
    fn the_newest_variant_of_each_language_is_remembered() {
        let spoken = |language: &str, accepted: &str| LanguageVariant {
            language: language.as_bytes().into(),
            accepted: accepted.as_bytes().into(),
        };
        let of = |number: u64, languages: &[LanguageVariant]| {
            let mut index = index("accept-language", number, "", number.into());
            index.selections[0].languages = languages.to_vec();
            index
        };
        let mut all = of(1, &[spoken("de", "de,en")]);
        all.merge(&of(2, &[spoken("en", "en")]), |_| false);
        all.merge(&of(3, &[spoken("de", "de")]), |_| false);
        assert_eq!(all.selections[0].languages, [spoken("de", "de"), spoken("en", "en")]);
        for number in 4..40 {
            all.merge(&of(number, &[spoken(&format!("l{number}"), "x")]), |_| false);
        }
        assert_eq!(all.selections[0].languages.len(), LANGUAGES);
        assert_eq!(all.selections[0].languages[0], spoken("l39", "x"));
    }

    #[test]
    fn what_is_in_use_keeps_its_place() {
        let mut all = index("a", 1, "", 0);
        let mut lost = Vec::new();
        for variant in 1..=100 {
            lost.extend(all.merge(&index("a", 1, "", variant), |digest| digest == 5));
        }
        assert_eq!(all.recent.len(), MAX_VARIANTS);
        assert!(all.recent.contains(&5) && !lost.contains(&5));
        assert_eq!((lost.len(), lost[0]), (101 - MAX_VARIANTS, 0));
        let all_used = all.merge(&index("a", 1, "", 101), |_| true);
        assert_eq!(all_used, [38], "there has to be room");
    }

    #[test]
    fn a_variant_that_is_hit_again_and_again_outlives_others_that_were_hit_once() {
        let hits = std::cell::RefCell::new(std::collections::HashSet::new());
        let mut all = index("a", 1, "", 0);
        for foreign in 1..=1000 {
            all.merge(&index("a", 1, "", foreign), |digest| hits.borrow_mut().remove(&digest));
            hits.borrow_mut().extend([0, foreign]);
        }
        assert!(all.recent.contains(&0));
        assert_eq!(all.recent.len(), MAX_VARIANTS);
    }

    #[test]
    fn selecting_fields_are_learned_for_a_day() {
        let index = index("a", 1000, "", 1);
        let day = 24 * 60 * 60;
        assert!(index.current_selection(Timestamp::from_seconds(999 + day)).is_some());
        assert!(index.current_selection(Timestamp::from_seconds(1000 + day)).is_none());
    }
}

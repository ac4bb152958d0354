//! Queries, and the rule for which of their parameters are part of the key.

mod name_pattern;
mod pair;
mod values;

use std::borrow::Cow;

use smallvec::SmallVec;

pub use name_pattern::NamePattern;
pub(crate) use name_pattern::NamePatternError;
pub(crate) use values::{DefaultValue, ValueRule};

pub(crate) use crate::field::form::{decoded, pairs};
use pair::{is_ambiguous, name_of};

/// The query parameters that are part of the key, their order, and those that reach the origin.
///
/// By default, the key contains all parameters: in RFC 9111 §2, different URIs are different keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryRule {
    /// Parameters that the key omits.
    pub ignore: Box<[NamePattern]>,
    /// If set, the key omits all other parameters.
    pub only: Option<Box<[NamePattern]>>,
    /// The order of parameters in the key.
    pub order: QueryOrder,
    /// The parameters that reach the origin.
    pub forwarding: QueryForwarding,
    /// The values of a parameter that are equivalent.
    pub values: ValueRule,
}

/// The query parameters that reach an origin whose response may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryForwarding {
    /// Only parameters in the key, so no other parameter can affect a response.
    #[default]
    Kept,
    /// All parameters. If the origin uses a parameter that the key omits, any client can change the
    /// response that other clients get.
    All,
}

/// The order of the parameters in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryOrder {
    /// The order as sent: another order is another target.
    #[default]
    AsSent,
    /// The order of decoded names; values of one name keep their order.
    ///
    /// A query that servers split differently, because of a `;` or a NUL, stays as sent.
    Sorted,
}

impl QueryRule {
    /// Returns the part of a query that is in the key; `None` if no parameter is.
    ///
    /// Keeps every pair that servers split differently, because of a `;` or a NUL. Takes one pass;
    /// allocates only if it drops a parameter, or changes the order of parameters or of a list.
    pub fn kept<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        let kept =
            if self.keeps_all() { Some(Cow::Borrowed(query)) } else { kept_pairs(query, self) };
        let kept = kept.and_then(|kept| self.values.canonical(kept));
        match self.order {
            QueryOrder::AsSent => kept,
            QueryOrder::Sorted => kept.map(sorted),
        }
    }

    /// Returns whether a parameter of this name, as sent, is part of the key.
    ///
    /// Checks the name decoded once and twice, because it may decode to another name.
    pub fn keeps(&self, name: &str) -> bool {
        let once = decoded(name);
        self.keeps_decoded(&once) || (once.contains('%') && self.keeps_decoded(&decoded(&once)))
    }

    fn keeps_decoded(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|pattern| pattern.matches(name)))
            && !self.ignore.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns whether a text repeats the value of a parameter that the origin receives but the key
    /// omits.
    pub fn leaks_into(&self, query: &str, text: &[u8]) -> bool {
        if self.forwarding == QueryForwarding::Kept || self.keeps_all() {
            return false;
        }
        let is_in = |value: &str| {
            !value.is_empty() && text.windows(value.len()).any(|part| part == value.as_bytes())
        };
        pairs(query)
            .filter(|(name, _)| !self.keeps(name))
            .filter_map(|(_, value)| value)
            .any(|value| is_in(value) || is_in(&decoded(value)))
    }

    fn keeps_all(&self) -> bool {
        self.ignore.is_empty() && self.only.is_none()
    }
}

fn kept_pairs<'a>(query: &'a str, rule: &QueryRule) -> Option<Cow<'a, str>> {
    let is_kept = |pair: &&str| is_ambiguous(pair) || rule.keeps(name_of(pair));
    if query.split('&').all(|pair| is_kept(&pair)) {
        return Some(Cow::Borrowed(query));
    }
    let kept = query.split('&').filter(is_kept).collect::<SmallVec<[&str; 16]>>().join("&");
    (!kept.is_empty()).then_some(Cow::Owned(kept))
}

/// Sorts pairs by decoded name; pairs of one name keep their order.
///
/// A query that servers split differently stays as sent: the names of its pairs are uncertain.
fn sorted(query: Cow<'_, str>) -> Cow<'_, str> {
    let names = || query.split('&').map(|pair| decoded(name_of(pair)));
    if names().is_sorted() || query.split('&').any(is_ambiguous) {
        return query;
    }
    let mut pairs: SmallVec<[_; 16]> = names().zip(query.split('&')).collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let pairs: SmallVec<[&str; 16]> = pairs.into_iter().map(|(_, pair)| pair).collect();
    Cow::Owned(pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(names: &[&str]) -> Box<[NamePattern]> {
        names.iter().map(|name| NamePattern::parse(name).unwrap()).collect()
    }

    fn kept(query: &str, rule: &QueryRule) -> String {
        rule.kept(query).map_or(String::new(), |query| format!("?{query}"))
    }

    #[test]
    fn ignored_parameters_leave_no_trace() {
        let rule = QueryRule { ignore: patterns(&["utm_*", "_", "*_id"]), ..QueryRule::default() };
        assert_eq!(kept("a=1&utm_source=x&b=2&_=17&click_id=9", &rule), "?a=1&b=2");
        assert_eq!(kept("utm%5Fsource=x", &rule), "");
        assert_eq!(kept("utm_source=x", &rule), "");
        assert_eq!(kept("utmost=x", &rule), "?utmost=x");
        assert_eq!(kept("", &rule), "?");
    }

    #[test]
    fn what_servers_split_or_decode_differently_is_kept() {
        let ignoring = QueryRule { ignore: patterns(&["utm_*"]), ..QueryRule::default() };
        let only = QueryRule { only: Some(patterns(&["a"])), ..QueryRule::default() };
        for rule in [&ignoring, &only] {
            for query in
                ["a=1&utm_x=2;a=3", "a=1&utm_x=%3Ba", "a=1&utm_x=%00", "a=1&%61=2", "a=1&%2561=2"]
            {
                assert_eq!(kept(query, rule), format!("?{query}"));
            }
        }
        assert_eq!(kept("utm%255Fx=1", &ignoring), "?utm%255Fx=1", "some origins decode once");
    }

    #[test]
    fn a_text_that_repeats_an_ignored_value_is_found() {
        let rule = QueryRule {
            ignore: patterns(&["token"]),
            forwarding: QueryForwarding::All,
            ..QueryRule::default()
        };
        assert!(rule.leaks_into("a=1&token=s%20x", b"/next?t=s%20x"));
        assert!(rule.leaks_into("a=1&token=s%20x", b"/next?t=s x"));
        assert!(!rule.leaks_into("a=1&token=", b"/next?a=1"));
        assert!(!rule.leaks_into("a=secret", b"/next?a=secret"));
        let kept = QueryRule { forwarding: QueryForwarding::Kept, ..rule };
        assert!(!kept.leaks_into("token=x", b"x"), "it did not reach the origin");
    }

    #[test]
    fn only_named_parameters_count() {
        let rule = QueryRule { only: Some(patterns(&["symbol", "range"])), ..QueryRule::default() };
        assert_eq!(kept("x=1&range=5d&symbol=A&symbol=B", &rule), "?range=5d&symbol=A&symbol=B");
        assert_eq!(kept("x=1", &rule), "");
    }

    #[test]
    fn sorting_keeps_the_order_of_equal_names() {
        let rule = QueryRule { order: QueryOrder::Sorted, ..QueryRule::default() };
        assert_eq!(kept("b=2&a=9&b=1&a=1", &rule), "?a=9&a=1&b=2&b=1");
        assert_eq!(kept("a=1&b=2", &rule), "?a=1&b=2");
        assert_eq!(kept("b=1&a=1&%61=2", &rule), "?a=1&%61=2&b=1");
        assert_eq!(kept("b=1&%61=2&a=1", &rule), "?%61=2&a=1&b=1");
        assert_eq!(kept("b=1&a[]=1&a%5B%5D=2", &rule), "?a[]=1&a%5B%5D=2&b=1");
    }

    #[test]
    fn what_servers_split_differently_is_not_sorted() {
        let rule = QueryRule { order: QueryOrder::Sorted, ..QueryRule::default() };
        for query in ["z=1;a=2&a=1", "a=1&z=1;a=2", "b=1%3Ba=1&a=2"] {
            assert_eq!(kept(query, &rule), format!("?{query}"));
        }
    }

    #[test]
    fn wildcards_stand_at_the_ends() {
        assert_eq!(NamePattern::parse(""), Err(NamePatternError::Empty));
        assert_eq!(NamePattern::parse("a*b"), Err(NamePatternError::Wildcard));
        assert_eq!(NamePattern::parse("*a*"), Err(NamePatternError::Wildcard));
        assert!(NamePattern::parse("*").unwrap().matches("anything"));
    }

    #[test]
    fn pairs_are_as_sent_and_decode_like_forms() {
        let all: Vec<_> = pairs("a=1&&b&c=x=y&d=").collect();
        let expected = [("a", Some("1")), ("b", None), ("c", Some("x=y")), ("d", Some(""))];
        assert_eq!(all, expected);
        assert_eq!(decoded("a+b%20c%C3%A9"), "a b cé");
        assert_eq!(decoded("%FF"), "%FF");
    }

    proptest! {
        #[test]
        fn every_rule_is_idempotent(query in "[ab=&%25]{0,16}", sorted: bool, ignoring: bool) {
            let rule = QueryRule {
                ignore: if ignoring { patterns(&["a"]) } else { Box::default() },
                order: if sorted { QueryOrder::Sorted } else { QueryOrder::AsSent },
                ..QueryRule::default()
            };
            let once = kept(&query, &rule);
            let twice = once.strip_prefix('?').map_or(String::new(), |query| kept(query, &rule));
            prop_assert_eq!(once, twice);
        }
    }
}

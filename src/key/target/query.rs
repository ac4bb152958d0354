//! Queries: their pairs, and which of these are part of the cache key.

use std::{borrow::Cow, fmt};

use smallvec::SmallVec;
use thiserror::Error;

use super::percent;

/// Which query parameters make a difference, and whether their order does.
///
/// By default all do: RFC 9111 §2 knows no equivalence between different target URIs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryRule {
    /// Parameters that are left out of the key.
    pub ignore: Box<[NamePattern]>,
    /// If given, all other parameters are left out of the key.
    pub only: Option<Box<[NamePattern]>>,
    /// The order of parameters in the key.
    pub order: Order,
}

/// The order in which query parameters enter the cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As the client sent them: another order is another target.
    #[default]
    AsSent,
    /// By name; values of one name keep their order.
    Sorted,
}

impl QueryRule {
    /// Whether a parameter of this name, as sent, is part of the key.
    pub fn keeps(&self, name: &str) -> bool {
        let name = decoded(name);
        self.only.as_ref().is_none_or(|only| only.iter().any(|pattern| pattern.matches(&name)))
            && !self.ignore.iter().any(|pattern| pattern.matches(&name))
    }

    fn keeps_all(&self) -> bool {
        self.ignore.is_empty() && self.only.is_none()
    }
}

/// A parameter name, or all names with a common beginning or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// `range`
    Exact(Box<str>),
    /// `utm_*`
    Prefix(Box<str>),
    /// `*_id`
    Suffix(Box<str>),
}

/// A pattern for names that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NamePatternError {
    /// There is no text at all.
    #[error("a name is missing")]
    Empty,
    /// A `*` in the middle, or more than one.
    #[error("a `*` may stand only at the beginning or at the end")]
    Wildcard,
}

impl NamePattern {
    /// Reads `name`, `name*`, `*name` or `*`.
    pub fn parse(text: &str) -> Result<Self, NamePatternError> {
        let (pattern, literal) = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(prefix), _) => (Self::Prefix(prefix.into()), prefix),
            (None, Some(suffix)) => (Self::Suffix(suffix.into()), suffix),
            (None, None) => (Self::Exact(text.into()), text),
        };
        if text.is_empty() {
            return Err(NamePatternError::Empty);
        }
        if literal.contains('*') {
            return Err(NamePatternError::Wildcard);
        }
        Ok(pattern)
    }

    /// Whether a decoded name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == &**text,
            Self::Prefix(text) => name.starts_with(&**text),
            Self::Suffix(text) => name.ends_with(&**text),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => formatter.write_str(text),
            Self::Prefix(text) => write!(formatter, "{text}*"),
            Self::Suffix(text) => write!(formatter, "*{text}"),
        }
    }
}

/// The parameters of a query in order, as sent: name and, after a `=`, value.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    })
}

/// A name or value as HTML forms decode it: `+` is a space, percent-encodings are UTF-8. What is not
/// UTF-8 stays as sent.
pub fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Cow::Owned(text.into_owned()),
        Err(_) => Cow::Borrowed(raw),
    }
}

/// Appends the query in normal form with its `?`; nothing where there is no query, or where `rule`
/// leaves nothing of it.
pub(super) fn write(into: &mut Vec<u8>, query: Option<&str>, rule: &QueryRule) {
    let Some(query) = query else { return };
    let start = into.len();
    into.push(b'?');
    if rule.keeps_all() {
        percent::write(into, query.as_bytes());
    } else {
        write_kept(into, query, rule);
        if into.len() == start + 1 && !query.is_empty() {
            into.truncate(start);
        }
    }
    if rule.order == Order::Sorted {
        sort(into, start + 1);
    }
}

fn write_kept(into: &mut Vec<u8>, query: &str, rule: &QueryRule) {
    let kept = query.split('&').filter(|pair| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        rule.keeps(name)
    });
    for (index, pair) in kept.enumerate() {
        if index > 0 {
            into.push(b'&');
        }
        percent::write(into, pair.as_bytes());
    }
}

/// Sorts the pairs from `start` on by name, stably.
fn sort(into: &mut Vec<u8>, start: usize) {
    let is_sorted = into
        .get(start..)
        .is_none_or(|query| query.split(|byte| *byte == b'&').map(name_of).is_sorted());
    if is_sorted {
        return;
    }
    let query = into.split_off(start);
    let mut pairs: SmallVec<[&[u8]; 16]> = query.split(|byte| *byte == b'&').collect();
    pairs.sort_by_key(|pair| name_of(pair));
    for (index, pair) in pairs.into_iter().enumerate() {
        if index > 0 {
            into.push(b'&');
        }
        into.extend_from_slice(pair);
    }
}

fn name_of(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or(pair)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(names: &[&str]) -> Box<[NamePattern]> {
        names.iter().map(|name| NamePattern::parse(name).unwrap()).collect()
    }

    fn normal(query: &str, rule: &QueryRule) -> String {
        let mut buffer = Vec::new();
        write(&mut buffer, Some(query), rule);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn a_stray_percent_sign_keeps_no_other_parameter_from_its_normal_form() {
        let sorted = QueryRule { order: Order::Sorted, ..QueryRule::default() };
        for query in ["a%&%52", "%52&a%"] {
            let mut into = Vec::new();
            write(&mut into, Some(query), &sorted);
            assert_eq!(into, b"?R&a%", "{query}");
        }
    }

    #[test]
    fn ignored_parameters_leave_no_trace() {
        let rule = QueryRule { ignore: patterns(&["utm_*", "_", "*_id"]), ..QueryRule::default() };
        assert_eq!(normal("a=1&utm_source=x&b=2&_=17&click_id=9", &rule), "?a=1&b=2");
        assert_eq!(normal("utm%5Fsource=x", &rule), "");
        assert_eq!(normal("utm_source=x", &rule), "");
        assert_eq!(normal("utmost=x", &rule), "?utmost=x");
        assert_eq!(normal("", &rule), "?");
    }

    #[test]
    fn only_named_parameters_count() {
        let rule = QueryRule { only: Some(patterns(&["symbol", "range"])), ..QueryRule::default() };
        assert_eq!(normal("x=1&range=5d&symbol=A&symbol=B", &rule), "?range=5d&symbol=A&symbol=B");
        assert_eq!(normal("x=1", &rule), "");
    }

    #[test]
    fn sorting_keeps_the_order_of_equal_names() {
        let rule = QueryRule { order: Order::Sorted, ..QueryRule::default() };
        assert_eq!(normal("b=2&a=9&b=1&a=1", &rule), "?a=9&a=1&b=2&b=1");
        assert_eq!(normal("a=1&b=2", &rule), "?a=1&b=2");
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
                only: None,
                order: if sorted { Order::Sorted } else { Order::AsSent },
            };
            let once = normal(&query, &rule);
            let twice = once.strip_prefix('?').map_or(String::new(), |query| normal(query, &rule));
            prop_assert_eq!(once, twice);
        }
    }
}

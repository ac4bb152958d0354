//! Conditions under which requests skip a route's cache.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::key::uri::{QueryForwarding, QueryRule, query};

/// The requests that skip the cache: they are neither served from it nor stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BypassRule {
    /// Conditions on query parameters; one match suffices.
    pub query: Box<[QueryCondition]>,
    /// Conditions on header fields; one match suffices.
    pub headers: Box<[HeaderCondition]>,
    /// Whether the response may replace the stored response, if the origin cannot see the
    /// condition. See [`MatchedConditions::is_hidden_from_origin`].
    pub refresh: bool,
}

impl BypassRule {
    /// Returns whether a request with this query, as sent, and these fields skips the cache. On the
    /// hot path: allocates only if there are conditions on the query and it has encoded names.
    pub fn applies(&self, query: Option<&str>, headers: &HeaderMap) -> bool {
        self.headers.iter().any(|condition| condition.is_met_by(headers))
            || (!self.query.is_empty()
                && query
                    .is_some_and(|query| self.query.iter().any(|wanted| wanted.is_met_by(query))))
    }

    /// Returns all conditions that match a request; empty if the request does not skip the cache.
    pub fn matching_conditions(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> MatchedConditions<'_> {
        let holding = |wanted: &&QueryCondition| query.is_some_and(|query| wanted.is_met_by(query));
        MatchedConditions {
            query: self.query.iter().filter(holding).collect(),
            headers: self.headers.iter().filter(|wanted| wanted.is_met_by(headers)).collect(),
        }
    }
}

/// The conditions by which a request skips the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MatchedConditions<'a> {
    /// Matching conditions on query parameters.
    pub query: SmallVec<[&'a QueryCondition; 1]>,
    /// Matching conditions on header fields.
    pub headers: SmallVec<[&'a HeaderCondition; 1]>,
}

impl MatchedConditions<'_> {
    /// Returns whether the conditions are invisible to the origin.
    ///
    /// True if all of them are query parameters that are left out of the key and the forwarded
    /// target. The response is then the same as for any other request with this key.
    pub fn is_hidden_from_origin(&self, rule: &QueryRule) -> bool {
        self.headers.is_empty()
            && !self.query.is_empty()
            && rule.forwarding == QueryForwarding::Kept
            && self.query.iter().all(|condition| !rule.keeps(&condition.name))
    }
}

/// The expected value of a parameter or field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ValueMatch {
    /// Any value except the empty and falsy ones. Written `true`, `1`, `yes` or `on`.
    Truthy,
    /// A falsy value: `false`, `0`, `no` or `off`.
    Falsy,
    /// This exact value.
    Exact,
}

impl ValueMatch {
    fn of(text: &str) -> Self {
        match text {
            _ if equals_any(text.as_bytes(), &["true", "1", "yes", "on"]) => Self::Truthy,
            _ if is_falsy(text.as_bytes()) => Self::Falsy,
            _ => Self::Exact,
        }
    }
}

fn is_falsy(value: &[u8]) -> bool {
    equals_any(value, &["false", "0", "no", "off"])
}

fn equals_any(value: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// An expected value as written, and its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExpectedValue {
    text: Box<str>,
    kind: ValueMatch,
}

impl ExpectedValue {
    fn of(text: &str) -> Self {
        Self { text: text.into(), kind: ValueMatch::of(text) }
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self.kind {
            ValueMatch::Truthy => !value.is_empty() && !is_falsy(value),
            ValueMatch::Falsy => is_falsy(value),
            ValueMatch::Exact => value == self.text.as_bytes(),
        }
    }
}

/// A condition on a query parameter: its presence or its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryCondition {
    /// Decoded name.
    pub name: Box<str>,
    /// Expected value, decoded; `None` if any value matches.
    value: Option<ExpectedValue>,
}

impl QueryCondition {
    /// Parses `name` or `name=value`. Returns `None` if the name is empty.
    ///
    /// `name` matches if the parameter is present. `name=true` (or `1`, `yes`, `on`) matches `name`
    /// alone and every value except the empty one, `0`, `false`, `no` and `off`. `name=false`
    /// matches these last four. Any other value has to be equal.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(ExpectedValue::of(value))),
            None => (text, None),
        };
        (!name.is_empty()).then(|| Self { name: name.into(), value })
    }

    fn is_met_by(&self, query: &str) -> bool {
        query::pairs(query)
            .any(|(name, value)| query::decoded(name) == *self.name && self.accepts(value))
    }

    fn accepts(&self, value: Option<&str>) -> bool {
        match (&self.value, value) {
            (None, _) => true,
            (Some(wanted), None) => wanted.kind == ValueMatch::Truthy,
            (Some(wanted), Some(value)) => wanted.accepts(query::decoded(value).as_bytes()),
        }
    }
}

impl fmt::Display for QueryCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => formatter.write_str(&self.name),
            Some(value) => write!(formatter, "{}={}", self.name, value.text),
        }
    }
}

/// A condition on a header field: its presence or its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// Name of the field.
    pub name: HeaderName,
    /// Expected value of a field line; `None` if any value matches.
    value: Option<ExpectedValue>,
}

impl HeaderCondition {
    /// Parses `name` or `name: value`. Returns `None` if the name is invalid. Truthy and falsy
    /// values are the same as for [`QueryCondition`].
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim())),
            None => (text, None),
        };
        let name = name.trim().parse().ok()?;
        let is_value = value.is_none_or(|value| HeaderValue::from_str(value).is_ok());
        is_value.then(|| Self { name, value: value.map(ExpectedValue::of) })
    }

    fn is_met_by(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(wanted) => {
                headers.get_all(&self.name).iter().any(|value| wanted.accepts(value.as_bytes()))
            }
        }
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => write!(formatter, "{}", self.name),
            Some(value) => write!(formatter, "{}: {}", self.name, value.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::NamePattern;

    #[test]
    fn any_condition_suffices() {
        let bypass = BypassRule {
            query: ["nocache=true", "fresh"]
                .map(|text| QueryCondition::parse(text).unwrap())
                .into(),
            headers: ["x-export", "X-Mode: live"]
                .map(|text| HeaderCondition::parse(text).unwrap())
                .into(),
            refresh: false,
        };
        let none = HeaderMap::new();
        assert!(bypass.applies(Some("a=1&nocache=true"), &none));
        assert!(
            bypass.applies(Some("no%63ache=true"), &none) && bypass.applies(Some("fresh"), &none)
        );
        assert!(
            !bypass.applies(Some("nocache=false&xfresh"), &none) && !bypass.applies(None, &none)
        );
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        assert!(bypass.applies(None, &with("x-export", "")));
        assert!(bypass.applies(None, &with("x-mode", "live")));
        assert!(!bypass.applies(None, &with("x-mode", "cached")));
    }

    #[test]
    fn what_means_yes_is_true_and_what_means_no_is_false() {
        let holds =
            |condition: &str, query| QueryCondition::parse(condition).unwrap().is_met_by(query);
        for condition in ["a=true", "a=1", "a=Yes", "a=on"] {
            for query in ["a", "a=1", "a=TRUE", "a=yes", "a=x", "a=%31", "a=0&a=1"] {
                assert!(holds(condition, query), "{condition} {query}");
            }
            for query in ["a=", "a=0", "a=False", "a=NO", "a=off", "b=1", "aa=1"] {
                assert!(!holds(condition, query), "{condition} {query}");
            }
        }
        assert!(holds("a=false", "a=0") && holds("a=off", "a=NO"));
        assert!(!holds("a=false", "a") && !holds("a=false", "a=") && !holds("a=0", "a=00"));
        assert!(holds("a=Live", "a=Live") && !holds("a=Live", "a=live") && !holds("a=Live", "a"));
        assert!(holds("a", "a=0") && holds("a=", "a=") && !holds("a=", "a=1"));
    }

    #[test]
    fn what_matched_says_whether_the_origin_sees_it() {
        let condition = |text| QueryCondition::parse(text).unwrap();
        let bypass = BypassRule {
            query: [condition("nocache=true"), condition("fresh")].into(),
            headers: [HeaderCondition::parse("x-export").unwrap()].into(),
            refresh: true,
        };
        let ignore = [NamePattern::parse("nocache").unwrap()].into();
        let rule = QueryRule { ignore, ..QueryRule::default() };
        let none = HeaderMap::new();
        let matched = |query, headers| bypass.matching_conditions(query, headers);
        assert_eq!(matched(Some("nocache=0"), &none), MatchedConditions::default());
        assert!(!matched(None, &none).is_hidden_from_origin(&rule));
        assert!(matched(Some("nocache"), &none).is_hidden_from_origin(&rule));
        assert!(!matched(Some("nocache"), &none).is_hidden_from_origin(&QueryRule::default()));
        let forwarding = QueryRule { forwarding: QueryForwarding::All, ..rule.clone() };
        assert!(!matched(Some("nocache"), &none).is_hidden_from_origin(&forwarding));
        assert!(!matched(Some("nocache&fresh"), &none).is_hidden_from_origin(&rule));
        let mut export = HeaderMap::new();
        export.insert("x-export", HeaderValue::from_static("1"));
        assert!(!matched(Some("nocache"), &export).is_hidden_from_origin(&rule));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        assert_eq!(QueryCondition::parse("=x"), None);
        assert_eq!(HeaderCondition::parse("x y: z"), None);
        assert_eq!(HeaderCondition::parse(""), None);
    }
}

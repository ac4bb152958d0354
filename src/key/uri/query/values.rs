//! Equivalent query values: lists that differ only in order, and defaults that may be omitted.

use std::{borrow::Cow, fmt};

use smallvec::SmallVec;
use url::form_urlencoded;

use super::{
    name_pattern::NamePattern,
    pair::{is_ambiguous, name_of},
};
use crate::field::form::{decoded, pairs};

/// The values of parameters that are equivalent. The origin receives the query in the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueRule {
    /// Parameters whose value is a list, separated by commas, in any order.
    pub lists: Box<[NamePattern]>,
    /// Parameters that the key omits if they have their default value.
    pub defaults: Box<[DefaultValue]>,
}

/// The default of a parameter, which requests may omit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultValue {
    /// The decoded name.
    pub name: Box<str>,
    /// The decoded value.
    pub value: Box<str>,
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.name, self.value)
    }
}

impl ValueRule {
    /// Returns the query with lists sorted and without defaults; `None` if nothing is left.
    pub(crate) fn canonical<'a>(&self, query: Cow<'a, str>) -> Option<Cow<'a, str>> {
        if self.is_empty() {
            return Some(query);
        }
        let is_left_out = |pair: &str| self.is_default(pair, &query);
        let mut is_changed = false;
        let mut pairs: SmallVec<[Cow<'_, str>; 16]> = SmallVec::new();
        for pair in query.split('&') {
            if is_left_out(pair) {
                is_changed = true;
                continue;
            }
            let sorted = self.sorted_list(pair);
            is_changed |= sorted.is_some();
            pairs.push(sorted.map_or(Cow::Borrowed(pair), Cow::Owned));
        }
        if pairs.is_empty() {
            return None;
        }
        let changed = is_changed.then(|| pairs.join("&"));
        drop(pairs);
        Some(changed.map_or(query, Cow::Owned))
    }

    /// Returns the query from which the tags of its response are derived: lists are sorted, and
    /// omitted parameters have their defaults.
    pub fn with_defaults<'a>(&self, query: Option<&'a str>) -> Option<Cow<'a, str>> {
        if self.is_empty() {
            return query.map(Cow::Borrowed);
        }
        let kept = query.and_then(|query| self.canonical(Cow::Borrowed(query)));
        let mut all = kept.map(Cow::into_owned).unwrap_or_default();
        for DefaultValue { name, value } in &self.defaults {
            if pairs(&all).any(|(known, _)| decoded(known) == **name) {
                continue;
            }
            // Separates the pair from those before it.
            all = form_urlencoded::Serializer::new(all).append_pair(name, value).finish();
        }
        (query.is_some() || !all.is_empty()).then_some(Cow::Owned(all))
    }

    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.defaults.is_empty()
    }

    /// Returns whether a pair of this query has its parameter's default, and no server can find
    /// another value of the parameter elsewhere in the query.
    fn is_default(&self, pair: &str, query: &str) -> bool {
        let Some((name, value)) = pair.split_once('=') else { return false };
        let name = decoded(name);
        let is_default = |default: &DefaultValue| *default.name == *name;
        let Some(default) = self.defaults.iter().find(|default| is_default(default)) else {
            return false;
        };
        let names_it = |other: &&str| {
            let once = decoded(name_of(other));
            *once == *name || *decoded(&once) == *name
        };
        decoded(value) == *default.value
            && query.split('&').filter(names_it).count() == 1
            && !query.split('&').any(is_ambiguous)
    }

    /// Returns a pair with its list sorted; `None` if its value is not a list or is already sorted.
    fn sorted_list(&self, pair: &str) -> Option<String> {
        let (name, value) = pair.split_once('=')?;
        let decoded_name = decoded(name);
        let is_list = |pattern: &NamePattern| pattern.matches(&decoded_name);
        if is_ambiguous(pair) || decoded_name.contains('%') || !self.lists.iter().any(is_list) {
            return None;
        }
        let separator = separator(value)?;
        let mut members: SmallVec<[&str; 16]> = value.split(separator).collect();
        if members.is_sorted() {
            return None;
        }
        members.sort_unstable();
        Some(format!("{name}={}", members.join(separator)))
    }
}

/// Returns the only separator in a list: a comma, or one of its encodings. `None` without a
/// separator, or if servers that split before they decode find another separator.
fn separator(value: &str) -> Option<&'static str> {
    let mut found = [",", "%2C", "%2c"].into_iter().filter(|comma| value.contains(comma));
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::uri::{QueryOrder, QueryRule, query::QueryForwarding};

    fn rule() -> QueryRule {
        let default =
            |name: &str, value: &str| DefaultValue { name: name.into(), value: value.into() };
        let values = ValueRule {
            lists: ["symbols", "f_*"].map(|name| NamePattern::parse(name).unwrap()).into(),
            defaults: [default("page", "1"), default("q", ""), default("sort by", "name asc")]
                .into(),
        };
        QueryRule { values, ..QueryRule::default() }
    }

    fn kept(query: &str) -> String {
        rule().kept(query).map_or(String::new(), |query| format!("?{query}"))
    }

    #[test]
    fn the_order_within_a_list_does_not_count() {
        for (query, expected) in [
            ("symbols=b,a", "?symbols=a,b"),
            ("x=b,a&symbols=MSFT,AAPL,AAPL&y", "?x=b,a&symbols=AAPL,AAPL,MSFT&y"),
            ("symbols=b%2Ca", "?symbols=a%2Cb"),
            ("symbols=b%2ca", "?symbols=a%2cb"),
            ("%73ymbols=b,a", "?%73ymbols=a,b"),
            ("f_x=2,1&f_y=,a", "?f_x=1,2&f_y=,a"),
            ("symbols=b,a&symbols=d,c", "?symbols=a,b&symbols=c,d"),
        ] {
            assert_eq!(kept(query), expected);
        }
    }

    #[test]
    fn a_list_that_servers_split_differently_stays_as_sent() {
        for query in [
            "symbols=b,a;c",
            "symbols=b,a%00",
            "symbols=c,b%2Ca",
            "symbols=c%2cb%2Ca",
            "%2573ymbols=b,a",
            "symbols",
        ] {
            assert_eq!(kept(query), format!("?{query}"));
        }
    }

    #[test]
    fn a_parameter_with_its_default_is_left_out() {
        for (query, expected) in [
            ("page=1", ""),
            ("a=2&page=1&b=3", "?a=2&b=3"),
            ("p%61ge=%31", ""),
            ("q=&a", "?a"),
            ("sort+by=name%20asc", ""),
            ("page=1&q=", ""),
        ] {
            assert_eq!(kept(query), expected, "{query}");
        }
    }

    #[test]
    fn what_may_have_another_value_is_kept() {
        for query in [
            "page=2",
            "page=01",
            "page",
            "page=",
            "q",
            "page=1&page=2",
            "page=2&page=1",
            "page=1&p%61ge=2",
            "page=1&%2570age=2",
            "page=1&a=1;page=2",
            "page=1&a=%00",
            "Page=1",
        ] {
            assert_eq!(kept(query), format!("?{query}"));
        }
    }

    #[test]
    fn what_is_forwarded_beside_the_key_has_the_same_values() {
        let all = QueryRule {
            ignore: ["x"].map(|name| NamePattern::parse(name).unwrap()).into(),
            forwarding: QueryForwarding::All,
            ..rule()
        };
        let forwarded = all.values.canonical(Cow::Borrowed("x=1&symbols=b,a&page=1"));
        assert_eq!(forwarded.as_deref(), Some("x=1&symbols=a,b"));
        assert_eq!(all.kept("x=1&symbols=b,a&page=1").as_deref(), Some("symbols=a,b"));
    }

    #[test]
    fn tags_see_defaults_and_sorted_lists() {
        let of_tags = |query| rule().values.with_defaults(query).map(Cow::into_owned);
        let rest = "q=&sort+by=name+asc";
        assert_eq!(of_tags(None), Some(format!("page=1&{rest}")));
        assert_eq!(of_tags(Some("page=1")), Some(format!("page=1&{rest}")));
        assert_eq!(of_tags(Some("symbols=b,a&page=2")), Some(format!("symbols=a,b&page=2&{rest}")));
        assert_eq!(QueryRule::default().values.with_defaults(Some("a")), Some(Cow::Borrowed("a")));
        assert_eq!(QueryRule::default().values.with_defaults(None), None);
    }

    proptest! {
        #[test]
        fn canonical_values_are_idempotent(query in "(symbols|page|f_x|a|%70age)(=|&|,|1|%2C|%2c|;|b){0,12}", sorted: bool) {
            let rule = QueryRule {
                order: if sorted { QueryOrder::Sorted } else { QueryOrder::AsSent },
                ..rule()
            };
            let once = rule.kept(&query).map(Cow::into_owned);
            let twice = once.as_deref().and_then(|query| rule.kept(query)).map(Cow::into_owned);
            prop_assert_eq!(once, twice);
        }
    }
}

//! Conditions on requests: when a route's cache is skipped.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::key::target::query;

/// Requests that skip the cache: neither answered from it nor stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bypass {
    /// Query parameters, any of which suffices.
    pub query: Box<[QueryCondition]>,
    /// Header fields, any of which suffices.
    pub headers: Box<[HeaderCondition]>,
}

impl Bypass {
    /// Whether a request with this query, as sent, and these fields skips the cache.
    pub fn applies(&self, query: Option<&str>, headers: &HeaderMap) -> bool {
        self.headers.iter().any(|condition| condition.holds(headers))
            || (!self.query.is_empty()
                && query.is_some_and(|query| self.query.iter().any(|wanted| wanted.holds(query))))
    }
}

/// A query parameter that is there, or has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryCondition {
    /// Its name, decoded.
    pub name: Box<str>,
    /// The value it must have, decoded; any if left out.
    pub value: Option<Box<str>>,
}

impl QueryCondition {
    /// Reads `name` or `name=value`; none where the name is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text, None),
        };
        (!name.is_empty()).then(|| Self { name: name.into(), value })
    }

    fn holds(&self, query: &str) -> bool {
        query::pairs(query).any(|(name, value)| {
            query::decoded(name) == *self.name
                && self.value.as_ref().is_none_or(|wanted| {
                    value.is_some_and(|value| query::decoded(value) == **wanted)
                })
        })
    }
}

impl fmt::Display for QueryCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => formatter.write_str(&self.name),
            Some(value) => write!(formatter, "{}={value}", self.name),
        }
    }
}

/// A header field that is there, or has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// Its name.
    pub name: HeaderName,
    /// The value one of its lines must have; any if left out.
    pub value: Option<HeaderValue>,
}

impl HeaderCondition {
    /// Reads `name` or `name: value`; none where that is no header field.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.trim())),
            None => (text, None),
        };
        let name = name.trim().parse().ok()?;
        let value = value.map(HeaderValue::from_str).transpose().ok()?;
        Some(Self { name, value })
    }

    fn holds(&self, headers: &HeaderMap) -> bool {
        match &self.value {
            None => headers.contains_key(&self.name),
            Some(wanted) => headers.get_all(&self.name).iter().any(|value| value == wanted),
        }
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_ref().map(HeaderValue::to_str) {
            Some(Ok(value)) => write!(formatter, "{}: {value}", self.name),
            _ => write!(formatter, "{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_condition_suffices() {
        let bypass = Bypass {
            query: ["nocache=true", "fresh"]
                .map(|text| QueryCondition::parse(text).unwrap())
                .into(),
            headers: ["x-export", "X-Mode: live"]
                .map(|text| HeaderCondition::parse(text).unwrap())
                .into(),
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
    fn what_is_no_condition_is_refused() {
        assert_eq!(QueryCondition::parse("=x"), None);
        assert_eq!(HeaderCondition::parse("x y: z"), None);
        assert_eq!(HeaderCondition::parse(""), None);
    }
}

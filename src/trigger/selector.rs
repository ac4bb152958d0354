//! Parses selectors into the normal form that purges use. Pure.

use std::{borrow::Cow, sync::Arc};

use percent_encoding::{AsciiSet, CONTROLS};
use thiserror::Error;

use crate::{
    fence::Selector,
    key::uri::{Scheme, TargetUri, host, purge_url},
    policy::tag,
};

/// The length limit of a URL or prefix, in bytes.
const MAX_URL_BYTES: usize = 8 << 10;

/// The length limit of a pattern, in bytes. Patterns are matched against URLs one by one.
const MAX_PATTERN_BYTES: usize = 1 << 10;

/// Characters that never occur unencoded in requests. Other ASCII characters are not encoded,
/// because that would change the URL.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

/// The reasons why a selector is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SelectorError {
    #[error("it is empty")]
    Empty,
    /// The text is longer than a tag or URL may be.
    #[error("it is longer than any stored tag or URL")]
    TooLong,
    /// The text has a control character.
    #[error("it contains a control character")]
    Control,
    /// The text is neither a URL nor a path.
    #[error("expected `https://host/path`, `host/path`, or `/path` for every host")]
    Url,
    /// The prefix ends with `*`.
    #[error(
        "a prefix takes no `*`, because it matches everything that starts with it; use a pattern instead"
    )]
    Wildcard,
    /// The pattern has no wildcard.
    #[error("a pattern needs a `*`, which matches any text; without one, use a URL")]
    NoWildcard,
}

/// A function that returns the selectors of a URL.
///
/// A selector contains the URL as routes write it in cache keys, `host/path?query`. Routes may
/// write it differently, so a URL can have several selectors. For a sensitive route, the selector
/// is a tag instead.
pub(crate) type UrlNormalizer = dyn Fn(&TargetUri<'_>) -> Vec<Selector> + Send + Sync;

/// A function that returns the owner digests of a user's stored responses, by issuer and claim.
///
/// An owner digest is a keyed digest of issuer and claim. Without an issuer, there is one digest
/// for each configured issuer.
pub(crate) type OwnerLookup = dyn Fn(Option<&str>, &str) -> Vec<Arc<str>> + Send + Sync;

/// Resolves selectors under the current configuration.
pub(crate) struct SelectorResolver {
    /// The function that normalizes URLs.
    pub normalize: Box<UrlNormalizer>,
    /// The function that maps users to owner digests.
    pub owners: Box<OwnerLookup>,
}

/// Parses a tag. Tags are compared byte by byte.
pub(crate) fn tag(text: &str) -> Result<Selector, SelectorError> {
    validate(text, tag::MAX_LENGTH)?;
    Ok(Selector::Tag(text.into()))
}

/// Parses a URL on one host, or a path on all hosts.
pub(crate) fn url(text: &str, normalize: &UrlNormalizer) -> Result<Vec<Selector>, SelectorError> {
    validate(text, MAX_URL_BYTES)?;
    let text = percent_encoded(text);
    let parts = UrlParts::read(&text, Wildcards::Denied).ok_or(SelectorError::Url)?;
    let rest = parts.rest.split('#').next().unwrap_or_default();
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let target = TargetUri { scheme: parts.scheme, host: parts.host, path, query };
    Ok(normalize(&target))
}

/// Parses a URL prefix on one host, or a path prefix on all hosts.
pub(crate) fn prefix(text: &str) -> Result<Selector, SelectorError> {
    validate(text, MAX_URL_BYTES)?;
    if text.ends_with('*') {
        return Err(SelectorError::Wildcard);
    }
    Ok(Selector::Prefix(normalized_prefix(text, Wildcards::Denied)?))
}

/// Parses a URL pattern on one host, or a path pattern on all hosts. Each `*` matches any text.
pub(crate) fn pattern(text: &str) -> Result<Selector, SelectorError> {
    validate(text, MAX_PATTERN_BYTES)?;
    if !text.contains('*') {
        return Err(SelectorError::NoWildcard);
    }
    if text.starts_with('*') {
        // A leading wildcard may match host and path, so no host is known that could be normalized.
        let text = percent_encoded(text);
        let path = text.find('/').unwrap_or(text.len());
        let (before, path) = text.split_at(path);
        let before = before.to_ascii_lowercase();
        let form =
            if path.is_empty() { before.into() } else { purge_url::of_prefix(&before, path) };
        return Ok(Selector::Pattern(form));
    }
    Ok(Selector::Pattern(normalized_prefix(text, Wildcards::Allowed)?))
}

/// Returns selectors for all responses of a user, one for each issuer.
///
/// The selectors contain only digests of the user's name, which is the value of the claim or of the
/// gateway's field.
pub(crate) fn user(
    text: &str,
    issuer: Option<&str>,
    owners: &OwnerLookup,
) -> Result<Vec<Selector>, SelectorError> {
    validate(text, tag::MAX_LENGTH)?;
    Ok(owners(issuer, text).iter().map(|owner| Selector::User((**owner).into())).collect())
}

/// Parses a route name, which selects all responses stored on this route.
pub(crate) fn route(text: &str) -> Result<Selector, SelectorError> {
    validate(text, tag::MAX_LENGTH)?;
    Ok(Selector::Route(text.into()))
}

/// Parses a namespace version, which selects all responses stored in it.
pub(crate) fn version(text: &str) -> Result<Selector, SelectorError> {
    validate(text, tag::MAX_LENGTH)?;
    Ok(Selector::Version(text.into()))
}

/// Whether the host may contain a `*`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcards {
    Denied,
    Allowed,
}

/// Returns the normal form of a URL prefix or pattern.
fn normalized_prefix(text: &str, wildcards: Wildcards) -> Result<Box<str>, SelectorError> {
    let text = percent_encoded(text);
    let parts = UrlParts::read(&text, wildcards).ok_or(SelectorError::Url)?;
    let host = host::canonical(parts.host, parts.scheme);
    let is_open =
        wildcards == Wildcards::Allowed && parts.rest.is_empty() && parts.host.ends_with('*');
    if is_open {
        return Ok(host.into());
    }
    Ok(purge_url::of_prefix(&host, parts.rest))
}

fn validate(text: &str, longest: usize) -> Result<(), SelectorError> {
    if text.trim().is_empty() {
        return Err(SelectorError::Empty);
    }
    if text.len() > longest {
        return Err(SelectorError::TooLong);
    }
    if text.contains(char::is_control) { Err(SelectorError::Control) } else { Ok(()) }
}

/// Percent-encodes spaces and non-ASCII characters, as in requests.
fn percent_encoded(text: &str) -> Cow<'_, str> {
    percent_encoding::utf8_percent_encode(text, ENCODED).into()
}

/// A URL in parts.
struct UrlParts<'a> {
    scheme: Scheme,
    /// The host; empty for all hosts.
    host: &'a str,
    /// The path, query and fragment.
    rest: &'a str,
}

impl<'a> UrlParts<'a> {
    fn read(text: &'a str, wildcards: Wildcards) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                (Some(Scheme::Http), rest)
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                (Some(Scheme::Https), rest)
            }
            Some((before, _)) if !before.contains('/') => return None,
            _ => (None, text),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, rest) = rest.split_at(end);
        let is_host = |byte: u8| {
            let is_star = byte == b'*' && wildcards == Wildcards::Allowed;
            is_star || byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte)
        };
        let needs_host = scheme.is_some() || !rest.starts_with('/');
        if !host.bytes().all(is_host) || (needs_host && host.is_empty()) {
            return None;
        }
        // Without a scheme, both default ports count as absent.
        let https = host.ends_with(":443");
        let scheme = scheme.unwrap_or(if https { Scheme::Https } else { Scheme::Http });
        Some(Self { scheme, host, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::PathReadings;

    /// Normalizes a URL for a route without parameter rules.
    fn plain(target: &TargetUri<'_>) -> Vec<Selector> {
        let host = host::canonical(target.host, target.scheme);
        vec![Selector::Url(purge_url::of(&host, &PathReadings::of(target.path), target.query))]
    }

    fn url_of(text: &str) -> Result<String, SelectorError> {
        match <[Selector; 1]>::try_from(url(text, &plain)?).unwrap() {
            [Selector::Url(url)] => Ok(url.into()),
            other => panic!("{other:?}"),
        }
    }

    fn prefix_of(text: &str) -> Result<String, SelectorError> {
        match prefix(text)? {
            Selector::Prefix(prefix) => Ok(prefix.into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_url_takes_the_form_of_the_key() {
        for (text, expected) in [
            ("https://API.example:443/a%7Eb?q=%2f#top", "api.example/a~b?q=%2F"),
            ("http://api.example:443/a", "api.example:443/a"),
            ("HTTP://api.example", "api.example/"),
            ("api.example:8080/a", "api.example:8080/a"),
            ("api.example:443/a", "api.example/a"),
            ("api.example?q", "api.example/?q"),
            ("[::1]:80/a", "[::1]/a"),
            ("/a/../b?c=http://d", "/b?c=http://d"),
            ("/Café/", "/café"),
            ("/a b?c d", "/a b?c%20d"),
        ] {
            assert_eq!(url_of(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_prefix_takes_the_form_of_the_key() {
        for (text, expected) in [
            ("https://API.example", "api.example/"),
            ("API.example:80/a%2", "api.example/a%2"),
            ("/API/%7Eme/st", "/api/~me/st"),
            ("/api/", "/api/"),
            ("/a?q=", "/a?q="),
            ("/", "/"),
        ] {
            assert_eq!(prefix_of(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(prefix_of("/api/*"), Err(SelectorError::Wildcard));
    }

    #[test]
    fn a_pattern_takes_the_form_of_the_key() {
        for (text, expected) in [
            ("https://API.example:443/a%7Eb/*", "api.example/a~b/*"),
            ("API.example/*/x?y=*", "api.example/*/x?y=*"),
            ("api.*/Café", "api.*/café"),
            ("*/Reports/", "*/reports/"),
            ("*.JSON", "*.json"),
            ("/*", "/*"),
            ("*/reports", "*/reports"),
            ("api.example*", "api.example*"),
            ("a*.example", "a*.example/"),
        ] {
            assert_eq!(pattern(text), Ok(Selector::Pattern(expected.into())), "{text}");
        }
        assert_eq!(pattern("/a"), Err(SelectorError::NoWildcard));
        assert_eq!(pattern("ftp://h/*"), Err(SelectorError::Url));
        assert_eq!(pattern(&"*".repeat(2000)), Err(SelectorError::TooLong));
    }

    #[test]
    fn invalid_selectors_are_rejected() {
        for text in ["ftp://h/a", "https:///a", "?q", "user@h/a", "h h/a", "*", "h*/a"] {
            assert_eq!(url_of(text), Err(SelectorError::Url), "{text}");
        }
        assert_eq!(url_of(" "), Err(SelectorError::Empty));
        assert_eq!(tag(""), Err(SelectorError::Empty));
        assert_eq!(tag("a\n"), Err(SelectorError::Control));
        assert_eq!(tag(&"x".repeat(tag::MAX_LENGTH + 1)), Err(SelectorError::TooLong));
        assert_eq!(tag("a b"), Ok(Selector::Tag("a b".into())));
    }
}

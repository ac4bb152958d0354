//! Warm-up targets as operators write them: `/path?query`, `host/path`, `https://host/path`.

use std::fmt;

use http::{HeaderMap, uri::PathAndQuery};

use crate::key::uri::Scheme;

/// A response to warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmTarget {
    /// The requested host; if `None`, the host with the most recent requests.
    pub host: Option<WarmHost>,
    pub target: Box<str>,
}

/// A host, and how clients connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WarmHost {
    /// The scheme; if `None`, the scheme of recent clients.
    pub scheme: Option<Scheme>,
    /// The scheme if there are no recent clients.
    pub default_scheme: Scheme,
    /// The host and, if not the default, the port.
    pub name: Box<str>,
}

/// The targets that a schedule or a poll warms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WarmPlan {
    /// Whether recent targets that the purge selects are warmed.
    pub purged: bool,
    pub targets: Box<[WarmTarget]>,
    /// Fields that override the fields of recent clients. One request is sent for each combination
    /// of their values.
    pub headers: HeaderMap,
}

/// The reasons why a text is not a warm-up target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// The text has no path.
    #[error("expected a path, such as `/dashboard?range=7d` or `api.example.com/dashboard`")]
    Path,
    /// The path has invalid characters.
    #[error("invalid character in the path: encode it, such as `/a%20b`")]
    Characters,
    /// The text before the path is not a host.
    #[error("expected a host before the path, such as `api.example.com/dashboard`")]
    Host,
    /// The scheme is neither `http` nor `https`.
    #[error("expected `http` or `https` as the scheme")]
    Scheme,
}

impl WarmTarget {
    /// Parses a path, optionally after a host or an origin URL. `default_scheme` applies if there
    /// is no scheme and no recent client.
    pub fn parse(text: &str, default_scheme: Scheme) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = scheme(text)?;
        let slash = rest.find('/').ok_or(InvalidTarget::Path)?;
        let (host, target) = rest.split_at(slash);
        let is_target = !target.contains('#') && target.parse::<PathAndQuery>().is_ok();
        if !is_target {
            return Err(InvalidTarget::Characters);
        }
        let host = match host {
            "" if rest.len() == text.len() => None,
            host => Some(WarmHost::of(host, scheme, default_scheme).ok_or(InvalidTarget::Host)?),
        };
        Ok(Self { host, target: target.into() })
    }
}

impl WarmHost {
    /// Parses `host` or `host:port`, optionally after `http://` or `https://`.
    pub fn parse(text: &str, default_scheme: Scheme) -> Result<Self, InvalidTarget> {
        let (scheme, host) = scheme(text)?;
        Self::of(host, scheme, default_scheme).ok_or(InvalidTarget::Host)
    }

    fn of(host: &str, scheme: Option<Scheme>, default_scheme: Scheme) -> Option<Self> {
        let is_host = !host.contains('@') && host.parse::<http::uri::Authority>().is_ok();
        is_host.then(|| Self { scheme, default_scheme, name: host.into() })
    }
}

/// Splits a text into its scheme, if it has one, and the rest.
fn scheme(text: &str) -> Result<(Option<Scheme>, &str), InvalidTarget> {
    match text.split_once("://") {
        Some(("http", rest)) => Ok((Some(Scheme::Http), rest)),
        Some(("https", rest)) => Ok((Some(Scheme::Https), rest)),
        Some((before, _)) if !before.contains('/') => Err(InvalidTarget::Scheme),
        _ => Ok((None, text)),
    }
}

impl fmt::Display for WarmTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            if let Some(scheme) = host.scheme {
                write!(formatter, "{}://", scheme.as_str())?;
            }
            formatter.write_str(&host.name)?;
        }
        formatter.write_str(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hosts_and_urls_are_read() {
        for (text, written) in [
            ("/a?b=c", "/a?b=c"),
            ("api.test:81/a", "api.test:81/a"),
            ("https://api.test/?u=http://b/", "https://api.test/?u=http://b/"),
            ("/a?u=http://b/", "/a?u=http://b/"),
            ("[::1]:80/", "[::1]:80/"),
        ] {
            assert_eq!(WarmTarget::parse(text, Scheme::Http).unwrap().to_string(), written);
        }
        for (text, problem) in [
            ("", InvalidTarget::Path),
            ("api.test", InvalidTarget::Path),
            ("/a b", InvalidTarget::Characters),
            ("/a#b", InvalidTarget::Characters),
            ("ftp://a/", InvalidTarget::Scheme),
            ("http:///a", InvalidTarget::Host),
            ("u@a/", InvalidTarget::Host),
        ] {
            assert_eq!(WarmTarget::parse(text, Scheme::Http), Err(problem), "{text}");
        }
    }

    #[test]
    fn hosts_are_read_with_and_without_a_scheme() {
        let read = |text: &str| {
            let host = WarmHost::parse(text, Scheme::Https)?;
            Ok::<_, InvalidTarget>((host.scheme, host.name.to_string()))
        };
        assert_eq!(read("api.test:81"), Ok((None, "api.test:81".to_owned())));
        assert_eq!(read("http://api.test"), Ok((Some(Scheme::Http), "api.test".to_owned())));
        assert_eq!(read("ftp://api.test"), Err(InvalidTarget::Scheme));
        for text in ["", "api.test/", "u@api.test", "https://"] {
            assert_eq!(read(text), Err(InvalidTarget::Host), "{text}");
        }
    }
}

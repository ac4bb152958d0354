//! What an operator writes to have something fetched ahead: `/path?query`, `host/path`,
//! `https://host/path`.

use std::fmt;

use http::{HeaderMap, uri::PathAndQuery};

use super::{WarmClient, WarmRequest};
use crate::key::uri::Scheme;

/// A response to be fetched ahead of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmTarget {
    /// The host that clients ask for; without one it is the host that most of them lately asked for.
    pub host: Option<WarmHost>,
    /// Path and query.
    pub target: Box<str>,
}

/// A host, and how clients connect to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WarmHost {
    /// The scheme; without one it is the scheme by which clients lately came.
    pub scheme: Option<Scheme>,
    /// The scheme if no client has come yet.
    pub default_scheme: Scheme,
    /// The host and, if not the default, the port.
    pub name: Box<str>,
}

/// What a schedule or a poll has fetched ahead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WarmPlan {
    /// Whether what the purge selects and clients lately asked for is fetched again.
    pub purged: bool,
    /// Further responses.
    pub targets: Box<[WarmTarget]>,
    /// Request fields sent in place of those of clients. Each value of a name makes a request of its own.
    pub headers: HeaderMap,
}

impl WarmPlan {
    /// The requests for all targets.
    pub fn requests(&self) -> impl Iterator<Item = WarmRequest> {
        self.targets.iter().map(|target| target.request(&self.headers))
    }
}

/// Why a text names nothing that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// There is no path.
    #[error("a path begins with `/`, as in `/dashboard?range=7d` or `api.example.com/dashboard`")]
    Path,
    /// The path has characters that none has.
    #[error("this cannot be sent as a path: write it as clients do, as in `/a%20b`")]
    Characters,
    /// What precedes the path is no host.
    #[error("what precedes the path is a host, as in `api.example.com/dashboard`")]
    Host,
    /// The scheme is neither `http` nor `https`.
    #[error("clients come by `http` or `https`")]
    Scheme,
}

impl WarmTarget {
    /// Parses a path, with its host or a whole URL in front of it. `usual` is the scheme of a host without
    /// one, as long as no client has come.
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

    /// The request for it, as clients lately sent such requests, with these fields in place of theirs.
    pub fn request(&self, headers: &HeaderMap) -> WarmRequest {
        let client = WarmClient::Recent { host: self.host.clone(), headers: headers.clone() };
        WarmRequest { client, target: self.target.clone(), report: None }
    }
}

impl WarmHost {
    /// Parses `host`, `host:port`, or either with `http://` or `https://` in front of it.
    pub fn parse(text: &str, default_scheme: Scheme) -> Result<Self, InvalidTarget> {
        let (scheme, host) = scheme(text)?;
        Self::of(host, scheme, default_scheme).ok_or(InvalidTarget::Host)
    }

    fn of(host: &str, scheme: Option<Scheme>, default_scheme: Scheme) -> Option<Self> {
        let is_host = !host.contains('@') && host.parse::<http::uri::Authority>().is_ok();
        is_host.then(|| Self { scheme, default_scheme, name: host.into() })
    }
}

/// The scheme in front of a text, and the rest.
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

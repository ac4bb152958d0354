//! What an operator writes to have something fetched ahead: `/path?query`, `host/path`,
//! `https://host/path`.

use std::{fmt, sync::Arc};

use http::{HeaderMap, uri::PathAndQuery};

use super::WarmRequest;
use crate::{key::target::Scheme, server::Connection};

/// A response to be fetched ahead of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmTarget {
    /// How clients reach it; none where that is left to whatever they lately used.
    pub host: Option<(Scheme, Box<str>)>,
    /// Path and query.
    pub target: Box<str>,
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
    /// Reads a path, with its host or a whole URL in front of it.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((before, _)) if !before.contains('/') => return Err(InvalidTarget::Scheme),
            _ => (Scheme::Http, text),
        };
        let slash = rest.find('/').ok_or(InvalidTarget::Path)?;
        let (host, target) = rest.split_at(slash);
        let is_target = !target.contains('#') && target.parse::<PathAndQuery>().is_ok();
        if !is_target {
            return Err(InvalidTarget::Characters);
        }
        let host = match host {
            "" if rest.len() == text.len() => None,
            host if is_host(host) => Some((scheme, host.into())),
            _ => return Err(InvalidTarget::Host),
        };
        Ok(Self { host, target: target.into() })
    }

    /// The request of a client who says nothing about itself.
    pub fn request(&self) -> WarmRequest {
        let connection = |scheme: Scheme| {
            Arc::new(Connection { secure: scheme == Scheme::Https, ..Connection::default() })
        };
        let host = self.host.as_ref();
        WarmRequest {
            connection: host.map(|(scheme, _)| connection(*scheme)),
            host: host.map(|(_, host)| host.clone()),
            target: self.target.clone(),
            headers: HeaderMap::new(),
            report: None,
        }
    }
}

fn is_host(host: &str) -> bool {
    !host.contains('@') && host.parse::<http::uri::Authority>().is_ok()
}

impl fmt::Display for WarmTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((scheme, host)) = &self.host {
            write!(formatter, "{}://{host}", scheme.as_str())?;
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
            ("api.test:81/a", "http://api.test:81/a"),
            ("https://api.test/?u=http://b/", "https://api.test/?u=http://b/"),
            ("/a?u=http://b/", "/a?u=http://b/"),
            ("[::1]:80/", "http://[::1]:80/"),
        ] {
            assert_eq!(WarmTarget::parse(text).unwrap().to_string(), written);
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
            assert_eq!(WarmTarget::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn a_url_tells_how_clients_connect() {
        let request = WarmTarget::parse("https://api.test/a").unwrap().request();
        assert!(request.connection.unwrap().secure);
        assert_eq!(request.host.as_deref(), Some("api.test"));
        let request = WarmTarget::parse("/a").unwrap().request();
        assert!(request.connection.is_none() && request.host.is_none());
        assert_eq!(&*request.target, "/a");
    }
}

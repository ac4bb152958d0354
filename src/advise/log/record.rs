//! One logged request, whatever the format of its line.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

/// A request, as described by one line of an access log.
///
/// Clients, browsers and validators are kept as digests: they are compared and never shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoggedRequest<'a> {
    /// The time of the request, in milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) method: Cow<'a, str>,
    /// The path as sent.
    pub(crate) path: Cow<'a, str>,
    pub(crate) query: LoggedQuery<'a>,
    pub(crate) host: Option<Cow<'a, str>>,
    pub(crate) status: u16,
    /// The length of the response's body, in bytes.
    pub(crate) bytes: Option<u64>,
    /// The response time in milliseconds.
    pub(crate) duration: Option<f64>,
    /// The digest of the client's address or user.
    pub(crate) client: Option<u64>,
    /// The digest of request properties on which the representation may depend, such as the
    /// browser.
    pub(crate) variant: u64,
    /// The digest of the response's validator.
    pub(crate) validator: Option<u64>,
    pub(crate) has_credentials: bool,
    /// Whether the response came from a cache, not from the origin.
    pub(crate) is_from_cache: bool,
    pub(crate) response: LoggedResponse,
}

/// The query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoggedQuery<'a> {
    /// The log leaves queries out.
    NotLogged,
    /// The query without its `?`; `None` if the request has no query.
    Logged(Option<Cow<'a, str>>),
}

/// What the log says about the response's own caching headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties")]
pub(crate) struct LoggedResponse {
    pub(crate) is_no_store: bool,
    pub(crate) is_private: bool,
    pub(crate) sets_cookie: bool,
    pub(crate) is_stream: bool,
    /// Whether the origin's headers give the response a lifetime.
    pub(crate) has_lifetime: bool,
}

/// The reason why a line is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineError {
    /// The line is in none of the known formats.
    Format,
    /// The line has no readable time.
    Time,
    /// The line has no request with an absolute path, as is usual for broken connections.
    Request,
}

impl LoggedRequest<'_> {
    /// Returns a number that identifies the representation: the digest of the validator, or else
    /// the size. `None` if the response has no complete body.
    pub(crate) fn representation(&self) -> Option<u64> {
        if !matches!(self.status, 200 | 203) || self.method == "HEAD" {
            return None;
        }
        self.validator.or(self.bytes)
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(&*self.method, "GET" | "HEAD")
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(&*self.method, "POST" | "PUT" | "PATCH" | "DELETE")
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..400).contains(&self.status)
    }

    /// Returns the query; `None` if the request has no query or the query is not logged.
    pub(crate) fn query(&self) -> Option<&str> {
        match &self.query {
            LoggedQuery::Logged(query) => query.as_deref(),
            LoggedQuery::NotLogged => None,
        }
    }
}

/// Returns a digest that is the same in all runs, for selecting samples and comparing values.
pub(crate) fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A target split into path and query.
pub(crate) type SplitTarget<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

/// Splits a target at its `?`, without scheme and host. Returns `None` if it has no absolute path.
pub(crate) fn split_target(target: Cow<'_, str>) -> Option<SplitTarget<'_>> {
    match target {
        Cow::Borrowed(text) => {
            split_text(text).map(|(path, query)| (Cow::Borrowed(path), query.map(Cow::Borrowed)))
        }
        Cow::Owned(text) => split_text(&text).map(|(path, query)| {
            (Cow::Owned(path.to_owned()), query.map(|query| Cow::Owned(query.to_owned())))
        }),
    }
}

fn split_text(target: &str) -> Option<(&str, Option<&str>)> {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/")
        }
        _ => target,
    };
    let target = target.split_once('#').map_or(target, |(target, _)| target);
    if !target.starts_with('/') {
        return None;
    }
    Some(match target.split_once('?') {
        Some((path, query)) => (path, Some(query).filter(|query| !query.is_empty())),
        None => (target, None),
    })
}

/// Splits a request line into method and target. The protocol is optional.
pub(crate) fn split_request(line: &str) -> Option<(&str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    let target = match rest.rsplit_once(' ') {
        Some((target, protocol)) if protocol.starts_with("HTTP/") => target,
        _ => rest,
    };
    Some((method, target)).filter(|(method, _)| is_method(method))
}

/// Returns whether a text has the form of a method.
pub(crate) fn is_method(text: &str) -> bool {
    (3..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

//! Route patterns, such as `GET|POST api.example.com/orders/{id}/**`.

use std::{fmt, ops::Range};

use http::Method;
use smallvec::SmallVec;
use thiserror::Error;

use crate::key::uri::{PathForm, normal_path, reading};

/// The requests that a route governs: methods, host and path.
///
/// Methods and host are optional. `GET` includes `HEAD`, since both address one resource (RFC 9110
/// §9.3.2). A host without a port matches every port. `{name}` matches one non-empty segment. A
/// final `**` matches any rest, even an empty rest: `/api/**` also matches `/api`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    methods: SmallVec<[Method; 2]>,
    host: Option<Box<str>>,
    path: PathPattern,
    /// The path percent-decoded once, for readings of the same [`PathForm`].
    decoded_once: PathPattern,
    decoded_twice: PathPattern,
    loosest: PathPattern,
}

/// The path of a pattern in one [`PathForm`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathPattern {
    segments: Box<[Segment]>,
    end: PatternEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Param(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatternEnd {
    /// The path ends with the last segment.
    Exact,
    /// Any further segments match.
    Rest,
}

/// The segments of a path that fill a pattern's placeholders, in normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params<'a>(SmallVec<[(&'a str, &'a str); 4]>);

impl<'a> Params<'a> {
    /// Returns the segment with this name.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Returns names and values in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().copied()
    }
}

/// The part of a request that does not match a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The method.
    Method,
    /// The host.
    Host,
    /// The path.
    Path,
}

/// A pattern syntax error and its position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct PatternError {
    /// Kind of error.
    pub problem: PatternProblem,
    /// Byte range of the error.
    pub at: Range<usize>,
}

/// The kinds of syntax errors in a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternProblem {
    /// The path is missing.
    #[error("the path is missing; it begins with `/`")]
    Path,
    /// A method is not an upper-case token.
    #[error("expected methods in upper case, separated by `|`, such as `GET|POST`")]
    Method,
    /// The host has invalid characters.
    #[error("invalid host name")]
    Host,
    /// The pattern has a query or fragment.
    #[error("a pattern cannot have a query: every query of the path matches")]
    Query,
    /// A placeholder is not a whole segment, or is not closed.
    #[error("a placeholder must be a whole segment, as in `/orders/{{id}}`")]
    Placeholder,
    /// A placeholder has no name, or a name with characters other than letters, digits, `_`, `-`.
    #[error("expected a placeholder name of letters, digits, `_` and `-`")]
    Name,
    /// Two placeholders have the same name.
    #[error("this name is already used in the pattern")]
    Repeated,
    /// A `**` is not at the end, or a `*` stands alone.
    #[error("`**` must be the last segment; use `{{name}}` for one segment")]
    Wildcard,
    /// The path has white space or control characters.
    #[error("a path cannot contain white space; use `%20`")]
    Space,
}

impl PatternProblem {
    const fn at(self, at: Range<usize>) -> PatternError {
        PatternError { problem: self, at }
    }
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (methods, target) = match text.split_once(' ') {
            Some((methods, rest)) => (parse_methods(methods)?, rest.trim_start_matches(' ')),
            None => (SmallVec::new(), text),
        };
        let start = text.len() - target.len();
        let Some(slash) = target.find('/') else {
            return Err(PatternProblem::Path.at(start..text.len()));
        };
        let (host, path) = target.split_at(slash);
        let host = parse_host(host).map_err(|problem| problem.at(start..start + slash))?;
        let path = parse_path(path, start + slash)?;
        let [decoded_once, decoded_twice, loosest] =
            [PathForm::Once, PathForm::Twice, PathForm::Loosest].map(|form| path.in_form(form));
        Ok(Self { methods, host, path, decoded_once, decoded_twice, loosest })
    }

    /// Returns whether the pattern matches a request. `path` is its path in the form `form`.
    pub fn matches(&self, method: &Method, host: &str, (form, path): (PathForm, &str)) -> bool {
        self.allows_method(method)
            && self.allows_host(host)
            && self.in_form(form).matches_path(path)
    }

    /// Returns the part of a request that does not match. Checks the path first.
    pub fn mismatch(
        &self,
        method: &Method,
        host: &str,
        (form, path): (PathForm, &str),
    ) -> Option<Mismatch> {
        if !self.in_form(form).matches_path(path) {
            Some(Mismatch::Path)
        } else if !self.allows_host(host) {
            Some(Mismatch::Host)
        } else {
            (!self.allows_method(method)).then_some(Mismatch::Method)
        }
    }

    /// Returns the params of a reading of a path if the pattern's path matches.
    pub fn params<'a>(&'a self, (form, path): (PathForm, &'a str)) -> Option<Params<'a>> {
        self.in_form(form).params(path)
    }

    /// Returns whether a plain path may match differently in its loosest reading.
    pub(super) fn has_loosest_variant(&self) -> bool {
        self.loosest != self.path
    }

    fn in_form(&self, form: PathForm) -> &PathPattern {
        match form {
            PathForm::Sent => &self.path,
            PathForm::Once => &self.decoded_once,
            PathForm::Twice => &self.decoded_twice,
            PathForm::Loosest => &self.loosest,
        }
    }

    /// Returns the methods; empty if all match.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Returns the names of the placeholders.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.path.segments.iter().filter_map(|segment| match segment {
            Segment::Param(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// Returns whether the pattern matches every request that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other.methods.iter().all(|method| self.allows_method(method)));
        let host = self.host.is_none() || self.host == other.host;
        methods && host && self.covers_path(other)
    }

    /// Returns the pattern's first segment in this form if it is literal, else `None`.
    pub(super) fn first_literal(&self, form: PathForm) -> Option<&str> {
        match self.in_form(form).segments.first() {
            Some(Segment::Literal(literal)) => Some(literal),
            _ => None,
        }
    }

    fn covers_path(&self, other: &Self) -> bool {
        let (own, other) = (&self.path, &other.path);
        let count = own.segments.len();
        let fits = match own.end {
            PatternEnd::Exact => other.end == PatternEnd::Exact && other.segments.len() == count,
            PatternEnd::Rest => other.segments.len() >= count,
        };
        fits && own.segments.iter().zip(&other.segments).all(|pair| match pair {
            (Segment::Param(_), Segment::Literal(literal)) => !literal.is_empty(),
            (Segment::Param(_), Segment::Param(_)) => true,
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            (Segment::Literal(_), Segment::Param(_)) => false,
        })
    }

    fn allows_method(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::HEAD && self.methods.contains(&Method::GET))
    }

    fn allows_host(&self, host: &str) -> bool {
        let Some(wanted) = &self.host else {
            return true;
        };
        host.eq_ignore_ascii_case(wanted)
            || host.get(..wanted.len()).zip(host.get(wanted.len()..)).is_some_and(|(name, port)| {
                name.eq_ignore_ascii_case(wanted) && is_port(port) && !has_port(wanted)
            })
    }
}

impl PathPattern {
    /// Returns whether a path in the form of this pattern matches.
    fn matches_path(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut rest = Some(path.as_bytes());
        for segment in &self.segments {
            let Some(left) = rest else { return false };
            let (value, behind) = first_segment(left);
            let fits = match segment {
                Segment::Literal(literal) => literal.as_bytes() == value,
                Segment::Param(_) => !value.is_empty(),
            };
            if !fits {
                return false;
            }
            rest = behind;
        }
        self.end == PatternEnd::Rest || rest.is_none()
    }

    /// Returns the params of a path in the form of this pattern if the path matches.
    fn params<'a>(&'a self, path: &'a str) -> Option<Params<'a>> {
        let mut params = Params::default();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            let value = given.next()?;
            match segment {
                Segment::Literal(literal) if **literal == *value => {}
                Segment::Param(name) if !value.is_empty() => params.0.push((name, value)),
                _ => return None,
            }
        }
        (self.end == PatternEnd::Rest || given.next().is_none()).then_some(params)
    }

    /// Returns this pattern for paths in another form. A literal segment may become several
    /// segments when decoded.
    fn in_form(&self, form: PathForm) -> Self {
        let mut segments = Vec::new();
        for segment in &self.segments {
            let Segment::Literal(literal) = segment else {
                segments.push(segment.clone());
                continue;
            };
            let path = format!("/{literal}");
            let path = reading::literal_in(form, &path);
            let literals = path.strip_prefix('/').unwrap_or(&path).split('/');
            segments.extend(literals.map(|literal| Segment::Literal(literal.into())));
        }
        if form == PathForm::Loosest {
            // Paths have neither empty segments nor a trailing slash, except for `/` itself.
            segments.retain(|segment| *segment != Segment::Literal("".into()));
            if segments.is_empty() && self.end == PatternEnd::Exact {
                segments.push(Segment::Literal("".into()));
            }
        }
        Self { segments: segments.into(), end: self.end }
    }
}

/// Splits a path at its first `/`.
pub(super) fn first_segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let slash = path.iter().position(|byte| *byte == b'/');
    match slash.and_then(|slash| path.split_at_checked(slash)) {
        Some((first, rest)) => (first, rest.get(1..)),
        None => (path, None),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, method) in self.methods.iter().enumerate() {
            write!(formatter, "{}{method}", if index == 0 { "" } else { "|" })?;
        }
        if !self.methods.is_empty() {
            formatter.write_str(" ")?;
        }
        formatter.write_str(self.host.as_deref().unwrap_or_default())?;
        for segment in &self.path.segments {
            match segment {
                Segment::Literal(literal) => write!(formatter, "/{literal}")?,
                Segment::Param(name) => write!(formatter, "/{{{name}}}")?,
            }
        }
        match self.path.end {
            PatternEnd::Exact => Ok(()),
            PatternEnd::Rest => formatter.write_str("/**"),
        }
    }
}

fn parse_methods(text: &str) -> Result<SmallVec<[Method; 2]>, PatternError> {
    let mut methods = SmallVec::new();
    let mut start = 0;
    for name in text.split('|') {
        let at = start..start + name.len();
        start = at.end + 1;
        let upper = !name.bytes().any(|byte| byte.is_ascii_lowercase() || byte == b'/');
        match Method::from_bytes(name.as_bytes()) {
            Ok(method) if upper => methods.push(method),
            _ => return Err(PatternProblem::Method.at(at)),
        }
    }
    Ok(methods)
}

fn parse_host(text: &str) -> Result<Option<Box<str>>, PatternProblem> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !text.bytes().all(is_plain) || text.parse::<http::uri::Authority>().is_err() {
        return Err(PatternProblem::Host);
    }
    Ok(Some(text.to_ascii_lowercase().into()))
}

fn parse_path(path: &str, start: usize) -> Result<PathPattern, PatternError> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut start = start + 1;
    let mut texts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(text) = texts.next() {
        let at = start..start + text.len();
        start = at.end + 1;
        if text == "**" && texts.peek().is_none() {
            return Ok(PathPattern { segments: segments.into(), end: PatternEnd::Rest });
        }
        let segment = parse_segment(text).map_err(|problem| problem.at(at.clone()))?;
        if matches!(segment, Segment::Param(_)) && segments.contains(&segment) {
            return Err(PatternProblem::Repeated.at(at));
        }
        segments.push(segment);
    }
    Ok(PathPattern { segments: segments.into(), end: PatternEnd::Exact })
}

fn parse_segment(text: &str) -> Result<Segment, PatternProblem> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let valid = !name.is_empty() && name.bytes().all(is_named);
        return if valid { Ok(Segment::Param(name.into())) } else { Err(PatternProblem::Name) };
    }
    if text.contains('*') {
        return Err(PatternProblem::Wildcard);
    }
    if text.contains(['{', '}']) {
        return Err(PatternProblem::Placeholder);
    }
    if text.contains(['?', '#']) {
        return Err(PatternProblem::Query);
    }
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(PatternProblem::Space);
    }
    let path = format!("/{text}");
    let normal = normal_path(&path);
    Ok(Segment::Literal(normal.strip_prefix('/').unwrap_or(text).into()))
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(name, _)| !name.starts_with('[') || name.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::PathReadings;

    fn matched<'a>(pattern: &'a Pattern, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let params = pattern.params((PathForm::Sent, path));
        assert_eq!(pattern.path.matches_path(path), params.is_some(), "{path}");
        Some(params?.iter().collect())
    }

    fn problem(text: &str) -> (PatternProblem, &str) {
        let error = Pattern::parse(text).unwrap_err();
        (error.problem, &text[error.at])
    }

    #[test]
    fn segments_match_one_by_one() {
        let pattern = Pattern::parse("/tiles/{tile}/trends").unwrap();
        assert_eq!(matched(&pattern, "/tiles/a%2Fb/trends"), Some(vec![("tile", "a%2Fb")]));
        for path in ["/tiles//trends", "/tiles/a", "/tiles/a/trends/", "/tiles/a/b/trends", "*"] {
            assert_eq!(matched(&pattern, path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_may_be_empty() {
        let pattern = Pattern::parse("/api/**").unwrap();
        for path in ["/api", "/api/", "/api/a", "/api/a/b"] {
            assert!(matched(&pattern, path).is_some(), "{path}");
        }
        assert_eq!(matched(&pattern, "/apis"), None);
        assert!(matched(&Pattern::parse("/**").unwrap(), "/").is_some());
        assert!(matched(&Pattern::parse("/").unwrap(), "/").is_some());
        assert!(matched(&Pattern::parse("/").unwrap(), "/a").is_none());
    }

    #[test]
    fn literals_are_compared_in_normal_form() {
        let pattern = Pattern::parse("/%7euser/caf%c3%a9").unwrap();
        assert!(matched(&pattern, &normal_path("/~%75ser/caf%C3%a9")).is_some());
    }

    #[test]
    fn every_reading_is_compared_in_its_own_form() {
        let pattern = Pattern::parse("/Projects/a%2Fb/{name}/").unwrap();
        let fits = |form, path| pattern.params((form, path)).is_some();
        assert!(fits(PathForm::Sent, "/Projects/a%2Fb/x/"));
        assert!(
            fits(PathForm::Once, "/Projects/a/b/x/") && fits(PathForm::Twice, "/Projects/a/b/x/")
        );
        assert!(fits(PathForm::Loosest, "/projects/a/b/x"));
        assert!(
            !fits(PathForm::Loosest, "/Projects/a/b/x")
                && !fits(PathForm::Sent, "/Projects/a/b/x/")
        );
        let root = Pattern::parse("/").unwrap();
        assert!(root.params((PathForm::Loosest, "/")).is_some() && !root.has_loosest_variant());
        let rest = Pattern::parse("/a/**").unwrap();
        assert!(rest.params((PathForm::Loosest, "/a")).is_some() && !rest.has_loosest_variant());
        assert!(
            Pattern::parse("/a/").unwrap().has_loosest_variant()
                && Pattern::parse("/A").unwrap().has_loosest_variant()
        );
        let readings = PathReadings::of("/a//b");
        assert!(readings.each().all(|(form, path)| rest.params((form, &path)).is_some()));
    }

    #[test]
    fn get_includes_head() {
        let pattern = Pattern::parse("GET|POST /a").unwrap();
        let matches = |method: Method| pattern.matches(&method, "h", (PathForm::Sent, "/a"));
        assert!(matches(Method::GET) && matches(Method::HEAD) && matches(Method::POST));
        assert!(!matches(Method::PUT));
        assert!(!Pattern::parse("POST /a").unwrap().matches(
            &Method::HEAD,
            "h",
            (PathForm::Sent, "/a")
        ));
    }

    #[test]
    fn a_host_without_port_stands_for_every_port() {
        let pattern = Pattern::parse("GET API.example.com/a").unwrap();
        let matches = |host: &str| pattern.matches(&Method::GET, host, (PathForm::Sent, "/a"));
        assert!(matches("api.Example.com") && matches("api.example.com:8080"));
        assert!(!matches("example.com") && !matches("api.example.com.evil") && !matches(""));
        let ported = Pattern::parse("h:81/a").unwrap();
        assert!(ported.matches(&Method::GET, "h:81", (PathForm::Sent, "/a")));
        assert!(!ported.matches(&Method::GET, "h:811", (PathForm::Sent, "/a")));
        assert!(!ported.matches(&Method::GET, "h", (PathForm::Sent, "/a")));
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        assert_eq!(problem("GET orders"), (PatternProblem::Path, "orders"));
        assert_eq!(problem("get /a"), (PatternProblem::Method, "get"));
        assert_eq!(problem("GET|post /a"), (PatternProblem::Method, "post"));
        assert_eq!(problem("GET| /a"), (PatternProblem::Method, ""));
        assert_eq!(problem("ex ample/a").0, PatternProblem::Method);
        assert_eq!(problem("ex^ample/a"), (PatternProblem::Host, "ex^ample"));
        assert_eq!(problem("/a/x{b}/c"), (PatternProblem::Placeholder, "x{b}"));
        assert_eq!(problem("/a/{}"), (PatternProblem::Name, "{}"));
        assert_eq!(problem("/{a}/{a}"), (PatternProblem::Repeated, "{a}"));
        assert_eq!(problem("/a/**/b"), (PatternProblem::Wildcard, "**"));
        assert_eq!(problem("/a/*"), (PatternProblem::Wildcard, "*"));
        assert_eq!(problem("/a?b=1"), (PatternProblem::Query, "a?b=1"));
        assert_eq!(problem("/a b"), (PatternProblem::Method, "/a"));
        assert_eq!(problem("GET /a b"), (PatternProblem::Space, "a b"));
    }

    #[test]
    fn covering_is_seen() {
        let covers = |one: &str, other: &str| {
            Pattern::parse(one).unwrap().covers(&Pattern::parse(other).unwrap())
        };
        assert!(covers("/a/{x}", "GET /a/{y}") && covers("/a/**", "/a/b/c"));
        assert!(covers("/a/**", "/a") && covers("/a/{x}", "h/a/b") && covers("GET /a", "HEAD /a"));
        assert!(!covers("GET /a", "/a") && !covers("/a/b", "/a/{x}") && !covers("h/a", "/a"));
        assert!(!covers("/a/{x}", "/a/") && !covers("/a/{x}", "/a/**"));
    }

    #[test]
    fn a_pattern_reads_back_as_written() {
        for text in ["GET|POST h:80/a/{b}/**", "/", "/a/", "/**", "/a"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }
}

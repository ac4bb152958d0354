//! The request to the origin as one value, from which both the key and the forwarded head are
//! built.
//!
//! The text of a key *is* this value, serialized. The forwarded head is parsed from that text
//! again, so the origin receives exactly what the key contains.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method};

use super::{
    cache_key::{CacheKey, SELECTED, SentQuery, StoragePlacement},
    content::ContentDigest,
    uri::{Scheme, purge_url, split_target},
};

/// Method, target, host, forwarding fields and content, as sent to the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginTarget<'a> {
    /// The method. `GET` also stands for a `HEAD` that the cache may serve. `POST` and `QUERY` have
    /// their content in the key.
    pub method: &'a Method,
    /// The scheme of the client's connection.
    pub scheme: Scheme,
    /// The host that the client requested, in canonical form.
    pub requested_host: Cow<'a, str>,
    /// The `Host` to send. If empty, each origin server receives its own host name.
    pub host: Cow<'a, str>,
    /// The path.
    pub path: Cow<'a, str>,
    /// The query in the key, without its `?`.
    pub query: Option<Cow<'a, str>>,
    /// The query to send, if it differs from the one in the key.
    ///
    /// The two differ if the key omits parameters (`query.forward = "all"`) or contains digests of
    /// credentials.
    pub sent_query: Option<Cow<'a, str>>,
    /// The stores that may hold the responses.
    pub storage_placement: StoragePlacement,
    /// Fields in which a trusted proxy describes the target (`X-Forwarded-Host`, …), by name.
    pub forwarded_fields: Vec<(HeaderName, HeaderValue)>,
    /// The partition whose clients share the response, see [`partition`](super::partition); empty
    /// if all clients share it.
    pub partition: Cow<'a, [u8]>,
    /// Digest of the content; `None` for `GET`. In a key, all other methods have a digest.
    pub content: Option<ContentDigest>,
    /// How responses are inspected before they are stored.
    pub inspection: ResponseInspection,
}

/// How responses are inspected before they are stored.
///
/// The inspection is part of the key: a response that was stored before its route read GraphQL
/// lacks the tags of its objects, and may contain errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseInspection {
    /// Inspects only what the route's settings require for all responses.
    #[default]
    Plain,
    /// Also inspects GraphQL errors and objects.
    Graphql,
}

impl<'a> OriginTarget<'a> {
    /// Returns a `GET` of this path without forwarding fields. `host` is in canonical form.
    pub fn plain(scheme: Scheme, host: &'a str, path: &'a str) -> Self {
        Self {
            method: &Method::GET,
            scheme,
            requested_host: host.into(),
            host: host.into(),
            path: path.into(),
            query: None,
            sent_query: None,
            storage_placement: StoragePlacement::Fleet,
            forwarded_fields: Vec::new(),
            partition: Cow::Borrowed(&[]),
            content: None,
            inspection: ResponseInspection::Plain,
        }
    }

    /// Returns the key of responses to this request. Takes about 200 ns.
    pub fn key(&self) -> CacheKey {
        let mut key = CacheKey::of_target(|text| self.write(text));
        key.storage_placement = self.storage_placement;
        key.sent_query = self.sent_query.as_deref().map(|query| SentQuery(query.into()));
        key
    }

    fn write(&self, text: &mut Vec<u8>) {
        push(text, self.method.as_str().as_bytes());
        text.push(letter(self.scheme, self.inspection));
        self.push_url(text);
        push_length(text, self.requested_host.len());
        self.push_host(text);
        push_length(text, self.forwarded_fields.len());
        for (name, value) in &self.forwarded_fields {
            push(text, name.as_str().as_bytes());
            push(text, value.as_bytes());
        }
        push(text, &self.partition);
        // The method determines whether a content digest follows.
        if let Some(content) = &self.content {
            text.extend_from_slice(content.as_bytes());
        }
    }

    /// Appends host and target as one text, which usually equals the URL that purges match.
    fn push_url(&self, text: &mut Vec<u8>) {
        let query = self.query.as_deref();
        let length = self.requested_host.len() + self.path.len();
        push_length(text, length + query.map_or(0, |query| query.len() + 1));
        text.extend_from_slice(self.requested_host.as_bytes());
        text.extend_from_slice(self.path.as_bytes());
        if let Some(query) = query {
            text.push(b'?');
            text.extend_from_slice(query.as_bytes());
        }
    }

    /// Appends the host to send. Writes a zero if it is the requested host, otherwise its length
    /// plus one and its text.
    fn push_host(&self, text: &mut Vec<u8>) {
        if self.host == self.requested_host {
            return push_length(text, 0);
        }
        push_length(text, self.host.len() + 1);
        text.extend_from_slice(self.host.as_bytes());
    }
}

impl<'a> OriginTarget<'a> {
    /// Parses the text of a key, or of a variant's key; `None` if it is malformed.
    fn read(text: &'a [u8]) -> Option<Self> {
        Self::read_from(&mut KeyTextReader(text))
    }

    /// Returns the partition in the text of a key. Allocates nothing.
    pub(super) fn partition_in(text: &'a [u8]) -> Option<&'a [u8]> {
        Self::read_to_partition(text)?.1.next()
    }

    /// Reads a key's text up to its partition. Returns the method and a reader of the rest.
    fn read_to_partition(text: &'a [u8]) -> Option<(&'static Method, KeyTextReader<'a>)> {
        let mut parts = KeyTextReader(text);
        let method = method(parts.next()?)?;
        parts.byte()?;
        parts.next()?;
        parts.length()?;
        if let Some(host) = parts.length()?.checked_sub(1) {
            parts.take(host)?;
        }
        for _ in 0..2 * parts.length()? {
            parts.next()?;
        }
        Some((method, parts))
    }

    /// Returns the part of a key's text before selecting cookies and selecting fields. Allocates
    /// nothing.
    fn text_without_selection(text: &'a [u8]) -> Option<&'a [u8]> {
        let (method, mut rest) = Self::read_to_partition(text)?;
        rest.next()?;
        if *method != Method::GET {
            rest.take(ContentDigest::LENGTH)?;
        }
        text.get(..text.len() - rest.0.len())
    }

    fn read_from(parts: &mut KeyTextReader<'a>) -> Option<Self> {
        let method = method(parts.next()?)?;
        let (scheme, inspection) = of_letter(parts.byte()?);
        let url = parts.text()?;
        let (requested_host, target) = url.split_at_checked(parts.length()?)?;
        let host = match parts.length()?.checked_sub(1) {
            None => requested_host,
            Some(length) => std::str::from_utf8(parts.take(length)?).ok()?,
        };
        let (path, query) = split_target(target);
        let query = query.map(Into::into);
        let mut forwarded_fields = Vec::new();
        for _ in 0..parts.length()? {
            let name = HeaderName::from_bytes(parts.next()?).ok()?;
            forwarded_fields.push((name, HeaderValue::from_bytes(parts.next()?).ok()?));
        }
        let partition = parts.next()?.into();
        let content = match *method {
            Method::GET => None,
            _ => Some(ContentDigest::from_bytes(parts.take(ContentDigest::LENGTH)?)?),
        };
        let (requested_host, host, path) = (requested_host.into(), host.into(), path.into());
        Some(Self {
            method,
            scheme,
            requested_host,
            host,
            path,
            query,
            sent_query: None,
            storage_placement: StoragePlacement::Fleet,
            forwarded_fields,
            partition,
            content,
            inspection,
        })
    }

    /// Returns the query to send to the origin.
    pub fn query_to_send(&self) -> Option<&str> {
        self.sent_query.as_deref().or(self.query.as_deref())
    }

    /// Returns path and query as sent to the origin.
    pub fn path_and_query(&self) -> Cow<'_, str> {
        match self.query_to_send() {
            None => Cow::Borrowed(&self.path),
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
        }
    }
}

impl CacheKey {
    /// Returns the origin target of this key; `None` if its text does not encode one.
    pub fn origin_target(&self) -> Option<OriginTarget<'_>> {
        let target = OriginTarget::read(self.text())?;
        let sent_query = self.sent_query.as_ref().map(|query| (&*query.0).into());
        Some(OriginTarget { sent_query, storage_placement: self.storage_placement, ..target })
    }

    /// Returns the URL in the form that purges match, see [`purge_url`]; empty if the text encodes
    /// no target. Usually allocates nothing, because the text contains the URL in this form.
    pub fn purge_url(&self) -> Cow<'_, str> {
        requested(self.text()).map(|(url, host)| purge_url::of_url(url, host)).unwrap_or_default()
    }

    /// Returns the digest of the same target without selecting cookies. Takes about 200 ns if there
    /// are some.
    pub fn digest_without_cookies(&self) -> u128 {
        match OriginTarget::text_without_selection(self.text()) {
            Some(target) if target.len() < self.text().len() => Self::from_text(target).digest(),
            _ => self.digest(),
        }
    }

    /// Returns the host that the client requested; empty if the text encodes no target.
    pub fn requested_host(&self) -> &str {
        requested(self.text()).and_then(|(url, host)| url.get(..host)).unwrap_or_default()
    }
}

/// Returns whether a key text contains selecting cookies: its target may have several responses.
pub(crate) fn is_selected_by_cookies(text: &[u8]) -> bool {
    let mut parts = KeyTextReader(text);
    OriginTarget::read_from(&mut parts).is_some() && parts.0.first() == Some(&SELECTED)
}

/// Returns the host and target in the text of a key: `host/path?query` as in the key.
pub(crate) fn requested_url(text: &[u8]) -> Option<&[u8]> {
    url(&mut KeyTextReader(text))
}

/// Returns the host and target in the text of a key, and the length of the host.
fn requested(text: &[u8]) -> Option<(&str, usize)> {
    let mut parts = KeyTextReader(text);
    let url = std::str::from_utf8(url(&mut parts)?).ok()?;
    Some((url, parts.length()?))
}

fn url<'a>(parts: &mut KeyTextReader<'a>) -> Option<&'a [u8]> {
    method(parts.next()?)?;
    parts.byte()?;
    parts.next()
}

/// Parses a method whose responses can be cached; `None` for any other.
fn method(name: &[u8]) -> Option<&'static Method> {
    match name {
        b"GET" => Some(&Method::GET),
        b"POST" => Some(&Method::POST),
        b"QUERY" => Some(&Method::QUERY),
        _ => None,
    }
}

const fn letter(scheme: Scheme, inspection: ResponseInspection) -> u8 {
    match (scheme, inspection) {
        (Scheme::Http, ResponseInspection::Plain) => b'h',
        (Scheme::Https, ResponseInspection::Plain) => b's',
        (Scheme::Http, ResponseInspection::Graphql) => b'H',
        (Scheme::Https, ResponseInspection::Graphql) => b'S',
    }
}

const fn of_letter(letter: u8) -> (Scheme, ResponseInspection) {
    match letter {
        b's' => (Scheme::Https, ResponseInspection::Plain),
        b'H' => (Scheme::Http, ResponseInspection::Graphql),
        b'S' => (Scheme::Https, ResponseInspection::Graphql),
        _ => (Scheme::Http, ResponseInspection::Plain),
    }
}

fn push(text: &mut Vec<u8>, part: &[u8]) {
    push_length(text, part.len());
    text.extend_from_slice(part);
}

/// Appends a length in LEB128: seven bits a byte, lowest first; the high bit marks continuation.
fn push_length(text: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        text.push(0x80 | low_bits(length));
        length >>= 7;
    }
    text.push(low_bits(length));
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits are left")]
const fn low_bits(number: usize) -> u8 {
    (number & 0x7f) as u8
}

/// A reader of length-prefixed parts.
struct KeyTextReader<'a>(&'a [u8]);

impl<'a> KeyTextReader<'a> {
    fn length(&mut self) -> Option<usize> {
        let mut length = 0_usize;
        for shift in (0..28).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(length);
            }
        }
        None
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.next()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::uri::PathReadings;

    fn target<'a>(host: &'a str, path: &'a str, query: Option<&'a str>) -> OriginTarget<'a> {
        OriginTarget {
            query: query.map(Into::into),
            ..OriginTarget::plain(Scheme::Http, host, path)
        }
    }

    fn with_content<'a>(
        method: &'a Method,
        content: &str,
        target: OriginTarget<'a>,
    ) -> OriginTarget<'a> {
        let content = Some(ContentDigest::of(&http::HeaderMap::new(), content.as_bytes()));
        OriginTarget { method, content, ..target }
    }

    #[test]
    fn every_difference_makes_another_key() {
        let prefix =
            (HeaderName::from_static("x-forwarded-prefix"), HeaderValue::from_static("/s"));
        let plain = || target("h", "/a", None);
        let keys = [
            plain(),
            target("i", "/a", None),
            target("h", "/A", None),
            target("h", "/%61", None),
            target("h", "/a", Some("")),
            target("h", "/a", Some("b")),
            OriginTarget { scheme: Scheme::Https, ..plain() },
            OriginTarget { inspection: ResponseInspection::Graphql, ..plain() },
            OriginTarget { host: "literal".into(), ..plain() },
            OriginTarget { forwarded_fields: vec![prefix], ..plain() },
            with_content(&Method::POST, "a", plain()),
            with_content(&Method::POST, "b", plain()),
            with_content(&Method::QUERY, "a", plain()),
        ]
        .map(|target| target.key().digest());
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
        }
    }

    #[test]
    fn what_is_sent_beside_the_key_makes_no_other_key() {
        let more = OriginTarget { sent_query: Some("b&c".into()), ..target("h", "/a", Some("b")) };
        let key = more.key();
        assert_eq!(key, target("h", "/a", Some("b")).key());
        assert_eq!(key.origin_target().unwrap().path_and_query(), "/a?b&c");
    }

    #[test]
    fn a_target_is_the_same_with_all_cookies() {
        let of_user = OriginTarget { partition: Cow::Borrowed(b"user"), ..target("h", "/a", None) };
        let queried = with_content(&Method::QUERY, "1", of_user.clone());
        for key in [of_user.key(), queried.key()] {
            assert_eq!(key.digest_without_cookies(), key.digest());
            let selected = key.clone().with_selecting_cookies(|text| text.push(b'x'));
            assert_ne!(selected.digest(), key.digest());
            assert_eq!(selected.digest_without_cookies(), key.digest());
            assert_eq!(selected.variant(b"y").digest_without_cookies(), key.digest());
        }
        let malformed = CacheKey::from_text(b"?");
        assert_eq!(malformed.digest_without_cookies(), malformed.digest());
    }

    #[test]
    fn the_reach_of_a_key_is_that_of_its_variants() {
        let near =
            OriginTarget { storage_placement: StoragePlacement::Node, ..target("h", "/a", None) };
        let key = near.key();
        assert_eq!(key, target("h", "/a", None).key(), "the same key");
        for key in
            [key.variant(b"x"), key.clone().with_selecting_cookies(|text| text.push(b'x')), key]
        {
            assert_eq!(key.storage_placement(), StoragePlacement::Node);
            assert_eq!(key.origin_target().unwrap().query_to_send(), None);
        }
        assert_eq!(target("h", "/a", None).key().storage_placement(), StoragePlacement::Fleet);
    }

    #[test]
    fn a_text_that_is_none_is_not_read() {
        assert_eq!(OriginTarget::read(b""), None);
        assert_eq!(OriginTarget::read(b"\x03PUT"), None);
        let queried = with_content(&Method::QUERY, "a", target("h", "/a", None)).key();
        let short = queried.text().split_last().unwrap().1;
        assert_eq!(OriginTarget::read(short), None);
        assert_eq!(OriginTarget::read(&[0xff; 40]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            host in "[a-z.]{0,200}",
            path in "/[a-z%?;]{0,300}",
            query in proptest::option::of("[a-z?=&]{0,40}"),
            value in "[ -~]{0,20}",
            sent_host in "[a-z.]{0,9}",
            partition in proptest::collection::vec(any::<u8>(), 0..40),
            content in proptest::option::of("[a-z]{0,9}"),
            is_graphql in any::<bool>(),
        ) {
            let path = path.replace('?', "");
            let mut target = target(&host, &path, query.as_deref());
            target.forwarded_fields.push((HeaderName::from_static("x-forwarded-port"), HeaderValue::from_str(value.trim()).unwrap()));
            target.partition = partition.into();
            target.host = sent_host.into();
            if is_graphql {
                target.inspection = ResponseInspection::Graphql;
            }
            let target = match content {
                Some(content) => with_content(&Method::QUERY, &content, target),
                None => target,
            };
            for key in [target.key(), target.key().variant(b"x")] {
                let read = key.origin_target();
                prop_assert_eq!(read.as_ref(), Some(&target));
                prop_assert_eq!(OriginTarget::partition_in(key.text()), Some(&*target.partition));
                prop_assert_eq!(key.requested_host(), host.as_str());
                let url = purge_url::of(&host, &PathReadings::of(&path), query.as_deref());
                prop_assert_eq!(&*key.purge_url(), &*url);
            }
        }
    }
}

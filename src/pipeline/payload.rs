//! What response bodies have a say in: the tags of a response, and whether it is stored at all. The JSON is
//! read once for both.

use std::{
    borrow::Cow,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::fetch::OriginFetch;
use crate::{
    field::{list, preference::preferences},
    key::uri::PathReadings,
    parsing::{self, ParseError},
    policy::{Reason, cache_status::StoreDecision},
    route::Route,
    store::Store,
};

/// The longest JSON that is read, in bytes, once it is decoded. While it is read it takes many times as
/// much memory.
const MAX_JSON: usize = 1 << 20;

/// Up to this many bytes are read by the way. More is read elsewhere, after clients have all of it.
const INLINE_BYTES: usize = 16 << 10;

/// What the body of a response has a say in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// Nothing: it is no JSON, or its route does not read it.
    Unused,
    /// It is JSON, in this coding, and is to be read.
    Json(Coding, MediaKind),
}

/// How JSON may be coded so that it can still be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all.
    Identity,
    /// With gzip.
    Gzip,
}

/// What a response says that its body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaKind {
    /// JSON, or nothing at all.
    Json,
    /// The JSON of GraphQL (`application/graphql-response+json`).
    Graphql,
    /// Something else, which some frameworks say of their JSON, too: it is read if it can be.
    Unclear,
    /// An image, a sound, a film or a font.
    Media,
}

/// Why a response is not stored after all, once its body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadError {
    /// It has a content coding that is not understood here.
    Coding,
    /// It is too long.
    TooLong,
    /// It is no JSON although it says so, or is not coded as it says.
    Malformed,
    /// It has too many tags, or too long ones.
    Tags,
    /// It has what the route's `store_unless` looks for, or errors of GraphQL.
    Excluded,
}

impl PayloadError {
    /// As the metric's label has it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Coding => "coding",
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Tags => "tags",
            Self::Excluded => "excluded",
        }
    }
}

impl Payload {
    /// What the body of a response with these fields has a say in on this route. `expected` is its
    /// length, where that was announced. A refusal says why such a body cannot be read.
    pub(super) fn of(
        route: &Route,
        headers: &HeaderMap,
        expected: Option<u64>,
    ) -> Result<Self, (Reason, PayloadError)> {
        let kind = MediaKind::of(headers);
        let is_tagged = !route.body_tags.is_empty() && kind.is_json();
        let is_checked = match kind {
            MediaKind::Graphql => true,
            MediaKind::Json | MediaKind::Unclear => !route.store_unless.is_empty(),
            MediaKind::Media => false,
        };
        if !is_tagged && !is_checked {
            return Ok(Self::Unused);
        }
        match readable(headers, expected) {
            Ok(coding) => Ok(Self::Json(coding, kind)),
            Err(_) if kind == MediaKind::Unclear => Ok(Self::Unused),
            Err(cause) if is_checked => Err((Reason::StoreUnless, cause)),
            Err(cause) => Err((Reason::TagsUnreadable, cause)),
        }
    }

    /// What can be said of storing the response before its body is there, which has this length if that
    /// is known.
    pub(super) fn stored(self, expected: Option<u64>) -> StoreDecision {
        match (self, expected) {
            (Self::Unused, Some(_)) => StoreDecision::Yes,
            (Self::Unused, None) => StoreDecision::UnlessTooLong,
            (Self::Json(..), _) => StoreDecision::Undecided,
        }
    }

    /// Whether clients are given all of such a body of this length before it is read.
    pub(super) fn is_read_after_delivery(self, length: usize) -> bool {
        self != Self::Unused && length > INLINE_BYTES
    }
}

impl MediaKind {
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Self::Json };
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        match &*list::trim(essence).to_ascii_lowercase() {
            b"application/graphql-response+json" => Self::Graphql,
            b"application/json" | b"text/json" => Self::Json,
            essence if essence.ends_with(b"+json") => Self::Json,
            essence if MEDIA.iter().any(|kind| essence.starts_with(kind)) => Self::Media,
            _ => Self::Unclear,
        }
    }

    const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Graphql)
    }
}

const MEDIA: [&[u8]; 4] = [b"image/", b"audio/", b"video/", b"font/"];

/// How a body with these fields is coded, where it can be read.
fn readable(headers: &HeaderMap, expected: Option<u64>) -> Result<Coding, PayloadError> {
    if expected.is_some_and(|length| length > MAX_JSON as u64) {
        return Err(PayloadError::TooLong);
    }
    let mut codings = list::members(headers, header::CONTENT_ENCODING)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Ok(Coding::Identity),
        (Some(coding), None) if is_gzip(coding) => Ok(Coding::Gzip),
        _ => Err(PayloadError::Coding),
    }
}

impl<S: Store> OriginFetch<S> {
    /// The tags in a body, all of which is there; an error where that keeps it from being stored.
    pub(super) async fn read_body(
        &self,
        payload: Payload,
        chunks: &[Bytes],
    ) -> Result<Vec<String>, PayloadError> {
        let Payload::Json(coding, kind) = payload else { return Ok(Vec::new()) };
        if is_short(coding, chunks) {
            let (route, query) = (self.config.route(self.route), self.request.uri.query());
            let request = (&self.readings, (query, self.user()));
            return tags(route, request, (coding, kind), chunks);
        }
        let (config, request) = (Arc::clone(&self.config), Arc::clone(&self.request));
        let (route, readings, chunks) = (self.route, self.readings.clone(), chunks.to_vec());
        let user = self.user().map(str::to_owned);
        let reading = move || {
            let request = (&readings, (request.uri.query(), user.as_deref()));
            tags(config.route(route), request, (coding, kind), &chunks)
        };
        let read = self.pipeline.parsing.run(reading).await;
        read.unwrap_or(Err(PayloadError::Malformed))
    }

    /// Counts a response that is not stored because of what its body has or because that is not known.
    pub(super) fn count_unreadable(&self, cause: PayloadError) {
        let labels = &[self.config.route_name(self.route), cause.as_str()];
        self.pipeline.metrics.purging.untagged.with_label_values(labels).inc();
    }
}

/// Leaves of the codings that a client accepts those that can be read here: it gets a plain response
/// rather than one that cannot be stored.
pub(super) fn narrow_codings(headers: &mut HeaderMap) {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for line in headers.get_all(header::ACCEPT_ENCODING) {
        for preference in preferences(line.as_bytes()).flatten() {
            let is_accepted = Some(preference.weight > 0);
            match preference.item {
                b"*" => any = is_accepted,
                coding if is_gzip(coding) => gzip = is_accepted,
                coding if coding.eq_ignore_ascii_case(b"identity") => identity = is_accepted,
                _ => {}
            }
        }
    }
    let is_asked_for = headers.contains_key(header::ACCEPT_ENCODING);
    if is_asked_for && gzip.or(any) == Some(true) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    } else if is_asked_for && identity.or(any) != Some(false) {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

fn is_gzip(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

fn length(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

/// The tags that the JSON in these bytes has for the response to a request with this path, query and user, if
/// it may be stored.
pub(super) fn tags(
    route: &Route,
    (path, asked): (&PathReadings<'_>, (Option<&str>, Option<&str>)),
    (coding, kind): (Coding, MediaKind),
    chunks: &[Bytes],
) -> Result<Vec<String>, PayloadError> {
    let document = decoded(coding, chunks).and_then(|json| parsed(&json));
    let document = match document {
        Ok(Some(document)) => document,
        Ok(None) => return Ok(Vec::new()),
        Err(_) if kind == MediaKind::Unclear => return Ok(Vec::new()),
        Err(cause) => return Err(cause),
    };
    if route.forbids_storing(&document) || (kind == MediaKind::Graphql && has_errors(&document)) {
        return Err(PayloadError::Excluded);
    }
    if !kind.is_json() {
        return Ok(Vec::new());
    }
    route.body_tags_of(path, asked, &document).map_err(|_| PayloadError::Tags)
}

/// The JSON in these bytes; none where there are none.
fn parsed(json: &[u8]) -> Result<Option<Value>, PayloadError> {
    // Some editors put a byte order mark before it.
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    if json.is_empty() {
        return Ok(None);
    }
    match parsing::parse(json) {
        Ok(document) => Ok(Some(document)),
        Err(ParseError::TooLarge) => Err(PayloadError::TooLong),
        Err(ParseError::Malformed) => Err(PayloadError::Malformed),
    }
}

/// Whether a response of GraphQL, or one of a batch of them, has errors (GraphQL §7.1.2).
fn has_errors(document: &Value) -> bool {
    match document {
        Value::Array(batch) => batch.iter().any(has_errors),
        _ => match document.get("errors") {
            None | Some(Value::Null) => false,
            Some(Value::Array(errors)) => !errors.is_empty(),
            Some(_) => true,
        },
    }
}

/// Whether a document is read by the way: decoded, it is not long.
fn is_short(coding: Coding, chunks: &[Bytes]) -> bool {
    let is_short = length(chunks) <= INLINE_BYTES;
    match coding {
        Coding::Identity => is_short,
        Coding::Gzip => is_short && unzipped_within(&chunks.concat(), INLINE_BYTES).is_ok(),
    }
}

fn decoded(coding: Coding, chunks: &[Bytes]) -> Result<Cow<'_, [u8]>, PayloadError> {
    let length = length(chunks);
    if length > MAX_JSON {
        return Err(PayloadError::TooLong);
    }
    match (coding, chunks) {
        (_, []) => Ok(Cow::Borrowed(&[])),
        (Coding::Identity, [whole]) => Ok(Cow::Borrowed(whole)),
        (Coding::Identity, chunks) => Ok(Cow::Owned(chunks.concat())),
        (Coding::Gzip, _) if length == 0 => Ok(Cow::Borrowed(&[])),
        (Coding::Gzip, [whole]) => unzipped(whole).map(Cow::Owned),
        (Coding::Gzip, chunks) => unzipped(&chunks.concat()).map(Cow::Owned),
    }
}

fn unzipped(zipped: &[u8]) -> Result<Vec<u8>, PayloadError> {
    unzipped_within(zipped, MAX_JSON)
}

fn unzipped_within(zipped: &[u8], limit: usize) -> Result<Vec<u8>, PayloadError> {
    let mut bytes = Vec::new();
    let decoder = MultiGzDecoder::new(zipped);
    let read: io::Result<usize> = decoder.take(limit as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length > limit => Err(PayloadError::TooLong),
        Ok(_) => Ok(bytes),
        Err(_) => Err(PayloadError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http::HeaderName;

    use super::*;
    use crate::{
        policy::CacheRule,
        route::{AnyTagTemplate, Pattern, PlaceholderNames, json_path},
    };

    fn route(template: &str) -> Route {
        let pattern = Pattern::parse("/products/{product}").unwrap();
        let tag = AnyTagTemplate::parse(template, PlaceholderNames::of_path(&pattern));
        let Ok(AnyTagTemplate::Body(tag)) = tag else { panic!("{template}") };
        let (pattern, body_tags) = (Some(pattern), Box::from([tag]));
        Route { pattern, body_tags, ..Route::unmatched(CacheRule::default()) }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn payload(fields: &[(&'static str, &'static str)]) -> Result<Payload, PayloadError> {
        Payload::of(&route("{$.id}"), &headers(fields), None).map_err(|(_, cause)| cause)
    }

    /// The same on a route without tags out of the body, with or without `store_unless`.
    fn checked(
        is_route: bool,
        fields: &[(&'static str, &'static str)],
    ) -> Result<Payload, (Reason, PayloadError)> {
        let paths = is_route.then(|| json_path::parse("$.error").unwrap());
        let store_unless = paths.into_iter().collect();
        let route = Route { store_unless, ..Route::unmatched(CacheRule::default()) };
        Payload::of(&route, &headers(fields), None)
    }

    fn read(coding: Coding, chunks: &[&[u8]]) -> Result<Vec<String>, PayloadError> {
        let path = PathReadings::of("/products/%61");
        let chunks: Vec<Bytes> = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
        let of_body = (coding, MediaKind::Json);
        tags(&route("{product}:{$.id}"), (&path, (None, None)), of_body, &chunks)
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn json_is_known_by_its_type() {
        let identity = Ok(Payload::Json(Coding::Identity, MediaKind::Json));
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/hal+json "]
        {
            assert_eq!(payload(&[("content-type", json)]), identity, "{json}");
        }
        assert_eq!(payload(&[]), identity, "it may be");
        for other in ["text/html", "application/jsonl", "application/x-ndjson", ""] {
            assert_eq!(payload(&[("content-type", other)]), Ok(Payload::Unused), "{other}");
        }
    }

    #[test]
    fn what_is_checked_has_to_be_readable() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        const GRAPHQL: (&str, &str) = ("content-type", "application/graphql-response+json; a=b");
        const TEXT: (&str, &str) = ("content-type", "text/html");
        const BR: (&str, &str) = ("content-encoding", "br");
        let refused = Err((Reason::StoreUnless, PayloadError::Coding));
        let read = |kind| Ok(Payload::Json(Coding::Identity, kind));
        for (fields, plain, route) in [
            (vec![JSON], Ok(Payload::Unused), read(MediaKind::Json)),
            (vec![JSON, BR], Ok(Payload::Unused), refused),
            (vec![GRAPHQL], read(MediaKind::Graphql), read(MediaKind::Graphql)),
            (vec![GRAPHQL, BR], refused, refused),
            (vec![TEXT], Ok(Payload::Unused), read(MediaKind::Unclear)),
            (vec![TEXT, BR], Ok(Payload::Unused), Ok(Payload::Unused)),
            (vec![("content-type", "image/png")], Ok(Payload::Unused), Ok(Payload::Unused)),
            (vec![], Ok(Payload::Unused), read(MediaKind::Json)),
        ] {
            assert_eq!((checked(false, &fields), checked(true, &fields)), (plain, route));
        }
    }

    #[test]
    fn errors_of_graphql_are_found_in_batches_too() {
        for (json, expected) in [
            (r#"{"data":{}}"#, false),
            (r#"{"errors":null}"#, false),
            (r#"{"errors":[]}"#, false),
            (r#"{"errors":[{}]}"#, true),
            (r#"{"errors":"x"}"#, true),
            (r#"[{},{"errors":[1]}]"#, true),
            (r#"{"data":{"errors":[1]}}"#, false),
            ("7", false),
        ] {
            assert_eq!(has_errors(&serde_json::from_str(json).unwrap()), expected, "{json}");
        }
    }

    #[test]
    fn a_coding_that_is_not_understood_is_no_matter_where_nothing_is_asked_for() {
        let gzip = Ok(Payload::Json(Coding::Gzip, MediaKind::Json));
        assert_eq!(payload(&[("content-encoding", "X-GZIP")]), gzip);
        for coding in ["br", "gzip, gzip", "zstd", "gzip, br"] {
            let coded = [("content-encoding", coding)];
            assert_eq!(payload(&coded), Err(PayloadError::Coding), "{coding}");
            let html = [("content-type", "text/html"), coded[0]];
            assert_eq!(payload(&html), Ok(Payload::Unused));
            let plain = Route::unmatched(CacheRule::default());
            assert_eq!(Payload::of(&plain, &headers(&coded), None), Ok(Payload::Unused));
        }
    }

    #[test]
    fn tags_are_read_in_every_coding_and_from_any_number_of_pieces() {
        let json = br#"{"id": 7}"#;
        assert_eq!(read(Coding::Identity, &[json]).unwrap(), ["a:7"]);
        assert_eq!(read(Coding::Identity, &[&json[..4], &json[4..]]).unwrap(), ["a:7"]);
        assert_eq!(read(Coding::Identity, &[b"\xef\xbb\xbf", json]).unwrap(), ["a:7"]);
        let zipped = zipped(json);
        assert_eq!(read(Coding::Gzip, &[&zipped]).unwrap(), ["a:7"]);
        assert_eq!(read(Coding::Gzip, &[&zipped[..9], &zipped[9..]]).unwrap(), ["a:7"]);
        for empty in [&[][..], &[&[][..]]] {
            assert_eq!(read(Coding::Identity, empty).unwrap(), [""; 0]);
            assert_eq!(read(Coding::Gzip, empty).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        for malformed in [&b"{"[..], b"\xff", b"{} x", &deep] {
            assert_eq!(read(Coding::Identity, &[malformed]), Err(PayloadError::Malformed));
        }
        assert_eq!(read(Coding::Gzip, &[b"{}"]), Err(PayloadError::Malformed));
        let cut = &zipped(b"{}")[..15];
        assert_eq!(read(Coding::Gzip, &[cut]), Err(PayloadError::Malformed));
        let long = vec![b' '; MAX_JSON + 1];
        assert_eq!(read(Coding::Identity, &[&long]), Err(PayloadError::TooLong));
        assert_eq!(read(Coding::Gzip, &[&zipped(&long)]), Err(PayloadError::TooLong));
        let expected = Payload::of(&route("{$.id}"), &headers(&[]), Some(MAX_JSON as u64 + 1));
        assert_eq!(expected, Err((Reason::TagsUnreadable, PayloadError::TooLong)));
        let tag = format!(r#"{{"id":"{}"}}"#, "x".repeat(2000));
        assert_eq!(read(Coding::Identity, &[tag.as_bytes()]), Err(PayloadError::Tags));
    }

    #[test]
    fn the_origin_is_asked_for_what_can_be_read() {
        for (asked, forwarded) in [
            ("gzip, deflate, br", "gzip"),
            ("br;q=1, *;q=0.5", "gzip"),
            ("br", "identity"),
            ("gzip;q=0, br", "identity"),
            ("", "identity"),
            ("br, identity;q=0", "br, identity;q=0"),
            ("br, *;q=0", "br, *;q=0"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(asked));
            narrow_codings(&mut headers);
            assert_eq!(headers[header::ACCEPT_ENCODING], forwarded, "{asked}");
        }
        let mut silent = HeaderMap::new();
        narrow_codings(&mut silent);
        assert!(silent.is_empty());
    }
}

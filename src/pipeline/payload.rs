//! Response payloads: reads JSON bodies for tags and for `store_unless`, in one pass.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use serde_json::Value;

use super::{
    config_snapshot::ConfigSnapshot,
    gzip::{NotUnzipped, is_gzip, unzipped_within},
};
use crate::{
    field::{list, preference::preferences},
    graphql::{Entities, has_errors},
    key::uri::PathReadings,
    parsing::{self, ParseError, ParseQueue},
    policy::{Reason, cache_status::StoredStatus, tag},
    route::Route,
};

/// Maximum length of JSON that is read, in bytes after decoding. Parsing takes many times as much
/// memory.
pub(super) const MAX_JSON: usize = 1 << 20;

/// Maximum length of a body that is read inline, in bytes. Longer bodies are read on another
/// thread, after clients have received them.
const INLINE_BYTES: usize = 16 << 10;

/// Whether the body of a response is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The body is not read: it is not JSON, the route does not need it, or it has
    /// been read.
    Unused,
    /// The body is JSON in this content coding.
    Json(Coding, MediaKind),
}

/// A content coding that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

/// The media type of a response body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaKind {
    /// JSON, or no media type.
    Json,
    /// GraphQL over HTTP (`application/graphql-response+json`).
    Graphql,
    /// Another type. Some frameworks use such types for JSON, so the body is read if possible.
    Unclear,
    /// An image, audio, video or font.
    Media,
}

/// Why a response is not stored because of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadError {
    /// The content coding is not supported.
    Coding,
    /// The body is too long.
    TooLong,
    /// The body is not valid JSON, or not coded as declared.
    Malformed,
    /// The response has too many tags, or tags that are too long.
    Tags,
    /// The body matches the route's `store_unless`, or contains GraphQL errors.
    Excluded,
    /// The media type is not that of a GraphQL response.
    MediaType,
}

impl PayloadError {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Coding => "coding",
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Tags => "tags",
            Self::Excluded => "excluded",
            Self::MediaType => "media-type",
        }
    }
}

impl Payload {
    /// Returns whether and how the body of a response with these fields is read on this route.
    /// `expected` is its announced length. Fails with the reason if the body cannot be read.
    pub(super) fn of(
        route: &Route,
        headers: &HeaderMap,
        expected: Option<u64>,
    ) -> Result<Self, (Reason, PayloadError)> {
        let kind = MediaKind::of(headers);
        let is_graphql = route.graphql.is_some();
        if is_graphql && !kind.is_json() {
            return Err((Reason::GraphqlResponse, PayloadError::MediaType));
        }
        let is_tagged = is_graphql || (!route.body_tags.is_empty() && kind.is_json());
        let is_checked = match kind {
            MediaKind::Graphql => true,
            MediaKind::Json | MediaKind::Unclear => is_graphql || !route.store_unless.is_empty(),
            MediaKind::Media => false,
        };
        if !is_tagged && !is_checked {
            return Ok(Self::Unused);
        }
        match readable(headers, expected) {
            Ok(coding) => Ok(Self::Json(coding, kind)),
            Err(_) if kind == MediaKind::Unclear => Ok(Self::Unused),
            Err(cause) if is_graphql => Err((Reason::GraphqlResponse, cause)),
            Err(cause) if is_checked => Err((Reason::StoreUnless, cause)),
            Err(cause) => Err((Reason::TagsUnreadable, cause)),
        }
    }

    /// Returns whether the response is stored, as far as this is known before its body arrives.
    /// `expected` is the announced length.
    pub(super) fn stored(self, expected: Option<u64>) -> StoredStatus {
        match (self, expected) {
            (Self::Unused, Some(_)) => StoredStatus::Yes,
            (Self::Unused, None) => StoredStatus::UnlessTooLong,
            (Self::Json(..), _) => StoredStatus::Undecided,
        }
    }

    /// Returns whether a body of this length is delivered to clients before it is read.
    pub(super) fn is_read_after_delivery(self, length: usize) -> bool {
        self != Self::Unused && length > INLINE_BYTES
    }
}

impl MediaKind {
    pub(super) fn of(headers: &HeaderMap) -> Self {
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

    pub(super) const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Graphql)
    }
}

const MEDIA: [&[u8]; 4] = [b"image/", b"audio/", b"video/", b"font/"];

/// Returns the content coding of a body with these fields. Fails if the body cannot be read.
pub(super) fn readable(headers: &HeaderMap, expected: Option<u64>) -> Result<Coding, PayloadError> {
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

/// The request whose response has the payload.
pub(super) struct PayloadRequest<'a> {
    pub config: &'a Arc<ConfigSnapshot>,
    pub route: usize,
    pub request: &'a Arc<Parts>,
    /// The user to whom the response belongs; `None` if it belongs to no user.
    pub user: Option<&'a str>,
}

/// Returns the tags in a complete body, or why the response may not be stored.
pub(super) async fn read(
    parsing: &ParseQueue,
    request: &PayloadRequest<'_>,
    (payload, chunks): (Payload, &[Bytes]),
) -> Result<Vec<String>, PayloadError> {
    let Payload::Json(coding, kind) = payload else { return Ok(Vec::new()) };
    if is_short(coding, chunks) {
        let (route, uri) = (request.config.route(request.route), &request.request.uri);
        let readings = PathReadings::of(uri.path());
        return tags(route, (&readings, (uri.query(), request.user)), (coding, kind), chunks);
    }
    let (config, head) = (Arc::clone(request.config), Arc::clone(request.request));
    let (route, chunks) = (request.route, chunks.to_vec());
    let user = request.user.map(str::to_owned);
    let reading = move || {
        let readings = PathReadings::of(head.uri.path());
        let request = (&readings, (head.uri.query(), user.as_deref()));
        tags(config.route(route), request, (coding, kind), &chunks)
    };
    parsing.run(reading).await.unwrap_or(Err(PayloadError::Malformed))
}

/// Reduces `Accept-Encoding` to the codings that can be read, because an uncompressed response is
/// better than one that cannot be stored.
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

fn length(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

/// Returns the tags in a JSON body for a request with this path, query and user, or why the
/// response may not be stored.
pub(super) fn tags(
    route: &Route,
    request: TaggedRequest<'_>,
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
    let is_graphql = kind == MediaKind::Graphql || route.graphql.is_some();
    if is_graphql && has_errors(&document) {
        return Err(PayloadError::Excluded);
    }
    tags_in(route, request, kind, &document)
}

/// The path readings of a request, its query and its user.
pub(super) type TaggedRequest<'a> = (&'a PathReadings<'a>, (Option<&'a str>, Option<&'a str>));

/// Returns the tags in a document for a request, or why the response may not be stored.
pub(super) fn tags_in(
    route: &Route,
    (path, query_and_user): TaggedRequest<'_>,
    kind: MediaKind,
    document: &Value,
) -> Result<Vec<String>, PayloadError> {
    if route.forbids_storing(document) {
        return Err(PayloadError::Excluded);
    }
    if !kind.is_json() {
        return Ok(Vec::new());
    }
    let tags = route.body_tags_of(path, query_and_user, document);
    let mut tags = tags.map_err(|_| PayloadError::Tags)?;
    if route.graphql.is_some() {
        let entities = Entities::of(document);
        tags.extend(entities.type_tags().chain(entities.object_tags()));
        if tags.iter().any(|tag| tag.len() > tag::MAX_LENGTH) {
            return Err(PayloadError::Tags);
        }
    }
    Ok(tags)
}

/// Returns the decoded body of a response with these fields; `None` if it cannot be decoded.
pub(super) fn plain<'a>(headers: &HeaderMap, chunks: &'a [Bytes]) -> Option<Cow<'a, [u8]>> {
    readable(headers, None).and_then(|coding| decoded(coding, chunks)).ok()
}

/// Parses JSON. Returns `None` if the text is empty.
pub(super) fn parsed(json: &[u8]) -> Result<Option<Value>, PayloadError> {
    // Some editors write a byte order mark.
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

/// Returns whether a document is short enough, after decoding, to be read inline.
pub(super) fn is_short(coding: Coding, chunks: &[Bytes]) -> bool {
    let is_short = length(chunks) <= INLINE_BYTES;
    match coding {
        Coding::Identity => is_short,
        Coding::Gzip => is_short && unzipped_within(&chunks.concat(), INLINE_BYTES).is_ok(),
    }
}

pub(super) fn decoded(coding: Coding, chunks: &[Bytes]) -> Result<Cow<'_, [u8]>, PayloadError> {
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
    unzipped_within(zipped, MAX_JSON).map_err(|cause| match cause {
        NotUnzipped::TooLong => PayloadError::TooLong,
        NotUnzipped::Malformed => PayloadError::Malformed,
    })
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

    /// Returns the payload on a route without tags from bodies, with `store_unless` if `is_route`.
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

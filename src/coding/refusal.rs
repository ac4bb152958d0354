//! Responses that Larder never encodes.

use http::StatusCode;

use crate::field::list;

/// Minimum length of a body that is encoded, in bytes. Shorter bodies fit into a packet unencoded.
const MIN_LENGTH: u64 = 1 << 10;

/// Why a response is not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodingRefusal {
    Status,
    Coded,
    NoTransform,
    Digest,
    MediaType,
    Trailers,
    Short,
}

impl CodingRefusal {
    /// Returns the reason as a sentence for operators.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Status => "Only responses with status 200 are encoded.",
            Self::Coded => "The origin has encoded the response.",
            Self::NoTransform => "`Cache-Control: no-transform` forbids it.",
            Self::Digest => "A digest or signature covers the body as the origin sent it.",
            Self::MediaType => "Its `Content-Type` is missing, or does not compress well.",
            Self::Trailers => "The response has trailers.",
            Self::Short => "The body is shorter than 1 KiB.",
        }
    }
}

/// Returns why a response is not encoded; `None` if it may be encoded.
///
/// `fields` is the header section, with names in lower case. `length` is the body's length, if
/// known.
pub(crate) fn refusal<'a>(
    status: StatusCode,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    length: Option<u64>,
) -> Option<CodingRefusal> {
    if status != StatusCode::OK {
        return Some(CodingRefusal::Status);
    }
    let mut is_compressible = false;
    for (name, value) in fields {
        match name {
            b"content-type" => is_compressible = is_compressible_type(value),
            b"content-encoding" => return Some(CodingRefusal::Coded),
            _ if forbids_transforming(name, value) => return Some(CodingRefusal::NoTransform),
            _ if covers_body(name) => return Some(CodingRefusal::Digest),
            _ => {}
        }
    }
    if !is_compressible {
        return Some(CodingRefusal::MediaType);
    }
    length.filter(|length| *length < MIN_LENGTH).map(|_| CodingRefusal::Short)
}

/// Returns whether a field forbids transforming the content (RFC 9111 §5.2.2.6).
///
/// Ignores case and syntax, and includes targeted fields such as `CDN-Cache-Control`.
pub(crate) fn forbids_transforming(name: &[u8], value: &[u8]) -> bool {
    name.ends_with(b"cache-control") && contains(value, b"no-transform")
}

/// Returns whether a field may hold a digest or signature of the body, such as `Content-Digest`,
/// `Repr-Digest` (RFC 9530), `Signature-Input` (RFC 9421), `Content-MD5` or `X-Amz-Checksum-Crc32`.
fn covers_body(name: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"digest", b"signature", b"checksum", b"-md5", b"-hash", b"crc"];
    WORDS.iter().any(|word| contains(name, word))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Returns whether bodies of a media type usually become much smaller. Excludes event streams,
/// which have no end.
fn is_compressible_type(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = list::trim(essence).to_ascii_lowercase();
    let Some(slash) = essence.iter().position(|byte| *byte == b'/') else { return false };
    let (kind, subtype) = essence.split_at(slash + 1);
    match kind {
        b"text/" => subtype != b"event-stream",
        b"application/" => APPLICATION.contains(&subtype) || has_compressible_suffix(subtype),
        b"image/" => [&b"svg+xml"[..], b"bmp", b"x-icon", b"vnd.microsoft.icon"].contains(&subtype),
        b"font/" => [&b"ttf"[..], b"otf", b"collection"].contains(&subtype),
        _ => has_compressible_suffix(subtype),
    }
}

fn has_compressible_suffix(subtype: &[u8]) -> bool {
    [&b"+json"[..], b"+xml", b"+text", b"+yaml"].iter().any(|end| subtype.ends_with(end))
}

/// Subtypes of `application` whose bodies are text, or as redundant as text.
const APPLICATION: [&[u8]; 24] = [
    b"cbor",
    b"ecmascript",
    b"graphql",
    b"javascript",
    b"json",
    b"json-seq",
    b"jsonl",
    b"msgpack",
    b"ndjson",
    b"protobuf",
    b"sparql-query",
    b"sql",
    b"toml",
    b"vnd.google.protobuf",
    b"vnd.ms-fontobject",
    b"wasm",
    b"x-javascript",
    b"x-msgpack",
    b"x-ndjson",
    b"x-protobuf",
    b"x-www-form-urlencoded",
    b"x-yaml",
    b"xml",
    b"yaml",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(fields: &[(&str, &str)]) -> Option<CodingRefusal> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        refusal(StatusCode::OK, fields, Some(MIN_LENGTH))
    }

    #[test]
    fn types_that_compress_well_are_encoded() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            (" application/problem+json ", true),
            ("application/x-ndjson", true),
            ("text/html", true),
            ("text/event-stream", false),
            ("Text/Event-Stream;charset=utf-8", false),
            ("image/svg+xml", true),
            ("image/png", false),
            ("model/gltf+json", true),
            ("video/mp4", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("font/woff2", false),
            ("json", false),
            ("", false),
        ] {
            let refusal = refused(&[("content-type", value)]);
            let expected = if expected { None } else { Some(CodingRefusal::MediaType) };
            assert_eq!(refusal, expected, "{value}");
        }
        assert_eq!(refused(&[]), Some(CodingRefusal::MediaType));
    }

    #[test]
    fn what_depends_on_the_bytes_as_sent_is_left_alone() {
        for (name, value, expected) in [
            ("content-encoding", "gzip", CodingRefusal::Coded),
            ("content-encoding", "aws-chunked", CodingRefusal::Coded),
            ("cache-control", "max-age=1, No-Transform", CodingRefusal::NoTransform),
            ("cache-control", "max-age=1; no-transform=1", CodingRefusal::NoTransform),
            ("cdn-cache-control", "no-transform", CodingRefusal::NoTransform),
            ("content-digest", "sha-256=:AA==:", CodingRefusal::Digest),
            ("repr-digest", "sha-256=:AA==:", CodingRefusal::Digest),
            ("digest", "sha-256=AA==", CodingRefusal::Digest),
            ("content-md5", "AA==", CodingRefusal::Digest),
            ("signature", "a=:AA==:", CodingRefusal::Digest),
            ("signature-input", "a=()", CodingRefusal::Digest),
            ("x-hub-signature-256", "sha256=00", CodingRefusal::Digest),
            ("x-amz-checksum-crc32", "AA==", CodingRefusal::Digest),
            ("x-goog-hash", "md5=AA==", CodingRefusal::Digest),
        ] {
            let fields = [("content-type", "text/plain"), (name, value)];
            assert_eq!(refused(&fields), Some(expected), "{name}");
        }
        for (name, value) in [("cache-control", "max-age=1"), ("x-note", "no-transform, digest")] {
            assert_eq!(refused(&[("content-type", "text/plain"), (name, value)]), None, "{name}");
        }
    }

    #[test]
    fn short_bodies_and_other_statuses_are_left_alone() {
        let of = |status, length| {
            refusal(status, [(&b"content-type"[..], &b"text/plain"[..])].into_iter(), length)
        };
        assert_eq!(of(StatusCode::OK, Some(MIN_LENGTH - 1)), Some(CodingRefusal::Short));
        assert_eq!(of(StatusCode::OK, None), None);
        assert_eq!(of(StatusCode::NOT_FOUND, None), Some(CodingRefusal::Status));
    }
}

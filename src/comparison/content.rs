//! Content of compared responses: codings and media types.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use super::skip_reason::SkipReason;
use crate::field::list;

/// Maximum length of a body in bytes, encoded and decoded. Parsing takes many times as much memory.
const MAX_BYTES: usize = 1 << 20;

/// The largest window of a zstd frame: 8 MiB, as for browsers (RFC 9659). A decoder allocates what
/// the frame asks for, up to 128 MiB by default.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// A body without its content coding.
pub(super) struct DecodedBody {
    pub(super) bytes: Bytes,
    pub(super) may_be_json: bool,
}

/// Returns the content codings of a response, in lower case and in the order of application.
pub(super) fn codings(headers: &HeaderMap) -> Vec<Vec<u8>> {
    list::members(headers, header::CONTENT_ENCODING)
        .map(<[u8]>::to_ascii_lowercase)
        .filter(|coding| !coding.is_empty() && coding != b"identity")
        .collect()
}

/// Returns a body without its content coding. Fails if it is too long, or cannot be decoded.
pub(super) fn decode(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, SkipReason> {
    if body.len() > MAX_BYTES {
        return Err(SkipReason::TooLong);
    }
    match codings(headers).as_slice() {
        [] => Ok(body.clone()),
        [coding] => match coding.as_slice() {
            b"gzip" | b"x-gzip" => read_whole(MultiGzDecoder::new(&**body)),
            b"deflate" => read_whole(ZlibDecoder::new(&**body)),
            b"zstd" => read_whole(zstd_decoder(body).map_err(|_| SkipReason::Coding)?),
            b"br" => read_whole(brotli::Decompressor::new(&**body, 4096)),
            _ => Err(SkipReason::Coding),
        },
        _ => Err(SkipReason::Coding),
    }
}

fn zstd_decoder(body: &[u8]) -> std::io::Result<zstd::Decoder<'_, &[u8]>> {
    let mut decoder = zstd::Decoder::with_buffer(body)?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

fn read_whole(decoder: impl Read) -> Result<Bytes, SkipReason> {
    let mut bytes = Vec::new();
    match decoder.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Ok(length) if length > MAX_BYTES => Err(SkipReason::TooLong),
        Ok(_) => Ok(bytes.into()),
        Err(_) => Err(SkipReason::Coding),
    }
}

/// Returns a media type in lower case, without `charset=utf-8`, which is the default of JSON.
pub(super) fn canonical_type(value: &[u8]) -> Vec<u8> {
    let parts = value.split(|byte| *byte == b';').map(|part| list::trim(part).to_ascii_lowercase());
    let is_kept = |part: &Vec<u8>| {
        !part.is_empty() && part != b"charset=utf-8" && part != b"charset=\"utf-8\""
    };
    parts.filter(is_kept).collect::<Vec<_>>().join(&b"; "[..])
}

/// Returns whether a decoded body is probably JSON, by its media type or its first character. Some
/// frameworks send JSON with another type.
pub(super) fn may_be_json(headers: &HeaderMap, body: &[u8]) -> bool {
    let essence = headers.get(header::CONTENT_TYPE).map(|value| canonical_type(value.as_bytes()));
    let essence = essence.unwrap_or_default();
    let essence = essence.split(|byte| *byte == b';').next().unwrap_or_default();
    let is_json = essence.ends_with(b"/json") || essence.ends_with(b"+json");
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    is_json || matches!(first, Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn decoded(coding: &'static str, body: &[u8]) -> Result<Bytes, SkipReason> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(coding))]);
        decode(&headers, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn each_common_coding_is_removed_within_the_limit() {
        let zlib = |bytes: &[u8]| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstandard = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        // The word "hello", written by another encoder.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decoded("identity", b"hello").unwrap(), "hello");
        assert_eq!(decoded("deflate", &zlib(b"hello")).unwrap(), "hello");
        assert_eq!(decoded("ZSTD", &zstandard(b"hello")).unwrap(), "hello");
        assert_eq!(decoded("br", &brotli).unwrap(), "hello");
        let long = vec![b'x'; MAX_BYTES + 1];
        assert_eq!(decoded("deflate", &zlib(&long)), Err(SkipReason::TooLong));
        assert_eq!(decoded("zstd", &zstandard(&long)), Err(SkipReason::TooLong));
        assert_eq!(decoded("identity", &long), Err(SkipReason::TooLong));
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(b"hello").unwrap();
        let wide = encoder.finish().unwrap();
        assert_eq!(decoded("zstd", &wide), Err(SkipReason::Coding), "a window of 16 MiB");
        for coding in ["gzip", "deflate", "zstd", "br", "gzip, br", "dcz"] {
            assert_eq!(decoded(coding, b"\xff\xff"), Err(SkipReason::Coding), "{coding}");
        }
    }

    #[test]
    fn json_is_known_by_its_type_or_its_first_byte() {
        let known = |kind: &'static str, body: &[u8]| {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            may_be_json(&headers, body)
        };
        for (kind, body, expected) in [
            ("application/json; charset=x", &b"1"[..], true),
            ("application/hal+json", b"", true),
            ("text/plain", b" {\"a\":1}", true),
            ("text/plain", b"[1]", true),
            ("text/html", b"<p>", false),
            ("text/plain", b"", false),
        ] {
            assert_eq!(known(kind, body), expected, "{kind}");
        }
    }
}

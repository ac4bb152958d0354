//! Parses response heads, and determines where the body ends (RFC 9112 §4, §6.3).

use std::{mem::MaybeUninit, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header, response::Parts,
};
use httparse::{Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::{
    header_cache::{HeaderBlockCache, MALFORMED},
    keep_alive::{self, KEEP_ALIVE},
};
use crate::{origin::content_length, server::message_length};

/// Maximum number of header lines in a response.
pub(in crate::origin) const MAX_HEADER_LINES: usize = 128;

/// The error for a head with more than [`MAX_HEADER_LINES`] lines.
pub(in crate::origin) const TOO_MANY_LINES: &str = "the response has more than 128 header lines";

/// Spare capacity for fields that are added to a response on its way to the client.
const SPARE_FIELDS: usize = 6;

/// The head of a response, and the bytes received after the head.
pub(in crate::origin) struct ReceivedHead {
    pub(super) parts: Parts,
    pub(super) length: ResponseLength,
    /// Whether the connection can be reused.
    pub(super) persists: bool,
    /// How long the origin keeps the idle connection open, minus a margin; `None` if unknown.
    pub(super) idle_limit: Option<Duration>,
    pub(super) bytes: usize,
    pub(super) rest: Bytes,
}

/// The way in which the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "fuzz targets name it"))]
pub enum ResponseLength {
    /// The body ends after this many bytes.
    Known(u64),
    /// The body ends with the last chunk.
    Chunked,
    /// The body ends when the connection closes.
    UntilClose,
}

/// Parses the head and removes it from `received`. Returns `None` if the head is incomplete.
pub(super) fn parse(
    received: &mut BytesMut,
    is_head: bool,
) -> Result<Option<ReceivedHead>, &'static str> {
    let bytes = std::mem::take(received).freeze();
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADER_LINES];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = ParserConfig::default();
    // Whitespace before the colon is removed from responses (RFC 9112 §5.1).
    parser.allow_spaces_after_header_name_in_responses(true);
    let status = parser.parse_response_with_uninit_headers(&mut response, &bytes, &mut lines);
    let length = match status {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => {
            *received = BytesMut::from(bytes);
            return Ok(None);
        }
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_MANY_LINES),
        Err(_) => return Err("malformed response head"),
    };
    let head_bytes = length;
    let rest = bytes.slice(length..);
    let (mut parts, framing) = head(&response, &bytes)?;
    let persists = framing.connection.persists(parts.version);
    let idle_limit =
        framing.has_keep_alive.then(|| keep_alive::idle_limit(&parts.headers)).flatten();
    let length = body_length(&mut parts, framing, is_head)?;
    Ok(Some(ReceivedHead { parts, length, persists, idle_limit, bytes: head_bytes, rest }))
}

/// The fields that concern framing.
#[derive(Default, Clone, Copy)]
struct FramingFields {
    lengths: u8,
    /// The value of the last `Content-Length` field; `None` if it is not a single number.
    length: Option<u64>,
    has_coding: bool,
    has_keep_alive: bool,
    connection: ConnectionOptions,
}

/// Whether the `Connection` field contains the options `close` and `keep-alive`.
#[derive(Clone, Copy, Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
}

impl ConnectionOptions {
    /// Parses a `Connection` line. Returns whether it has options besides `close` and `keep-alive`.
    fn take(&mut self, line: &HeaderValue) -> bool {
        let mut has_others = false;
        for option in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ => has_others = true,
            }
        }
        has_others
    }

    fn persists(self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

fn head(
    response: &httparse::Response<'_, '_>,
    bytes: &Bytes,
) -> Result<(Parts, FramingFields), &'static str> {
    let (mut parts, ()) = Response::new(()).into_parts();
    let code = response.code.unwrap_or_default();
    parts.status = StatusCode::from_u16(code).map_err(|_| "the status is out of range")?;
    parts.version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if let Some(reason) = response.reason
        && parts.status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        parts.extensions.insert(reason);
    }
    let mut framing = FramingFields::default();
    parts.headers = HeaderMap::with_capacity(response.headers.len() + SPARE_FIELDS);
    HeaderBlockCache::with(|cache| {
        for (index, line) in response.headers.iter().enumerate() {
            let (name, value) = cache.field(index, line, bytes)?;
            match name {
                header::CONTENT_LENGTH => {
                    framing.lengths = framing.lengths.saturating_add(1);
                    framing.length = message_length::content_length(value.as_bytes());
                }
                header::TRANSFER_ENCODING => framing.has_coding = true,
                _ if name == KEEP_ALIVE => framing.has_keep_alive = true,
                // `close` and `keep-alive` concern this connection only, and are handled here.
                header::CONNECTION if !framing.connection.take(&value) => continue,
                _ => {}
            }
            parts.headers.append(name, value);
        }
        Ok((parts, framing))
    })
}

fn field(line: &Header<'_>, bytes: &Bytes) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(line.name.as_bytes());
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
    name.ok().zip(value.ok()).ok_or(MALFORMED)
}

/// Parses a trailer section, including the empty line.
pub(super) fn trailers(section: &Bytes) -> Result<HeaderMap, &'static str> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(section, &mut lines) {
        Ok(Status::Complete((_, lines))) => lines.iter().map(|line| field(line, section)).collect(),
        _ => Err("malformed trailers"),
    }
}

/// Determines where the body ends. Rejects or corrects a response with an ambiguous end, since its
/// body could end elsewhere for the client (response smuggling).
fn body_length(
    parts: &mut Parts,
    framing: FramingFields,
    is_head: bool,
) -> Result<ResponseLength, &'static str> {
    let length = if framing.has_coding {
        check_coding(parts)?;
        ResponseLength::Chunked
    } else if framing.lengths > 0 {
        ResponseLength::Known(known_length(parts, framing)?)
    } else {
        ResponseLength::UntilClose
    };
    let is_bodiless = is_head
        || parts.status.is_informational()
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(if is_bodiless { ResponseLength::Known(0) } else { length })
}

fn check_coding(parts: &mut Parts) -> Result<(), &'static str> {
    if parts.version == Version::HTTP_10 {
        return Err("Transfer-Encoding in an HTTP/1.0 response");
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).into_iter();
    let is_chunked =
        codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_chunked || codings.next().is_some() {
        return Err("unsupported Transfer-Encoding");
    }
    parts.headers.remove(header::TRANSFER_ENCODING);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(())
}

fn known_length(parts: &mut Parts, framing: FramingFields) -> Result<u64, &'static str> {
    if let (1, Some(length)) = (framing.lengths, framing.length) {
        return Ok(length);
    }
    let length = content_length::normalize(&mut parts.headers);
    length.ok_or("malformed or conflicting Content-Length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<ReceivedHead>, &'static str> {
        parse(&mut BytesMut::from(text), false)
    }

    fn length(fields: &str) -> Result<ResponseLength, &'static str> {
        parsed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).map(|head| head.unwrap().length)
    }

    #[test]
    fn a_head_is_taken_when_all_of_it_is_there() {
        let text = "HTTP/1.1 404 Nope\r\nA: b\r\nContent-Length: 2\r\n\r\nokmore";
        for end in 0..text.find("ok").unwrap() {
            let mut received = BytesMut::from(&text[..end]);
            assert!(parse(&mut received, false).unwrap().is_none());
            assert_eq!(received, text[..end], "nothing is lost");
        }
        let head = parsed(text).unwrap().unwrap();
        assert_eq!((head.parts.status.as_u16(), &*head.rest), (404, &b"okmore"[..]));
        assert_eq!(head.parts.headers["a"], "b");
        assert_eq!(head.parts.extensions.get::<ReasonPhrase>().unwrap().as_bytes(), b"Nope");
        assert!(head.persists && head.length == ResponseLength::Known(2));
    }

    #[test]
    fn bodies_end_where_the_fields_say() {
        assert_eq!(length(""), Ok(ResponseLength::UntilClose));
        assert_eq!(
            length("Content-Length: 5, 5\r\nContent-Length: 5\r\n"),
            Ok(ResponseLength::Known(5))
        );
        let both = "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n";
        assert_eq!(length(both), Ok(ResponseLength::Chunked));
        for refused in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "A: b\r\n c\r\n",
        ] {
            assert!(length(refused).is_err(), "{refused}");
        }
        let ancient = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(parsed(ancient).is_err());
        let bare = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(parsed(bare).unwrap().unwrap().length, ResponseLength::Known(0));
        let head = parse(&mut BytesMut::from("HTTP/1.1 200 OK\r\n\r\n"), true).unwrap().unwrap();
        assert_eq!(head.length, ResponseLength::Known(0));
    }

    #[test]
    fn whitespace_before_a_colon_is_removed() {
        let head = parsed("HTTP/1.1 200 OK\r\nContent-Length : 2\r\nA\t: b\r\n\r\nok");
        let head = head.unwrap().unwrap();
        assert_eq!((head.length, &*head.rest), (ResponseLength::Known(2), &b"ok"[..]));
        assert_eq!(head.parts.headers["a"], "b");
        assert!(parsed("HTTP/1.1 200 OK\r\n : b\r\n\r\n").is_err(), "no name");
        assert_eq!(length("Transfer-Encoding : chunked\r\n"), Ok(ResponseLength::Chunked));
    }

    #[test]
    fn connections_persist_unless_told_otherwise() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(parsed(text).unwrap().unwrap().persists, expected, "{text}");
        }
    }
}

//! The fast path of HTTP/1.1: responds to plain requests without hyper.
//!
//! The fast path parses the field section of a request, and the handler makes a responder for it.
//! The responder reads the received bytes, and responds to each request that needs no waiting. It may
//! also defer the response to the last of them (`server/deferred.rs`). All other bytes go to hyper
//! unchanged.
//!
//! Most requests on a connection repeat the field section of the previous request, and so share its
//! responder. If only values differ, because a proxy sends the requests of several users, or each
//! request has a trace id, the responder receives these values. Any other section is parsed.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};

use super::{
    attempt_backoff::AttemptBackoff,
    framing::{self, FieldSection, FramingValidator},
    immediate::{Declined, ImmediateResponder, PlainRequest, ResponseBatch},
    validate::{ValidatedHost, validate},
};

/// Maximum number of fields in a section. Limits the memory of a connection: a map of more fields
/// takes 20 KiB.
const MAX_FIELDS: usize = 48;

/// When the fast path is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FastPathMode {
    /// For plain requests, but reads skip it after declined requests.
    #[default]
    On,
    /// For all plain requests. Used in tests, in which many requests are declined.
    Eager,
    /// The fast path is off. Used in tests that compare responses with and without it.
    Off,
}

/// Makes the responder for a field section.
pub(super) type MakeResponder =
    Box<dyn Fn(HeaderMap) -> Option<Box<dyn ImmediateResponder>> + Send>;

/// The fast path of one connection.
pub(super) struct FastPath {
    /// The number of a field section, and its responder if it has one.
    responder: Option<(u32, Option<Box<dyn ImmediateResponder>>)>,
    /// Leaves reads to hyper after declined requests, which cost time because hyper has to parse
    /// them as well.
    backoff: AttemptBackoff,
    mode: FastPathMode,
    make: MakeResponder,
}

impl FastPath {
    pub(super) fn new(mode: FastPathMode, make: MakeResponder) -> Self {
        Self { responder: None, backoff: AttemptBackoff::default(), mode, make }
    }

    /// Returns whether the fast path is on and the connection is between two requests.
    pub(super) fn is_on(&self, framing: &FramingValidator) -> bool {
        self.mode != FastPathMode::Off
            && (framing.is_between_requests() || framing.is_before_first_byte())
    }

    /// Appends responses to the requests at the start of `bytes`, until a request needs hyper.
    /// Returns the remaining bytes, which go to hyper. If the response to the only request is
    /// deferred, counts the request and appends nothing.
    pub(super) fn respond<'b>(
        &mut self,
        framing: &mut FramingValidator,
        mut bytes: &'b [u8],
        batch: &mut ResponseBatch,
    ) -> &'b [u8] {
        if self.backoff.skips() {
            return bytes;
        }
        while !bytes.is_empty() && !batch.is_full() {
            let Some((request, rest)) = framing.split_request(bytes) else { break };
            let Some(request) = PlainRequest::parse(request) else { break };
            let Some(responder) = self.responder(framing.last_fields()) else {
                self.note_declined();
                break;
            };
            let start = batch.length();
            batch.waits &= rest.is_empty();
            let Err(declined) = responder.respond(&request, batch) else {
                framing.count_split();
                self.backoff.note_success();
                bytes = rest;
                continue;
            };
            batch.undo(start);
            match declined {
                Declined::Request => self.note_declined(),
                Declined::Outdated => self.responder = None,
            }
            break;
        }
        bytes
    }

    /// Returns the responder for the last field section; `None` if hyper has to read its requests.
    fn responder(&mut self, fields: &FieldSection) -> Option<&mut Box<dyn ImmediateResponder>> {
        let number = fields.number();
        let is_ready = match &mut self.responder {
            Some((known, _)) if *known == number => true,
            Some((known, Some(responder))) if *known == number.wrapping_sub(1) => {
                *known = number;
                replace_values(&mut **responder, fields)
            }
            _ => false,
        };
        if !is_ready {
            let responder = parse(fields.bytes()).and_then(|fields| (self.make)(fields));
            self.responder = Some((number, responder));
        }
        self.responder.as_mut()?.1.as_mut()
    }

    /// Makes the next reads skip the fast path. Frees the responder after many declined requests in a
    /// row.
    fn note_declined(&mut self) {
        if self.mode == FastPathMode::Eager {
            return;
        }
        self.backoff.note_failure();
        if self.backoff.is_at_limit() {
            self.responder = None;
        }
    }
}

/// Parses the field section of a request as hyper does, and checks the fields. Returns `None` if a
/// field concerns more than one request, or framing other than `Content-Length`.
fn parse(section: &[u8]) -> Option<HeaderMap> {
    let block = Bytes::copy_from_slice(section);
    let mut lines = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((length, lines))) =
        httparse::parse_headers(&block, &mut lines)
    else {
        return None;
    };
    if length != block.len() {
        return None;
    }
    let mut fields = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(line.value)).ok()?;
        if !concerns_one_request(&name, &value) {
            return None;
        }
        fields.append(name, value);
    }
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = fields;
    validate(&mut request, &ValidatedHost::default()).ok()?;
    Some(request.into_parts().0.headers)
}

/// Replaces the values that differ from those of the section before, for which the responder was
/// made. Returns `false` if this section needs a new responder.
fn replace_values(responder: &mut dyn ImmediateResponder, fields: &FieldSection) -> bool {
    let Some(mut changed) = fields.changed_lines() else { return false };
    changed.all(|line| {
        let Some((name, value)) = parse_line(line) else { return false };
        // These are checked when a section is parsed.
        !matches!(name, header::HOST | header::CONNECTION) && responder.replace_value(&name, value)
    })
}

/// Parses a line of a section whose other version was parsed before, with the same name.
fn parse_line(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
    let value = framing::trim(value.get(1..)?);
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// Returns whether a field concerns its request alone: neither the connection, nor framing other
/// than the length.
fn concerns_one_request(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        header::CONNECTION => value.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
        header::TRANSFER_ENCODING
        | header::EXPECT
        | header::UPGRADE
        | header::TE
        | header::TRAILER => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::{super::framing::HeadLimits, *};

    const LIMITS: HeadLimits =
        HeadLimits { header_bytes: 1000, header_count: 8, target_bytes: 100 };
    const HEAD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Responds with the path, and declines `/declined`.
    struct Echo;

    impl ImmediateResponder for Echo {
        fn respond(
            &mut self,
            request: &PlainRequest<'_>,
            batch: &mut ResponseBatch,
        ) -> Result<(), Declined> {
            batch.head().extend_from_slice(request.path.as_bytes());
            if request.path == "/declined" { Err(Declined::Request) } else { Ok(()) }
        }
    }

    /// Returns the responses to requests for these paths on one connection, with `-` for each
    /// request that is left to hyper.
    fn responses(paths: &[&str]) -> String {
        let mut framing = FramingValidator::new(LIMITS);
        let mut fast_path = FastPath::new(FastPathMode::On, Box::new(|_| Some(Box::new(Echo))));
        framing.feed(HEAD);
        let taken = paths.iter().map(|path| {
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut batch = ResponseBatch::default();
            let rest = fast_path.respond(&mut framing, head.as_bytes(), &mut batch);
            framing.feed(rest);
            let is_taken = rest.is_empty();
            assert_eq!(is_taken, !batch.is_empty(), "nothing of a declined request is left");
            if is_taken { String::from_utf8(batch.bytes).unwrap() } else { "-".to_owned() }
        });
        taken.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn declined_requests_are_followed_by_a_pause_that_grows() {
        assert_eq!(responses(&["/a", "/b"]), "/a /b");
        assert_eq!(responses(&["/declined", "/a", "/declined", "/b"]), "- /a - /b");
        assert_eq!(responses(&["/declined", "/declined", "/a", "/b"]), "- - - /b");
        // Declined, declined, one left out, declined, three left out.
        let many = [&["/declined"; 4][..], &["/a"; 5]].concat();
        assert_eq!(responses(&many), "- - - - - - - /a /a");
    }

    /// Responds with the values of `x` and `cookie`.
    struct Values(HeaderMap);

    impl ImmediateResponder for Values {
        fn respond(
            &mut self,
            _: &PlainRequest<'_>,
            batch: &mut ResponseBatch,
        ) -> Result<(), Declined> {
            for value in ["x", "cookie"].iter().flat_map(|name| self.0.get_all(*name)) {
                batch.head().extend_from_slice(value.as_bytes());
                batch.head().push(b';');
            }
            Ok(())
        }

        fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
            self.0.get_all(name).iter().count() == 1 && self.0.insert(name, value).is_some()
        }
    }

    /// Returns the responses to heads with these fields on one connection, with `-` for each head
    /// that is left to hyper, and the number of responders made.
    fn values(sections: &[&str]) -> (Vec<String>, usize) {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let responder = move |fields| {
            counted.fetch_add(1, Relaxed);
            Some(Box::new(Values(fields)) as Box<dyn ImmediateResponder>)
        };
        let mut framing = FramingValidator::new(LIMITS);
        let mut fast_path = FastPath::new(FastPathMode::On, Box::new(responder));
        let responses = sections.iter().map(|fields| {
            assert!(fast_path.is_on(&framing));
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut batch = ResponseBatch::default();
            let rest = fast_path.respond(&mut framing, head.as_bytes(), &mut batch);
            framing.feed(rest);
            if rest.is_empty() { String::from_utf8(batch.bytes).unwrap() } else { "-".to_owned() }
        });
        (responses.collect(), made.load(Relaxed))
    }

    #[test]
    fn a_responder_receives_the_values_that_differ() {
        for (sections, expected, made) in [
            (&["X: 1\r\n", "X: 2\r\n", "X: 2\r\n"][..], &["1;", "2;", "2;"][..], 1),
            (&["X: 1\r\nCookie: a\r\n", "X:\r\nCookie: \t b \r\n"], &["1;a;", ";b;"], 1),
            (&["X: 1\r\n", "x: 2\r\n", "Cookie: a\r\n"], &["1;", "2;", "a;"], 3),
            (&["X: 1\r\nX: 2\r\n", "X: 1\r\nX: 3\r\n"], &["1;2;", "1;3;"], 2),
            (&["X: 1\r\n", "X: 2\r\nX: 3\r\n", "X: 4\r\n"], &["1;", "2;3;", "4;"], 3),
            (&["X: 1\r\n", "X: \u{7f}\r\n", "X: 2\r\n"], &["1;", "-", "2;"], 2),
        ] {
            let expected = expected.iter().map(ToString::to_string).collect();
            assert_eq!(values(sections), (expected, made), "{sections:?}");
        }
    }

    #[test]
    fn another_host_or_connection_field_needs_a_new_responder() {
        let kept = ["Connection: keep-alive\r\n", "Connection: close\r\n"];
        assert_eq!(values(&kept).0, ["", "-"]);
        let mut framing = FramingValidator::new(LIMITS);
        let mut fast_path =
            FastPath::new(FastPathMode::On, Box::new(|fields| Some(Box::new(Values(fields)))));
        for (host, is_taken) in [("a", true), ("b", true), ("a/b", false)] {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: 1\r\n\r\n");
            let mut batch = ResponseBatch::default();
            let rest = fast_path.respond(&mut framing, head.as_bytes(), &mut batch);
            assert_eq!(rest.is_empty(), is_taken, "{host}");
        }
    }

    #[test]
    fn fields_that_are_left_to_hyper_are_followed_by_a_pause() {
        let sections = ["TE: trailers\r\n", "TE: trailers\r\n", "X: 1\r\n", "X: 2\r\n"];
        assert_eq!(values(&sections).0, ["-", "-", "-", "2;"]);
    }

    #[test]
    fn fields_that_concern_the_connection_are_left_to_hyper() {
        let fields =
            |text: &str| parse(format!("{text}\r\n").as_bytes()).map(|fields| fields.len());
        assert_eq!(fields("Host: a\r\nA: b\r\nA: c\r\n"), Some(3));
        assert_eq!(fields("Host: a\r\nConnection: Keep-Alive\r\n"), Some(2));
        assert_eq!(fields("Host: a\r\nContent-Length: 1\r\n"), Some(2));
        let many = |count| format!("Host: a\r\n{}", "A: b\r\n".repeat(count - 1));
        assert_eq!(fields(&many(MAX_FIELDS)), Some(MAX_FIELDS));
        assert_eq!(fields(&many(MAX_FIELDS + 1)), None);
        for section in [
            "",
            "A: b\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a/b\r\n",
            "Host: a\r\nConnection: close\r\n",
            "Host: a\r\nConnection: keep-alive, x\r\n",
            "Host: a\r\nTransfer-Encoding: chunked\r\n",
            "Host: a\r\nExpect: 100-continue\r\n",
            "Host: a\r\nUpgrade: h2c\r\n",
            "Host: a\r\nTE: trailers\r\n",
            "Host: a\r\nA b: c\r\n",
            "Host: a\r\nA: \u{7f}\r\n",
        ] {
            assert_eq!(fields(section), None, "{section:?}");
        }
    }
}

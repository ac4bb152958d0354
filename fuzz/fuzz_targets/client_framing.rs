//! The watcher of client bytes, hyper and httparse agree where each request begins and ends, unless the
//! watcher refuses it: no request can hide in the body of another (request smuggling).
#![no_main]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use larder::testing::server::fuzzed;
use libfuzzer_sys::fuzz_target;

/// What a byte of the input stands for if it is no ASCII character.
const WORDS: [&[u8]; 29] = [
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"GET http://b/c HTTP/1.1\r\n",
    b"PUT /d HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"content-length:5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"Connection: keep-alive\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"a;b=c\r\n0123456789\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    b"chunked",
    b"identity",
    b"HTTP/1.1",
    b"\0",
    b"Content-Length: 5\r\n\r\nhello",
    b"X: y\r\n",
    b"X: z\r\n",
    b"x:\t z \r\n",
    b"GET /e HTTP/1.1\r\nHost: a\r\n",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, input) = input;
    let bytes = written(input);
    let heads = fuzzed::heads(&bytes);
    let counted = fuzzed::count(&bytes, usize::from(piece));
    assert_eq!(counted, (heads.ranges.len(), heads.refused), "however the bytes arrive");

    for is_eager in [false, true] {
        let fast = fuzzed::fast_requests(&bytes, usize::from(piece), is_eager);
        assert_eq!(fast.count, counted, "whoever takes the requests");
        for (number, request) in fast.taken {
            assert!(heads.refused.is_none_or(|refused| number + 1 < refused));
            let range = heads.ranges[number].clone();
            let (head, behind) = (&bytes[range.clone()], &bytes[range.end..]);
            let line = format!("{} HTTP/1.1\r\n", request.line);
            assert!(head.starts_with(line.as_bytes()), "{line}: {head:?}");
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut fields);
            parsed.parse(head).expect("the fast path has taken it");
            assert_eq!(body_of(parsed.headers, behind).as_deref(), Some(&*request.content));
            assert_eq!(without_length(request.fields), without_length(map_of(parsed.headers)));
        }
    }

    for (number, seen) in seen_by_hyper(&bytes).into_iter().enumerate() {
        if heads.refused.is_some_and(|refused| number + 1 >= refused) {
            return;
        }
        let range =
            heads.ranges.get(number).expect("hyper sees no request that the watcher misses");
        seen.compare(&bytes[range.clone()], &bytes[range.end..]);
    }
});

fn map_of(fields: &[httparse::Header<'_>]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_bytes(field.value).expect("a value"));
    }
    map
}

/// Requests that differ only in their length share the fields of the first.
fn without_length(mut fields: HeaderMap) -> HeaderMap {
    fields.remove(header::CONTENT_LENGTH);
    fields
}

fn written(input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in input {
        match byte.checked_sub(128) {
            None => bytes.push(*byte),
            Some(word) => bytes.extend_from_slice(WORDS[usize::from(word) % WORDS.len()]),
        }
    }
    bytes
}

/// A request as hyper understands it.
struct Seen {
    method: Method,
    uri: Uri,
    /// `None` if it broke off.
    body: Option<Bytes>,
}

impl Seen {
    /// Compares it with the head that the watcher found, and with the bytes behind it.
    fn compare(&self, head: &[u8], behind: &[u8]) {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut fields);
        let end = parsed.parse(head).expect("hyper has taken it");
        assert_eq!(end, httparse::Status::Complete(head.len()), "the head ends where it ends");
        assert_eq!(parsed.method, Some(self.method.as_str()));
        assert_eq!(parsed.path.and_then(|path| path.parse().ok()).as_ref(), Some(&self.uri));
        if let Some(body) = &self.body {
            assert_eq!(body_of(parsed.headers, behind).as_ref(), Some(body));
        }
    }
}

/// The body behind a head with these fields, by RFC 9112 §6.3.
fn body_of(fields: &[httparse::Header<'_>], behind: &[u8]) -> Option<Bytes> {
    let named = |name: &'static str| {
        fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    let lengths: Vec<_> = named("content-length").collect();
    if named("transfer-encoding").next().is_some() {
        assert!(lengths.is_empty(), "a length beside an encoding is refused");
        return decoded(behind);
    }
    assert!(lengths.len() <= 1, "two lengths are refused");
    let length = lengths.first().map_or("0", |it| str::from_utf8(it.value).expect("digits"));
    behind.get(..length.parse().expect("a number")).map(Bytes::copy_from_slice)
}

fn decoded(mut rest: &[u8]) -> Option<Bytes> {
    let mut body = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((taken, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        if size == 0 {
            return Some(body.into());
        }
        let end = taken.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(taken..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

/// The requests of a connection that brings these bytes and ends.
fn seen_by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let number = {
                let mut seen = seen.lock().expect("one thread");
                seen.push(Seen { method: parts.method, uri: parts.uri, body: None });
                seen.len() - 1
            };
            let body = body.collect().await?.to_bytes();
            seen.lock().expect("one thread")[number].body = Some(body);
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false).half_close(false).header_read_timeout(None);
    let connection = builder.serve_connection(Wire(bytes.to_vec(), 0), service);
    let _ = connection.now_or_never();
    std::mem::take(&mut *seen.lock().expect("one thread"))
}

/// A connection that brings its bytes at once and takes whatever it is sent.
struct Wire(Vec<u8>, usize);

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.0.len().min(self.1 + into.remaining());
        into.put_slice(&self.0[self.1..end]);
        self.1 = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

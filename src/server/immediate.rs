//! Responses of a handler without hyper: the requests, the responders and the bytes.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Response};

use super::framing::CompleteRequest;
use crate::body_file::BodyFile;

/// Maximum length of a body that is copied behind its head, in bytes. Longer bodies are not copied.
const MAX_COPIED_BODY: usize = 8 * 1024;

/// Length of a batch, in bytes, at which it is sent before further requests are examined.
const MAX_BATCH: usize = 32 * 1024;

/// Responds to requests on one connection that have the same header section.
///
/// Its responses must be those of [`Handler::handle`](super::Handler::handle) to the same requests.
pub trait ImmediateResponder: Send {
    /// Appends the response to a request. If the response takes time and the batch
    /// [may be deferred](ResponseBatch::may_defer), may instead append nothing and give the response
    /// to the [`Deferrer`] of the connection. Never waits itself.
    ///
    /// # Errors
    /// Fails if only [`Handler::handle`](super::Handler::handle) can respond. The request has then
    /// had no effect, and nothing is appended.
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined>;

    /// Replaces a value in the header section of the following requests, which is otherwise the
    /// same. `name` is a field of the section, and neither `Host` nor `Connection`. Returns `false`
    /// if the following requests need a new responder.
    fn replace_value(&mut self, _name: &HeaderName, _value: HeaderValue) -> bool {
        false
    }
}

/// The responder of a handler that has none.
impl ImmediateResponder for Infallible {
    fn respond(&mut self, _: &PlainRequest<'_>, _: &mut ResponseBatch) -> Result<(), Declined> {
        match *self {}
    }
}

/// Waits for responses of a [`Handler`](super::Handler) with bodies of this type, on one connection.
pub trait Deferrer<B>: Send + Sync {
    /// Takes the response to the current request, a `GET` or `HEAD` without a body. Called only if
    /// the response [may be deferred](ResponseBatch::may_defer).
    ///
    /// The future is dropped if the client disconnects before it completes.
    fn defer(&self, method: &Method, response: BoxFuture<'static, Response<B>>);
}

/// The reason why a request gets no immediate response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// Only [`Handler::handle`](super::Handler::handle) can respond to the request.
    Request,
    /// The responder was made under an older configuration.
    Outdated,
}

/// An HTTP/1.1 request to which a responder may respond, with a target in origin form: a `GET` or
/// `HEAD` without a body, or a `POST` or `QUERY` with all of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRequest<'a> {
    /// `GET`, `HEAD`, `POST` or `QUERY`.
    pub method: &'a Method,
    /// The path, which starts with `/`.
    pub path: &'a str,
    /// The query, without its `?`.
    pub query: Option<&'a str>,
    /// The content of a `POST` or `QUERY`, at least one byte.
    pub content: Option<&'a [u8]>,
}

impl<'a> PlainRequest<'a> {
    /// Parses a request. Returns `None` if the request is not plain, for example because its target
    /// has characters that parsers may read differently.
    #[inline]
    pub(super) fn parse(request: CompleteRequest<'a>) -> Option<Self> {
        let CompleteRequest { line, content } = request;
        let (method, rest) = match (line, content) {
            ([b'G', b'E', b'T', b' ', rest @ ..], None) => (&Method::GET, rest),
            ([b'H', b'E', b'A', b'D', b' ', rest @ ..], None) => (&Method::HEAD, rest),
            ([b'P', b'O', b'S', b'T', b' ', rest @ ..], Some([_, ..])) => (&Method::POST, rest),
            ([b'Q', b'U', b'E', b'R', b'Y', b' ', rest @ ..], Some([_, ..])) => {
                (&Method::QUERY, rest)
            }
            _ => return None,
        };
        let target = rest.strip_suffix(b" HTTP/1.1")?;
        let path_length = target.iter().position(|byte| !is_plain(*byte)).unwrap_or(target.len());
        let (path, rest) = target.split_at_checked(path_length)?;
        let query = match rest.split_first() {
            None => None,
            Some((b'?', query)) if query.iter().all(|byte| is_plain(*byte) || *byte == b'?') => {
                Some(query)
            }
            Some(_) => return None,
        };
        if path.first() != Some(&b'/') {
            return None;
        }
        let query = match query {
            Some(query) => Some(std::str::from_utf8(query).ok()?),
            None => None,
        };
        Some(Self { method, path: std::str::from_utf8(path).ok()?, query, content })
    }
}

/// Returns whether a byte has the same meaning in every path and query. True for `%`, and for
/// RFC 3986's unreserved and reserved characters except `?` and `#`.
#[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < plain.len() {
        #[expect(clippy::indexing_slicing, reason = "checked by the loop")]
        #[expect(clippy::cast_possible_truncation, reason = "checked by the loop")]
        {
            let allowed = b"-._~!$&'()*+,;=:@/%[]";
            let mut is_allowed = (byte as u8).is_ascii_alphanumeric();
            let mut index = 0;
            while index < allowed.len() {
                is_allowed |= allowed[index] == byte as u8;
                index += 1;
            }
            plain[byte] = is_allowed;
        }
        byte += 1;
    }
    plain
};

/// Encoded responses, in the order of their requests.
#[derive(Debug, Default)]
pub struct ResponseBatch {
    pub(super) bytes: Vec<u8>,
    /// The body of the last response, unless it is part of `bytes`.
    pub(super) body: Bytes,
    /// The file with the same body, if there is one.
    pub(super) file: Option<Arc<BodyFile>>,
    /// Whether the connection can send files.
    pub(super) sends_files: bool,
    /// Whether the connection can wait for a response to the current request.
    pub(super) waits: bool,
}

impl ResponseBatch {
    /// Returns the buffer to append a head to.
    pub fn head(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the body that follows the head. Copies a short body, and takes a long body from
    /// `share`.
    pub fn push_body(&mut self, body: &[u8], share: impl FnOnce() -> Bytes) {
        if body.len() <= MAX_COPIED_BODY {
            self.bytes.extend_from_slice(body);
        } else {
            self.body = share();
        }
    }

    /// Returns whether the connection can send a body from a file.
    #[inline]
    pub fn sends_files(&self) -> bool {
        self.sends_files
    }

    /// Appends the body that follows the head: `body`, which a file also contains. The body is sent
    /// from the file.
    pub fn push_file(&mut self, body: Bytes, file: &Arc<BodyFile>) {
        (self.body, self.file) = (body, Some(Arc::clone(file)));
    }

    /// Returns whether the response to the current request may be deferred: no earlier response
    /// waits to be sent, and no later request was received.
    #[inline]
    pub fn may_defer(&self) -> bool {
        self.waits && self.bytes.is_empty()
    }

    /// Returns whether the batch has to be sent before a response is appended.
    pub(super) fn is_full(&self) -> bool {
        !self.body.is_empty() || self.bytes.len() >= MAX_BATCH
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Truncates the batch to the length that it had before a response, and removes a long body.
    pub(super) fn undo(&mut self, length: usize) {
        self.bytes.truncate(length);
        (self.body, self.file) = (Bytes::new(), None);
    }

    /// Empties the batch, and keeps its buffer unless the buffer has become large.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * MAX_BATCH);
        (self.body, self.file) = (Bytes::new(), None);
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Option<(&str, &str, Option<&str>)> {
        parsed_with(line, None)
    }

    fn parsed_with<'a>(
        line: &'a str,
        content: Option<&'a [u8]>,
    ) -> Option<(&'a str, &'a str, Option<&'a str>)> {
        let request = CompleteRequest { line: line.as_bytes(), content };
        let request = PlainRequest::parse(request)?;
        assert_eq!(request.content, content);
        Some((request.method.as_str(), request.path, request.query))
    }

    #[test]
    fn only_plain_request_lines_are_taken() {
        assert_eq!(parsed("GET / HTTP/1.1"), Some(("GET", "/", None)));
        assert_eq!(parsed("HEAD /a/b?c=d?e& HTTP/1.1"), Some(("HEAD", "/a/b", Some("c=d?e&"))));
        assert_eq!(parsed("GET /a? HTTP/1.1"), Some(("GET", "/a", Some(""))));
        for line in [
            "",
            "GET",
            "GET / HTTP/1.0",
            "GET / HTTP/1.1 ",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET * HTTP/1.1",
            "GET a HTTP/1.1",
            "GET ?a HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /caf\u{e9} HTTP/1.1",
            "GET /\"a\" HTTP/1.1",
            "GET /a\t HTTP/1.1",
            "get / HTTP/1.1",
            "POST / HTTP/1.1",
            "QUERY / HTTP/1.1",
            "GET / http/1.1",
        ] {
            assert_eq!(parsed(line), None, "{line:?}");
        }
        for method in ["POST", "QUERY"] {
            let line = format!("{method} /a?b HTTP/1.1");
            assert_eq!(parsed_with(&line, Some(b"c")), Some((method, "/a", Some("b"))));
        }
        for (line, content) in [
            ("POST / HTTP/1.1", ""),
            ("GET / HTTP/1.1", ""),
            ("GET / HTTP/1.1", "a"),
            ("PUT / HTTP/1.1", "a"),
            ("POSTS / HTTP/1.1", "a"),
        ] {
            assert_eq!(parsed_with(line, Some(content.as_bytes())), None, "{line:?} {content:?}");
        }
    }

    proptest! {
        #[test]
        fn a_target_is_read_as_hyper_reads_it(target in "/[ -~]{0,40}") {
            let line = format!("GET {target} HTTP/1.1");
            let request = CompleteRequest { line: line.as_bytes(), content: None };
            if let Some(request) = PlainRequest::parse(request) {
                let uri = Uri::from_maybe_shared(Bytes::from(target.clone())).unwrap();
                prop_assert_eq!(uri.authority(), None);
                prop_assert_eq!((uri.path(), uri.query()), (request.path, request.query));
                prop_assert_eq!(uri.path_and_query().unwrap().as_str(), target);
            }
        }
    }
}

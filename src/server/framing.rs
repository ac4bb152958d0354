//! Where HTTP/1.1 requests begin and end on the wire, told from the raw bytes (RFC 9112).
//!
//! hyper parses the requests; this watches the same bytes go by, because hyper repairs silently what must
//! be refused: it drops `Content-Length` beside `Transfer-Encoding`, and a proxy that forwards the repaired
//! request may disagree with its neighbours about where the next one begins (request smuggling).

use std::io::BufRead;

use super::refusal::Refusal;

/// How much of a head is tolerated before its request is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) header_bytes: usize,
    pub(super) header_count: usize,
    pub(super) target_bytes: usize,
}

/// Longer field sections are not remembered.
const USUAL_BYTES: usize = 2048;

/// Follows the requests of one connection; keeps at most one unfinished line of them, and the fields of one.
#[derive(Debug)]
pub(super) struct Framing {
    limits: Limits,
    state: State,
    /// The field section, with the empty line, of the last request that had nothing wrong and no body. The
    /// next one nearly always has the same, and then it need not be looked at again.
    usual: Vec<u8>,
    head: Head,
    line: Vec<u8>,
    heads: u32,
    refused: Option<(u32, Refusal)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    Chunked(Chunk),
    /// Nothing that follows is looked at: a refused request, a lost boundary, or a tunnel.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    FirstDigit,
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerEnd,
    End,
}

/// What has been learnt of the head being read.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    refusal: Option<Refusal>,
}

impl Framing {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Head,
            usual: Vec::new(),
            head: Head::default(),
            line: Vec::new(),
            heads: 0,
            refused: None,
        }
    }

    /// Takes the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head if self.head.lines == 0 && self.line.is_empty() => {
                    self.feed_usual(bytes)
                }
                State::Head => self.feed_head(bytes),
                State::Body(left) => self.feed_body(left, bytes),
                State::Chunked(chunk) => self.feed_chunk(chunk, bytes),
                State::Off => return,
            };
        }
    }

    /// How many heads have been completed, wrapping.
    pub(super) fn heads(&self) -> u32 {
        self.heads
    }

    /// The number of the refused head (the first is 1) and why it is refused.
    pub(super) fn refused(&self) -> Option<(u32, Refusal)> {
        self.refused
    }

    /// Whether a head is what comes next, or goes on.
    pub(super) fn expects_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether a head has begun that is not complete.
    pub(super) fn is_inside_head(&self) -> bool {
        self.state == State::Head && self.head.bytes > 0
    }

    /// From now on the connection is a tunnel.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
        self.line = Vec::new();
    }

    /// Takes a head whose fields are the usual ones; else its first line.
    fn feed_usual<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut fields = bytes;
        let taken = fields.skip_until(b'\n').unwrap_or(0);
        let rest = fields.strip_prefix(&*self.usual).filter(|_| !self.usual.is_empty());
        let (Some(rest), Some(line)) = (rest, bytes.get(..taken)) else {
            return self.feed_first(bytes);
        };
        let is_within = taken.saturating_add(self.usual.len()) <= self.limits.header_bytes;
        let is_right = line.strip_suffix(b"\r\n").is_some_and(|line| {
            !line.is_empty() && line.len() <= self.limits.target_bytes && !line.contains(&b'#')
        });
        if !is_within || !is_right {
            return self.feed_first(bytes);
        }
        self.heads = self.heads.wrapping_add(1);
        rest
    }

    /// Takes the first line of a head; and the others where they are all there, to remember them.
    fn feed_first<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let heads = self.heads;
        let fields = self.feed_head(bytes);
        if self.head.lines != 1 {
            return fields;
        }
        let mut rest = fields;
        while self.state == State::Head && self.heads == heads && !rest.is_empty() {
            rest = self.feed_head(rest);
        }
        let is_plain = self.state == State::Head && self.heads != heads;
        let section = fields.get(..fields.len().saturating_sub(rest.len())).unwrap_or_default();
        if is_plain && section.len() <= USUAL_BYTES {
            self.usual.clear();
            self.usual.extend_from_slice(section);
        }
        rest
    }

    fn feed_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let mut rest = bytes;
        let taken = rest.skip_until(b'\n').unwrap_or(0);
        let Some(part) = bytes.get(..taken) else {
            return &[];
        };
        let is_whole = part.ends_with(b"\n");
        if self.line.is_empty() && self.head.lines == 0 && matches!(part, b"\r\n" | b"\n") {
            return rest;
        }
        self.head.bytes += part.len();
        if self.head.bytes > self.limits.header_bytes {
            self.refuse_unfinished();
            return &[];
        }
        if !is_whole {
            self.line.extend_from_slice(part);
        } else if self.line.is_empty() {
            self.take_line(part);
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            self.take_line(&line);
            line.clear();
            self.line = line;
        }
        rest
    }

    /// The head is too large already: it gets its answer if hyper sees its end, otherwise hyper's 431.
    fn refuse_unfinished(&mut self) {
        let refusal =
            if self.head.lines == 0 { Refusal::TargetTooLong } else { Refusal::HeaderTooLarge };
        self.heads = self.heads.wrapping_add(1);
        self.refused = Some((self.heads, refusal));
        self.stop();
    }

    fn take_line(&mut self, line: &[u8]) {
        if matches!(line, b"\r\n" | b"\n") {
            // Only a stray empty line that arrived in two parts before the request.
            if self.head.lines == 0 {
                self.head = Head::default();
            } else {
                self.head.check_end(line);
                self.end_head();
            }
        } else {
            self.head.take_line(line, &self.limits);
        }
    }

    fn end_head(&mut self) {
        let head = std::mem::take(&mut self.head);
        self.heads = self.heads.wrapping_add(1);
        if let Some(refusal) = head.refusal {
            self.refused = Some((self.heads, refusal));
            self.stop();
            return;
        }
        self.state = match head.length {
            _ if head.chunked => State::Chunked(Chunk::FirstDigit),
            Some(length) if length > 0 => State::Body(length),
            _ => State::Head,
        };
    }

    fn feed_body<'b>(&mut self, left: u64, bytes: &'b [u8]) -> &'b [u8] {
        let (left, rest) = skip(left, bytes);
        self.state = if left == 0 { State::Head } else { State::Body(left) };
        rest
    }

    fn feed_chunk<'b>(&mut self, chunk: Chunk, bytes: &'b [u8]) -> &'b [u8] {
        if let Chunk::Data(left) = chunk {
            let (left, rest) = skip(left, bytes);
            let next = if left == 0 { Chunk::DataCr } else { Chunk::Data(left) };
            self.state = State::Chunked(next);
            return rest;
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return &[];
        };
        self.state = match chunk.step(*byte) {
            Some(Chunk::End) if chunk == Chunk::End => State::Head,
            Some(next) => State::Chunked(next),
            // hyper refuses the same body; no later request of this connection is believed.
            None => State::Off,
        };
        rest
    }
}

impl Chunk {
    /// The state after one byte outside of chunk data; none where the byte is not allowed.
    /// `End` leads to itself: the message is over.
    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::FirstDigit, _) => Self::Size(hex(byte)?),
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), b' ' | b'\t' | b';') => Self::Extension(size),
            (Self::Size(size), _) => Self::Size(size.checked_mul(16)?.checked_add(hex(byte)?)?),
            (Self::Extension(_), b'\n') => return None,
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::SizeEnd(0) | Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::FirstDigit,
            (Self::TrailerStart, b'\r') | (Self::End, b'\n') => Self::End,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::Trailer, byte) if byte != b'\n' => Self::Trailer,
            _ => return None,
        })
    }
}

impl Head {
    fn take_line(&mut self, line: &[u8], limits: &Limits) {
        let is_first = self.lines == 0;
        self.lines += 1;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return self.refuse(Refusal::Line);
        };
        if is_first {
            self.take_request_line(line, limits);
        } else if self.lines > limits.header_count.saturating_add(1) {
            self.refuse(Refusal::HeaderTooLarge);
        } else {
            self.take_field(line);
        }
    }

    fn take_request_line(&mut self, line: &[u8], limits: &Limits) {
        if line.len() > limits.target_bytes {
            self.refuse(Refusal::TargetTooLong);
        } else if line.contains(&b'#') {
            self.refuse(Refusal::Target);
        }
    }

    fn take_field(&mut self, line: &[u8]) {
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                if let Some(value) = value_of(line, b"content-length") {
                    self.take_length(value);
                }
            }
            Some(b't') => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    self.take_encoding(value);
                }
            }
            Some(b' ' | b'\t' | b':') | None => self.refuse(Refusal::Line),
            Some(_) => {}
        }
    }

    fn take_length(&mut self, value: &[u8]) {
        let length = decimal(value);
        if length.is_none() || self.length.is_some() {
            self.refuse(Refusal::Length);
        }
        self.length = length;
    }

    fn take_encoding(&mut self, value: &[u8]) {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            self.refuse(Refusal::Encoding);
        }
        self.chunked = true;
    }

    fn check_end(&mut self, line: &[u8]) {
        if line != b"\r\n" {
            self.refuse(Refusal::Line);
        }
        if self.chunked && self.length.is_some() {
            self.refuse(Refusal::LengthAndEncoding);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }
}

/// The value of the field if the line is the named one; empty, which is never right, if it is malformed.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    match rest.split_first() {
        Some((b':', value)) => Some(trim(value)),
        Some((b' ' | b'\t', _)) => Some(&[]),
        _ => None,
    }
}

/// Without the optional whitespace of RFC 9110 §5.6.3, which is less than Rust's idea of it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn hex(digit: u8) -> Option<u64> {
    char::from(digit).to_digit(16).map(u64::from)
}

fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let rest = bytes.get(here..).unwrap_or_default();
    (left.saturating_sub(here as u64), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> Framing {
        Framing::new(Limits { header_bytes: 1000, header_count: 8, target_bytes: 100 })
    }

    fn refusal(bytes: &[u8]) -> Option<(u32, Refusal)> {
        let mut whole = framing();
        whole.feed(bytes);
        let mut dribbled = framing();
        for byte in bytes {
            dribbled.feed(std::slice::from_ref(byte));
        }
        assert_eq!(whole.refused(), dribbled.refused(), "however the bytes arrive");
        assert_eq!(whole.heads(), dribbled.heads());
        whole.refused()
    }

    #[test]
    fn pipelined_requests_are_counted_whatever_their_bodies_say() {
        let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\
            POST / HTTP/1.1\r\nContent-Length: 21\r\n\r\nTransfer-Encoding: x\n\n\
            POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n\
            14;e=1\r\nContent-Length: 99\r\n\r\n0\r\nA: b\r\n\r\n\
            GET /last HTTP/1.1\r\n\r\n";
        let mut framing = framing();
        framing.feed(bytes);
        assert_eq!((framing.heads(), framing.refused()), (4, None));
        assert!(!framing.is_inside_head());
        assert_eq!(refusal(bytes), None);
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        let both = b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(refusal(both), Some((2, Refusal::LengthAndEncoding)));
        for (field, expected) in [
            ("Content-Length: 5, 5", Refusal::Length),
            ("Content-Length: +5", Refusal::Length),
            ("Content-Length:", Refusal::Length),
            ("Content-Length : 5", Refusal::Length),
            ("Content-Length: 99999999999999999999", Refusal::Length),
            ("Content-Length: 5\r\nContent-Length: 5", Refusal::Length),
            ("Transfer-Encoding: gzip, chunked", Refusal::Encoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refusal::Encoding),
            ("Transfer-Encoding: \x0bchunked", Refusal::Encoding),
            ("Transfer-Encoding\t: chunked", Refusal::Encoding),
            ("A: b\r\n folded", Refusal::Line),
            ("A: b\nB: c", Refusal::Line),
        ] {
            let bytes = format!("POST / HTTP/1.1\r\n{field}\r\n\r\n");
            assert_eq!(refusal(bytes.as_bytes()), Some((1, expected)), "{field}");
        }
    }

    #[test]
    fn fragments_and_large_heads_are_refused() {
        assert_eq!(refusal(b"GET /a#b HTTP/1.1\r\n\r\n"), Some((1, Refusal::Target)));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100));
        assert_eq!(refusal(long.as_bytes()), Some((1, Refusal::TargetTooLong)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9));
        assert_eq!(refusal(many.as_bytes()), Some((1, Refusal::HeaderTooLarge)));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1000));
        assert_eq!(refusal(large.as_bytes()), Some((1, Refusal::HeaderTooLarge)));
    }

    #[test]
    fn a_broken_chunk_loses_all_that_follows() {
        let mut framing = framing();
        framing.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\nX\r\n0\r\n\r\n");
        framing.feed(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(framing.heads(), 1);
    }

    #[test]
    fn the_usual_fields_do_not_hide_what_is_unusual() {
        const USUAL: &str = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        for (next, expected) in [
            ("GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", None),
            ("GET /#b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", Some(Refusal::Target)),
            ("GET /b HTTP/1.1\nHost: a\r\nX: y\r\n\r\n", Some(Refusal::Line)),
            ("GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Some(Refusal::Line)),
            (
                "GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: +\r\n\r\n",
                Some(Refusal::Length),
            ),
        ] {
            let expected = expected.map(|refusal| (3, refusal));
            assert_eq!(refusal(format!("{USUAL}{USUAL}{next}").as_bytes()), expected, "{next}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", "a".repeat(100));
        let long = format!("{USUAL}{long}");
        assert_eq!(refusal(long.as_bytes()), Some((2, Refusal::TargetTooLong)));
        let length = USUAL.len();
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{USUAL}");
        let mut framing = framing();
        framing.feed(format!("{USUAL}{post}{USUAL}{post}{USUAL}").as_bytes());
        assert_eq!((framing.heads(), framing.refused()), (5, None), "bodies are no heads");
    }

    #[test]
    fn an_unfinished_head_is_noticed() {
        let mut framing = framing();
        assert!(!framing.is_inside_head());
        framing.feed(b"GET / HT");
        assert!(framing.is_inside_head());
        framing.feed(b"TP/1.1\r\n\r\n");
        assert!(!framing.is_inside_head());
    }
}

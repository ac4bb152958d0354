//! Finds the boundaries of HTTP/1.1 requests in the raw bytes (RFC 9112).
//!
//! hyper parses the requests, and silently repairs some that must be refused: it drops
//! `Content-Length` beside `Transfer-Encoding`. If a proxy forwards the repaired request, its
//! neighbours may disagree about the start of the next one (request smuggling). So this validator
//! reads the same bytes.

use std::ops::Range;

use memchr::memchr;
use smallvec::SmallVec;

use super::{
    message_length::{ChunkState, content_length},
    refusal::RequestRefusal,
};

/// Limits on a request head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    pub(super) header_bytes: usize,
    pub(super) header_count: usize,
    pub(super) target_bytes: usize,
}

/// Maximum length of a cached field section, in bytes.
const MAX_SECTION_BYTES: usize = 2048;

/// Maximum number of changed lines that are remembered of a field section.
const MAX_CHANGED_LINES: usize = 4;

/// Follows the requests of one connection. Buffers at most one incomplete line, and the fields of
/// one request.
#[derive(Debug)]
#[repr(C)] // What each request reads comes first, in few cache lines.
pub(super) struct FramingValidator {
    state: FramingState,
    heads: u32,
    /// Whether the bytes so far end with a valid request that is not chunked.
    ends_with_request: bool,
    refused: Option<(u32, RequestRefusal)>,
    limits: HeadLimits,
    head: HeadScan,
    last_fields: FieldSection,
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    Head,
    Body(u64),
    Chunked(ChunkState),
    /// All further bytes are ignored: a request was refused, a boundary was lost, or the connection
    /// is a tunnel.
    Off,
}

/// The field section of the last valid request that is not chunked, with the empty line. Empty if
/// there was none.
///
/// The next request usually repeats the section, apart from the value of `Content-Length`. The
/// request then needs no validation.
#[derive(Debug, Default)]
#[repr(C)] // `changed` is large, and seldom read.
pub(super) struct FieldSection {
    bytes: Vec<u8>,
    /// The position of the value of `Content-Length`.
    length: Option<Range<usize>>,
    /// The number of sections before this one, wrapping.
    number: u32,
    /// The lines whose values differ from those of the section before; `None` if the sections
    /// differ in more than a few values.
    changed: Option<SmallVec<[Range<usize>; MAX_CHANGED_LINES]>>,
}

impl FieldSection {
    /// Returns the bytes of the section with the empty line.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of sections before this one, wrapping.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the lines, without CRLF, whose values differ from those of the section before.
    /// `None` if the sections differ in other ways, or in many lines.
    pub(super) fn changed_lines(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let changed = self.changed.as_ref()?;
        Some(changed.iter().filter_map(|line| self.bytes.get(line.clone())?.strip_suffix(b"\r\n")))
    }
}

/// A complete request whose field section is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompleteRequest<'b> {
    /// The request line without its CRLF.
    pub(super) line: &'b [u8],
    /// The content; `None` if the fields give no length.
    pub(super) content: Option<&'b [u8]>,
}

/// The state of the current head, of which only a part may have arrived.
#[derive(Debug, Default)]
struct HeadScan {
    bytes: usize,
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    refusal: Option<RequestRefusal>,
}

impl FramingValidator {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            state: FramingState::Head,
            heads: 0,
            ends_with_request: false,
            refused: None,
            limits,
            head: HeadScan::default(),
            last_fields: FieldSection::default(),
            line: Vec::new(),
        }
    }

    /// Validates the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.ends_with_request = false;
            bytes = match self.state {
                FramingState::Head if self.head.lines == 0 && self.line.is_empty() => {
                    self.feed_repeated(bytes)
                }
                FramingState::Head => self.feed_head(bytes),
                FramingState::Body(left) => self.feed_body(left, bytes),
                FramingState::Chunked(chunk) => self.feed_chunk(chunk, bytes),
                FramingState::Off => return,
            };
        }
    }

    /// Returns the number of complete heads, wrapping.
    pub(super) fn head_count(&self) -> u32 {
        self.heads
    }

    /// Returns the number of the refused head, from 1, and the reason.
    pub(super) fn refused(&self) -> Option<(u32, RequestRefusal)> {
        self.refused
    }

    /// Returns whether the next byte belongs to a head.
    pub(super) fn expects_head(&self) -> bool {
        self.state == FramingState::Head
    }

    /// Returns whether a head is incomplete.
    pub(super) fn is_inside_head(&self) -> bool {
        self.state == FramingState::Head && self.head.bytes > 0
    }

    /// Returns whether a head is due, and the last request was valid and not chunked. Every reader
    /// of the same bytes then has the whole last request.
    pub(super) fn is_between_requests(&self) -> bool {
        self.ends_with_request && self.expects_head()
    }

    /// Returns the cached field section.
    pub(super) fn last_fields(&self) -> &FieldSection {
        &self.last_fields
    }

    /// Splits off a complete, valid request that is not chunked, and caches its field section.
    /// Returns the request and the remaining bytes, and does not count the request. Called while a
    /// head is due.
    pub(super) fn split_request<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Option<(CompleteRequest<'b>, &'b [u8])> {
        let head = self.split_repeated_head(bytes).or_else(|| self.split_new_head(bytes));
        let (line, length, rest) = head?;
        let Some(length) = length else {
            return Some((CompleteRequest { line, content: None }, rest));
        };
        let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        Some((CompleteRequest { line, content: Some(content) }, rest))
    }

    /// Splits off a head whose fields repeat the cached fields. Returns its request line without
    /// the CRLF, its `Content-Length`, and the remaining bytes. Called while a head is due.
    fn split_repeated_head<'b>(
        &self,
        bytes: &'b [u8],
    ) -> Option<(&'b [u8], Option<u64>, &'b [u8])> {
        let (line, fields) = split_line(bytes);
        let (length, rest) = self.last_fields.strip_from(fields)?;
        let line = line.strip_suffix(b"\r\n")?;
        let is_within = bytes.len() - rest.len() <= self.limits.header_bytes;
        let is_right =
            !line.is_empty() && line.len() <= self.limits.target_bytes && !line.contains(&b'#');
        (is_within && is_right).then_some((line, length, rest))
    }

    /// Returns whether no byte of a head has been validated yet.
    pub(super) fn is_before_first_byte(&self) -> bool {
        self.expects_head() && self.heads == 0 && self.head.bytes == 0
    }

    /// Splits off a complete, valid head of a request that is not chunked, like
    /// [`Self::split_repeated_head`], and caches its field section.
    #[inline(never)]
    fn split_new_head<'b>(&mut self, bytes: &'b [u8]) -> Option<(&'b [u8], Option<u64>, &'b [u8])> {
        let within = bytes.get(..self.limits.header_bytes).unwrap_or(bytes);
        let (mut scan, mut unread) = (HeadScan::default(), within);
        let mut request_line: &[u8] = &[];
        loop {
            let line;
            (line, unread) = split_line(unread);
            match line {
                b"\r\n" | b"\n" => {
                    scan.check_end(line);
                    break;
                }
                [.., b'\n'] => {}
                _ => return None,
            }
            if scan.lines == 0 {
                request_line = line;
            }
            scan.take_line(line, &self.limits);
        }
        if scan.lines == 0 || scan.refusal.is_some() || scan.chunked {
            return None;
        }
        let (head, rest) = bytes.split_at_checked(within.len() - unread.len())?;
        let fields = head.get(request_line.len()..)?;
        if fields.len() > MAX_SECTION_BYTES {
            return None;
        }
        self.last_fields.replace_by(fields, scan.length.is_some());
        Some((request_line.strip_suffix(b"\r\n")?, scan.length, rest))
    }

    /// Counts a request that [`Self::split_request`] has split off.
    pub(super) fn count_split(&mut self) {
        self.heads = self.heads.wrapping_add(1);
        self.ends_with_request = true;
    }

    /// Stops validating: the connection becomes a tunnel.
    pub(super) fn stop(&mut self) {
        self.state = FramingState::Off;
        self.ends_with_request = false;
        self.line = Vec::new();
    }

    /// Takes a whole head if its fields repeat the cached fields, else its first line.
    fn feed_repeated<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some((_line, length, rest)) = self.split_repeated_head(bytes) else {
            return self.feed_first(bytes);
        };
        self.begin_request(length.unwrap_or(0));
        rest
    }

    /// Counts a valid head of a request that is not chunked.
    fn begin_request(&mut self, length: u64) {
        self.heads = self.heads.wrapping_add(1);
        self.ends_with_request = length == 0;
        self.state = if length == 0 { FramingState::Head } else { FramingState::Body(length) };
    }

    /// Takes the first line of a head. If the whole head has arrived, takes and caches its fields
    /// as well.
    fn feed_first<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let heads = self.heads;
        let fields = self.feed_head(bytes);
        if self.head.lines != 1 {
            return fields;
        }
        let mut rest = fields;
        while self.state == FramingState::Head && self.heads == heads && !rest.is_empty() {
            rest = self.feed_head(rest);
        }
        let is_counted =
            self.heads != heads && matches!(self.state, FramingState::Head | FramingState::Body(_));
        let section = fields.get(..fields.len().saturating_sub(rest.len())).unwrap_or_default();
        if is_counted && section.len() <= MAX_SECTION_BYTES {
            self.last_fields.replace_by(section, true);
        }
        rest
    }

    fn feed_head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (part, rest) = split_line(bytes);
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

    /// Refuses an incomplete head that is already too large. The client gets this refusal if hyper
    /// reads the whole head, otherwise hyper's 431.
    fn refuse_unfinished(&mut self) {
        let refusal = if self.head.lines == 0 {
            RequestRefusal::TargetTooLong
        } else {
            RequestRefusal::HeaderTooLarge
        };
        self.heads = self.heads.wrapping_add(1);
        self.refused = Some((self.heads, refusal));
        self.stop();
    }

    fn take_line(&mut self, line: &[u8]) {
        if matches!(line, b"\r\n" | b"\n") {
            // An empty line before the request that arrived in two parts.
            if self.head.lines == 0 {
                self.head = HeadScan::default();
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
        self.begin_request(head.length.unwrap_or(0));
        if let Some(refusal) = head.refusal {
            self.refused = Some((self.heads, refusal));
            self.stop();
        } else if head.chunked {
            self.state = FramingState::Chunked(ChunkState::FirstDigit);
            self.ends_with_request = false;
        }
    }

    /// Refuses everything after a malformed chunked body. hyper rejects most of these bodies, but
    /// accepts a bare LF in the trailers and continues to read requests.
    fn lose_boundary(&mut self) {
        self.refused = Some((self.heads.wrapping_add(1), RequestRefusal::Framing));
        self.stop();
    }

    fn feed_body<'b>(&mut self, left: u64, bytes: &'b [u8]) -> &'b [u8] {
        let (left, rest) = skip(left, bytes);
        self.state = if left == 0 { FramingState::Head } else { FramingState::Body(left) };
        self.ends_with_request = left == 0;
        rest
    }

    fn feed_chunk<'b>(&mut self, chunk: ChunkState, bytes: &'b [u8]) -> &'b [u8] {
        if let ChunkState::Data(left) = chunk {
            let (left, rest) = skip(left, bytes);
            self.state = FramingState::Chunked(ChunkState::data(left));
            return rest;
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return &[];
        };
        self.state = match chunk.step(*byte) {
            Ok(ChunkState::End) if chunk == ChunkState::End => FramingState::Head,
            Ok(next) => FramingState::Chunked(next),
            Err(_) => {
                self.lose_boundary();
                return &[];
            }
        };
        rest
    }
}

impl FieldSection {
    /// Replaces the section with that of a newer valid request that is not chunked. `has_length`
    /// says whether to look for `Content-Length`.
    fn replace_by(&mut self, section: &[u8], has_length: bool) {
        self.changed = changed_lines(&self.bytes, section);
        self.bytes.clear();
        self.bytes.extend_from_slice(section);
        self.number = self.number.wrapping_add(1);
        self.length = if has_length { find_length(section) } else { None };
    }

    /// Removes this section from the start of `fields`. Returns the `Content-Length` of the fields
    /// and the remaining bytes, or `None` if `fields` start with another section.
    fn strip_from<'b>(&self, fields: &'b [u8]) -> Option<(Option<u64>, &'b [u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        let Some(length) = &self.length else {
            return Some((None, fields.strip_prefix(&*self.bytes)?));
        };
        let rest = fields.strip_prefix(self.bytes.get(..length.start)?)?;
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = rest.split_at_checked(digits)?;
        let rest = rest.strip_prefix(self.bytes.get(length.end..)?)?;
        Some((Some(content_length(digits)?), rest))
    }
}

impl HeadScan {
    fn take_line(&mut self, line: &[u8], limits: &HeadLimits) {
        let is_first = self.lines == 0;
        self.lines += 1;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return self.refuse(RequestRefusal::Line);
        };
        if is_first {
            self.take_request_line(line, limits);
        } else if self.lines > limits.header_count.saturating_add(1) {
            self.refuse(RequestRefusal::HeaderTooLarge);
        } else {
            self.take_field(line);
        }
    }

    fn take_request_line(&mut self, line: &[u8], limits: &HeadLimits) {
        if line.len() > limits.target_bytes {
            self.refuse(RequestRefusal::TargetTooLong);
        } else if line.contains(&b'#') {
            self.refuse(RequestRefusal::Target);
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
            Some(b' ' | b'\t' | b':') | None => self.refuse(RequestRefusal::Line),
            Some(_) => {}
        }
    }

    fn take_length(&mut self, value: &[u8]) {
        let length = content_length(value);
        if length.is_none() || self.length.is_some() {
            self.refuse(RequestRefusal::Length);
        }
        self.length = length;
    }

    fn take_encoding(&mut self, value: &[u8]) {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            self.refuse(RequestRefusal::Encoding);
        }
        self.chunked = true;
    }

    fn check_end(&mut self, line: &[u8]) {
        if line != b"\r\n" {
            self.refuse(RequestRefusal::Line);
        }
        if self.chunked && self.length.is_some() {
            self.refuse(RequestRefusal::LengthAndEncoding);
        }
    }

    fn refuse(&mut self, refusal: RequestRefusal) {
        self.refusal.get_or_insert(refusal);
    }
}

/// Returns the position of the value of `Content-Length`.
fn find_length(section: &[u8]) -> Option<Range<usize>> {
    lines(section).find_map(|(start, line)| {
        let value = value_of(line.strip_suffix(b"\r\n")?, b"content-length")?;
        let first = start + line.iter().position(u8::is_ascii_digit)?;
        Some(first..first + value.len())
    })
}

/// Splits after the first LF. Without an LF, all bytes are the line.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let length = memchr(b'\n', bytes).map_or(bytes.len(), |position| position + 1);
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

/// Returns the lines with their positions.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (start, line) = (bytes.len() - rest.len(), rest);
        let line = (!line.is_empty()).then(|| split_line(line))?;
        rest = line.1;
        Some((start, line.0))
    })
}

/// Returns the lines of `new` whose values differ from those in `old`. `None` if the sections
/// differ in their names, or in more than [`MAX_CHANGED_LINES`] lines.
fn changed_lines(old: &[u8], new: &[u8]) -> Option<SmallVec<[Range<usize>; MAX_CHANGED_LINES]>> {
    let (mut changed, mut rest) = (SmallVec::new(), new);
    for (_, before) in lines(old) {
        if let Some(after) = rest.strip_prefix(before) {
            rest = after;
            continue;
        }
        let start = new.len() - rest.len();
        let (line, after) = split_line(rest);
        let name = line.get(..=memchr(b':', line)?)?;
        if changed.len() == MAX_CHANGED_LINES || !before.starts_with(name) {
            return None;
        }
        changed.push(start..start + line.len());
        rest = after;
    }
    (rest.is_empty() && !old.is_empty()).then_some(changed)
}

/// Returns the value if the line is the named field. A malformed field has an empty value, which is
/// never valid.
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

/// Trims the optional whitespace of RFC 9110 §5.6.3, which is less than what Rust trims.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let rest = bytes.get(here..).unwrap_or_default();
    (left.saturating_sub(here as u64), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> FramingValidator {
        FramingValidator::new(HeadLimits { header_bytes: 1000, header_count: 8, target_bytes: 100 })
    }

    fn refusal(bytes: &[u8]) -> Option<(u32, RequestRefusal)> {
        let mut whole = framing();
        whole.feed(bytes);
        let mut dribbled = framing();
        for byte in bytes {
            dribbled.feed(std::slice::from_ref(byte));
        }
        assert_eq!(whole.refused(), dribbled.refused(), "however the bytes arrive");
        assert_eq!(whole.head_count(), dribbled.head_count());
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
        assert_eq!((framing.head_count(), framing.refused()), (4, None));
        assert!(!framing.is_inside_head());
        assert_eq!(refusal(bytes), None);
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        let both = b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(refusal(both), Some((2, RequestRefusal::LengthAndEncoding)));
        for (field, expected) in [
            ("Content-Length: 5, 5", RequestRefusal::Length),
            ("Content-Length: +5", RequestRefusal::Length),
            ("Content-Length:", RequestRefusal::Length),
            ("Content-Length : 5", RequestRefusal::Length),
            ("Content-Length: 99999999999999999999", RequestRefusal::Length),
            ("Content-Length: 5\r\nContent-Length: 5", RequestRefusal::Length),
            ("Transfer-Encoding: gzip, chunked", RequestRefusal::Encoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", RequestRefusal::Encoding),
            ("Transfer-Encoding: \x0bchunked", RequestRefusal::Encoding),
            ("Transfer-Encoding\t: chunked", RequestRefusal::Encoding),
            ("A: b\r\n folded", RequestRefusal::Line),
            ("A: b\nB: c", RequestRefusal::Line),
        ] {
            let bytes = format!("POST / HTTP/1.1\r\n{field}\r\n\r\n");
            assert_eq!(refusal(bytes.as_bytes()), Some((1, expected)), "{field}");
        }
    }

    #[test]
    fn fragments_and_large_heads_are_refused() {
        assert_eq!(refusal(b"GET /a#b HTTP/1.1\r\n\r\n"), Some((1, RequestRefusal::Target)));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100));
        assert_eq!(refusal(long.as_bytes()), Some((1, RequestRefusal::TargetTooLong)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9));
        assert_eq!(refusal(many.as_bytes()), Some((1, RequestRefusal::HeaderTooLarge)));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1000));
        assert_eq!(refusal(large.as_bytes()), Some((1, RequestRefusal::HeaderTooLarge)));
    }

    #[test]
    fn whatever_follows_a_broken_chunked_body_is_refused() {
        for body in ["1\nX\r\n0\r\n\r\n", "0\r\n\nA: b\r\n\r\n", "0\r\nA: b\n\r\n"] {
            let bytes = format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET / HTTP/1.1\r\n\r\n"
            );
            assert_eq!(refusal(bytes.as_bytes()), Some((2, RequestRefusal::Framing)), "{body:?}");
        }
    }

    #[test]
    fn the_usual_fields_do_not_hide_what_is_unusual() {
        const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        for (next, expected) in [
            ("GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", None),
            ("GET /#b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", Some(RequestRefusal::Target)),
            ("GET /b HTTP/1.1\nHost: a\r\nX: y\r\n\r\n", Some(RequestRefusal::Line)),
            ("GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Some(RequestRefusal::Line)),
            (
                "GET /b HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: +\r\n\r\n",
                Some(RequestRefusal::Length),
            ),
        ] {
            let expected = expected.map(|refusal| (3, refusal));
            assert_eq!(refusal(format!("{REQUEST}{REQUEST}{next}").as_bytes()), expected, "{next}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", "a".repeat(100));
        let long = format!("{REQUEST}{long}");
        assert_eq!(refusal(long.as_bytes()), Some((2, RequestRefusal::TargetTooLong)));
        let length = REQUEST.len();
        let post = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{REQUEST}");
        let mut framing = framing();
        framing.feed(format!("{REQUEST}{post}{REQUEST}{post}{REQUEST}").as_bytes());
        assert_eq!((framing.head_count(), framing.refused()), (5, None), "bodies are no heads");
    }

    #[test]
    fn a_connection_is_between_requests_right_behind_one_only() {
        const HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        const POST: &str = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy";
        for (bytes, expected) in [
            ("", false),
            (HEAD, true),
            (&HEAD.repeat(3), true),
            (&format!("{HEAD}\r\n"), false),
            (&format!("{HEAD}G"), false),
            (&format!("{HEAD}\r"), false),
            (POST, true),
            (&POST[..POST.len() - 1], false),
            (&POST[..POST.len() - 2], false),
            (&POST.repeat(2), true),
            (&POST.repeat(2)[..2 * POST.len() - 1], false),
            (&format!("{POST}\r\n"), false),
            (&format!("{HEAD}{POST}"), true),
            (&format!("{HEAD}{POST}{HEAD}"), true),
            (&format!("\r\n{HEAD}"), true),
            ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
        ] {
            let mut whole = framing();
            whole.feed(bytes.as_bytes());
            assert_eq!(whole.is_between_requests(), expected, "{bytes:?}");
            let mut dribbled = framing();
            for byte in bytes.as_bytes() {
                dribbled.feed(std::slice::from_ref(byte));
            }
            assert_eq!(dribbled.is_between_requests(), expected, "{bytes:?}, byte by byte");
        }
    }

    #[test]
    fn a_complete_head_is_split_off_and_its_fields_are_cached() {
        let mut framing = framing();
        let request = CompleteRequest { line: b"GET /b HTTP/1.1", content: None };
        let mut number = 0;
        for (fields, is_new) in [
            ("Host: a\r\n\r\n", true),
            ("Host: a\r\n\r\n", false),
            ("Host: b\r\n\r\n", true),
            ("Host: b\r\nContent-Type: a\r\n\r\n", true),
            ("\r\n", true),
        ] {
            let bytes = format!("GET /b HTTP/1.1\r\n{fields}GET");
            assert_eq!(framing.split_request(bytes.as_bytes()), Some((request, &b"GET"[..])));
            number += u32::from(is_new);
            let last = framing.last_fields();
            assert_eq!((last.bytes(), last.number()), (fields.as_bytes(), number));
        }
        assert_eq!(framing.head_count(), 0, "splitting counts nothing");
    }

    #[test]
    fn lines_with_other_values_are_remembered() {
        const FIRST: &str = "Host: a\r\nX: y\r\nB: c\r\n\r\n";
        for (next, expected) in [
            ("Host: a\r\nX: z\r\nB: c\r\n\r\n", Some(&["X: z"][..])),
            ("Host: a\r\nX: yy\r\nB:\r\n\r\n", Some(&["X: yy", "B:"])),
            ("Host: a\r\nx: y\r\nB: c\r\n\r\n", None),
            ("Host: a\r\nX: y\r\n\r\n", None),
            ("Host: a\r\nX: y\r\nB: c\r\nD: e\r\n\r\n", None),
            ("Host: a\r\nX: y\r\nX: y\r\n\r\n", None),
            ("\r\n", None),
        ] {
            let mut framing = framing();
            for fields in [FIRST, next] {
                let head = format!("GET / HTTP/1.1\r\n{fields}");
                assert!(framing.split_request(head.as_bytes()).is_some(), "{fields}");
            }
            let changed = framing.last_fields().changed_lines().map(Iterator::collect::<Vec<_>>);
            let expected =
                expected.map(|lines| lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
            assert_eq!(changed, expected, "{next}");
        }
        let many = |value| "A: b\r\n".replace('b', value).repeat(5);
        let mut framing = framing();
        for value in ["b", "c"] {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", many(value));
            assert!(framing.split_request(head.as_bytes()).is_some());
            assert!(framing.last_fields().changed_lines().is_none());
        }
    }

    #[test]
    fn other_heads_are_not_split_off() {
        let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "b".repeat(100));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9));
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1000));
        for head in [
            "",
            "GET /b HTTP/1.1\r\nHost: a\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\n\r",
            "GET /b HTTP/1.1\nHost: a\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\n\r\n",
            "GET /b HTTP/1.1\r\nHost: a\r\n\n",
            "GET /b HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET /#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nHost: a\r\n\r\n",
            "\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /b HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &long_target,
            &many,
            &large,
        ] {
            let mut fresh = framing();
            assert_eq!(fresh.split_request(head.as_bytes()), None, "{head:?}");
            let mut framing = framing();
            framing.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(framing.split_request(head.as_bytes()), None, "{head:?}");
            let last = framing.last_fields();
            assert_eq!((last.bytes(), last.number()), (&b"Host: a\r\n\r\n"[..], 1), "{head:?}");
        }
    }

    #[test]
    fn a_request_is_split_off_once_its_content_is_complete() {
        let mut framing = framing();
        framing.feed(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab");
        let next = b"POST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\ncdPOST";
        let request = CompleteRequest { line: b"POST /b HTTP/1.1", content: Some(b"cd") };
        assert_eq!(framing.split_request(next), Some((request, &b"POST"[..])));
        for missing in 5..9 {
            assert_eq!(framing.split_request(&next[..next.len() - missing]), None, "{missing}");
        }
        let longer = b"POST /b HTTP/1.1\r\nContent-Length: 12\r\n\r\n123456789012POST";
        let request = CompleteRequest { line: b"POST /b HTTP/1.1", content: Some(b"123456789012") };
        assert_eq!(framing.split_request(longer), Some((request, &b"POST"[..])));
        let spaced = b"POST /b HTTP/1.1\r\nContent-Length: 1 \r\n\r\nxPOST";
        let request = CompleteRequest { line: b"POST /b HTTP/1.1", content: Some(b"x") };
        assert_eq!(framing.split_request(spaced), Some((request, &b"POST"[..])));
        for length in ["", "+1", "1x", "1\r\nContent-Length: 1", "99999999999999999999"] {
            let other = format!("POST /b HTTP/1.1\r\nContent-Length: {length}\r\n\r\nx");
            assert_eq!(framing.split_request(other.as_bytes()), None, "{length}");
        }
        framing.feed(&next[..next.len() - 6]);
        assert_eq!((framing.head_count(), framing.expects_head()), (2, false));
        framing.feed(b"cdPOST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        let next = b"POST /c HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST";
        let request = CompleteRequest { line: b"POST /c HTTP/1.1", content: Some(b"") };
        assert_eq!(framing.split_request(next), Some((request, &b"POST"[..])));
        framing.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!((framing.split_request(chunked), framing.head_count()), (None, 4));
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

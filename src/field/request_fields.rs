//! The header fields of a request to an origin, as HTTP/1.1 lines.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forwarding::is_override;

/// The header fields of a request to an origin, as HTTP/1.1 lines.
///
/// Most requests are sent as written, without later changes. Lines take a third of the time of a
/// map, which hashes each name, and copies and drops each value.
#[derive(Debug, Clone, Default)]
pub struct RequestFields {
    /// `name: value` and CRLF for each field.
    lines: Vec<u8>,
    /// The position of the `Host` value in `lines`; empty without `Host`.
    host: Range<usize>,
    mentioned: u8,
    /// Offsets of the lines that HPACK must never index (RFC 7541 §7.1.3).
    sensitive: Vec<usize>,
}

/// The bit of `mentioned` for `Content-Length`. Bits for other fields follow.
const LENGTH: u8 = 1;
const UPGRADE: u8 = 1 << 1;
const CONTINUE: u8 = 1 << 2;
const TRAILER: u8 = 1 << 3;
const OVERRIDE: u8 = 1 << 4;

impl RequestFields {
    /// Creates an empty list with capacity for lines of this many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { lines: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends a field. Records only the presence of `Content-Length`, and drops
    /// `Transfer-Encoding`: the body decides its framing. Only the first `Host` counts.
    pub(crate) fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        match *name {
            header::HOST => return self.append_host(value.as_bytes()),
            header::CONTENT_LENGTH => return self.mentioned |= LENGTH,
            header::TRANSFER_ENCODING => return,
            header::UPGRADE => self.mentioned |= UPGRADE,
            header::TRAILER => self.mentioned |= TRAILER,
            header::EXPECT if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                self.mentioned |= CONTINUE;
            }
            _ if is_override(name.as_str()) => self.mentioned |= OVERRIDE,
            _ => {}
        }
        if value.is_sensitive() {
            self.sensitive.push(self.lines.len());
        }
        push_line(&mut self.lines, name, value.as_bytes());
    }

    /// Appends a field with this value, unless the value is empty or has bytes other than visible
    /// ASCII and spaces.
    pub(crate) fn append_visible(&mut self, name: &HeaderName, value: &str) {
        if is_visible(value) {
            push_line(&mut self.lines, name, value.as_bytes());
        }
    }

    /// Sets `Host` if the text is a possible value and no `Host` is set yet.
    pub(crate) fn set_host(&mut self, host: &str) {
        if is_visible(host) {
            self.append_host(host.as_bytes());
        }
    }

    fn append_host(&mut self, host: &[u8]) {
        if self.host.is_empty() {
            let start = self.lines.len() + header::HOST.as_str().len() + 2;
            self.host = start..start + host.len();
            push_line(&mut self.lines, &header::HOST, host);
        }
    }

    /// Appends all fields of another list, which must not contain `Host`.
    pub(crate) fn append_all(&mut self, other: &Self) {
        debug_assert!(other.host.is_empty());
        let start = self.lines.len();
        self.sensitive.extend(other.sensitive.iter().map(|line| start + line));
        self.mentioned |= other.mentioned;
        self.lines.extend_from_slice(&other.lines);
    }

    /// Returns the lines as HTTP/1.1 sends them.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Returns the value of `Host`; `None` without `Host`.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.lines.get(self.host.clone()).filter(|host| !host.is_empty())
    }

    /// Returns whether the request has a `Content-Length`.
    pub(crate) fn has_length(&self) -> bool {
        self.mentioned & LENGTH != 0
    }

    /// Returns whether the request has an `Upgrade`.
    pub(crate) fn has_upgrade(&self) -> bool {
        self.mentioned & UPGRADE != 0
    }

    /// Returns whether the request has an `Expect: 100-continue`.
    pub(crate) fn expects_continue(&self) -> bool {
        self.mentioned & CONTINUE != 0
    }

    /// Returns whether the request has a `Trailer`.
    pub(crate) fn announces_trailers(&self) -> bool {
        self.mentioned & TRAILER != 0
    }

    /// Returns whether a field may make origins read a different method or target.
    pub(crate) fn is_overridden(&self) -> bool {
        self.mentioned & OVERRIDE != 0
    }

    /// Returns the fields as a map. Costs a pass over all bytes.
    pub fn to_map(&self) -> HeaderMap {
        let lines = Bytes::copy_from_slice(&self.lines);
        let mut map = HeaderMap::new();
        let mut start = 0;
        while let Some((line, next)) = next_line(&lines, start) {
            if let Some((name, mut value)) = parse_line(&lines, line) {
                value.set_sensitive(self.sensitive.binary_search(&start).is_ok());
                map.append(name, value);
            }
            start = next;
        }
        map
    }

    /// Applies a change to the fields as a map. Costs two passes over all of them.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut HeaderMap)) {
        let mut map = self.to_map();
        change(&mut map);
        let has_length = self.has_length();
        *self = Self::from(&map);
        self.mentioned |= if has_length { LENGTH } else { 0 };
    }
}

impl From<&HeaderMap> for RequestFields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::default();
        let (host, others): (Vec<_>, Vec<_>) =
            map.iter().partition(|(name, _)| **name == header::HOST);
        for (name, value) in host.into_iter().chain(others) {
            fields.append(name, value);
        }
        fields
    }
}

fn is_visible(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn push_line(lines: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    lines.reserve(name.len() + value.len() + 4);
    for part in [name, b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

/// Returns the line that starts here, without CRLF, and the start of the next line.
fn next_line(lines: &[u8], start: usize) -> Option<(Range<usize>, usize)> {
    let length = lines.get(start..)?.iter().position(|byte| *byte == b'\n')?;
    Some((start..start + length.checked_sub(1)?, start + length + 1))
}

fn parse_line(lines: &Bytes, line: Range<usize>) -> Option<(HeaderName, HeaderValue)> {
    let text = lines.get(line.clone())?;
    let colon = text.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(text.get(..colon)?).ok()?;
    let value = lines.slice(line.start + colon + 2..line.end);
    Some((name, HeaderValue::from_maybe_shared(value).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> RequestFields {
        let mut fields = RequestFields::default();
        for (name, value) in lines {
            fields.append(&HeaderName::from_static(name), &HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn framing_is_left_to_the_body() {
        let fields = fields(&[
            ("accept", "*/*"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("x-empty", ""),
        ]);
        assert_eq!(fields.lines(), b"accept: */*\r\nx-empty: \r\n");
        assert!(fields.has_length() && !fields.has_upgrade() && !fields.is_overridden());
    }

    #[test]
    fn the_first_host_counts_and_none_that_is_not_one() {
        let mut fields = fields(&[("accept", "*/*"), ("host", "a.test")]);
        fields.set_host("b.test");
        assert_eq!(fields.host(), Some(&b"a.test"[..]));
        let mut none = RequestFields::default();
        none.set_host("");
        none.set_host("a\r\nevil: 1");
        assert!(none.host().is_none() && none.lines().is_empty());
    }

    #[test]
    fn what_an_exchange_depends_on_is_noted() {
        let of = |name, value| fields(&[(name, value)]);
        assert!(of("upgrade", "websocket").has_upgrade());
        assert!(of("expect", "100-Continue").expects_continue());
        assert!(!of("expect", "other").expects_continue());
        assert!(of("trailer", "a").announces_trailers());
        assert!(of("x-original-url", "/a").is_overridden());
        assert!(!of("x-original-host", "a").is_overridden());
    }

    #[test]
    fn a_change_keeps_everything_else() {
        let mut fields = fields(&[("a", "1"), ("host", "a.test"), ("content-length", "7")]);
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        fields.append(&header::AUTHORIZATION, &secret);
        fields.change(|map| drop(map.remove("a")));
        assert_eq!(fields.lines(), b"host: a.test\r\nauthorization: s\r\n");
        assert!(fields.has_length());
        assert!(fields.to_map()[header::AUTHORIZATION].is_sensitive());
        assert!(!fields.to_map()[header::HOST].is_sensitive());
    }

    proptest! {
        #[test]
        fn a_map_is_read_back_as_it_was(
            lines in proptest::collection::vec(("[a-z][a-z0-9-]{0,12}", "[ -~\t\u{80}-\u{ff}]{0,20}", any::<bool>()), 0..12)
        ) {
            let mut map = HeaderMap::new();
            for (name, value, is_sensitive) in lines {
                let mut value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                value.set_sensitive(is_sensitive);
                map.append(HeaderName::try_from(name).unwrap(), value);
            }
            let read = RequestFields::from(&map).to_map();
            prop_assert_eq!(&read, &map);
            for (name, value) in &map {
                let same = read.get_all(name).iter().any(|it| it.is_sensitive() == value.is_sensitive());
                prop_assert!(same);
            }
        }
    }
}

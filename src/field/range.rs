//! Byte ranges: `Range`, `Content-Range` and `If-Range` (RFC 9110 §14, §13.1.5).

use http::{HeaderMap, HeaderValue, header};

use super::{EntityTag, Timestamp, coding, entity_tag::Strength, list};

/// A parsed `Range` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    /// The complete representation, because the field is absent, malformed or in an unknown unit.
    Complete,
    /// One byte range.
    Single(RangeSpec),
    /// Several byte ranges.
    Several,
}

/// One range as written by the client, before the length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last`, both inclusive; `last` is not less than `first`.
    Between(u64, u64),
    /// `first-`.
    From(u64),
    /// `-length`: that many bytes at the end.
    Suffix(u64),
}

/// A byte range within a representation; both ends are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

impl RangeRequest {
    /// Parses `Range`. Several field lines count as malformed.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(header::RANGE).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => Self::parse_value(line.as_bytes()),
            _ => Self::Complete,
        }
    }

    /// Parses the value of `Range`.
    pub fn parse_value(value: &[u8]) -> Self {
        let Some((unit, ranges)) = split_once(value, b'=') else {
            return Self::Complete;
        };
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return Self::Complete;
        }
        let mut request = Self::Complete;
        for member in list::split(ranges).filter(|member| !member.is_empty()) {
            let Some(spec) = RangeSpec::parse(member) else {
                return Self::Complete;
            };
            request = match request {
                Self::Complete => Self::Single(spec),
                Self::Single(_) | Self::Several => Self::Several,
            };
        }
        request
    }
}

impl RangeSpec {
    fn parse(member: &[u8]) -> Option<Self> {
        let (first, last) = split_once(member, b'-')?;
        match (first, last) {
            ([], last) => Some(Self::Suffix(number(last)?)),
            (first, []) => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// Returns the range within a representation of this length, or `None` if it contains no byte.
    pub fn resolve(self, length: u64) -> Option<ByteRange> {
        let end = length.checked_sub(1)?;
        let (first, last) = match self {
            Self::Between(first, last) => (first, last.min(end)),
            Self::From(first) => (first, end),
            Self::Suffix(0) => return None,
            Self::Suffix(wanted) => (length.saturating_sub(wanted), end),
        };
        (first <= last).then_some(ByteRange { first, last })
    }
}

impl ByteRange {
    /// Returns the offset of the first byte.
    pub fn first(self) -> u64 {
        self.first
    }

    /// Returns the offset of the last byte.
    pub fn last(self) -> u64 {
        self.last
    }

    /// Returns the number of bytes, at least one.
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// Returns the `Content-Range` for a 206 that contains this range of a representation.
    pub fn content_range(self, complete_length: u64) -> HeaderValue {
        let text = format!("bytes {}-{}/{complete_length}", self.first, self.last);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */0"))
    }
}

/// Returns the `Content-Range` of a 416 for a representation of this length.
pub(crate) fn unsatisfied_content_range(complete_length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{complete_length}"))
        .unwrap_or(HeaderValue::from_static("bytes */0"))
}

/// A parsed `Content-Range` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The range of the content; `None` in a 416.
    pub range: Option<ByteRange>,
    /// The length of the complete representation, if known.
    pub complete_length: Option<u64>,
}

impl ContentRange {
    /// Parses the value of `Content-Range`; `None` if it is malformed or contradicts itself.
    pub fn parse_value(value: &[u8]) -> Option<Self> {
        let (unit, rest) = split_once(value, b' ')?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let (range, length) = split_once(rest, b'/')?;
        let complete_length = if length == b"*" { None } else { Some(number(length)?) };
        if range == b"*" {
            return complete_length.map(|_| Self { range: None, complete_length });
        }
        let (first, last) = split_once(range, b'-')?;
        let (first, last) = (number(first)?, number(last)?);
        let fits = complete_length.is_none_or(|length| last < length);
        (first <= last && fits)
            .then_some(Self { range: Some(ByteRange { first, last }), complete_length })
    }
}

/// The result of evaluating `If-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfRange {
    /// `Range` applies: there is no condition, or it holds.
    Holds,
    /// `Range` does not apply: respond with the complete representation.
    Fails,
}

impl IfRange {
    /// Compares the request's `If-Range` with the validators of a stored response.
    ///
    /// Tags are compared strongly. A date must equal `Last-Modified`, which must be a strong
    /// validator: a second or more before `Date` (RFC 9110 §8.8.2.2), and not shared by several
    /// codings (§8.8.1).
    pub(crate) fn evaluate(request: &HeaderMap, stored: &HeaderMap) -> Self {
        let Some(condition) = request.get(header::IF_RANGE) else {
            return Self::Holds;
        };
        let holds = match Timestamp::parse_http_date(condition.as_bytes()) {
            Some(date) => is_strong_date(date, stored),
            None => is_strong_tag(condition, stored),
        };
        if holds { Self::Holds } else { Self::Fails }
    }
}

/// Removes `Range` and `If-Range` if `If-Range` is a date: servers may trust a weak date.
pub(crate) fn remove_dated(request: &mut HeaderMap) {
    let condition = request.get(header::IF_RANGE).map(HeaderValue::as_bytes);
    if condition.and_then(Timestamp::parse_http_date).is_some() {
        request.remove(header::IF_RANGE);
        request.remove(header::RANGE);
    }
}

fn is_strong_tag(condition: &HeaderValue, stored: &HeaderMap) -> bool {
    let stored = stored.get(header::ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()));
    let asked = EntityTag::parse(condition.as_bytes());
    match (asked, stored) {
        (Some(asked), Some(stored)) => {
            asked.strength() == Strength::Strong && asked.matches_strongly(stored)
        }
        _ => false,
    }
}

fn is_strong_date(asked: Timestamp, stored: &HeaderMap) -> bool {
    let date = |name| {
        let value: &HeaderValue = stored.get(name)?;
        Timestamp::parse_http_date(value.as_bytes())
    };
    match (date(header::LAST_MODIFIED), date(header::DATE)) {
        (Some(modified), Some(sent)) => {
            modified == asked && modified < sent && !coding::is_negotiated(stored)
        }
        _ => false,
    }
}

/// Splits at the first occurrence of a byte.
fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let mut parts = text.splitn(2, |byte| *byte == at);
    Some((parts.next()?, parts.next()?))
}

/// Parses decimal digits; saturates beyond 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn single(text: &str, length: u64) -> Option<(u64, u64)> {
        match RangeRequest::parse_value(text.as_bytes()) {
            RangeRequest::Single(spec) => {
                spec.resolve(length).map(|range| (range.first(), range.last()))
            }
            _ => panic!("{text} is not a single range"),
        }
    }

    #[test]
    fn single_ranges_resolve_within_the_length() {
        assert_eq!(single("bytes=0-1", 11), Some((0, 1)));
        assert_eq!(single("bytes=1-", 11), Some((1, 10)));
        assert_eq!(single("Bytes=-1", 11), Some((10, 10)));
        assert_eq!(single("bytes=-50", 11), Some((0, 10)));
        assert_eq!(single("bytes=5-500", 11), Some((5, 10)));
        assert_eq!(single("bytes=11-", 11), None);
        assert_eq!(single("bytes=-0", 11), None);
        assert_eq!(single("bytes=0-", 0), None);
        assert_eq!(single("bytes=-5", 0), None);
        assert_eq!(single("bytes=0-99999999999999999999999", 11), Some((0, 10)));
    }

    #[test]
    fn what_is_broken_or_not_in_bytes_asks_for_everything() {
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=5-1",
            "bytes=a-b",
            "bytes=-",
            "bytes= 0 - 1",
            "bytes=0-1,x",
            "bytes=1-2-3",
            "bytes=+1-2",
        ] {
            assert_eq!(
                RangeRequest::parse_value(text.as_bytes()),
                RangeRequest::Complete,
                "{text}"
            );
        }
        assert_eq!(RangeRequest::parse_value(b"bytes=0-1, 4-5"), RangeRequest::Several);
    }

    #[test]
    fn content_ranges_read_and_write() {
        let range = RangeSpec::Between(4, 9).resolve(10).unwrap();
        assert_eq!(range.content_range(10), "bytes 4-9/10");
        assert_eq!(unsatisfied_content_range(10), "bytes */10");
        let parsed = ContentRange::parse_value(b"bytes 4-9/10").unwrap();
        assert_eq!(parsed, ContentRange { range: Some(range), complete_length: Some(10) });
        let unknown = ContentRange::parse_value(b"bytes 4-9/*").unwrap();
        assert_eq!(unknown.complete_length, None);
        assert_eq!(ContentRange::parse_value(b"bytes */10").unwrap().range, None);
        for text in ["bytes 9-4/10", "bytes 4-10/10", "bytes */*", "bytes 4-9", "items 4-9/10", ""]
        {
            assert_eq!(ContentRange::parse_value(text.as_bytes()), None, "{text}");
        }
    }

    fn if_range(condition: &'static str, stored: &[(HeaderName, &'static str)]) -> IfRange {
        let mut request = HeaderMap::new();
        request.insert(header::IF_RANGE, HeaderValue::from_static(condition));
        let stored = stored
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        IfRange::evaluate(&request, &stored)
    }

    #[test]
    fn if_range_wants_strong_validators() {
        let tag = [(header::ETAG, "\"a\"")];
        assert_eq!(if_range("\"a\"", &tag), IfRange::Holds);
        assert_eq!(if_range("\"b\"", &tag), IfRange::Fails);
        assert_eq!(if_range("W/\"a\"", &[(header::ETAG, "W/\"a\"")]), IfRange::Fails);
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        let dated =
            [(header::LAST_MODIFIED, modified), (header::DATE, "Sun, 06 Nov 1994 08:49:38 GMT")];
        assert_eq!(if_range(modified, &dated), IfRange::Holds);
        assert_eq!(if_range("Sun, 06 Nov 1994 08:49:36 GMT", &dated), IfRange::Fails);
        let weak = [(header::LAST_MODIFIED, modified), (header::DATE, modified)];
        assert_eq!(if_range(modified, &weak), IfRange::Fails);
        for (vary, expected) in
            [("Origin, accept-encoding", IfRange::Fails), ("Origin", IfRange::Holds)]
        {
            let shared = [&dated[..], &[(header::VARY, vary)]].concat();
            assert_eq!(if_range(modified, &shared), expected, "{vary}");
        }
        assert_eq!(IfRange::evaluate(&HeaderMap::new(), &HeaderMap::new()), IfRange::Holds);
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_within(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", length in any::<u64>()) {
            if let RangeRequest::Single(spec) = RangeRequest::parse_value(text.as_bytes())
                && let Some(range) = spec.resolve(length)
            {
                prop_assert!(range.first() <= range.last() && range.last() < length);
                prop_assert!(range.len() >= 1 && range.len() <= length);
            }
        }

        #[test]
        fn a_written_content_range_reads_back(first in 0..1000u64, more in 0..1000u64, rest in 0..9u64) {
            let length = first + more + 1 + rest;
            let range = RangeSpec::Between(first, first + more).resolve(length).unwrap();
            let read = ContentRange::parse_value(range.content_range(length).as_bytes()).unwrap();
            prop_assert_eq!(read, ContentRange { range: Some(range), complete_length: Some(length) });
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = RangeRequest::parse_value(&text);
            let _ = ContentRange::parse_value(&text);
        }
    }
}

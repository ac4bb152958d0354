//! Timestamps, and the HTTP-date grammar (RFC 9110 §5.6.7).

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use jiff::civil::{Date, date};

/// A wall-clock instant: milliseconds since the Unix epoch.
///
/// Modules without I/O never read a clock: callers pass the current time as `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the instant this many milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the instant this many whole seconds after the epoch; saturates.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns the milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the epoch.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Returns the time from `earlier` to this instant, or zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns the instant that is `by` later; saturates.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the instant that is `by` earlier; saturates at the epoch.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Parses an HTTP-date in any of its three formats (RFC 9110 §5.6.7).
    ///
    /// Names are case-insensitive, and the weekday need not match the date. A two-digit year below
    /// 77 is in this century. A date before 1970 becomes the epoch.
    pub fn parse_http_date(text: &[u8]) -> Option<Self> {
        let date = imf_fixdate(text).or_else(|| rfc850(text)).or_else(|| asctime(text))?;
        date.timestamp()
    }

    /// Formats this instant as an IMF-fixdate, in whole seconds, at most the year 9999.
    pub fn to_http_date(self) -> HeaderValue {
        let seconds = self.seconds().min(LAST_HTTP_SECOND);
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        HeaderValue::try_from(text)
            .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
    }
}

/// Formats an instant by RFC 3339, in UTC with milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = i64::try_from(self.0.millis()).map(jiff::Timestamp::from_millisecond);
        write!(to, "{:.3}", instant.ok().and_then(Result::ok).unwrap_or(jiff::Timestamp::MAX))
    }
}

/// The last second of the year 9999. Later years have more than four digits.
const LAST_HTTP_SECOND: u64 = 253_402_300_799;

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

const SHORT_DAYS: [&[u8]; 7] = [b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun"];

const LONG_DAYS: [&[u8]; 7] =
    [b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday"];

/// A calendar date and time of day in UTC, as written.
struct CalendarDate {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl CalendarDate {
    /// Returns the instant, or `None` if the date does not exist, such as February 30.
    fn timestamp(&self) -> Option<Timestamp> {
        let (year, month) = (i16::try_from(self.year).ok()?, i8::try_from(self.month).ok()?);
        let day = Date::new(year, month, i8::try_from(self.day).ok()?).ok()?;
        let midnight = u64::try_from(day.duration_since(date(1970, 1, 1)).as_secs());
        let instant = midnight.map_or(0, |midnight| midnight + self.second_of_day);
        Some(Timestamp::from_seconds(instant))
    }
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(text: &[u8]) -> Option<CalendarDate> {
    let mut parser = DateParser(text);
    parser.name(&SHORT_DAYS)?;
    parser.literal(b", ")?;
    let day = parser.number(2)?;
    parser.literal(b" ")?;
    let month = parser.name(&MONTHS)?;
    parser.literal(b" ")?;
    let year = parser.number(4)?;
    parser.literal(b" ")?;
    let second_of_day = parser.time_of_day()?;
    parser.literal(b" gmt")?;
    parser.end(CalendarDate { year, month, day, second_of_day })
}

/// Parses `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(text: &[u8]) -> Option<CalendarDate> {
    let mut parser = DateParser(text);
    parser.name(&LONG_DAYS)?;
    parser.literal(b", ")?;
    let day = parser.number(2)?;
    parser.literal(b"-")?;
    let month = parser.name(&MONTHS)?;
    parser.literal(b"-")?;
    let short_year = parser.number(2)?;
    let year = if short_year < 77 { 2000 + short_year } else { 1900 + short_year };
    parser.literal(b" ")?;
    let second_of_day = parser.time_of_day()?;
    parser.literal(b" gmt")?;
    parser.end(CalendarDate { year, month, day, second_of_day })
}

/// Parses `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &[u8]) -> Option<CalendarDate> {
    let mut parser = DateParser(text);
    parser.name(&SHORT_DAYS)?;
    parser.literal(b" ")?;
    let month = parser.name(&MONTHS)?;
    parser.literal(b" ")?;
    let day = if parser.literal(b" ").is_some() { parser.number(1)? } else { parser.number(2)? };
    parser.literal(b" ")?;
    let second_of_day = parser.time_of_day()?;
    parser.literal(b" ")?;
    let year = parser.number(4)?;
    parser.end(CalendarDate { year, month, day, second_of_day })
}

struct DateParser<'a>(&'a [u8]);

impl DateParser<'_> {
    /// Consumes exactly these bytes, ignoring case; `None` if the text differs.
    fn literal(&mut self, expected: &[u8]) -> Option<()> {
        let (head, tail) = self.0.split_at_checked(expected.len())?;
        if !head.eq_ignore_ascii_case(expected) {
            return None;
        }
        self.0 = tail;
        Some(())
    }

    /// Consumes one of these names. Returns its position in the list, counted from one.
    fn name(&mut self, names: &[&[u8]]) -> Option<u64> {
        for (place, name) in (1..).zip(names) {
            if self.literal(name).is_some() {
                return Some(place);
            }
        }
        None
    }

    /// Consumes exactly this many decimal digits.
    fn number(&mut self, digits: usize) -> Option<u64> {
        let (head, tail) = self.0.split_at_checked(digits)?;
        let mut number = 0;
        for byte in head {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + u64::from(byte - b'0');
        }
        self.0 = tail;
        Some(number)
    }

    /// Consumes `hh:mm:ss`. A leap second becomes the start of the next minute.
    fn time_of_day(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.literal(b":")?;
        let minute = self.number(2)?;
        self.literal(b":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some((hour * 60 + minute) * 60 + second)
    }

    /// Returns the date if no text remains, else `None`.
    fn end(self, date: CalendarDate) -> Option<CalendarDate> {
        self.0.is_empty().then_some(date)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<u64> {
        Timestamp::parse_http_date(text.as_bytes()).map(Timestamp::seconds)
    }

    #[test]
    fn a_leap_day_and_a_new_year_are_dated_right() {
        let at = |seconds| Rfc3339(Timestamp::from_seconds(seconds)).to_string();
        assert_eq!(at(1_709_164_800), "2024-02-29T00:00:00.000Z");
        assert_eq!(at(1_735_689_600), "2025-01-01T00:00:00.000Z");
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn the_three_formats_name_one_instant() {
        let expected = Some(784_111_777);
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), expected);
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), expected);
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), expected);
        assert_eq!(parse("Sun Nov 16 08:49:37 1994"), Some(784_975_777));
    }

    #[test]
    fn names_are_case_insensitive_and_the_weekday_is_ignored() {
        let expected = Some(784_111_777);
        assert_eq!(parse("SUN, 06 NOV 1994 08:49:37 gMT"), expected);
        assert_eq!(parse("Mon, 06 nov 1994 08:49:37 GMT"), expected);
    }

    #[test]
    fn a_two_digit_year_below_77_is_in_this_century() {
        assert_eq!(
            parse("Thursday, 18-Aug-50 02:01:18 GMT"),
            parse("Thu, 18 Aug 2050 02:01:18 GMT")
        );
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 30 Feb 2050 02:01:18 GMT",
            "Thu, 00 Jan 2050 02:01:18 GMT",
            "Thu, 29 Feb 2100 02:01:18 GMT",
            "Thu, +1 Jan 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 +0000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn dates_before_the_epoch_are_the_epoch() {
        assert_eq!(parse("Thu, 01 Jan 1960 00:00:00 GMT"), Some(0));
        assert_eq!(parse("Sat, 01 Jan 0000 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn formatting_never_leaves_four_digit_years() {
        let date = Timestamp::from_millis(u64::MAX).to_http_date();
        assert_eq!(date, "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn a_formatted_date_reads_back(seconds in 0..=LAST_HTTP_SECOND) {
            let instant = Timestamp::from_seconds(seconds);
            let text = instant.to_http_date();
            prop_assert_eq!(Timestamp::parse_http_date(text.as_bytes()), Some(instant));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Timestamp::parse_http_date(&text);
        }
    }
}

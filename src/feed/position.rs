//! Positions in the feed, as clients send them.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
};

/// The position at which a client resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResumePosition {
    /// Resume after this record of the current log.
    Seq(u64),
    /// Resume after this record of this log.
    Position(Fence),
    /// Resume at the first record at or after this time.
    Time(Timestamp),
    /// The client sent an id that is not from Larder.
    Foreign,
}

/// Displays a position with its log: the sequence number, `-`, and the log id in 16 hexadecimal
/// digits.
pub(super) struct PositionToken(pub(super) Fence);

impl fmt::Display for PositionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{:016x}", self.0.seq, self.0.log.0)
    }
}

impl ResumePosition {
    /// Parses a sequence number, a [`PositionToken`], or a time (RFC 3339).
    pub(super) fn parse(text: &str) -> Option<Self> {
        number(text).map(Self::Seq).or_else(|| position(text)).or_else(|| time(text))
    }

    /// Parses the parameter `since` in a query. Returns `None` if it is absent or empty.
    pub(super) fn of_query(query: Option<&str>) -> Result<Option<Self>, InvalidSince> {
        let Some(value) = query.unwrap_or_default().split('&').find_map(value_of_since) else {
            return Ok(None);
        };
        // A plus sign is literal: times contain it, and no value contains spaces.
        let text = percent_decode_str(value).decode_utf8().map_err(|_| InvalidSince)?;
        if text.is_empty() {
            return Ok(None);
        }
        Self::parse(&text).map(Some).ok_or(InvalidSince)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidSince;

fn value_of_since(pair: &str) -> Option<&str> {
    pair.strip_prefix("since=")
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn position(text: &str) -> Option<ResumePosition> {
    let (seq, log) = text.split_once('-')?;
    let is_log = log.len() == 16 && log.bytes().all(|byte| byte.is_ascii_hexdigit());
    let log = is_log.then(|| u64::from_str_radix(log, 16).ok()).flatten()?;
    Some(ResumePosition::Position(Fence { log: LogId(log), seq: number(seq)? }))
}

fn time(text: &str) -> Option<ResumePosition> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let millis = u64::try_from(time.as_millisecond()).unwrap_or_default();
    Some(ResumePosition::Time(Timestamp::from_millis(millis)))
}

/// Formats a time by RFC 3339, with milliseconds.
pub(super) fn to_rfc3339(time: Timestamp) -> String {
    let millis = i64::try_from(time.millis()).unwrap_or(i64::MAX);
    format!("{:.3}", jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_send_positions_as_number_token_or_time() {
        let position = Fence { log: LogId(0xabc), seq: 12 };
        assert_eq!(ResumePosition::parse("12"), Some(ResumePosition::Seq(12)));
        assert_eq!(
            ResumePosition::parse("12-0000000000000abc"),
            Some(ResumePosition::Position(position))
        );
        let time = Some(ResumePosition::Time(Timestamp::from_millis(1_768_024_230_500)));
        assert_eq!(ResumePosition::parse("2026-01-10T05:50:30.5Z"), time);
        assert_eq!(ResumePosition::parse("2026-01-10T06:50:30.5+01:00"), time);
        for wrong in ["", "-1", "+1", "1-", "12-abc", "12-000000000000xabc", "yesterday"] {
            assert_eq!(ResumePosition::parse(wrong), None, "{wrong}");
        }
        assert_eq!(ResumePosition::parse("99999999999999999999999"), None);
    }

    #[test]
    fn the_query_may_contain_a_position() {
        let of = ResumePosition::of_query;
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some("since=")), Ok(None));
        assert_eq!(of(Some("a=b&since=7")), Ok(Some(ResumePosition::Seq(7))));
        let time = Ok(Some(ResumePosition::Time(Timestamp::from_millis(1_768_024_230_000))));
        assert_eq!(of(Some("since=2026-01-10T06:50:30+01:00")), time);
        assert_eq!(of(Some("since=2026-01-10T06%3A50%3A30%2B01:00")), time);
        assert_eq!(of(Some("since=soon")), Err(InvalidSince));
        assert_eq!(of(Some("since=%ff")), Err(InvalidSince));
    }

    #[test]
    fn times_are_written_to_the_millisecond() {
        let time = Timestamp::from_millis(1_768_024_230_050);
        assert_eq!(to_rfc3339(time), "2026-01-10T05:50:30.050Z");
        assert!(to_rfc3339(Timestamp::from_millis(u64::MAX)).starts_with("9999-"));
    }

    proptest! {
        #[test]
        fn a_token_contains_its_position(log in any::<u64>(), seq in any::<u64>()) {
            let position = Fence { log: LogId(log), seq };
            prop_assert_eq!(ResumePosition::parse(&PositionToken(position).to_string()), Some(ResumePosition::Position(position)));
        }

        #[test]
        fn no_text_causes_a_panic(text in any::<String>()) {
            let _ = ResumePosition::of_query(Some(&format!("since={text}")));
            let _ = ResumePosition::parse(&text);
        }
    }
}

//! Times in access logs.

use jiff::{Timestamp, civil};

/// Parses a time in a format of nginx or Larder. Returns milliseconds since 1970.
///
/// The formats are `$time_local` (`10/Oct/2026:13:55:36 -0700`), `$time_iso8601` or RFC 3339, and
/// `$msec`. Numbers above 10¹¹ are milliseconds.
pub(super) fn parse(text: &str) -> Option<i64> {
    match text.as_bytes() {
        [_, _, b'/', ..] => local(text),
        [_, _, _, _, b'-', ..] => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
        _ => numeric(text),
    }
}

fn local(text: &str) -> Option<i64> {
    let (day, rest) = text.split_once('/')?;
    let (month, rest) = rest.split_once('/')?;
    let (year, rest) = rest.split_once(':')?;
    let (clock, zone) = rest.split_once(' ')?;
    let mut clock = clock.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let (year, day) = (year.parse().ok()?, day.parse().ok()?);
    let time = civil::DateTime::new(year, month_number(month)?, day, hour, minute, second, 0);
    let time = time.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    Some(time - offset(zone)?)
}

fn month_number(name: &str) -> Option<i8> {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let position = NAMES.iter().position(|known| *known == name)?;
    i8::try_from(position + 1).ok()
}

/// Returns the milliseconds of an offset such as `-0700`.
fn offset(zone: &str) -> Option<i64> {
    let (sign, digits) = zone.split_at_checked(1)?;
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    match sign {
        "+" => Some(minutes * 60_000),
        "-" => Some(-minutes * 60_000),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and is checked")]
fn numeric(text: &str) -> Option<i64> {
    let number: f64 = text.parse().ok()?;
    let millis = if number > 1e11 { number } else { number * 1e3 };
    (1e11..1e14).contains(&millis).then_some(millis as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_time_are_read() {
        for text in [
            "28/Feb/2024:23:59:59 +0000",
            "29/Feb/2024:01:29:59 +0130",
            "2024-02-28T23:59:59+00:00",
            "2024-02-28T23:59:59.000Z",
            "1709164799.000",
            "1709164799",
            "1709164799000",
        ] {
            assert_eq!(parse(text), Some(1_709_164_799_000), "{text}");
        }
        for text in ["", "-", "31/Feb/2024:00:00:00 +0000", "99/Xyz/1:1:1 +0", "12", "1e400", "NaN"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

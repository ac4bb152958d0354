//! Cron expressions in a time zone. Pure.

use std::{fmt, ops::Range};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Zoned,
    tz::{TimeZone, TimeZoneDatabase},
};
use thiserror::Error;

use crate::field::Timestamp;

/// The default time zone of schedules.
pub(crate) const DEFAULT_ZONE: &str = "UTC";

/// A cron expression in a time zone of the IANA database.
///
/// The expression has five fields as in Vixie cron, with `L`, `W` and `#`, or is a nickname such as
/// `@daily`.
///
/// When clocks go forward, a fixed time in the gap is due at the first moment after the gap, and
/// repeating times (`*/10`, `*`) in the gap are skipped. When clocks go back, a fixed time is due
/// once, at its first occurrence, and repeating times are due in both hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronExpression {
    cron: Cron,
    zone: TimeZone,
    text: Box<str>,
}

/// A syntax error in a cron expression, with its position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct CronError {
    pub problem: CronProblem,
    /// The position in the text, in bytes.
    pub at: Range<usize>,
}

/// The kinds of errors in a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CronProblem {
    /// The expression does not have five fields.
    #[error("a cron expression has five fields, not {0}")]
    Count(usize),
    /// A field is invalid.
    #[error("invalid {}: expected {}", .0.name, .0.allowed)]
    Field(&'static CronField),
    /// The nickname is unknown.
    #[error("unknown nickname")]
    Nickname,
    /// The expression names a day that no year has.
    #[error("there is no such day in any year")]
    Never,
}

/// A field of a cron expression.
#[derive(Debug, PartialEq, Eq)]
pub struct CronField {
    /// The name of the field.
    pub name: &'static str,
    /// The allowed values.
    pub allowed: &'static str,
    words: &'static [&'static str],
}

/// The fields of a cron expression, in order.
const FIELDS: [CronField; 5] = [
    CronField { name: "minute", allowed: "`0` to `59`, `*`, `1-5`, `*/10`, or a list", words: &[] },
    CronField { name: "hour", allowed: "`0` to `23`, `*`, `9-17`, `*/2`, or a list", words: &[] },
    CronField {
        name: "day of the month",
        allowed: "`1` to `31`, `*`, `L`, `15W`, `*/2`, or a list",
        words: &["L", "W", "LW"],
    },
    CronField {
        name: "month",
        allowed: "`1` to `12`, `JAN` to `DEC`, `*`, `3-5`, `*/3`, or a list",
        words: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
    },
    CronField {
        name: "day of the week",
        allowed: "`0` to `7`, `SUN` to `SAT`, `*`, `MON-FRI`, `FRI#1`, `FRIL`, or a list",
        words: &[
            "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L", "SUNL", "MONL", "TUEL", "WEDL",
            "THUL", "FRIL", "SATL",
        ],
    },
];

/// The supported nicknames.
pub(crate) const NICKNAMES: [&str; 6] =
    ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

impl CronExpression {
    /// Parses a cron expression in this time zone.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, CronError> {
        let whole = |problem| CronError { problem, at: 0..text.len() };
        if text.trim_start().starts_with('@') {
            let is_known = |name: &str| name.eq_ignore_ascii_case(text.trim());
            if !NICKNAMES.iter().any(|name| is_known(name)) {
                return Err(whole(CronProblem::Nickname));
            }
        } else {
            check_fields(text)?;
        }
        let cron = parser().parse(text).map_err(|_| whole(CronProblem::Never))?;
        let cron = Self { cron, zone, text: text.trim().into() };
        // A leap day falls on a given weekday at least once in 40 years.
        match cron.next_after(Timestamp::from_seconds(1_577_836_800)) {
            Some(_) => Ok(cron),
            None => Err(whole(CronProblem::Never)),
        }
    }

    /// Returns the first due time after `now`, to the second. `None` if no time is due before the
    /// year 5000.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.cron.find_next_occurrence(&self.local(now)?, false).ok()?;
        instant(&due)
    }

    /// Returns the last due time up to and including `now`. `None` if no time was due since 1970.
    pub fn last_until(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.cron.find_previous_occurrence(&self.local(now)?, true).ok()?;
        instant(&due)
    }

    /// Returns the cron expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name of the time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or(DEFAULT_ZONE)
    }

    fn local(&self, at: Timestamp) -> Option<Zoned> {
        let seconds = i64::try_from(at.seconds()).ok()?;
        Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.text, self.zone())
    }
}

/// Looks up a time zone in the system's database, else in the built-in one, else returns `None`.
pub(crate) fn time_zone(name: &str) -> Option<TimeZone> {
    let zone = jiff::tz::db().get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).ok()?;
    zone.iana_name().is_some().then_some(zone)
}

/// Returns the names of all time zones.
pub(crate) fn time_zones() -> Vec<String> {
    TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect()
}

fn instant(local: &Zoned) -> Option<Timestamp> {
    u64::try_from(local.timestamp().as_second()).ok().map(Timestamp::from_seconds)
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

/// Checks each field of a cron expression separately.
fn check_fields(text: &str) -> Result<(), CronError> {
    let given: Vec<&str> = text.split_whitespace().collect();
    if given.len() != FIELDS.len() {
        return Err(CronError { problem: CronProblem::Count(given.len()), at: 0..text.len() });
    }
    for (index, (field, given)) in FIELDS.iter().zip(given).enumerate() {
        let alone: Vec<&str> =
            (0..FIELDS.len()).map(|at| if at == index { given } else { "*" }).collect();
        if !field.has_known_words_only(given) || parser().parse(&alone.join(" ")).is_err() {
            let start = given.as_ptr().addr() - text.as_ptr().addr();
            let at = start..start + given.len();
            return Err(CronError { problem: CronProblem::Field(field), at });
        }
    }
    Ok(())
}

impl CronField {
    /// Returns whether the field has only known words and no empty list element. The parser itself
    /// accepts day and month names in any field, and empty elements.
    fn has_known_words_only(&self, text: &str) -> bool {
        let is_known = |word: &str| {
            word.is_empty() || self.words.iter().any(|known| known.eq_ignore_ascii_case(word))
        };
        text.split(|character: char| !character.is_alphabetic()).all(is_known)
            && text.split(',').all(|element| !element.is_empty())
    }
}

#[cfg(test)]
mod tests;

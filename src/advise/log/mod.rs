//! Lines of access logs.

mod combined;
mod json;
mod larder;
mod record;
mod time;

pub(super) use record::{LineError, LoggedQuery, LoggedRequest, digest};

/// Parses a line in the format that its first character suggests.
pub(super) fn parse(line: &str) -> Result<LoggedRequest<'_>, LineError> {
    let line = line.trim();
    match line.as_bytes() {
        [b'{', ..] => json::parse(line),
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', ..] => larder::parse(line),
        _ => combined::parse(line),
    }
}

//! The messages that end a lease: the digest of a key, and the result of its fetch.

use std::borrow::Cow;

use http::StatusCode;

use super::keys;
use crate::store::{LeaseResult, OriginFailure};

/// Parses a message into the digest and the result of its fetch. Returns `None` if malformed.
pub(super) fn parse(message: &str) -> Option<(u128, LeaseResult)> {
    let (digest, result) = message.split_once(' ')?;
    let mut parts = result.split(' ');
    let result = match (parts.next()?, parts.next()) {
        ("stored", None) => LeaseResult::Stored,
        ("alone", None) => LeaseResult::NotShareable,
        ("nothing", None) => LeaseResult::Abandoned,
        (kind @ ("failed" | "disconnected"), Some(status)) => {
            let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
            let retry_after = parts.next().map(str::parse).transpose().ok()?;
            let is_disconnected = kind == "disconnected";
            LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected })
        }
        _ => return None,
    };
    Some((u128::from_str_radix(digest, 16).ok()?, result))
}

/// Formats a message. Nodes that run older releases ignore unknown results, and wait until the
/// lease has expired.
pub(super) fn format(digest: u128, result: LeaseResult) -> String {
    let result: Cow<'static, str> = match result {
        LeaseResult::Stored => "stored".into(),
        LeaseResult::NotShareable => "alone".into(),
        LeaseResult::Abandoned => "nothing".into(),
        LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected }) => {
            let kind = if is_disconnected { "disconnected" } else { "failed" };
            let seconds = retry_after.map(|seconds| format!(" {seconds}")).unwrap_or_default();
            format!("{kind} {}{seconds}", status.as_str()).into()
        }
    };
    format!("{} {result}", keys::hex(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let failed = |status, retry_after, is_disconnected| {
            let status = StatusCode::from_u16(status).unwrap();
            LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected })
        };
        for result in [
            LeaseResult::Stored,
            LeaseResult::NotShareable,
            LeaseResult::Abandoned,
            failed(502, None, true),
            failed(503, Some(30), false),
        ] {
            assert_eq!(parse(&format(7, result)), Some((7, result)));
        }
        for strange in
            ["", "7", "x stored", "00 lost", " stored", "7 failed", "7 failed x", "7 failed 503 x"]
        {
            assert_eq!(parse(strange), None, "{strange}");
        }
    }
}

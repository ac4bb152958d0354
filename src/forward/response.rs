//! Changes to the head of a response on its way to the client (RFC 9110 §7.6).

use http::{HeaderMap, HeaderValue, StatusCode, Version, header};

use super::ViaIdentity;
use crate::field::{Timestamp, hop};

/// Changes an origin's fields into the fields sent to the client. A 101 keeps its `Upgrade`.
///
/// Adds `Date` if the origin sent none (RFC 9110 §6.6.1); `now` is the time at which the response
/// was received.
pub fn headers(
    status: StatusCode,
    headers: &mut HeaderMap,
    version: Version,
    identity: &ViaIdentity,
    now: Timestamp,
) {
    let upgrade = (status == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten();
    hop::remove(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if status == StatusCode::NO_CONTENT {
        // A 204 has no length (RFC 9110 §8.6); HTTP/2 clients treat a length as an error.
        headers.remove(header::CONTENT_LENGTH);
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date(now));
    }
    headers.append(header::VIA, identity.for_response(version));
}

fn date(now: Timestamp) -> HeaderValue {
    let since = std::time::Duration::from_secs(now.seconds().min(LAST_SECOND));
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
    HeaderValue::try_from(date).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The end of the year 9999: an HTTP-date cannot express later times.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn given(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn responses_are_signed_and_dated() {
        let identity = ViaIdentity::new("3f9c");
        let now = Timestamp::from_seconds(784_111_777);
        let mut answer = given(&[("connection", "close"), ("via", "1.1 a")]);
        super::headers(StatusCode::OK, &mut answer, Version::HTTP_2, &identity, now);
        assert_eq!(values(&answer, "via"), ["1.1 a", "2 larder"]);
        assert_eq!(values(&answer, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
        let mut switch =
            given(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("date", "x")]);
        super::headers(
            StatusCode::SWITCHING_PROTOCOLS,
            &mut switch,
            Version::HTTP_11,
            &identity,
            now,
        );
        assert_eq!(values(&switch, "upgrade"), ["websocket"]);
        assert_eq!(values(&switch, "date"), ["x"]);
    }
}

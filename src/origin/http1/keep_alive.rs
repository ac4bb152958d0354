//! `Keep-Alive`: how long an origin keeps an idle connection open.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Margin for a request that is in transit while the origin closes the connection.
const MARGIN: Duration = Duration::from_secs(1);

/// Returns the `timeout` parameter of `Keep-Alive`, minus a margin; `None` if the field or the
/// parameter is missing. Node and Apache send the field.
///
/// The margin is one second, but at most half of the `timeout`.
pub(super) fn idle_limit(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?;
    let seconds = value.as_bytes().split(|byte| *byte == b',').find_map(timeout)?;
    let timeout = Duration::from_secs(seconds);
    Some(timeout.saturating_sub(MARGIN.min(timeout / 2)))
}

fn timeout(parameter: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(parameter).ok()?;
    let (name, value) = text.split_once('=')?;
    let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
    is_timeout.then(|| value.trim().trim_matches('"').parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_time_counts_less_a_margin() {
        for (value, millis) in [
            ("timeout=5", Some(4000)),
            ("max=100, Timeout = 5", Some(4000)),
            ("timeout=1, max=1", Some(500)),
            ("timeout=0", Some(0)),
            ("timeout=x", None),
            ("max=5", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, value.parse().unwrap())]);
            assert_eq!(idle_limit(&headers), millis.map(Duration::from_millis), "{value}");
        }
        assert_eq!(idle_limit(&HeaderMap::new()), None);
    }
}

//! Classifies the cookies of requests, with a per-thread cache by `Cookie` value.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue, header};

use super::config_snapshot::{ConfigSnapshot, SnapshotId};
use crate::{policy::credentials::CookieFindings, route::Route};

/// Number of `Cookie` values that a thread remembers; at most 2 MiB, see [`MAX_LENGTH`].
const SLOTS: usize = 1024;
const MAX_LENGTH: usize = 2048;

/// The cached findings about one `Cookie` value under one configuration.
struct CachedFindings {
    config: SnapshotId,
    value: Box<[u8]>,
    findings: CookieFindings,
}

thread_local! {
    static RECENT: RefCell<Vec<Option<CachedFindings>>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

/// Returns the findings about a request's cookies on a route.
///
/// Clients repeat the same cookies, so most requests cost one comparison of bytes.
pub(super) fn classify(
    config: &ConfigSnapshot,
    route: &Route,
    headers: &HeaderMap,
) -> CookieFindings {
    let named = &route.vary.cookies;
    let mut lines = headers.get_all(header::COOKIE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if named.is_empty() && line.len() <= MAX_LENGTH => {
            cached(config, line, || config.credentials.inspect_cookies(headers, named))
        }
        (_, None) => config.credentials.inspect_cookies(headers, named),
        // HTTP/1.1 allows only one line. Given several, some servers take the first, some the last,
        // and some join them.
        (_, Some(_)) => CookieFindings::AMBIGUOUS,
    }
}

fn cached(
    config: &ConfigSnapshot,
    line: &HeaderValue,
    read: impl FnOnce() -> CookieFindings,
) -> CookieFindings {
    let value = line.as_bytes();
    RECENT.with_borrow_mut(|slots| {
        let Some(slot) = slots.get_mut(slot_of(value)) else { return read() };
        if let Some(known) = slot
            && known.config == config.id
            && *known.value == *value
        {
            return known.findings;
        }
        let findings = read();
        *slot = Some(CachedFindings { config: config.id, value: value.into(), findings });
        findings
    })
}

/// Returns the slot of a value, from its length and a sample of its bytes.
fn slot_of(value: &[u8]) -> usize {
    let step = (value.len() / 8).max(1);
    let sample = value.iter().rev().step_by(step);
    sample.fold(value.len(), |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % SLOTS
}

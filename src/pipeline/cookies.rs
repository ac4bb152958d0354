//! Cookies of requests, as far as they say who asks: read once a value, and remembered.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue, header};

use super::config_snapshot::{ConfigSnapshot, SnapshotId};
use crate::{policy::credentials::CookieFindings, route::Route};

/// `Cookie` values that each thread remembers, and how long each may be: at most 2 MiB.
const SLOTS: usize = 1024;
const MAX_LENGTH: usize = 2048;

/// The findings about one `Cookie` value under a configuration.
struct CachedFindings {
    config: SnapshotId,
    value: Box<[u8]>,
    findings: CookieFindings,
}

thread_local! {
    static RECENT: RefCell<Vec<Option<CachedFindings>>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

/// Returns what the cookies of a request come to on a route.
///
/// Clients send the same cookies over and over. Each thread remembers what a value came to, so that most
/// requests cost a comparison of bytes.
pub(super) fn classify(
    config: &ConfigSnapshot,
    route: &Route,
    headers: &HeaderMap,
) -> CookieFindings {
    let settled = &route.vary.cookies;
    let mut lines = headers.get_all(header::COOKIE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if settled.is_empty() && line.len() <= MAX_LENGTH => {
            cached(config, line, || config.credentials.inspect_cookies(headers, settled))
        }
        (_, None) => config.credentials.inspect_cookies(headers, settled),
        // HTTP/1.1 knows one line only: servers take the first, the last, or join them somehow.
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

/// Values of different clients mostly differ in their length or in one of these bytes.
fn slot_of(value: &[u8]) -> usize {
    let step = (value.len() / 8).max(1);
    let sample = value.iter().rev().step_by(step);
    sample.fold(value.len(), |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % SLOTS
}

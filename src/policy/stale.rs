//! Serving stale responses (RFC 5861), also while disconnected (RFC 9111 §4.2.4).

use std::time::Duration;

use http::StatusCode;

use crate::field::Timestamp;

use super::{
    CacheRule, ClientCacheControl, Freshness, Reason, RequestDirectives, freshness::Constraints,
};

/// The kind of an origin failure. It determines which stale responses may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outage {
    /// A timeout or an error status.
    Error,
    /// All attempts to connect failed, or the connection closed before a response began.
    Disconnected,
}

/// Constraints that forbid any use of a stale response.
const FORBID_STALE: Constraints =
    Constraints::NO_CACHE.with(Constraints::MUST_REVALIDATE).with(Constraints::PROXY_REVALIDATE);

/// Returns whether the response forbids serving it stale (RFC 9111 §4.2.4).
///
/// `s-maxage` forbids it, except within a window that the origin gives in the same response. A
/// response that was never fresh forbids it too: the origin never allowed reuse without validation.
fn forbids_stale(freshness: &Freshness, by_origin: Option<u32>) -> bool {
    let is_silent = freshness.lifetime.is_zero() && by_origin.is_none();
    freshness.constraints.has_any(FORBID_STALE)
        || (by_origin.is_none() && freshness.constraints.has_any(Constraints::S_MAXAGE))
        || is_silent
}

/// Returns whether a client's `max-stale` may be honoured for this response.
pub(super) fn permits_max_stale(freshness: &Freshness) -> bool {
    !forbids_stale(freshness, None)
}

/// Returns whether a softly purged response may be served until its successor is stored. The purge
/// allows stale use, so only constraints that forbid all stale responses count.
pub(super) fn permits_soft_purge(freshness: &Freshness) -> bool {
    !freshness.constraints.has_any(FORBID_STALE)
}

/// Returns how long a stale response may be served while it is revalidated. The rule's window takes
/// precedence over the origin's. Zero if stale responses are forbidden.
pub(crate) fn stale_while_revalidate_window(freshness: &Freshness, rule: &CacheRule) -> Duration {
    if forbids_stale(freshness, freshness.stale_while_revalidate) {
        return Duration::ZERO;
    }
    let by_origin = freshness.stale_while_revalidate.map(seconds);
    rule.stale_while_revalidate.or(by_origin).unwrap_or_default()
}

/// Returns how long a stale response may be served if the origin fails.
///
/// The origin's window takes precedence over the rule's. Zero if stale responses are forbidden, if
/// the response is itself an error, or if the rule disables stale responses on failure.
pub(crate) fn stale_if_error_window(
    status: StatusCode,
    freshness: &Freshness,
    rule: &CacheRule,
) -> Duration {
    if forbids_stale_on_error(status, freshness, rule) {
        return Duration::ZERO;
    }
    let by_origin = freshness.stale_if_error.map(seconds);
    by_origin.or(rule.stale_if_error).unwrap_or_default()
}

/// Returns how long a stale response may be served while the origin is unreachable. Only the rule
/// gives a window, but `stale-if-error=0` from the origin overrides it.
pub(crate) fn stale_if_disconnected_window(
    status: StatusCode,
    freshness: &Freshness,
    rule: &CacheRule,
) -> Duration {
    if forbids_stale_on_error(status, freshness, rule) || freshness.stale_if_error == Some(0) {
        return Duration::ZERO;
    }
    rule.stale_if_disconnected
}

fn forbids_stale_on_error(status: StatusCode, freshness: &Freshness, rule: &CacheRule) -> bool {
    status.is_server_error()
        || rule.disables_stale_on_error()
        || forbids_stale(freshness, freshness.stale_if_error)
}

/// Returns the reason for serving a stored response after a failed fetch, or `None` if it must not
/// be served.
///
/// A status is a failure if [`is_error`] holds. A stored error is not served, since the client gets
/// the newer error; nor is a response that has [ended](Freshness::has_ended). A request's own
/// `stale-if-error` extends the window if the rule honours request directives.
pub(crate) fn stale_on_error(
    (status, freshness): (StatusCode, &Freshness),
    outage: Outage,
    request: &RequestDirectives,
    rule: &CacheRule,
    now: Timestamp,
) -> Option<Reason> {
    if status.is_server_error() || rule.disables_stale_on_error() || freshness.has_ended(now) {
        return None;
    }
    if freshness.is_fresh(now) {
        let is_current = !freshness.constraints.has_any(Constraints::NO_CACHE);
        return is_current.then_some(Reason::StaleIfError);
    }
    let by_request = match rule.client_cache_control {
        ClientCacheControl::Honor if permits_max_stale(freshness) => request.stale_if_error,
        _ => None,
    };
    let if_error = stale_if_error_window(status, freshness, rule)
        .max(by_request.map(seconds).unwrap_or_default());
    let if_disconnected = match outage {
        Outage::Error => Duration::ZERO,
        Outage::Disconnected => stale_if_disconnected_window(status, freshness, rule),
    };
    let staleness = freshness.staleness(now);
    if staleness < if_error {
        return Some(Reason::StaleIfError);
    }
    (staleness < if_disconnected).then_some(Reason::StaleIfDisconnected)
}

/// Returns whether a status counts as an origin failure (RFC 5861 §4). 429 is a failure, since it
/// concerns the rate of requests, not the resource (RFC 6585 §4).
pub(crate) fn is_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// Returns whether a status revokes the stored response: the resource is gone, or access was
/// denied. A revoked response is not served on failure.
pub(crate) fn revokes_stored(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 410)
}

/// Returns the freshness of a revoked response: stale, and usable only after validation.
///
/// Keeps the windows, so that stores retain the response as long as older copies. The time of
/// receipt is later than that of older copies, even if the clocks of nodes differ.
#[must_use]
pub(crate) fn revoked(freshness: &Freshness, now: Timestamp) -> Freshness {
    let received_at = now.max(freshness.received_at.saturating_add(Duration::from_millis(1)));
    let since = received_at.saturating_since(freshness.received_at);
    Freshness {
        received_at,
        usable_for: freshness.usable_for.map(|usable_for| usable_for.saturating_sub(since)),
        initial_age: freshness.current_age(now),
        lifetime: Duration::ZERO,
        constraints: freshness.constraints.with(Constraints::PROXY_REVALIDATE),
        ..*freshness
    }
}

/// Returns whether the response was revoked.
pub(crate) fn is_revoked(freshness: &Freshness) -> bool {
    freshness.lifetime.is_zero() && freshness.constraints.has_any(Constraints::PROXY_REVALIDATE)
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness(
        constraints: Constraints,
        while_revalidate: Option<u32>,
        if_error: Option<u32>,
    ) -> Freshness {
        Freshness {
            received_at: Timestamp::from_seconds(1000),
            initial_age: Duration::ZERO,
            lifetime: seconds(10),
            stale_while_revalidate: while_revalidate,
            stale_if_error: if_error,
            usable_for: None,
            constraints,
        }
    }

    fn may_serve_stale(
        status: StatusCode,
        stored: &Freshness,
        request: &RequestDirectives,
        rule: &CacheRule,
        now: Timestamp,
    ) -> bool {
        stale_on_error((status, stored), Outage::Error, request, rule, now).is_some()
    }

    fn rule() -> CacheRule {
        CacheRule {
            stale_while_revalidate: Some(seconds(5)),
            stale_if_error: Some(seconds(50)),
            ..CacheRule::default()
        }
    }

    #[test]
    fn the_rule_overrides_one_window_and_fills_in_the_other() {
        let both = freshness(Constraints::default(), Some(7), Some(70));
        assert_eq!(stale_while_revalidate_window(&both, &rule()), seconds(5));
        assert_eq!(stale_if_error_window(StatusCode::OK, &both, &rule()), seconds(70));
        assert_eq!(stale_while_revalidate_window(&both, &CacheRule::default()), seconds(7));
        let none = freshness(Constraints::default(), None, None);
        assert_eq!(stale_if_error_window(StatusCode::OK, &none, &rule()), seconds(50));
        assert_eq!(
            stale_if_error_window(StatusCode::OK, &none, &CacheRule::default()),
            Duration::ZERO
        );
    }

    #[test]
    fn revalidation_directives_close_both_windows() {
        for constraint in
            [Constraints::NO_CACHE, Constraints::MUST_REVALIDATE, Constraints::PROXY_REVALIDATE]
        {
            let forbidden = freshness(constraint, Some(7), Some(70));
            assert_eq!(stale_while_revalidate_window(&forbidden, &rule()), Duration::ZERO);
            assert_eq!(stale_if_error_window(StatusCode::OK, &forbidden, &rule()), Duration::ZERO);
        }
    }

    #[test]
    fn s_maxage_closes_a_window_that_the_origin_does_not_open() {
        let closed = freshness(Constraints::S_MAXAGE, None, None);
        assert_eq!(stale_while_revalidate_window(&closed, &rule()), Duration::ZERO);
        assert_eq!(stale_if_error_window(StatusCode::OK, &closed, &rule()), Duration::ZERO);
        let open = freshness(Constraints::S_MAXAGE, Some(7), None);
        assert_eq!(stale_while_revalidate_window(&open, &CacheRule::default()), seconds(7));
    }

    #[test]
    fn stale_responses_replace_errors_within_the_window_only() {
        let stored = freshness(Constraints::default(), None, Some(60));
        let allowed = |at| {
            let now = Timestamp::from_seconds(at);
            may_serve_stale(
                StatusCode::OK,
                &stored,
                &RequestDirectives::default(),
                &CacheRule::default(),
                now,
            )
        };
        assert!(allowed(1005) && allowed(1010) && allowed(1069));
        assert!(!allowed(1070));
    }

    #[test]
    fn a_response_replaces_no_error_after_its_end() {
        let stored = freshness(Constraints::default(), None, Some(60)).ending_in(seconds(20));
        let fresh = Freshness { lifetime: seconds(60), ..stored };
        let request =
            RequestDirectives { stale_if_error: Some(60), ..RequestDirectives::default() };
        for stored in [stored, fresh] {
            let allowed = |at| {
                let now = Timestamp::from_seconds(at);
                may_serve_stale(StatusCode::OK, &stored, &request, &rule(), now)
            };
            assert!(allowed(1019) && !allowed(1020));
        }
    }

    #[test]
    fn a_revoked_response_keeps_its_end() {
        let stored = freshness(Constraints::default(), None, None).ending_in(seconds(20));
        let revoked_response = revoked(&stored, Timestamp::from_seconds(1015));
        assert_eq!(revoked_response.usable_for, Some(seconds(5)));
        let revoked_response = revoked(&stored, Timestamp::from_seconds(1050));
        assert_eq!(revoked_response.usable_for, Some(Duration::ZERO));
    }

    #[test]
    fn a_request_may_widen_the_window_if_it_is_honoured() {
        let stored = freshness(Constraints::default(), None, None);
        let request =
            RequestDirectives { stale_if_error: Some(60), ..RequestDirectives::default() };
        let now = Timestamp::from_seconds(1020);
        assert!(may_serve_stale(StatusCode::OK, &stored, &request, &CacheRule::default(), now));
        let ignoring =
            CacheRule { client_cache_control: ClientCacheControl::Ignore, ..CacheRule::default() };
        assert!(!may_serve_stale(StatusCode::OK, &stored, &request, &ignoring, now));
        let forbidden = freshness(Constraints::MUST_REVALIDATE, None, None);
        assert!(!may_serve_stale(StatusCode::OK, &forbidden, &request, &CacheRule::default(), now));
    }

    #[test]
    fn stale_responses_replace_an_unreachable_origin_by_default() {
        let reason = |stored: &Freshness, rule: &CacheRule, outage, at| {
            let now = Timestamp::from_seconds(at);
            stale_on_error(
                (StatusCode::OK, stored),
                outage,
                &RequestDirectives::default(),
                rule,
                now,
            )
        };
        let (silent, unset) = (freshness(Constraints::default(), None, None), CacheRule::default());
        let disconnected = Outage::Disconnected;
        assert_eq!(reason(&silent, &unset, disconnected, 1609), Some(Reason::StaleIfDisconnected));
        assert_eq!(
            reason(&silent, &unset, disconnected, 1610),
            None,
            "ten minutes after it became stale"
        );
        assert_eq!(reason(&silent, &unset, Outage::Error, 1010), None);
        assert_eq!(reason(&silent, &rule(), disconnected, 1059), Some(Reason::StaleIfError));
        assert_eq!(reason(&silent, &rule(), disconnected, 1060), Some(Reason::StaleIfDisconnected));
        let off = CacheRule { stale_if_disconnected: Duration::ZERO, ..rule() };
        assert_eq!(reason(&silent, &off, disconnected, 1060), None);
        for constraint in [
            Constraints::NO_CACHE,
            Constraints::MUST_REVALIDATE,
            Constraints::PROXY_REVALIDATE,
            Constraints::S_MAXAGE,
        ] {
            let forbidden = freshness(constraint, None, None);
            assert_eq!(reason(&forbidden, &unset, disconnected, 1015), None, "{constraint:?}");
        }
        let allowed = freshness(Constraints::S_MAXAGE, None, Some(9));
        assert_eq!(reason(&allowed, &unset, disconnected, 1500), Some(Reason::StaleIfDisconnected));
        let refused = freshness(Constraints::default(), None, Some(0));
        assert_eq!(reason(&refused, &unset, disconnected, 1015), None, "the origin says so");
        let ended = silent.ending_in(seconds(12));
        assert_eq!(reason(&ended, &unset, disconnected, 1012), None, "the end of a token");
        let never_fresh = Freshness { lifetime: Duration::ZERO, ..silent };
        assert_eq!(reason(&never_fresh, &unset, disconnected, 1001), None);
    }

    #[test]
    fn zero_for_errors_turns_stale_on_error_off() {
        let stored = freshness(Constraints::default(), None, Some(60));
        let rule = CacheRule { stale_if_error: Some(Duration::ZERO), ..CacheRule::default() };
        let request =
            RequestDirectives { stale_if_error: Some(60), ..RequestDirectives::default() };
        for outage in [Outage::Error, Outage::Disconnected] {
            let now = Timestamp::from_seconds(1015);
            assert_eq!(
                stale_on_error((StatusCode::OK, &stored), outage, &request, &rule, now),
                None
            );
        }
        assert_eq!(stale_if_error_window(StatusCode::OK, &stored, &rule), Duration::ZERO);
        assert_eq!(rule.max_stale_window(), Duration::ZERO);
    }

    #[test]
    fn a_stored_error_replaces_no_error() {
        let stored = freshness(Constraints::default(), Some(60), Some(60));
        let (request, now) = (RequestDirectives::default(), Timestamp::from_seconds(1005));
        for (status, expected) in [(200, true), (404, true), (500, false), (502, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            let allowed = may_serve_stale(status, &stored, &request, &rule(), now);
            assert_eq!(allowed, expected, "{status}");
            assert_eq!(
                stale_if_error_window(status, &stored, &rule()).is_zero(),
                !expected,
                "{status}"
            );
        }
    }

    #[test]
    fn a_revoked_response_is_stale_and_replaces_no_error() {
        let stored = freshness(Constraints::SHAREABLE, Some(60), Some(60));
        let now = Timestamp::from_seconds(1005);
        let revoked_response = revoked(&stored, now);
        assert!(is_revoked(&revoked_response) && !is_revoked(&stored));
        assert!(!revoked_response.is_fresh(now) && !permits_soft_purge(&revoked_response));
        assert_eq!(revoked_response.age_seconds(now), stored.age_seconds(now));
        let early = Timestamp::from_seconds(900);
        assert!(revoked(&stored, early).received_at > stored.received_at);
        assert_eq!(stale_while_revalidate_window(&revoked_response, &rule()), Duration::ZERO);
        let request =
            RequestDirectives { stale_if_error: Some(60), ..RequestDirectives::default() };
        for outage in [Outage::Error, Outage::Disconnected] {
            assert_eq!(
                stale_on_error((StatusCode::OK, &revoked_response), outage, &request, &rule(), now),
                None
            );
        }
        for status in [401, 403, 404, 410] {
            assert!(revokes_stored(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        assert!(!revokes_stored(StatusCode::TOO_MANY_REQUESTS) && !revokes_stored(StatusCode::OK));
    }

    #[test]
    fn overload_gateway_and_server_errors_count_and_no_others() {
        assert!(is_error(StatusCode::SERVICE_UNAVAILABLE) && is_error(StatusCode::BAD_GATEWAY));
        assert!(is_error(StatusCode::TOO_MANY_REQUESTS));
        assert!(!is_error(StatusCode::NOT_FOUND) && !is_error(StatusCode::NOT_IMPLEMENTED));
    }
}

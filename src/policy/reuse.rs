//! Reuse of stored responses (RFC 9111 §4).

use std::time::Duration;

use crate::field::Timestamp;

use super::{
    CacheRule, ClientCacheControl, Credentials, Freshness, Reason, RequestDirectives,
    freshness::Constraints, stale,
};

/// The decision about a stored response that a request selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Serve the stored response: it is fresh enough.
    Fresh,
    /// Serve the stored response stale, and revalidate it in the background.
    StaleWhileRevalidate,
    /// Serve the stored response once more after a soft purge, and fetch it again in the
    /// background.
    SoftPurged,
    /// Serve the stored response once more after a version change of its namespace, and fetch it
    /// again in the background.
    PreviousVersion,
    /// Serve the stored response stale: the request's `max-stale` allows it.
    StaleByRequest,
    /// Validate the stored response with the origin, conditionally if it has a validator. If the
    /// origin fails, `stale_on_error` decides.
    Revalidate(Reason),
    /// Do not serve the stored response to this request, not even after validation.
    Unusable(Reason),
}

impl Reuse {
    /// Returns why the response is not simply served; `None` for [`Reuse::Fresh`].
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Fresh => None,
            Self::StaleWhileRevalidate => Some(Reason::StaleWhileRevalidate),
            Self::SoftPurged => Some(Reason::SoftPurged),
            Self::PreviousVersion => Some(Reason::PreviousVersion),
            Self::StaleByRequest => Some(Reason::RequestMaxStale),
            Self::Revalidate(reason) | Self::Unusable(reason) => Some(reason),
        }
    }

    /// Returns the decision for a stored response that a soft purge selects. A fresh response
    /// counts as stale, and may be served once more unless the origin forbids serving it stale.
    #[must_use]
    pub fn after_soft_purge(self, stored: &Freshness) -> Self {
        match self {
            Self::Fresh if stale::permits_soft_purge(stored) => Self::SoftPurged,
            Self::Fresh => Self::Revalidate(Reason::SoftPurged),
            other => other,
        }
    }

    /// Returns the decision for a stored response of the namespace's previous version.
    #[must_use]
    pub fn of_previous_version(self, stored: &Freshness) -> Self {
        match self {
            Self::Fresh if stale::permits_soft_purge(stored) => Self::PreviousVersion,
            Self::Fresh => Self::Revalidate(Reason::PreviousVersion),
            other => other,
        }
    }
}

impl RequestDirectives {
    /// Returns the directives that this rule accepts from clients. `only-if-cached` is always
    /// accepted, since it spares the origin.
    #[must_use]
    pub fn permitted_by(self, rule: &CacheRule) -> Self {
        match rule.client_cache_control {
            ClientCacheControl::Honor => self,
            ClientCacheControl::Ignore => {
                Self { only_if_cached: self.only_if_cached, ..Self::default() }
            }
        }
    }
}

/// Decides whether to reuse a stored response whose key and selecting fields match the request.
pub fn reuse(
    stored: &Freshness,
    request: &RequestDirectives,
    credentials: Credentials,
    rule: &CacheRule,
    now: Timestamp,
) -> Reuse {
    if let Some(reason) = stored.sharing_refusal(credentials) {
        return Reuse::Unusable(reason);
    }
    let request = request.permitted_by(rule);
    if request.no_cache {
        return Reuse::Revalidate(Reason::RequestNoCache);
    }
    if stored.constraints.has_any(Constraints::NO_CACHE) {
        return Reuse::Revalidate(Reason::NoCache);
    }
    if exceeds_max_age(stored, &request, now) {
        return Reuse::Revalidate(Reason::RequestMaxAge);
    }
    if stored.is_fresh(now) {
        return reuse_fresh(stored, &request, now);
    }
    reuse_stale(stored, &request, rule, now)
}

/// Returns whether the response is older than the request allows (§5.2.1.1). `max-age=0` is a
/// reload, which only a fresh immutable response satisfies (RFC 8246 §2).
fn exceeds_max_age(stored: &Freshness, request: &RequestDirectives, now: Timestamp) -> bool {
    let Some(max_age) = request.max_age else {
        return false;
    };
    if stored.constraints.has_any(Constraints::IMMUTABLE) && stored.is_fresh(now) {
        return false;
    }
    max_age == 0 || stored.current_age(now) > Duration::from_secs(max_age.into())
}

fn reuse_fresh(stored: &Freshness, request: &RequestDirectives, now: Timestamp) -> Reuse {
    let wanted = Duration::from_secs(request.min_fresh.unwrap_or(0).into());
    let is_stale_by_then = stored.current_age(now).saturating_add(wanted) > stored.lifetime;
    if is_stale_by_then || stored.has_ended(now.saturating_add(wanted)) {
        return Reuse::Revalidate(Reason::RequestMinFresh);
    }
    Reuse::Fresh
}

fn reuse_stale(
    stored: &Freshness,
    request: &RequestDirectives,
    rule: &CacheRule,
    now: Timestamp,
) -> Reuse {
    if stored.has_ended(now) {
        return Reuse::Revalidate(Reason::Expired);
    }
    let staleness = stored.staleness(now);
    if request.min_fresh.is_some() {
        return Reuse::Revalidate(Reason::RequestMinFresh);
    }
    if staleness < stale::stale_while_revalidate_window(stored, rule) {
        return Reuse::StaleWhileRevalidate;
    }
    let max_stale = request.max_stale.filter(|_| stale::permits_max_stale(stored));
    match max_stale {
        Some(seconds) if staleness <= Duration::from_secs(seconds.into()) => Reuse::StaleByRequest,
        _ => Reuse::Revalidate(Reason::Expired),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(lifetime: u64, constraints: Constraints) -> Freshness {
        Freshness {
            received_at: Timestamp::from_seconds(1000),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(lifetime),
            stale_while_revalidate: None,
            stale_if_error: None,
            usable_for: None,
            constraints,
        }
    }

    fn reuse_at(stored: &Freshness, request: RequestDirectives, at: u64) -> Reuse {
        let now = Timestamp::from_seconds(at);
        reuse(stored, &request, Credentials::NONE, &CacheRule::default(), now)
    }

    fn plain() -> RequestDirectives {
        RequestDirectives::default()
    }

    #[test]
    fn a_response_is_fresh_until_its_lifetime_is_over() {
        let response = stored(60, Constraints::default());
        assert_eq!(reuse_at(&response, plain(), 1059), Reuse::Fresh);
        assert_eq!(reuse_at(&response, plain(), 1060), Reuse::Revalidate(Reason::Expired));
    }

    #[test]
    fn no_cache_on_either_side_requires_validation() {
        let response = stored(60, Constraints::NO_CACHE);
        assert_eq!(reuse_at(&response, plain(), 1000), Reuse::Revalidate(Reason::NoCache));
        let response = stored(60, Constraints::default());
        let request = RequestDirectives { no_cache: true, ..plain() };
        assert_eq!(reuse_at(&response, request, 1000), Reuse::Revalidate(Reason::RequestNoCache));
    }

    #[test]
    fn a_request_limits_age_and_asks_for_remaining_freshness() {
        let response = stored(60, Constraints::default());
        let max_age = |seconds| RequestDirectives { max_age: Some(seconds), ..plain() };
        assert_eq!(reuse_at(&response, max_age(30), 1030), Reuse::Fresh);
        assert_eq!(
            reuse_at(&response, max_age(30), 1031),
            Reuse::Revalidate(Reason::RequestMaxAge)
        );
        assert_eq!(reuse_at(&response, max_age(0), 1000), Reuse::Revalidate(Reason::RequestMaxAge));
        let min_fresh = |seconds| RequestDirectives { min_fresh: Some(seconds), ..plain() };
        assert_eq!(reuse_at(&response, min_fresh(30), 1030), Reuse::Fresh);
        assert_eq!(
            reuse_at(&response, min_fresh(31), 1030),
            Reuse::Revalidate(Reason::RequestMinFresh)
        );
    }

    #[test]
    fn a_reload_does_not_refetch_what_is_immutable() {
        let response = stored(60, Constraints::IMMUTABLE);
        let reload = RequestDirectives { max_age: Some(0), ..plain() };
        assert_eq!(reuse_at(&response, reload, 1030), Reuse::Fresh);
        assert_eq!(reuse_at(&response, reload, 1060), Reuse::Revalidate(Reason::RequestMaxAge));
        let forced = RequestDirectives { no_cache: true, ..plain() };
        assert_eq!(reuse_at(&response, forced, 1030), Reuse::Revalidate(Reason::RequestNoCache));
    }

    #[test]
    fn max_stale_counts_unless_the_origin_forbids_it() {
        let request = RequestDirectives { max_stale: Some(10), ..plain() };
        let response = stored(60, Constraints::default());
        assert_eq!(reuse_at(&response, request, 1070), Reuse::StaleByRequest);
        assert_eq!(reuse_at(&response, request, 1071), Reuse::Revalidate(Reason::Expired));
        for constraint in
            [Constraints::MUST_REVALIDATE, Constraints::PROXY_REVALIDATE, Constraints::S_MAXAGE]
        {
            let response = stored(60, constraint);
            assert_eq!(reuse_at(&response, request, 1061), Reuse::Revalidate(Reason::Expired));
        }
    }

    #[test]
    fn a_stale_response_is_served_while_it_is_revalidated() {
        let response =
            Freshness { stale_while_revalidate: Some(30), ..stored(60, Constraints::default()) };
        assert_eq!(reuse_at(&response, plain(), 1060), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse_at(&response, plain(), 1089), Reuse::StaleWhileRevalidate);
        assert_eq!(reuse_at(&response, plain(), 1090), Reuse::Revalidate(Reason::Expired));
        let min_fresh = RequestDirectives { min_fresh: Some(0), ..plain() };
        assert_eq!(
            reuse_at(&response, min_fresh, 1060),
            Reuse::Revalidate(Reason::RequestMinFresh)
        );
    }

    #[test]
    fn nothing_uses_a_response_after_its_end() {
        let ending = Duration::from_secs(30);
        let fresh =
            Freshness { stale_while_revalidate: Some(99), ..stored(60, Constraints::default()) };
        let stale = Freshness { lifetime: Duration::from_secs(10), ..fresh };
        let lenient = RequestDirectives { max_stale: Some(99), ..plain() };
        for response in [fresh.ending_in(ending), stale.ending_in(ending)] {
            for request in [plain(), lenient] {
                let verdict = reuse_at(&response, request, 1030);
                assert_eq!(verdict, Reuse::Revalidate(Reason::Expired));
                assert_eq!(verdict.after_soft_purge(&response), verdict);
                assert_eq!(verdict.of_previous_version(&response), verdict);
            }
        }
        assert_eq!(reuse_at(&fresh.ending_in(ending), plain(), 1029), Reuse::Fresh);
        assert_eq!(reuse_at(&stale.ending_in(ending), plain(), 1029), Reuse::StaleWhileRevalidate);
        let min_fresh = RequestDirectives { min_fresh: Some(10), ..plain() };
        let verdict = reuse_at(&fresh.ending_in(ending), min_fresh, 1025);
        assert_eq!(verdict, Reuse::Revalidate(Reason::RequestMinFresh));
    }

    #[test]
    fn a_rule_may_ignore_what_clients_say() {
        let rule =
            CacheRule { client_cache_control: ClientCacheControl::Ignore, ..CacheRule::default() };
        let request = RequestDirectives {
            no_cache: true,
            max_age: Some(0),
            only_if_cached: true,
            ..RequestDirectives::default()
        };
        let response = stored(60, Constraints::default());
        let now = Timestamp::from_seconds(1000);
        let verdict = reuse(&response, &request, Credentials::NONE, &rule, now);
        assert_eq!(verdict, Reuse::Fresh);
        assert!(request.permitted_by(&rule).only_if_cached);
    }

    #[test]
    fn credentials_need_a_response_that_says_it_may_be_shared() {
        let now = Timestamp::from_seconds(1000);
        let verdict_on = |constraints, credentials| {
            reuse(&stored(60, constraints), &plain(), credentials, &CacheRule::default(), now)
        };
        let (authorization, session) = (Credentials::AUTHORIZATION, Credentials::SESSION_COOKIE);
        let none = Constraints::default();
        assert_eq!(verdict_on(none, authorization), Reuse::Unusable(Reason::Authorization));
        assert_eq!(verdict_on(none, session), Reuse::Unusable(Reason::CookieRequest));
        assert_eq!(verdict_on(Constraints::SHAREABLE, authorization), Reuse::Fresh);
        assert_eq!(verdict_on(Constraints::SHAREABLE, session), Reuse::Fresh);
        assert_eq!(verdict_on(Constraints::MUST_REVALIDATE, authorization), Reuse::Fresh);
        let verdict = verdict_on(Constraints::MUST_REVALIDATE, session);
        assert_eq!(verdict, Reuse::Unusable(Reason::CookieRequest));
    }

    proptest! {
        #[test]
        fn time_never_makes_a_response_fresh_again(
            lifetime in 0..100u64,
            bits in any::<u8>(),
            window in proptest::option::of(0..50u32),
            at in 0..300u64,
            later in 0..300u64,
        ) {
            let constraints = Constraints::from_bits(bits);
            let response = Freshness { stale_while_revalidate: window, ..stored(lifetime, constraints) };
            let rank = |verdict| match verdict {
                Reuse::Fresh => 0,
                Reuse::StaleWhileRevalidate => 1,
                _ => 2,
            };
            let first = reuse_at(&response, plain(), 1000 + at);
            let second = reuse_at(&response, plain(), 1000 + at + later);
            prop_assert!(rank(first) <= rank(second));
        }
    }
}

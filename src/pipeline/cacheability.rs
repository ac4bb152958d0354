//! Cacheability: whether a response is stored, and how long it may be used.
//!
//! The decision is pure, so that a fetch and an explanation agree.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    config_snapshot::ConfigSnapshot,
    credentials,
    fetch_times::FetchTimes,
    payload::{Payload, PayloadError},
};
use crate::{
    field::Timestamp,
    key::vary::Vary,
    policy::{
        Freshness, Partition, Reason, RequestDirectives, RequestHead, ResponseDirectives,
        ResponseHead,
        failure::{self, FailureSharing},
        freshness::Constraints,
        storable,
    },
    purge::planted::PlantedBug,
    route::Route,
    user::PartitionMember,
};

/// The terms on which a cacheable response is stored.
pub(super) struct StoreDecision {
    /// The response's age, and how long it may be used.
    pub freshness: Freshness,
    pub directives: ResponseDirectives,
    /// Whether the response's body has to be read before it is stored.
    pub payload: Payload,
}

/// The parts of an origin request that decide whether its response is cacheable.
pub(super) struct CacheabilityCheck<'a> {
    pub config: &'a ConfigSnapshot,
    pub route: &'a Route,
    /// The request, as a `GET`.
    pub request: RequestHead<'a>,
    /// The method in the key: `GET`, `POST` or `QUERY`.
    pub method: &'a Method,
    /// The request's `Cache-Control`.
    pub directives: &'a RequestDirectives,
    /// The query as the client sent it.
    pub query: &'a str,
    /// The requesting member of the route's partition; `None` if the route has no members.
    pub member: Option<&'a PartitionMember>,
}

/// The length of a body, if known, and the maximum length that is stored.
pub(super) type BodyLengths = (Option<u64>, u64);

impl CacheabilityCheck<'_> {
    /// Returns the terms on which a response is stored, or why it is not stored. If the body is the
    /// reason, the refusal includes the error.
    pub(super) fn decide(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        directives: ResponseDirectives,
        (expected, limit): BodyLengths,
        times: FetchTimes,
    ) -> Result<StoreDecision, (Reason, Option<PayloadError>)> {
        let refused = |reason| (reason, None);
        let freshness = self.storable((status, headers), &directives, times).map_err(refused)?;
        if self.varies_by_credentials(headers) {
            return Err(refused(Reason::VaryCredential));
        }
        if self.repeats_ignored_parameter(headers) {
            return Err(refused(Reason::IgnoredParameter));
        }
        if expected.is_some_and(|length| length > limit) {
            return Err(refused(Reason::TooLarge));
        }
        let payload = Payload::of(self.route, headers, expected);
        let payload = payload.map_err(|(reason, cause)| (reason, Some(cause)))?;
        Ok(StoreDecision { freshness, directives, payload })
    }

    /// Returns the freshness of a response by the monotonic clock, or why it may not be stored.
    pub(super) fn storable(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        directives: &ResponseDirectives,
        times: FetchTimes,
    ) -> Result<Freshness, Reason> {
        let FetchTimes { requested_at, received_at, received_steady } = times;
        if PlantedBug::SharedRefusal.is_planted() && status == StatusCode::UNAUTHORIZED {
            return Ok(shared_refusal(received_steady));
        }
        let head = ResponseHead { status, headers, requested_at, received_at };
        let request = (&self.request, self.directives);
        let rule = &self.route.rule;
        let freshness = storable(request, (&head, directives), rule)?;
        // RFC 9110 §9.3.3: no heuristics for `POST`.
        let is_explicit = freshness.constraints.has_any(Constraints::EXPLICIT)
            || rule.ttl.for_status(status).is_some();
        if *self.method == Method::POST && !is_explicit {
            return Err(Reason::NoFreshness);
        }
        let freshness = Freshness { received_at: received_steady, ..freshness };
        let is_own = self.route.rule.partition == Partition::User;
        Ok(match self.member.and_then(|member| member.expires).filter(|_| is_own) {
            Some(end) if PlantedBug::ExpiredWhileStale.is_planted() => {
                let lifetime = freshness.lifetime.min(end.saturating_since(received_at));
                Freshness { lifetime, ..freshness }
            }
            Some(end) => freshness.ending_in(end.saturating_since(received_at)),
            None => freshness,
        })
    }

    /// Returns what the followers of a fetch receive if its response is an error.
    pub(super) fn sharing(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        times: FetchTimes,
    ) -> FailureSharing {
        let FetchTimes { requested_at, received_at, .. } = times;
        let head = ResponseHead { status, headers, requested_at, received_at };
        let directives = ResponseDirectives::parse(headers);
        match failure::failure_sharing(&head, &directives, self.request.credentials) {
            FailureSharing::Response if self.varies_by_credentials(headers) => {
                FailureSharing::Status(Reason::VaryCredential)
            }
            sharing => sharing,
        }
    }

    /// Returns whether members of a shared partition may get different responses depending on their
    /// credentials. Always `false` in the partition of one user.
    pub(super) fn varies_by_credentials(&self, response: &HeaderMap) -> bool {
        let (config, route) = (self.config, self.route);
        if !matches!(route.rule.partition, Partition::Authenticated | Partition::Claims(_)) {
            return false;
        }
        let Vary::Fields(set) = Vary::parse(response) else { return false };
        let is_listed = |name| route.vary.headers.contains(name);
        let varies = |name| credentials::is_partitioned_by(config, route, name) && !is_listed(name);
        set.iter().any(varies)
    }

    /// Returns whether a redirect repeats a query parameter that is not in the key, such as a
    /// token.
    fn repeats_ignored_parameter(&self, response: &HeaderMap) -> bool {
        let mut locations = response.get_all(header::LOCATION).iter();
        locations.any(|location| self.route.query.leaks_into(self.query, location.as_bytes()))
    }
}

/// Returns the freshness of a refusal that [`PlantedBug::SharedRefusal`] shares.
#[cold]
fn shared_refusal(received_at: Timestamp) -> Freshness {
    Freshness {
        received_at,
        initial_age: Duration::ZERO,
        lifetime: Duration::from_millis(20),
        stale_while_revalidate: None,
        stale_if_error: None,
        usable_for: None,
        constraints: Constraints::MUST_REVALIDATE,
    }
}

//! Joining a flight: a request either waits for another request that already fetches the same
//! response, or leads a flight.

use std::{borrow::Cow, sync::Arc};

use super::{
    admit::TeedResponse,
    collapse::{FlightLeader, FlightRole},
    fetch::FetchOutcome,
    flight_result::{FetchFailure, FlightResult, Retry, ReusedResponse, StreamingResponse},
    lookup::MemoryState,
    miss_plan::{LookupOutcome, MissPlan, is_stale_on_error},
    receive::LookupRequest,
    request_context::RequestContext,
};
use crate::{
    key::{CacheKey, OriginTarget},
    policy::{
        Freshness, Reason, ResponseDirectives, failure::credential_refusal, stale, stale::Outage,
    },
    purge::planted::PlantedBug,
    store::Store,
};

/// Maximum number of flights that a request joins if each yields a variant it does not select.
const MAX_JOINS: usize = 3;

/// The outcome of joining a flight.
pub(super) enum FlightOutcome {
    /// This request fetches, on behalf of all requests that join.
    Leader(MissPlan, FlightLeader),
    /// This request cannot use what another request fetched, and sends a fetch of its own.
    NotShared(MissPlan),
    /// The result of another request's fetch.
    Shared(FetchOutcome),
}

impl<S: Store> RequestContext<S> {
    /// Joins the flight of this request, or leads one. After a failure, one follower leads a new
    /// flight if that may help.
    pub(super) async fn join_flight(
        &self,
        lookup: &LookupRequest,
        mut plan: MissPlan,
    ) -> FlightOutcome {
        let mut retry = Retry::Once;
        for left in (0..MAX_JOINS).rev() {
            let follower = match self.join_or_lead(lookup, &plan.key) {
                FlightRole::Leader(flight) => {
                    return FlightOutcome::Leader(MissPlan { retry, ..plan }, flight);
                }
                FlightRole::Follower(follower) => follower,
            };
            if let Some(metrics) = self.config.metrics.get(self.route) {
                metrics.collapsed.inc();
            }
            match follower.result().await {
                Some(FlightResult::Reused(reused)) if reused.is_stored_at(&plan.key) => {
                    let freshness = reused.response.freshness;
                    let is_other = reused.ties_with_earlier_language(&self.request.headers);
                    return if is_other || self.is_withheld(&freshness, lookup) {
                        FlightOutcome::NotShared(plan)
                    } else {
                        FlightOutcome::Shared(self.reuse_if_allowed(lookup, reused))
                    };
                }
                Some(FlightResult::Failed(failure)) => {
                    let may_try = failure.retry == Retry::Once && retry == Retry::Once && left > 0;
                    match self.after_failure(lookup, &plan, failure) {
                        FetchOutcome::Failed(_) | FetchOutcome::Streaming(_) if may_try => {
                            retry = Retry::No;
                        }
                        outcome => return FlightOutcome::Shared(outcome),
                    }
                }
                Some(FlightResult::Streaming(streaming)) if self.is_answered_by(&streaming) => {
                    return match streaming.tee.reader() {
                        Some(reader) if !self.is_withheld(&streaming.freshness, lookup) => {
                            let teed = TeedResponse::of_follower(streaming, reader);
                            FlightOutcome::Shared(FetchOutcome::Streaming(teed))
                        }
                        _ => FlightOutcome::NotShared(plan),
                    };
                }
                // The response is a variant, possibly another one. The key of the requested variant
                // is known now.
                Some(FlightResult::Streaming(_) | FlightResult::Reused(_)) => {
                    match self.look_up(lookup, MemoryState::Unknown).await {
                        LookupOutcome::Fresh(stored) => {
                            let reused = ReusedResponse::found(&stored);
                            return FlightOutcome::Shared(FetchOutcome::Reused(reused));
                        }
                        LookupOutcome::Stale(stored, reason) if is_stale_on_error(reason) => {
                            let reused =
                                ReusedResponse::stale_on_error(&stored.response, reason, None);
                            return FlightOutcome::Shared(FetchOutcome::Reused(reused));
                        }
                        LookupOutcome::Stale(stored, reason) => {
                            plan = MissPlan::of_stale(stored, reason);
                        }
                        LookupOutcome::Miss(own) => plan = own,
                    }
                }
                Some(FlightResult::NotShared) | None => return FlightOutcome::NotShared(plan),
            }
        }
        FlightOutcome::NotShared(plan)
    }

    /// Returns the result of another request's fetch. If that is a stale response served because
    /// the origin failed, and this request does not allow stale responses, returns the failure.
    fn reuse_if_allowed(&self, lookup: &LookupRequest, reused: ReusedResponse) -> FetchOutcome {
        let (now, stored) = (self.pipeline.clock.steady(), &reused.response);
        let outage = match reused.reason {
            Some(Reason::StaleIfError) => Outage::Error,
            Some(Reason::StaleIfDisconnected) => Outage::Disconnected,
            _ => return FetchOutcome::Reused(reused),
        };
        let known = (stored.status, &stored.freshness);
        match stale::stale_on_error(known, outage, &lookup.directives, self.rule(), now) {
            Some(_) => FetchOutcome::Reused(reused),
            None => FetchOutcome::Failed(FetchFailure::behind_stale(&reused)),
        }
    }

    /// Returns what this request gets after a shared fetch failed: a stored response if allowed,
    /// otherwise the error response if it is shareable, otherwise the failure.
    fn after_failure(
        &self,
        lookup: &LookupRequest,
        plan: &MissPlan,
        failure: FetchFailure,
    ) -> FetchOutcome {
        let (outage, now) = (failure.outage, self.pipeline.clock.steady());
        let (asked, failed) =
            ((&lookup.directives, self.rule()), (outage, failure.origin_status()));
        if let Some(reused) = self.pipeline.stale_on_error(plan.stored.as_ref(), asked, failed, now)
        {
            return FetchOutcome::Reused(reused);
        }
        let response = failure.response.as_ref().filter(|it| self.may_have_error(lookup, it));
        match response.and_then(|it| Some((Arc::clone(it), it.tee.reader()?))) {
            Some((streaming, reader)) => {
                FetchOutcome::Streaming(TeedResponse::of_follower(streaming, reader))
            }
            None => FetchOutcome::Failed(failure),
        }
    }

    fn may_have_error(&self, lookup: &LookupRequest, response: &StreamingResponse) -> bool {
        let directives = ResponseDirectives::parse(&response.headers);
        self.is_answered_by(response)
            && credential_refusal(lookup.credentials, &directives).is_none()
    }

    /// Joins the flight of this key, or leads it.
    pub(super) fn join_or_lead(&self, lookup: &LookupRequest, key: &CacheKey) -> FlightRole {
        let attributes = self.config.attributes(self.route, lookup.member.as_deref());
        let applied_purges = self.pipeline.log.applied_purges();
        let shared = PlantedBug::CollapseWithoutPartition
            .is_planted()
            .then(|| key_without_partition(key))
            .flatten();
        let key = shared.as_ref().unwrap_or(key);
        self.pipeline.flights.join(key, &attributes, applied_purges, self.received)
    }

    /// Returns whether a shared response must not go to this request: its credentials forbid
    /// sharing, or its own token or that of the fetch has expired in the meantime.
    fn is_withheld(&self, freshness: &Freshness, lookup: &LookupRequest) -> bool {
        let clock = &self.pipeline.clock;
        let has_expired = lookup
            .member
            .as_deref()
            .is_some_and(|member| member.expires.is_some_and(|end| end <= clock.now()));
        has_expired
            || freshness.has_ended(clock.steady())
            || freshness.sharing_refusal(lookup.credentials).is_some()
    }

    fn is_answered_by(&self, streaming: &StreamingResponse) -> bool {
        streaming.answers(&self.config.route(self.route).vary, &self.request.headers)
    }
}

/// Returns the key of the same target without its partition (a planted bug).
#[cold]
fn key_without_partition(key: &CacheKey) -> Option<CacheKey> {
    let target = key.origin_target()?;
    Some(OriginTarget { partition: Cow::Borrowed(&[]), ..target }.key())
}

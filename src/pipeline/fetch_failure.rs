//! Failed fetches: a stale response is served instead, or the followers share the failure.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    admit::{TeeFailGuard, TeedResponse},
    collapse::FlightLeader,
    fetch::{FetchOutcome, OriginFetch, OriginResponse},
    fetch_times::FetchTimes,
    flight_result::{
        FailureCause, FetchFailure, FlightResult, Retry, ReusedResponse, StreamingResponse,
    },
    lookup::StoredMatch,
    recent_failures::{is_slow, outage_of},
    selecting_fields::{selecting_set, selecting_values},
    state::Pipeline,
    tee::TeeBody,
};
use crate::{
    field::{Timestamp, retry_after::retry_after},
    key::vary,
    origin::{ResponseBody, SendFailure},
    policy::{
        CacheResult, CacheRule, Freshness, Reason, RequestDirectives, ResponseDirectives,
        ResponseHead, cache_status, failure::FailureSharing, stale, stale::Outage, stored_fields,
    },
    store::Store,
};

/// Maximum duration of a failed fetch that is retried, so that no client waits twice.
const RETRY_WITHIN: Duration = Duration::from_secs(2);

impl<S> Pipeline<S> {
    /// Returns the stored response if it may be served while the origin fails (RFC 5861 §4, RFC
    /// 9111 §4.2.4), else `None`.
    pub(super) fn stale_on_error(
        &self,
        stored: Option<&StoredMatch>,
        (directives, rule): (&RequestDirectives, &CacheRule),
        (outage, origin_status): (Outage, Option<StatusCode>),
        now: Timestamp,
    ) -> Option<ReusedResponse> {
        // A purge may have arrived during the origin request.
        let stored = stored.filter(|stored| !self.is_purged(&stored.response))?;
        let known = (stored.response.status, &stored.response.freshness);
        let reason = stale::stale_on_error(known, outage, directives, rule, now)?;
        Some(ReusedResponse::stale_on_error(&stored.response, reason, origin_status))
    }
}

impl<S: Store> OriginFetch<S> {
    /// Records whether the fetch of this key failed. `took` is how long the fetch took.
    pub(super) fn note_outage(&self, sent: &Result<OriginResponse, SendFailure>, took: Duration) {
        let recent_failures = &self.context.pipeline.recent_failures;
        let outage = match sent {
            Ok(origin_response) if !origin_response.is_failure() => {
                return recent_failures.forget(&self.context.key);
            }
            Ok(_) if is_slow(took) => Outage::Error,
            Ok(_) => return,
            Err(origin_failure) => outage_of(origin_failure),
        };
        if self.stored.is_some() && self.context.is_representative() {
            let now = self.context.pipeline.clock.steady();
            recent_failures.note_key(&self.context.key, (outage, took), now);
        }
    }

    /// Returns the outcome of an origin request without a response, and publishes it.
    pub(super) fn on_error(
        self,
        origin_failure: SendFailure,
        flight: Option<&FlightLeader>,
    ) -> FetchOutcome {
        let outage = outage_of(&origin_failure);
        if let Some(reused) =
            self.stale_on_error((outage, None), self.context.pipeline.clock.steady())
        {
            return FetchOutcome::Reused(reused).published(flight);
        }
        let cause = FailureCause::Error(Arc::new(origin_failure.error));
        let failure = FetchFailure { cause, outage, response: None, retry: Retry::No };
        FetchOutcome::Failed(failure).published(flight)
    }

    /// Returns the outcome after another node's fetch failed, and publishes it to this node's
    /// followers.
    pub(super) fn on_error_of_other_node(
        self,
        failure: FetchFailure,
        flight: &FlightLeader,
    ) -> FetchOutcome {
        let known = (failure.outage, failure.origin_status());
        if let Some(reused) = self.stale_on_error(known, self.context.pipeline.clock.steady()) {
            return FetchOutcome::Reused(reused).published(Some(flight));
        }
        FetchOutcome::Failed(failure).published(Some(flight))
    }

    /// Returns the stored response if it may be served while the origin fails, else `None`.
    pub(super) fn stale_on_error(
        &self,
        failed: (Outage, Option<StatusCode>),
        now: Timestamp,
    ) -> Option<ReusedResponse> {
        let stored = self.stored.as_ref().filter(|_| self.recheck.is_none());
        let request = (&self.context.directives, self.context.rule());
        self.context.pipeline.stale_on_error(stored, request, failed, now)
    }

    /// Publishes a transient error to followers: the response if they may share it, otherwise only
    /// the status.
    pub(super) fn share_error(
        self,
        (response, times): (Response<ResponseBody>, FetchTimes),
        reason: Reason,
        (sharing, took): (FailureSharing, Duration),
        flight: &FlightLeader,
    ) -> FetchOutcome {
        let wait = retry_after(response.headers(), times.received_at).map(|wait| wait.as_secs());
        let retry_after = wait.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        let status = response.status();
        let retry = match self.retry {
            Retry::Once if is_worth_retry((status, retry_after), took) => Retry::Once,
            _ => Retry::No,
        };
        let kept_back = if let FailureSharing::Status(why) = sharing { why } else { reason };
        let cause = FailureCause::Response { status, retry_after, reason: kept_back };
        let publish = |response| {
            let failure = FetchFailure { cause, outage: Outage::Error, response, retry };
            flight.publish(FlightResult::Failed(failure));
        };
        if sharing != FailureSharing::Response {
            publish(None);
            return FetchOutcome::NotShared(response, reason);
        }
        let teed = self.tee((response, times), reason);
        publish(Some(Arc::clone(&teed.streaming)));
        FetchOutcome::Streaming(teed)
    }

    /// Returns an error response that all its requesters read. No part of it is stored.
    fn tee(
        &self,
        (response, times): (Response<ResponseBody>, FetchTimes),
        why: Reason,
    ) -> TeedResponse {
        let (mut head, body) = response.into_parts();
        let (config, route) = (&self.context.config, self.context.matched_route());
        let set = selecting_set(config, route, &head.headers);
        let is_variant = !set.is_empty() || !route.vary.cookies.is_empty();
        let variant = is_variant.then(|| {
            let values = selecting_values(&set, &route.vary, &self.context.request.headers);
            (set, values)
        });
        vary::add_to_vary(&mut head.headers, route.vary.fields());
        let directives = ResponseDirectives::parse(&head.headers);
        let received = ResponseHead {
            status: head.status,
            headers: &head.headers,
            requested_at: times.requested_at,
            received_at: times.received_at,
        };
        let (freshness, _) = Freshness::on_receipt(&received, &directives, self.context.rule());
        let share = self.context.pipeline.fill_budget.share();
        let (tee, reader) =
            TeeBody::with_reader(body.size_hint().exact(), self.context.max_body_bytes(), share);
        let streaming = Arc::new(StreamingResponse {
            status: head.status,
            headers: stored_fields(&head.headers, &directives),
            freshness: Freshness { received_at: times.received_steady, ..freshness },
            stored: cache_status::StoredStatus::No,
            tags: None,
            tee: Arc::clone(&tee),
            variant,
            by_cookies: false,
            result: CacheResult::Miss,
            refusal: Some(why),
        });
        tokio::spawn(pump(body, tee));
        TeedResponse { streaming, headers: head.headers, reader }
    }
}

/// Moves the body of an error response to its readers.
async fn pump(mut body: ResponseBody, tee: Arc<TeeBody>) {
    let guard = TeeFailGuard(&tee);
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        match frame.into_data() {
            Ok(chunk) => {
                if tee.push(chunk).await.is_err() {
                    return;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if let Some(proof) = body.completion() {
        tee.complete(trailers, proof);
    }
    drop(guard);
}

/// Returns whether one follower retries before all of them receive the error response.
///
/// The leader's request may have caused the error, by a field that crashes the origin or by
/// exceeding its client's rate limit. Except after a `429`, a `Retry-After` forbids the retry.
fn is_worth_retry((status, retry_after): (StatusCode, Option<u32>), took: Duration) -> bool {
    let is_asked_to_wait = retry_after.is_some_and(|seconds| seconds > 0);
    let is_about_client = status == StatusCode::TOO_MANY_REQUESTS;
    (is_about_client || !is_asked_to_wait) && took <= RETRY_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_tried_once_more_unless_the_origin_says_when_or_is_slow() {
        let (soon, late) = (Duration::from_millis(500), Duration::from_millis(2001));
        for (status, retry_after, took, expected) in [
            (500, None, soon, true),
            (503, None, soon, true),
            (503, Some(0), soon, true),
            (503, Some(5), soon, false),
            (429, Some(5), soon, true),
            (502, None, late, false),
            (429, None, late, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_worth_retry((status, retry_after), took), expected, "{status} {took:?}");
        }
    }
}

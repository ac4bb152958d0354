//! What becomes of a fetch that failed: a stale response stands in, or those who wait share the failure.

use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;

use super::{
    Pipeline, admit,
    admit::Arrival,
    collapse::Takeoff,
    fetch::{Answer, Ask, Exchange, Fetched, settle},
    fill::Fill,
    landing::{Again, Arriving, Cause, Failure, Landing, Settled},
    lookup::{self, Stored},
    outages::is_slow,
};
use crate::{
    field::{Timestamp, retry_after::retry_after},
    key::vary,
    origin::{ResponseBody, Unanswered},
    policy::{
        CacheResult, Freshness, Reason, RequestDirectives, ResponseDirectives, ResponseHead, Rule,
        cache_status, failure::Sharing, stale, stale::Outage, stored_fields,
    },
    store::Store,
};

/// A failure that took longer than this is not tried again: nobody waits for long twice.
const AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// An error response that is not stored, and why.
pub struct Refused {
    pub response: Response<ResponseBody>,
    pub exchange: Exchange,
    pub reason: Reason,
}

impl<S> Pipeline<S> {
    /// Returns what is stored, if it may stand in for an origin that fails (RFC 5861 §4, RFC 9111 §4.2.4).
    pub(super) fn bridge(
        &self,
        stored: Option<&Stored>,
        (directives, rule): (&RequestDirectives, &Rule),
        (outage, origin_status): (Outage, Option<StatusCode>),
        now: Timestamp,
    ) -> Option<Settled> {
        // A purge may have come while the origin was asked.
        let stored = stored.filter(|stored| !self.is_gone(&stored.response))?;
        let known = (stored.response.status, &stored.response.freshness);
        let reason = stale::bridge(known, outage, directives, rule, now)?;
        Some(Settled::bridging(&stored.response, reason, origin_status))
    }
}

impl<S: Store> Ask<S> {
    /// Notes whether fetches of this key fail, for those who ask next. `took` is how long this one needed.
    pub(super) fn note_outage(&self, sent: &Result<Answer, Unanswered>, took: Duration) {
        let outages = &self.pipeline.outages;
        let outage = match sent {
            Ok(answer) if !answer.is_failure() => return outages.forget(&self.key),
            Ok(_) if is_slow(took) => Outage::Error,
            Ok(_) => return,
            Err(unanswered) => outage_of(unanswered),
        };
        if self.stored.is_some() && self.speaks_for_all() {
            outages.note_key(&self.key, (outage, took), self.pipeline.clock.steady());
        }
    }

    /// There was no response.
    pub(super) fn failed(self, unanswered: Unanswered, flight: Option<&Takeoff>) -> Fetched {
        let outage = outage_of(&unanswered);
        if let Some(settled) = self.stale_instead((outage, None), self.pipeline.clock.steady()) {
            return settle(settled, flight);
        }
        let cause = Cause::Error(Arc::new(unanswered.error));
        let failure = Failure { cause, outage, response: None, again: Again::No };
        if let Some(flight) = flight {
            flight.land(Landing::Failed(failure.clone()));
        }
        Fetched::Failed(failure)
    }

    /// Another node's fetch failed, and those who wait here get no better.
    pub(super) fn failed_elsewhere(self, failure: Failure, flight: &Takeoff) -> Fetched {
        let known = (failure.outage, failure.origin_status());
        if let Some(settled) = self.stale_instead(known, self.pipeline.clock.steady()) {
            return settle(settled, Some(flight));
        }
        flight.land(Landing::Failed(failure.clone()));
        Fetched::Failed(failure)
    }

    /// Returns what is stored, if it may stand in for an origin that fails.
    pub(super) fn stale_instead(
        &self,
        failed: (Outage, Option<StatusCode>),
        now: Timestamp,
    ) -> Option<Settled> {
        let stored = self.stored.as_ref().filter(|_| self.recheck.is_none());
        self.pipeline.bridge(stored, (&self.directives, self.rule()), failed, now)
    }

    /// Gives a passing failure to those who wait for it, as far as they may have it.
    pub(super) fn share(
        self,
        refused: Refused,
        (sharing, took): (Sharing, Duration),
        flight: &Takeoff,
    ) -> Fetched {
        let Refused { response, exchange, reason } = refused;
        let wait = retry_after(response.headers(), exchange.answered).map(|wait| wait.as_secs());
        let retry_after = wait.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        let status = response.status();
        let again = match self.again {
            Again::Once if is_worth_another((status, retry_after), took) => Again::Once,
            _ => Again::No,
        };
        let kept_back = if let Sharing::Status(why) = sharing { why } else { reason };
        let cause = Cause::Response { status, retry_after, reason: kept_back };
        let land = |response| {
            let failure = Failure { cause, outage: Outage::Error, response, again };
            flight.land(Landing::Failed(failure));
        };
        if sharing != Sharing::Response {
            land(None);
            return Fetched::Alone(response, reason);
        }
        let arrival = self.tee((response, exchange), reason);
        land(Some(Arc::clone(&arrival.arriving)));
        Fetched::Arriving(arrival)
    }

    /// Reads an error response for all who get it. Nothing of it is stored.
    fn tee(
        &self,
        (response, exchange): (Response<ResponseBody>, Exchange),
        why: Reason,
    ) -> Arrival {
        let (mut head, body) = response.into_parts();
        let (site, route) = (&self.site, self.site.route(self.route));
        let set = admit::selecting_set(site, route, &head.headers);
        let is_variant = !set.is_empty() || !route.vary.cookies.is_empty();
        let variant = is_variant.then(|| {
            let values = lookup::selecting(&set, &route.vary, &self.request.headers);
            (set, values)
        });
        vary::name_all(&mut head.headers, route.vary.fields());
        let directives = ResponseDirectives::parse(&head.headers);
        let received = ResponseHead {
            status: head.status,
            headers: &head.headers,
            requested_at: exchange.asked,
            received_at: exchange.answered,
        };
        let (freshness, _) = Freshness::on_receipt(&received, &directives, self.rule());
        let share = self.pipeline.filling.share();
        let (fill, reader) = Fill::with_reader(body.size_hint().exact(), self.limit(), share);
        let arriving = Arc::new(Arriving {
            status: head.status,
            headers: stored_fields(&head.headers, &directives),
            freshness: Freshness { received_at: exchange.received, ..freshness },
            stored: cache_status::Stored::No,
            tags: None,
            fill: Arc::clone(&fill),
            variant,
            by_cookies: false,
            result: CacheResult::Miss,
            refusal: Some(why),
        });
        tokio::spawn(pump(body, fill));
        Arrival { arriving, headers: head.headers, reader }
    }
}

/// Moves an error's body to its readers.
async fn pump(mut body: ResponseBody, fill: Arc<Fill>) {
    let guard = admit::FailUnlessComplete(&fill);
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        match frame.into_data() {
            Ok(chunk) => {
                if fill.push(chunk).await.is_err() {
                    return;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if let Some(proof) = body.completion() {
        fill.complete(trailers, proof);
    }
    drop(guard);
}

/// How an origin that gave no response failed.
pub fn outage_of(unanswered: &Unanswered) -> Outage {
    if unanswered.is_disconnected { Outage::Disconnected } else { Outage::Error }
}

/// Whether one of those who wait for an error response tries once more before all of them get it.
///
/// The request that brought it may have caused it: by a field that crashes the origin, or by its client's
/// share of a rate limit. But an origin that says when to come again is heeded.
fn is_worth_another((status, retry_after): (StatusCode, Option<u32>), took: Duration) -> bool {
    let is_asked_to_wait = retry_after.is_some_and(|seconds| seconds > 0);
    let is_about_client = status == StatusCode::TOO_MANY_REQUESTS;
    (is_about_client || !is_asked_to_wait) && took <= AGAIN_WITHIN
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
            assert_eq!(
                is_worth_another((status, retry_after), took),
                expected,
                "{status} {took:?}"
            );
        }
    }
}

//! Background refresh of stale responses.

use std::sync::Arc;

use http::{header, request::Parts};

use super::{
    collapse::FlightRole, fetch::Requester, lookup::StoredMatch, miss_plan::MissPlan,
    receive::LookupRequest, request_context::RequestContext, tee::DrainOutcome,
};
use crate::{
    field::presence::FieldPresence,
    policy::{Reason, RequestDirectives},
    purge::planted::{self, PlantedBug},
    store::Store,
};

impl<S: Store> RequestContext<S> {
    /// Refreshes a stored response in the background.
    ///
    /// Does nothing if a refresh is in progress, a backoff is in effect, or the origin fails and no
    /// probe is due. The refresh is Larder's own request, so the client's directives do not apply.
    pub(super) fn refresh(&self, lookup: &LookupRequest, stored: &StoredMatch, reason: Reason) {
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let backoff = &pipeline.backoff;
        if backoff.is_backing_off(&stored.key, now)
            || backoff.is_postponed(&stored.key, now)
            || !pipeline.recent_failures.allows_fetch(&stored.key, now)
        {
            return;
        }
        let FlightRole::Leader(flight) = self.join_or_lead(lookup, &stored.key) else { return };
        let plan = MissPlan::of_stale(stored.clone(), reason);
        let request = if lookup.presence.has(FieldPresence::DIRECTIVES) {
            without_directives(&self.request)
        } else {
            Arc::clone(&self.request)
        };
        let request = if PlantedBug::RefreshForAnother.is_planted() {
            with_other_credentials(&request)
        } else {
            request
        };
        let mut fetch = self.new_fetch(lookup, plan, (&request, RequestDirectives::default()));
        fetch.requester = Requester::Background;
        let (pipeline, key) = (Arc::clone(&self.pipeline), stored.key.clone());
        tokio::spawn(async move {
            // A body that no client waits for is stored only if it fits into memory.
            if fetch.run(Some(flight)).await.drain().await == DrainOutcome::NotKept {
                pipeline.backoff.postpone(&key, pipeline.clock.steady());
            }
        });
    }
}

/// Returns the same request with other credentials (a planted bug).
#[cold]
pub(super) fn with_other_credentials(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    if let Some(credentials) = request.headers.get_mut(header::AUTHORIZATION) {
        planted::swap_credentials(credentials);
    }
    Arc::new(request)
}

fn without_directives(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    request.headers.remove(header::CACHE_CONTROL);
    request.headers.remove(header::PRAGMA);
    Arc::new(request)
}

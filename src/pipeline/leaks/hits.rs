//! Sampled hits: a few hits wait for a hit by another requester on the same target.

use std::{sync::Arc, time::Instant};

use tokio::time::sleep;

use super::{detector::PAIR_WINDOW, probe::ProbeRequest};
use crate::{
    pipeline::{credentials, receive::LookupRequest, request_context::RequestContext},
    store::Store,
};

impl<S: Store> RequestContext<S> {
    /// Counts a hit. Compares a sampled hit with the waiting hit, or lets it wait for one second.
    pub(in crate::pipeline) fn note_hit_for_comparison(&self, lookup: &LookupRequest) {
        let (config, route) = (&self.config, self.route);
        let Some(watch) = config.watch(route) else { return };
        let target = lookup.target.digest();
        if !credentials::may_be_present(config, lookup.presence) || !watch.samples(target) {
            return;
        }
        let origin_request = self.origin_request(Some(&lookup.target));
        let asked = (config, route, &self.request);
        let hold = || self.held_credentials(lookup, &self.request);
        let Some(request) = ProbeRequest::of(asked, lookup, &origin_request, hold) else {
            return watch.skip();
        };
        let (leaks, now) = (&self.pipeline.leaks, Instant::now());
        if let Some(first) = leaks.take_match(target, &request) {
            watch.stop_waiting();
            let _begun_or_not = self.pipeline.compare_soon([first, request]);
        } else if watch.begin_waiting(target, now) {
            leaks.wait(target, request, now);
            let (pipeline, watch) = (Arc::clone(&self.pipeline), Arc::clone(watch));
            let route: Box<str> = config.route_name(route).into();
            tokio::spawn(async move {
                sleep(PAIR_WINDOW).await;
                pipeline.leaks.stop_waiting(&route, now);
                watch.stop_waiting_since(now);
            });
        } else {
            watch.skip();
        }
    }
}

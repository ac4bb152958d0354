//! The fresh stored response to a request, if this node's memory has it.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    credentials,
    lookup::{self, LookupCriteria, MemoryState},
    receive::LookupRequest,
    representation::{self, FormChoice, FormRequest, Representation},
    request_context::{RequestContext, evaluate_reuse},
    state::Pipeline,
};
use crate::{entry::StoredResponse, policy::Reuse, store::Store};

impl<S: Store> Pipeline<S> {
    /// Responds with the fresh stored response to a request, if memory has it in the form that the
    /// client receives. Otherwise returns what the lookup found.
    #[inline]
    pub(super) fn respond_from_memory<T>(
        &self,
        (config, route): (&ConfigSnapshot, usize),
        headers: &HeaderMap,
        lookup: &LookupRequest,
        received: ReceivedAt,
        respond: impl FnOnce(&Arc<StoredResponse>, Representation<'_>) -> T,
    ) -> Result<T, MemoryState> {
        let stored = self.fresh_in_memory(config, route, headers, lookup, received)?;
        let route = config.route(route);
        let request = FormRequest::of(route, headers, lookup.presence);
        match representation::choose(route, request, &stored) {
            FormChoice::Ready(form) => Ok(respond(&stored, form)),
            FormChoice::Missing(_) => Err(MemoryState::Unknown),
        }
    }

    /// Returns the fresh stored response to a request if it is in memory, otherwise what the lookup
    /// found. Has no effect except that it marks entries as used.
    fn fresh_in_memory(
        &self,
        config: &ConfigSnapshot,
        route: usize,
        headers: &HeaderMap,
        lookup: &LookupRequest,
        received: ReceivedAt,
    ) -> Result<Arc<StoredResponse>, MemoryState> {
        let index = route;
        let route = config.route(route);
        let (vary, applied_purges) = (&route.vary, self.log.applied_purges());
        if let Some(member) = lookup.member.as_deref()
            && !self.is_accepted(config, &route.name, (member, lookup), received)
        {
            return Err(MemoryState::Unknown);
        }
        let (started, version) = (received.started, &*config.version);
        let presence = lookup.presence;
        let criteria = LookupCriteria { vary, headers, presence, applied_purges, started, version };
        let stored = lookup::find_in_memory(&self.store, &lookup.target, &criteria)?;
        match evaluate_reuse(&stored, lookup, &route.rule, received.steady) {
            Reuse::Fresh => {
                if credentials::may_be_present(config, lookup.presence)
                    && let Some(watch) = config.watch(index)
                    && watch.samples(lookup.target.digest())
                {
                    return Err(MemoryState::Unknown);
                }
                stored.mark_used();
                Ok(stored)
            }
            _ => Err(MemoryState::Unknown),
        }
    }
}

impl<S: Store> RequestContext<S> {
    /// Returns the fresh stored response to the request if it is in memory.
    pub(super) fn fresh_in_memory(&self, lookup: &LookupRequest) -> Option<Arc<StoredResponse>> {
        let Self { pipeline, config, route, request, received, .. } = self;
        pipeline.fresh_in_memory(config, *route, &request.headers, lookup, *received).ok()
    }
}

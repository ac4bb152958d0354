//! Audits: a hit is compared in the background with the origin's response.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::BodyExt as _;

use super::{
    comparing::{compare, compare_without_body, joined},
    figures::ComparisonRecord,
};
use crate::{
    comparison::{ComparedResponse, Comparison, SkipReason},
    entry::StoredResponse,
    fence::PurgeVerdict,
    origin::{OriginRequest, ResponseBody},
    pipeline::{
        clock::ReceivedAt,
        config_snapshot::ConfigSnapshot,
        lookup::{ForcedStaleness, StoredMatch},
        miss_plan::MissPlan,
        receive::LookupRequest,
        request_context::RequestContext,
        send::send,
        sensitive::shown_path,
        state::Pipeline,
        tee::{BudgetShare, BudgetState},
    },
    policy::{Reason, validation},
    route::Route,
    server::Connection,
    store::Store,
};

/// A hit to audit.
pub(in crate::pipeline) struct AuditedHit<S> {
    pub(in crate::pipeline) context: RequestContext<S>,
    pub(in crate::pipeline) lookup: LookupRequest,
    pub(in crate::pipeline) stored: Arc<StoredResponse>,
}

/// A hit to audit, which was answered before the request had a context.
pub(in crate::pipeline) struct HitToAudit {
    pub(in crate::pipeline) config: Arc<ConfigSnapshot>,
    pub(in crate::pipeline) route: usize,
    pub(in crate::pipeline) lookup: LookupRequest,
    pub(in crate::pipeline) stored: Arc<StoredResponse>,
}

impl HitToAudit {
    /// Audits the hit in the background.
    pub(in crate::pipeline) fn start<S: Store>(
        self,
        pipeline: &Arc<Pipeline<S>>,
        request: Parts,
        arrival: (Arc<Connection>, ReceivedAt),
    ) {
        let Self { config, route, lookup, stored } = self;
        let request = (Arc::new(request), lookup.presence);
        let context = RequestContext::new(pipeline, (&config, route), request, arrival);
        AuditedHit { context, lookup, stored }.start();
    }
}

/// Returns whether a hit is audited: it is a `GET`, and is sampled at the route's rate.
pub(in crate::pipeline) fn is_audited(route: &Route, method: &Method) -> bool {
    let Some(rate) = route.verification.audit() else { return false };
    *method == Method::GET && rate.draws(fastrand::u32(..))
}

impl<S: Store> AuditedHit<S> {
    /// Audits the hit in the background. Does not change stored responses.
    pub(in crate::pipeline) fn start(self) {
        let RequestContext { pipeline, config, route, .. } = &self.context;
        let Some(figures) = config.figures.get(*route).cloned() else { return };
        figures.begin((pipeline.clock.now(), pipeline.clock.steady()));
        figures.note_audited();
        let Some(slot) = pipeline.verification_slots.audit() else {
            return figures.note_skipped(SkipReason::Busy);
        };
        tokio::spawn(async move {
            let age_at_hit = self.stored.freshness.current_age(self.context.received.steady);
            let comparison = self.compare().await;
            let RequestContext { config, route, request, pipeline, .. } = &self.context;
            figures.note_comparison(ComparisonRecord {
                comparison,
                age: age_at_hit,
                inputs: None,
                path: shown_path(config.route(*route), request.uri.path()).into_owned(),
                at: pipeline.clock.now(),
            });
            drop(slot);
        });
    }

    async fn compare(&self) -> Comparison {
        let RequestContext { pipeline, config, .. } = &self.context;
        let requested = pipeline.stamp();
        let mut request = self.origin_request();
        let Ok((response, _)) = send(pipeline, config, &mut request, None).await else {
            return Comparison::Skipped(SkipReason::OriginError);
        };
        let plan = MissPlan::of_stale(self.stored_match(), Reason::RuleBypass);
        let used = Some((&self.lookup, &plan));
        self.context.apply_credential_verdict(used, response.status(), requested).await;
        let (head, body) = response.into_parts();
        let share = pipeline.fill_budget.share();
        let content = read(body, pipeline.store.max_entry_size(), share).await;
        if self.is_purged_since() {
            return Comparison::Skipped(SkipReason::Purged);
        }
        if let Some(comparison) =
            compare_without_body(&self.stored, (head.status, &head.headers), false)
        {
            return comparison;
        }
        let (body, _share) = match content {
            Ok(content) => content,
            Err(reason) => return Comparison::Skipped(reason),
        };
        let live = ComparedResponse { status: head.status, headers: head.headers, body };
        let ignore = &config.route(self.context.route).comparison.ignore;
        compare(pipeline, &self.stored, live, ignore).await
    }

    /// Returns the stored response in the form that a lookup returns.
    fn stored_match(&self) -> StoredMatch {
        let (key, response) = (self.lookup.target.clone(), Arc::clone(&self.stored));
        StoredMatch { key, response, forced_staleness: ForcedStaleness::None }
    }

    /// Returns the request that a fetch for the cache would send.
    fn origin_request(&self) -> OriginRequest {
        let mut request = self.context.origin_request(Some(&self.lookup.target));
        request.fields.change(|headers| {
            validation::make_unconditional(headers);
            without_directives(headers);
        });
        request
    }

    /// Returns whether a purge has selected the response since the hit. If so, the response was
    /// right at the time of the hit.
    fn is_purged_since(&self) -> bool {
        let applied_purges = self.context.pipeline.log.applied_purges();
        applied_purges.judge(&self.stored, Instant::now()) != PurgeVerdict::Alive
    }
}

/// Removes the client's directives, which do not apply to Larder's own request.
fn without_directives(headers: &mut HeaderMap) {
    headers.remove(header::CACHE_CONTROL);
    headers.remove(header::PRAGMA);
}

/// Reads a whole body, within a limit and the memory budget for bodies.
async fn read(
    mut body: ResponseBody,
    limit: usize,
    mut share: BudgetShare,
) -> Result<(Bytes, BudgetShare), SkipReason> {
    let (mut chunks, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| SkipReason::Interrupted)?.into_data() else { continue };
        length += data.len();
        if length > limit {
            return Err(SkipReason::TooLong);
        }
        if share.resize(length) == BudgetState::Exceeded {
            return Err(SkipReason::Busy);
        }
        chunks.push(data);
    }
    body.completion().ok_or(SkipReason::Interrupted)?;
    Ok((joined(&chunks), share))
}

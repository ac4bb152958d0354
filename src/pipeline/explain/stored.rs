//! Explains the stored response and its purges, on a running node.

use super::{
    explanation::{ExplainedPurge, ExplainedStored, HumanDuration},
    request::{PlannedRequest, without_user},
    response::seconds,
};
use crate::{
    entry::Entry,
    fence::PurgeCandidate,
    field::{Rfc3339, Timestamp},
    pipeline::{
        lookup::{ForcedStaleness, StoredMatch},
        miss_plan::LookupOutcome,
        receive::LookupRequest,
        state::Pipeline,
    },
    policy::{CacheResult, CacheRule, Reason},
    store::Store,
};

/// The result of a lookup at one moment.
pub(super) struct LookupSnapshot {
    pub(super) outcome: LookupOutcome,
    /// The time by the node's monotonic clock.
    pub(super) steady: Timestamp,
}

impl LookupSnapshot {
    /// Returns the stored response, fresh or not.
    pub(super) fn stored(&self) -> Option<&StoredMatch> {
        match &self.outcome {
            LookupOutcome::Fresh(stored) | LookupOutcome::Stale(stored, _) => Some(stored),
            LookupOutcome::Miss(plan) => plan.stored.as_ref(),
        }
    }

    /// Returns the result for the client if no origin request is needed, else `None`.
    pub(super) fn without_origin(&self) -> Option<(CacheResult, Option<Reason>, &'static str)> {
        match &self.outcome {
            LookupOutcome::Fresh(_) => {
                Some((CacheResult::Hit, None, "The stored response is fresh, and is served."))
            }
            LookupOutcome::Stale(_, reason) => {
                let means = "The stored response is stale, but may be served.";
                Some((CacheResult::Stale, Some(*reason), means))
            }
            LookupOutcome::Miss(_) => None,
        }
    }

    /// Returns why an origin request is needed.
    pub(super) fn needed_because(&self) -> Reason {
        match &self.outcome {
            LookupOutcome::Miss(plan) => plan.reason,
            LookupOutcome::Fresh(_) | LookupOutcome::Stale(..) => Reason::Cold,
        }
    }

    /// Returns whether the request may join or lead a shared fetch.
    pub(super) fn may_be_shared(&self, lookup: &LookupRequest, rule: &CacheRule) -> bool {
        match &self.outcome {
            LookupOutcome::Miss(plan) => plan.may_be_shared(lookup, rule),
            LookupOutcome::Fresh(_) | LookupOutcome::Stale(..) => false,
        }
    }
}

impl<S: Store> Pipeline<S> {
    pub(super) fn stored(
        &self,
        planned: &PlannedRequest<'_>,
        lookup: &LookupRequest,
        snapshot: &LookupSnapshot,
    ) -> Option<ExplainedStored> {
        let user = lookup.member.as_deref().and_then(|member| member.user.as_deref());
        let StoredMatch { key, response, forced_staleness } = snapshot.stored()?;
        let freshness = &response.freshness;
        let left = freshness.ttl(snapshot.steady);
        let is_fresh = freshness.is_fresh(snapshot.steady);
        let variants = match self.store.peek(&lookup.target) {
            Some(Entry::Variants(variants)) => Some(variants.recent.len()),
            _ => None,
        };
        Some(ExplainedStored {
            status: response.status.as_u16(),
            tier: if self.store.peek(key).is_some() { "memory" } else { "redis" },
            age: seconds(freshness.age_seconds(snapshot.steady).into()),
            fresh_for: is_fresh.then(|| seconds(left)),
            stale_for: (!is_fresh).then(|| HumanDuration(freshness.staleness(snapshot.steady))),
            fetched_after: response.fence().seq,
            made_stale_by: match forced_staleness {
                ForcedStaleness::None => None,
                ForcedStaleness::SoftPurged => Some("a soft purge"),
                ForcedStaleness::PreviousVersion => Some("a new namespace version"),
            },
            bytes: response.body_length(),
            encoding: planned.encoding_of_stored(response),
            tags: response.tags().map(|tag| without_user(tag, user)).collect(),
            variants,
        })
    }

    /// Returns the last purge that selects the response.
    ///
    /// If nothing is stored, the route's tags are used. Returns `None` if there is no such purge.
    pub(super) fn purged_by(
        &self,
        planned: &PlannedRequest<'_>,
        lookup: &LookupRequest,
        snapshot: &LookupSnapshot,
    ) -> Option<ExplainedPurge> {
        let stored = snapshot.stored().map(|stored| &stored.response);
        let url = lookup.target.purge_url();
        let attributes = planned.config.attributes(planned.route, lookup.member.as_deref());
        let tags =
            planned.matched_route().tags_of(&planned.readings(), planned.query(), planned.user());
        let records = self.log.recent_records();
        let record = records.iter().find(|record| {
            record.purge.selectors.iter().any(|selector| match stored {
                Some(response) => selector.selects(&response.purge_candidate()),
                None => selector.selects(&PurgeCandidate {
                    url: url.as_bytes(),
                    tags: tags.iter().map(String::as_str),
                    attributes: attributes.as_attributes(),
                }),
            })
        })?;
        Some(ExplainedPurge {
            seq: record.seq,
            at: Rfc3339(record.at).to_string(),
            mode: record.purge.mode.as_str(),
            source: record.purge.source.as_str(),
            is_before: stored.is_some_and(|stored| stored.fence().seq >= record.seq),
        })
    }
}

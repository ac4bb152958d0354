//! What is explained of what is stored: only a running node knows.

use super::{
    PurgedBy, Span, StoredFound,
    request::{Planned, without_user},
    response::seconds,
};
use crate::{
    entry::Entry,
    fence::Subject,
    field::{Rfc3339, Timestamp},
    pipeline::{
        Pipeline,
        inquiry::Weighed,
        lookup::{SoftPurge, Stored},
        receive::Lookup,
    },
    policy::{CacheResult, Reason, Rule},
    store::Store,
};

/// What a lookup for the request comes to now.
pub(super) struct Seen {
    pub(super) weighed: Weighed,
    /// When, by the node's own clock.
    pub(super) steady: Timestamp,
}

impl Seen {
    /// What is stored, whatever it is good for.
    pub(super) fn stored(&self) -> Option<&Stored> {
        match &self.weighed {
            Weighed::Fresh(stored) | Weighed::Stale(stored, _) => Some(stored),
            Weighed::Needed(need) => need.stored.as_ref(),
        }
    }

    /// What the client gets without the origin.
    pub(super) fn at_once(&self) -> Option<(CacheResult, Option<Reason>, &'static str)> {
        match &self.weighed {
            Weighed::Fresh(_) => {
                Some((CacheResult::Hit, None, "What is stored is fresh, and answers it."))
            }
            Weighed::Stale(_, reason) => {
                let means = "What is stored is stale, and answers it all the same.";
                Some((CacheResult::Stale, Some(*reason), means))
            }
            Weighed::Needed(_) => None,
        }
    }

    /// Why the origin has to be asked.
    pub(super) fn needed_because(&self) -> Reason {
        match &self.weighed {
            Weighed::Needed(need) => need.reason,
            Weighed::Fresh(_) | Weighed::Stale(..) => Reason::Cold,
        }
    }

    /// Whether the request may share a fetch with others.
    pub(super) fn may_be_shared(&self, lookup: &Lookup, rule: &Rule) -> bool {
        match &self.weighed {
            Weighed::Needed(need) => need.may_be_shared(lookup, rule),
            Weighed::Fresh(_) | Weighed::Stale(..) => false,
        }
    }
}

impl<S: Store> Pipeline<S> {
    pub(super) fn stored(&self, lookup: &Lookup, seen: &Seen) -> Option<StoredFound> {
        let user = lookup.member.as_deref().and_then(|member| member.user.as_deref());
        let Stored { key, response, purged } = seen.stored()?;
        let freshness = &response.freshness;
        let left = freshness.ttl(seen.steady);
        let is_fresh = freshness.is_fresh(seen.steady);
        let variants = match self.store.peek(&lookup.target) {
            Some(Entry::Variants(variants)) => Some(variants.recent.len()),
            _ => None,
        };
        Some(StoredFound {
            status: response.status.as_u16(),
            tier: if self.store.peek(key).is_some() { "memory" } else { "redis" },
            age: seconds(freshness.age_seconds(seen.steady).into()),
            fresh_for: is_fresh.then(|| seconds(left)),
            stale_for: (!is_fresh).then(|| Span(freshness.staleness(seen.steady))),
            fetched_after: response.fence().seq,
            made_stale_by: match purged {
                SoftPurge::No => None,
                SoftPurge::Yes => Some("a soft purge"),
                SoftPurge::Outdated => Some("a new version of the namespace"),
            },
            bytes: response.body_length(),
            tags: response.tags().map(|tag| without_user(tag, user)).collect(),
            variants,
        })
    }

    /// The last purge that selects the response to a request: the stored one, or one with the tags that
    /// the route gives it.
    pub(super) fn purged_by(
        &self,
        planned: &Planned<'_>,
        lookup: &Lookup,
        seen: &Seen,
    ) -> Option<PurgedBy> {
        let stored = seen.stored().map(|stored| &stored.response);
        let url = lookup.target.purge_url();
        let facets = planned.site.facets(planned.route, lookup.member.as_deref());
        let tags =
            planned.rule_route().tags_of(&planned.readings(), planned.query(), planned.user());
        let records = self.log.recent();
        let record = records.iter().find(|record| {
            record.purge.selectors.iter().any(|selector| match stored {
                Some(response) => selector.selects(&response.subject()),
                None => selector.selects(&Subject {
                    url: url.as_bytes(),
                    tags: tags.iter().map(String::as_str),
                    facets: facets.as_facets(),
                }),
            })
        })?;
        Some(PurgedBy {
            seq: record.seq,
            at: Rfc3339(record.at).to_string(),
            mode: record.purge.mode.as_str(),
            source: record.purge.source.as_str(),
            is_before: stored.is_some_and(|stored| stored.fence().seq >= record.seq),
        })
    }
}

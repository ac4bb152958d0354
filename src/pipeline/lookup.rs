//! Lookup: from a key, through the variants of its target, to a stored response.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, header};

use super::selecting_fields::{selecting_values, selecting_values_with};
use crate::{
    entry::{Entry, StoredResponse, VariantIndex, VarySelection},
    fence::PurgeVerdict,
    field::{coding, presence::FieldPresence},
    key::{
        CacheKey,
        vary::{self, Preferences, VarySet},
    },
    policy::{ForwardReason, Reason},
    purge::AppliedPurges,
    route::AddedVary,
    store::Store,
};

/// The result of a lookup in one tier.
pub(super) enum TierLookup {
    /// A response, fresh or stale.
    Found(StoredMatch),
    /// No usable response.
    Absent {
        /// The key to fetch under: the target's key, or the requested variant's.
        key: CacheKey,
        /// Whether the target is missing, or only the variant.
        forward: ForwardReason,
        reason: Reason,
    },
}

/// A stored response that no hard purge selects.
#[derive(Clone)]
pub(super) struct StoredMatch {
    /// The key under which the response is stored: the target's, or the variant's.
    pub key: CacheKey,
    pub response: Arc<StoredResponse>,
    /// Whether the response is stale regardless of its freshness.
    pub forced_staleness: ForcedStaleness,
}

/// Why a stored response is stale regardless of its freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForcedStaleness {
    /// Only its freshness decides whether the response is stale.
    None,
    /// A soft purge selects the response.
    SoftPurged,
    /// The response belongs to the previous version of the namespace.
    PreviousVersion,
}

/// The criteria of a lookup in addition to the key.
#[derive(Clone, Copy)]
pub(super) struct LookupCriteria<'a> {
    /// The fields and cookies that the route adds to `Vary`.
    pub vary: &'a AddedVary,
    pub headers: &'a HeaderMap,
    /// The header fields that the request has.
    pub presence: FieldPresence,
    /// The purges that this node has applied.
    pub applied_purges: &'a AppliedPurges,
    pub started: Instant,
    pub version: &'a str,
}

impl LookupCriteria<'_> {
    /// Returns whether the request accepts the coding of a stored response.
    fn accepts(&self, response: &StoredResponse) -> bool {
        if !self.presence.has(FieldPresence::ACCEPT_ENCODING) {
            return true;
        }
        if !response.has_content_coding {
            return coding::accepts(self.headers, None);
        }
        let fields = response.fields();
        let mut lines = fields.iter().filter(|(name, _)| *name == b"content-encoding");
        lines.all(|(_, line)| coding::accepts(self.headers, Some(line)))
    }

    /// Returns whether a stored response is in the language that the origin would choose; always
    /// `true` if the target does not vary by language.
    fn is_answered_in_language(&self, set: &VarySet, response: &StoredResponse) -> bool {
        !set.contains(&header::ACCEPT_LANGUAGE)
            || !response
                .fields()
                .first("content-language")
                .is_some_and(|language| vary::ties_with_earlier_language(self.headers, language))
    }

    /// Returns whether the selecting fields include the route's fields. Responses stored before a
    /// reload may lack some of them.
    fn is_covered_by(&self, set: &VarySet) -> bool {
        self.vary.headers.iter().all(|name| set.contains(name))
    }

    fn is_outdated(&self, response: &StoredResponse) -> bool {
        response.attributes().version != Some(self.version)
    }
}

/// The tier of the store in which to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// This node's memory.
    Memory,
    /// The tier that the fleet shares.
    Shared,
}

/// What an earlier lookup for a request found in this node's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryState {
    /// Nothing is stored under the key of the request's target.
    Absent,
    /// Memory may have a usable response.
    Unknown,
}

/// Finds the stored response to a request for `target`. If several match, returns the latest (RFC
/// 9111 §4.1).
pub(super) async fn find<S: Store>(
    (store, tier): (&S, Tier),
    target: &CacheKey,
    criteria: &LookupCriteria<'_>,
) -> TierLookup {
    match read_entry((store, tier), target).await {
        None => TierLookup::cold(target),
        Some(Entry::Response(response))
            if criteria.accepts(&response) && criteria.vary.is_empty() =>
        {
            check_fences(target.clone(), response, criteria)
        }
        Some(Entry::Response(_)) => {
            absent(target.clone(), ForwardReason::VaryMiss, Reason::VaryMismatch)
        }
        // Boxed, so that targets without variants do not carry this future.
        Some(Entry::Variants(variants)) => {
            Box::pin(find_among((store, tier), target, &variants, criteria)).await
        }
    }
}

/// Finds the stored response among the variants of a target.
async fn find_among<S: Store>(
    from: (&S, Tier),
    target: &CacheKey,
    variants: &VariantIndex,
    criteria: &LookupCriteria<'_>,
) -> TierLookup {
    let (mut latest, mut missing) = (None, None);
    for selection in variants.selections.iter().filter(|it| criteria.is_covered_by(&it.set)) {
        let key =
            target.variant(&selecting_values(&selection.set, criteria.vary, criteria.headers));
        if let Some(found) = find_variant(from, key.clone(), (&selection.set, criteria)).await {
            latest = Some(later_of(latest, found));
        } else {
            latest = find_by_wider_coding(from, target, (selection, criteria), latest).await;
            latest = by_language(from, target, (selection, criteria), latest).await;
        }
        missing = missing.or(Some(key));
    }
    if let Some((key, response)) = latest {
        return check_fences(key, response, criteria);
    }
    let key = missing.unwrap_or_else(|| target.clone());
    absent(key, ForwardReason::VaryMiss, Reason::VaryMismatch)
}

/// A stored response and its key.
type KeyedResponse = (CacheKey, Arc<StoredResponse>);

/// Returns the later of two matches.
fn later_of(known: Option<KeyedResponse>, found: KeyedResponse) -> KeyedResponse {
    match known {
        Some(known) if known.1.freshness.received_at >= found.1.freshness.received_at => known,
        _ => found,
    }
}

/// Returns the response under a variant's key. Checks its coding only if the target does not vary
/// by `Accept-Encoding`; otherwise the origin chose the coding for this value of the field.
async fn find_variant<S: Store>(
    from: (&S, Tier),
    key: CacheKey,
    (set, criteria): (&VarySet, &LookupCriteria<'_>),
) -> Option<KeyedResponse> {
    let found = if set.contains(&header::ACCEPT_ENCODING) {
        match read_entry(from, &key).await? {
            Entry::Response(response) => Some((key, response)),
            Entry::Variants(_) => None,
        }
    } else {
        find_acceptable(from, key, criteria).await
    };
    found.filter(|(_, response)| criteria.is_answered_in_language(set, response))
}

/// Returns the response under a variant's key, if the request accepts its coding.
async fn find_acceptable<S: Store>(
    from: (&S, Tier),
    key: CacheKey,
    criteria: &LookupCriteria<'_>,
) -> Option<KeyedResponse> {
    match read_entry(from, &key).await? {
        Entry::Response(response) if criteria.accepts(&response) => Some((key, response)),
        _ => None,
    }
}

/// Returns a response fetched for a request that accepts more codings than this request, if this
/// request accepts the coding that the origin chose.
async fn find_by_wider_coding<S: Store>(
    from: (&S, Tier),
    target: &CacheKey,
    (selection, criteria): (&VarySelection, &LookupCriteria<'_>),
    mut latest: Option<KeyedResponse>,
) -> Option<KeyedResponse> {
    if !selection.set.contains(&header::ACCEPT_ENCODING) {
        return latest;
    }
    let Some(own) = vary::canonical_codings(criteria.headers) else { return latest };
    for wider in selection.codings.iter().filter(|it| coding::includes(it, &own)) {
        let other = Preferences { codings: Some(wider), ..Preferences::default() };
        let values = selecting_values_with(&selection.set, criteria.vary, criteria.headers, other);
        if let Some(found) = find_acceptable(from, target.variant(&values), criteria).await
            && criteria.is_answered_in_language(&selection.set, &found.1)
        {
            latest = Some(later_of(latest, found));
        }
    }
    latest
}

/// Returns the response in the client's preferred language that was fetched with other preferences.
/// An origin that has this language would send it to this client too (RFC 9111 §4.1).
async fn by_language<S: Store>(
    from: (&S, Tier),
    target: &CacheKey,
    (selection, criteria): (&VarySelection, &LookupCriteria<'_>),
    latest: Option<KeyedResponse>,
) -> Option<KeyedResponse> {
    if selection.languages.is_empty() {
        return latest;
    }
    let Some(favourite) = vary::favourite_language(criteria.headers) else { return latest };
    let known = selection.languages.iter().find(|known| *known.language == *favourite);
    let Some(known) = known else { return latest };
    let other = Preferences { languages: Some(&known.accepted), ..Preferences::default() };
    let values = selecting_values_with(&selection.set, criteria.vary, criteria.headers, other);
    // Another response may have replaced the response that was fetched for these preferences.
    let is_favourite = |found: &KeyedResponse| {
        found.1.fields().first("content-language").is_some_and(|it| *it == *favourite)
    };
    match find_acceptable(from, target.variant(&values), criteria).await.filter(is_favourite) {
        Some(found) => Some(later_of(latest, found)),
        None => latest,
    }
}

async fn read_entry<S: Store>((store, tier): (&S, Tier), key: &CacheKey) -> Option<Entry> {
    match tier {
        Tier::Memory => store.peek(key),
        Tier::Shared => store.get(key).await,
    }
}

fn check_fences(
    key: CacheKey,
    response: Arc<StoredResponse>,
    criteria: &LookupCriteria<'_>,
) -> TierLookup {
    let forced_staleness = match criteria.applied_purges.judge(&response, criteria.started) {
        PurgeVerdict::Alive | PurgeVerdict::Soft if criteria.is_outdated(&response) => {
            ForcedStaleness::PreviousVersion
        }
        PurgeVerdict::Alive => ForcedStaleness::None,
        PurgeVerdict::Soft => ForcedStaleness::SoftPurged,
        PurgeVerdict::Dead if criteria.applied_purges.is_synced(criteria.started) => {
            return absent(key, ForwardReason::UriMiss, Reason::Purged);
        }
        PurgeVerdict::Dead => return absent(key, ForwardReason::UriMiss, Reason::Unsynced),
    };
    TierLookup::Found(StoredMatch { key, response, forced_staleness })
}

impl TierLookup {
    /// Returns the result for a target that is not stored.
    pub(super) fn cold(target: &CacheKey) -> Self {
        absent(target.clone(), ForwardReason::UriMiss, Reason::Cold)
    }
}

fn absent(key: CacheKey, forward: ForwardReason, reason: Reason) -> TierLookup {
    TierLookup::Absent { key, forward, reason }
}

/// Returns the stored response in memory if no purge selects it, otherwise what the lookup found.
/// Unlike [`find`], tries only the variants for the exact values of the request's fields.
pub(super) fn find_in_memory<S: Store>(
    store: &S,
    target: &CacheKey,
    criteria: &LookupCriteria<'_>,
) -> Result<Arc<StoredResponse>, MemoryState> {
    let response = match store.peek_recent(target, criteria.started).ok_or(MemoryState::Absent)? {
        Entry::Response(response) => {
            Some(response).filter(|response| criteria.vary.is_empty() && criteria.accepts(response))
        }
        Entry::Variants(variants) => {
            let selections =
                variants.selections.iter().filter(|it| criteria.is_covered_by(&it.set));
            let matching = selections.filter_map(|selection| {
                let values = selecting_values(&selection.set, criteria.vary, criteria.headers);
                let is_of_same_codings = selection.set.contains(&header::ACCEPT_ENCODING);
                match store.peek_recent(&target.variant(&values), criteria.started)? {
                    Entry::Response(response) => Some(response).filter(|response| {
                        (is_of_same_codings || criteria.accepts(response))
                            && criteria.is_answered_in_language(&selection.set, response)
                    }),
                    Entry::Variants(_) => None,
                }
            });
            // Selections are ordered by last use: of several matches the first wins.
            matching.reduce(|first, other| {
                let is_later = other.freshness.received_at > first.freshness.received_at;
                if is_later { other } else { first }
            })
        }
    };
    let is_alive = |response: &Arc<StoredResponse>| {
        criteria.applied_purges.judge(response, criteria.started) == PurgeVerdict::Alive
    };
    response.filter(is_alive).ok_or(MemoryState::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::{OriginTarget, uri::Scheme},
        store::MemoryStore,
    };

    #[test]
    fn an_empty_memory_is_known_after_one_look() {
        let (store, vary) = (MemoryStore::new(1 << 20, 1 << 20), AddedVary::default());
        let (headers, applied_purges) = (HeaderMap::new(), AppliedPurges::standalone());
        let criteria = LookupCriteria {
            vary: &vary,
            headers: &headers,
            presence: FieldPresence::default(),
            applied_purges: &applied_purges,
            started: Instant::now(),
            version: "1",
        };
        let target = OriginTarget::plain(Scheme::Http, "h", "/a").key();
        let found = find_in_memory(&store, &target, &criteria);
        assert_eq!(found.err(), Some(MemoryState::Absent));
        assert!(!store.is_shared(&target), "a second tier would be looked into next");
    }
}

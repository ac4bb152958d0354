//! Lookup: from a key, through the variants of its target, to a stored response.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, header};

use crate::{
    entry::{Entry, StoredResponse, VarySelection},
    fence::PurgeVerdict,
    field::{coding, cookie, presence::FieldPresence},
    key::{
        CacheKey,
        vary::{self, Preferences, VarySet},
    },
    policy::{ForwardReason, Reason},
    purge::AppliedPurges,
    route::VaryRule,
    store::Store,
};

/// What stands under a request's key.
pub(super) enum TierLookup {
    /// A response, fresh or stale.
    Found(StoredMatch),
    /// None that may be used. A fetch for this request is known by `key`.
    Absent {
        /// The key of the target, or of the variant asked for.
        key: CacheKey,
        /// Whether the target or only the variant is missing.
        forward: ForwardReason,
        /// Why.
        reason: Reason,
    },
}

/// A stored response that no hard purge selects, and the key under which it stands.
#[derive(Clone)]
pub(super) struct StoredMatch {
    /// The key of the target, or of the variant.
    pub key: CacheKey,
    /// The response.
    pub response: Arc<StoredResponse>,
    /// Whether it is stale whatever its freshness says.
    pub forced_staleness: ForcedStaleness,
}

/// Whether something makes a stored response stale that its freshness does not tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForcedStaleness {
    /// Nothing does.
    None,
    /// A soft purge selects it.
    SoftPurged,
    /// It is of the version of the namespace before.
    PreviousVersion,
}

/// What a stored response is looked up by, besides its key.
#[derive(Clone, Copy)]
pub(super) struct LookupCriteria<'a> {
    /// What its route adds to `Vary`.
    pub vary: &'a VaryRule,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// Which of them there are.
    pub presence: FieldPresence,
    /// What was purged.
    pub applied_purges: &'a AppliedPurges,
    /// When the request came.
    pub started: Instant,
    /// The version of the namespace that is in force.
    pub version: &'a str,
}

impl LookupCriteria<'_> {
    /// Whether the request accepts the coding of a stored response.
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

    /// Whether a stored response is in the language that the request would be answered in, as far as can be
    /// seen, if responses of its target vary by language.
    fn is_answered_in_language(&self, set: &VarySet, response: &StoredResponse) -> bool {
        !set.contains(&header::ACCEPT_LANGUAGE)
            || !response
                .fields()
                .first("content-language")
                .is_some_and(|language| vary::ties_with_earlier_language(self.headers, language))
    }

    /// Whether a set of selecting fields has those that the route names: what was stored before it did has
    /// not.
    fn is_covered_by(&self, set: &VarySet) -> bool {
        self.vary.headers.iter().all(|name| set.contains(name))
    }

    fn is_outdated(&self, response: &StoredResponse) -> bool {
        response.attributes().version != Some(self.version)
    }
}

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// In what is at hand.
    Memory,
    /// In what the fleet shares.
    Shared,
}

/// Finds the stored response to a request for `target`. Of several that match, the latest is taken
/// (RFC 9111 §4.1).
pub(super) async fn find<S: Store>(
    (store, tier): (&S, Tier),
    target: &CacheKey,
    criteria: &LookupCriteria<'_>,
) -> TierLookup {
    let variants = match read_entry((store, tier), target).await {
        None => return absent(target.clone(), ForwardReason::UriMiss, Reason::Cold),
        Some(Entry::Response(response))
            if criteria.accepts(&response) && criteria.vary.is_empty() =>
        {
            return check_fences(target.clone(), response, criteria);
        }
        Some(Entry::Response(_)) => {
            return absent(target.clone(), ForwardReason::VaryMiss, Reason::VaryMismatch);
        }
        Some(Entry::Variants(variants)) => variants,
    };
    let (mut latest, mut missing) = (None, None);
    for selection in variants.selections.iter().filter(|it| criteria.is_covered_by(&it.set)) {
        let key =
            target.variant(&selecting_values(&selection.set, criteria.vary, criteria.headers));
        match find_variant((store, tier), key.clone(), (&selection.set, criteria)).await {
            Some(found) => latest = Some(later_of(latest, found)),
            None => {
                latest = find_by_wider_coding((store, tier), target, (selection, criteria), latest)
                    .await;
                latest = by_language((store, tier), target, (selection, criteria), latest).await;
            }
        }
        missing = missing.or(Some(key));
    }
    if let Some((key, response)) = latest {
        return check_fences(key, response, criteria);
    }
    let key = missing.unwrap_or_else(|| target.clone());
    absent(key, ForwardReason::VaryMiss, Reason::VaryMismatch)
}

/// A stored response and the key under which it is stored.
type KeyedResponse = (CacheKey, Arc<StoredResponse>);

/// The later of two that match.
fn later_of(known: Option<KeyedResponse>, found: KeyedResponse) -> KeyedResponse {
    match known {
        Some(known) if known.1.freshness.received_at >= found.1.freshness.received_at => known,
        _ => found,
    }
}

/// The response under a variant's key. One that was fetched with another `Accept-Encoding` has to have a
/// coding that the request accepts; for the same one the origin itself has chosen.
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

/// The response under a variant's key, if the request accepts its coding.
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

/// What was fetched by a client that accepts all the codings that this one does, and more: its origin chose
/// one of those that this one accepts, too.
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

/// The response in the language that this client prefers to all others, fetched for other preferences. An
/// origin that has this language would send it to this client, too (RFC 9111 §4.1).
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
    match find_acceptable(from, target.variant(&values), criteria).await {
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

fn absent(key: CacheKey, forward: ForwardReason, reason: Reason) -> TierLookup {
    TierLookup::Absent { key, forward, reason }
}

/// The stored response to a request, if it is at hand and no purge selects it: a fresh one is answered
/// with at once. Looks under the request's own values only; [`find`] looks further.
pub(super) fn find_in_memory<S: Store>(
    store: &S,
    target: &CacheKey,
    criteria: &LookupCriteria<'_>,
) -> Option<Arc<StoredResponse>> {
    let response = match store.peek(target)? {
        Entry::Response(response) => {
            Some(response).filter(|response| criteria.vary.is_empty() && criteria.accepts(response))
        }
        Entry::Variants(variants) => {
            let selections =
                variants.selections.iter().filter(|it| criteria.is_covered_by(&it.set));
            let matching = selections.filter_map(|selection| {
                let values = selecting_values(&selection.set, criteria.vary, criteria.headers);
                let is_of_same_codings = selection.set.contains(&header::ACCEPT_ENCODING);
                match store.peek(&target.variant(&values))? {
                    Entry::Response(response) => Some(response).filter(|response| {
                        (is_of_same_codings || criteria.accepts(response))
                            && criteria.is_answered_in_language(&selection.set, response)
                    }),
                    Entry::Variants(_) => None,
                }
            });
            // Of several the first is the one that was named last.
            matching.reduce(|first, other| {
                let is_later = other.freshness.received_at > first.freshness.received_at;
                if is_later { other } else { first }
            })
        }
    };
    response.filter(|response| {
        criteria.applied_purges.judge(response, criteria.started) == PurgeVerdict::Alive
    })
}

/// The canonical text of what selects a variant: the request's values for `set`, and for the cookies
/// that its route names.
pub(super) fn selecting_values(set: &VarySet, rule: &VaryRule, headers: &HeaderMap) -> Vec<u8> {
    selecting_values_with(set, rule, headers, Preferences::default())
}

/// The same with other preferences than those of the request.
fn selecting_values_with(
    set: &VarySet,
    rule: &VaryRule,
    headers: &HeaderMap,
    other: Preferences<'_>,
) -> Vec<u8> {
    let mut values = set.selecting_value_with(headers, other);
    for name in &rule.cookies {
        // As it was sent: servers that mind the spelling take another one for another cookie.
        values.extend_from_slice(b"\ncookie ");
        values.extend_from_slice(cookie::find(headers, name).unwrap_or(name.as_bytes()));
    }
    values
}

//! Lookup: from a key, through the variants of its target, to a stored response.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, header};

use crate::{
    entry::{Entry, Selection, StoredResponse},
    fence::Verdict,
    field::{coding, cookie, presence::Presence},
    key::{
        CacheKey,
        vary::{self, Preferences, VarySet},
    },
    policy::{Forward, Reason},
    purge::Fences,
    route::VaryRule,
    store::Store,
};

/// What stands under a request's key.
pub enum Found {
    /// A response, fresh or stale.
    Stored(Stored),
    /// None that may be used. A fetch for this request is known by `key`.
    Absent {
        /// The key of the target, or of the variant asked for.
        key: CacheKey,
        /// Whether the target or only the variant is missing.
        forward: Forward,
        /// Why.
        reason: Reason,
    },
}

/// A stored response that no hard purge selects, and the key under which it stands.
#[derive(Clone)]
pub struct Stored {
    /// The key of the target, or of the variant.
    pub key: CacheKey,
    /// The response.
    pub response: Arc<StoredResponse>,
    /// Whether it is stale whatever its freshness says.
    pub purged: SoftPurge,
}

/// Whether something makes a stored response stale that its freshness does not tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftPurge {
    /// Nothing does.
    No,
    /// A soft purge selects it.
    Yes,
    /// It is of the version of the namespace before.
    Outdated,
}

/// What a stored response is looked up by, besides its key.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What its route adds to `Vary`.
    pub vary: &'a VaryRule,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// Which of them there are.
    pub presence: Presence,
    /// What was purged.
    pub fences: &'a Fences,
    /// When the request came.
    pub started: Instant,
    /// The version of the namespace that is in force.
    pub version: &'a str,
}

impl Asked<'_> {
    /// Whether the request accepts the coding of a stored response.
    fn accepts(&self, response: &StoredResponse) -> bool {
        if !self.presence.has(Presence::ACCEPT_ENCODING) {
            return true;
        }
        if !response.is_coded {
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
                .is_some_and(|language| vary::comes_second(self.headers, language))
    }

    /// Whether a set of selecting fields has those that the route names: what was stored before it did has
    /// not.
    fn is_covered_by(&self, set: &VarySet) -> bool {
        self.vary.headers.iter().all(|name| set.contains(name))
    }

    fn is_outdated(&self, response: &StoredResponse) -> bool {
        response.facets().version != Some(self.version)
    }
}

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In what is at hand.
    Near,
    /// In what the fleet shares.
    Far,
}

/// Finds the stored response to a request for `target`. Of several that match, the latest is taken
/// (RFC 9111 §4.1).
pub async fn find<S: Store>(
    (store, tier): (&S, Tier),
    target: &CacheKey,
    asked: &Asked<'_>,
) -> Found {
    let variants = match entry((store, tier), target).await {
        None => return absent(target.clone(), Forward::UriMiss, Reason::Cold),
        Some(Entry::Response(response)) if asked.accepts(&response) && asked.vary.is_empty() => {
            return judged(target.clone(), response, asked);
        }
        Some(Entry::Response(_)) => {
            return absent(target.clone(), Forward::VaryMiss, Reason::VaryMismatch);
        }
        Some(Entry::Variants(variants)) => variants,
    };
    let (mut latest, mut missing) = (None, None);
    for selection in variants.selections.iter().filter(|it| asked.is_covered_by(&it.set)) {
        let key = target.variant(&selecting(&selection.set, asked.vary, asked.headers));
        match under((store, tier), key.clone(), (&selection.set, asked)).await {
            Some(found) => latest = Some(later(latest, found)),
            None => {
                latest = by_other_codings((store, tier), target, (selection, asked), latest).await;
                latest = by_language((store, tier), target, (selection, asked), latest).await;
            }
        }
        missing = missing.or(Some(key));
    }
    if let Some((key, response)) = latest {
        return judged(key, response, asked);
    }
    let key = missing.unwrap_or_else(|| target.clone());
    absent(key, Forward::VaryMiss, Reason::VaryMismatch)
}

/// A stored response and the key under which it is stored.
type Keyed = (CacheKey, Arc<StoredResponse>);

/// The later of two that match.
fn later(known: Option<Keyed>, found: Keyed) -> Keyed {
    match known {
        Some(known) if known.1.freshness.received_at >= found.1.freshness.received_at => known,
        _ => found,
    }
}

/// The response under a variant's key. One that was fetched with another `Accept-Encoding` has to have a
/// coding that the request accepts; for the same one the origin itself has chosen.
async fn under<S: Store>(
    from: (&S, Tier),
    key: CacheKey,
    (set, asked): (&VarySet, &Asked<'_>),
) -> Option<Keyed> {
    let found = if set.contains(&header::ACCEPT_ENCODING) {
        match entry(from, &key).await? {
            Entry::Response(response) => Some((key, response)),
            Entry::Variants(_) => None,
        }
    } else {
        accepted(from, key, asked).await
    };
    found.filter(|(_, response)| asked.is_answered_in_language(set, response))
}

/// The response under a variant's key, if the request accepts its coding.
async fn accepted<S: Store>(from: (&S, Tier), key: CacheKey, asked: &Asked<'_>) -> Option<Keyed> {
    match entry(from, &key).await? {
        Entry::Response(response) if asked.accepts(&response) => Some((key, response)),
        _ => None,
    }
}

/// What was fetched by a client that accepts all the codings that this one does, and more: its origin chose
/// one of those that this one accepts, too.
async fn by_other_codings<S: Store>(
    from: (&S, Tier),
    target: &CacheKey,
    (selection, asked): (&Selection, &Asked<'_>),
    mut latest: Option<Keyed>,
) -> Option<Keyed> {
    if !selection.set.contains(&header::ACCEPT_ENCODING) {
        return latest;
    }
    let Some(own) = vary::codings(asked.headers) else { return latest };
    for wider in selection.codings.iter().filter(|it| coding::includes(it, &own)) {
        let other = Preferences { codings: Some(wider), ..Preferences::default() };
        let values = selecting_with(&selection.set, asked.vary, asked.headers, other);
        if let Some(found) = accepted(from, target.variant(&values), asked).await
            && asked.is_answered_in_language(&selection.set, &found.1)
        {
            latest = Some(later(latest, found));
        }
    }
    latest
}

/// The response in the language that this client prefers to all others, fetched for other preferences. An
/// origin that has this language would send it to this client, too (RFC 9111 §4.1).
async fn by_language<S: Store>(
    from: (&S, Tier),
    target: &CacheKey,
    (selection, asked): (&Selection, &Asked<'_>),
    latest: Option<Keyed>,
) -> Option<Keyed> {
    if selection.languages.is_empty() {
        return latest;
    }
    let Some(favourite) = vary::favourite_language(asked.headers) else { return latest };
    let known = selection.languages.iter().find(|known| *known.language == *favourite);
    let Some(known) = known else { return latest };
    let other = Preferences { languages: Some(&known.accepted), ..Preferences::default() };
    let values = selecting_with(&selection.set, asked.vary, asked.headers, other);
    match accepted(from, target.variant(&values), asked).await {
        Some(found) => Some(later(latest, found)),
        None => latest,
    }
}

async fn entry<S: Store>((store, tier): (&S, Tier), key: &CacheKey) -> Option<Entry> {
    match tier {
        Tier::Near => store.peek(key),
        Tier::Far => store.get(key).await,
    }
}

fn judged(key: CacheKey, response: Arc<StoredResponse>, asked: &Asked<'_>) -> Found {
    let purged = match asked.fences.judge(&response, asked.started) {
        Verdict::Alive | Verdict::Soft if asked.is_outdated(&response) => SoftPurge::Outdated,
        Verdict::Alive => SoftPurge::No,
        Verdict::Soft => SoftPurge::Yes,
        Verdict::Dead if asked.fences.is_synced(asked.started) => {
            return absent(key, Forward::UriMiss, Reason::Purged);
        }
        Verdict::Dead => return absent(key, Forward::UriMiss, Reason::Unsynced),
    };
    Found::Stored(Stored { key, response, purged })
}

fn absent(key: CacheKey, forward: Forward, reason: Reason) -> Found {
    Found::Absent { key, forward, reason }
}

/// The stored response to a request, if it is at hand and no purge selects it: a fresh one is answered
/// with at once. Looks under the request's own values only; [`find`] looks further.
pub fn at_hand<S: Store>(
    store: &S,
    target: &CacheKey,
    asked: &Asked<'_>,
) -> Option<Arc<StoredResponse>> {
    let response = match store.peek(target)? {
        Entry::Response(response) => {
            Some(response).filter(|response| asked.vary.is_empty() && asked.accepts(response))
        }
        Entry::Variants(variants) => {
            let selections = variants.selections.iter().filter(|it| asked.is_covered_by(&it.set));
            let matching = selections.filter_map(|selection| {
                let values = selecting(&selection.set, asked.vary, asked.headers);
                let is_of_same_codings = selection.set.contains(&header::ACCEPT_ENCODING);
                match store.peek(&target.variant(&values))? {
                    Entry::Response(response) => Some(response).filter(|response| {
                        (is_of_same_codings || asked.accepts(response))
                            && asked.is_answered_in_language(&selection.set, response)
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
    response.filter(|response| asked.fences.judge(response, asked.started) == Verdict::Alive)
}

/// The canonical text of what selects a variant: the request's values for `set`, and for the cookies
/// that its route names.
pub fn selecting(set: &VarySet, rule: &VaryRule, headers: &HeaderMap) -> Vec<u8> {
    selecting_with(set, rule, headers, Preferences::default())
}

/// The same with other preferences than those of the request.
fn selecting_with(
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

//! Lookup: from a key, through the variants of its target, to a stored response.

use std::{sync::Arc, time::Instant};

use http::HeaderMap;

use crate::{
    entry::{Entry, StoredResponse},
    fence::Verdict,
    field::cookie,
    key::{CacheKey, vary::VarySet},
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
    /// What was purged.
    pub fences: &'a Fences,
    /// When the request came.
    pub started: Instant,
    /// The version of the namespace that is in force.
    pub version: &'a str,
}

impl Asked<'_> {
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

/// Finds the stored response to a request for `target`. Of several that match, the one with the newest
/// `Vary` is taken (RFC 9111 §4.1).
pub async fn find<S: Store>(
    (store, tier): (&S, Tier),
    target: &CacheKey,
    asked: &Asked<'_>,
) -> Found {
    let variants = match entry((store, tier), target).await {
        None => return absent(target.clone(), Forward::UriMiss, Reason::Cold),
        Some(Entry::Response(response)) => return judged(target.clone(), response, asked),
        Some(Entry::Variants(variants)) => variants,
    };
    let mut missing = None;
    for set in &variants.sets {
        let values = selecting(set, asked.vary, asked.headers);
        let key = target.variant(variants.generation, &values);
        if let Some(Entry::Response(response)) = entry((store, tier), &key).await {
            return judged(key, response, asked);
        }
        missing = missing.or(Some(key));
    }
    let key = missing.unwrap_or_else(|| target.clone());
    absent(key, Forward::VaryMiss, Reason::VaryMismatch)
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
/// with at once. Looks for the variant with the newest `Vary` only; [`find`] looks for all.
pub fn at_hand<S: Store>(
    store: &S,
    target: &CacheKey,
    asked: &Asked<'_>,
) -> Option<Arc<StoredResponse>> {
    let response = match store.peek(target)? {
        Entry::Response(response) => response,
        Entry::Variants(variants) => {
            let values = selecting(variants.sets.first()?, asked.vary, asked.headers);
            match store.peek(&target.variant(variants.generation, &values))? {
                Entry::Response(response) => response,
                Entry::Variants(_) => return None,
            }
        }
    };
    (asked.fences.judge(&response, asked.started) == Verdict::Alive).then_some(response)
}

/// The canonical text of what selects a variant: the request's values for `set`, and for the cookies
/// that its route names.
pub fn selecting(set: &VarySet, rule: &VaryRule, headers: &HeaderMap) -> Vec<u8> {
    let mut values = set.selecting_value(headers);
    for name in &rule.cookies {
        // As it was sent: servers that mind the spelling take another one for another cookie.
        values.extend_from_slice(b"\ncookie ");
        values.extend_from_slice(cookie::find(headers, name).unwrap_or(name.as_bytes()));
    }
    values
}

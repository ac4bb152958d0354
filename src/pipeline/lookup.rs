//! Lookup: from a key, through the variants of its target, to a stored response.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    entry::{Entry, StoredResponse},
    field::cookie,
    key::{CacheKey, vary::VarySet},
    policy::Forward,
    route::VaryRule,
    store::Store,
};

/// What stands under a request's key.
pub enum Found {
    /// A response, fresh or stale.
    Stored(Stored),
    /// None. A fetch for this request is known by `key`.
    Absent {
        /// The key of the target, or of the variant asked for.
        key: CacheKey,
        /// Whether the target or only the variant is missing.
        forward: Forward,
    },
}

/// A stored response and the key under which it stands.
#[derive(Clone)]
pub struct Stored {
    /// The key of the target, or of the variant.
    pub key: CacheKey,
    /// The response.
    pub response: Arc<StoredResponse>,
}

/// Finds the stored response to a request for `target` with these fields. Of several that match, the
/// one with the newest `Vary` is taken (RFC 9111 §4.1).
pub async fn find<S: Store>(
    store: &S,
    target: &CacheKey,
    vary: &VaryRule,
    headers: &HeaderMap,
) -> Found {
    let variants = match store.get(target).await {
        None => return Found::Absent { key: target.clone(), forward: Forward::UriMiss },
        Some(Entry::Response(response)) => {
            return Found::Stored(Stored { key: target.clone(), response });
        }
        Some(Entry::Variants(variants)) => variants,
    };
    let mut missing = None;
    for set in &variants.sets {
        let key = target.variant(variants.generation, &selecting(set, vary, headers));
        if let Some(Entry::Response(response)) = store.get(&key).await {
            return Found::Stored(Stored { key, response });
        }
        missing = missing.or(Some(key));
    }
    Found::Absent { key: missing.unwrap_or_else(|| target.clone()), forward: Forward::VaryMiss }
}

/// The stored response to a request, if it is at hand: a fresh one is answered with at once. Looks for
/// the variant with the newest `Vary` only; [`find`] looks for all.
pub fn at_hand<S: Store>(
    store: &S,
    target: &CacheKey,
    vary: &VaryRule,
    headers: &HeaderMap,
) -> Option<Arc<StoredResponse>> {
    let variants = match store.peek(target)? {
        Entry::Response(response) => return Some(response),
        Entry::Variants(variants) => variants,
    };
    let values = selecting(variants.sets.first()?, vary, headers);
    match store.peek(&target.variant(variants.generation, &values))? {
        Entry::Response(response) => Some(response),
        Entry::Variants(_) => None,
    }
}

/// The canonical text of what selects a variant: the request's values for `set`, and for the cookies
/// that its route names.
pub fn selecting(set: &VarySet, rule: &VaryRule, headers: &HeaderMap) -> Vec<u8> {
    let mut values = set.selecting_value(headers);
    for name in &rule.cookies {
        values.extend_from_slice(b"\ncookie ");
        values.extend_from_slice(name.as_bytes());
        values.push(b'=');
        values.extend_from_slice(cookie::value(headers, name).unwrap_or_default());
    }
    values
}

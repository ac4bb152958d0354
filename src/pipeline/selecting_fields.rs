//! Selecting fields: the request fields that select among the variants of a target (`Vary`).

use http::HeaderMap;

use super::{config_snapshot::ConfigSnapshot, credentials};
use crate::{
    field::cookie,
    key::{
        is_selected_by_cookies,
        vary::{Preferences, Vary, VarySet},
    },
    policy::{Freshness, freshness::Constraints},
    route::{AddedVary, Route},
};

/// Returns `true` if the response with this key was selected by cookies and has its freshness only
/// from the route. Downstream caches then need `Vary: Cookie`.
pub(super) fn is_chosen_by_cookies(key: &[u8], freshness: &Freshness) -> bool {
    !freshness.constraints.has_any(Constraints::FRESH_BY_ORIGIN) && is_selected_by_cookies(key)
}

/// Returns the fields that select among the responses of a route: the fields in this response's
/// `Vary` and in the route's `vary`, except those that make up the route's partition.
pub(super) fn selecting_set(
    config: &ConfigSnapshot,
    route: &Route,
    response: &HeaderMap,
) -> VarySet {
    let mut set = match Vary::parse(response) {
        Vary::Fields(set) => without_partition_fields(config, route, set),
        Vary::Star => VarySet::default(),
    };
    route.vary.headers.iter().for_each(|name| set.insert(name.clone()));
    set
}

/// Removes the fields that make up the route's partition.
pub(super) fn without_partition_fields(
    config: &ConfigSnapshot,
    route: &Route,
    set: VarySet,
) -> VarySet {
    if !route.rule.partition.needs_identity() {
        return set;
    }
    let names = set.iter().filter(|name| !credentials::is_partitioned_by(config, route, name));
    names.cloned().collect()
}

/// Returns the canonical text that selects a variant: the request's values of the fields in `set`,
/// and of the cookies that the route names.
pub(super) fn selecting_values(set: &VarySet, rule: &AddedVary, headers: &HeaderMap) -> Vec<u8> {
    selecting_values_with(set, rule, headers, Preferences::default())
}

/// Like [`selecting_values`], but with the preferences in `other` instead of those in the request.
pub(super) fn selecting_values_with(
    set: &VarySet,
    rule: &AddedVary,
    headers: &HeaderMap,
    other: Preferences<'_>,
) -> Vec<u8> {
    let mut values = set.selecting_value_with(headers, other);
    for name in &rule.cookies {
        // As sent, because some servers treat other spellings as another cookie.
        values.extend_from_slice(b"\ncookie ");
        values.extend_from_slice(cookie::find(headers, name).unwrap_or(name.as_bytes()));
    }
    values
}

//! Sensitive routes, whose URLs are kept only in the memory of nodes.
//!
//! The purge log is stored in Redis and shown to operators. A purge of such a URL therefore names a
//! tag, which the stored response carries: a keyed digest of the URL.

use std::borrow::Cow;

use super::config_snapshot::ConfigSnapshot;
use crate::{
    fence::Selector,
    key::{
        StoragePlacement, digest,
        partition::{self, PartitionKey},
    },
    route::Route,
};

/// Prefix of the tags that stand for sensitive URLs.
const PREFIX: &str = "larder:url:";

/// Returns the partition of a response on a sensitive route. `known` is the partition that the
/// response would have if the route were not sensitive.
///
/// The partition differs from `known` and between digest keys, so that responses without the tag
/// for purges are not used.
pub(super) fn partition(config: &ConfigSnapshot, known: &PartitionKey) -> PartitionKey {
    let mark = config.digests.key.digest(b"larder: sensitive");
    if known.is_empty() {
        return partition::of_several(&mark);
    }
    let mut part = known.clone();
    part.extend_from_slice(&mark);
    part
}

/// Returns the tag that stands for a URL in purges. `None` if the route is not sensitive, or if
/// there is no `user.digest_key`, without which other nodes could not compute the tag.
pub(super) fn tag(config: &ConfigSnapshot, route: &Route, url: &str) -> Option<String> {
    if !route.rule.sensitive || config.digests.storage_placement == StoragePlacement::Node {
        return None;
    }
    let text = format!("{PREFIX}{url}");
    Some(format!("{PREFIX}{}", digest::hex(config.digests.key.digest(text.as_bytes()))))
}

/// Returns what a write purges for this URL: the URL, its tag, or the whole route.
pub(super) fn write_selector(config: &ConfigSnapshot, route: &Route, url: Box<str>) -> Selector {
    match tag(config, route, &url) {
        Some(tag) => Selector::Tag(tag.into()),
        None if route.rule.sensitive => Selector::Route(Box::from(&*route.name)),
        None => Selector::Url(url),
    }
}

/// Returns what an operator's purge of this URL selects: the URL, or its tag if it has a tag.
pub(super) fn operator_selector(config: &ConfigSnapshot, route: &Route, url: Box<str>) -> Selector {
    // A path without a host stands for all hosts, so it has no tag.
    let tag = if url.starts_with('/') { None } else { tag(config, route, &url) };
    tag.map_or_else(|| Selector::Url(url), |tag| Selector::Tag(tag.into()))
}

/// Returns the path to log. On a sensitive route, this is the route's pattern.
pub(super) fn shown_path<'a>(route: &Route, path: &'a str) -> Cow<'a, str> {
    if !route.rule.sensitive {
        return Cow::Borrowed(path);
    }
    let pattern = route.pattern.as_ref().map(ToString::to_string).unwrap_or_default();
    let at = pattern.find('/').unwrap_or(pattern.len());
    Cow::Owned(pattern.get(at..).unwrap_or_default().to_owned())
}

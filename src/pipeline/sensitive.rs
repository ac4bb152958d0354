//! Sensitive routes: their URLs stand in the memory of nodes, and nowhere else.
//!
//! Purges go through a log that stands in Redis and is shown to operators. So where a purge would name such
//! a URL, it names a tag instead: a keyed digest of the URL, which the stored response carries.

use std::borrow::Cow;

use super::config_snapshot::ConfigSnapshot;
use crate::{
    fence::Selector,
    key::{
        StorageScope, digest,
        partition::{self, PartitionKey},
    },
    route::Route,
};

/// What the tags begin with.
const PREFIX: &str = "larder:url:";

/// The partition of a response on a sensitive route, which is otherwise in this one.
///
/// It differs from the one that the response has while its route is not sensitive, or another digest key is
/// in force: then responses lack the tag by which they would be purged.
pub(super) fn partition(config: &ConfigSnapshot, known: &PartitionKey) -> PartitionKey {
    let mark = config.digests.key.digest(b"larder: sensitive");
    if known.is_empty() {
        return partition::of_several(&mark);
    }
    let mut part = known.clone();
    part.extend_from_slice(&mark);
    part
}

/// The tag that stands for a URL, in the form by which purges select it. `None` if the route is not
/// sensitive, or if other nodes cannot make the same: without `user.digest_key`.
pub(super) fn tag(config: &ConfigSnapshot, route: &Route, url: &str) -> Option<String> {
    if !route.rule.sensitive || config.digests.storage_scope == StorageScope::Node {
        return None;
    }
    let text = format!("{PREFIX}{url}");
    Some(format!("{PREFIX}{}", digest::hex(config.digests.key.digest(text.as_bytes()))))
}

/// What a write purges of this URL: the URL, the tag that stands for it, or else all of its route.
pub(super) fn write_selector(config: &ConfigSnapshot, route: &Route, url: Box<str>) -> Selector {
    match tag(config, route, &url) {
        Some(tag) => Selector::Tag(tag.into()),
        None if route.rule.sensitive => Selector::Route(Box::from(&*route.name)),
        None => Selector::Url(url),
    }
}

/// What an operator purges by this URL: the same, but the URL itself if no tag can stand for it.
pub(super) fn operator_selector(config: &ConfigSnapshot, route: &Route, url: Box<str>) -> Selector {
    // A path on every host is no URL of which there is a digest.
    let tag = if url.starts_with('/') { None } else { tag(config, route, &url) };
    tag.map_or_else(|| Selector::Url(url), |tag| Selector::Tag(tag.into()))
}

/// The path of a request as logs may have it: the pattern of its route, if that is sensitive.
pub(super) fn shown_path<'a>(route: &Route, path: &'a str) -> Cow<'a, str> {
    if !route.rule.sensitive {
        return Cow::Borrowed(path);
    }
    let pattern = route.pattern.as_ref().map(ToString::to_string).unwrap_or_default();
    let at = pattern.find('/').unwrap_or(pattern.len());
    Cow::Owned(pattern.get(at..).unwrap_or_default().to_owned())
}

//! Invalidation: what a write through the proxy purges, and how long its answer waits for that.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{HeaderMap, Method};
use tokio::time::timeout;

use super::{Pipeline, credentials, receive::Ingress, site::Site};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    key::target::{Readings, purge_url},
    policy::{
        RequestHead,
        invalidation::{self, Outcome},
        tag,
    },
    purge::{Acknowledgement, Log, Receipt, Unavailable},
    store::Store,
};

/// How long the answer to a write waits until its purge holds everywhere, once it is in the log. With all
/// nodes well that takes a millisecond or two.
const PATIENCE: Duration = Duration::from_millis(25);

/// How long it waits altogether: clients hardly notice that Redis hangs.
const BOUND: Duration = Duration::from_millis(40);

/// What became of the purge of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// It purges nothing.
    Nothing,
    /// It is in the log, and holds wherever an appended purge does.
    Applied(Receipt),
    /// It holds on this node, and goes to the others as soon as that is possible.
    Here,
}

/// What the outcome of an unsafe request makes invalid: its own target, `Location` and `Content-Location`,
/// as far as they are on this host (RFC 9111 §4.4); the groups that the response names (RFC 9875); and, if
/// the request counts as done, the tags that its route names, or that of another reading of its path.
pub fn selectors(
    site: &Site,
    ingress: &Ingress<'_>,
    request: &RequestHead<'_>,
    outcome: &Outcome<'_>,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    let mut tags = match outcome {
        Outcome::Answered(_, response) => groups(ingress, response),
        Outcome::Unknown => Vec::new(),
    };
    if outcome.is_done(request) {
        let (path, query) = path_and_query(request.target);
        let readings = Readings::of(path);
        for route in site.routes.select_each(request.method, &ingress.host, &readings) {
            tags.extend(route.tags_purged_by(&readings, query, None));
        }
    }
    for target in invalidation::invalidated_targets(request, outcome) {
        selectors.extend(url(site, ingress, &target));
    }
    selectors.extend(tags.into_iter().map(|tag| Selector::Tag(tag.into())));
    selectors
}

/// The groups that a response says have changed, as tags: those of its own host.
fn groups(ingress: &Ingress<'_>, response: &HeaderMap) -> Vec<String> {
    let groups = invalidation::invalidated_groups(response);
    groups.iter().map(|group| tag::of_group(group, &ingress.host)).collect()
}

/// A target as purges select it; none where it is not cached.
fn url(site: &Site, ingress: &Ingress<'_>, target: &str) -> Option<Selector> {
    let (path, query) = path_and_query(target);
    let readings = Readings::of(path);
    let route = site.routes.select_loosest(&Method::GET, &ingress.host, &readings).route;
    if !route.rule.cache {
        return None;
    }
    let query = credentials::purge_query(site, route, query);
    Some(Selector::Url(purge_url::of(&ingress.host, &readings, query.as_deref())))
}

fn path_and_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Purges what a write has changed, in one record, and waits until that holds for the fleet; but no
/// longer than 40 ms, and not at all while the log cannot be reached: the write is done, and its
/// answer must go out.
///
/// On this node it holds before anything is waited for. What is not in the log when this returns, or
/// when its caller goes away, gets there later.
pub async fn purge<S: Store>(pipeline: &Pipeline<S>, selectors: Vec<Selector>) -> Purged {
    if selectors.is_empty() {
        return Purged::Nothing;
    }
    let purge =
        Purge { mode: Mode::Hard, selectors, source: Source::Write, reason: None, warm: false };
    let mut appending = Box::pin(append(Arc::clone(&pipeline.log), purge.clone()));
    let appended = if let Some(appended) = (&mut appending).now_or_never() {
        Ok(appended)
    } else {
        let pending = pipeline.log.fences().apply_pending(&purge);
        let log = Arc::clone(&pipeline.log);
        let settled = tokio::spawn(async move {
            let appended = appending.await;
            log.fences().settle(pending);
            appended
        });
        timeout(BOUND, settled).await.map(|ended| ended.unwrap_or(Err(Unavailable)))
    };
    let (purged, result) = match appended {
        Ok(Ok(receipt)) => {
            let is_given = receipt.verdict == Acknowledgement::Given;
            (Purged::Applied(receipt), if is_given { "applied" } else { "late" })
        }
        Ok(Err(Unavailable)) => (Purged::Here, "pending"),
        Err(_) => (Purged::Here, "late"),
    };
    pipeline.metrics.purging.writes.with_label_values(&[result]).inc();
    purged
}

/// Counts a purge that is written together with another.
pub fn count_merged<S>(pipeline: &Pipeline<S>) {
    pipeline.metrics.purging.writes.with_label_values(&["merged"]).inc();
}

/// Appends a purge; where that fails, it holds on this node and waits for the log.
async fn append(log: Arc<Log>, purge: Purge) -> Result<Receipt, Unavailable> {
    let appended = log.append(purge.clone(), PATIENCE).await;
    if appended.is_err() {
        log.record(purge);
    }
    appended
}

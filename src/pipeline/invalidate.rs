//! Invalidation: what a write through the proxy purges, and how long its answer waits for that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::{HeaderMap, Method};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{
    Pipeline,
    credentials::{self, Asking},
    logout,
    purge_rate::{PurgeTurn, Subject},
    receive::Ingress,
    sensitive,
    site::Site,
};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    key::target::{Readings, purge_url},
    policy::{
        RequestHead,
        invalidation::{self, Outcome},
        tag,
    },
    purge::{Acknowledgement, Log, Patience, Receipt, Unavailable},
    store::Store,
};

/// How long the answer to a write waits until its purge holds everywhere, once it is in the log. With all
/// nodes well that takes a millisecond or two; nodes that are short of processors take longer, and the
/// writer's next read may go to one of them.
const PATIENCE: Patience =
    Patience { live: Duration::from_millis(500), lost: Duration::from_millis(25) };

/// How long it waits for the log itself: clients hardly notice that Redis hangs.
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
/// as far as they are on this host, may be stored, and the route does not say that its requests change nothing
/// (RFC 9111 §4.4); the groups that the response names (RFC 9875); and, if
/// the request counts as done, the tags that its route names, or that of another reading of its path.
///
/// Where a route keeps users apart, its targets become invalid for the one who asks: each of them has a cache
/// of its own. After a logout all that belongs to the user becomes invalid, and the credential is refused.
pub fn selectors(
    site: &Site,
    ingress: &Ingress<'_>,
    (request, asking): (&RequestHead<'_>, &Asking<'_>),
    outcome: &Outcome<'_>,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    let mut tags = match outcome {
        Outcome::Answered(_, response) => groups(ingress, response),
        Outcome::Unknown => Vec::new(),
    };
    let (mut is_for_everyone, mut invalidates) = (false, false);
    if outcome.invalidates_target() {
        let is_done = outcome.is_done(request);
        let (path, query) = path_and_query(request.target);
        let readings = Readings::of(path);
        let writer = credentials::writer(site, asking);
        for route in site.routes.select_each(request.method, &ingress.host, &readings) {
            invalidates |= route.writes_invalidate;
            // Whatever page it leads to: that of a login is what most lead to.
            if route.is_logout(request.method) {
                selectors.extend(logout::selectors(site, asking));
            }
            if is_done {
                let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
                tags.extend(route.tags_purged_by(&readings, query, user));
                is_for_everyone |= route.writes_for_everyone;
            }
        }
    }
    if invalidates {
        let asking = (!is_for_everyone).then_some(asking);
        for target in invalidation::invalidated_targets(request, outcome) {
            selectors.extend(url(site, ingress, &target, asking));
        }
    }
    selectors.extend(tags.into_iter().map(|tag| Selector::Tag(tag.into())));
    selectors
}

/// The groups that a response says have changed, as tags: those of its own host.
fn groups(ingress: &Ingress<'_>, response: &HeaderMap) -> Vec<String> {
    let groups = invalidation::invalidated_groups(response);
    groups.iter().map(|group| tag::of_group(group, &ingress.host)).collect()
}

/// A target as purges select it; none where it is not cached. Without `asking` it is purged for everyone.
fn url(
    site: &Site,
    ingress: &Ingress<'_>,
    target: &str,
    asking: Option<&Asking<'_>>,
) -> Option<Selector> {
    let (path, query) = path_and_query(target);
    let readings = Readings::of(path);
    let route = site.routes.select_loosest(&Method::GET, &ingress.host, &readings).route;
    if !route.rule.cache {
        return None;
    }
    let query = credentials::purge_query(site, route, query);
    let url = purge_url::of(&ingress.host, &readings, query.as_deref());
    let url = sensitive::written(site, route, url);
    Some(match asking.and_then(|asking| credentials::owner(site, route, asking)) {
        Some(owner) => Selector::All([Selector::User(Box::from(&*owner)), url].into()),
        None => url,
    })
}

fn path_and_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Purges what a write has changed, in one record, and waits until that holds for the fleet: 40 ms for the
/// log and then half a second for nodes that are slow, but not for nodes that are gone, and not at all
/// while the log cannot be reached: the write is done, and its answer must go out.
///
/// On this node it holds before anything is waited for. What is not in the log when this returns, or
/// when its caller goes away, gets there later.
pub async fn purge<S: Store>(pipeline: &Pipeline<S>, selectors: Vec<Selector>) -> Purged {
    let Some((purged, result)) = append(pipeline, selectors, Source::Write).await else {
        return Purged::Nothing;
    };
    pipeline.metrics.purging.writes.with_label_values(&[result]).inc();
    purged
}

/// The same for a purge from elsewhere, which is not counted. Returns what became of it, and that in a word;
/// nothing if nothing is selected.
pub async fn append<S: Store>(
    pipeline: &Pipeline<S>,
    selectors: Vec<Selector>,
    source: Source,
) -> Option<(Purged, &'static str)> {
    if selectors.is_empty() {
        return None;
    }
    let purge = Purge { mode: Mode::Hard, selectors, source, reason: None, warm: false };
    let (entered, has_entered) = oneshot::channel();
    let log = Arc::clone(&pipeline.log);
    let mut appending = Box::pin(append_or_record(log, purge.clone(), entered));
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
        waited(settled, has_entered).await
    };
    Some(match appended {
        Ok(Ok(receipt)) => {
            let is_given = receipt.verdict == Acknowledgement::Given;
            (Purged::Applied(receipt), if is_given { "applied" } else { "late" })
        }
        Ok(Err(Unavailable)) => (Purged::Here, "pending"),
        Err(Late) => (Purged::Here, "late"),
    })
}

/// The log does not say in time what became of a purge.
struct Late;

/// Waits for the log, and once the purge is in it for the nodes.
async fn waited(
    mut settled: JoinHandle<Result<Receipt, Unavailable>>,
    mut has_entered: oneshot::Receiver<()>,
) -> Result<Result<Receipt, Unavailable>, Late> {
    let ended = match timeout(BOUND, &mut settled).await {
        Ok(ended) => ended,
        Err(_) if has_entered.try_recv().is_ok() => settled.await,
        Err(_) => return Err(Late),
    };
    Ok(ended.unwrap_or(Err(Unavailable)))
}

/// Purges as [`purge`] or [`append`] does, but no more than once a second for one subject: what comes within
/// the second is purged at its end, even if the node stops. Returns when it is.
pub async fn purge_in_turn<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    subject: Subject,
    source: Source,
) -> PurgeTurn {
    let turn = pipeline.writes.rate.turn(&subject, Instant::now());
    match turn {
        PurgeTurn::Now => purge_from(pipeline, subject.1, source).await,
        PurgeTurn::At(time) => purge_at(pipeline, time, subject, source),
        PurgeTurn::Merged => {}
    }
    turn
}

/// Leaves a purge for later, so that no client waits for it.
fn purge_at<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    time: Instant,
    subject: Subject,
    source: Source,
) {
    let pipeline = Arc::clone(pipeline);
    let running = pipeline.writes.begin();
    tokio::spawn(async move {
        let wait = time.saturating_duration_since(Instant::now());
        let _or_cut = timeout(wait, pipeline.writes.cut()).await;
        pipeline.writes.rate.begin_window(&subject, Instant::now());
        purge_from(&pipeline, subject.1, source).await;
        drop(running);
    });
}

async fn purge_from<S: Store>(pipeline: &Pipeline<S>, selectors: Vec<Selector>, source: Source) {
    if source == Source::Write {
        drop(purge(pipeline, selectors).await);
    } else {
        drop(append(pipeline, selectors, source).await);
    }
}

/// Counts a purge that is written together with another.
pub fn count_merged<S>(pipeline: &Pipeline<S>) {
    pipeline.metrics.purging.writes.with_label_values(&["merged"]).inc();
}

/// Appends a purge; where that fails, it holds on this node and waits for the log.
async fn append_or_record(
    log: Arc<Log>,
    purge: Purge,
    entered: oneshot::Sender<()>,
) -> Result<Receipt, Unavailable> {
    let appended = log.append_saying(purge.clone(), PATIENCE, entered).await;
    if appended.is_err() {
        log.record(purge);
    }
    appended
}

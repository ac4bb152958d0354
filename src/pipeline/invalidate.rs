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
    config_snapshot::ConfigSnapshot,
    credentials::{self, IdentityInputs},
    logout,
    purge_rate::{PurgeSlot, PurgeSubject},
    receive::Ingress,
    sensitive,
};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    key::uri::{PathReadings, purge_url},
    policy::{
        RequestHead,
        invalidation::{self, UnsafeRequestOutcome},
        tag,
    },
    purge::{AckTimeout, Acknowledgement, LogUnavailable, PurgeLog, PurgeReceipt},
    store::Store,
};

/// How long the answer to a write waits until its purge holds everywhere, once it is in the log. With all
/// nodes well that takes a millisecond or two; nodes that are short of processors take longer, and the
/// writer's next read may go to one of them.
const ACKNOWLEDGE_TIMEOUT: AckTimeout =
    AckTimeout { live: Duration::from_millis(500), lost: Duration::from_millis(25) };

/// How long it waits for the log itself: clients hardly notice that Redis hangs.
const APPEND_TIMEOUT: Duration = Duration::from_millis(40);

/// What became of the purge of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PurgeOutcome {
    /// It purges nothing.
    NotNeeded,
    /// It is in the log, and holds wherever an appended purge does.
    Appended(PurgeReceipt),
    /// It holds on this node, and goes to the others as soon as that is possible.
    LocalOnly,
}

/// What the outcome of an unsafe request makes invalid: its own target, `Location` and `Content-Location`,
/// as far as they are on this host, may be stored, and the route does not say that its requests change nothing
/// (RFC 9111 §4.4); the groups that the response names (RFC 9875); and, if
/// the request counts as done, the tags that its route names, or that of another reading of its path.
///
/// Where a route keeps users apart, its targets become invalid for the one who asks: each of them has a cache
/// of its own. After a logout all that belongs to the user becomes invalid, and the credential is refused.
pub(super) fn selectors(
    config: &ConfigSnapshot,
    ingress: &Ingress<'_>,
    (request, identity_inputs): (&RequestHead<'_>, &IdentityInputs<'_>),
    outcome: &UnsafeRequestOutcome<'_>,
) -> Vec<Selector> {
    let mut selectors = Vec::new();
    let mut tags = match outcome {
        UnsafeRequestOutcome::Answered(_, response) => groups(ingress, response),
        UnsafeRequestOutcome::Unknown => Vec::new(),
    };
    let (mut is_for_everyone, mut invalidates) = (false, false);
    if outcome.invalidates_target() {
        let is_done = outcome.is_processed(request);
        let (path, query) = path_and_query(request.target);
        let readings = PathReadings::of(path);
        let writer = credentials::writer(config, identity_inputs);
        for route in config.routes.select_each(request.method, &ingress.host, &readings) {
            invalidates |= route.writes_invalidate;
            // Whatever page it leads to: that of a login is what most lead to.
            if route.is_logout(request.method) {
                selectors.extend(logout::selectors(config, identity_inputs));
            }
            if is_done {
                let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
                tags.extend(route.purged_tags(&readings, query, user));
                is_for_everyone |= route.writes_for_everyone;
            }
        }
    }
    if invalidates {
        let identity_inputs = (!is_for_everyone).then_some(identity_inputs);
        for target in invalidation::invalidated_targets(request, outcome) {
            selectors.extend(url(config, ingress, &target, identity_inputs));
        }
    }
    selectors.extend(tags.into_iter().map(|tag| Selector::Tag(tag.into())));
    selectors
}

/// The groups that a response says have changed, as tags: those of its own host.
fn groups(ingress: &Ingress<'_>, response: &HeaderMap) -> Vec<String> {
    let groups = invalidation::invalidated_groups(response);
    groups.iter().map(|group| tag::group_tag(group, &ingress.host)).collect()
}

/// A target as purges select it; none where it is not cached. Without `asking` it is purged for everyone.
fn url(
    config: &ConfigSnapshot,
    ingress: &Ingress<'_>,
    target: &str,
    identity_inputs: Option<&IdentityInputs<'_>>,
) -> Option<Selector> {
    let (path, query) = path_and_query(target);
    let readings = PathReadings::of(path);
    let route = config.routes.select_loosest(&Method::GET, &ingress.host, &readings).route;
    if !route.rule.cache {
        return None;
    }
    let query = credentials::purge_query(config, route, query);
    let url = purge_url::of(&ingress.host, &readings, query.as_deref());
    let url = sensitive::write_selector(config, route, url);
    Some(
        match identity_inputs
            .and_then(|identity_inputs| credentials::owner(config, route, identity_inputs))
        {
            Some(owner) => Selector::All([Selector::User(Box::from(&*owner)), url].into()),
            None => url,
        },
    )
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
pub(super) async fn purge<S: Store>(
    pipeline: &Pipeline<S>,
    selectors: Vec<Selector>,
) -> PurgeOutcome {
    let Some((purged, result)) = append(pipeline, selectors, PurgeSource::Write).await else {
        return PurgeOutcome::NotNeeded;
    };
    pipeline.metrics.purging.writes.with_label_values(&[result]).inc();
    purged
}

/// The same for a purge from elsewhere, which is not counted. Returns what became of it, and that in a word;
/// nothing if nothing is selected.
pub(super) async fn append<S: Store>(
    pipeline: &Pipeline<S>,
    selectors: Vec<Selector>,
    source: PurgeSource,
) -> Option<(PurgeOutcome, &'static str)> {
    if selectors.is_empty() {
        return None;
    }
    let purge = Purge { mode: PurgeMode::Hard, selectors, source, reason: None, warm: false };
    let (entered, has_entered) = oneshot::channel();
    let log = Arc::clone(&pipeline.log);
    let mut appending = Box::pin(append_or_record(log, purge.clone(), entered));
    let appended = if let Some(appended) = (&mut appending).now_or_never() {
        Ok(appended)
    } else {
        let pending = pipeline.log.applied_purges().apply_pending(&purge);
        let log = Arc::clone(&pipeline.log);
        let appending_task = tokio::spawn(async move {
            let appended = appending.await;
            log.applied_purges().remove_pending(pending);
            appended
        });
        wait_for_log(appending_task, has_entered).await
    };
    Some(match appended {
        Ok(Ok(receipt)) => {
            let is_given = receipt.acknowledgement == Acknowledgement::Given;
            (PurgeOutcome::Appended(receipt), if is_given { "applied" } else { "late" })
        }
        Ok(Err(LogUnavailable)) => (PurgeOutcome::LocalOnly, "pending"),
        Err(LogTimeout) => (PurgeOutcome::LocalOnly, "late"),
    })
}

/// The log does not say in time what became of a purge.
struct LogTimeout;

/// Waits for the log, and once the purge is in it for the nodes.
async fn wait_for_log(
    mut appending_task: JoinHandle<Result<PurgeReceipt, LogUnavailable>>,
    mut has_entered: oneshot::Receiver<()>,
) -> Result<Result<PurgeReceipt, LogUnavailable>, LogTimeout> {
    let ended = match timeout(APPEND_TIMEOUT, &mut appending_task).await {
        Ok(ended) => ended,
        Err(_) if has_entered.try_recv().is_ok() => appending_task.await,
        Err(_) => return Err(LogTimeout),
    };
    Ok(ended.unwrap_or(Err(LogUnavailable)))
}

/// Purges as [`purge`] or [`append`] does, but no more than once a second for one subject: what comes within
/// the second is purged at its end, even if the node stops. Returns when it is.
pub(super) async fn purge_rate_limited<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    subject: PurgeSubject,
    source: PurgeSource,
) -> PurgeSlot {
    let slot = pipeline.writes.rate.reserve(&subject, Instant::now());
    match slot {
        PurgeSlot::Now => purge_from(pipeline, subject.1, source).await,
        PurgeSlot::At(time) => purge_later(pipeline, time, subject, source),
        PurgeSlot::Merged => {}
    }
    slot
}

/// Leaves a purge for later, so that no client waits for it.
fn purge_later<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    time: Instant,
    subject: PurgeSubject,
    source: PurgeSource,
) {
    let pipeline = Arc::clone(pipeline);
    let running = pipeline.writes.begin();
    tokio::spawn(async move {
        let wait = time.saturating_duration_since(Instant::now());
        let _or_cut = timeout(wait, pipeline.writes.cancelled()).await;
        pipeline.writes.rate.begin_window(&subject, Instant::now());
        purge_from(&pipeline, subject.1, source).await;
        drop(running);
    });
}

async fn purge_from<S: Store>(
    pipeline: &Pipeline<S>,
    selectors: Vec<Selector>,
    source: PurgeSource,
) {
    if source == PurgeSource::Write {
        drop(purge(pipeline, selectors).await);
    } else {
        drop(append(pipeline, selectors, source).await);
    }
}

/// Counts a purge that is written together with another.
pub(super) fn count_merged<S>(pipeline: &Pipeline<S>) {
    pipeline.metrics.purging.writes.with_label_values(&["merged"]).inc();
}

/// Appends a purge; where that fails, it holds on this node and waits for the log.
async fn append_or_record(
    log: Arc<PurgeLog>,
    purge: Purge,
    entered: oneshot::Sender<()>,
) -> Result<PurgeReceipt, LogUnavailable> {
    let appended = log.append_notifying(purge.clone(), ACKNOWLEDGE_TIMEOUT, entered).await;
    if appended.is_err() {
        log.append_eventually(purge);
    }
    appended
}

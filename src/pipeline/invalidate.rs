//! Invalidation: what a write purges, and how long the response to the write waits for the purge.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use http::HeaderMap;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::{
    config_snapshot::ConfigSnapshot,
    credentials::{self, IdentityInputs},
    graphql_write::MutationEffect,
    ingress::Ingress,
    logout,
    purge_rate::{PurgeSlot, PurgeSubject},
    sensitive,
    state::Pipeline,
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
    route::Route,
    store::Store,
};

/// How long the response to a write waits for other nodes once its purge is in the log. Healthy
/// nodes take a millisecond or two. Overloaded nodes take longer, and the client's next read may go
/// to one of them.
const ACKNOWLEDGE_TIMEOUT: AckTimeout =
    AckTimeout { live: Duration::from_millis(500), lost: Duration::from_millis(25) };

/// How long the response to a write waits for the log itself. The time is short, so that clients
/// hardly notice if Redis hangs.
const APPEND_TIMEOUT: Duration = Duration::from_millis(40);

/// The outcome of a write's purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PurgeOutcome {
    /// The write purges nothing.
    NotNeeded,
    /// The purge is in the log, so every node applies it.
    Appended(PurgeReceipt),
    /// The purge applies on this node, and is sent to the other nodes as soon as possible.
    LocalOnly,
}

/// Returns what an unsafe request invalidates (RFC 9111 §4.4).
///
/// - If the route's writes invalidate responses, the request's target, and `Location` and
///   `Content-Location` on this host. Targets that are not cacheable are left out.
/// - The groups that the response names (RFC 9875).
/// - If the request succeeded, the tags that its route names, and the tags of the routes that other
///   readings of its path select.
///
/// On a GraphQL route, `effect` says what a mutation has changed. If `effect` is unknown, all
/// responses of the route are invalidated. The request's own target is not invalidated, since all
/// operations share it.
///
/// On routes that separate users, targets are invalidated only for the writing user. A logout
/// invalidates all responses of the user and ends the credential.
pub(super) fn selectors(
    config: &ConfigSnapshot,
    ingress: &Ingress<'_>,
    (request, inputs): (&RequestHead<'_>, &IdentityInputs<'_>),
    (outcome, effect): (&UnsafeRequestOutcome<'_>, Option<&MutationEffect>),
) -> Vec<Selector> {
    if effect.is_some_and(|effect| effect.is_none) {
        return Vec::new();
    }
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
        let writer = credentials::writer(config, inputs);
        for route in config.routes.select_each(request.method, &ingress.host, &readings) {
            if route.graphql.is_none() {
                invalidates |= route.writes_invalidate;
            } else if route.writes_invalidate && effect.is_none_or(|it| it.is_unknown) {
                selectors.push(all_of_route(config, route, inputs));
            }
            // A logout counts whatever page it redirects to, since most redirect to the login page.
            if route.is_logout(request.method) {
                selectors.extend(logout::selectors(config, inputs));
            }
            if is_done {
                let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
                tags.extend(route.purged_tags(&readings, query, user));
                is_for_everyone |= route.writes_for_everyone;
            }
        }
    }
    if invalidates {
        let inputs = (!is_for_everyone).then_some(inputs);
        for target in invalidation::invalidated_targets(request, outcome) {
            selectors.extend(urls(config, ingress, &target, inputs));
        }
    }
    tags.extend(effect.into_iter().flat_map(|effect| effect.tags.iter().cloned()));
    selectors.extend(tags.into_iter().map(|tag| Selector::Tag(tag.into())));
    selectors
}

/// Returns the groups that a response invalidates, as tags of the request's host.
fn groups(ingress: &Ingress<'_>, response: &HeaderMap) -> Vec<String> {
    let groups = invalidation::invalidated_groups(response);
    groups.iter().map(|group| tag::group_tag(group, &ingress.host)).collect()
}

/// Returns the selectors of a target, one for each route that stores responses for it. Without
/// `inputs`, the selectors select the responses of all users.
fn urls(
    config: &ConfigSnapshot,
    ingress: &Ingress<'_>,
    target: &str,
    inputs: Option<&IdentityInputs<'_>>,
) -> Vec<Selector> {
    let (path, query) = path_and_query(target);
    let readings = PathReadings::of(path);
    let mut selectors: Vec<Selector> = Vec::new();
    for route in config.routes.select_stored(&ingress.host, &readings) {
        if !route.rule.cache {
            continue;
        }
        let query = credentials::purge_query(config, route, query);
        let url = purge_url::of(&ingress.host, &readings, query.as_deref());
        let url = sensitive::write_selector(config, route, url);
        let owner = inputs.and_then(|inputs| credentials::owner(config, route, inputs));
        let owner = owner.map(|owner| Selector::User(Box::from(&*owner)));
        let is_first = selectors.is_empty();
        if selectors.contains(&url) {
            continue; // for everyone, on all routes
        }
        // Responses that another route stores for this URL have their own owners.
        let of_route = (!is_first).then(|| Selector::Route(Box::from(&*route.name)));
        let terms: Vec<Selector> = owner.into_iter().chain(of_route).chain([url]).collect();
        selectors.push(match <[Selector; 1]>::try_from(terms) {
            Ok([url]) => url,
            Err(terms) => Selector::All(terms.into()),
        });
    }
    selectors
}

/// Returns the selector of all responses of a route. If the route separates users, it selects only
/// the writing user's responses.
fn all_of_route(config: &ConfigSnapshot, route: &Route, inputs: &IdentityInputs<'_>) -> Selector {
    let of_route = Selector::Route(Box::from(&*route.name));
    match credentials::owner(config, route, inputs).filter(|_| !route.writes_for_everyone) {
        Some(owner) => Selector::All([Selector::User(Box::from(&*owner)), of_route].into()),
        None => of_route,
    }
}

fn path_and_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// Purges all that a write has changed, in one record, and waits until the fleet has applied it.
///
/// Waits 40 ms for the log, then half a second for slow nodes. Does not wait for dead nodes, nor
/// for an unreachable log: the write is done, and its response must be sent.
///
/// The purge applies on this node before the first wait. If it is not in the log when this function
/// returns or its caller is dropped, it is appended later.
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

/// Appends a purge that is not counted as a write. Returns its outcome and a label for it; `None`
/// if nothing is selected.
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

/// The error if the log did not respond in time.
struct LogTimeout;

/// Waits for the log and, once the purge is in the log, for the nodes.
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

/// Purges like [`purge`] or [`append`], at most once a second for each subject.
///
/// Later purges within the second are merged into one at its end, or when the node stops. Returns
/// when the purge is made.
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

/// Defers a purge to a task, so that no client waits for it.
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

/// Counts a purge that was merged into another.
pub(super) fn count_merged<S>(pipeline: &Pipeline<S>) {
    pipeline.metrics.purging.writes.with_label_values(&["merged"]).inc();
}

/// Appends a purge. If the log is unavailable, applies the purge on this node and appends it later.
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

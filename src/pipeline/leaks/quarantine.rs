//! Quarantine of routes: until an operator clears a route's quarantine, no response of the route is
//! stored or served from the store.
//!
//! The state is one value in the purge log's Redis, which every node merges with its own state. It
//! is not a record of the log, because records are trimmed. Records announce each change, and purge
//! what is stored for the route.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    leak::{ClearError, LeakEvidence, QuarantineTable, QuarantinedRoute},
    pipeline::state::Pipeline,
    purge::{LogEvent, LogUnavailable, PurgeReceipt, SyncState, TailState},
    store::Store,
};

/// The name of the shared value in Redis.
const VALUE: &str = "quarantine";

/// Interval at which a node compares its state with the shared state.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum time between two attempts to read the shared state while it cannot be read.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

impl<S: Store> Pipeline<S> {
    /// Quarantines a route on all nodes, and purges its stored responses. Takes effect at once on
    /// this node. `path` is the path of the compared responses.
    pub(super) fn quarantine(
        self: &Arc<Self>,
        route: &str,
        (evidence, path): (&LeakEvidence, &str),
    ) {
        let is_new = self.quarantine.lock().table.add(route, (evidence, path), self.clock.now());
        if !is_new {
            return;
        }
        self.apply_quarantine();
        let (cause, places) = (evidence.cause.as_str(), evidence.places.join(", "));
        tracing::error!(
            route,
            cause,
            path,
            places,
            "leak detected: responses depend on the requester; route quarantined",
        );
        let reason = format!("route quarantined: {cause}");
        let purge = announcement(vec![Selector::Route(route.into())], Some(reason));
        let pipeline = Arc::clone(self);
        tokio::spawn(async move {
            // The value comes first, because nodes read it when they receive the record.
            let _later_if_unavailable = pipeline.reconcile_quarantine().await;
            pipeline.log.append_eventually(purge);
        });
    }

    /// Returns the quarantined routes.
    pub(crate) fn quarantined_routes(&self) -> Vec<QuarantinedRoute> {
        self.quarantine.lock().table.list()
    }

    /// Ends the quarantine of a route on all nodes, after a purge of its stored responses. Returns
    /// the receipt of the purge.
    pub(crate) async fn clear_quarantine(&self, route: &str) -> Result<PurgeReceipt, ClearError> {
        let unavailable = |LogUnavailable| ClearError::Unavailable;
        self.reconcile_quarantine().await.map_err(unavailable)?;
        if !self.quarantine.lock().table.contains(route) {
            return Err(ClearError::NotQuarantined);
        }
        let reason = Some("quarantine cleared".to_owned());
        let purge = announcement(vec![Selector::Route(route.into())], reason.clone());
        let purged = self.log.append(purge, PurgeReceipt::DEFAULT_ACK_TIMEOUT).await;
        let receipt = purged.map_err(unavailable)?;
        let cleared = {
            let mut cleared = self.quarantine.lock().table.clone();
            cleared.clear(route, self.clock.now());
            cleared
        };
        let stored = self.log.set_fleet_value(VALUE, &cleared.to_json()).await;
        stored.map_err(unavailable)?;
        self.adopt_quarantine(cleared);
        self.log.append_eventually(announcement(Vec::new(), reason));
        Ok(receipt)
    }

    /// Merges this node's state and the shared state, in both directions.
    async fn reconcile_quarantine(&self) -> Result<(), LogUnavailable> {
        let shared = self.log.fleet_value(VALUE).await?;
        let read = shared.map_or_else(
            || Some(QuarantineTable::default()),
            |json| QuarantineTable::from_json(&json),
        );
        let Some(known) = read else {
            // A value of another version stays unchanged, because this node cannot read it.
            tracing::warn!("the fleet's quarantine has an unknown format");
            return Ok(());
        };
        let merged = self.adopt_quarantine(known.clone());
        if merged != known {
            self.log.set_fleet_value(VALUE, &merged.to_json()).await?;
        }
        Ok(())
    }

    /// Merges another state into this node's state. Returns the merged state.
    fn adopt_quarantine(&self, other: QuarantineTable) -> QuarantineTable {
        let (before, after, was_complete) = {
            let mut known = self.quarantine.lock();
            let before = known.table.list();
            known.table.merge(other, self.clock.now());
            let was_complete = std::mem::replace(&mut known.is_complete, true);
            (before, known.table.clone(), was_complete)
        };
        let now = after.list();
        if before != now || !was_complete {
            self.apply_quarantine();
        }
        let is_in =
            |list: &[QuarantinedRoute], route: &str| list.iter().any(|it| it.route == route);
        for QuarantinedRoute { route, cause, .. } in &now {
            if !is_in(&before, route) {
                tracing::warn!(route, cause, "route quarantined by another node");
            }
        }
        for QuarantinedRoute { route, .. } in before.iter().filter(|it| !is_in(&now, &it.route)) {
            tracing::info!(route, "quarantine cleared");
        }
        after
    }

    /// Updates the configuration to match the table.
    fn apply_quarantine(&self) {
        let known = self.quarantine.lock();
        self.config.update(|config| config.with_quarantine(|route| known.state_of(route)));
        self.observe_quarantine(&known.table);
    }

    fn observe_quarantine(&self, table: &QuarantineTable) {
        for (route, is_quarantined) in table.states() {
            let gauge = self.metrics.leaks.quarantined.with_label_values(&[route]);
            gauge.set(i64::from(is_quarantined));
        }
    }
}

/// Returns the purge that announces a change, with these selectors.
fn announcement(selectors: Vec<Selector>, reason: Option<String>) -> Purge {
    let (mode, source) = (PurgeMode::Hard, PurgeSource::Quarantine);
    Purge { mode, selectors, source, reason, warm: false }
}

/// Keeps this node's quarantine in sync with the fleet's, as long as the log exists.
pub(crate) async fn follow_quarantine<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.subscribe();
    let mut sync_state = pipeline.log.sync_state();
    loop {
        let was_following = sync_state.borrow().link == TailState::Following;
        if pipeline.reconcile_quarantine().await == Err(LogUnavailable) {
            let is_following = |now: &SyncState| !was_following && now.link == TailState::Following;
            let _following_or_due =
                timeout(RETRY_INTERVAL, sync_state.wait_for(is_following)).await;
            continue;
        }
        let announced = async {
            loop {
                if let LogEvent::Record { record, .. } = records.next().await
                    && record.purge.source == PurgeSource::Quarantine
                {
                    return;
                }
            }
        };
        let _announced_or_due = timeout(RECONCILE_INTERVAL, announced).await;
    }
}

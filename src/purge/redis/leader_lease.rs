//! Leader leases in Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::Value;
use tokio::{
    sync::{oneshot, watch},
    time::interval_at,
};

use super::{
    fleet_values::{SetCondition, set, unavailable},
    state::LogState,
};
use crate::purge::{
    LogUnavailable,
    identifier::{random_id, to_hex},
};

/// Duration of a lease. The lease of an unreachable node ends after this time.
const LEASE: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_secs(1);

/// A leader lease, renewed while Redis responds and released when dropped.
#[derive(Debug)]
pub(in crate::purge) struct RedisLeaderLease {
    until: watch::Receiver<Option<Instant>>,
    /// When dropped, ends the renewal in the background.
    _end: oneshot::Sender<()>,
}

/// Renews the lease in the background.
struct LeaseRenewer {
    shared: Arc<LogState>,
    key: String,
    own: String,
    until: watch::Sender<Option<Instant>>,
}

impl RedisLeaderLease {
    pub(super) async fn acquire(
        shared: Arc<LogState>,
        key: String,
    ) -> Result<Option<Self>, LogUnavailable> {
        let (requested_at, own) = (Instant::now(), to_hex(random_id()));
        let set = set(&shared, (key.clone(), own.clone()), (LEASE, SetCondition::IfAbsent));
        if set.await?.is_none() {
            return Ok(None);
        }
        let (end, ended) = oneshot::channel();
        let (until, seen) = watch::channel(Some(requested_at + LEASE));
        let renewer = LeaseRenewer { shared, key, own, until };
        tokio::spawn(renewer.run(ended));
        Ok(Some(Self { until: seen, _end: end }))
    }

    pub(in crate::purge) fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }
}

impl LeaseRenewer {
    /// Renews the lease until the [`RedisLeaderLease`] is dropped or the lease is lost.
    async fn run(self, mut ended: oneshot::Receiver<()>) {
        let mut ticks = interval_at(tokio::time::Instant::now() + RENEWAL, RENEWAL);
        loop {
            tokio::select! {
                _ = &mut ended => {
                    let _otherwise_it_ends_by_itself = self.extend(Duration::ZERO).await;
                    return;
                }
                _ = ticks.tick() => {}
            }
            let requested_at = Instant::now();
            match self.extend(LEASE).await {
                Ok(true) => drop(self.until.send_replace(Some(requested_at + LEASE))),
                Ok(false) => drop(self.until.send_replace(None)),
                Err(LogUnavailable) => {}
            }
            if self.until.borrow().is_none_or(|until| Instant::now() >= until) {
                return;
            }
        }
    }

    /// Extends the lease, or releases it if `by` is zero. Returns whether this node held the lease.
    async fn extend(&self, by: Duration) -> Result<bool, LogUnavailable> {
        let appender = self.shared.appender()?;
        let arguments = vec![self.own.clone(), by.as_millis().to_string()];
        let call = (vec![self.key.clone()], arguments);
        let run = self.shared.run(&appender, &self.shared.scripts.renew_lease, call, RENEWAL);
        Ok(matches!(run.await.map_err(|failure| unavailable(&failure))?, Value::Integer(1)))
    }
}

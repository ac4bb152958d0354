//! Roles that one node has at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fred::types::Value;
use tokio::{
    sync::{oneshot, watch},
    time::{interval_at, timeout},
};

use super::{
    session::Appender,
    shared::Shared,
    words::{Only, answered, own, set},
};
use crate::purge::Unavailable;

/// How long a role is kept for a node that is not heard of.
const LEASE: Duration = Duration::from_secs(3);
/// From one renewal to the next.
const RENEWAL: Duration = Duration::from_secs(1);

/// A role of this node: renewed as long as Redis answers, and given up when dropped.
#[derive(Debug)]
pub(in crate::purge) struct Holding {
    until: watch::Receiver<Option<Instant>>,
    /// Dropped with it, which ends the renewal.
    _end: oneshot::Sender<()>,
}

/// What renews it.
struct Keeper {
    shared: Arc<Shared>,
    key: String,
    own: String,
    until: watch::Sender<Option<Instant>>,
}

impl Holding {
    pub(super) async fn take(
        shared: Arc<Shared>,
        appender: &Appender,
        key: String,
    ) -> Result<Option<Self>, Unavailable> {
        let (asked, own) = (Instant::now(), own());
        let set = set(&shared, appender, (key.clone(), own.clone()), (LEASE, Only::New));
        if answered(set).await?.is_none() {
            return Ok(None);
        }
        let (end, ended) = oneshot::channel();
        let (until, seen) = watch::channel(Some(asked + LEASE));
        let keeper = Keeper { shared, key, own, until };
        tokio::spawn(keeper.keep(ended));
        Ok(Some(Self { until: seen, _end: end }))
    }

    pub(in crate::purge) fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }
}

impl Keeper {
    /// Renews the role until it is dropped or lost.
    async fn keep(self, mut ended: oneshot::Receiver<()>) {
        let mut turns = interval_at(tokio::time::Instant::now() + RENEWAL, RENEWAL);
        loop {
            tokio::select! {
                _ = &mut ended => {
                    let _otherwise_it_ends_by_itself = self.extend(Duration::ZERO).await;
                    return;
                }
                _ = turns.tick() => {}
            }
            let asked = Instant::now();
            match self.extend(LEASE).await {
                Ok(true) => drop(self.until.send_replace(Some(asked + LEASE))),
                Ok(false) => drop(self.until.send_replace(None)),
                Err(Unavailable) => {}
            }
            if self.until.borrow().is_none_or(|until| Instant::now() >= until) {
                return;
            }
        }
    }

    /// Whether the role was this node's still.
    async fn extend(&self, by: Duration) -> Result<bool, Unavailable> {
        let appender = self.shared.appender.borrow().clone().ok_or(Unavailable)?;
        let arguments = vec![self.own.clone(), by.as_millis().to_string()];
        let call = (vec![self.key.clone()], arguments);
        let run = self.shared.run(&appender.client, &self.shared.scripts.hold, call, RENEWAL);
        let answer = timeout(RENEWAL, answered(run)).await.unwrap_or(Err(Unavailable))?;
        Ok(matches!(answer, Value::Integer(1)))
    }
}

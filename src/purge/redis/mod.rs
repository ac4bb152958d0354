//! The purge log of a fleet: one Redis Stream that every node appends to and follows.
//!
//! Each entry has the id `seq-0`, and `seq` goes up by one. An entry says which log it belongs to, which
//! run of the server took it, and a nonce of its own; from these a node tells whether what is there now
//! continues what it has applied. Once a second it compares, and on each new connection; where it
//! cannot be sure it raises the floor. With each look it renews its lease in a hash beside the stream,
//! where every node finds the others. `docs/purge-log.md` has the whole of it.

mod answer;
mod entry;
pub mod fuzzed;
mod holding;
mod keys;
mod pending;
mod place;
mod roster;
mod script;
mod session;
mod shared;
mod witnesses;
mod words;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{sleep, sleep_until, timeout},
};

pub(super) use self::holding::Holding;
use self::{
    answer::Turn,
    place::Place,
    roster::Appended,
    session::{Appender, hold},
    shared::{APPEND, Shared},
};
use super::{
    Deadlines, Fences, NodeId, Once, Patience, Receipt, RedisLog, Retention, Standing, Unavailable,
};
use crate::fence::Purge;

/// How long signing off may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The pause before the next attempt, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// This node's end of the log, and the tasks that serve it.
pub(super) struct Redis {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

impl Redis {
    /// Begins to follow the log.
    pub(super) fn follow(
        log: RedisLog<'_>,
        fences: Arc<Fences>,
        standing: watch::Sender<Standing>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared::new(log, fences, standing));
        let tail = runtime.spawn(tail(Arc::clone(&shared)));
        let delivery = runtime.spawn(deliver(Arc::clone(&shared)));
        Self { shared, tasks: [tail.abort_handle(), delivery.abort_handle()] }
    }

    /// Appends a purge, says when it is in the log, and waits for the other nodes as long as `patience` has it.
    pub(super) async fn append(
        &self,
        purge: &Purge,
        patience: Patience,
        entered: oneshot::Sender<()>,
    ) -> Result<Receipt, Unavailable> {
        let deadlines = patience.beginning(Instant::now());
        let (appended, _) = append(&self.shared, &*self.appender()?, purge, None).await?;
        let _whether_heard = entered.send(());
        acknowledged(&self.shared, &appended, deadlines).await
    }

    /// The same, unless it was appended under this key before.
    pub(super) async fn append_once(
        &self,
        purge: &Purge,
        key: &str,
        patience: Patience,
    ) -> Result<Once, Unavailable> {
        let deadlines = patience.beginning(Instant::now());
        let key = self.shared.keys.done("appended", key);
        let (appended, turn) = append(&self.shared, &*self.appender()?, purge, Some(key)).await?;
        let receipt = acknowledged(&self.shared, &appended, deadlines).await?;
        Ok(match turn {
            Turn::First => Once::First(receipt),
            Turn::Again => Once::Again(receipt),
        })
    }

    pub(super) fn record(&self, purge: Purge) {
        self.shared.push(purge);
    }

    pub(super) fn retain(&self, retention: Retention) {
        *self.shared.retention.lock() = retention;
    }

    /// Purges that are in no log yet.
    pub(super) fn pending(&self) -> usize {
        self.shared.pending()
    }

    /// This node.
    pub(super) fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Other nodes with a lease, and others without one that have not signed off.
    pub(super) fn others(&self) -> (usize, usize) {
        self.shared.roster.lock().count(Instant::now())
    }

    /// Appends what is pending, uses nothing stored any more, and signs off; as far as that goes at once.
    pub(super) async fn leave(&self) {
        // Between two sessions there is nobody to tell for a moment.
        let Ok(appender) = timeout(FAREWELL, available(&self.shared)).await else {
            return self.shared.fences.leave();
        };
        let _delivered_or_lost = timeout(FAREWELL, self.shared.all_delivered()).await;
        for task in &self.tasks {
            task.abort();
        }
        self.shared.fences.leave();
        let farewell = appender.leave(&self.shared, self.shared.node);
        if !matches!(timeout(FAREWELL, farewell).await, Ok(Ok(()))) {
            tracing::warn!("this node could not sign off: purges wait for its lease to end");
        }
        self.shared.apart();
    }

    fn appender(&self) -> Result<Arc<Appender>, Unavailable> {
        self.shared.appender.borrow().clone().ok_or(Unavailable)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.apart();
    }
}

/// Appends a purge, and waits until this node has applied it.
async fn append(
    shared: &Shared,
    appender: &Appender,
    purge: &Purge,
    once: Option<String>,
) -> Result<(Appended, Turn), Unavailable> {
    let until_applied = async {
        let before = shared.fences.fence().log;
        let entered = appender.append(shared, purge, once).await.map_err(|failure| {
            tracing::warn!(%failure, "a purge cannot be appended to the log");
            Unavailable
        })?;
        let (Appended { fence, .. }, _) = entered;
        // The log may be gone already; what was purged is lost with it.
        let has_gone_on = |log| log != fence.log && log != before;
        let mut standing = shared.standing.subscribe();
        let decided = standing
            .wait_for(|standing| standing.has_reached(fence) || has_gone_on(standing.fence.log));
        match decided.await {
            Ok(standing) if standing.has_reached(fence) => Ok(entered),
            _ => Err(Unavailable),
        }
    };
    timeout(APPEND, until_applied).await.unwrap_or(Err(Unavailable))
}

/// Waits until no node uses what a record selects that is applied here, or until its deadline.
///
/// Nothing more is asked of Redis for that: a node whose lease is renewed meanwhile relies on the new one
/// only once it has applied the record.
async fn acknowledged(
    shared: &Shared,
    appended: &Appended,
    deadlines: Deadlines,
) -> Result<Receipt, Unavailable> {
    let (mut standing, mut roll) = (shared.standing.subscribe(), shared.roll.subscribe());
    loop {
        let log = standing.borrow_and_update().fence.log;
        roll.mark_unchanged();
        let now = Instant::now();
        let judgement = shared.roster.lock().judge(appended, now);
        let Some(again) = judgement.again else {
            shared.fences.acknowledged(appended.fence);
            return Ok(judgement.receipt);
        };
        if log != appended.fence.log {
            return Err(Unavailable);
        }
        let deadline = deadlines.of(judgement.awaits_live);
        if now >= deadline {
            return Ok(judgement.receipt);
        }
        tokio::select! {
            _ = standing.changed() => {}
            _ = roll.changed() => {}
            () = sleep_until(again.min(deadline).into()) => {}
        }
    }
}

/// Follows the log for as long as the node lives, in one session after the other.
async fn tail(shared: Arc<Shared>) {
    let (least, most) = PAUSE;
    let (mut pause, mut told) = (least, String::new());
    let mut place = Place::New;
    loop {
        let failure = hold(&shared, &mut place).await.to_string();
        if shared.apart() {
            pause = least;
            told.clear();
        }
        if failure != told {
            tracing::warn!(failure, "the purge log is out of reach");
            told = failure;
        }
        sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

/// Appends what is pending, in its order, again and again until it is in.
async fn deliver(shared: Arc<Shared>) {
    let (least, most) = PAUSE;
    let mut pause = least;
    loop {
        let Some(waiting) = shared.take() else {
            shared.waiting.notified().await;
            continue;
        };
        let appender = available(&shared).await;
        if append(&shared, &appender, &waiting.purge, None).await.is_ok() {
            shared.done(&waiting);
            pause = least;
        } else {
            shared.put_back(waiting);
            sleep(pause).await;
            pause = (pause * 2).min(most);
        }
    }
}

/// Who can append, as soon as somebody can.
async fn available(shared: &Shared) -> Arc<Appender> {
    let mut appender = shared.appender.subscribe();
    loop {
        if let Some(appender) = appender.borrow_and_update().clone() {
            return appender;
        }
        if appender.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

//! The guard: whether Redis is asked at all.
//!
//! A hung server looks like a slow one for as long as one waits for it. So every answer has a deadline,
//! and where answers stay out, or a connection breaks, the guard *opens*: from then on nothing is asked,
//! and every session is thrown away, whatever it was waiting for. A probe with a session of its own tries
//! again and again; the first answer closes the guard.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::fault::{Fault, Refusal};
use crate::{redis::Client, telemetry::StoreMetrics};

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(250);
/// The same where Redis refuses the user: asking often would only fill its log.
const PAUSE_REFUSED: Duration = Duration::from_secs(2);

/// How often a server that calls itself a replica is looked up anew.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Whether Redis answers, and whether it takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Up,
    /// It answers, but refuses writes.
    RefusingWrites(Refusal),
    /// It is being tried: since the start, or since it stopped to answer.
    Probing,
    /// It does not answer, for this reason.
    Down(String),
}

/// Counts how often the guard has opened. What happened in one epoch says nothing about the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

/// Whether Redis is asked at all.
pub struct Guard {
    /// The epoch while Redis is asked; 0 while it is not.
    admitted: AtomicU64,
    phase: watch::Sender<Phase>,
    /// A [`Refusal`], or 0.
    refusal: AtomicU8,
    sessions: Mutex<Vec<Weak<Client>>>,
    looked_up: Mutex<Option<Instant>>,
    metrics: Arc<StoreMetrics>,
}

#[derive(Debug, Clone)]
struct Phase {
    epoch: u64,
    standing: Standing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Starting,
    Closed,
    Probing,
    Open(String),
}

impl Guard {
    /// A guard that knows nothing yet, and asks nothing until a probe was answered.
    pub fn new(metrics: Arc<StoreMetrics>) -> Self {
        metrics.breaker_open.set(1);
        Self {
            admitted: AtomicU64::new(0),
            phase: watch::Sender::new(Phase { epoch: 1, standing: Standing::Starting }),
            refusal: AtomicU8::new(0),
            sessions: Mutex::default(),
            looked_up: Mutex::default(),
            metrics,
        }
    }

    /// The epoch, if Redis may be asked now.
    #[inline]
    pub fn admits(&self) -> Option<Epoch> {
        let epoch = self.admitted.load(Relaxed);
        (epoch != 0).then_some(Epoch(epoch))
    }

    /// The same, but waits for the first probe's outcome, if that is still out, for this long at most.
    pub async fn admits_within(&self, at_most: Duration) -> Option<Epoch> {
        if let Some(epoch) = self.admits() {
            return Some(epoch);
        }
        if self.phase.borrow().standing == Standing::Starting {
            Box::pin(self.decided(at_most)).await;
        }
        self.admits()
    }

    async fn decided(&self, at_most: Duration) {
        let mut phases = self.phase.subscribe();
        let decided = phases.wait_for(|phase| phase.standing != Standing::Starting);
        let _decided_or_late = tokio::time::timeout(at_most, decided).await;
    }

    /// Whether Redis is known to be away.
    pub fn is_open(&self) -> bool {
        matches!(self.phase.borrow().standing, Standing::Probing | Standing::Open(_))
    }

    /// What is known of Redis.
    pub fn state(&self) -> State {
        match &self.phase.borrow().standing {
            Standing::Starting | Standing::Probing => State::Probing,
            Standing::Open(cause) => State::Down(cause.clone()),
            Standing::Closed => self.refusal().map_or(State::Up, State::RefusingWrites),
        }
    }

    /// Has this session end when the guard opens. False where it has opened since that epoch.
    pub fn enlist(&self, epoch: Epoch, session: &Arc<Client>) -> bool {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.upgrade().is_some_and(|session| !session.has_ended()));
        let is_current = self.admits() == Some(epoch);
        if is_current {
            sessions.push(Arc::downgrade(session));
        }
        is_current
    }

    /// Opens, unless it has opened since this epoch began.
    pub fn open(&self, epoch: Epoch, cause: &Fault) {
        if self.end(epoch) {
            tracing::warn!(%cause, "Redis does not answer; going on without it");
        }
    }

    /// Ends this epoch, and whether it was this one's turn to end.
    fn end(&self, epoch: Epoch) -> bool {
        let ended = self.phase.send_if_modified(|phase| {
            let is_current = phase.epoch == epoch.0 && phase.standing == Standing::Closed;
            if is_current {
                phase.epoch += 1;
                phase.standing = Standing::Probing;
                self.admitted.store(0, Relaxed);
            }
            is_current
        });
        if ended {
            self.end_sessions();
            self.metrics.breaker_open.set(1);
            self.metrics.breaker_opened.inc();
        }
        ended
    }

    /// Notes what Redis said of a write, or of a script.
    pub fn note_write<T>(&self, result: &Result<T, Fault>) {
        self.note_refusal(result);
        if matches!(result, Err(Fault::Refused(Refusal::ReadOnly))) {
            self.look_up_anew();
        }
    }

    /// A primary that has become a replica still answers under its old address. The name may lead to
    /// another one by now.
    fn look_up_anew(&self) {
        let mut last = self.looked_up.lock();
        if last.is_none_or(|last| last.elapsed() >= LOOK_UP) {
            *last = Some(Instant::now());
            if let Some(epoch) = self.admits() {
                self.end(epoch);
            }
        }
    }

    fn note_refusal<T>(&self, result: &Result<T, Fault>) {
        let refusal = match result {
            Ok(_) if self.refusal.load(Relaxed) == 0 => return,
            Ok(_) => None,
            Err(Fault::Refused(refusal)) => Some(*refusal),
            Err(_) => return,
        };
        let before = self.refusal.swap(refusal.map_or(0, |refusal| refusal as u8), Relaxed);
        if before == refusal.map_or(0, |refusal| refusal as u8) {
            return;
        }
        if let Some(refusal) = refusal {
            tracing::warn!(reason = refusal.as_str(), "Redis refuses writes");
        } else {
            tracing::info!("Redis takes writes again");
        }
        let reasons = Refusal::ALL.into_iter().map(Refusal::as_str);
        self.metrics.refusing_writes(reasons, refusal.map(Refusal::as_str));
    }

    /// Probes whenever the guard is open, until `probe`'s owner is gone.
    pub async fn watch<P>(&self, probe: impl Fn() -> P)
    where
        P: Future<Output = Result<(), Fault>>,
    {
        loop {
            match probe().await {
                Ok(()) => {
                    self.close();
                    let mut phases = self.phase.subscribe();
                    let open = |phase: &Phase| phase.standing != Standing::Closed;
                    if phases.wait_for(open).await.is_err() {
                        return;
                    }
                }
                Err(cause) => {
                    let is_refused = matches!(cause, Fault::Refused(Refusal::NotAllowed));
                    self.stay_open(&cause);
                    tokio::time::sleep(if is_refused { PAUSE_REFUSED } else { PAUSE }).await;
                }
            }
        }
    }

    /// Waits until the guard has opened since this epoch began, were it but for a moment.
    pub async fn opened_since(&self, epoch: Epoch) {
        let mut phases = self.phase.subscribe();
        let _its_own_sender_lives = phases.wait_for(|phase| phase.epoch != epoch.0).await;
    }

    /// Waits until Redis may be asked.
    pub async fn closed(&self) -> Epoch {
        loop {
            let mut phases = self.phase.subscribe();
            let is_closed = |phase: &Phase| phase.standing == Standing::Closed;
            if let Ok(phase) = phases.wait_for(is_closed).await {
                return Epoch(phase.epoch);
            }
        }
    }

    fn close(&self) {
        self.phase.send_modify(|phase| {
            if phase.standing != Standing::Starting {
                tracing::info!("Redis answers again");
            }
            phase.standing = Standing::Closed;
            self.admitted.store(phase.epoch, Relaxed);
        });
        self.metrics.breaker_open.set(0);
    }

    fn stay_open(&self, cause: &Fault) {
        self.phase.send_modify(|phase| {
            if phase.standing == Standing::Starting {
                tracing::warn!(%cause, "Redis cannot be reached; going on without it");
            }
            phase.standing = Standing::Open(cause.to_string());
        });
    }

    fn refusal(&self) -> Option<Refusal> {
        let number = self.refusal.load(Relaxed);
        Refusal::ALL.into_iter().find(|refusal| *refusal as u8 == number)
    }

    /// Ends every session there is.
    pub fn end_sessions(&self) {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.end());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end_sessions();
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Up => formatter.write_str("up"),
            Self::RefusingWrites(refusal) => {
                write!(formatter, "refusing writes ({})", refusal.as_str())
            }
            Self::Probing => formatter.write_str("probing"),
            Self::Down(cause) => write!(formatter, "down ({cause})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::telemetry::Metrics;

    fn guard() -> Guard {
        Guard::new(Metrics::new().of_redis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_closes_it_and_nothing_older_opens_it() {
        let guard = guard();
        assert_eq!((guard.admits(), guard.state()), (None, State::Probing));
        let answers = AtomicUsize::new(0);
        let probe = || async {
            match answers.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => Err(Fault::Gone("connection refused".to_owned())),
                _ => Ok(()),
            }
        };
        let drive = async {
            let first = guard.closed().await;
            assert_eq!((guard.admits(), guard.state()), (Some(first), State::Up));
            guard.open(first, &Fault::Late);
            assert_eq!((guard.admits(), guard.state()), (None, State::Probing));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(guard.state().to_string(), "down (connection refused)");
            let second = guard.closed().await;
            guard.open(first, &Fault::Late);
            assert_eq!(guard.admits(), Some(second), "what the first epoch left behind is no news");
        };
        tokio::select! {
            () = guard.watch(probe) => unreachable!(),
            () = drive => {}
        }
        assert_eq!(answers.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn an_opening_that_is_over_already_is_not_missed() {
        let guard = guard();
        guard.close();
        let epoch = guard.closed().await;
        guard.open(epoch, &Fault::Late);
        guard.close();
        guard.opened_since(epoch).await;
        assert_ne!(guard.admits(), Some(epoch));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_start_is_waited_for() {
        let guard = guard();
        let begin = tokio::time::Instant::now();
        let wait = Duration::from_millis(20);
        assert_eq!(guard.admits_within(wait).await, None);
        assert_eq!(begin.elapsed(), wait);
        guard.stay_open(&Fault::Late);
        assert_eq!(guard.admits_within(wait).await, None);
        assert_eq!(begin.elapsed(), wait);
        guard.close();
        assert!(guard.admits_within(wait).await.is_some());
    }

    #[test]
    fn refused_writes_are_named_until_one_succeeds() {
        let guard = guard();
        guard.close();
        guard.note_write::<()>(&Err(Fault::Refused(Refusal::OutOfMemory)));
        assert_eq!(guard.state().to_string(), "refusing writes (out-of-memory)");
        guard.note_write::<()>(&Err(Fault::Late));
        assert_eq!(guard.state(), State::RefusingWrites(Refusal::OutOfMemory));
        guard.note_write(&Ok(()));
        assert_eq!(guard.state(), State::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_looked_up_anew_now_and_then() {
        let guard = guard();
        let read_only = || guard.note_write::<()>(&Err(Fault::Refused(Refusal::ReadOnly)));
        guard.close();
        read_only();
        assert_eq!(guard.admits(), None, "it may be somebody else by now");
        guard.close();
        read_only();
        assert!(guard.admits().is_some(), "not all the time");
        assert_eq!(guard.state(), State::RefusingWrites(Refusal::ReadOnly));
        tokio::time::advance(LOOK_UP).await;
        read_only();
        assert_eq!(guard.admits(), None);
    }
}

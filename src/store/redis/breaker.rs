//! The circuit breaker around Redis.
//!
//! A waiting client cannot tell a hung server from a slow one. So every command has a deadline. If
//! replies time out, or a connection breaks, the breaker *opens*: no more commands are sent, and
//! all sessions are closed, even those that wait for replies. The breaker then sends probes over
//! new sessions. The first reply closes the breaker.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::error::{CommandError, RedisRefusal};
use crate::{redis::RedisClient, telemetry::StoreMetrics};

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The interval between probes if Redis rejects the user. Frequent probes would fill Redis' log.
const PROBE_INTERVAL_REFUSED: Duration = Duration::from_secs(2);

/// The minimum time between two new address lookups after a server turned out to be a replica.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(3);

/// The health of Redis: whether it responds, and whether it accepts writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RedisHealth {
    Up,
    RefusingWrites(RedisRefusal),
    /// Larder has not received a reply yet, since the start or since Redis stopped responding.
    Probing,
    /// Redis does not respond. Contains the reason.
    Down(String),
}

/// The number of a period between two openings of the breaker.
///
/// Results from one generation do not affect later generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// A circuit breaker that stops commands to Redis after failures.
pub(super) struct CircuitBreaker {
    /// The current generation if the breaker is closed, else 0.
    permitted: AtomicU64,
    current: watch::Sender<GenerationState>,
    /// The last [`RedisRefusal`] of a write, or 0 if Redis accepts writes.
    refusal: AtomicU8,
    sessions: Mutex<Vec<Weak<RedisClient>>>,
    resolved_at: Mutex<Option<Instant>>,
    metrics: Arc<StoreMetrics>,
}

#[derive(Debug, Clone)]
struct GenerationState {
    generation: u64,
    state: BreakerState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum BreakerState {
    Starting,
    Closed,
    Probing,
    Open(String),
}

impl CircuitBreaker {
    /// Creates a breaker that stays open until the first successful probe.
    pub(super) fn new(metrics: Arc<StoreMetrics>) -> Self {
        metrics.breaker_open.set(1);
        Self {
            permitted: AtomicU64::new(0),
            current: watch::Sender::new(GenerationState {
                generation: 1,
                state: BreakerState::Starting,
            }),
            refusal: AtomicU8::new(0),
            sessions: Mutex::default(),
            resolved_at: Mutex::default(),
            metrics,
        }
    }

    /// Returns the current generation, or `None` if the breaker is not closed.
    #[inline]
    pub(super) fn permit(&self) -> Option<Generation> {
        let generation = self.permitted.load(Relaxed);
        (generation != 0).then_some(Generation(generation))
    }

    /// Like [`permit`](Self::permit), but waits up to `timeout` for the result of the first probe.
    pub(super) async fn permit_within(&self, timeout: Duration) -> Option<Generation> {
        if let Some(generation) = self.permit() {
            return Some(generation);
        }
        if self.current.borrow().state == BreakerState::Starting {
            Box::pin(self.wait_first_probe(timeout)).await;
        }
        self.permit()
    }

    async fn wait_first_probe(&self, timeout: Duration) {
        let mut changes = self.current.subscribe();
        let decided = changes.wait_for(|current| current.state != BreakerState::Starting);
        let _decided_or_late = tokio::time::timeout(timeout, decided).await;
    }

    /// Returns whether the breaker has opened and not closed since; `false` before the first probe.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.current.borrow().state, BreakerState::Probing | BreakerState::Open(_))
    }

    pub(super) fn health(&self) -> RedisHealth {
        match &self.current.borrow().state {
            BreakerState::Starting | BreakerState::Probing => RedisHealth::Probing,
            BreakerState::Open(cause) => RedisHealth::Down(cause.clone()),
            BreakerState::Closed => {
                self.refusal().map_or(RedisHealth::Up, RedisHealth::RefusingWrites)
            }
        }
    }

    /// Registers a session to be closed when the breaker opens.
    ///
    /// Returns `false` if the generation has ended.
    pub(super) fn register(&self, generation: Generation, session: &Arc<RedisClient>) -> bool {
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.upgrade().is_some_and(|session| !session.is_closed()));
        let is_current = self.permit() == Some(generation);
        if is_current {
            sessions.push(Arc::downgrade(session));
        }
        is_current
    }

    /// Opens the breaker, unless the generation has already ended.
    pub(super) fn open(&self, generation: Generation, cause: &CommandError) {
        if self.end_generation(generation) {
            tracing::warn!(%cause, "Redis does not respond; continuing without it");
        }
    }

    /// Opens the breaker and ends the generation. Returns `false` if it had ended already.
    fn end_generation(&self, generation: Generation) -> bool {
        let ended = self.current.send_if_modified(|current| {
            let is_current =
                current.generation == generation.0 && current.state == BreakerState::Closed;
            if is_current {
                current.generation += 1;
                current.state = BreakerState::Probing;
                self.permitted.store(0, Relaxed);
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

    /// Records whether Redis refuses writes, from the result of a write or a script.
    pub(super) fn record_write<T>(&self, result: &Result<T, CommandError>) {
        self.record_refusal(result);
        if matches!(result, Err(CommandError::Refused(RedisRefusal::ReadOnly))) {
            self.resolve_again();
        }
    }

    /// Ends the generation, so that new sessions resolve the host name again.
    ///
    /// After a failover, the old primary still responds at its address, but as a replica.
    fn resolve_again(&self) {
        let mut last = self.resolved_at.lock();
        if last.is_none_or(|last| last.elapsed() >= RESOLVE_INTERVAL) {
            *last = Some(Instant::now());
            if let Some(generation) = self.permit() {
                self.end_generation(generation);
            }
        }
    }

    fn record_refusal<T>(&self, result: &Result<T, CommandError>) {
        let refusal = match result {
            Ok(_) if self.refusal.load(Relaxed) == 0 => return,
            Ok(_) => None,
            Err(CommandError::Refused(refusal)) => Some(*refusal),
            Err(_) => return,
        };
        let before = self.refusal.swap(refusal.map_or(0, |refusal| refusal as u8), Relaxed);
        if before == refusal.map_or(0, |refusal| refusal as u8) {
            return;
        }
        if let Some(refusal) = refusal {
            tracing::warn!(reason = refusal.as_str(), "Redis refuses writes");
        } else {
            tracing::info!("Redis accepts writes again");
        }
        let reasons = RedisRefusal::ALL.into_iter().map(RedisRefusal::as_str);
        self.metrics.set_refusing_writes(reasons, refusal.map(RedisRefusal::as_str));
    }

    /// Probes whenever the breaker is open. Runs as long as the breaker exists.
    pub(super) async fn run_probes<P>(&self, probe: impl Fn() -> P)
    where
        P: Future<Output = Result<(), CommandError>>,
    {
        loop {
            match probe().await {
                Ok(()) => {
                    self.close();
                    let mut changes = self.current.subscribe();
                    let open = |current: &GenerationState| current.state != BreakerState::Closed;
                    if changes.wait_for(open).await.is_err() {
                        return;
                    }
                }
                Err(cause) => {
                    let is_refused =
                        matches!(cause, CommandError::Refused(RedisRefusal::NotAllowed));
                    self.probe_failed(&cause);
                    tokio::time::sleep(if is_refused {
                        PROBE_INTERVAL_REFUSED
                    } else {
                        PROBE_INTERVAL
                    })
                    .await;
                }
            }
        }
    }

    /// Waits until this generation has ended: the breaker has opened, and may have closed again.
    pub(super) async fn wait_opened_since(&self, generation: Generation) {
        let mut changes = self.current.subscribe();
        let _its_own_sender_lives =
            changes.wait_for(|current| current.generation != generation.0).await;
    }

    pub(super) async fn wait_closed(&self) -> Generation {
        loop {
            let mut changes = self.current.subscribe();
            let is_closed = |current: &GenerationState| current.state == BreakerState::Closed;
            if let Ok(current) = changes.wait_for(is_closed).await {
                return Generation(current.generation);
            }
        }
    }

    fn close(&self) {
        self.current.send_modify(|current| {
            if current.state != BreakerState::Starting {
                tracing::info!("reconnected to Redis");
            }
            current.state = BreakerState::Closed;
            self.permitted.store(current.generation, Relaxed);
        });
        self.metrics.breaker_open.set(0);
    }

    fn probe_failed(&self, cause: &CommandError) {
        self.current.send_modify(|current| {
            if current.state == BreakerState::Starting {
                tracing::warn!(%cause, "Redis is unreachable; continuing without it");
            }
            current.state = BreakerState::Open(cause.to_string());
        });
    }

    fn refusal(&self) -> Option<RedisRefusal> {
        let number = self.refusal.load(Relaxed);
        RedisRefusal::ALL.into_iter().find(|refusal| *refusal as u8 == number)
    }

    pub(super) fn end_sessions(&self) {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        sessions.iter().filter_map(Weak::upgrade).for_each(|session| session.close());
    }
}

impl Drop for CircuitBreaker {
    fn drop(&mut self) {
        self.end_sessions();
    }
}

impl std::fmt::Display for RedisHealth {
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

    fn breaker() -> CircuitBreaker {
        CircuitBreaker::new(Metrics::new().for_redis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_closes_it_and_nothing_older_opens_it() {
        let breaker = breaker();
        assert_eq!((breaker.permit(), breaker.health()), (None, RedisHealth::Probing));
        let answers = AtomicUsize::new(0);
        let probe = || async {
            match answers.fetch_add(1, Ordering::Relaxed) {
                0 | 2 => Err(CommandError::Disconnected("connection refused".to_owned())),
                _ => Ok(()),
            }
        };
        let drive = async {
            let first = breaker.wait_closed().await;
            assert_eq!((breaker.permit(), breaker.health()), (Some(first), RedisHealth::Up));
            breaker.open(first, &CommandError::TimedOut);
            assert_eq!((breaker.permit(), breaker.health()), (None, RedisHealth::Probing));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(breaker.health().to_string(), "down (connection refused)");
            let second = breaker.wait_closed().await;
            breaker.open(first, &CommandError::TimedOut);
            assert_eq!(
                breaker.permit(),
                Some(second),
                "what the first generation left behind is no news"
            );
        };
        tokio::select! {
            () = breaker.run_probes(probe) => unreachable!(),
            () = drive => {}
        }
        assert_eq!(answers.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn an_opening_that_is_over_already_is_not_missed() {
        let breaker = breaker();
        breaker.close();
        let generation = breaker.wait_closed().await;
        breaker.open(generation, &CommandError::TimedOut);
        breaker.close();
        breaker.wait_opened_since(generation).await;
        assert_ne!(breaker.permit(), Some(generation));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_start_is_waited_for() {
        let breaker = breaker();
        let begin = tokio::time::Instant::now();
        let wait = Duration::from_millis(20);
        assert_eq!(breaker.permit_within(wait).await, None);
        assert_eq!(begin.elapsed(), wait);
        breaker.probe_failed(&CommandError::TimedOut);
        assert_eq!(breaker.permit_within(wait).await, None);
        assert_eq!(begin.elapsed(), wait);
        breaker.close();
        assert!(breaker.permit_within(wait).await.is_some());
    }

    #[test]
    fn refused_writes_are_named_until_one_succeeds() {
        let breaker = breaker();
        breaker.close();
        breaker.record_write::<()>(&Err(CommandError::Refused(RedisRefusal::OutOfMemory)));
        assert_eq!(breaker.health().to_string(), "refusing writes (out-of-memory)");
        breaker.record_write::<()>(&Err(CommandError::TimedOut));
        assert_eq!(breaker.health(), RedisHealth::RefusingWrites(RedisRefusal::OutOfMemory));
        breaker.record_write(&Ok(()));
        assert_eq!(breaker.health(), RedisHealth::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_looked_up_anew_now_and_then() {
        let breaker = breaker();
        let read_only =
            || breaker.record_write::<()>(&Err(CommandError::Refused(RedisRefusal::ReadOnly)));
        breaker.close();
        read_only();
        assert_eq!(breaker.permit(), None, "it may be somebody else by now");
        breaker.close();
        read_only();
        assert!(breaker.permit().is_some(), "not all the time");
        assert_eq!(breaker.health(), RedisHealth::RefusingWrites(RedisRefusal::ReadOnly));
        tokio::time::advance(RESOLVE_INTERVAL).await;
        read_only();
        assert_eq!(breaker.permit(), None);
    }
}

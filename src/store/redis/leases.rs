//! Fetch leases: one node fetches what several nodes miss.
//!
//! A lease is a key with a random token and a short TTL. Its holder renews it until it releases it.
//! The release goes through the write queue, after the fetched response. It sends a message to each
//! node that waits. If a message is lost, that node waits for the rest of the TTL.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::types::Value;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    StoreInner,
    breaker::Generation,
    connection::{BatchingConnection, TrafficClass},
    error::CommandError,
    keys,
    queue::QueuedWrite,
    scripts,
};
use crate::{
    redis::ScriptCall,
    store::{FetchClaim, FetchLease, LeaseResult, OriginFailure, RemoteFetch},
    telemetry::{StoreOperation, StoreOperationOutcome},
};

/// The TTL of a lease.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// The interval at which the holder renews it.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// The most time for acquiring a lease. A hung server is detected earlier.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(250);
/// The most time that a request waits for another node.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The TTL of the set of waiting nodes: longer than any of them waits.
const WAITERS_TTL: Duration = Duration::from_secs(40);
/// The margin for inexact clocks and timers before an expired lease is checked again.
const GRACE: Duration = Duration::from_millis(20);

/// This node's identity, and the leases that it waits for.
pub(super) struct FetchLeases {
    node: String,
    runtime: Handle,
    /// Whether this node receives messages.
    is_subscribed: AtomicBool,
    waiters: Mutex<HashMap<u128, Vec<LeaseWaiter>>>,
    next: AtomicU64,
}

struct LeaseWaiter {
    id: u64,
    sender: oneshot::Sender<LeaseResult>,
}

impl FetchLeases {
    /// Creates an empty set of leases. `runtime` runs the tasks that renew them.
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            node: format!("{:016x}", super::random()),
            runtime,
            is_subscribed: AtomicBool::new(false),
            waiters: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// Returns this node's random name.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Records whether this node receives messages. If it does not, all waits end.
    pub(super) fn set_subscribed(&self, is_subscribed: bool) {
        self.is_subscribed.store(is_subscribed, Relaxed);
        if !is_subscribed {
            self.waiters.lock().clear();
        }
    }

    /// Returns whether this node receives messages.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Relaxed)
    }

    /// Delivers the result of a fetch to this node's waiters.
    pub(super) fn notify(&self, digest: u128, result: LeaseResult) {
        let waiters = self.waiters.lock().remove(&digest).unwrap_or_default();
        for waiter in waiters {
            let _gone_already = waiter.sender.send(result);
        }
    }

    fn register(self: &Arc<Self>, digest: u128) -> Registration {
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiters.lock().entry(digest).or_default().push(LeaseWaiter { id, sender });
        Registration { leases: Arc::clone(self), digest, id, receiver }
    }
}

/// A waiter's registration. Dropping it removes the waiter.
struct Registration {
    leases: Arc<FetchLeases>,
    digest: u128,
    id: u64,
    receiver: oneshot::Receiver<LeaseResult>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut waiters = self.leases.waiters.lock();
        if let Some(waiting) = waiters.get_mut(&self.digest) {
            waiting.retain(|waiter| waiter.id != self.id);
            if waiting.is_empty() {
                waiters.remove(&self.digest);
            }
        }
    }
}

/// Acquires the lease, or registers as waiting for its holder. One round trip.
///
/// A late reply causes a retry: if a node fetched just because it was briefly overloaded, the
/// origin would receive two requests from the fleet.
pub(super) async fn claim(inner: &Arc<StoreInner>, digest: u128) -> FetchClaim {
    let Some(generation) = inner.breaker.permit_within(inner.settings.read_deadline).await else {
        inner.metrics.count(StoreOperation::Claim, StoreOperationOutcome::Open);
        return FetchClaim::Uncoordinated;
    };
    let started = Instant::now();
    // Register before acquiring, so that a release between the two is not missed.
    let registration = inner.leases.register(digest);
    let token = format!("{:016x}", super::random());
    let result = acquire(inner, generation, digest, &token).await;
    inner.breaker.record_write(&result);
    let outcome = match &result {
        Ok(scripts::ACQUIRED) => StoreOperationOutcome::Miss,
        Ok(_) => StoreOperationOutcome::Hit,
        Err(error) => error.outcome(),
    };
    inner.metrics.observe(StoreOperation::Claim, outcome, started.elapsed());
    match result {
        // Without a reply, this node may hold the lease. It then releases it, so that others do not
        // wait in vain.
        Ok(scripts::ACQUIRED)
        | Err(CommandError::TimedOut | CommandError::Disconnected(_) | CommandError::BreakerOpen) =>
        {
            let (lease, released) = FetchLease::new();
            inner.leases.runtime.spawn(renew_until_released(
                Arc::clone(inner),
                digest,
                token,
                released,
            ));
            FetchClaim::Lead(lease)
        }
        Ok(left) if inner.leases.is_subscribed() => {
            let (sender, fetch) = RemoteFetch::new();
            inner.leases.runtime.spawn(wait(
                Arc::clone(inner),
                generation,
                (registration, left),
                sender,
            ));
            FetchClaim::Follow(fetch)
        }
        _ => FetchClaim::Uncoordinated,
    }
}

async fn acquire(
    inner: &StoreInner,
    generation: Generation,
    digest: u128,
    token: &str,
) -> Result<i64, CommandError> {
    let started = Instant::now();
    let arguments =
        vec![token.into(), millis(LEASE_TTL), inner.leases.node().into(), millis(WAITERS_TTL)];
    let call = ScriptCall { keys: inner.lease_keys(digest), arguments };
    let mut attempts = AcquireAttempts::default();
    loop {
        let connection = inner.pool.connection(generation, TrafficClass::Small);
        // A lease granted later would not be used.
        let within =
            ACQUIRE_TIMEOUT.saturating_sub(started.elapsed()) + inner.settings.read_deadline;
        let result = connection.run(&scripts::ACQUIRE, call.clone(), Some(within)).await;
        let result = attempts.result(result);
        let is_asked_again = matches!(result, Err(CommandError::TimedOut | CommandError::Overdue))
            && started.elapsed() < ACQUIRE_TIMEOUT
            && inner.breaker.permit() == Some(generation);
        if !is_asked_again {
            return result;
        }
    }
}

/// The attempts to acquire one lease.
#[derive(Default)]
struct AcquireAttempts {
    /// Whether an attempt timed out, and so may have acquired the lease.
    had_timeout: bool,
}

impl AcquireAttempts {
    /// Combines the result of an attempt with those before it.
    fn result(&mut self, result: Result<i64, CommandError>) -> Result<i64, CommandError> {
        self.had_timeout |= matches!(result, Err(CommandError::TimedOut));
        match result {
            Err(CommandError::Overdue) if self.had_timeout => Err(CommandError::TimedOut),
            result => result,
        }
    }
}

/// Ends a lease and reports its result to the waiting nodes.
pub(super) async fn release(
    inner: &StoreInner,
    connection: &BatchingConnection,
    digest: u128,
    token: &str,
    result: LeaseResult,
) -> Result<(), CommandError> {
    let message = format!("{} {}", keys::hex(digest), format_result(result));
    let arguments = vec![token.into(), message.into(), inner.keys.channel_prefix().into()];
    let call = ScriptCall { keys: inner.lease_keys(digest), arguments };
    connection.run::<i64>(&scripts::RELEASE, call, None).await.map(drop)
}

/// Parses a message: the digest, and the result of its fetch.
pub(super) fn parse_message(message: &str) -> Option<(u128, LeaseResult)> {
    let (digest, result) = message.split_once(' ')?;
    let mut parts = result.split(' ');
    let result = match (parts.next()?, parts.next()) {
        ("stored", None) => LeaseResult::Stored,
        ("alone", None) => LeaseResult::NotShareable,
        ("nothing", None) => LeaseResult::Abandoned,
        (kind @ ("failed" | "disconnected"), Some(status)) => {
            let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
            let retry_after = parts.next().map(str::parse).transpose().ok()?;
            let is_disconnected = kind == "disconnected";
            LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected })
        }
        _ => return None,
    };
    Some((u128::from_str_radix(digest, 16).ok()?, result))
}

/// Formats a result. Nodes of older versions ignore unknown results and wait for the lease's end.
fn format_result(result: LeaseResult) -> Cow<'static, str> {
    match result {
        LeaseResult::Stored => "stored".into(),
        LeaseResult::NotShareable => "alone".into(),
        LeaseResult::Abandoned => "nothing".into(),
        LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected }) => {
            let kind = if is_disconnected { "disconnected" } else { "failed" };
            let seconds = retry_after.map(|seconds| format!(" {seconds}")).unwrap_or_default();
            format!("{kind} {}{seconds}", status.as_str()).into()
        }
    }
}

/// Renews a lease until it is released.
async fn renew_until_released(
    inner: Arc<StoreInner>,
    digest: u128,
    token: String,
    mut released: oneshot::Receiver<LeaseResult>,
) {
    let mut renewals = interval(RENEWAL_INTERVAL);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewals.tick().await;
    let result = loop {
        tokio::select! {
            result = &mut released => break result.unwrap_or(LeaseResult::Abandoned),
            _ = renewals.tick() => {
                if !renew(&inner, digest, &token).await {
                    // It expired; another node may hold it now.
                    return;
                }
            }
        }
    };
    let result =
        if inner.breaker.is_open() { result_after_outage(&inner).await } else { Some(result) };
    if let Some(result) = result {
        inner.push(StoreOperation::Publish, QueuedWrite::ReleaseLease { digest, token, result });
    }
}

/// Returns the result of a fetch that ended while Redis was down, so nothing was stored.
///
/// `None` if Redis stays down for longer than the TTL of the lease.
async fn result_after_outage(inner: &StoreInner) -> Option<LeaseResult> {
    timeout(LEASE_TTL, inner.breaker.wait_closed()).await.ok().map(|_| LeaseResult::Abandoned)
}

/// Renews a lease; false if another node holds it. A renewal that fails is repeated later.
async fn renew(inner: &StoreInner, digest: u128, token: &str) -> bool {
    let Some(generation) = inner.breaker.permit() else { return true };
    let connection = inner.pool.connection(generation, TrafficClass::Small);
    let arguments = vec![token.into(), millis(LEASE_TTL)];
    let call = ScriptCall { keys: vec![inner.keys.lease(digest)], arguments };
    connection.run::<i64>(&scripts::RENEW, call, Some(RENEWAL_INTERVAL)).await != Ok(0)
}

/// Waits until the lease ends, and sends its result.
async fn wait(
    inner: Arc<StoreInner>,
    generation: Generation,
    (mut registration, left): (Registration, i64),
    mut sender: oneshot::Sender<LeaseResult>,
) {
    let digest = registration.digest;
    let result = tokio::select! {
        result = &mut registration.receiver => result.unwrap_or(LeaseResult::Abandoned),
        ended = timeout(MAX_WAIT, wait_for_expiry(&inner, digest, left)) => {
            ended.unwrap_or(LeaseResult::Abandoned)
        }
        () = inner.breaker.wait_opened_since(generation) => LeaseResult::Abandoned,
        () = sender.closed() => return,
    };
    let _gone_already = sender.send(result);
}

/// Waits until the lease has expired: its holder died, or its message was lost.
async fn wait_for_expiry(inner: &StoreInner, digest: u128, mut left: i64) -> LeaseResult {
    while let Ok(millis) = u64::try_from(left) {
        sleep(Duration::from_millis(millis) + GRACE).await;
        let Some(generation) = inner.breaker.permit() else { return LeaseResult::Abandoned };
        let connection = inner.pool.connection(generation, TrafficClass::Small);
        let arguments = vec![inner.leases.node().into(), self::millis(WAITERS_TTL)];
        let call = ScriptCall { keys: inner.lease_keys(digest), arguments };
        left = connection.run(&scripts::AWAIT, call, None).await.unwrap_or(scripts::NO_LEASE);
    }
    LeaseResult::Abandoned
}

impl StoreInner {
    fn lease_keys(&self, digest: u128) -> Vec<Bytes> {
        vec![self.keys.lease(digest), self.keys.waiters(digest)]
    }
}

fn millis(duration: Duration) -> Value {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_an_earlier_attempt_may_have_taken_is_not_left_behind() {
        let mut attempts = AcquireAttempts::default();
        assert_eq!(attempts.result(Err(CommandError::Overdue)), Err(CommandError::Overdue));
        assert_eq!(attempts.result(Err(CommandError::TimedOut)), Err(CommandError::TimedOut));
        assert_eq!(attempts.result(Err(CommandError::Overdue)), Err(CommandError::TimedOut));
        assert_eq!(attempts.result(Ok(5)), Ok(5));
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let failed = |status, retry_after, is_disconnected| {
            let status = StatusCode::from_u16(status).unwrap();
            LeaseResult::Failed(OriginFailure { status, retry_after, is_disconnected })
        };
        for result in [
            LeaseResult::Stored,
            LeaseResult::NotShareable,
            LeaseResult::Abandoned,
            failed(502, None, true),
            failed(503, Some(30), false),
        ] {
            let message = format!("{} {}", keys::hex(7), format_result(result));
            assert_eq!(parse_message(&message), Some((7, result)));
        }
        for strange in
            ["", "7", "x stored", "00 lost", " stored", "7 failed", "7 failed x", "7 failed 503 x"]
        {
            assert_eq!(parse_message(strange), None, "{strange}");
        }
    }
}

//! Leases: which node fetches what several nodes lack.
//!
//! A lease is a key with a random token and a short life. Its holder renews it until it lands, and landing
//! goes through the write queue: what it fetched was written before. Those who wait are told by a message
//! to their node. A message that gets lost costs them no more than what is left of the lease.

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

/// How long a lease lasts.
const LEASE_TTL: Duration = Duration::from_secs(3);
/// How often its holder renews it.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long it is tried to agree, at most. A server that hangs is found out before.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long anyone waits, whatever happens.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How long a list of those who wait lasts: longer than any of them does.
const WAITERS_TTL: Duration = Duration::from_secs(40);
/// Clocks and timers are not exact: a lease is looked at again this long after its end.
const GRACE: Duration = Duration::from_millis(20);

/// This node, and what it waits for.
pub(super) struct FetchLeases {
    node: String,
    runtime: Handle,
    /// Whether messages reach this node.
    is_subscribed: AtomicBool,
    waiters: Mutex<HashMap<u128, Vec<LeaseWaiter>>>,
    next: AtomicU64,
}

struct LeaseWaiter {
    id: u64,
    sender: oneshot::Sender<LeaseResult>,
}

impl FetchLeases {
    /// Nothing claimed, nothing waited for. Leases are held on `runtime`.
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            node: format!("{:016x}", super::random()),
            runtime,
            is_subscribed: AtomicBool::new(false),
            waiters: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// This node's name, drawn at random.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// Notes whether messages reach this node. Where they do no more, nobody goes on waiting for one.
    pub(super) fn set_subscribed(&self, is_subscribed: bool) {
        self.is_subscribed.store(is_subscribed, Relaxed);
        if !is_subscribed {
            self.waiters.lock().clear();
        }
    }

    /// Whether messages reach this node.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Relaxed)
    }

    /// Tells those who wait for this digest what came of it.
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

/// A place among those who wait; given up when it is dropped.
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

/// Takes the lead, or learns who has it. One round trip.
///
/// What is asked is asked again where the answer is late: a node that asks the origin because it was busy
/// for a moment makes a fleet ask twice.
pub(super) async fn claim(inner: &Arc<StoreInner>, digest: u128) -> FetchClaim {
    let Some(generation) = inner.breaker.permit_within(inner.settings.read_deadline).await else {
        inner.metrics.count(StoreOperation::Claim, StoreOperationOutcome::Open);
        return FetchClaim::Uncoordinated;
    };
    let started = Instant::now();
    // Whoever waits has to listen before it is known that there is somebody to be heard.
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
        // Without an answer it may have the lease: then it lands it, lest others wait for nothing.
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
        // Later than that nobody takes the lease that it would grant.
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

/// The attempts at one lease.
#[derive(Default)]
struct AcquireAttempts {
    /// Whether an attempt had no answer in time: it may have taken the lease.
    had_timeout: bool,
}

impl AcquireAttempts {
    /// Returns what an attempt comes to, with those before it.
    fn result(&mut self, result: Result<i64, CommandError>) -> Result<i64, CommandError> {
        self.had_timeout |= matches!(result, Err(CommandError::TimedOut));
        match result {
            Err(CommandError::Overdue) if self.had_timeout => Err(CommandError::TimedOut),
            result => result,
        }
    }
}

/// Ends a lease: those who wait hear what came of it.
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

/// What a message says.
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

/// Nodes of versions before ignore what they cannot read, and wait until the lease is gone.
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

/// Renews a lease until it lands.
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
                    // It ran out; another node may lead by now.
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

/// What a lease lands with whose fetch ended while Redis was away: nothing of it was stored. `None` if
/// Redis stays away for longer than the lease lasts.
async fn result_after_outage(inner: &StoreInner) -> Option<LeaseResult> {
    timeout(LEASE_TTL, inner.breaker.wait_closed()).await.ok().map(|_| LeaseResult::Abandoned)
}

/// False where the lease is somebody else's. A renewal that does not get through may have better luck
/// the next time.
async fn renew(inner: &StoreInner, digest: u128, token: &str) -> bool {
    let Some(generation) = inner.breaker.permit() else { return true };
    let connection = inner.pool.connection(generation, TrafficClass::Small);
    let arguments = vec![token.into(), millis(LEASE_TTL)];
    let call = ScriptCall { keys: vec![inner.keys.lease(digest)], arguments };
    connection.run::<i64>(&scripts::RENEW, call, Some(RENEWAL_INTERVAL)).await != Ok(0)
}

/// Waits until the lease ends, and tells how.
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

/// Waits until the lease has run out: whoever held it died, or its message was lost.
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

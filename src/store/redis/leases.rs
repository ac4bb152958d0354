//! Fetch leases: if several nodes miss the same key, one node fetches it.
//!
//! A lease is a key with a random token and a short TTL. The holder renews the lease, and releases
//! it after the fetch. The release is queued as a write behind the fetched response, and sends a
//! message to each waiting node. If the message is lost, the node waits for the rest of the TTL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::types::Value;
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    breaker::Generation,
    connection::{BatchingConnection, TrafficClass},
    error::CommandError,
    inner::StoreInner,
    lease_message,
    queue::QueuedWrite,
    scripts,
    waiters::Registration,
};
use crate::{
    redis::ScriptCall,
    store::{FetchClaim, FetchLease, LeaseResult, RemoteFetch},
    telemetry::{StoreOperation, StoreOperationOutcome},
};

const LEASE_TTL: Duration = Duration::from_secs(3);
/// The interval at which the holder renews a lease.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum time for acquiring a lease. The breaker detects a hung server earlier.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(250);
/// The maximum time that a request waits for another node.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The TTL of the set of waiting nodes: longer than [`MAX_WAIT`].
const WAITERS_TTL: Duration = Duration::from_secs(40);
/// The time from the expiry of a lease to the next check, since clocks and timers are inexact.
const GRACE: Duration = Duration::from_millis(20);

/// Acquires the lease, or registers this node as waiting for its holder, in one round trip.
///
/// Retries after a late reply. If a node that was briefly overloaded fetched without a lease, the
/// origin would receive two requests from the fleet.
pub(super) async fn claim(inner: &Arc<StoreInner>, digest: u128) -> FetchClaim {
    let Some(generation) = inner.breaker.permit_within(inner.settings.read_deadline).await else {
        inner.metrics.count(StoreOperation::Claim, StoreOperationOutcome::Open);
        return FetchClaim::Uncoordinated;
    };
    let started = Instant::now();
    // Register before acquiring, so that a release between the two is not missed.
    let registration = inner.waiters.register(digest);
    let token = format!("{:016x}", fastrand::u64(..));
    let result = acquire(inner, generation, digest, &token).await;
    inner.breaker.record_write(&result);
    let outcome = match &result {
        Ok(scripts::ACQUIRED) => StoreOperationOutcome::Miss,
        Ok(_) => StoreOperationOutcome::Hit,
        Err(error) => error.outcome(),
    };
    inner.metrics.observe(StoreOperation::Claim, outcome, started.elapsed());
    match result {
        // Without a reply, this node may hold the lease. It leads, and so releases the lease later.
        Ok(scripts::ACQUIRED)
        | Err(CommandError::TimedOut | CommandError::Disconnected(_) | CommandError::BreakerOpen) =>
        {
            let (lease, released) = FetchLease::new();
            inner.runtime.spawn(renew_until_released(Arc::clone(inner), digest, token, released));
            FetchClaim::Lead(lease)
        }
        Ok(left) if inner.waiters.is_subscribed() => {
            let (sender, fetch) = RemoteFetch::new();
            inner.runtime.spawn(wait(Arc::clone(inner), generation, (registration, left), sender));
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
        vec![token.into(), millis(LEASE_TTL), inner.waiters.node().into(), millis(WAITERS_TTL)];
    let call = ScriptCall { keys: inner.lease_keys(digest), arguments };
    let mut attempts = AcquireAttempts::default();
    loop {
        let connection = inner.pool.connection(generation, TrafficClass::Small);
        // Later, this node would no longer use the lease.
        let within =
            ACQUIRE_TIMEOUT.saturating_sub(started.elapsed()) + inner.settings.read_deadline;
        let result = connection.run(&scripts::ACQUIRE, call.clone(), Some(within)).await;
        let result = attempts.result(result);
        let is_retried = matches!(result, Err(CommandError::TimedOut | CommandError::Overdue))
            && started.elapsed() < ACQUIRE_TIMEOUT
            && inner.breaker.permit() == Some(generation);
        if !is_retried {
            return result;
        }
    }
}

/// The attempts to acquire one lease.
#[derive(Default)]
struct AcquireAttempts {
    /// Whether an attempt timed out. Such an attempt may have acquired the lease.
    had_timeout: bool,
}

impl AcquireAttempts {
    /// Returns the result of an attempt. Once an attempt has timed out, overdue attempts count as
    /// timeouts.
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
    let message = lease_message::format(digest, result);
    let arguments = vec![token.into(), message.into(), inner.keys.channel_prefix().into()];
    let call = ScriptCall { keys: inner.lease_keys(digest), arguments };
    connection.run::<i64>(&scripts::RELEASE, call, None).await.map(drop)
}

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
                    // The lease has expired, and another node may hold it now.
                    return;
                }
            }
        }
    };
    let result =
        if inner.breaker.is_open() { result_after_outage(&inner).await } else { Some(result) };
    if let Some(result) = result {
        inner.push(QueuedWrite::ReleaseLease { digest, token, result });
    }
}

/// Waits until Redis is back. Returns the result to report for a fetch that ended while Redis was
/// down, so that its response could not be stored in Redis.
///
/// Returns `None` if Redis stays down for longer than the TTL of the lease.
async fn result_after_outage(inner: &StoreInner) -> Option<LeaseResult> {
    timeout(LEASE_TTL, inner.breaker.wait_closed()).await.ok().map(|_| LeaseResult::Abandoned)
}

/// Renews a lease. Returns `false` if another node holds the lease. A failed renewal returns
/// `true`, because the caller repeats it.
async fn renew(inner: &StoreInner, digest: u128, token: &str) -> bool {
    let Some(generation) = inner.breaker.permit() else { return true };
    let connection = inner.pool.connection(generation, TrafficClass::Small);
    let arguments = vec![token.into(), millis(LEASE_TTL)];
    let call = ScriptCall { keys: vec![inner.keys.lease(digest)], arguments };
    connection.run::<i64>(&scripts::RENEW, call, Some(RENEWAL_INTERVAL)).await != Ok(0)
}

/// Waits until the lease ends, and sends its result to the waiting request.
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

/// Waits until the lease has expired, in case its holder dies or its message is lost.
async fn wait_for_expiry(inner: &StoreInner, digest: u128, mut left: i64) -> LeaseResult {
    while let Ok(remaining) = u64::try_from(left) {
        sleep(Duration::from_millis(remaining) + GRACE).await;
        let Some(generation) = inner.breaker.permit() else { return LeaseResult::Abandoned };
        let connection = inner.pool.connection(generation, TrafficClass::Small);
        let arguments = vec![inner.waiters.node().into(), millis(WAITERS_TTL)];
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
    scripts::millis(duration).into()
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
}

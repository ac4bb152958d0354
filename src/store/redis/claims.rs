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
    Shared,
    fault::Fault,
    guard::Epoch,
    keys,
    lane::{Lane, Load},
    queue::Write,
    scripts,
};
use crate::{
    redis::Call,
    store::{Claim, Following, Landed, Lease, OriginFailure},
    telemetry::{Operation, Outcome},
};

/// How long a lease lasts.
const LEASE: Duration = Duration::from_secs(3);
/// How often its holder renews it.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long it is tried to agree, at most. A server that hangs is found out before.
const AGREEING: Duration = Duration::from_millis(250);
/// How long anyone waits, whatever happens.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a list of those who wait lasts: longer than any of them does.
const LIST: Duration = Duration::from_secs(40);
/// Clocks and timers are not exact: a lease is looked at again this long after its end.
const GRACE: Duration = Duration::from_millis(20);

/// This node, and what it waits for.
pub struct Claims {
    node: String,
    runtime: Handle,
    /// Whether messages reach this node.
    hears: AtomicBool,
    followers: Mutex<HashMap<u128, Vec<Follower>>>,
    next: AtomicU64,
}

struct Follower {
    id: u64,
    tell: oneshot::Sender<Landed>,
}

impl Claims {
    /// Nothing claimed, nothing waited for. Leases are held on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self {
            node: format!("{:016x}", super::random()),
            runtime,
            hears: AtomicBool::new(false),
            followers: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// This node's name, drawn at random.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Notes whether messages reach this node. Where they do no more, nobody goes on waiting for one.
    pub fn hears(&self, hears: bool) {
        self.hears.store(hears, Relaxed);
        if !hears {
            self.followers.lock().clear();
        }
    }

    /// Whether messages reach this node.
    pub fn is_hearing(&self) -> bool {
        self.hears.load(Relaxed)
    }

    /// Tells those who wait for this digest what came of it.
    pub fn tell(&self, digest: u128, landed: Landed) {
        let followers = self.followers.lock().remove(&digest).unwrap_or_default();
        for follower in followers {
            let _gone_already = follower.tell.send(landed);
        }
    }

    fn follow(self: &Arc<Self>, digest: u128) -> Followed {
        let id = self.next.fetch_add(1, Relaxed);
        let (tell, told) = oneshot::channel();
        self.followers.lock().entry(digest).or_default().push(Follower { id, tell });
        Followed { claims: Arc::clone(self), digest, id, told }
    }
}

/// A place among those who wait; given up when it is dropped.
struct Followed {
    claims: Arc<Claims>,
    digest: u128,
    id: u64,
    told: oneshot::Receiver<Landed>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut followers = self.claims.followers.lock();
        if let Some(waiting) = followers.get_mut(&self.digest) {
            waiting.retain(|follower| follower.id != self.id);
            if waiting.is_empty() {
                followers.remove(&self.digest);
            }
        }
    }
}

/// Takes the lead, or learns who has it. One round trip.
///
/// What is asked is asked again where the answer is late: a node that asks the origin because it was busy
/// for a moment makes a fleet ask twice.
pub async fn claim(shared: &Arc<Shared>, digest: u128) -> Claim {
    let Some(epoch) = shared.guard.admits_within(shared.settings.read_deadline).await else {
        shared.metrics.count(Operation::Claim, Outcome::Open);
        return Claim::Alone;
    };
    let started = Instant::now();
    // Whoever waits has to listen before it is known that there is somebody to be heard.
    let followed = shared.claims.follow(digest);
    let token = format!("{:016x}", super::random());
    let result = acquire(shared, epoch, digest, &token).await;
    shared.guard.note_write(&result);
    let outcome = match &result {
        Ok(scripts::LEADS) => Outcome::Miss,
        Ok(_) => Outcome::Hit,
        Err(fault) => fault.outcome(),
    };
    shared.metrics.observe(Operation::Claim, outcome, started.elapsed());
    match result {
        // Without an answer it may have the lease: then it lands it, lest others wait for nothing.
        Ok(scripts::LEADS) | Err(Fault::Late | Fault::Gone(_) | Fault::Open) => {
            let (lease, landed) = Lease::new();
            shared.claims.runtime.spawn(hold(Arc::clone(shared), digest, token, landed));
            Claim::Lead(lease)
        }
        Ok(left) if shared.claims.is_hearing() => {
            let (tell, following) = Following::new();
            shared.claims.runtime.spawn(wait(Arc::clone(shared), epoch, (followed, left), tell));
            Claim::Follow(following)
        }
        _ => Claim::Alone,
    }
}

async fn acquire(shared: &Shared, epoch: Epoch, digest: u128, token: &str) -> Result<i64, Fault> {
    let started = Instant::now();
    let arguments = vec![token.into(), millis(LEASE), shared.claims.node().into(), millis(LIST)];
    let call = Call { keys: shared.lease_keys(digest), arguments };
    let mut attempts = Attempts::default();
    loop {
        let lane = shared.lanes.lane(epoch, Load::Small);
        // Later than that nobody takes the lease that it would grant.
        let within = AGREEING.saturating_sub(started.elapsed()) + shared.settings.read_deadline;
        let result = lane.run(&scripts::ACQUIRE, call.clone(), Some(within)).await;
        let result = attempts.result(result);
        let is_asked_again = matches!(result, Err(Fault::Late | Fault::Overdue))
            && started.elapsed() < AGREEING
            && shared.guard.admits() == Some(epoch);
        if !is_asked_again {
            return result;
        }
    }
}

/// The attempts at one lease.
#[derive(Default)]
struct Attempts {
    /// Whether an attempt had no answer in time: it may have taken the lease.
    has_late: bool,
}

impl Attempts {
    /// Returns what an attempt comes to, with those before it.
    fn result(&mut self, result: Result<i64, Fault>) -> Result<i64, Fault> {
        self.has_late |= matches!(result, Err(Fault::Late));
        match result {
            Err(Fault::Overdue) if self.has_late => Err(Fault::Late),
            result => result,
        }
    }
}

/// Ends a lease: those who wait hear what came of it.
pub async fn land(
    shared: &Shared,
    lane: &Lane,
    digest: u128,
    token: &str,
    landed: Landed,
) -> Result<(), Fault> {
    let message = format!("{} {}", keys::hex(digest), word(landed));
    let arguments = vec![token.into(), message.into(), shared.keys.channel().into()];
    let call = Call { keys: shared.lease_keys(digest), arguments };
    lane.run::<i64>(&scripts::LAND, call, None).await.map(drop)
}

/// What a message says.
pub fn read(message: &str) -> Option<(u128, Landed)> {
    let (digest, landed) = message.split_once(' ')?;
    let mut words = landed.split(' ');
    let landed = match (words.next()?, words.next()) {
        ("stored", None) => Landed::Stored,
        ("alone", None) => Landed::Alone,
        ("nothing", None) => Landed::Nothing,
        (kind @ ("failed" | "disconnected"), Some(status)) => {
            let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
            let retry_after = words.next().map(str::parse).transpose().ok()?;
            let is_disconnected = kind == "disconnected";
            Landed::Failed(OriginFailure { status, retry_after, is_disconnected })
        }
        _ => return None,
    };
    Some((u128::from_str_radix(digest, 16).ok()?, landed))
}

/// Nodes of versions before ignore what they cannot read, and wait until the lease is gone.
fn word(landed: Landed) -> Cow<'static, str> {
    match landed {
        Landed::Stored => "stored".into(),
        Landed::Alone => "alone".into(),
        Landed::Nothing => "nothing".into(),
        Landed::Failed(OriginFailure { status, retry_after, is_disconnected }) => {
            let kind = if is_disconnected { "disconnected" } else { "failed" };
            let seconds = retry_after.map(|seconds| format!(" {seconds}")).unwrap_or_default();
            format!("{kind} {}{seconds}", status.as_str()).into()
        }
    }
}

/// Renews a lease until it lands.
async fn hold(
    shared: Arc<Shared>,
    digest: u128,
    token: String,
    mut landed: oneshot::Receiver<Landed>,
) {
    let mut renewals = interval(RENEWAL);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewals.tick().await;
    let landed = loop {
        tokio::select! {
            landed = &mut landed => break landed.unwrap_or(Landed::Nothing),
            _ = renewals.tick() => {
                if !renew(&shared, digest, &token).await {
                    // It ran out; another node may lead by now.
                    return;
                }
            }
        }
    };
    let landed = if shared.guard.is_open() { orphaned(&shared).await } else { Some(landed) };
    if let Some(landed) = landed {
        shared.push(Operation::Land, Write::Land { digest, token, landed });
    }
}

/// What a lease lands with whose fetch ended while Redis was away: nothing of it was stored. `None` if
/// Redis stays away for longer than the lease lasts.
async fn orphaned(shared: &Shared) -> Option<Landed> {
    timeout(LEASE, shared.guard.closed()).await.ok().map(|_| Landed::Nothing)
}

/// False where the lease is somebody else's. A renewal that does not get through may have better luck
/// the next time.
async fn renew(shared: &Shared, digest: u128, token: &str) -> bool {
    let Some(epoch) = shared.guard.admits() else { return true };
    let lane = shared.lanes.lane(epoch, Load::Small);
    let arguments = vec![token.into(), millis(LEASE)];
    let call = Call { keys: vec![shared.keys.lease(digest)], arguments };
    lane.run::<i64>(&scripts::RENEW, call, Some(RENEWAL)).await != Ok(0)
}

/// Waits until the lease ends, and tells how.
async fn wait(
    shared: Arc<Shared>,
    epoch: Epoch,
    (mut followed, left): (Followed, i64),
    mut tell: oneshot::Sender<Landed>,
) {
    let digest = followed.digest;
    let landed = tokio::select! {
        told = &mut followed.told => told.unwrap_or(Landed::Nothing),
        ended = timeout(PATIENCE, outlast(&shared, digest, left)) => {
            ended.unwrap_or(Landed::Nothing)
        }
        () = shared.guard.opened_since(epoch) => Landed::Nothing,
        () = tell.closed() => return,
    };
    let _gone_already = tell.send(landed);
}

/// Waits until the lease has run out: whoever held it died, or its message was lost.
async fn outlast(shared: &Shared, digest: u128, mut left: i64) -> Landed {
    while let Ok(millis) = u64::try_from(left) {
        sleep(Duration::from_millis(millis) + GRACE).await;
        let Some(epoch) = shared.guard.admits() else { return Landed::Nothing };
        let lane = shared.lanes.lane(epoch, Load::Small);
        let arguments = vec![shared.claims.node().into(), self::millis(LIST)];
        let call = Call { keys: shared.lease_keys(digest), arguments };
        left = lane.run(&scripts::AWAIT, call, None).await.unwrap_or(scripts::NOBODY);
    }
    Landed::Nothing
}

impl Shared {
    fn lease_keys(&self, digest: u128) -> Vec<Bytes> {
        vec![self.keys.lease(digest), self.keys.waiting(digest)]
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
        let mut attempts = Attempts::default();
        assert_eq!(attempts.result(Err(Fault::Overdue)), Err(Fault::Overdue));
        assert_eq!(attempts.result(Err(Fault::Late)), Err(Fault::Late));
        assert_eq!(attempts.result(Err(Fault::Overdue)), Err(Fault::Late));
        assert_eq!(attempts.result(Ok(5)), Ok(5));
    }

    #[test]
    fn messages_are_read_as_they_are_written() {
        let failed = |status, retry_after, is_disconnected| {
            let status = StatusCode::from_u16(status).unwrap();
            Landed::Failed(OriginFailure { status, retry_after, is_disconnected })
        };
        for landed in [
            Landed::Stored,
            Landed::Alone,
            Landed::Nothing,
            failed(502, None, true),
            failed(503, Some(30), false),
        ] {
            let message = format!("{} {}", keys::hex(7), word(landed));
            assert_eq!(read(&message), Some((7, landed)));
        }
        for strange in
            ["", "7", "x stored", "00 lost", " stored", "7 failed", "7 failed x", "7 failed 503 x"]
        {
            assert_eq!(read(strange), None, "{strange}");
        }
    }
}

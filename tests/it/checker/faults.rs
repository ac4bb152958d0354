//! Faults, injected one after the other in several parallel lanes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Run, cluster::NODES};
use crate::support::{log::FaultProxy, random::Random, redis::WriteRefusal};

const LOG: &str = "larder:log";
const NODE_LIST: &str = "{larder:log}:nodes";

/// An injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A node's connections to Redis close, and so do new ones.
    Closed,
    /// All traffic between a node and Redis is dropped, in both directions.
    Blocked,
    /// All traffic between a node and Redis is delayed.
    Stalled,
    /// Replies of Redis to a node are delayed.
    Deaf,
    /// The connection between a node and Redis is slow.
    Slow,
    /// Every other connection of a node to Redis is blocked.
    Half,
    /// A node's process is suspended.
    Hung,
    /// A node's process is killed and replaced.
    Killed,
    /// A node's process shuts down and is replaced.
    Drained,
    Flushed,
    /// All connections to Redis close at once.
    Dropped,
    /// The log is trimmed to its last records.
    Trimmed,
    /// The log is deleted.
    Evicted,
    /// The hash of the nodes is deleted.
    Forgotten,
    /// Redis restarts empty.
    Restarted,
    /// Redis restarts empty after a pause.
    Down,
    /// Redis is suspended.
    Stopped,
    /// Redis rejects writes, as if full or a replica.
    Refusing,
    /// Redis restarts with an older snapshot.
    Restored,
}

impl Fault {
    /// Faults that disconnect a node without ending it.
    pub(super) const CUTS: &'static [Self] = &[
        Self::Closed,
        Self::Blocked,
        Self::Stalled,
        Self::Deaf,
        Self::Slow,
        Self::Half,
        Self::Hung,
    ];
    /// Faults that end a node. After a kill, every purge is slow for ten minutes.
    pub(super) const ENDS: &'static [Self] = &[Self::Killed, Self::Drained];
    /// Faults of Redis.
    pub(super) const OF_REDIS: &'static [Self] = &[
        Self::Flushed,
        Self::Dropped,
        Self::Trimmed,
        Self::Evicted,
        Self::Forgotten,
        Self::Restarted,
        Self::Down,
        Self::Stopped,
        Self::Refusing,
        Self::Restored,
    ];

    /// Returns the name used in counters.
    pub(super) fn name(self) -> String {
        format!("fault {self:?}")
    }

    fn is_of_redis(self) -> bool {
        Self::OF_REDIS.contains(&self)
    }
}

/// A lane of faults drawn from a shuffled deck, so that none repeats before all have occurred.
pub(super) struct FaultSchedule {
    pub(super) deck: &'static [Fault],
    /// Delay from the start of the run.
    pub(super) after: Duration,
    /// Range of the duration of a fault and of the pause after it, in milliseconds.
    pub(super) lasting: (usize, usize),
    pub(super) pause: (usize, usize),
}

/// Injects faults until `end`, and repairs each of them.
pub(super) async fn disturb(run: Arc<Run>, lane: FaultSchedule, mut random: Random, end: Instant) {
    let mut deck = Vec::new();
    run.pause(lane.after).await;
    while !run.history.is_over() && Instant::now() < end && !lane.deck.is_empty() {
        if deck.is_empty() {
            deck = shuffled(&mut random, lane.deck);
        }
        let fault = deck.pop().unwrap();
        let time = between(&mut random, lane.lasting);
        // One node is never ended, and must not lose a record.
        let spared = usize::from(Fault::ENDS.contains(&fault));
        let slot = spared + random.below(NODES - spared);
        let refusal = *random.pick(&[WriteRefusal::Memory, WriteRefusal::Replica]);
        let _turn = if fault.is_of_redis() { None } else { Some(run.turns[slot].lock().await) };
        let whom = if fault.is_of_redis() { String::new() } else { format!(" node {slot}") };
        let event = run.history.begins(format!("FAULT {fault:?}{whom}"), Vec::new());
        run.history.count(fault.name());
        if fault.is_of_redis() {
            of_redis(&run, fault, refusal, time).await;
        } else {
            of_node(&run, fault, slot, time).await;
        }
        run.history.ends(event, "over");
        run.pause(between(&mut random, lane.pause)).await;
    }
}

async fn of_node(run: &Run, fault: Fault, slot: usize, time: Duration) {
    let (cluster, bridge) = (&run.cluster, run.cluster.bridge(slot));
    let cut: Option<fn(&FaultProxy)> = match fault {
        Fault::Closed => Some(FaultProxy::close),
        Fault::Blocked => Some(FaultProxy::block),
        Fault::Stalled => Some(FaultProxy::stall),
        Fault::Deaf => Some(FaultProxy::stall_replies),
        Fault::Slow => Some(FaultProxy::slow_down),
        Fault::Half => Some(FaultProxy::halve),
        _ => None,
    };
    if let Some(cut) = cut {
        cut(bridge);
        sleep(time).await;
        return bridge.open();
    }
    match fault {
        Fault::Hung => {
            if let Some(node) = cluster.node(slot) {
                node.process.signal("STOP");
                sleep(time).await;
                node.process.signal("CONT");
            }
        }
        Fault::Killed => {
            cluster.kill(slot);
            sleep(time / 2).await;
            cluster.begin(slot).await;
        }
        _ => {
            cluster.drain(slot).await;
            cluster.begin(slot).await;
        }
    }
}

async fn of_redis(run: &Run, fault: Fault, refusal: WriteRefusal, time: Duration) {
    let redis = &run.cluster.redis;
    match fault {
        Fault::Flushed => redis.flush().await,
        Fault::Dropped => drop(redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await),
        Fault::Trimmed => drop(redis.command(&["XTRIM", LOG, "MAXLEN", "2"]).await),
        Fault::Evicted => drop(redis.command(&["DEL", LOG]).await),
        Fault::Forgotten => drop(redis.command(&["DEL", NODE_LIST]).await),
        Fault::Restarted => redis.restart().await,
        Fault::Down => {
            redis.kill();
            sleep(time).await;
            redis.restart().await;
        }
        Fault::Stopped => {
            redis.stop().await;
            sleep(time).await;
            redis.cont();
        }
        Fault::Refusing => {
            redis.refuse_writes(refusal).await;
            sleep(time).await;
            redis.accept_writes().await;
        }
        _ => {
            redis.save().await;
            sleep(time).await;
            redis.restore().await;
        }
    }
}

fn shuffled(random: &mut Random, deck: &[Fault]) -> Vec<Fault> {
    let mut deck = deck.to_vec();
    for end in (1..deck.len()).rev() {
        deck.swap(end, random.below(end + 1));
    }
    deck
}

fn between(random: &mut Random, (min, max): (usize, usize)) -> Duration {
    Duration::from_millis((min + random.below(max - min + 1)) as u64)
}

//! Purged means gone, whatever breaks: three nodes and a Redis, clients that read, purge and write through
//! all of them, faults at random, and a history in which nothing may contradict what was acknowledged.
//!
//! The seed decides what each client does and what breaks when. `LARDER_CHECK_SECONDS` and
//! `LARDER_CHECK_SEED` make the run longer, or another one.

mod cluster;
mod faults;
mod history;
mod origin;
mod purges;
mod reads;
mod records;
mod targets;
mod writes;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use larder::testing::purge::planted::PlantedBug;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    cluster::{Cluster, Metrics, NODES},
    faults::{Fault, FaultSchedule},
    history::{History, NodeProcess},
    origin::Origin,
    purges::Source,
    records::Records,
    targets::Selector,
};
use crate::support::{fleet::short_sleep, random::Random};

const READERS: usize = 16;
const PURGERS: usize = 8;
const WRITERS: usize = 3;
/// How often the data version changes.
const VERSION: Duration = Duration::from_secs(3);
/// What is asked for this long before a minute begins is purged when it does.
const JUST_BEFORE: Duration = Duration::from_millis(50);
/// How often nodes are asked what they have applied.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long everything goes on when nothing is wrong any more.
const HEALTHY: Duration = Duration::from_secs(4);
/// How long it may take until all is well then, and until what has no acknowledgement has come.
const RECOVERY: Duration = Duration::from_secs(30);

/// What is done in a run.
struct Plan {
    seed: u64,
    /// How long, from the first request to the last fault.
    time: Duration,
    bug: Option<PlantedBug>,
    lanes: Vec<FaultSchedule>,
}

/// What all that takes part in a run shares.
struct Run {
    cluster: Cluster,
    origin: Origin,
    history: History,
    records: Records,
    /// Each node has one fault at a time.
    turns: [Mutex<()>; NODES],
    /// For what has no acknowledgement: tags, and the number that their targets must exceed in the end.
    awaited: std::sync::Mutex<BTreeMap<&'static str, u64>>,
}

/// What a run has come to.
struct Outcome {
    violations: Vec<String>,
    counts: BTreeMap<String, usize>,
    summary: String,
}

impl Plan {
    /// Everything, in an order that lets purges be acknowledged fast for as long as possible: first
    /// nothing is wrong, then nodes are cut off and Redis fails, at last nodes end. With every third seed
    /// one fault chases the other.
    fn of_all(seed: u64, seconds: u64) -> Self {
        let pace = if seed.is_multiple_of(3) { 3 } else { 1 };
        let lane = |deck, after, (least, most), pause: (usize, usize)| FaultSchedule {
            deck,
            after: Duration::from_secs(after),
            lasting: (least / pace, most / pace),
            pause: (pause.0 / pace, pause.1 / pace),
        };
        let lanes = vec![
            lane(Fault::CUTS, 8, (1500, 5000), (500, 1500)),
            lane(Fault::OF_REDIS, 10, (500, 3000), (1500, 3000)),
            lane(Fault::ENDS, seconds * 6 / 10, (500, 5000), (2000, 6000)),
        ];
        Self { seed, time: Duration::from_secs(seconds), bug: None, lanes }
    }

    /// What leads to the bug's effect soon.
    fn for_bug(bug: PlantedBug) -> Self {
        const BLOCKED: &[Fault] = &[Fault::Blocked];
        const FLUSHED: &[Fault] = &[Fault::Flushed];
        let after = Duration::from_secs(1);
        let lane = |deck| FaultSchedule { deck, after, lasting: (5000, 6000), pause: (2000, 3000) };
        let lanes = match bug {
            PlantedBug::IgnoredLease => vec![lane(BLOCKED)],
            PlantedBug::KeptLowWatermark => vec![lane(FLUSHED)],
            _ => Vec::new(),
        };
        Self { seed: 1, time: Duration::from_secs(50), bug: Some(bug), lanes }
    }

    async fn run(self) -> Outcome {
        let origin = Origin::start(self.seed).await;
        let cluster = Cluster::start(&origin.url(), self.bug, self.seed).await;
        let (history, records) = (History::of(targets::all()), Records::default());
        let (turns, awaited) = Default::default();
        let run = Arc::new(Run { cluster, origin, history, records, turns, awaited });
        run.until_synced().await;
        Arc::clone(&run).go(self).await;
        run.outcome()
    }
}

impl Run {
    /// All of it, until it is over or something is found.
    async fn go(self: Arc<Self>, plan: Plan) {
        let end = Instant::now() + plan.time;
        let mut seeds = plan.seed * 1000..;
        let mut random = || Random::seeded(seeds.next().unwrap());
        let (mut faults, mut clients) = (JoinSet::new(), JoinSet::new());
        for _ in 0..READERS {
            clients.spawn(reads::read(Arc::clone(&self), random()));
        }
        for number in 0..PURGERS {
            clients.spawn(purges::purge(Arc::clone(&self), random(), number));
        }
        for number in 0..WRITERS {
            clients.spawn(writes::write(Arc::clone(&self), random(), number));
        }
        for lane in plan.lanes {
            faults.spawn(faults::disturb(Arc::clone(&self), lane, random(), end));
        }
        let mut watchers = JoinSet::new();
        watchers.spawn(Arc::clone(&self).poll_records());
        watchers.spawn(Arc::clone(&self).change_versions());
        watchers.spawn(Arc::clone(&self).mark_minutes());
        self.pause(plan.time).await;
        watchers.abort_all();
        faults.join_all().await;
        self.pause(HEALTHY).await;
        self.history.finish();
        clients.join_all().await;
        if self.history.violations().is_empty() {
            self.check_final_state().await;
        }
    }

    /// Waits until every node follows the log.
    async fn until_synced(&self) {
        for slot in 0..NODES {
            self.until(slot, "does not follow the log", Metrics::is_synced).await;
        }
    }

    async fn until(&self, slot: usize, what: &str, is: impl Fn(&Metrics) -> bool) {
        let node = self.cluster.node(slot).unwrap();
        let waiting = async {
            while !node.metrics().await.is_some_and(|metrics| is(&metrics)) {
                short_sleep().await;
            }
        };
        if timeout(RECOVERY, waiting).await.is_err() {
            self.history.violated(format!("{} {what}", node.seat));
        }
    }

    /// When nothing is wrong and nobody asks any more: what has to be so now.
    async fn check_final_state(&self) {
        self.until_synced().await;
        for slot in 0..NODES {
            self.until(slot, "keeps purges to itself", |metrics| metrics.pending() == 0).await;
        }
        self.until_they_agree().await;
        for node in self.cluster.nodes() {
            assert!(self.records.look(&node).await, "{} tells nothing", node.seat);
        }
        let seats: Vec<NodeProcess> = self.cluster.nodes().iter().map(|node| node.seat).collect();
        let (found, lost) = self.records.compare(&seats);
        (0..found).for_each(|_| self.history.count("record where it has to be"));
        for lost in lost {
            self.history.violated(lost);
        }
        let awaited = self.awaited.lock().unwrap().clone();
        for (tag, number) in awaited {
            self.until_gone(tag, number).await;
        }
    }

    /// Waits until all nodes have applied the same log up to the same place.
    async fn until_they_agree(&self) {
        let waiting = async {
            loop {
                let mut positions = Vec::new();
                for node in self.cluster.nodes() {
                    positions.push(node.metrics().await.map(|metrics| metrics.position()));
                }
                positions.dedup();
                if positions.len() == 1 {
                    return;
                }
                short_sleep().await;
            }
        };
        if timeout(RECOVERY, waiting).await.is_err() {
            self.history.violated("the nodes are at different positions in the log".to_owned());
        }
    }

    /// Waits until every node reads what has this tag with greater numbers than this one.
    async fn until_gone(&self, tag: &str, number: u64) {
        let tag = Selector::Tag(tag.to_owned());
        for node in self.cluster.nodes() {
            for (target, it) in self.history.targets.iter().enumerate() {
                let mut wires = HashMap::new();
                let waiting = async {
                    while tag.selects(it)
                        && let Some(read) =
                            reads::read_one(self, &node, target, "red", &mut wires).await
                        && read <= number
                    {
                        short_sleep().await;
                    }
                };
                if timeout(RECOVERY, waiting).await.is_err() {
                    let (path, seat) = (&it.path, node.seat);
                    self.history.violated(format!("{path} on {seat} stays before {number}"));
                }
            }
        }
    }

    /// Lets this time pass, unless the run is over before.
    async fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.history.is_over() && Instant::now() < end {
            short_sleep().await;
        }
    }

    // ── What goes on beside the clients ──

    async fn poll_records(self: Arc<Self>) {
        loop {
            for node in self.cluster.nodes() {
                // Not waiting for one that hangs.
                let run = Arc::clone(&self);
                let look = async move { run.records.look(&node).await };
                let _whether_it_answered = timeout(POLL_INTERVAL, look).await;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn change_versions(self: Arc<Self>) {
        loop {
            sleep(VERSION).await;
            let last = self.origin.last();
            self.origin.change_version();
            self.awaited.lock().unwrap().insert("polled", last);
        }
    }

    /// Notes what was there when a minute began.
    async fn mark_minutes(self: Arc<Self>) {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let next = Duration::from_mins(now.as_secs() / 60 + 1);
            let left = next.saturating_sub(now);
            sleep(left.saturating_sub(JUST_BEFORE)).await;
            let last = self.origin.last();
            sleep(JUST_BEFORE * 2).await;
            self.awaited.lock().unwrap().insert("scheduled", last);
        }
    }

    fn outcome(&self) -> Outcome {
        let (violations, mut counts) = (self.history.violations(), self.history.counts());
        for (tag, of) in [("polled", "record of a poll"), ("scheduled", "record of a schedule")] {
            counts.insert(of.to_owned(), self.records.with_selector(tag));
        }
        let asked = usize::try_from(self.origin.last()).unwrap();
        counts.insert("requests to the origin".to_owned(), asked);
        let lines = counts.iter().map(|(what, count)| format!("  {count:>7} {what}\n"));
        let summary = format!(
            "{:.1} s\n{}{}",
            self.history.begin.elapsed().as_secs_f64(),
            lines.collect::<String>(),
            violations.join("\n")
        );
        Outcome { violations, counts, summary }
    }
}

impl Outcome {
    /// That enough of everything happened to tell anything.
    fn assert_coverage(&self) {
        let least = |what: &str, least: usize| {
            let count = self.counts.get(what).copied().unwrap_or(0);
            assert!(count >= least, "only {count} of {what}:\n{}", self.summary);
        };
        for (what, count) in [
            ("read HIT", 1000),
            ("read MISS", 300),
            ("read EXPIRED", 30),
            ("read REVALIDATED", 10),
            ("read STALE", 30),
            ("written", 50),
            ("acknowledged write", 5),
            ("record where it has to be", 100),
            ("record of a poll", 2),
            ("record of a schedule", 1),
        ] {
            least(what, count);
        }
        for source in Source::ALL {
            least(source.acknowledged(), 5);
        }
        for fault in [Fault::CUTS, Fault::ENDS, Fault::OF_REDIS].concat() {
            least(&fault.name(), 1);
        }
    }
}

/// Runs take turns: each wants the machine for itself.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURNS: Mutex<()> = Mutex::const_new(());
    TURNS.lock().await
}

fn env_or(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "takes a minute alone: tests/run.sh checker")]
async fn what_was_purged_is_read_nowhere_whatever_breaks() {
    let _turn = turn().await;
    let (seed, seconds) = (env_or("LARDER_CHECK_SEED", 1), env_or("LARDER_CHECK_SECONDS", 60));
    println!("seed {seed}, {seconds} s");
    let outcome = Plan::of_all(seed, seconds).run().await;
    println!("seed {seed}: {}", outcome.summary);
    assert!(outcome.violations.is_empty(), "seed {seed}: {}", outcome.summary);
    if seconds >= 60 {
        outcome.assert_coverage();
    }
}

/// Whether a bug that is planted is found.
async fn is_found(bug: PlantedBug) {
    let _turn = turn().await;
    let outcome = Plan::for_bug(bug).run().await;
    println!("{}: {}", bug.as_str(), outcome.summary);
    assert!(!outcome.violations.is_empty(), "{bug:?} is not found: {}", outcome.summary);
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_fence_that_is_taken_after_the_fetch_is_found() {
    is_found(PlantedBug::LateFence).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_lease_that_is_ignored_is_found() {
    is_found(PlantedBug::IgnoredLease).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_floor_that_does_not_rise_after_a_flush_is_found() {
    is_found(PlantedBug::KeptLowWatermark).await;
}

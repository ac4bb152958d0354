//! Purged means gone, whatever breaks.
//!
//! Three nodes share a Redis. Clients read, purge and write through all nodes during random faults.
//! No read may contradict an acknowledged purge.
//!
//! The seed determines the clients and the faults. `LARDER_CHECK_SECONDS` and `LARDER_CHECK_SEED`
//! change the length of the run and the seed.

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
/// Interval between changes of the data version.
const VERSION: Duration = Duration::from_secs(3);
/// Requests sent this long before a full minute are purged at the minute.
const JUST_BEFORE: Duration = Duration::from_millis(50);
/// Interval between queries of the applied records.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the run continues after the last fault.
const HEALTHY: Duration = Duration::from_secs(4);
/// Time limit for recovery, and for purges without acknowledgement.
const RECOVERY: Duration = Duration::from_secs(30);

/// The parameters of a run.
struct Plan {
    seed: u64,
    /// Duration from the first request to the last fault.
    time: Duration,
    bug: Option<PlantedBug>,
    lanes: Vec<FaultSchedule>,
}

/// State shared by all tasks of a run.
struct Run {
    cluster: Cluster,
    origin: Origin,
    history: History,
    records: Records,
    /// Each node has one fault at a time.
    turns: [Mutex<()>; NODES],
    /// Purges without acknowledgement: tags, and the numbers that their targets must finally
    /// exceed.
    awaited: std::sync::Mutex<BTreeMap<&'static str, u64>>,
}

/// The result of a run.
struct Outcome {
    violations: Vec<String>,
    counts: BTreeMap<String, usize>,
    summary: String,
}

impl Plan {
    /// Returns a plan with all faults, ordered so that acknowledgements stay fast for long.
    ///
    /// First there are no faults, then nodes are disconnected and Redis fails, and finally nodes
    /// end. With every third seed, faults follow each other without pause.
    fn of_all(seed: u64, seconds: u64) -> Self {
        let pace = if seed.is_multiple_of(3) { 3 } else { 1 };
        let lane = |deck, after, (min, max), pause: (usize, usize)| FaultSchedule {
            deck,
            after: Duration::from_secs(after),
            lasting: (min / pace, max / pace),
            pause: (pause.0 / pace, pause.1 / pace),
        };
        let lanes = vec![
            lane(Fault::CUTS, 8, (1500, 5000), (500, 1500)),
            lane(Fault::OF_REDIS, 10, (500, 3000), (1500, 3000)),
            lane(Fault::ENDS, seconds * 6 / 10, (500, 5000), (2000, 6000)),
        ];
        Self { seed, time: Duration::from_secs(seconds), bug: None, lanes }
    }

    /// Returns a plan that soon triggers the bug.
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
    /// Runs the plan until its end or a violation.
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

    /// Checks the state after all faults and requests.
    async fn check_final_state(&self) {
        self.until_synced().await;
        for slot in 0..NODES {
            self.until(slot, "has pending purges", |metrics| metrics.pending() == 0).await;
        }
        self.until_they_agree().await;
        for node in self.cluster.nodes() {
            assert!(self.records.query(&node).await, "{} does not respond", node.seat);
        }
        let seats: Vec<NodeProcess> = self.cluster.nodes().iter().map(|node| node.seat).collect();
        let (found, lost) = self.records.compare(&seats);
        (0..found).for_each(|_| self.history.count("expected record"));
        for lost in lost {
            self.history.violated(lost);
        }
        let awaited = self.awaited.lock().unwrap().clone();
        for (tag, number) in awaited {
            self.until_gone(tag, number).await;
        }
    }

    /// Waits until all nodes have applied the same log up to the same position.
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

    /// Waits until every node reads greater numbers from all targets with this tag.
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

    /// Sleeps, unless the run ends earlier.
    async fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.history.is_over() && Instant::now() < end {
            short_sleep().await;
        }
    }

    // ── Background tasks ──

    async fn poll_records(self: Arc<Self>) {
        loop {
            for node in self.cluster.nodes() {
                // Spawned, so that a hung node does not delay the others.
                let run = Arc::clone(&self);
                let query = async move { run.records.query(&node).await };
                let _whether_it_answered = timeout(POLL_INTERVAL, query).await;
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

    /// Records the origin's number at each full minute.
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
        let requests = usize::try_from(self.origin.last()).unwrap();
        counts.insert("requests to the origin".to_owned(), requests);
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
    /// Asserts that every kind of event occurred often enough.
    fn assert_coverage(&self) {
        let at_least = |what: &str, min: usize| {
            let count = self.counts.get(what).copied().unwrap_or(0);
            assert!(count >= min, "only {count} of {what}:\n{}", self.summary);
        };
        for (what, count) in [
            ("read HIT", 1000),
            ("read MISS", 300),
            ("read EXPIRED", 30),
            ("read REVALIDATED", 10),
            ("read STALE", 30),
            ("written", 50),
            ("acknowledged write", 5),
            ("expected record", 100),
            ("record of a poll", 2),
            ("record of a schedule", 1),
        ] {
            at_least(what, count);
        }
        for source in Source::ALL {
            at_least(source.acknowledged(), 5);
        }
        for fault in [Fault::CUTS, Fault::ENDS, Fault::OF_REDIS].concat() {
            at_least(&fault.name(), 1);
        }
    }
}

/// Serialises the runs, because each needs the whole machine.
async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURNS: Mutex<()> = Mutex::const_new(());
    TURNS.lock().await
}

fn env_or(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "takes a minute alone: tests/run.sh checker")]
async fn purged_responses_are_never_read_whatever_breaks() {
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

/// Returns whether a planted bug is detected.
async fn is_detected(bug: PlantedBug) {
    let _turn = turn().await;
    let outcome = Plan::for_bug(bug).run().await;
    println!("{}: {}", bug.as_str(), outcome.summary);
    assert!(!outcome.violations.is_empty(), "{bug:?} is not detected: {}", outcome.summary);
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_fence_taken_after_the_fetch_is_detected() {
    is_detected(PlantedBug::LateFence).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn an_ignored_lease_is_detected() {
    is_detected(PlantedBug::IgnoredLease).await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_low_watermark_kept_after_a_flush_is_detected() {
    is_detected(PlantedBug::KeptLowWatermark).await;
}

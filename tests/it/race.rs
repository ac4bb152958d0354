//! Races between purges and fills on nodes that share a Redis: no read after a purge returns an
//! older response.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    proxy::request,
    random::Random,
    redis::Redis,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::Wire,
    within_seconds,
};

const NODES: usize = 3;
const TARGETS: usize = 12;
/// Targets with the same remainder share a tag.
const TAGS: usize = 3;
const READERS: usize = 24;
const PURGERS: usize = 3;
const PURGES: usize = 150;
/// Maximum response time of the origin: long enough for purges in between.
const SLOWEST: usize = 20;

/// The number in the origin's responses.
#[derive(Clone, Copy)]
enum Origin {
    /// The number of the request, which increases by one.
    True,
    /// The number of the previous request for the target: an outdated response, as if the fence
    /// were taken after the fetch.
    Behind,
}

/// The reads and purges of a run.
#[derive(Default)]
struct History {
    reads: Mutex<Vec<Read>>,
    purges: Mutex<Vec<Purge>>,
}

/// A response read from a node.
struct Read {
    node: usize,
    target: usize,
    begin: Instant,
    /// The origin's number in it.
    number: u64,
    cache: String,
}

/// A purge that a node has applied.
struct Purge {
    node: usize,
    what: What,
    known: Instant,
    /// The origin's last number before the purge was requested.
    last: u64,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Tag(usize),
    Target(usize),
    Everything,
}

impl What {
    fn any(random: &mut Random) -> Self {
        match random.below(10) {
            0..4 => Self::Tag(random.below(TAGS)),
            4..9 => Self::Target(random.below(TARGETS)),
            _ => Self::Everything,
        }
    }

    fn selects(self, target: usize) -> bool {
        match self {
            Self::Tag(tag) => target % TAGS == tag,
            Self::Target(own) => target == own,
            Self::Everything => true,
        }
    }

    fn json(self, mode: &str) -> String {
        let selector = match self {
            Self::Tag(tag) => format!("\"tags\":[\"tag{tag}\"]"),
            Self::Target(target) => format!("\"urls\":[\"/{target}\"]"),
            Self::Everything => "\"everything\":true".to_owned(),
        };
        format!("{{{selector},\"mode\":\"{mode}\"}}")
    }
}

impl History {
    /// Returns the reads that returned responses purged before on their node.
    fn violations(&self) -> Vec<String> {
        let (reads, purges) = (self.reads.lock().unwrap(), self.purges.lock().unwrap());
        let mut violations = Vec::new();
        for read in reads.iter() {
            let broken = purges.iter().find(|purge| {
                purge.node == read.node
                    && purge.what.selects(read.target)
                    && purge.known <= read.begin
                    && read.number <= purge.last
            });
            violations.extend(broken.map(|purge| {
                let late = read.begin - purge.known;
                let Read { node, target, number, cache, .. } = read;
                let (what, last) = (purge.what, purge.last);
                format!(
                    "node {node} /{target}: {cache} {number}, {late:?} after {what:?} at {last}"
                )
            }));
        }
        violations
    }

    fn words(&self) -> BTreeMap<String, usize> {
        let mut words = BTreeMap::new();
        for read in self.reads.lock().unwrap().iter() {
            *words.entry(read.cache.clone()).or_default() += 1;
        }
        words
    }
}

/// State shared by the tasks.
struct Race {
    fleet: Fleet,
    /// The last number issued by the origin.
    last: Arc<AtomicU64>,
    history: History,
    is_over: AtomicBool,
}

impl Race {
    async fn read(self: Arc<Self>, seed: u64) {
        let mut random = Random::seeded(seed);
        let mut wires = Vec::new();
        for address in self.fleet.addresses() {
            wires.push(Wire::connect(address).await);
        }
        while !self.is_over.load(SeqCst) {
            let (node, target) = (random.below(NODES), random.below(TARGETS));
            let begin = Instant::now();
            let reply = wires[node].exchange(request("GET", &format!("/{target}"), &[])).await;
            assert_eq!(reply.status(), 200, "{reply:?}");
            let (number, cache) = (reply.body.parse().unwrap(), reply.cache().to_owned());
            self.history.reads.lock().unwrap().push(Read { node, target, begin, number, cache });
        }
    }

    async fn purge(self: Arc<Self>, seed: u64) {
        let mut random = Random::seeded(seed);
        for _ in 0..PURGES {
            let (node, what) = (random.below(NODES), What::any(&mut random));
            let last = self.last.load(SeqCst);
            match random.below(6) {
                0 => {
                    let target = random.below(TARGETS);
                    let write = ("DELETE", &*format!("/{target}"));
                    assert_eq!(self.fleet.send(node, write, &[]).await.status(), 204);
                    self.known(node, What::Target(target), last);
                }
                1 => drop(self.fleet.purge(node, &what.json("soft")).await),
                _ => {
                    let seq = self.fleet.purge(node, &what.json("hard")).await;
                    self.known(node, what, last);
                    self.until_all_know(seq, node, what, last).await;
                }
            }
        }
    }

    async fn until_all_know(&self, seq: u64, but: usize, what: What, last: u64) {
        let begin = Instant::now();
        for node in (0..NODES).filter(|node| *node != but) {
            while self.fleet.metric(node, "larder_purge_log_seq", "").await < seq {
                assert!(begin.elapsed() < Duration::from_secs(2), "node {node} does not hear");
                short_sleep().await;
            }
            self.known(node, what, last);
        }
    }

    fn known(&self, node: usize, what: What, last: u64) {
        let known = Instant::now();
        self.history.purges.lock().unwrap().push(Purge { node, what, known, last });
    }
}

async fn origin(kind: Origin, seed: u64, last: &Arc<AtomicU64>) -> ScriptedOrigin {
    let last = Arc::clone(last);
    let random = Mutex::new(Random::seeded(seed));
    let before: [AtomicU64; TARGETS] = std::array::from_fn(|_| AtomicU64::new(0));
    ScriptedOrigin::start(move |request: &OriginRequest| {
        if request.method == "DELETE" {
            return OriginResponse::status(204, "");
        }
        let target: usize = request.target[1..].parse().unwrap();
        let number = last.fetch_add(1, SeqCst) + 1;
        let number = match kind {
            Origin::True => number,
            Origin::Behind => before[target].swap(number, SeqCst),
        };
        let delay = random.lock().unwrap().below(SLOWEST) as u64;
        let gate = Gate::closed();
        let response = OriginResponse::fresh(number.to_string()).after(&gate);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            gate.open();
        });
        response.with("surrogate-key", &format!("tag{}", target % TAGS))
    })
    .await
}

/// Runs reads and purges on a fleet with this store.
async fn race(kind: Origin, seed: u64, store: &str) -> Arc<Race> {
    let last = Arc::default();
    let (origin, redis) = (origin(kind, seed, &last).await, Redis::start().await);
    let fleet = Fleet::sharing(&redis, NODES, &origin.url(), store).await;
    let (history, is_over) = (History::default(), AtomicBool::new(false));
    let race = Arc::new(Race { fleet, last, history, is_over });
    let (mut readers, mut purgers) = (JoinSet::new(), JoinSet::new());
    for number in 0..READERS {
        readers.spawn(Arc::clone(&race).read(seed * 1000 + number as u64));
    }
    for number in 0..PURGERS {
        purgers.spawn(Arc::clone(&race).purge(seed * 1000 + 500 + number as u64));
    }
    while let Some(ended) = purgers.join_next().await {
        ended.unwrap();
    }
    race.is_over.store(true, SeqCst);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    race
}

#[tokio::test]
async fn nothing_is_read_that_was_purged_before() {
    within_seconds(60, async {
        for (seed, store) in [(1, ""), (2, "memory = \"0\"\n")] {
            let race = race(Origin::True, seed, store).await;
            let (violations, words) = (race.history.violations(), race.history.words());
            assert!(words["HIT"] > 100 && words["MISS"] > 100, "seed {seed}: {words:?}");
            assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_race_finds_answers_that_are_older_than_their_fences() {
    within_seconds(60, async {
        let race = race(Origin::Behind, 3, "").await;
        assert!(!race.history.violations().is_empty(), "{:?}", race.history.words());
    })
    .await;
}

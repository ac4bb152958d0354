//! Tests of polling: when tags are purged, which node polls, and how often.

use std::sync::atomic::Ordering::Relaxed;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::trigger::{
    fixture::{FakeNode, FakeRedis, ManualClock, node, plan},
    poll::{DocumentUrl as Url, Polls, VersionFrom},
};
use crate::{fence::PurgeMode, origin::document::DocumentError, warm::WarmPlan};

const EVERY: Duration = Duration::from_secs(10);

/// A server that sends the version set by the test, and records the times of requests.
#[derive(Clone, Default)]
struct Data(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The version to send. `None`: the server fails. Empty: the response has no version.
    version: Option<&'static str>,
    tag: Option<&'static str>,
    asked: Vec<(Instant, Option<HeaderValue>)>,
}

impl Data {
    fn of(version: &'static str) -> Self {
        let data = Self::default();
        data.set(Some(version));
        data
    }

    fn set(&self, version: Option<&'static str>) {
        self.0.lock().version = version;
    }

    fn asked(&self) -> usize {
        self.0.lock().asked.len()
    }

    /// Returns the seconds between polls.
    fn pauses(&self) -> Vec<f64> {
        let asked = &self.0.lock().asked;
        asked.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect()
    }
}

impl VersionSource for Data {
    async fn fetch(&self, known: Option<&HeaderValue>) -> Result<PollResponse, VersionFetchError> {
        let mut inner = self.0.lock();
        inner.asked.push((Instant::now(), known.cloned()));
        let tag = inner.tag.map(HeaderValue::from_static);
        match inner.version {
            None => {
                Err(VersionFetchError::from(DocumentError::Status(StatusCode::SERVICE_UNAVAILABLE)))
            }
            Some("") => Ok(PollResponse::NoVersion),
            Some(_) if tag.is_some() && known == tag.as_ref() => Ok(PollResponse::Unchanged),
            Some(version) => Ok(PollResponse::Version(version.into(), tag)),
        }
    }
}

fn poll() -> Poll {
    Poll {
        name: "sales".into(),
        source: Url::parse("http://data.test/").unwrap(),
        every: EVERY,
        version: VersionFrom::Validator,
        purge: Box::new(["sales".into(), "kpi".into()]),
        mode: PurgeMode::Hard,
        warm: WarmPlan::default(),
        delay: None,
        alert_after: Some(Duration::from_mins(10)),
    }
}

/// One node's running poll.
struct Started {
    node: TaskContext<FakeNode>,
    polls: Polls,
    running: JoinHandle<()>,
}

fn start(data: &Data, redis: &Arc<FakeRedis>, clock: &Arc<ManualClock>) -> Started {
    start_poll(poll(), data, redis, clock)
}

fn start_poll(
    poll: Poll,
    data: &Data,
    redis: &Arc<FakeRedis>,
    clock: &Arc<ManualClock>,
) -> Started {
    let node = node(redis, clock);
    let mut polls = Polls::default();
    let cell = polls.add(&poll, clock.now());
    let poller = Poller::new(poll, data.clone(), cell, node.clone());
    Started { node, polls, running: tokio::spawn(poller.run()) }
}

impl Started {
    fn count(&self, result: &str) -> u64 {
        self.node.metrics.triggers.polls.with_label_values(&["sales", result]).get()
    }

    fn version(&self) -> Option<String> {
        self.polls.states()[0].version.as_deref().map(str::to_owned)
    }

    fn is_overdue(&self) -> bool {
        self.polls.update_metrics((self.node.now)(), &self.node.metrics);
        self.node.metrics.triggers.poll_overdue.with_label_values(&["sales"]).get() == 1
    }
}

fn alone(data: &Data) -> (Started, Arc<FakeRedis>, Arc<ManualClock>) {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T00:00:00Z"));
    (start(data, &redis, &clock), redis, clock)
}

fn purges(redis: &FakeRedis) -> usize {
    redis.purges.lock().len()
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_version_purges_nothing_and_every_later_one_does() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(60).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (0, Some("v1")));
    data.set(Some("v2"));
    seconds(12).await;
    let purge = redis.purges.lock()[0].clone();
    assert_eq!(purge.selectors, ["sales", "kpi"].map(|tag| Selector::Tag(tag.into())));
    assert_eq!(purge.source, PurgeSource::Poll("sales".into()));
    assert_eq!(purge.reason.as_deref(), Some("version v2"));
    seconds(60).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v2")));
    data.set(Some("v1"));
    seconds(12).await;
    assert_eq!(purges(&redis), 2);
    assert_eq!(started.count("changed"), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_entity_tag_makes_the_next_request_conditional() {
    let data = Data::of("v1");
    data.0.lock().tag = Some("\"1\"");
    let (started, redis, _) = alone(&data);
    seconds(12).await;
    data.0.lock().tag = Some("\"2\"");
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v2")));
    seconds(12).await;
    let asked: Vec<_> = data.0.lock().asked.iter().map(|(_, tag)| tag.clone()).collect();
    assert_eq!(asked[0], None);
    assert_eq!(asked[1].as_ref().unwrap(), "\"1\"");
    assert_eq!(asked.last().unwrap().as_ref().unwrap(), "\"2\"");
}

#[tokio::test(start_paused = true)]
async fn looks_are_every_so_often_give_or_take_a_tenth() {
    let data = Data::of("v1");
    let (_started, ..) = alone(&data);
    seconds(1000).await;
    let pauses = data.pauses();
    assert!(pauses.len() >= 90, "{}", pauses.len());
    assert!(pauses.iter().all(|pause| (9.0..=11.01).contains(pause)), "{pauses:?}");
    assert!(pauses.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.05), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_success_restores_the_interval() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    data.set(None);
    seconds(600).await;
    let pauses = data.pauses();
    for (pause, factor) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
        assert!((0.9..=1.11).contains(&(pause / 10.0 / factor)), "{pauses:?}");
    }
    assert_eq!(started.count("failed"), data.asked() as u64 - 1);
    assert_eq!(started.version().as_deref(), Some("v1"));
    data.set(Some("v2"));
    seconds(111).await;
    assert_eq!(purges(&redis), 1, "what changed during the failures is purged");
    let before = data.asked();
    seconds(100).await;
    assert!(data.asked() - before >= 9);
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_version_changes_nothing() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    data.set(Some(""));
    seconds(60).await;
    assert!(started.count("missing") >= 5 && started.count("failed") == 0);
    data.set(Some("v1"));
    seconds(12).await;
    assert_eq!(purges(&redis), 0);
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!(purges(&redis), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_purged_yet_is_purged_as_soon_as_it_can() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    redis.is_down.store(true, Relaxed);
    data.set(Some("v2"));
    seconds(300).await;
    redis.is_down.store(false, Relaxed);
    seconds(12).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v2")));
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_the_log_refuses_is_tried_again_soon() {
    let data = Data::of("v1");
    data.0.lock().tag = Some("\"1\"");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    redis.refuses_purges.store(true, Relaxed);
    data.0.lock().tag = Some("\"2\"");
    data.set(Some("v2"));
    seconds(60).await;
    assert!(started.count("unavailable") >= 9, "{}", started.count("unavailable"));
    assert_eq!(started.version().as_deref(), Some("v1"));
    redis.refuses_purges.store(false, Relaxed);
    seconds(6).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v2")));
}

#[tokio::test(start_paused = true)]
async fn one_node_polls_and_all_nodes_share_the_result() {
    let data = Data::of("v1");
    let (first, redis, clock) = alone(&data);
    let others = [start(&data, &redis, &clock), start(&data, &redis, &clock)];
    seconds(60).await;
    assert!(data.asked() <= 7, "{}", data.asked());
    data.set(Some("v2"));
    seconds(30).await;
    assert_eq!(purges(&redis), 1);
    let changed_at = first.polls.states()[0].changed_at;
    for other in &others {
        let state = other.polls.states().remove(0);
        assert_eq!((state.version.as_deref(), state.changed_at), (Some("v2"), changed_at));
        assert_eq!(other.count("same") + other.count("changed"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_purges_after_a_change_during_the_handover() {
    let data = Data::of("v1");
    let (first, redis, clock) = alone(&data);
    let second = start(&data, &redis, &clock);
    seconds(30).await;
    first.running.abort();
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!((purges(&redis), second.version().as_deref()), (1, Some("v2")));
    second.running.abort();
    data.set(Some("v3"));
    let _restarted = start(&data, &redis, &clock);
    seconds(1).await;
    assert_eq!(purges(&redis), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_has_forgotten_is_reminded() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    redis.is_down.store(true, Relaxed);
    seconds(30).await;
    redis.values.lock().clear();
    redis.is_down.store(false, Relaxed);
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v2")));
    assert!(redis.values.lock()["poll:sales"].contains("v2"));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_is_overdue() {
    let data = Data::of("v1");
    let (started, ..) = alone(&data);
    seconds(599).await;
    assert!(!started.is_overdue());
    seconds(3).await;
    assert!(started.is_overdue());
    let age = started.node.metrics.triggers.poll_version_age.with_label_values(&["sales"]).get();
    assert!((600.0..=603.0).contains(&age), "{age}");
    data.set(Some("v2"));
    seconds(12).await;
    assert!(!started.is_overdue());
    let changed = started.node.metrics.triggers.poll_last_change.with_label_values(&["sales"]);
    let expected = 1_768_003_200.0 + 608.0;
    assert!((changed.get() - expected).abs() < 8.0, "{}", changed.get());
}

#[tokio::test(start_paused = true)]
async fn a_version_that_never_came_is_overdue_too() {
    let (started, ..) = alone(&Data::default());
    seconds(590).await;
    assert!(!started.is_overdue());
    seconds(20).await;
    assert!(started.is_overdue());
    let state = started.polls.states().remove(0);
    assert_eq!((&*state.name, state.version, state.changed_at), ("sales", None, None));
}

#[tokio::test(start_paused = true)]
async fn the_first_version_after_responses_without_one_is_a_change() {
    let data = Data::of("");
    let (started, redis, clock) = alone(&data);
    seconds(30).await;
    assert_eq!((purges(&redis), started.version()), (0, None));
    data.set(Some("v1"));
    seconds(12).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v1")));
    started.running.abort();
    let _restarted = start(&data, &redis, &clock);
    seconds(30).await;
    assert_eq!(purges(&redis), 1, "the fleet remembers the version");
}

#[tokio::test(start_paused = true)]
async fn that_there_was_no_version_outlives_a_restart() {
    let data = Data::of("");
    let (started, redis, clock) = alone(&data);
    seconds(30).await;
    started.running.abort();
    data.set(Some("v1"));
    let restarted = start(&data, &redis, &clock);
    seconds(1).await;
    assert_eq!((purges(&redis), restarted.version().as_deref()), (1, Some("v1")));
}

#[tokio::test(start_paused = true)]
async fn the_first_version_after_failures_is_a_change() {
    let data = Data::default();
    let (started, redis, _) = alone(&data);
    seconds(30).await;
    data.set(Some("v1"));
    seconds(120).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (1, Some("v1")));
}

#[tokio::test(start_paused = true)]
async fn failures_between_two_equal_versions_purge_nothing() {
    let data = Data::of("v1");
    let (started, redis, _) = alone(&data);
    seconds(1).await;
    data.set(None);
    seconds(60).await;
    data.set(Some("v1"));
    seconds(120).await;
    assert_eq!((purges(&redis), started.version().as_deref()), (0, Some("v1")));
}

/// Returns a poll that purges again after a minute and a half.
fn delayed() -> Poll {
    Poll { delay: Some(Duration::from_secs(90)), mode: PurgeMode::Soft, ..poll() }
}

#[tokio::test(start_paused = true)]
async fn tags_are_purged_again_after_the_delay() {
    let (data, redis) = (Data::of("v1"), Arc::default());
    let clock = ManualClock::at("2026-01-10T00:00:00Z");
    let _started = start_poll(delayed(), &data, &redis, &clock);
    seconds(200).await;
    assert_eq!(purges(&redis), 0, "the first version is no change");
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!(purges(&redis), 1);
    seconds(76).await;
    assert_eq!(purges(&redis), 1);
    seconds(15).await;
    let made = redis.purges.lock().clone();
    assert_eq!(made.len(), 2);
    assert_eq!((made[1].mode, &made[1].selectors), (PurgeMode::Soft, &made[0].selectors));
    seconds(500).await;
    assert_eq!(purges(&redis), 2);
}

#[tokio::test(start_paused = true)]
async fn each_change_is_purged_once_more() {
    let (data, redis) = (Data::of("v1"), Arc::default());
    let clock = ManualClock::at("2026-01-10T00:00:00Z");
    let _started = start_poll(delayed(), &data, &redis, &clock);
    seconds(1).await;
    for version in ["v2", "v3"] {
        data.set(Some(version));
        seconds(30).await;
    }
    assert_eq!(purges(&redis), 2);
    seconds(50).await;
    assert_eq!(purges(&redis), 3, "of the first change");
    seconds(50).await;
    assert_eq!(purges(&redis), 4, "of the second one");
}

#[tokio::test(start_paused = true)]
async fn another_node_purges_once_more_if_the_first_is_gone() {
    let (data, redis) = (Data::of("v1"), Arc::<FakeRedis>::default());
    let clock = ManualClock::at("2026-01-10T00:00:00Z");
    let first = start_poll(delayed(), &data, &redis, &clock);
    seconds(1).await;
    data.set(Some("v2"));
    seconds(12).await;
    first.running.abort();
    assert_eq!(purges(&redis), 1);
    let _second = start_poll(delayed(), &data, &redis, &clock);
    seconds(60).await;
    assert_eq!(purges(&redis), 1);
    redis.refuses_purges.store(true, Relaxed);
    seconds(60).await;
    redis.refuses_purges.store(false, Relaxed);
    seconds(12).await;
    assert_eq!(purges(&redis), 2, "as soon as the log takes it");
    assert!(!redis.values.lock()["poll:sales"].contains("again"));
}

#[tokio::test(start_paused = true)]
async fn configured_targets_are_fetched_after_each_purge() {
    let (data, redis) = (Data::of("v1"), Arc::default());
    let clock = ManualClock::at("2026-01-10T00:00:00Z");
    let warm = WarmPlan { purged: true, ..plan(&["/a", "/b"]) };
    let started = start_poll(Poll { warm, ..poll() }, &data, &redis, &clock);
    seconds(30).await;
    assert_eq!(started.node.warm.waiting(), 0);
    data.set(Some("v2"));
    seconds(12).await;
    assert_eq!(started.node.warm.waiting(), 2);
    assert!(redis.purges.lock()[0].warm);
}

#[test]
fn records_of_earlier_releases_are_read() {
    let known: VersionRecord = serde_json::from_str(r#"{"version":"v1","changed_at":7}"#).unwrap();
    assert_eq!((known.version.as_deref(), known.changed_at), (Some("v1"), 7));
    assert!(known.again_at.is_empty());
}

#[test]
fn pauses_stay_within_their_bounds() {
    let second = Duration::from_secs(1);
    assert_eq!(pause(second, PollOutcome::Unchanged, 0, 0), Duration::from_millis(900));
    assert_eq!(pause(second, PollOutcome::Unchanged, 0, 255), Duration::from_millis(1100));
    assert!(pause(second, PollOutcome::Failed, u32::MAX, 128) <= second * 11);
    for outcome in [PollOutcome::Unavailable, PollOutcome::NotLeader] {
        assert!(pause(second * 3600, outcome, 0, 255) <= Duration::from_millis(5500));
    }
    assert!(pause(Duration::MAX, PollOutcome::Failed, 40, 255) <= MAX_PAUSE * 2);
}

//! Tests of schedules: on one node and on many, through suspension, restarts and outages.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use super::*;
use crate::trigger::fixture::{FakeNode, FakeRedis, FetchLog, ManualClock, node, plan};

fn schedule(cron: &str, purge: &[&str], warm: &[&str]) -> Schedule {
    Schedule {
        name: None,
        cron: CronExpression::parse(cron, jiff::tz::TimeZone::UTC).unwrap(),
        purge: purge.iter().map(|tag| (*tag).into()).collect(),
        mode: PurgeMode::Hard,
        warm: plan(warm),
    }
}

fn start(schedule: &Schedule, node: &TaskContext<FakeNode>) -> JoinHandle<()> {
    tokio::spawn(run(schedule.clone(), node.clone()))
}

fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

fn purges(redis: &FakeRedis) -> usize {
    redis.purges.lock().len()
}

fn runs(node: &TaskContext<FakeNode>, schedule: &Schedule, result: &str) -> u64 {
    let label = &[schedule.label(), result];
    node.metrics.triggers.schedule_runs.with_label_values(label).get()
}

#[tokio::test(start_paused = true)]
async fn a_schedule_purges_when_its_time_comes_and_not_before() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T05:50:30.250Z"));
    let node = node(&redis, &clock);
    let schedule = schedule("0 6,7 * * *", &["daily", "kpi"], &[]);
    let _running = start(&schedule, &node);
    sleep(Duration::from_millis(569_740)).await;
    assert_eq!(purges(&redis), 0);
    sleep(Duration::from_millis(20)).await;
    let purge = redis.purges.lock()[0].clone();
    assert_eq!(purge.mode, PurgeMode::Hard);
    assert_eq!(purge.selectors, ["daily", "kpi"].map(|tag| Selector::Tag(tag.into())));
    assert_eq!(purge.source, PurgeSource::Schedule("0 6,7 * * *".into()));
    sleep(minutes(70)).await;
    assert_eq!((purges(&redis), runs(&node, &schedule, "done")), (2, 2));
    let last_run = node.metrics.triggers.schedule_last_run.with_label_values(&["0 6,7 * * *"]);
    assert!((last_run.get() - 1_768_028_400.0).abs() < 0.5, "{}", last_run.get());
}

#[tokio::test(start_paused = true)]
async fn every_node_runs_and_the_fleet_purges_and_fetches_once() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T05:50:00Z"));
    let schedule = schedule("*/10 * * * *", &["daily"], &["/a", "/b"]);
    let nodes: Vec<_> = (0..3).map(|_| node(&redis, &clock)).collect();
    let fetched = Arc::new(FetchLog::default());
    for node in &nodes {
        start(&schedule, node);
        tokio::spawn(node.warm.clone().run(Arc::clone(&fetched)));
    }
    sleep(minutes(11)).await;
    assert_eq!(purges(&redis), 1);
    assert_eq!(*fetched.0.lock(), ["/a", "/b"]);
    sleep(minutes(10)).await;
    assert_eq!((purges(&redis), fetched.0.lock().len()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_slept_runs_the_last_time_it_missed_and_only_that() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T05:59:50Z"));
    let node = node(&redis, &clock);
    let schedule = schedule("0 * * * *", &["hourly"], &[]);
    let _running = start(&schedule, &node);
    sleep(Duration::from_secs(1)).await;
    clock.jump(minutes(5 * 60 + 30));
    sleep(MAX_SLEEP).await;
    assert_eq!(purges(&redis), 1);
    sleep(minutes(31)).await;
    assert_eq!(purges(&redis), 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_missed_by_all_nodes_is_made_up_for() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T05:50:00Z"));
    let schedule = schedule("0 6 * * *", &["daily"], &[]);
    let running = start(&schedule, &node(&redis, &clock));
    sleep(minutes(1)).await;
    running.abort();
    sleep(minutes(60)).await;
    let running = start(&schedule, &node(&redis, &clock));
    sleep(minutes(1)).await;
    assert_eq!(purges(&redis), 1);
    running.abort();
    let _running = start(&schedule, &node(&redis, &clock));
    sleep(minutes(60)).await;
    assert_eq!(purges(&redis), 1, "what was done is not done again");
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_new_makes_up_for_nothing() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T06:10:00Z"));
    let _running = start(&schedule("0 6 * * *", &["daily"], &[]), &node(&redis, &clock));
    sleep(minutes(60)).await;
    assert_eq!(purges(&redis), 0);
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_tried_again_until_the_log_can_be_reached() {
    let (redis, clock) = (Arc::<FakeRedis>::default(), ManualClock::at("2026-01-10T05:50:00Z"));
    let node = node(&redis, &clock);
    let schedule = schedule("0 6 * * *", &["daily"], &[]);
    let _running = start(&schedule, &node);
    sleep(minutes(1)).await;
    redis.is_down.store(true, Relaxed);
    sleep(minutes(39)).await;
    let tries = runs(&node, &schedule, "unavailable");
    assert!((30..=40).contains(&tries), "{tries} tries in half an hour");
    redis.is_down.store(false, Relaxed);
    sleep(minutes(2)).await;
    assert_eq!((purges(&redis), runs(&node, &schedule, "done")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_outage_over_several_times_ends_with_one_purge() {
    let (redis, clock) = (Arc::<FakeRedis>::default(), ManualClock::at("2026-01-10T05:59:30Z"));
    let _running = start(&schedule("*/5 * * * *", &["often"], &[]), &node(&redis, &clock));
    sleep(Duration::from_secs(10)).await;
    redis.is_down.store(true, Relaxed);
    sleep(minutes(17)).await;
    redis.is_down.store(false, Relaxed);
    sleep(minutes(2)).await;
    assert_eq!(purges(&redis), 1);
    sleep(minutes(5)).await;
    assert_eq!(purges(&redis), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_fleet_is_retried_at_startup() {
    let (redis, clock) = (Arc::<FakeRedis>::default(), ManualClock::at("2026-01-10T05:50:00Z"));
    redis.is_down.store(true, Relaxed);
    let _running = start(&schedule("0 6 * * *", &["daily"], &[]), &node(&redis, &clock));
    sleep(minutes(20)).await;
    redis.is_down.store(false, Relaxed);
    sleep(minutes(2)).await;
    assert_eq!(purges(&redis), 1, "the time that passed meanwhile is made up for");
}

#[tokio::test(start_paused = true)]
async fn a_stored_time_far_in_the_future_is_ignored() {
    let (redis, clock) = (Arc::<FakeRedis>::default(), ManualClock::at("2026-01-10T05:50:00Z"));
    let schedule = schedule("0 6 * * *", &["daily"], &[]);
    for absurd in ["4102444800", "-1", "soon"] {
        redis.values.lock().insert(schedule.id(), absurd.to_owned());
        let before = purges(&redis);
        let running = start(&schedule, &node(&redis, &clock));
        sleep(Duration::from_hours(24)).await;
        assert_eq!(purges(&redis), before + 1, "{absurd}");
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_says_its_name_how_it_purges_and_whether_that_is_fetched_again() {
    let (redis, clock) = (Arc::default(), ManualClock::at("2026-01-10T05:59:00Z"));
    let node = node(&redis, &clock);
    let mut schedule = schedule("0 6 * * *", &["daily"], &[]);
    (schedule.name, schedule.mode) = (Some("morning".into()), PurgeMode::Soft);
    schedule.warm.purged = true;
    let _running = start(&schedule, &node);
    sleep(minutes(2)).await;
    let purge = redis.purges.lock()[0].clone();
    assert_eq!((purge.mode, purge.warm), (PurgeMode::Soft, true));
    assert_eq!(purge.source, PurgeSource::Schedule("morning".into()));
    assert_eq!(
        node.metrics.triggers.schedule_runs.with_label_values(&["morning", "done"]).get(),
        1
    );
}

#[test]
fn schedules_that_say_the_same_are_one_and_others_are_not() {
    let one = schedule("0 6 * * *", &["a"], &["/a"]);
    assert_eq!(one.id(), one.clone().id());
    for other in [
        schedule("0 7 * * *", &["a"], &["/a"]),
        schedule("0 6 * * *", &["a", "b"], &["/a"]),
        schedule("0 6 * * *", &["a"], &["/b"]),
        schedule("0 6 * * *", &["a"], &[]),
    ] {
        assert_ne!(one.id(), other.id());
    }
    let text = "name \ncron 0 6 * * * UTC\nmode hard\npurge a\nwarm /a";
    assert_eq!(one.identity(), text, "a release that changes it runs every schedule again");
}

#[test]
fn failures_are_waited_out_ever_longer() {
    let (first, max) = (Duration::from_secs(1), Duration::from_mins(1));
    let waits = [1, 2, 3, 7, 40, u32::MAX].map(|failures| backoff(failures, first, max));
    assert_eq!(waits.map(|wait| wait.as_secs()), [1, 2, 4, 60, 60, 60]);
}

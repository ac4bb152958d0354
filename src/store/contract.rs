//! The contract of all stores, as one test suite.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, StatusCode};

use super::{
    MemoryStore, PutOutcome, Store, TieredStore,
    redis::tests::{self as redis, Server},
};
use crate::{
    entry::{CompleteBody, Entry, ResponseDraft, VarySelection},
    fence::{FenceStamp, OwnedResponseAttributes},
    field::Timestamp,
    key::CacheKey,
    policy::freshness::{Constraints, Freshness},
};

fn key(path: &str) -> CacheKey {
    CacheKey::from_text(path.as_bytes())
}

fn fresh(received_at: u64) -> Freshness {
    Freshness {
        received_at: Timestamp::from_seconds(received_at),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_mins(1),
        stale_while_revalidate: None,
        stale_if_error: None,
        usable_for: None,
        constraints: Constraints::default(),
    }
}

pub(super) fn response(key: &CacheKey, body: &'static [u8]) -> Entry {
    received(key, body, 1000)
}

fn received(key: &CacheKey, body: &'static [u8], at: u64) -> Entry {
    let draft = ResponseDraft {
        key: key.clone(),
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        freshness: fresh(at),
        tags: vec!["tile:1".to_owned(), "dashboard".to_owned()],
        attributes: OwnedResponseAttributes::default(),
        stamp: FenceStamp::default(),
        requested_at: Timestamp::from_seconds(at),
    };
    Entry::Response(Arc::new(draft.complete(&CompleteBody::for_test([body.into()])).unwrap()))
}

fn body_of(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Response(response) => response.body().to_vec(),
        Entry::Variants(_) => panic!("not a response"),
    }
}

/// Tests that a change is visible immediately, and after `flush`, which completes deferred work.
async fn keeps_the_contract<S: Store>(store: S, flush: impl AsyncFn(&S)) {
    let (one, two) = (key("/one"), key("/two"));
    assert!(store.get(&one).await.is_none(), "an empty store has nothing");

    assert_eq!(store.put(&one, response(&one, b"first")).await, PutOutcome::Stored);
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"first");
    assert!(store.get(&two).await.is_none(), "keys do not mix");
    flush(&store).await;
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"first");

    store.put(&one, response(&one, b"second")).await;
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"second", "the last one put stands");
    flush(&store).await;
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"second", "and goes on standing");

    store.remove(&one).await;
    store.remove(&one).await;
    assert!(store.get(&one).await.is_none(), "what is removed is gone");
    flush(&store).await;
    assert!(store.get(&one).await.is_none(), "and stays gone");

    keeps_variants(&store, &flush).await;

    // As after a collision of digests: the entry belongs to another key.
    store.put(&one, response(&two, b"other")).await;
    flush(&store).await;
    assert!(store.get(&one).await.is_none(), "the full text is compared");

    let largest = key("/large");
    let body: &'static [u8] = vec![0; store.max_entry_size() + 1].leak();
    store.put(&largest, response(&largest, b"small")).await;
    assert_eq!(store.put(&largest, response(&largest, body)).await, PutOutcome::TooLarge);
    flush(&store).await;
    assert!(store.get(&largest).await.is_none(), "what was refused leaves nothing older behind");
}

/// Returns the selecting fields of a response received at the time `seen`.
fn selection(name: &'static str, seen: u64) -> VarySelection {
    let set = [HeaderName::from_static(name)].into_iter().collect();
    VarySelection {
        set,
        seen: Timestamp::from_seconds(seen),
        codings: Vec::new(),
        languages: Vec::new(),
    }
}

async fn variants_of<S: Store>(store: &S, target: &CacheKey) -> Vec<u128> {
    match store.get(target).await {
        Some(Entry::Variants(variants)) => {
            let mut digests = variants.recent.clone();
            digests.sort_unstable();
            digests
        }
        _ => Vec::new(),
    }
}

/// Tests that no added variant is lost, and that a late response replaces no newer response.
async fn keeps_variants<S: Store>(store: &S, flush: &impl AsyncFn(&S)) {
    let target = key("/varied");
    let all: Vec<u128> = (1..=20).collect();
    join_all(all.iter().map(|digest| store.add_variant(&target, selection("a", 1000), *digest)))
        .await;
    assert_eq!(variants_of(store, &target).await, all);
    flush(store).await;
    assert_eq!(variants_of(store, &target).await, all);
    store.put(&target, received(&target, b"plain", 1001)).await;
    flush(store).await;
    assert_eq!(variants_of(store, &target).await, all, "they are not hidden");
    let day = 24 * 60 * 60;
    store.put(&target, received(&target, b"plain", 1001 + day)).await;
    flush(store).await;
    assert_eq!(body_of(&store.get(&target).await.unwrap()), b"plain", "nothing varies any more");

    let key = key("/late");
    store.put(&key, received(&key, b"newer", 2000)).await;
    flush(store).await;
    store.put(&key, received(&key, b"older", 1000)).await;
    flush(store).await;
    assert_eq!(body_of(&store.get(&key).await.unwrap()), b"newer", "it was asked for later");
}

#[tokio::test]
async fn nodes_that_add_variants_at_once_lose_none() {
    let server = Server::start().await;
    let nodes =
        [over(&server, None).await, over(&server, Some(MemoryStore::new(1 << 20, 1 << 20))).await];
    let target = key("/varied");
    let all: Vec<u128> = (1..=40).collect();
    let target = &target;
    join_all(all.iter().zip(nodes.iter().cycle()).map(|(digest, node)| async move {
        node.add_variant(target, selection("a", 1000), *digest).await;
        node.flush().await;
    }))
    .await;
    for node in &nodes {
        assert_eq!(variants_of(node, target).await, all);
    }
}

#[tokio::test]
async fn what_one_node_asked_for_later_stays_whatever_comes_late_from_another() {
    let server = Server::start().await;
    let nodes = [over(&server, None).await, over(&server, None).await];
    let key = key("/late");
    for (node, body, asked) in [(0, &b"newer"[..], 2000), (1, &b"older"[..], 1000)] {
        nodes[node].put(&key, received(&key, body, asked)).await;
        let found = nodes[node].get(&key).await.unwrap();
        assert_eq!(body_of(&found), b"newer", "node {node}");
        nodes[node].flush().await;
    }
    assert_eq!(body_of(&nodes[1].get(&key).await.unwrap()), b"newer");
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    keeps_the_contract(MemoryStore::new(64 << 20, 1 << 20), async |_: &MemoryStore| ()).await;
}

/// Returns a tiered store on a running Redis server.
async fn over(server: &Server, memory: Option<MemoryStore>) -> TieredStore {
    let redis = redis::start(redis::settings(&server.url()));
    redis::until("up", || redis.health() == super::redis::RedisHealth::Up).await;
    TieredStore::new(memory, Some(redis))
}

#[tokio::test]
async fn redis_alone_keeps_the_contract() {
    let server = Server::start().await;
    keeps_the_contract(over(&server, None).await, TieredStore::flush).await;
}

#[tokio::test]
async fn both_tiers_keep_the_contract() {
    let server = Server::start().await;
    let memory = MemoryStore::new(64 << 20, 1 << 20);
    keeps_the_contract(over(&server, Some(memory)).await, TieredStore::flush).await;
}

#[tokio::test]
async fn the_memory_tier_alone_keeps_the_contract() {
    let store = TieredStore::new(Some(MemoryStore::new(64 << 20, 1 << 20)), None);
    keeps_the_contract(store, TieredStore::flush).await;
}

#[tokio::test]
async fn without_a_server_memory_keeps_the_contract() {
    let server = Server::absent();
    let redis = redis::start(redis::settings(&server.url()));
    let store = TieredStore::new(Some(MemoryStore::new(64 << 20, 16 << 20)), Some(redis));
    keeps_the_contract(store, TieredStore::flush).await;
}

#[tokio::test]
async fn what_comes_from_redis_is_kept_at_hand() {
    let server = Server::start().await;
    let first = over(&server, Some(MemoryStore::new(1 << 20, 1 << 20))).await;
    let second = over(&server, Some(MemoryStore::new(1 << 20, 1 << 20))).await;
    let key = key("/");
    first.put(&key, response(&key, b"shared")).await;
    first.flush().await;
    assert!(second.peek(&key).is_none());
    assert_eq!(body_of(&second.get(&key).await.unwrap()), b"shared");
    assert_eq!(body_of(&second.peek(&key).unwrap()), b"shared");
    second.remove(&key).await;
    assert!(second.peek(&key).is_none() && second.get(&key).await.is_none());
}

#[tokio::test]
async fn what_is_newer_stays_at_hand() {
    let server = Server::start().await;
    let first = over(&server, None).await;
    let second = over(&server, Some(MemoryStore::new(1 << 20, 1 << 20))).await;
    let key = key("/");
    second.put(&key, received(&key, b"newer", 2000)).await;
    second.flush().await;
    first.put(&key, received(&key, b"older", 1000)).await;
    first.flush().await;
    assert_eq!(body_of(&second.get(&key).await.unwrap()), b"newer");
    first.put(&key, received(&key, b"newest", 3000)).await;
    first.flush().await;
    assert_eq!(body_of(&second.get(&key).await.unwrap()), b"newest");
    assert_eq!(body_of(&second.peek(&key).unwrap()), b"newest");
}

#[tokio::test]
async fn without_tiers_nothing_is_stored() {
    let store = TieredStore::new(None, None);
    let key = key("/");
    assert_eq!(store.put(&key, response(&key, b"")).await, PutOutcome::TooLarge);
    assert!(store.get(&key).await.is_none() && store.max_entry_size() == 0);
}

#[tokio::test]
async fn the_memory_store_stays_within_its_budget_and_counts_what_it_lets_go() {
    let budget = 4 << 20;
    let store = MemoryStore::new(budget, 64 << 10);
    let body: &'static [u8] = vec![1; 1000].leak();
    for number in 0..20_000 {
        let key = key(&format!("/{number}"));
        store.put(&key, response(&key, body)).await;
        assert!(store.usage().bytes <= budget);
    }
    let usage = store.usage();
    assert_eq!(usage.entries + usage.evicted, 20_000);
    assert!(usage.bytes > budget / 2, "the budget is used: {usage:?}");
}

#[tokio::test]
async fn a_store_smaller_than_the_largest_object_takes_what_fits() {
    let store = MemoryStore::new(1 << 20, 16 << 20);
    assert!(store.max_entry_size() > 900 << 10 && store.max_entry_size() < 1 << 20);
    let key = key("/");
    let body: &'static [u8] = vec![1; 800 << 10].leak();
    assert_eq!(store.put(&key, response(&key, body)).await, PutOutcome::Stored);
    assert!(store.get(&key).await.is_some());
}

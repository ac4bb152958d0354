//! The contract that every store keeps, as one suite.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};

use super::{Memory, Put, Store};
use crate::{
    entry::{Content, Draft, Entry, Variants},
    field::Timestamp,
    key::CacheKey,
    policy::freshness::{Constraints, Freshness},
};

fn key(path: &str) -> CacheKey {
    CacheKey::of_target(|text| text.extend_from_slice(path.as_bytes()))
}

fn fresh() -> Freshness {
    Freshness {
        received_at: Timestamp::from_seconds(1000),
        initial_age: Duration::ZERO,
        lifetime: Duration::from_mins(1),
        stale_while_revalidate: None,
        stale_if_error: None,
        constraints: Constraints::default(),
    }
}

fn response(key: &CacheKey, body: &'static [u8]) -> Entry {
    let draft = Draft {
        key: key.clone(),
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        freshness: fresh(),
        tags: vec!["tile:1".to_owned(), "dashboard".to_owned()],
    };
    Entry::Response(Arc::new(draft.complete(Content(&[body.into()])).unwrap()))
}

fn body_of(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Response(response) => response.body().to_vec(),
        Entry::Variants(_) => panic!("not a response"),
    }
}

async fn keeps_the_contract(store: impl Store) {
    let (one, two) = (key("/one"), key("/two"));
    assert!(store.get(&one).await.is_none(), "an empty store has nothing");

    assert_eq!(store.put(&one, response(&one, b"first")).await, Put::Stored);
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"first");
    assert!(store.get(&two).await.is_none(), "keys do not mix");

    store.put(&one, response(&one, b"second")).await;
    assert_eq!(body_of(&store.get(&one).await.unwrap()), b"second", "the last one put stands");

    store.remove(one.digest()).await;
    store.remove(one.digest()).await;
    assert!(store.get(&one).await.is_none(), "what is removed is gone");

    let variants = Entry::Variants(Arc::new(Variants::new(&two, 7)));
    assert_eq!(store.put(&two, variants).await, Put::Stored);
    assert!(matches!(store.get(&two).await.unwrap(), Entry::Variants(v) if v.generation == 7));

    // An entry that came under a digest it does not belong to, as by a collision, is not given out.
    store.put(&one, response(&two, b"other")).await;
    assert!(store.get(&one).await.is_none(), "the full text is compared");

    let largest = key("/large");
    let body: &'static [u8] = vec![0; store.max_entry_size() + 1].leak();
    store.put(&largest, response(&largest, b"small")).await;
    assert_eq!(store.put(&largest, response(&largest, body)).await, Put::TooLarge);
    assert!(store.get(&largest).await.is_none(), "what was refused leaves nothing older behind");
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    keeps_the_contract(Memory::new(64 << 20, 1 << 20)).await;
}

#[tokio::test]
async fn the_memory_store_stays_within_its_budget_and_counts_what_it_lets_go() {
    let budget = 4 << 20;
    let store = Memory::new(budget, 64 << 10);
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
    let store = Memory::new(1 << 20, 16 << 20);
    assert!(store.max_entry_size() > 900 << 10 && store.max_entry_size() < 1 << 20);
    let key = key("/");
    let body: &'static [u8] = vec![1; 800 << 10].leak();
    assert_eq!(store.put(&key, response(&key, body)).await, Put::Stored);
    assert!(store.get(&key).await.is_some());
}

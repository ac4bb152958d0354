//! Tests of the memory share of each identity, of its exact accounting, and of what threads remember.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::{
    coding::ContentCoding,
    entry::{CodedBody, CompleteBody, ResponseDraft, StoredResponse},
    fence::{FenceStamp, OwnedResponseAttributes},
    field::Timestamp,
    key::{OriginTarget, uri::Scheme},
    policy::freshness::{Constraints, Freshness},
};

/// An identity that no entry has.
const ANYONE: u8 = 0;

fn key(identity: u8, path: &str) -> CacheKey {
    let part = match identity {
        ANYONE => partition::PartitionKey::new(),
        _ => partition::of_identity(&u128::from(identity).to_le_bytes()),
    };
    let plain = OriginTarget::plain(Scheme::Http, "h", path);
    OriginTarget { partition: Cow::Borrowed(&part), ..plain }.key()
}

fn response(key: &CacheKey, size: usize, requested_at: u64) -> Entry {
    let draft = ResponseDraft {
        key: key.clone(),
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        freshness: Freshness {
            received_at: Timestamp::from_millis(requested_at),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_mins(1),
            stale_while_revalidate: None,
            stale_if_error: None,
            usable_for: None,
            constraints: Constraints::default(),
        },
        tags: Vec::new(),
        attributes: OwnedResponseAttributes::default(),
        stamp: FenceStamp::default(),
        requested_at: Timestamp::from_millis(requested_at),
    };
    let body = CompleteBody::for_test([vec![b'x'; size].into()]);
    Entry::Response(Arc::new(draft.complete(&body).unwrap()))
}

fn selection(seen: u64) -> VarySelection {
    let set = [HeaderName::from_static("accept")].into_iter().collect();
    VarySelection {
        set,
        seen: Timestamp::from_millis(seen),
        codings: Vec::new(),
        languages: Vec::new(),
    }
}

/// Puts an entry into the store synchronously.
fn put(store: &MemoryStore, key: &CacheKey, size: usize, requested_at: u64) -> PutOutcome {
    store.put(key, response(key, size, requested_at)).now_or_never().unwrap()
}

fn add_variant(store: &MemoryStore, target: &CacheKey, variant: &CacheKey, seen: u64) {
    store.add_variant(target, selection(seen), variant.digest()).now_or_never().unwrap();
}

fn remove(store: &MemoryStore, key: &CacheKey) {
    store.remove(key).now_or_never().unwrap();
}

/// The accounts of all identities, computed from the entries.
fn counted(store: &MemoryStore) -> BTreeMap<u128, (usize, u64)> {
    let mut counted = BTreeMap::new();
    for (_digest, entry) in store.cache.iter() {
        if let Some(identity) = entry.identity() {
            let (entries, bytes) = counted.entry(identity).or_insert((0, 0));
            *entries += 1;
            *bytes += weight_of(&entry);
        }
    }
    counted
}

#[test]
fn one_user_with_many_urls_evicts_nothing_of_others() {
    let store = MemoryStore::new(8 << 20, 64 << 10);
    let others: Vec<_> = (0..1000_u16)
        .map(|number| {
            let [low, _high] = (number % 100).to_le_bytes();
            key(if number % 2 == 0 { ANYONE } else { 2 + low }, &format!("/{number}"))
        })
        .collect();
    for key in &others {
        assert_eq!(put(&store, key, 1000, 1), PutOutcome::Stored);
    }
    for number in 0..10_000 {
        assert_eq!(put(&store, &key(1, &format!("/own/{number}")), 1000, 1), PutOutcome::Stored);
    }
    let kept = others.iter().filter(|key| store.peek(key).is_some()).count();
    assert_eq!(kept, others.len());
    assert_eq!(store.usage().evicted, 0);
    let (entries, bytes) = store.shares.held()[&1];
    assert!(bytes <= (8 << 20) / 20 && entries > 200, "{entries} entries, {bytes} bytes");
    assert!(store.usage().evicted_by_share > 9000);
    assert!(store.peek(&key(1, "/own/9999")).is_some() && store.peek(&key(1, "/own/0")).is_none());
}

#[test]
fn an_identity_has_at_most_a_thousand_entries() {
    let store = MemoryStore::new(1 << 30, 64 << 10);
    for number in 0..1200 {
        put(&store, &key(1, &format!("/{number}")), 10, 1);
    }
    assert_eq!(store.shares.held()[&1].0, 1000);
    assert_eq!(store.usage().evicted_by_share, 200);
}

#[test]
fn what_is_in_use_stays_before_what_is_not() {
    let store = MemoryStore::new(1 << 20, 64 << 10);
    let used = key(1, "/used");
    put(&store, &used, 1000, 1);
    let Some(Entry::Response(stored)) = store.peek(&used) else { panic!("not stored") };
    stored.mark_used();
    for number in 0..200 {
        put(&store, &key(1, &format!("/{number}")), 1000, 1);
    }
    assert!(store.peek(&used).is_some());
    assert!(store.peek(&key(1, "/0")).is_none());
}

#[test]
fn what_is_larger_than_a_share_is_refused_for_one_identity_only() {
    let store = MemoryStore::new(1 << 20, 512 << 10);
    let (own, everyones) = (key(1, "/large"), key(ANYONE, "/large"));
    assert_eq!(put(&store, &everyones, 60 << 10, 1), PutOutcome::Stored);
    put(&store, &own, 10, 1);
    assert_eq!(put(&store, &own, 60 << 10, 2), PutOutcome::TooLarge);
    assert!(store.peek(&own).is_none(), "what it was to replace is old");
    assert!(store.shares.held().is_empty());
    assert_eq!(store.usage().refused, 1);
}

#[test]
fn indexes_of_variants_count_too() {
    let store = MemoryStore::new(1 << 30, 64 << 10);
    let target = key(1, "/a");
    let variant = target.variant(b"x");
    put(&store, &variant, 10, 1);
    add_variant(&store, &target, &variant, 1);
    assert_eq!(store.shares.held()[&1].0, 2);
    assert_eq!(store.shares.held(), counted(&store));
    for number in 0..100 {
        let variant = target.variant(format!("{number}").as_bytes());
        put(&store, &variant, 10, 1);
        add_variant(&store, &target, &variant, 1);
    }
    assert_eq!(store.shares.held()[&1].0, 1 + 64, "the index, and its variants");
    assert_eq!(store.shares.held(), counted(&store));
}

/// An operation on a store.
#[derive(Debug, Clone)]
enum StoreStep {
    Put { identity: u8, path: u8, size: usize, requested_at: u64 },
    Promote { identity: u8, path: u8, size: usize, requested_at: u64 },
    AddVariant { identity: u8, path: u8, variant: u8 },
    Remove { identity: u8, path: u8 },
}

fn steps() -> impl Strategy<Value = StoreStep> {
    let name = (0..4_u8, 0..30_u8);
    let what = (prop_oneof![9 => 0..2000_usize, 1 => 0..20_000_usize], 0..50_u64);
    prop_oneof![
        5 => (name.clone(), what.clone()).prop_map(|((identity, path), (size, requested_at))| {
            StoreStep::Put { identity, path, size, requested_at }
        }),
        1 => (name.clone(), what).prop_map(|((identity, path), (size, requested_at))| {
            StoreStep::Promote { identity, path, size, requested_at }
        }),
        2 => (name.clone(), any::<u8>()).prop_map(|((identity, path), variant)| {
            StoreStep::AddVariant { identity, path, variant }
        }),
        1 => name.prop_map(|(identity, path)| StoreStep::Remove { identity, path }),
    ]
}

fn apply(store: &MemoryStore, step: &StoreStep) {
    let named = |identity: u8, path: u8| key(identity, &format!("/{path}"));
    match *step {
        StoreStep::Put { identity, path, size, requested_at } => {
            put(store, &named(identity, path), size, requested_at);
        }
        StoreStep::Promote { identity, path, size, requested_at } => {
            let key = named(identity, path);
            store.promote(&key, response(&key, size, requested_at));
        }
        StoreStep::AddVariant { identity, path, variant } => {
            let target = named(identity, path);
            let variant = target.variant(&[variant]);
            put(store, &variant, 100, 1);
            add_variant(store, &target, &variant, 1);
        }
        StoreStep::Remove { identity, path } => remove(store, &named(identity, path)),
    }
}

proptest! {
    #[test]
    fn accounts_say_what_is_stored(steps in proptest::collection::vec(steps(), 1..300)) {
        let store = MemoryStore::new(64 << 10, 16 << 10);
        for step in &steps {
            apply(&store, step);
            prop_assert_eq!(store.shares.held(), counted(&store));
        }
        let max_bytes = (64 << 10) / 20;
        prop_assert!(store.shares.held().values().all(|(_, bytes)| *bytes <= max_bytes));
    }
}

#[test]
fn accounts_are_exact_however_threads_meet() {
    let store = MemoryStore::new(32 << 10, 4 << 10);
    std::thread::scope(|scope| {
        for thread in 0..4_u16 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..4000_u16 {
                    let [identity, _] = (turn % 3).to_le_bytes();
                    let [path, _] = ((turn % 25 * 7 + thread) % 25).to_le_bytes();
                    let (size, requested_at) = (usize::from(turn % 3000), u64::from(turn));
                    let step = match (turn + thread) % 6 {
                        0 => StoreStep::Remove { identity, path },
                        1 => StoreStep::AddVariant { identity, path, variant: path },
                        _ => StoreStep::Put { identity, path, size, requested_at },
                    };
                    apply(store, &step);
                }
            });
        }
    });
    assert_eq!(store.shares.held(), counted(&store));
    assert!(store.usage().evicted > 0 && store.usage().evicted_by_share > 0);
}

/// Returns the response under a key by [`Store::peek_recent`].
fn recent(store: &MemoryStore, key: &CacheKey, now: Instant) -> Option<Arc<StoredResponse>> {
    match store.peek_recent(key, now)? {
        Entry::Response(response) => Some(response),
        Entry::Variants(_) => None,
    }
}

proptest! {
    #[test]
    fn what_a_thread_remembers_is_what_is_stored(
        steps in proptest::collection::vec(steps(), 1..200),
    ) {
        let store = MemoryStore::new(64 << 10, 16 << 10);
        let keys: Vec<_> = (0..4).flat_map(|identity| {
            (0..30).map(move |path| key(identity, &format!("/{path}")))
        }).collect();
        let now = Instant::now();
        for steps in steps.chunks(5) {
            for step in steps {
                apply(&store, step);
            }
            for key in &keys {
                let stored = match store.peek(key) {
                    Some(Entry::Response(response)) => Some(response.id),
                    _ => None,
                };
                prop_assert_eq!(recent(&store, key, now).map(|response| response.id), stored);
            }
        }
    }
}

#[test]
fn no_thread_finds_an_older_response_than_the_one_whose_put_returned() {
    let (store, key) = (MemoryStore::new(1 << 20, 64 << 10), key(ANYONE, "/"));
    let (stored, now) = (AtomicU64::new(0), Instant::now());
    put(&store, &key, 10, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let at_least = stored.load(Ordering::Acquire);
                    let found = recent(&store, &key, now).expect("it is never removed");
                    assert!(found.requested_at >= Timestamp::from_millis(at_least));
                    if at_least == 3000 {
                        return;
                    }
                }
            });
        }
        for requested_at in 1..=3000 {
            put(&store, &key, 10, requested_at);
            stored.store(requested_at, Ordering::Release);
        }
    });
}

#[test]
fn what_a_thread_remembers_stays_in_use_for_the_store() {
    let (store, popular) = (MemoryStore::new(1 << 20, 64 << 10), key(ANYONE, "/popular"));
    let start = Instant::now();
    put(&store, &popular, 1000, 1);
    for turn in 0..5000_u32 {
        let other = key(ANYONE, &format!("/{turn}"));
        put(&store, &other, 1000, 1);
        assert!(store.peek(&other).is_some());
        assert!(recent(&store, &popular, start + Duration::from_millis(1) * turn).is_some());
    }
    assert!(store.usage().evicted > 4000);
}

#[test]
fn an_evicted_response_is_neither_remembered_nor_kept_in_memory() {
    let (store, old) = (MemoryStore::new(256 << 10, 64 << 10), key(ANYONE, "/old"));
    put(&store, &old, 1000, 1);
    let now = Instant::now();
    let known = Arc::downgrade(&recent(&store, &old, now).unwrap());
    for number in 0..5000 {
        let other = key(ANYONE, &format!("/popular/{number}"));
        put(&store, &other, 1000, 1);
        assert!((0..3).all(|_| store.peek(&other).is_some()));
    }
    assert!(recent(&store, &old, now).is_none());
    assert!(known.upgrade().is_none());
}

/// Returns the body stored under a key. The response counts as in use until the body is dropped.
fn read(store: &MemoryStore, key: &CacheKey) -> bytes::Bytes {
    match store.peek(key) {
        Some(Entry::Response(response)) => response.body(),
        _ => panic!("it is stored"),
    }
}

#[test]
fn large_responses_that_left_the_store_count_until_their_clients_have_read_them() {
    const LARGE: usize = 9 << 20;
    let store = MemoryStore::new(256 << 20, 16 << 20);
    let keys = ["/a", "/b", "/c"].map(|path| key(ANYONE, path));
    for key in &keys {
        assert_eq!(put(&store, key, LARGE, 1), PutOutcome::Stored);
    }
    let removed = read(&store, &keys[0]);
    assert_eq!(store.pinned_bytes(), 0, "what is stored counts there");
    remove(&store, &keys[0]);
    assert!(store.pinned_bytes() >= LARGE as u64 && !store.is_over_pinned_limit());
    let replaced = read(&store, &keys[1]);
    put(&store, &keys[1], LARGE, 2);
    assert!(store.pinned_bytes() >= 2 * LARGE as u64 && store.is_over_pinned_limit());
    remove(&store, &keys[2]);
    assert!(store.pinned_bytes() < 3 * LARGE as u64, "no client reads that one");
    drop(removed);
    assert!(!store.is_over_pinned_limit());
    drop(replaced);
    assert_eq!(store.pinned_bytes(), 0);
}

#[test]
fn a_large_response_that_left_the_store_is_released_when_the_limit_is_next_checked() {
    const LARGE: usize = 256 << 10;
    let (store, key) = (MemoryStore::new(64 << 20, 1 << 20), key(ANYONE, "/a"));
    put(&store, &key, LARGE, 1);
    let body = read(&store, &key);
    remove(&store, &key);
    assert!(!store.is_over_pinned_limit() && store.pinned.tracked() == 1);
    drop(body);
    assert!(!store.is_over_pinned_limit() && store.pinned.tracked() == 0);
}

#[test]
fn a_large_response_that_is_evicted_while_it_is_read_counts() {
    const LARGE: usize = 256 << 10;
    let store = MemoryStore::new(4 << 20, 1 << 20);
    let evicted = key(ANYONE, "/evicted");
    put(&store, &evicted, LARGE, 1);
    let body = read(&store, &evicted);
    let mut others = 0;
    while store.cache.peek(&evicted.digest()).is_some() {
        assert!(others < 1000, "newer responses that are read evict it");
        let other = key(ANYONE, &format!("/{others}"));
        put(&store, &other, LARGE, 1);
        read(&store, &other);
        others += 1;
    }
    assert!(store.pinned_bytes() >= LARGE as u64);
    drop(body);
    assert_eq!(store.pinned_bytes(), 0);
}

#[test]
fn a_large_response_that_leaves_the_store_counts_while_a_request_is_about_to_send_it() {
    const LARGE: usize = 256 << 10;
    let (store, key) = (MemoryStore::new(64 << 20, 1 << 20), key(ANYONE, "/a"));
    put(&store, &key, LARGE, 1);
    // Held as by a request that waits for the coded form.
    let held = stored(&store, &key);
    remove(&store, &key);
    assert!(store.pinned_bytes() >= LARGE as u64);
    let body = held.body();
    drop(held);
    assert!(store.pinned_bytes() >= LARGE as u64, "its client receives it");
    drop(body);
    assert_eq!(store.pinned_bytes(), 0);
    for requested_at in [2, 3] {
        put(&store, &key, LARGE, requested_at);
        store.promote(&key, response(&key, LARGE, requested_at + 10));
    }
    assert_eq!(store.pinned.tracked(), 0, "the store itself uses none");
}

fn form(bytes: usize) -> Arc<CodedBody> {
    let bytes = vec![b'x'; bytes].into();
    Arc::new(CodedBody { coding: ContentCoding::Gzip, bytes, tag_suffix: "--x".into() })
}

fn stored(store: &MemoryStore, key: &CacheKey) -> Arc<StoredResponse> {
    let Some(Entry::Response(response)) = store.peek(key) else { panic!("no response") };
    response
}

/// Returns an entry with the content of `response`, as stored after a `304`.
fn freshened(response: &StoredResponse, requested_at: u64) -> Entry {
    let requested_at = Timestamp::from_millis(requested_at);
    let (freshness, stamp) = (response.freshness, FenceStamp::default());
    Entry::Response(Arc::new(response.with_freshness(freshness, stamp, requested_at)))
}

#[test]
fn a_form_counts_and_stays_with_its_content() {
    let (store, key) = (MemoryStore::new(1 << 20, 1 << 20), key(ANYONE, "/a"));
    put(&store, &key, 4096, 1);
    let (plain, before) = (stored(&store, &key), store.usage());
    store.add_form(&key, plain.forms.content(), form(1000));
    let after = store.usage();
    assert!((1000..1600).contains(&(after.bytes - before.bytes)), "{after:?}");
    assert_eq!((after.replaced, after.entries), (before.replaced, 1));
    assert_eq!(store.pinned_bytes(), 0);
    // The coded form stays if a `304` freshens the response.
    for requested_at in [2, 3] {
        store.put(&key, freshened(&plain, requested_at)).now_or_never().unwrap();
        assert!(stored(&store, &key).forms.get(ContentCoding::Gzip).is_some());
        assert_eq!(store.usage().bytes, after.bytes);
    }
    put(&store, &key, 4096, 4);
    assert!(stored(&store, &key).forms.get(ContentCoding::Gzip).is_none(), "another content");
    store.add_form(&key, plain.forms.content(), form(1000));
    assert_eq!(store.usage().bytes, before.bytes, "the form of another content");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_counts_and_stays_with_its_content() {
    const LENGTH: usize = 40_000;
    let store = MemoryStore::new(1 << 20, 1 << 20).with_files(2);
    let (files, key) = (store.body_files().unwrap(), key(ANYONE, "/a"));
    let file = || files.turn(LENGTH).unwrap().create(&vec![b'x'; LENGTH]).unwrap();
    put(&store, &key, LENGTH, 1);
    let (plain, before) = (stored(&store, &key), store.usage());
    store.add_file(&key, plain.forms.content(), None, file());
    let after = store.usage();
    assert!((LENGTH..50_000).contains(&usize::try_from(after.bytes - before.bytes).unwrap()));
    assert!(files.bytes() >= LENGTH as u64 && files.count() == 1);
    assert_eq!((after.replaced, after.entries, store.pinned_bytes()), (before.replaced, 1, 0));
    store.put(&key, freshened(&plain, 2)).now_or_never().unwrap();
    let kept = stored(&store, &key);
    assert!(kept.forms.file(None).is_some());
    assert_eq!(store.usage().bytes, after.bytes);
    put(&store, &key, LENGTH, 4);
    drop(kept);
    assert_eq!(files.count(), 0, "another content");
    store.add_file(&key, plain.forms.content(), None, file());
    assert_eq!((store.usage().bytes, files.count()), (before.bytes, 0), "the file of the first");
    assert!(files.turn(1 << 18).is_none(), "a quarter of the memory");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_room_is_left_out_and_the_response_stays() {
    let store = MemoryStore::new(1 << 20, 60_000).with_files(2);
    let (files, key) = (store.body_files().unwrap(), key(ANYONE, "/a"));
    put(&store, &key, 40_000, 1);
    let (plain, before) = (stored(&store, &key), store.usage());
    let file = files.turn(40_000).unwrap().create(&vec![b'x'; 40_000]).unwrap();
    store.add_file(&key, plain.forms.content(), None, file);
    assert_eq!((store.usage(), files.count()), (before, 0));
    assert!(!plain.forms.note_large_hit(None) && !plain.forms.note_large_hit(None), "excluded");
}

#[test]
fn forms_of_large_responses_pin_nothing() {
    let (store, key) = (MemoryStore::new(64 << 20, 1 << 20), key(ANYONE, "/a"));
    put(&store, &key, 256 << 10, 1);
    let content = stored(&store, &key).forms.content();
    for _ in 0..3 {
        store.add_form(&key, content, form(1000));
    }
    let refreshed = freshened(&stored(&store, &key), 2);
    store.put(&key, refreshed).now_or_never().unwrap();
    assert_eq!((store.pinned_bytes(), store.usage().evicted), (0, 0));
    store.forget(key.digest());
    assert_eq!(store.pinned_bytes(), 0);
}

#[test]
fn a_form_without_room_is_left_out_and_the_response_stays() {
    let (store, key) = (MemoryStore::new(1 << 20, 8 << 10), key(ANYONE, "/a"));
    put(&store, &key, 4096, 1);
    let before = store.usage();
    let plain = stored(&store, &key);
    store.add_form(&key, plain.forms.content(), form(4096));
    assert_eq!(store.usage(), before);
    assert!(stored(&store, &key).forms.is_excluded(ContentCoding::Gzip));
}

#[test]
fn a_response_that_grows_keeps_its_place_without_its_forms() {
    for identity in [ANYONE, 1] {
        let (store, key) = (MemoryStore::new(200 << 10, 8 << 10), key(identity, "/a"));
        put(&store, &key, 3000, 1);
        let plain = stored(&store, &key);
        store.add_form(&key, plain.forms.content(), form(3000));
        let coded = stored(&store, &key);
        assert!(coded.forms.get(ContentCoding::Gzip).is_some());
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        headers.insert("x-new", HeaderValue::try_from("x".repeat(2000)).unwrap());
        let at = Timestamp::from_millis(2);
        let terms = (FenceStamp::default(), at, OwnedResponseAttributes::default());
        let grown = coded.freshened(headers, coded.freshness, Vec::new(), terms).unwrap();
        let outcome = store.put(&key, Entry::Response(Arc::new(grown))).now_or_never().unwrap();
        assert_eq!((outcome, store.usage().refused), (PutOutcome::Stored, 0));
        let kept = stored(&store, &key);
        assert_eq!((kept.requested_at, kept.forms.iter().count()), (at, 0));
        assert_eq!(kept.forms.content(), coded.forms.content());
        assert_eq!(store.shares.held(), counted(&store));
    }
}

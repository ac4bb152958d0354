//! The tee and the table of flights, tested under a scheduler that explores thread interleavings:
//! `cargo test --features models --lib models::`.
//!
//! The scheduler itself finds deadlocks and lost wake-ups. The tests assert what readers and
//! followers receive.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use super::{
    clock::{Clock, ReceivedAt},
    collapse::{FlightLeader, FlightRole, Flights},
    flight_result::FlightResult,
    tee::{FillBudget, TeeBody, TeeReader},
};
use crate::{
    fence::{OwnedResponseAttributes, Purge, PurgeMode, PurgeRecord, PurgeSource, Selector},
    field::Timestamp,
    key::{CacheKey, OriginTarget, uri::Scheme},
    origin::CompletionProof,
    purge::AppliedPurges,
};

/// Number of interleavings that each test tries.
const ORDERS: usize = 2_000;

/// The bytes of the longest chunk: more than half the window of a body that is not retained.
static BYTES: [u8; 600_000] = [0; 600_000];

/// The lengths of a body's chunks, all different.
const LENGTHS: [usize; 4] = [600_000, 599_999, 599_998, 599_997];

/// Runs a test in random interleavings, and in some that delay a few threads for a long time.
fn in_many_orders(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, ORDERS);
    shuttle::check_pct(test, ORDERS, 3);
}

/// How the response body ends in a modelled exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Complete,
    Fails,
}

fn produce(tee: Arc<TeeBody>, end: BodyEnd) -> JoinHandle<()> {
    spawn(async move {
        for length in LENGTHS {
            if tee.push(Bytes::from_static(&BYTES[..length])).await.is_err() {
                return;
            }
        }
        match end {
            BodyEnd::Complete => tee.complete(None, CompletionProof::for_test()),
            BodyEnd::Fails => tee.fail(),
        }
    })
}

/// Reads up to `most` chunks. Returns their lengths, and whether the body was truncated.
async fn read(mut reader: TeeReader, most: usize) -> (Vec<usize>, bool) {
    let mut lengths = Vec::new();
    while lengths.len() < most {
        match reader.frame().await {
            None => return (lengths, false),
            Some(Err(_)) => return (lengths, true),
            Some(Ok(frame)) => lengths.push(frame.into_data().unwrap().len()),
        }
    }
    (lengths, false)
}

/// Runs one producer with three readers: one from the start, one that leaves early, and one that
/// joins late.
fn one_body_with_three_readers(limit: usize, end: BodyEnd) {
    let budget = FillBudget::new(1 << 30);
    let (tee, first) = TeeBody::with_reader(None, limit, budget.share());
    let leaves = tee.reader().unwrap();
    let late = Arc::clone(&tee);
    block_on(async move {
        let all = (LENGTHS.to_vec(), end == BodyEnd::Fails);
        let first = spawn(read(first, usize::MAX));
        let leaves = spawn(read(leaves, 1));
        let late = spawn(async move {
            match late.reader() {
                Some(reader) => Some(read(reader, usize::MAX).await),
                None => None,
            }
        });
        produce(tee, end).await.unwrap();
        assert_eq!(first.await.unwrap(), all);
        assert_eq!(leaves.await.unwrap().0, LENGTHS[..1]);
        assert!(late.await.unwrap().is_none_or(|read| read == all), "from the first byte, or not");
    });
    assert_eq!(budget.used(), 0, "all is given back");
}

#[test]
fn readers_of_a_kept_body_get_all_of_it_whenever_they_come() {
    in_many_orders(|| one_body_with_three_readers(1 << 30, BodyEnd::Complete));
    in_many_orders(|| one_body_with_three_readers(1 << 30, BodyEnd::Fails));
}

#[test]
fn readers_of_a_body_in_passing_get_all_of_it_and_hold_the_origin_back() {
    in_many_orders(|| one_body_with_three_readers(10, BodyEnd::Complete));
    in_many_orders(|| one_body_with_three_readers(10, BodyEnd::Fails));
}

#[test]
fn a_producer_ends_when_its_readers_have_gone() {
    in_many_orders(|| {
        let budget = FillBudget::new(1 << 30);
        let (tee, reader) = TeeBody::with_reader(None, 10, budget.share());
        let other = tee.reader().unwrap();
        block_on(async move {
            let readers = [spawn(read(reader, 1)), spawn(read(other, 2))];
            produce(tee, BodyEnd::Complete).await.unwrap();
            for reader in readers {
                let lengths = reader.await.unwrap().0;
                assert_eq!(lengths, LENGTHS[..lengths.len()]);
            }
        });
        assert_eq!(budget.used(), 0);
    });
}

fn key(path: &str) -> CacheKey {
    OriginTarget::plain(Scheme::Http, "a.test", path).key()
}

/// Returns when a request that arrives now was received.
fn received() -> ReceivedAt {
    ReceivedAt::now(&Clock::System)
}

/// The numbers of fetches of one key: in progress, and in total.
#[derive(Debug, Default)]
struct Fetches {
    now: usize,
    all: usize,
}

/// Fetches this key, or waits for the request that fetches it.
async fn request(
    flights: Arc<Flights>,
    applied_purges: Arc<AppliedPurges>,
    fetches: Arc<Mutex<Fetches>>,
    (path, lands): (&'static str, bool),
) {
    match flights.join(&key(path), &OwnedResponseAttributes::default(), &applied_purges, received())
    {
        FlightRole::Leader(leader) => {
            {
                let mut fetches = fetches.lock().unwrap();
                (fetches.now, fetches.all) = (fetches.now + 1, fetches.all + 1);
                assert_eq!(fetches.now, 1, "one fetch of a key at a time");
            }
            yield_now().await;
            if lands {
                leader.publish(FlightResult::NotShared);
            }
            fetches.lock().unwrap().now -= 1;
        }
        FlightRole::Follower(follower) => {
            let result = follower.result().await;
            assert_eq!(result.is_some(), lands, "followers hear of the landing, or of the end");
        }
    }
}

#[test]
fn one_request_fetches_and_the_others_get_to_know_what_came_of_it() {
    for lands in [true, false] {
        in_many_orders(move || {
            let (flights, applied_purges) =
                (Arc::new(Flights::new()), Arc::new(AppliedPurges::standalone()));
            let fetches = Arc::<Mutex<Fetches>>::default();
            let one = || {
                let shared =
                    (Arc::clone(&flights), Arc::clone(&applied_purges), Arc::clone(&fetches));
                spawn(request(shared.0, shared.1, shared.2, ("/a", lands)))
            };
            let requests = [one(), one(), one()];
            block_on(async {
                for request in requests {
                    request.await.unwrap();
                }
            });
            assert!((1..=3).contains(&fetches.lock().unwrap().all));
            let again = flights.join(
                &key("/a"),
                &OwnedResponseAttributes::default(),
                &applied_purges,
                received(),
            );
            assert!(matches!(again, FlightRole::Leader(_)), "nothing stays in the table");
        });
    }
}

#[test]
fn a_flight_under_two_keys_takes_no_place_of_another_and_leaves_both() {
    in_many_orders(|| {
        let (flights, applied_purges) =
            (Arc::new(Flights::new()), Arc::new(AppliedPurges::standalone()));
        let join = |path| {
            let attributes = OwnedResponseAttributes::default();
            flights.join(&key(path), &attributes, &applied_purges, received())
        };
        let FlightRole::Leader(mut leader) = join("/a") else { panic!("the first one leads") };
        let fetches = Arc::<Mutex<Fetches>>::default();
        let other = spawn(request(
            Arc::clone(&flights),
            Arc::clone(&applied_purges),
            Arc::clone(&fetches),
            ("/b", true),
        ));
        let aliasing = spawn(async move {
            leader.alias(&key("/b"));
            leader.publish(FlightResult::NotShared);
        });
        block_on(async {
            other.await.unwrap();
            aliasing.await.unwrap();
        });
        for path in ["/a", "/b"] {
            assert!(
                matches!(join(path), FlightRole::Leader(_)),
                "nothing stays in the table: {path}"
            );
        }
    });
}

#[test]
fn a_fetch_that_a_purge_outdates_leaves_the_place_of_its_successor_alone() {
    in_many_orders(|| {
        let (flights, applied_purges) =
            (Arc::new(Flights::new()), Arc::new(AppliedPurges::standalone()));
        let join = || {
            let attributes = OwnedResponseAttributes::default();
            flights.join(&key("/a"), &attributes, &applied_purges, received())
        };
        let FlightRole::Leader(outdated) = join() else { panic!("the first one leads") };
        applied_purges.apply(&everything(1));
        let FlightRole::Leader(successor) = join() else { panic!("nobody joins what is purged") };
        let lands = |leader: FlightLeader| {
            spawn(async move {
                leader.publish(FlightResult::NotShared);
                yield_now().await;
            })
        };
        let outdated = lands(outdated);
        block_on(async {
            outdated.await.unwrap();
            let FlightRole::Follower(follower) = join() else {
                panic!("the successor is listed still")
            };
            let successor = lands(successor);
            assert!(follower.result().await.is_some());
            successor.await.unwrap();
        });
        assert!(matches!(join(), FlightRole::Leader(_)), "nothing stays in the table");
    });
}

/// Returns a purge of everything, with this sequence number.
fn everything(seq: u64) -> PurgeRecord {
    let purge = Purge {
        mode: PurgeMode::Hard,
        selectors: vec![Selector::Everything],
        source: PurgeSource::Api,
        reason: None,
        warm: false,
    };
    PurgeRecord { seq, at: Timestamp::from_millis(1), purge }
}

//! When a purge is acknowledged, by whom is there and what they have applied.

use super::*;

const LOG: LogId = LogId(7);
const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const TTL: Duration = Duration::from_secs(1);
/// The age of a log that is known well enough.
const OLD: Duration = Duration::from_hours(1);

fn place(seq: u64) -> Fence {
    Fence { log: LOG, seq }
}

fn told(node: NodeId, left: i64, seq: u64) -> Told {
    Told { node, left, ttl: TTL, presence: Presence::On, place: place(seq) }
}

fn off(told: Told) -> Told {
    Told { presence: Presence::Off, ..told }
}

fn census(age: Duration, nodes: &[Told]) -> Census {
    Census { age, nodes: nodes.to_vec() }
}

/// A roster that was told of these at `now`, and a record appended then at the place 5.
fn appended(age: Duration, nodes: &[Told], now: Instant) -> (Roster, Appended) {
    let (mut roster, census) = (Roster::default(), census(age, nodes));
    roster.learn(&census, now, OWN);
    (roster, Appended::new(place(5), now, &census, TTL))
}

/// Applied, total, missing.
fn judged(roster: &Roster, appended: &Appended, now: Instant) -> (u32, u32, Vec<u64>) {
    let Receipt { applied, total, missing, verdict, .. } = roster.judge(appended, now).receipt;
    assert_eq!(verdict == Acknowledgement::Pending, !missing.is_empty());
    (applied, total, missing.iter().map(|node| node.0).collect())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn alone_there_is_nobody_to_wait_for() {
    let now = Instant::now();
    let (roster, appended) = appended(OLD, &[told(OWN, 3000, 4)], now);
    assert_eq!(judged(&roster, &appended, now), (1, 1, vec![]));
}

#[test]
fn every_live_node_has_to_apply_it() {
    let now = Instant::now();
    let (mut roster, appended) =
        appended(OLD, &[told(OTHER, 3000, 4), told(NodeId(3), 2000, 5)], now);
    assert_eq!(judged(&roster, &appended, now), (2, 3, vec![2]));
    assert!(!roster.report(OTHER, place(4)) && !roster.report(NodeId(9), place(5)));
    assert!(roster.report(OTHER, place(6)));
    assert_eq!(judged(&roster, &appended, now), (3, 3, vec![]));
}

#[test]
fn the_same_place_in_another_log_is_not_it() {
    let now = Instant::now();
    let (mut roster, appended) = appended(OLD, &[told(OTHER, 3000, 4)], now);
    roster.report(OTHER, Fence { log: LogId(8), seq: 9 });
    assert_eq!(judged(&roster, &appended, now), (1, 2, vec![2]));
}

#[test]
fn a_lease_that_is_not_renewed_has_to_end() {
    let now = Instant::now();
    let (roster, appended) = appended(OLD, &[told(OTHER, 2000, 4)], now);
    assert_eq!(judged(&roster, &appended, now + seconds(2)), (1, 2, vec![2]));
    let again = roster.judge(&appended, now).again.unwrap();
    assert_eq!(again, now + seconds(2) + SLACK);
    assert_eq!(judged(&roster, &appended, again), (1, 2, vec![]));
}

#[test]
fn without_a_lease_a_node_uses_for_a_while_what_it_asked_for() {
    let now = Instant::now();
    for left in [-20, -300_000] {
        let (roster, appended) = appended(OLD, &[told(OTHER, left, 4)], now);
        assert_eq!(judged(&roster, &appended, now + TTL / 2), (1, 2, vec![2]), "{left}");
        assert_eq!(roster.judge(&appended, now).again, Some(now + TTL));
        assert_eq!(judged(&roster, &appended, now + TTL), (1, 2, vec![]), "{left}");
    }
    // Its lease ends before that time is over.
    let (roster, appended) = appended(OLD, &[told(OTHER, 200, 4)], now);
    assert_eq!(judged(&roster, &appended, now + TTL / 2), (1, 2, vec![2]));
    assert_eq!(judged(&roster, &appended, now + TTL), (1, 2, vec![]));
}

#[test]
fn who_has_signed_off_is_not_waited_for() {
    let now = Instant::now();
    let (mut roster, appended) = appended(OLD, &[told(OTHER, 3000, 4)], now);
    roster.learn(&census(OLD, &[off(told(OTHER, 0, 4))]), now, OWN);
    assert_eq!(judged(&roster, &appended, now), (1, 1, vec![]));
}

#[test]
fn a_node_is_forgotten_ten_minutes_after_its_lease() {
    let now = Instant::now();
    let (mut roster, appended) = appended(OLD, &[told(OTHER, 3000, 4)], now);
    let before = now + LEASE + LOST;
    let forgotten = before + SLACK;
    assert_eq!(judged(&roster, &appended, before), (1, 2, vec![]));
    assert_eq!(judged(&roster, &appended, forgotten), (1, 1, vec![]));
    assert_eq!((roster.carried(before).len(), roster.carried(forgotten).len()), (1, 0));
    roster.learn(&Census::default(), before, OWN);
    assert_eq!(roster.peers.len(), 1);
    roster.learn(&Census::default(), forgotten, OWN);
    assert_eq!(roster.peers.len(), 0);
}

#[test]
fn what_redis_has_lost_is_carried_back() {
    let now = Instant::now();
    let all = [told(OWN, 3000, 4), told(OTHER, 2000, 4), off(told(NodeId(3), 0, 4))];
    let (mut roster, _) = appended(OLD, &all, now);
    roster.learn(&census(Duration::ZERO, &[]), now, OWN);
    let left = |after| -> Vec<_> {
        roster.carried(now + after).iter().map(|it| (it.node, it.left)).collect()
    };
    let slack = millis(SLACK);
    assert_eq!(left(Duration::ZERO), vec![(OTHER, 2000 + slack)]);
    assert_eq!(left(seconds(5)), vec![(OTHER, slack - 3000)]);
}

#[test]
fn a_node_that_was_carried_back_is_where_it_was() {
    let now = Instant::now();
    let (mut roster, appended) = appended(OLD, &[told(OTHER, 2000, 5)], now);
    let nowhere = Told { place: Fence::default(), ..told(OTHER, 2000, 0) };
    roster.learn(&census(OLD, &[nowhere]), now, OWN);
    assert_eq!(judged(&roster, &appended, now), (2, 2, vec![]));
}

#[test]
fn a_lease_that_was_known_to_last_longer_does() {
    let now = Instant::now();
    let (mut roster, appended) = appended(OLD, &[told(OTHER, 3000, 4)], now);
    // The clock of Redis was set forward.
    roster.learn(&census(OLD, &[told(OTHER, -3_600_000, 4)]), now, OWN);
    assert_eq!(judged(&roster, &appended, now + seconds(2)), (1, 2, vec![2]));
}

#[test]
fn a_young_log_does_not_know_all_who_have_leases() {
    let now = Instant::now();
    for (age, until) in [(0, 3000), (1000, 2000), (2900, 1000)] {
        let (roster, appended) = appended(Duration::from_millis(age), &[], now);
        let until = now + Duration::from_millis(until);
        let judgement = roster.judge(&appended, now + Duration::from_millis(900));
        assert_eq!(judgement.again, Some(until), "{age}");
        assert_eq!(judgement.receipt.verdict, Acknowledgement::Pending);
        assert_eq!(judgement.receipt.missing, []);
        assert_eq!(judged(&roster, &appended, until), (1, 1, vec![]));
    }
    let (_, appended) = appended(LEASE, &[], now);
    assert_eq!(appended.strangers, None);
}

#[test]
fn nodes_are_counted_by_whether_they_are_there() {
    let now = Instant::now();
    let all = [told(OTHER, 3000, 4), told(NodeId(3), -1000, 4), off(told(NodeId(4), 100, 4))];
    let (roster, _) = appended(OLD, &all, now);
    assert_eq!(roster.count(now), (1, 1));
}

//! Tests when a purge is acknowledged, given the nodes and their positions.

use super::*;

const LOG: LogId = LogId(7);
const OWN: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const TTL: Duration = Duration::from_secs(1);
/// The age of a log in which all nodes are known.
const OLD: Duration = Duration::from_hours(1);

fn position(seq: u64) -> Fence {
    Fence { log: LOG, seq }
}

fn row(node: NodeId, left: i64, seq: u64) -> MemberRow {
    MemberRow { node, left, ttl: TTL, status: MemberStatus::Active, position: position(seq) }
}

fn off(row: MemberRow) -> MemberRow {
    MemberRow { status: MemberStatus::SignedOff, ..row }
}

fn snapshot(age: Duration, nodes: &[MemberRow]) -> MembershipSnapshot {
    MembershipSnapshot { age, nodes: nodes.to_vec() }
}

/// Returns a membership with these nodes, and a record that was appended at `now` at position 5.
fn appended(age: Duration, nodes: &[MemberRow], now: Instant) -> (Membership, AppendedRecord) {
    let (mut membership, snapshot) = (Membership::default(), snapshot(age, nodes));
    membership.update(&snapshot, now, OWN);
    (membership, AppendedRecord::new(position(5), now, &snapshot, TTL))
}

/// Returns how many nodes have applied the record, the number of all nodes, and the missing nodes.
fn judged(
    membership: &Membership,
    appended: &AppendedRecord,
    now: Instant,
) -> (u32, u32, Vec<u64>) {
    let PurgeReceipt { applied, total, missing, acknowledgement, .. } =
        membership.ack_status(appended, now).receipt;
    assert_eq!(acknowledgement == Acknowledgement::Pending, !missing.is_empty());
    (applied, total, missing.iter().map(|node| node.0).collect())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_standalone_node_waits_for_no_other() {
    let now = Instant::now();
    let (membership, appended) = appended(OLD, &[row(OWN, 3000, 4)], now);
    assert_eq!(judged(&membership, &appended, now), (1, 1, vec![]));
}

#[test]
fn every_live_node_has_to_apply_it() {
    let now = Instant::now();
    let (mut membership, appended) =
        appended(OLD, &[row(OTHER, 3000, 4), row(NodeId(3), 2000, 5)], now);
    assert_eq!(judged(&membership, &appended, now), (2, 3, vec![2]));
    assert!(!membership.advance(OTHER, position(4)) && !membership.advance(NodeId(9), position(5)));
    assert!(membership.advance(OTHER, position(6)));
    assert_eq!(judged(&membership, &appended, now), (3, 3, vec![]));
}

#[test]
fn the_same_position_in_another_log_is_different() {
    let now = Instant::now();
    let (mut membership, appended) = appended(OLD, &[row(OTHER, 3000, 4)], now);
    membership.advance(OTHER, Fence { log: LogId(8), seq: 9 });
    assert_eq!(judged(&membership, &appended, now), (1, 2, vec![2]));
}

#[test]
fn a_lease_that_is_not_renewed_has_to_end() {
    let now = Instant::now();
    let (membership, appended) = appended(OLD, &[row(OTHER, 2000, 4)], now);
    assert_eq!(judged(&membership, &appended, now + seconds(2)), (1, 2, vec![2]));
    let recheck_at = membership.ack_status(&appended, now).recheck_at.unwrap();
    assert_eq!(recheck_at, now + seconds(2) + SLACK);
    assert_eq!(judged(&membership, &appended, recheck_at), (1, 2, vec![]));
}

#[test]
fn a_node_without_a_lease_serves_its_responses_for_a_while() {
    let now = Instant::now();
    for left in [-20, -300_000] {
        let (membership, appended) = appended(OLD, &[row(OTHER, left, 4)], now);
        assert_eq!(judged(&membership, &appended, now + TTL / 2), (1, 2, vec![2]), "{left}");
        assert_eq!(membership.ack_status(&appended, now).recheck_at, Some(now + TTL));
        assert_eq!(judged(&membership, &appended, now + TTL), (1, 2, vec![]), "{left}");
    }
    // The lease of the other node ends after 200 ms, before its `TTL` has passed.
    let (membership, appended) = appended(OLD, &[row(OTHER, 200, 4)], now);
    assert_eq!(judged(&membership, &appended, now + TTL / 2), (1, 2, vec![2]));
    assert_eq!(judged(&membership, &appended, now + TTL), (1, 2, vec![]));
}

#[test]
fn a_node_that_signed_off_is_not_waited_for() {
    let now = Instant::now();
    let (mut membership, appended) = appended(OLD, &[row(OTHER, 3000, 4)], now);
    membership.update(&snapshot(OLD, &[off(row(OTHER, 0, 4))]), now, OWN);
    assert_eq!(judged(&membership, &appended, now), (1, 1, vec![]));
}

#[test]
fn a_node_is_forgotten_ten_minutes_after_its_lease() {
    let now = Instant::now();
    let (mut membership, appended) = appended(OLD, &[row(OTHER, 3000, 4)], now);
    let before = now + LEASE + NODE_EXPIRY;
    let forgotten = before + SLACK;
    assert_eq!(judged(&membership, &appended, before), (1, 2, vec![]));
    assert_eq!(judged(&membership, &appended, forgotten), (1, 1, vec![]));
    assert_eq!(
        (membership.to_restore(before).len(), membership.to_restore(forgotten).len()),
        (1, 0)
    );
    membership.update(&MembershipSnapshot::default(), before, OWN);
    assert_eq!(membership.peers.len(), 1);
    membership.update(&MembershipSnapshot::default(), forgotten, OWN);
    assert_eq!(membership.peers.len(), 0);
}

#[test]
fn nodes_lost_by_redis_are_restored() {
    let now = Instant::now();
    let all = [row(OWN, 3000, 4), row(OTHER, 2000, 4), off(row(NodeId(3), 0, 4))];
    let (mut membership, _) = appended(OLD, &all, now);
    membership.update(&snapshot(Duration::ZERO, &[]), now, OWN);
    let left = |after| -> Vec<_> {
        membership.to_restore(now + after).iter().map(|it| (it.node, it.left)).collect()
    };
    let slack = millis(SLACK);
    assert_eq!(left(Duration::ZERO), vec![(OTHER, 2000 + slack)]);
    assert_eq!(left(seconds(5)), vec![(OTHER, slack - 3000)]);
}

#[test]
fn a_restored_node_keeps_its_position() {
    let now = Instant::now();
    let (mut membership, appended) = appended(OLD, &[row(OTHER, 2000, 5)], now);
    let nowhere = MemberRow { position: Fence::default(), ..row(OTHER, 2000, 0) };
    membership.update(&snapshot(OLD, &[nowhere]), now, OWN);
    assert_eq!(judged(&membership, &appended, now), (2, 2, vec![]));
}

#[test]
fn a_lease_that_was_known_to_last_longer_does() {
    let now = Instant::now();
    let (mut membership, appended) = appended(OLD, &[row(OTHER, 3000, 4)], now);
    // The clock of Redis was set forward.
    membership.update(&snapshot(OLD, &[row(OTHER, -3_600_000, 4)]), now, OWN);
    assert_eq!(judged(&membership, &appended, now + seconds(2)), (1, 2, vec![2]));
}

#[test]
fn a_young_log_does_not_know_all_leases() {
    let now = Instant::now();
    for (age, until) in [(0, 3000), (1000, 2000), (2900, 1000)] {
        let (membership, appended) = appended(Duration::from_millis(age), &[], now);
        let until = now + Duration::from_millis(until);
        let ack_status = membership.ack_status(&appended, now + Duration::from_millis(900));
        assert_eq!(ack_status.recheck_at, Some(until), "{age}");
        assert_eq!(ack_status.receipt.acknowledgement, Acknowledgement::Pending);
        assert_eq!(ack_status.receipt.missing, []);
        assert_eq!(judged(&membership, &appended, until), (1, 1, vec![]));
    }
    let (_, appended) = appended(LEASE, &[], now);
    assert_eq!(appended.unknown_nodes_until, None);
}

#[test]
fn nodes_are_counted_by_lease() {
    let now = Instant::now();
    let all = [row(OTHER, 3000, 4), row(NodeId(3), -1000, 4), off(row(NodeId(4), 100, 4))];
    let (membership, _) = appended(OLD, &all, now);
    assert_eq!(membership.count(now), (1, 1));
}

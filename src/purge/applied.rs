//! The purges that this node has applied, checked by the pipeline on every request.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::RwLock;

use super::{
    NodeId, Propagation, WatermarkRaise, propagation::PropagationTracker, recent::RecentRecords,
};
use crate::{
    entry::StoredResponse,
    fence::{
        Fence, FenceStamp, PendingPurgeId, Purge, PurgeCandidate, PurgeRecord, PurgeTable,
        PurgeVerdict, ResponseAttributes, credential_tag,
    },
    field::Timestamp,
    purge::planted::PlantedBug,
};

/// Maximum number of selectors that are tracked exactly, at 50 to 110 bytes each. Older selectors
/// share buckets.
const MAX_SELECTORS: usize = 1 << 18;

/// Time without a lease after which a node uses no stored responses under
/// [`UnsyncedPolicy::Bounded`], and other nodes remove the node from the membership.
pub(super) const NODE_EXPIRY: Duration = Duration::from_mins(10);

/// Sentinel for `synced_until`: the node has had no lease yet, so no other node waits for it.
const NEVER_LEASED: u64 = 0;
/// Sentinel for `synced_until`: the node has signed off, so no other node waits for it.
const SIGNED_OFF: u64 = 1;

/// The responses that a node may serve while it does not follow the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsyncedPolicy {
    /// Only responses requested from the origin within this time, and none once the node has been
    /// unsynced for ten minutes.
    Bounded(Duration),
    /// Any fresh response, without the guarantee that purged responses are gone.
    Serve,
}

/// The node's position in the log, and its purge table.
///
/// A stored response remembers the table version at which it last passed the check. Until the next
/// purge, a check costs two comparisons and no lock.
pub struct AppliedPurges {
    /// A copy of the table's version that can be read without the lock.
    version: AtomicU64,
    /// The end of the lease as returned by [`millis`], or a sentinel.
    synced_until: AtomicU64,
    table: RwLock<PurgeTable>,
    unsynced_policy: UnsyncedPolicy,
    applied: AtomicU64,
    /// The time at which this node began to follow the log, in milliseconds of the system clock.
    begun: AtomicU64,
    /// Number of low watermark raises, by cause.
    raises: [AtomicU64; WatermarkRaise::ALL.len()],
    recent: Arc<RecentRecords>,
    propagations: PropagationTracker,
}

/// A response that is still being fetched.
#[derive(Debug, Clone, Copy)]
pub struct IncompleteResponse<'a> {
    /// The normalised URL.
    pub url: &'a [u8],
    /// The attributes that selectors match, other than the URL and the tags.
    pub attributes: ResponseAttributes<'a>,
    /// The tags; `None` if they are not known yet.
    pub tags: Option<&'a [String]>,
}

/// A fact about a credential, learned from the origin and revocable by a purge record.
#[derive(Debug)]
pub struct RevocableVerdict {
    stamp: FenceStamp,
    /// The table version at which the fact last passed the check.
    checked: AtomicU64,
}

impl RevocableVerdict {
    /// Creates a fact learned from a request with this stamp.
    pub fn new(stamp: FenceStamp) -> Self {
        Self { stamp, checked: AtomicU64::new(stamp.version) }
    }
}

fn system_now() -> Timestamp {
    SystemTime::now().into()
}

/// Converts an instant to milliseconds of the monotonic clock. The result exceeds all sentinels.
fn millis(at: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = at.saturating_duration_since(*START);
    since.as_secs() * 1000 + u64::from(since.subsec_millis()) + SIGNED_OFF + 1
}

impl AppliedPurges {
    /// Creates the state of a standalone node, which is always synced.
    pub fn standalone() -> Self {
        Self { synced_until: AtomicU64::new(u64::MAX), ..Self::in_fleet(UnsyncedPolicy::Serve) }
    }

    /// Creates the state of a fleet node that has not reached the log yet.
    pub fn in_fleet(unsynced_policy: UnsyncedPolicy) -> Self {
        let _start = millis(Instant::now());
        let table = PurgeTable::new(MAX_SELECTORS);
        Self {
            version: AtomicU64::new(table.version()),
            synced_until: AtomicU64::new(NEVER_LEASED),
            table: RwLock::new(table),
            unsynced_policy,
            applied: AtomicU64::new(0),
            begun: AtomicU64::new(system_now().millis()),
            raises: Default::default(),
            recent: Arc::default(),
            propagations: PropagationTracker::default(),
        }
    }

    /// Returns the stamp to take before an origin request and to store with its response.
    pub fn stamp(&self) -> FenceStamp {
        let began = millis(Instant::now());
        let table = self.table.read();
        FenceStamp { fence: table.fence(), version: table.version(), began }
    }

    /// Returns whether a request received at `started` may use a stored response.
    #[inline]
    pub fn judge(&self, response: &StoredResponse, started: Instant) -> PurgeVerdict {
        if self.is_synced(started) && response.is_checked_at(self.version.load(Ordering::Acquire)) {
            return PurgeVerdict::Alive;
        }
        self.look_up(response, started)
    }

    /// Returns whether a fact about a credential still holds, that is, whether no later record has
    /// revoked it. On a node that is not synced, only recent facts hold.
    ///
    /// `started` is the time of the request. Costs two comparisons and no lock if no purge was
    /// applied since the last check.
    pub fn still_holds(
        &self,
        fact: &RevocableVerdict,
        started: Instant,
        digest: impl Fn() -> String,
    ) -> bool {
        let is_synced = self.is_synced(started);
        let version = self.version.load(Ordering::Acquire);
        if is_synced && fact.checked.load(Ordering::Relaxed) == version {
            return true;
        }
        if !is_synced && !self.is_recent(fact.stamp.began, started) {
            return false;
        }
        let (table, tag) = (self.table.read(), credential_tag(&digest()));
        let tags = std::iter::once(&*tag);
        let candidate =
            PurgeCandidate { url: b"", tags, attributes: ResponseAttributes::default() };
        let checked = fact.checked.load(Ordering::Relaxed);
        let still_holds = table.judge(fact.stamp.fence, checked, &candidate) == PurgeVerdict::Alive;
        if still_holds {
            fact.checked.store(table.version(), Ordering::Relaxed);
        }
        still_holds
    }

    /// Returns whether a known record revoked the credential with this digest.
    ///
    /// False positives are possible once the table has evicted selectors.
    pub fn is_revoked(&self, digest: &str) -> bool {
        self.table.read().is_credential_revoked(digest)
    }

    /// Returns whether a request received at `started` may join the fetch with this stamp.
    pub fn may_join(
        &self,
        stamp: &FenceStamp,
        expected: &IncompleteResponse<'_>,
        started: Instant,
    ) -> bool {
        if !self.is_synced(started) && !self.is_recent(stamp.began, started) {
            return false;
        }
        if self.version.load(Ordering::Acquire) == stamp.version {
            return true;
        }
        if let Some(tags) = expected.tags {
            return self.judge_fetched(stamp, expected, tags) == PurgeVerdict::Alive;
        }
        !self.table.read().may_select(stamp.version, expected.url, expected.attributes)
    }

    /// Returns whether a fetched response with these tags has survived the purges since its stamp.
    pub fn judge_fetched(
        &self,
        stamp: &FenceStamp,
        expected: &IncompleteResponse<'_>,
        tags: &[String],
    ) -> PurgeVerdict {
        if self.version.load(Ordering::Acquire) == stamp.version {
            return PurgeVerdict::Alive;
        }
        let &IncompleteResponse { url, attributes, .. } = expected;
        let candidate = PurgeCandidate { url, tags: tags.iter().map(String::as_str), attributes };
        self.table.read().judge(stamp.fence, stamp.version, &candidate)
    }

    /// Returns whether no record between the positions `since` and `own` may select this response.
    ///
    /// If the tags are unknown, any purge of a tag may select the response. Also returns `false` if
    /// some of these records are no longer kept.
    pub fn is_untouched(&self, since: Fence, own: u64, expected: &IncompleteResponse<'_>) -> bool {
        let Some(between) = own.checked_sub(since.seq + 1) else { return false };
        let records = self.recent.between(since.log, since.seq, own);
        if self.fence().log != since.log || records.len() as u64 != between {
            return false;
        }
        let mut table = PurgeTable::new(MAX_SELECTORS);
        table.begin(since);
        let before = table.version();
        for record in &records {
            table.apply(record);
        }
        let &IncompleteResponse { url, attributes, tags } = expected;
        let Some(tags) = tags else { return !table.may_select(before, url, attributes) };
        let candidate = PurgeCandidate { url, tags: tags.iter().map(String::as_str), attributes };
        table.judge(since, before, &candidate) == PurgeVerdict::Alive
    }

    /// Returns the position of the last record applied.
    pub fn fence(&self) -> Fence {
        self.table.read().fence()
    }

    /// Returns whether this node has applied every record acknowledged before `started`.
    #[inline]
    pub fn is_synced(&self, started: Instant) -> bool {
        let until = self.synced_until.load(Ordering::Acquire);
        until == u64::MAX || millis(started) < until || PlantedBug::IgnoredLease.is_planted()
    }

    /// Extends the lease from `requested_at`. Called once every record known at that time is
    /// applied.
    ///
    /// Later purges wait for this node until the lease ends.
    pub fn renew_lease(&self, requested_at: Instant, lease: Duration) {
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let until = millis(requested_at).saturating_add(lease);
        let later = |known| (known != SIGNED_OFF).then(|| until.max(known));
        let (order, load) = (Ordering::AcqRel, Ordering::Acquire);
        let _unless_it_left = self.synced_until.fetch_update(order, load, later);
    }

    /// Stops serving stored responses and joining fetches, so that no purge waits for this node.
    pub fn leave(&self) {
        self.synced_until.store(SIGNED_OFF, Ordering::Release);
    }

    /// Returns how long an unsynced node may use a response after requesting it; zero if unlimited.
    pub fn unsynced_ttl(&self) -> Duration {
        match self.unsynced_policy {
            UnsyncedPolicy::Bounded(ttl) => ttl,
            UnsyncedPolicy::Serve => Duration::ZERO,
        }
    }

    /// Starts following a log at this position. Responses with an older fence, or with a fence of
    /// another log, are invalid.
    ///
    /// `raise` is the cause if stored responses may become invalid, else `None`. Subscribers
    /// receive no `Begin` event if a new log continues the sequence numbers.
    pub fn begin(&self, fence: Fence, raise: Option<WatermarkRaise>) {
        let before = self.change(|table| {
            let before = table.fence();
            table.begin(fence);
            before
        });
        if before.seq != fence.seq || !raise.is_some_and(WatermarkRaise::continues) {
            self.recent.begin(fence);
        }
        self.begun.store(system_now().millis(), Ordering::Relaxed);
        if let Some(raise) = raise {
            self.count_raise(raise);
        }
    }

    /// Applies the next record.
    pub fn apply(&self, record: &PurgeRecord) {
        let (is_full, place) = self.change(|table| {
            let low_watermark = table.low_watermark();
            table.apply(record);
            // A purge of everything also raises the low watermark, but leaves the table empty.
            (table.low_watermark() > low_watermark && !table.is_empty(), table.fence())
        });
        let log = place.log;
        self.propagations.record_applied(Fence { log, seq: record.seq }, SystemTime::now().into());
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.recent.push(log, record);
        if is_full {
            self.count_raise(WatermarkRaise::Capacity);
        }
    }

    /// Applies a purge that has no position in the log yet.
    pub fn apply_pending(&self, purge: &Purge) -> PendingPurgeId {
        self.change(|table| table.apply_pending(purge))
    }

    /// Removes a pending purge. Called once its record is applied.
    pub fn remove_pending(&self, pending: PendingPurgeId) {
        self.change(|table| table.remove_pending(pending));
    }

    pub(super) fn recent_records(&self) -> &Arc<RecentRecords> {
        &self.recent
    }

    /// Returns the propagation of a record, or `None` if the record is not among the last 1,000.
    pub(super) fn propagation(&self, seq: u64) -> Option<Propagation> {
        self.propagations.find(seq)
    }

    /// Records that another node has applied everything up to this position.
    pub(super) fn peer_reached(&self, node: NodeId, place: Fence) {
        self.propagations.node_reached(node, place, SystemTime::now().into());
    }

    /// Records that the purge at this position has been acknowledged to its sender.
    pub(super) fn mark_acknowledged(&self, place: Fence) {
        self.propagations.record_acknowledged(place, SystemTime::now().into());
    }

    /// Returns how far back the applied records reach. Responses requested earlier are invalid.
    pub fn reach(&self, now: Timestamp) -> Duration {
        let begun = Timestamp::from_millis(self.begun.load(Ordering::Relaxed));
        let low_watermark_at = self.table.read().low_watermark_at();
        now.saturating_since(low_watermark_at.map_or(begun, |at| at.min(begun)))
    }

    /// Returns the number of selectors tracked exactly, and the number evicted so far.
    pub fn selectors(&self) -> (usize, u64) {
        let table = self.table.read();
        (table.len(), table.evicted())
    }

    /// Returns the number of records applied.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Returns the number of low watermark raises with this cause.
    pub fn raises(&self, raise: WatermarkRaise) -> u64 {
        self.raises.get(raise as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn count_raise(&self, raise: WatermarkRaise) {
        if let Some(count) = self.raises.get(raise as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn change<Out>(&self, change: impl FnOnce(&mut PurgeTable) -> Out) -> Out {
        let mut table = self.table.write();
        let out = change(&mut table);
        self.version.store(table.version(), Ordering::Release);
        out
    }

    #[cold]
    fn look_up(&self, response: &StoredResponse, started: Instant) -> PurgeVerdict {
        let is_synced = self.is_synced(started);
        if !is_synced && !self.is_recent(response.requested_at_monotonic(), started) {
            return PurgeVerdict::Dead;
        }
        let table = self.table.read();
        let mut fence = response.fence();
        if PlantedBug::KeptLowWatermark.is_planted() && fence.log != table.fence().log {
            fence = Fence { seq: table.low_watermark(), ..table.fence() };
        }
        let verdict = table.judge(fence, response.checked_version(), &response.purge_candidate());
        if verdict == PurgeVerdict::Alive {
            response.mark_checked(table.version());
        }
        verdict
    }

    /// Returns whether, at the time `started`, an unsynced node may use a response that it
    /// requested at `began`.
    fn is_recent(&self, began: u64, started: Instant) -> bool {
        match self.unsynced_policy {
            UnsyncedPolicy::Serve => true,
            UnsyncedPolicy::Bounded(ttl) => {
                let since = |then| u128::from(millis(started).saturating_sub(then));
                let until = self.synced_until.load(Ordering::Acquire);
                let is_known = until > SIGNED_OFF && since(until) < NODE_EXPIRY.as_millis();
                began != 0 && since(began) < ttl.as_millis() && is_known
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{LogId, PurgeMode, PurgeSource, Selector};

    const TTL: Duration = Duration::from_secs(1);
    const EXPECTED: IncompleteResponse<'_> = IncompleteResponse {
        url: b"host/",
        attributes: ResponseAttributes { user: None, route: None, version: None },
        tags: Some(&[]),
    };

    fn asked_at(applied_purges: &AppliedPurges, began: Instant) -> FenceStamp {
        FenceStamp { began: millis(began), ..applied_purges.stamp() }
    }

    fn purge_of(selectors: Vec<Selector>) -> Purge {
        Purge {
            mode: PurgeMode::Hard,
            selectors,
            source: PurgeSource::Api,
            reason: None,
            warm: false,
        }
    }

    #[test]
    fn an_unsynced_node_uses_only_recent_responses_and_none_after_ten_minutes() {
        let applied_purges = AppliedPurges::in_fleet(UnsyncedPolicy::Bounded(TTL));
        let start = Instant::now();
        applied_purges.renew_lease(start, Duration::ZERO);
        let may_join = |began, started| {
            applied_purges.may_join(&asked_at(&applied_purges, began), &EXPECTED, started)
        };
        let soon = start + Duration::from_mins(9);
        assert!(may_join(soon, soon + TTL / 2));
        assert!(!may_join(soon, soon + TTL * 2));
        let late = start + Duration::from_mins(11);
        assert!(!may_join(late, late));
    }

    #[test]
    fn a_node_unknown_to_the_fleet_serves_nothing() {
        let applied_purges = AppliedPurges::in_fleet(UnsyncedPolicy::Bounded(TTL));
        let now = Instant::now();
        let may_join = || applied_purges.may_join(&asked_at(&applied_purges, now), &EXPECTED, now);
        assert!(!may_join(), "it never had a lease");
        applied_purges.renew_lease(now, Duration::ZERO);
        assert!(may_join(), "its lease has ended");
        applied_purges.leave();
        assert!(!may_join(), "it has signed off");
        applied_purges.renew_lease(now, TTL);
        assert!(!may_join() && !applied_purges.is_synced(now), "it does not come back");
    }

    #[test]
    fn a_node_that_serves_unsynced_needs_no_age() {
        let applied_purges = AppliedPurges::in_fleet(UnsyncedPolicy::Serve);
        let (start, late) = (Instant::now(), Instant::now() + Duration::from_hours(1));
        assert!(applied_purges.may_join(&asked_at(&applied_purges, start), &EXPECTED, late));
    }

    #[test]
    fn a_response_is_untouched_by_purges_of_others() {
        let applied_purges = AppliedPurges::standalone();
        let since = Fence { log: LogId(1), seq: 5 };
        applied_purges.begin(since, None);
        let url = |url: &str| Selector::Url(url.into());
        let tag = |tag: &str| Selector::Tag(tag.into());
        let all = [url("host/b"), tag("x"), url("host/a"), Selector::Everything];
        for (seq, selector) in (6..).zip(all) {
            let at = crate::field::Timestamp::from_millis(0);
            applied_purges.apply(&PurgeRecord { seq, at, purge: purge_of(vec![selector]) });
        }
        let tags = ["y".to_owned()];
        let is_untouched = |url: &[u8], tags, own| {
            let expected =
                IncompleteResponse { url, attributes: ResponseAttributes::default(), tags };
            applied_purges.is_untouched(since, own, &expected)
        };
        assert!(is_untouched(b"host/a", Some(&tags), 6), "its own record is the next");
        assert!(is_untouched(b"host/a", Some(&tags), 8));
        assert!(!is_untouched(b"host/b", Some(&tags), 8));
        assert!(!is_untouched(b"host/a", None, 8), "it may have the tag");
        assert!(is_untouched(b"host/a", None, 7));
        assert!(!is_untouched(b"host/a", Some(&tags), 9));
        assert!(is_untouched(b"host/c", Some(&tags), 9));
        assert!(!is_untouched(b"host/c", Some(&tags), 10));
        assert!(!is_untouched(b"host/c", Some(&tags), 11), "not all of them are known here");
        assert!(!is_untouched(b"host/c", Some(&tags), 5), "it is no later one");
        let elsewhere = Fence { log: LogId(2), ..since };
        let expected = IncompleteResponse { tags: Some(&tags), ..EXPECTED };
        assert!(!applied_purges.is_untouched(elsewhere, 6, &expected), "another log");
    }

    #[test]
    fn only_a_table_that_is_full_counts_as_such() {
        let applied_purges = AppliedPurges::standalone();
        applied_purges.begin(Fence { log: LogId(1), seq: 0 }, Some(WatermarkRaise::Foreign));
        let apply = |seq, selectors| {
            let at = crate::field::Timestamp::from_millis(0);
            applied_purges.apply(&PurgeRecord { seq, at, purge: purge_of(selectors) });
        };
        apply(1, vec![Selector::Tag("a".into()), Selector::Everything]);
        assert_eq!(
            (
                applied_purges.raises(WatermarkRaise::Foreign),
                applied_purges.raises(WatermarkRaise::Capacity)
            ),
            (1, 0)
        );
        apply(2, (0..=MAX_SELECTORS).map(|tag| Selector::Tag(tag.to_string().into())).collect());
        assert_eq!(
            (applied_purges.selectors(), applied_purges.raises(WatermarkRaise::Capacity)),
            ((MAX_SELECTORS, 1), 0)
        );
        apply(3, (0..1001).map(|number| Selector::Pattern(format!("/{number}*").into())).collect());
        assert_eq!(
            (applied_purges.applied(), applied_purges.raises(WatermarkRaise::Capacity)),
            (3, 1)
        );
    }
}

//! The purge table: the last purge of each selector.

use super::{
    Fence, LogId, PendingPurgeId, Purge, PurgeCandidate, PurgeMode, PurgeRecord,
    ResponseAttributes, Selector, credential_tag,
    evicted::EvictedSelectors,
    last_purges::{LastPurge, LastPurges},
    pending::PendingPurges,
    selector_index::{AttributeMask, IndexedSelector, SelectorIndex, SelectorKind},
};
use crate::field::Timestamp;

/// The purges applied by one node.
///
/// A selector takes 50 to 110 bytes, however often it is purged. After the first purge, judging a
/// response with four tags takes about 0.1 µs. Each prefix length in use adds 15 ns. These costs
/// recur for each attribute set in use. Patterns and other combinations, at most 1,000, are matched
/// one by one.
#[derive(Debug)]
pub struct PurgeTable {
    log: LogId,
    applied: u64,
    /// Responses with an older fence are dead, because purges of them may be unknown.
    low_watermark: u64,
    /// When the record at the low watermark, or the next record after it, was appended. `None`
    /// before the first record.
    low_watermark_at: Option<Timestamp>,
    version: u64,
    index: SelectorIndex,
    last_purges: LastPurges,
    evicted: EvictedSelectors,
    pending: PendingPurges,
    last_changes: LastChanges,
}

/// The version of the table at the last change, for each kind of selector.
#[derive(Debug, Default)]
struct LastChanges {
    by_attribute_set: [ChangesByKind; AttributeMask::COUNT],
    /// The last change of a scanned selector.
    scanned: u64,
    /// The highest version of an evicted purge.
    evicted: u64,
}

/// The last changes within one attribute set.
#[derive(Debug, Default, Clone, Copy)]
struct ChangesByKind {
    any: u64,
    everything: u64,
    tag: u64,
    url: u64,
    prefix: u64,
}

impl LastChanges {
    fn record(&mut self, indexed: IndexedSelector, version: u64) {
        let Some(changes) = self.by_attribute_set.get_mut(indexed.attribute_set.index()) else {
            return;
        };
        let of_kind = match indexed.kind {
            SelectorKind::Everything => &mut changes.everything,
            SelectorKind::Tag => &mut changes.tag,
            SelectorKind::Url => &mut changes.url,
            SelectorKind::Prefix => &mut changes.prefix,
            SelectorKind::Scanned => return self.scanned = version,
        };
        *of_kind = version;
        changes.any = version;
    }

    /// Returns the changes after the version `since` that may concern these attributes.
    fn since(
        &self,
        since: u64,
        attributes: ResponseAttributes<'_>,
    ) -> impl Iterator<Item = (AttributeMask, ChangesByKind)> {
        AttributeMask::subsets(attributes).filter_map(move |attribute_set| {
            let changes = self.by_attribute_set.get(attribute_set.index())?;
            (changes.any > since).then_some((attribute_set, *changes))
        })
    }
}

/// Whether a stored response survives the applied purges, in increasing severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeVerdict {
    /// No later record selects the response.
    Alive,
    /// A later soft purge selects the response: it is stale regardless of its freshness.
    Soft,
    /// The response must not be used: a later hard purge selects it, or may select it.
    Dead,
}

impl PurgeVerdict {
    /// Returns the verdict on a response with the fence or version `since`.
    fn of(last_purge: LastPurge, since: u64) -> Self {
        if last_purge.hard > since {
            Self::Dead
        } else if last_purge.soft > since {
            Self::Soft
        } else {
            Self::Alive
        }
    }
}

impl PurgeTable {
    /// Creates a table for `capacity` selectors.
    ///
    /// Beyond the capacity, the oldest selectors are evicted. Responses that they select stay dead,
    /// and a few other responses become dead.
    pub fn new(capacity: usize) -> Self {
        Self {
            log: LogId::default(),
            applied: 0,
            low_watermark: 0,
            low_watermark_at: None,
            version: 1,
            index: SelectorIndex::default(),
            last_purges: LastPurges::new(capacity),
            evicted: EvictedSelectors::default(),
            pending: PendingPurges::default(),
            last_changes: LastChanges::default(),
        }
    }

    /// Follows a log from this fence. Responses with an older fence, or one in another log, are
    /// dead.
    ///
    /// If the same log begins again at an earlier position, its sequence numbers are reused. Then
    /// all responses are dead until the log is beyond the old position. Pending purges are kept.
    pub fn begin(&mut self, fence: Fence) {
        self.version += 1;
        let mut low_watermark = fence.seq;
        if fence.log != self.log {
            self.low_watermark = 0;
        } else if fence.seq < self.applied {
            low_watermark = self.applied.saturating_add(1);
        }
        (self.log, self.applied) = (fence.log, fence.seq);
        self.raise_low_watermark(low_watermark, None);
    }

    /// Applies the next record.
    ///
    /// A record that was applied already has no effect. If records are missing, responses with a
    /// fence before the gap's end are dead.
    pub fn apply(&mut self, record: &PurgeRecord) {
        if record.seq <= self.applied {
            return;
        }
        self.version += 1;
        if record.seq - 1 > self.applied {
            self.raise_low_watermark(record.seq - 1, None);
        }
        self.applied = record.seq;
        self.low_watermark_at.get_or_insert(record.at);
        self.index.advance(record.at);
        let Purge { mode, selectors, .. } = &record.purge;
        if *mode == PurgeMode::Hard && selectors.contains(&Selector::Everything) {
            return self.raise_low_watermark(record.seq, Some(record.at));
        }
        for selector in selectors {
            let indexed = self.index_selector(selector);
            self.last_purges.set(indexed.hash, *mode, record.seq, self.version);
        }
        while let Some((hash, at)) = self.index.pop_excess(|hash| self.pending.find(hash).is_some())
        {
            self.evict_scanned(hash, at);
        }
        while let Some((hash, last_purge)) = self.last_purges.pop_excess() {
            self.evict(hash, last_purge);
        }
    }

    /// Applies a purge that is not in the log yet.
    ///
    /// A pending purge counts as later than every fence. It spares responses that this process
    /// requests later, but none that other processes request.
    ///
    /// The record of the purge is applied later, like any other. It also purges responses requested
    /// in between, because their fence precedes the record.
    pub fn apply_pending(&mut self, purge: &Purge) -> PendingPurgeId {
        self.version += 1;
        let mut hashes = Vec::with_capacity(purge.selectors.len());
        for selector in &purge.selectors {
            hashes.push(self.index_selector(selector).hash);
        }
        self.pending.add(hashes.into(), purge.mode, self.version)
    }

    /// Removes a pending purge.
    ///
    /// Call this once the purge's record is applied, or precedes the start of the log.
    pub fn remove_pending(&mut self, pending: PendingPurgeId) {
        self.pending.remove(pending);
    }

    /// Returns the position of the last record applied.
    pub fn fence(&self) -> Fence {
        Fence { log: self.log, seq: self.applied }
    }

    /// Returns the low watermark: responses with an older fence are dead.
    pub fn low_watermark(&self) -> u64 {
        self.low_watermark
    }

    /// Returns when the known log begins: responses requested earlier are dead.
    ///
    /// Returns `None` before the first record.
    pub fn low_watermark_at(&self) -> Option<Timestamp> {
        self.low_watermark_at
    }

    /// Returns the number of selectors evicted so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.count()
    }

    /// Returns the version of the table, which every purge increments; never 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the number of selectors purged by records and not evicted.
    pub fn len(&self) -> usize {
        self.last_purges.len()
    }

    /// Returns whether the table has no selector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the approximate size in bytes.
    pub fn bytes(&self) -> usize {
        let kept = self.last_purges.bytes() + self.evicted.bytes();
        size_of::<Self>() + kept + self.pending.bytes() + self.index.bytes()
    }

    /// Returns the verdict on a response with this fence.
    ///
    /// `checked` is the table version at which the response was last found alive, or was requested;
    /// 0 if unknown. Selectors that were not purged since then are not looked up.
    pub fn judge<'a>(
        &self,
        fence: Fence,
        checked: u64,
        candidate: &PurgeCandidate<'_, impl Iterator<Item = &'a str> + Clone>,
    ) -> PurgeVerdict {
        if fence.log != self.log || fence.seq < self.low_watermark {
            return PurgeVerdict::Dead;
        }
        let mut verdict = PurgeVerdict::Alive;
        for (attribute_set, changes) in self.last_changes.since(checked, candidate.attributes) {
            let hashes = self.hashes_of(candidate, attribute_set, changes, checked);
            verdict = verdict.max(self.judge_hashes(hashes, fence.seq, checked));
        }
        if self.last_changes.scanned > checked {
            let hashes = self.index.scanned(checked, |selector| selector.selects(candidate));
            verdict = verdict.max(self.judge_hashes(hashes, fence.seq, checked));
        }
        verdict
    }

    /// Returns whether a record revoked the credential with this digest.
    pub fn is_credential_revoked(&self, credential: &str) -> bool {
        let hash = self.index.tag(SelectorIndex::ALL, &credential_tag(credential));
        self.last_change(hash) > 0 || self.evicted.last(hash) > 0
    }

    /// Returns the candidate's hashes within an attribute set that may have been purged after
    /// `since`.
    fn hashes_of<'a, 'b>(
        &self,
        candidate: &PurgeCandidate<'b, impl Iterator<Item = &'a str> + Clone>,
        attribute_set: AttributeMask,
        changes: ChangesByKind,
        since: u64,
    ) -> impl Iterator<Item = u64> {
        let (index, scope) = (&self.index, self.index.scope(attribute_set, candidate.attributes));
        let everything = (changes.everything > since).then(|| index.everything(scope));
        let tags = (changes.tag > since).then(|| candidate.tags.clone()).into_iter().flatten();
        let urls = (changes.url > since).then(|| index.urls(scope, candidate.url));
        let prefixes = (changes.prefix > since).then(|| index.prefixes(scope, candidate.url));
        everything
            .into_iter()
            .chain(tags.map(move |tag| index.tag(scope, tag)))
            .chain(urls.into_iter().flatten())
            .chain(prefixes.into_iter().flatten())
    }

    /// Returns the most severe verdict on any of these hashes.
    fn judge_hashes(
        &self,
        hashes: impl Iterator<Item = u64>,
        seq: u64,
        checked: u64,
    ) -> PurgeVerdict {
        let mut verdict = PurgeVerdict::Alive;
        for hash in hashes {
            verdict = verdict.max(self.judge_hash(hash, seq, checked));
            if verdict == PurgeVerdict::Dead {
                break;
            }
        }
        verdict
    }

    /// Returns whether a purge after the version `since` may select this response, whatever its
    /// tags.
    pub fn may_select(&self, since: u64, url: &[u8], attributes: ResponseAttributes<'_>) -> bool {
        let is_newer = |hash| self.last_change(hash) > since;
        let mut attribute_sets = self.last_changes.since(since, attributes);
        self.last_changes.evicted > since
            || attribute_sets.any(|(attribute_set, changes)| {
                let scope = self.index.scope(attribute_set, attributes);
                changes.tag > since
                    || (changes.everything > since && is_newer(self.index.everything(scope)))
                    || (changes.url > since && self.index.urls(scope, url).any(is_newer))
                    || (changes.prefix > since && self.index.prefixes(scope, url).any(is_newer))
            })
            || (self.last_changes.scanned > since && {
                let may_match = |selector: &Selector| selector.matches(url, attributes, &|_| true);
                self.index.scanned(since, may_match).next().is_some()
            })
    }

    /// Adds a selector at the current version.
    fn index_selector(&mut self, selector: &Selector) -> IndexedSelector {
        let indexed = self.index.insert(selector, self.version);
        self.last_changes.record(indexed, self.version);
        indexed
    }

    /// Moves the last purge of a hash to the evicted selectors.
    fn evict(&mut self, hash: u64, last_purge: LastPurge) {
        self.evicted.add(hash, last_purge);
        self.last_changes.evicted = self.last_changes.evicted.max(last_purge.version);
    }

    /// Evicts a scanned selector, and raises the low watermark to its last purge: responses with an
    /// earlier fence are dead.
    fn evict_scanned(&mut self, hash: u64, at: Option<Timestamp>) {
        let last_purge = self.last_purges.remove(hash).unwrap_or_default();
        let last = last_purge.latest().max(self.evicted.last(hash));
        if last > self.low_watermark {
            (self.low_watermark, self.low_watermark_at) = (last, self.low_watermark_at.max(at));
        }
        self.last_changes.evicted = self.last_changes.evicted.max(last_purge.version);
    }

    fn judge_hash(&self, hash: u64, seq: u64, checked: u64) -> PurgeVerdict {
        let applied =
            self.last_purges.find(hash).map(|last_purge| PurgeVerdict::of(last_purge, seq));
        let pending =
            self.pending.find(hash).map(|last_purge| PurgeVerdict::of(last_purge, checked));
        let evicted = (self.evicted.last(hash) > seq).then_some(PurgeVerdict::Dead);
        applied.max(pending).max(evicted).unwrap_or(PurgeVerdict::Alive)
    }

    /// Returns the table version of a selector's last purge; 0 if there was none.
    fn last_change(&self, hash: u64) -> u64 {
        let applied = self.last_purges.find(hash).map_or(0, |last_purge| last_purge.version);
        let pending = self.pending.find(hash).map_or(0, |last_purge| last_purge.version);
        applied.max(pending)
    }

    /// Raises the low watermark, and drops all purges, because the watermark covers them.
    fn raise_low_watermark(&mut self, low_watermark: u64, at: Option<Timestamp>) {
        (self.low_watermark, self.low_watermark_at) = (self.low_watermark.max(low_watermark), at);
        self.last_purges.clear();
        self.evicted.clear();
        self.last_changes.evicted = self.version;
        self.index.retain_scanned(|hash| self.pending.find(hash).is_some());
        if self.pending.is_empty() {
            self.index.clear_prefixes();
        }
    }
}

#[cfg(test)]
mod tests;

//! The table of what was purged last: selector → place in the log.

use super::{
    Fence, LogId, PendingPurgeId, Purge, PurgeCandidate, PurgeMode, PurgeRecord,
    ResponseAttributes, Selector, credential_tag,
    evicted::EvictedSelectors,
    last_purges::{LastPurge, LastPurges},
    pending::PendingPurges,
    selector_index::{AttributeSet, IndexedSelector, SelectorIndex, SelectorKind},
};
use crate::field::Timestamp;

/// What was purged and when, as far as one node has applied the log.
///
/// A selector takes 50 to 110 bytes, however long it is and however often it is purged. Judging a response with four tags takes about
/// a tenth of a microsecond once anything was purged, and each length of purged prefixes 15 ns more; as
/// much again for each kind of attributes by which was purged. Patterns and other combinations are kept as
/// they are, 1,000 of them, and looked at one by one.
#[derive(Debug)]
pub struct PurgeTable {
    log: LogId,
    applied: u64,
    /// What has an older fence is dead: nobody can say any more what selects it.
    low_watermark: u64,
    /// When the record at the low watermark was appended, or the first one after it; none before that is applied.
    low_watermark_at: Option<Timestamp>,
    version: u64,
    index: SelectorIndex,
    last_purges: LastPurges,
    evicted: EvictedSelectors,
    pending: PendingPurges,
    last_changes: LastChanges,
}

/// The versions with which the table last changed, by what changed.
#[derive(Debug, Default)]
struct LastChanges {
    by_attribute_set: [ChangesByKind; AttributeSet::COUNT],
    /// The newest of the selectors that have to be looked at one by one.
    scanned: u64,
    /// The newest of all last purges that are evicted.
    evicted: u64,
}

/// The same among the responses with certain attributes.
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

    /// What changed after the version `since` among the responses that share some of these attributes.
    fn since(
        &self,
        since: u64,
        attributes: ResponseAttributes<'_>,
    ) -> impl Iterator<Item = (AttributeSet, ChangesByKind)> {
        AttributeSet::subsets(attributes).filter_map(move |attribute_set| {
            let changes = self.by_attribute_set.get(attribute_set.index())?;
            (changes.any > since).then_some((attribute_set, *changes))
        })
    }
}

/// Whether a stored response outlives the purges applied so far; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PurgeVerdict {
    /// No later record selects it.
    Alive,
    /// A later soft purge selects it: it is stale whatever its freshness says.
    Soft,
    /// A later hard purge selects it, or nobody can say any more: it must not be used.
    Dead,
}

impl PurgeVerdict {
    /// What a last purge says of a response that is older than `since`.
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
    /// A table of at most `capacity` selectors. Beyond it the oldest give up their places: what they
    /// select stays dead, and with it a few responses that share a bucket with them.
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

    /// Follows this log from now on, as if every record up to `fence.seq` had been applied: what has an
    /// older fence, or one of another log, is dead.
    ///
    /// Should the same log begin once more before where it was, its numbers mean other records than
    /// they did, and all are dead until it is beyond where it was. Pending purges remain pending.
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

    /// Applies the next record of the log. One that is applied already does nothing; where records are
    /// missing before it, what has an older fence than the last of them is dead.
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

    /// Applies a purge that is in no log yet. It counts as later than every fence, but spares what was
    /// asked for after it came, and what came from another process it never spares.
    ///
    /// Its record, once it is in the log, is applied like any other. So what was asked for between the
    /// two dies a second time: its fence does not say that it is younger than the purge.
    pub fn apply_pending(&mut self, purge: &Purge) -> PendingPurgeId {
        self.version += 1;
        let mut hashes = Vec::with_capacity(purge.selectors.len());
        for selector in &purge.selectors {
            hashes.push(self.index_selector(selector).hash);
        }
        self.pending.add(hashes.into(), purge.mode, self.version)
    }

    /// Ends what [`apply_pending`](Self::apply_pending) began. To be called when the purge's record is
    /// applied, or lies before where the log began.
    pub fn remove_pending(&mut self, pending: PendingPurgeId) {
        self.pending.remove(pending);
    }

    /// The last record applied.
    pub fn fence(&self) -> Fence {
        Fence { log: self.log, seq: self.applied }
    }

    /// What has an older fence than this is dead.
    pub fn low_watermark(&self) -> u64 {
        self.low_watermark
    }

    /// Returns when the log that this table knows begins: responses whose origin was asked before are dead.
    /// None before the first record is applied.
    pub fn low_watermark_at(&self) -> Option<Timestamp> {
        self.low_watermark_at
    }

    /// Returns how many selectors have given up their places so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.count()
    }

    /// A number that changes with every change of the table that may select anything; never 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many selectors the applied records have left.
    pub fn len(&self) -> usize {
        self.last_purges.len()
    }

    /// Whether no applied record has left a selector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes the table takes.
    pub fn bytes(&self) -> usize {
        let kept = self.last_purges.bytes() + self.evicted.bytes();
        size_of::<Self>() + kept + self.pending.bytes() + self.index.bytes()
    }

    /// Whether a response with this fence, found alive when the table had the version `checked`, or
    /// asked for then, still is. 0 says that neither is known.
    ///
    /// Whatever was not purged since `checked` is not looked up.
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

    /// Whether a record selects the credential with this digest.
    pub fn is_credential_revoked(&self, credential: &str) -> bool {
        let hash = self.index.tag(SelectorIndex::ALL, &credential_tag(credential));
        self.last_change(hash) > 0 || self.evicted.last(hash) > 0
    }

    /// The hashes under which a response may have been selected after the version `since`, among those that
    /// share attributes of this set of attributes with it.
    fn hashes_of<'a, 'b>(
        &self,
        candidate: &PurgeCandidate<'b, impl Iterator<Item = &'a str> + Clone>,
        attribute_set: AttributeSet,
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

    /// The worst that is said under any of these hashes.
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

    /// Whether any change since the version `since` may select a response of this URL and with these
    /// attributes, whose tags are not known yet.
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

    /// The hash of a selector that comes with the version there is now.
    fn index_selector(&mut self, selector: &Selector) -> IndexedSelector {
        let indexed = self.index.insert(selector, self.version);
        self.last_changes.record(indexed, self.version);
        indexed
    }

    /// Gives up the place of a last purge.
    fn evict(&mut self, hash: u64, last_purge: LastPurge) {
        self.evicted.add(hash, last_purge);
        self.last_changes.evicted = self.last_changes.evicted.max(last_purge.version);
    }

    /// Gives up a last purge whose selector is not looked at any more: whatever has an older fence is dead.
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

    /// The version with which a selector last changed; 0 is never.
    fn last_change(&self, hash: u64) -> u64 {
        let applied = self.last_purges.find(hash).map_or(0, |last_purge| last_purge.version);
        let pending = self.pending.find(hash).map_or(0, |last_purge| last_purge.version);
        applied.max(pending)
    }

    /// Makes dead what has an older fence than this. No last purge is later, so none is needed any longer.
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

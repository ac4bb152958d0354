//! The table of what was purged last: selector → place in the log.

use super::{
    Facets, Fence, LogId, Mode, PendingId, Purge, Record, Selector, Subject, credential_tag,
    forgotten::Forgotten,
    marks::{Mark, Marks},
    names::{Kind, Named, Names, Shape},
    pending::PendingPurges,
};
use crate::field::Timestamp;

/// What was purged and when, as far as one node has applied the log.
///
/// A selector takes 50 to 110 bytes, however long it is and however often it is purged. Judging a response with four tags takes about
/// a tenth of a microsecond once anything was purged, and each length of purged prefixes 15 ns more; as
/// much again for each kind of facets by which was purged. Patterns and other combinations are kept as
/// they are, 1,000 of them, and looked at one by one.
#[derive(Debug)]
pub struct Table {
    log: LogId,
    applied: u64,
    /// What has an older fence is dead: nobody can say any more what selects it.
    floor: u64,
    /// When the record at the floor was appended, or the first one after it; none before that is applied.
    floor_at: Option<Timestamp>,
    version: u64,
    names: Names,
    marks: Marks,
    forgotten: Forgotten,
    pending: PendingPurges,
    newest: Newest,
}

/// The versions with which the table last changed, by what changed.
#[derive(Debug, Default)]
struct Newest {
    by_shape: [Kinds; Shape::COUNT],
    /// The newest of the selectors that have to be looked at one by one.
    listed: u64,
    /// The newest of all marks that are forgotten.
    forgotten: u64,
}

/// The same among the responses with certain facets.
#[derive(Debug, Default, Clone, Copy)]
struct Kinds {
    any: u64,
    everything: u64,
    tag: u64,
    url: u64,
    prefix: u64,
}

impl Newest {
    fn note(&mut self, named: Named, version: u64) {
        let Some(kinds) = self.by_shape.get_mut(named.shape.index()) else { return };
        let of_kind = match named.kind {
            Kind::Everything => &mut kinds.everything,
            Kind::Tag => &mut kinds.tag,
            Kind::Url => &mut kinds.url,
            Kind::Prefix => &mut kinds.prefix,
            Kind::Listed => return self.listed = version,
        };
        *of_kind = version;
        kinds.any = version;
    }

    /// What changed after the version `since` among the responses that share some of these facets.
    fn since(&self, since: u64, facets: Facets<'_>) -> impl Iterator<Item = (Shape, Kinds)> {
        Shape::within(facets).filter_map(move |shape| {
            let kinds = self.by_shape.get(shape.index())?;
            (kinds.any > since).then_some((shape, *kinds))
        })
    }
}

/// Whether a stored response outlives the purges applied so far; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// No later record selects it.
    Alive,
    /// A later soft purge selects it: it is stale whatever its freshness says.
    Soft,
    /// A later hard purge selects it, or nobody can say any more: it must not be used.
    Dead,
}

impl Verdict {
    /// What a mark says of a response that is older than `since`.
    fn of(mark: Mark, since: u64) -> Self {
        if mark.hard > since {
            Self::Dead
        } else if mark.soft > since {
            Self::Soft
        } else {
            Self::Alive
        }
    }
}

impl Table {
    /// A table of at most `capacity` selectors. Beyond it the oldest give up their places: what they
    /// select stays dead, and with it a few responses that share a bucket with them.
    pub fn new(capacity: usize) -> Self {
        Self {
            log: LogId::default(),
            applied: 0,
            floor: 0,
            floor_at: None,
            version: 1,
            names: Names::default(),
            marks: Marks::new(capacity),
            forgotten: Forgotten::default(),
            pending: PendingPurges::default(),
            newest: Newest::default(),
        }
    }

    /// Follows this log from now on, as if every record up to `fence.seq` had been applied: what has an
    /// older fence, or one of another log, is dead.
    ///
    /// Should the same log begin once more before where it was, its numbers mean other records than
    /// they did, and all are dead until it is beyond where it was. Pending purges remain pending.
    pub fn begin(&mut self, fence: Fence) {
        self.version += 1;
        let mut floor = fence.seq;
        if fence.log != self.log {
            self.floor = 0;
        } else if fence.seq < self.applied {
            floor = self.applied.saturating_add(1);
        }
        (self.log, self.applied) = (fence.log, fence.seq);
        self.raise(floor, None);
    }

    /// Applies the next record of the log. One that is applied already does nothing; where records are
    /// missing before it, what has an older fence than the last of them is dead.
    pub fn apply(&mut self, record: &Record) {
        if record.seq <= self.applied {
            return;
        }
        self.version += 1;
        if record.seq - 1 > self.applied {
            self.raise(record.seq - 1, None);
        }
        self.applied = record.seq;
        self.floor_at.get_or_insert(record.at);
        self.names.advance(record.at);
        let Purge { mode, selectors, .. } = &record.purge;
        if *mode == Mode::Hard && selectors.contains(&Selector::Everything) {
            return self.raise(record.seq, Some(record.at));
        }
        for selector in selectors {
            let named = self.name(selector);
            self.marks.set(named.name, *mode, record.seq, self.version);
        }
        while let Some((name, at)) = self.names.pop_excess(|name| self.pending.find(name).is_some())
        {
            self.forget_listed(name, at);
        }
        while let Some((name, mark)) = self.marks.pop_excess() {
            self.forget(name, mark);
        }
    }

    /// Applies a purge that is in no log yet. It counts as later than every fence, but spares what was
    /// asked for after it came, and what came from another process it never spares.
    ///
    /// Its record, once it is in the log, is applied like any other. So what was asked for between the
    /// two dies a second time: its fence does not say that it is younger than the purge.
    pub fn apply_pending(&mut self, purge: &Purge) -> PendingId {
        self.version += 1;
        let mut names = Vec::with_capacity(purge.selectors.len());
        for selector in &purge.selectors {
            names.push(self.name(selector).name);
        }
        self.pending.add(names.into(), purge.mode, self.version)
    }

    /// Ends what [`apply_pending`](Self::apply_pending) began. To be called when the purge's record is
    /// applied, or lies before where the log began.
    pub fn settle(&mut self, pending: PendingId) {
        self.pending.remove(pending);
    }

    /// The last record applied.
    pub fn fence(&self) -> Fence {
        Fence { log: self.log, seq: self.applied }
    }

    /// What has an older fence than this is dead.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns when the log that this table knows begins: responses whose origin was asked before are dead.
    /// None before the first record is applied.
    pub fn floor_at(&self) -> Option<Timestamp> {
        self.floor_at
    }

    /// Returns how many selectors have given up their places so far.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.count()
    }

    /// A number that changes with every change of the table that may select anything; never 0.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many selectors the applied records have left.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether no applied record has left a selector.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes the table takes.
    pub fn bytes(&self) -> usize {
        let kept = self.marks.bytes() + self.forgotten.bytes();
        size_of::<Self>() + kept + self.pending.bytes() + self.names.bytes()
    }

    /// Whether a response with this fence, found alive when the table had the version `checked`, or
    /// asked for then, still is. 0 says that neither is known.
    ///
    /// Whatever was not purged since `checked` is not looked up.
    pub fn judge<'a>(
        &self,
        fence: Fence,
        checked: u64,
        subject: &Subject<'_, impl Iterator<Item = &'a str> + Clone>,
    ) -> Verdict {
        if fence.log != self.log || fence.seq < self.floor {
            return Verdict::Dead;
        }
        let mut verdict = Verdict::Alive;
        for (shape, newest) in self.newest.since(checked, subject.facets) {
            let names = self.names_of(subject, shape, newest, checked);
            verdict = verdict.max(self.judge_all(names, fence.seq, checked));
        }
        if self.newest.listed > checked {
            let names = self.names.listed(checked, |selector| selector.selects(subject));
            verdict = verdict.max(self.judge_all(names, fence.seq, checked));
        }
        verdict
    }

    /// Whether a record selects the credential with this digest.
    pub fn has_ended(&self, credential: &str) -> bool {
        let name = self.names.tag(Names::ALL, &credential_tag(credential));
        self.changed(name) > 0 || self.forgotten.last(name) > 0
    }

    /// The names under which a response may have been selected after the version `since`, among those that
    /// share facets of this shape with it.
    fn names_of<'a, 'b>(
        &self,
        subject: &Subject<'b, impl Iterator<Item = &'a str> + Clone>,
        shape: Shape,
        newest: Kinds,
        since: u64,
    ) -> impl Iterator<Item = u64> {
        let (names, scope) = (&self.names, self.names.scope(shape, subject.facets));
        let everything = (newest.everything > since).then(|| names.everything(scope));
        let tags = (newest.tag > since).then(|| subject.tags.clone()).into_iter().flatten();
        let urls = (newest.url > since).then(|| names.urls(scope, subject.url));
        let prefixes = (newest.prefix > since).then(|| names.prefixes(scope, subject.url));
        everything
            .into_iter()
            .chain(tags.map(move |tag| names.tag(scope, tag)))
            .chain(urls.into_iter().flatten())
            .chain(prefixes.into_iter().flatten())
    }

    /// The worst that is said under any of these names.
    fn judge_all(&self, names: impl Iterator<Item = u64>, seq: u64, checked: u64) -> Verdict {
        let mut verdict = Verdict::Alive;
        for name in names {
            verdict = verdict.max(self.judge_by(name, seq, checked));
            if verdict == Verdict::Dead {
                break;
            }
        }
        verdict
    }

    /// Whether any change since the version `since` may select a response of this URL and with these
    /// facets, whose tags are not known yet.
    pub fn may_select(&self, since: u64, url: &[u8], facets: Facets<'_>) -> bool {
        let is_newer = |name| self.changed(name) > since;
        let mut shapes = self.newest.since(since, facets);
        self.newest.forgotten > since
            || shapes.any(|(shape, newest)| {
                let scope = self.names.scope(shape, facets);
                newest.tag > since
                    || (newest.everything > since && is_newer(self.names.everything(scope)))
                    || (newest.url > since && self.names.urls(scope, url).any(is_newer))
                    || (newest.prefix > since && self.names.prefixes(scope, url).any(is_newer))
            })
            || (self.newest.listed > since && {
                let may_fit = |selector: &Selector| selector.fits(url, facets, &|_| true);
                self.names.listed(since, may_fit).next().is_some()
            })
    }

    /// The name of a selector that comes with the version there is now.
    fn name(&mut self, selector: &Selector) -> Named {
        let named = self.names.of(selector, self.version);
        self.newest.note(named, self.version);
        named
    }

    /// Gives up the place of a mark.
    fn forget(&mut self, name: u64, mark: Mark) {
        self.forgotten.add(name, mark);
        self.newest.forgotten = self.newest.forgotten.max(mark.version);
    }

    /// Gives up a mark whose selector is not looked at any more: whatever has an older fence is dead.
    fn forget_listed(&mut self, name: u64, at: Option<Timestamp>) {
        let mark = self.marks.remove(name).unwrap_or_default();
        let last = mark.last().max(self.forgotten.last(name));
        if last > self.floor {
            (self.floor, self.floor_at) = (last, self.floor_at.max(at));
        }
        self.newest.forgotten = self.newest.forgotten.max(mark.version);
    }

    fn judge_by(&self, name: u64, seq: u64, checked: u64) -> Verdict {
        let applied = self.marks.find(name).map(|mark| Verdict::of(mark, seq));
        let pending = self.pending.find(name).map(|mark| Verdict::of(mark, checked));
        let forgotten = (self.forgotten.last(name) > seq).then_some(Verdict::Dead);
        applied.max(pending).max(forgotten).unwrap_or(Verdict::Alive)
    }

    /// The version with which a selector last changed; 0 is never.
    fn changed(&self, name: u64) -> u64 {
        let applied = self.marks.find(name).map_or(0, |mark| mark.version);
        let pending = self.pending.find(name).map_or(0, |mark| mark.version);
        applied.max(pending)
    }

    /// Makes dead what has an older fence than this. No mark is later, so none is needed any longer.
    fn raise(&mut self, floor: u64, at: Option<Timestamp>) {
        (self.floor, self.floor_at) = (self.floor.max(floor), at);
        self.marks.clear();
        self.forgotten.clear();
        self.newest.forgotten = self.version;
        self.names.forget_listed(|name| self.pending.find(name).is_some());
        if self.pending.is_empty() {
            self.names.forget_prefixes();
        }
    }
}

#[cfg(test)]
mod tests;

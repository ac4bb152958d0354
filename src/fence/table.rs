//! The table of what was purged last: selector → place in the log.

use super::{
    Fence, LogId, Mode, PendingId, Purge, Record, Selector,
    marks::{Mark, Marks},
    names::{Kind, Names},
    pending::PendingPurges,
};

/// What was purged and when, as far as one node has applied the log.
///
/// A selector takes 50 to 110 bytes, however long it is. Judging a response with four tags takes about
/// a tenth of a microsecond once anything was purged, and each length of purged prefixes 15 ns more.
#[derive(Debug)]
pub struct Table {
    log: LogId,
    applied: u64,
    /// What has an older fence is dead: nobody can say any more what selects it.
    floor: u64,
    version: u64,
    names: Names,
    marks: Marks,
    pending: PendingPurges,
    newest: Newest,
}

/// The versions with which the table last changed, by what changed.
#[derive(Debug, Default)]
struct Newest {
    everything: u64,
    tag: u64,
    url: u64,
    prefix: u64,
    /// The newest of all marks that are forgotten.
    forgotten: u64,
}

impl Newest {
    fn note(&mut self, kind: Kind, version: u64) {
        match kind {
            Kind::Everything => self.everything = version,
            Kind::Tag => self.tag = version,
            Kind::Url => self.url = version,
            Kind::Prefix => self.prefix = version,
        }
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

/// What selectors look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a, Tags> {
    /// The URL in its normal form: `host/path?query`.
    pub url: &'a [u8],
    /// The tags.
    pub tags: Tags,
}

impl Table {
    /// A table of at most `capacity` selectors; beyond it the oldest are forgotten and the floor rises.
    pub fn new(capacity: usize) -> Self {
        Self {
            log: LogId::default(),
            applied: 0,
            floor: 0,
            version: 1,
            names: Names::default(),
            marks: Marks::new(capacity),
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
        self.raise(floor);
    }

    /// Applies the next record of the log. One that is applied already does nothing; where records are
    /// missing before it, what has an older fence than the last of them is dead.
    pub fn apply(&mut self, record: &Record) {
        if record.seq <= self.applied {
            return;
        }
        self.version += 1;
        if record.seq - 1 > self.applied {
            self.raise(record.seq - 1);
        }
        self.applied = record.seq;
        let Purge { mode, selectors, .. } = &record.purge;
        if *mode == Mode::Hard && selectors.contains(&Selector::Everything) {
            return self.raise(record.seq);
        }
        for selector in selectors {
            let (kind, name) = self.names.of(selector);
            self.newest.note(kind, self.version);
            self.marks.set(name, *mode, record.seq, self.version);
        }
        while let Some(mark) = self.marks.pop_excess() {
            self.floor = self.floor.max(mark.hard).max(mark.soft);
            self.newest.forgotten = self.newest.forgotten.max(mark.version);
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
            let (kind, name) = self.names.of(selector);
            self.newest.note(kind, self.version);
            names.push(name);
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
        size_of::<Self>() + self.marks.bytes() + self.pending.bytes()
    }

    /// Whether a response with this fence, found alive when the table had the version `checked`, or
    /// asked for then, still is. 0 says that neither is known.
    ///
    /// Whatever was not purged since `checked` is not looked up.
    pub fn judge<'a>(
        &self,
        fence: Fence,
        checked: u64,
        subject: Subject<'_, impl Iterator<Item = &'a str>>,
    ) -> Verdict {
        if fence.log != self.log || fence.seq < self.floor {
            return Verdict::Dead;
        }
        let newest = &self.newest;
        let everything = (newest.everything > checked).then(|| self.names.everything());
        let tags = (newest.tag > checked).then_some(subject.tags).into_iter().flatten();
        let urls = (newest.url > checked).then(|| self.names.urls(subject.url));
        let prefixes = (newest.prefix > checked).then(|| self.names.prefixes(subject.url));
        let names = everything
            .into_iter()
            .chain(tags.map(|tag| self.names.tag(tag)))
            .chain(urls.into_iter().flatten())
            .chain(prefixes.into_iter().flatten());
        let mut verdict = Verdict::Alive;
        for name in names {
            verdict = verdict.max(self.judge_by(name, fence.seq, checked));
            if verdict == Verdict::Dead {
                break;
            }
        }
        verdict
    }

    /// Whether any change since the version `since` may select a response of this URL whose tags are not
    /// known yet.
    pub fn may_select(&self, since: u64, url: &[u8]) -> bool {
        let newest = &self.newest;
        let of_any_url = newest.forgotten.max(newest.everything).max(newest.tag);
        let is_newer = |name| self.changed(name) > since;
        of_any_url > since
            || (newest.url > since && self.names.urls(url).any(is_newer))
            || (newest.prefix > since && self.names.prefixes(url).any(is_newer))
    }

    fn judge_by(&self, name: u64, seq: u64, checked: u64) -> Verdict {
        let applied = self.marks.find(name).map(|mark| Verdict::of(mark, seq));
        let pending = self.pending.find(name).map(|mark| Verdict::of(mark, checked));
        applied.max(pending).unwrap_or(Verdict::Alive)
    }

    /// The version with which a selector last changed; 0 is never.
    fn changed(&self, name: u64) -> u64 {
        let applied = self.marks.find(name).map_or(0, |mark| mark.version);
        let pending = self.pending.find(name).map_or(0, |mark| mark.version);
        applied.max(pending)
    }

    /// Makes dead what has an older fence than this. No mark is later, so none is needed any longer.
    fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.marks.clear();
        self.newest.forgotten = self.version;
        if self.pending.is_empty() {
            self.names.forget_prefixes();
        }
    }
}

#[cfg(test)]
mod tests;

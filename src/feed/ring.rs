//! The last events, from which listeners catch up.

use std::{
    collections::{VecDeque, vec_deque},
    iter::Peekable,
    time::Duration,
};

use super::{event::Event, position::Since};
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
    user::Member,
};

/// At most so many events are kept, in at most so many bytes.
const EVENTS: usize = 4096;
const BYTES: usize = 4 << 20;

/// How far the clock of the log and that of whoever names a time may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// At most so many logs are remembered before the present one.
const LOGS: usize = 64;

/// The last events, without a gap, of a log and of those that it continues. What was purged and is not
/// shown takes no place.
#[derive(Debug)]
pub(super) struct Ring {
    /// The last record heard; none before anything is known of a log.
    place: Option<Fence>,
    /// The last place of each log that the present one continues, the oldest first.
    ends: VecDeque<Fence>,
    events: Kept,
    /// Those that are for single users only: however many there are, they push out none for everybody.
    private: Kept,
}

/// Events in their order, within bounds.
#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    bytes: usize,
    /// All after this record is here.
    floor: u64,
    /// All after this time is here.
    floor_at: Option<Timestamp>,
}

/// The events of both kinds in one order.
#[derive(Debug)]
pub(super) struct Events<'a> {
    public: Peekable<vec_deque::Iter<'a, Event>>,
    private: Peekable<vec_deque::Iter<'a, Event>>,
    user: Option<&'a Member>,
}

/// What comes after a place.
#[derive(Debug)]
pub(super) enum After<'a> {
    /// These, at least one.
    Events(Events<'a>),
    /// Nothing that is shown, up to this place.
    Nothing(Option<Fence>),
    /// Nobody knows. Who goes on from here has to begin anew.
    Unknown(Fence),
    /// The same, for the place is in a log that was never heard of here.
    Elsewhere(Fence),
}

impl Default for Ring {
    /// Nothing is known of any log.
    fn default() -> Self {
        let (ends, events, private) = Default::default();
        Self { place: None, ends, events, private }
    }
}

impl Ring {
    /// The last record heard.
    pub(super) fn place(&self) -> Option<Fence> {
        self.place
    }

    /// Forgets what was: this is where another account begins.
    ///
    /// Should the same log begin before where it was, its numbers mean other records than they did. It
    /// counts as another log then, so that nobody goes on from the old ones.
    pub(super) fn begin(&mut self, mut place: Fence, at: Timestamp) {
        if let Some(last) = self.place
            && last.log == place.log
            && last.seq > place.seq
        {
            place.log = LogId(last.log.0.wrapping_add(last.seq));
        }
        self.place = Some(place);
        self.forget(place.seq, at);
    }

    /// The place of a record, where it can be taken: after the last. One heard before is none.
    pub(super) fn expects(&self, fence: Fence) -> Option<Fence> {
        (fence.seq > self.place?.seq).then_some(fence)
    }

    /// Takes the record at `place`, which was appended at this time, with what is shown of it.
    pub(super) fn advance(&mut self, place: Fence, at: Timestamp, event: Option<Event>) {
        if let Some(last) = self.place.filter(|last| last.log != place.log) {
            self.end(last);
        }
        let last = self.place.map_or(0, |last| last.seq);
        if place.seq > last.saturating_add(1) {
            self.forget(place.seq - 1, at);
        }
        self.place = Some(place);
        if let Some(event) = event {
            let kept = if event.is_public() { &mut self.events } else { &mut self.private };
            kept.push(event);
        }
    }

    /// Keeps nothing of what was: it was chosen by other settings.
    pub(super) fn restart(&mut self, now: Timestamp) {
        if let Some(place) = self.place {
            self.forget(place.seq, now);
        }
    }

    /// What comes after this place for this reader; after none, whatever is known is news.
    pub(super) fn after<'a>(&'a self, since: Option<Fence>, user: Option<&'a Member>) -> After<'a> {
        let Some(place) = self.place else { return After::Nothing(since) };
        let Some(since) = since else { return After::Unknown(place) };
        let Some((start, end)) = self.extent(since.log) else { return After::Elsewhere(place) };
        let floor = if user.is_some() { self.private.floor } else { 0 };
        if since.seq < start.max(self.events.floor).max(floor)
            || end.is_some_and(|end| since.seq > end)
        {
            return After::Unknown(place);
        }
        let (public, private) = (self.events.after(since.seq), self.private.after(since.seq));
        let mut events = Events { public, private, user };
        if events.skip_to_next().is_some() {
            return After::Events(events);
        }
        // Another node may have been ahead of this one.
        After::Nothing(Some(Fence { seq: place.seq.max(since.seq), ..place }))
    }

    /// The place that a client means; none where what comes after it is not known.
    pub(super) fn find(&self, since: Since, now: Timestamp) -> Option<Fence> {
        if let Since::Place(since) = since {
            return Some(since);
        }
        let place = self.place?;
        match since {
            Since::Seq(seq) => (seq <= place.seq).then(|| self.named(seq)).flatten(),
            Since::Time(time) if time > now => None,
            Since::Time(time) => self.from(time.saturating_sub(SKEW)),
            Since::Place(_) | Since::Elsewhere => None,
        }
    }

    /// The place before the first record of this time, by the clock of the log.
    fn from(&self, time: Timestamp) -> Option<Fence> {
        if self.events.floor_at.is_none_or(|floor_at| time <= floor_at) {
            return None;
        }
        let seq_of = |kept: &Kept| {
            let first = kept.events.iter().find(|event| event.at >= time);
            first.map(|event| event.place.seq.saturating_sub(1))
        };
        let first = [&self.events, &self.private].into_iter().filter_map(seq_of).min();
        self.named(first.unwrap_or(self.place?.seq))
    }

    /// The place after the record of this number.
    fn named(&self, seq: u64) -> Option<Fence> {
        let earlier = self.ends.iter().find(|end| seq <= end.seq);
        earlier.or(self.place.as_ref()).map(|log| Fence { seq, ..*log })
    }

    /// Where a log begins and where it ends; the present one has no end.
    fn extent(&self, log: LogId) -> Option<(u64, Option<u64>)> {
        let mut start = 0;
        for end in &self.ends {
            if end.log == log {
                return Some((start, Some(end.seq)));
            }
            start = end.seq;
        }
        self.place.filter(|place| place.log == log).map(|_| (start, None))
    }

    /// Another log continues the one that ended here.
    fn end(&mut self, last: Fence) {
        self.ends.push_back(last);
        if self.ends.len() > LOGS
            && let Some(oldest) = self.ends.pop_front()
        {
            self.events.raise(oldest.seq);
            self.private.raise(oldest.seq);
        }
    }

    fn forget(&mut self, floor: u64, at: Timestamp) {
        self.ends.clear();
        self.events = Kept::from(floor, at);
        self.private = Kept::from(floor, at);
    }
}

impl Kept {
    /// None so far, and none is missing after this.
    fn from(floor: u64, at: Timestamp) -> Self {
        Self { floor, floor_at: Some(at), ..Self::default() }
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > EVENTS || self.bytes > BYTES {
            self.drop_oldest();
        }
    }

    /// Keeps nothing up to this record.
    fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        while self.events.front().is_some_and(|event| event.place.seq <= self.floor) {
            self.drop_oldest();
        }
    }

    /// Those after this record.
    fn after(&self, seq: u64) -> Peekable<vec_deque::Iter<'_, Event>> {
        let first = self.events.partition_point(|event| event.place.seq <= seq);
        self.events.range(first..).peekable()
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.events.pop_front() else { return };
        self.bytes -= oldest.size();
        self.floor = self.floor.max(oldest.place.seq);
        self.floor_at = self.floor_at.max(Some(oldest.at));
    }
}

impl<'a> Events<'a> {
    /// Passes over what is not for the reader, and returns whichever kind has the next event.
    fn skip_to_next(&mut self) -> Option<&mut Peekable<vec_deque::Iter<'a, Event>>> {
        let user = self.user;
        let hidden = move |event: &&Event| !event.is_for(user);
        while self.private.next_if(hidden).is_some() {}
        let next = |events: &mut Peekable<vec_deque::Iter<'a, Event>>| {
            events.peek().map(|event| event.place.seq)
        };
        match (next(&mut self.public), next(&mut self.private)) {
            (None, None) => None,
            (Some(public), Some(private)) if private < public => Some(&mut self.private),
            (Some(_), _) => Some(&mut self.public),
            (None, Some(_)) => Some(&mut self.private),
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = &'a Event;

    fn next(&mut self) -> Option<&'a Event> {
        self.skip_to_next()?.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feed::settings::Shown,
        fence::{LogId, Mode, Purge, Record, Source},
    };

    fn place(log: u64, seq: u64) -> Fence {
        Fence { log: LogId(log), seq }
    }

    fn at(seq: u64) -> Timestamp {
        Timestamp::from_seconds(1000 + seq)
    }

    /// Takes a record of log 1; shown with this tag.
    fn take(ring: &mut Ring, seq: u64, tag: Option<&str>) {
        take_of(ring, 1, seq, tag);
    }

    fn take_of(ring: &mut Ring, log: u64, seq: u64, tag: Option<&str>) {
        let purge = Purge {
            mode: Mode::Hard,
            selectors: vec![],
            source: Source::Api,
            reason: None,
            warm: false,
        };
        let record = Record { seq, at: at(seq), purge };
        let event = |tag| {
            let shown = Shown { tags: vec![tag], everything: false, private: vec![] };
            Event::new(place(log, seq), &record, &shown)
        };
        ring.advance(place(log, seq), at(seq), tag.map(event));
    }

    fn ring() -> Ring {
        let mut ring = Ring::default();
        ring.begin(place(1, 10), at(10));
        for seq in 11..=15 {
            take(&mut ring, seq, (seq % 2 == 0).then_some("a"));
        }
        ring
    }

    fn seqs(after: After<'_>) -> Vec<u64> {
        let After::Events(events) = after else { panic!("{after:?}") };
        events.map(|event| event.place.seq).collect()
    }

    #[test]
    fn who_was_here_hears_what_came_after() {
        let ring = ring();
        assert_eq!(seqs(ring.after(Some(place(1, 10)), None)), [12, 14]);
        assert_eq!(seqs(ring.after(Some(place(1, 12)), None)), [14]);
        for seq in [14, 15] {
            let After::Nothing(Some(stand)) = ring.after(Some(place(1, seq)), None) else {
                panic!()
            };
            assert_eq!(stand, place(1, 15));
        }
        let After::Nothing(Some(ahead)) = ring.after(Some(place(1, 17)), None) else { panic!() };
        assert_eq!(ahead, place(1, 17));
    }

    #[test]
    fn who_may_have_missed_something_begins_anew() {
        let ring = ring();
        for since in [Some(place(1, 9)), None] {
            let After::Unknown(stand) = ring.after(since, None) else { panic!("{since:?}") };
            assert_eq!(stand, place(1, 15));
        }
        let After::Elsewhere(stand) = ring.after(Some(place(2, 12)), None) else { panic!() };
        assert_eq!(stand, place(1, 15));
        assert!(matches!(Ring::default().after(Some(place(1, 9)), None), After::Nothing(Some(_))));
    }

    #[test]
    fn a_gap_is_no_place_to_go_on_from() {
        let mut ring = ring();
        take(&mut ring, 18, Some("a"));
        assert!(matches!(ring.after(Some(place(1, 15)), None), After::Unknown(_)));
        assert_eq!(seqs(ring.after(Some(place(1, 17)), None)), [18]);
        assert_eq!(ring.expects(place(1, 18)), None);
        assert_eq!(ring.expects(place(1, 19)), Some(place(1, 19)));
    }

    #[test]
    fn another_account_leaves_nobody_where_he_was() {
        let mut ring = ring();
        ring.begin(place(2, 15), at(15));
        assert!(matches!(ring.after(Some(place(1, 15)), None), After::Elsewhere(_)));
        ring.begin(place(2, 20), at(15));
        assert!(matches!(ring.after(Some(place(2, 15)), None), After::Unknown(_)));
        assert!(matches!(ring.after(Some(place(2, 20)), None), After::Nothing(_)));
    }

    /// Log 1 up to 15, and log 2 from there to 18.
    fn continued() -> Ring {
        let mut ring = ring();
        (16..=18).for_each(|seq| take_of(&mut ring, 2, seq, (seq % 2 == 0).then_some("a")));
        ring
    }

    #[test]
    fn who_was_in_a_log_that_is_continued_goes_on() {
        let ring = continued();
        assert_eq!(seqs(ring.after(Some(place(1, 12)), None)), [14, 16, 18]);
        assert_eq!(seqs(ring.after(Some(place(1, 15)), None)), [16, 18]);
        assert_eq!(seqs(ring.after(Some(place(2, 15)), None)), [16, 18]);
        assert_eq!(seqs(ring.after(Some(place(2, 16)), None)), [18]);
        let After::Nothing(Some(stand)) = ring.after(Some(place(2, 19)), None) else { panic!() };
        assert_eq!(stand, place(2, 19));
        for elsewhere in [place(1, 16), place(2, 14), place(1, 9)] {
            assert!(
                matches!(ring.after(Some(elsewhere), None), After::Unknown(_)),
                "{elsewhere:?}"
            );
        }
        assert!(matches!(ring.after(Some(place(3, 16)), None), After::Elsewhere(_)));
    }

    #[test]
    fn numbers_and_times_are_found_in_the_log_that_has_them() {
        let ring = continued();
        let find = |since| ring.find(since, at(100));
        assert_eq!(find(Since::Seq(12)), Some(place(1, 12)));
        assert_eq!(find(Since::Seq(15)), Some(place(1, 15)));
        assert_eq!(find(Since::Seq(16)), Some(place(2, 16)));
        assert_eq!(find(Since::Time(at(73))), Some(place(1, 13)));
        assert_eq!(find(Since::Time(at(77))), Some(place(2, 17)));
    }

    #[test]
    fn a_gap_between_two_logs_is_no_place_to_go_on_from() {
        let mut ring = ring();
        take_of(&mut ring, 2, 17, Some("a"));
        assert!(matches!(ring.after(Some(place(1, 15)), None), After::Elsewhere(_)));
        assert!(matches!(ring.after(Some(place(2, 15)), None), After::Unknown(_)));
        assert_eq!(seqs(ring.after(Some(place(2, 16)), None)), [17]);
    }

    #[test]
    fn so_many_logs_are_remembered() {
        let mut ring = ring();
        let last = LOGS as u64 + 2;
        (2..=last).for_each(|log| take_of(&mut ring, log, 14 + log, Some("a")));
        assert_eq!((ring.ends.len(), ring.events.floor), (LOGS, 15));
        assert!(matches!(ring.after(Some(place(1, 15)), None), After::Elsewhere(_)));
        assert_eq!(seqs(ring.after(Some(place(2, 15)), None)).len(), LOGS + 1);
    }

    #[test]
    fn a_log_that_goes_back_is_another() {
        let mut ring = ring();
        ring.begin(place(1, 12), at(15));
        for seq in [11, 12, 15, 17] {
            assert!(matches!(ring.after(Some(place(1, seq)), None), After::Elsewhere(_)), "{seq}");
        }
        let After::Unknown(stand) = ring.after(None, None) else { panic!() };
        assert_eq!(stand.seq, 12);
        assert!(matches!(ring.after(Some(stand), None), After::Nothing(_)));
    }

    #[test]
    fn it_is_bounded_in_count_and_bytes() {
        let mut ring = Ring::default();
        ring.begin(place(1, 0), at(0));
        let last = EVENTS as u64 + 5;
        (1..=last).for_each(|seq| take(&mut ring, seq, Some("a")));
        assert_eq!(
            (ring.events.events.len(), ring.events.floor, ring.events.floor_at),
            (EVENTS, 5, Some(at(5)))
        );
        assert!(matches!(ring.after(Some(place(1, 4)), None), After::Unknown(_)));
        assert_eq!(seqs(ring.after(Some(place(1, 5)), None)).len(), EVENTS);
        let large = "x".repeat(1 << 20);
        (last + 1..last + 9).for_each(|seq| take(&mut ring, seq, Some(&large)));
        assert!(
            ring.events.bytes <= BYTES && ring.events.events.len() == 3,
            "{}",
            ring.events.events.len()
        );
        ring.restart(at(0));
        assert_eq!((ring.events.bytes, ring.events.floor), (0, last + 8));
    }

    #[test]
    fn places_are_found_by_number_and_time() {
        let ring = ring();
        let now = at(100);
        let find = |since| ring.find(since, now);
        assert_eq!(find(Since::Seq(3)), Some(place(1, 3)));
        assert_eq!(find(Since::Seq(15)), Some(place(1, 15)));
        assert_eq!(find(Since::Seq(16)), None, "of another log");
        assert_eq!(find(Since::Time(at(70))), None, "before anything is known");
        assert_eq!(find(Since::Time(at(71))), Some(place(1, 11)));
        assert_eq!(find(Since::Time(at(72))), Some(place(1, 11)), "what came just then counts");
        assert_eq!(find(Since::Time(at(73))), Some(place(1, 13)));
        assert_eq!(find(Since::Time(at(75))), Some(place(1, 15)));
        assert_eq!(find(Since::Time(at(101))), None, "a clock that is ahead");
        assert_eq!(find(Since::Elsewhere), None);
    }
}

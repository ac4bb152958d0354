//! The last events, from which listeners catch up.

use std::collections::VecDeque;

use super::{event::Event, position::Since};
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
};

/// At most so many events are kept, in at most so many bytes.
const EVENTS: usize = 4096;
const BYTES: usize = 4 << 20;

/// The last events of one log, without a gap. What was purged and is not shown takes no place.
#[derive(Debug)]
pub(super) struct Ring {
    /// The last record heard; none before anything is known of a log.
    place: Option<Fence>,
    /// All after this record is here.
    floor: u64,
    /// All after this time is here.
    floor_at: Timestamp,
    events: VecDeque<Event>,
    bytes: usize,
}

/// What comes after a place.
#[derive(Debug)]
pub(super) enum After<'a> {
    /// These, at least one.
    Events(std::collections::vec_deque::Iter<'a, Event>),
    /// Nothing that is shown, up to this place.
    Nothing(Option<Fence>),
    /// Nobody knows. Who goes on from here has to begin anew.
    Unknown(Fence),
}

impl Default for Ring {
    /// Nothing is known of any log.
    fn default() -> Self {
        let floor_at = Timestamp::from_millis(0);
        Self { place: None, floor: 0, floor_at, events: VecDeque::new(), bytes: 0 }
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

    /// Whether a record can be taken: where it is the one after the last. One heard before is none.
    pub(super) fn expects(&self, seq: u64) -> Option<Fence> {
        let place = self.place?;
        (seq > place.seq).then_some(Fence { seq, ..place })
    }

    /// Takes the record at `place`, which was appended at this time, with what is shown of it.
    pub(super) fn advance(&mut self, place: Fence, at: Timestamp, event: Option<Event>) {
        let last = self.place.map_or(0, |last| last.seq);
        if place.seq > last.saturating_add(1) {
            self.forget(place.seq - 1, at);
        }
        self.place = Some(place);
        if let Some(event) = event {
            self.bytes += event.size();
            self.events.push_back(event);
            self.trim();
        }
    }

    /// Keeps nothing of what was: it was chosen by other settings.
    pub(super) fn restart(&mut self, now: Timestamp) {
        if let Some(place) = self.place {
            self.forget(place.seq, now);
        }
    }

    /// What comes after this place; after none, whatever is known is news.
    pub(super) fn after(&self, since: Option<Fence>) -> After<'_> {
        let Some(place) = self.place else { return After::Nothing(since) };
        let Some(since) = since.filter(|since| since.log == place.log && since.seq >= self.floor)
        else {
            return After::Unknown(place);
        };
        let first = self.events.partition_point(|event| event.seq <= since.seq);
        if first < self.events.len() {
            return After::Events(self.events.range(first..));
        }
        // Another node may have been ahead of this one.
        After::Nothing(Some(Fence { seq: place.seq.max(since.seq), ..place }))
    }

    /// The place that a client means; none where what comes after it is not known.
    pub(super) fn find(&self, since: Since, now: Timestamp) -> Option<Fence> {
        let place = self.place?;
        match since {
            Since::Place(since) => Some(since),
            Since::Seq(seq) => (seq <= place.seq).then_some(Fence { seq, ..place }),
            Since::Time(time) if time <= self.floor_at || time > now => None,
            Since::Time(time) => {
                let first = self.events.iter().find(|event| event.at >= time);
                let seq = first.map_or(place.seq, |event| event.seq.saturating_sub(1));
                Some(Fence { seq, ..place })
            }
            Since::Elsewhere => None,
        }
    }

    fn forget(&mut self, floor: u64, at: Timestamp) {
        self.events.clear();
        self.bytes = 0;
        (self.floor, self.floor_at) = (floor, at);
    }

    fn trim(&mut self) {
        while self.events.len() > EVENTS || self.bytes > BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.size();
            self.floor = oldest.seq;
            self.floor_at = self.floor_at.max(oldest.at);
        }
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
        let purge = Purge {
            mode: Mode::Hard,
            selectors: vec![],
            source: Source::Api,
            reason: None,
            warm: false,
        };
        let record = Record { seq, at: at(seq), purge };
        let event = |tag| {
            let shown = Shown { tags: vec![tag], everything: false };
            Event::new(place(1, seq), &record, &shown)
        };
        ring.advance(place(1, seq), at(seq), tag.map(event));
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
        events.map(|event| event.seq).collect()
    }

    #[test]
    fn who_was_here_hears_what_came_after() {
        let ring = ring();
        assert_eq!(seqs(ring.after(Some(place(1, 10)))), [12, 14]);
        assert_eq!(seqs(ring.after(Some(place(1, 12)))), [14]);
        for seq in [14, 15] {
            let After::Nothing(Some(stand)) = ring.after(Some(place(1, seq))) else { panic!() };
            assert_eq!(stand, place(1, 15));
        }
        let After::Nothing(Some(ahead)) = ring.after(Some(place(1, 17))) else { panic!() };
        assert_eq!(ahead, place(1, 17));
    }

    #[test]
    fn who_may_have_missed_something_begins_anew() {
        let ring = ring();
        for since in [Some(place(1, 9)), Some(place(2, 12)), None] {
            let After::Unknown(stand) = ring.after(since) else { panic!("{since:?}") };
            assert_eq!(stand, place(1, 15));
        }
        assert!(matches!(Ring::default().after(Some(place(1, 9))), After::Nothing(Some(_))));
    }

    #[test]
    fn a_gap_is_no_place_to_go_on_from() {
        let mut ring = ring();
        take(&mut ring, 18, Some("a"));
        assert!(matches!(ring.after(Some(place(1, 15))), After::Unknown(_)));
        assert_eq!(seqs(ring.after(Some(place(1, 17)))), [18]);
        assert_eq!(ring.expects(18), None);
        assert_eq!(ring.expects(19), Some(place(1, 19)));
    }

    #[test]
    fn another_account_leaves_nobody_where_he_was() {
        let mut ring = ring();
        ring.begin(place(2, 15), at(15));
        assert!(matches!(ring.after(Some(place(1, 15))), After::Unknown(_)));
        ring.begin(place(2, 20), at(15));
        assert!(matches!(ring.after(Some(place(2, 15))), After::Unknown(_)));
        assert!(matches!(ring.after(Some(place(2, 20))), After::Nothing(_)));
    }

    #[test]
    fn a_log_that_goes_back_is_another() {
        let mut ring = ring();
        ring.begin(place(1, 12), at(15));
        for seq in [11, 12, 15, 17] {
            assert!(matches!(ring.after(Some(place(1, seq))), After::Unknown(_)), "{seq}");
        }
        let After::Unknown(stand) = ring.after(None) else { panic!() };
        assert_eq!(stand.seq, 12);
        assert!(matches!(ring.after(Some(stand)), After::Nothing(_)));
    }

    #[test]
    fn it_is_bounded_in_count_and_bytes() {
        let mut ring = Ring::default();
        ring.begin(place(1, 0), at(0));
        let last = EVENTS as u64 + 5;
        (1..=last).for_each(|seq| take(&mut ring, seq, Some("a")));
        assert_eq!((ring.events.len(), ring.floor, ring.floor_at), (EVENTS, 5, at(5)));
        assert!(matches!(ring.after(Some(place(1, 4))), After::Unknown(_)));
        assert_eq!(seqs(ring.after(Some(place(1, 5)))).len(), EVENTS);
        let large = "x".repeat(1 << 20);
        (last + 1..last + 9).for_each(|seq| take(&mut ring, seq, Some(&large)));
        assert!(ring.bytes <= BYTES && ring.events.len() == 3, "{}", ring.events.len());
        ring.restart(at(0));
        assert_eq!((ring.bytes, ring.floor), (0, last + 8));
    }

    #[test]
    fn places_are_found_by_number_and_time() {
        let ring = ring();
        let now = at(20);
        let find = |since| ring.find(since, now);
        assert_eq!(find(Since::Seq(3)), Some(place(1, 3)));
        assert_eq!(find(Since::Seq(15)), Some(place(1, 15)));
        assert_eq!(find(Since::Seq(16)), None, "of another log");
        assert_eq!(find(Since::Time(at(10))), None, "before anything is known");
        assert_eq!(find(Since::Time(at(11))), Some(place(1, 11)));
        assert_eq!(find(Since::Time(at(12))), Some(place(1, 11)), "what came just then counts");
        assert_eq!(find(Since::Time(at(13))), Some(place(1, 13)));
        assert_eq!(find(Since::Time(at(15))), Some(place(1, 15)));
        assert_eq!(find(Since::Time(at(21))), None, "a clock that is ahead");
        assert_eq!(find(Since::Elsewhere), None);
    }
}

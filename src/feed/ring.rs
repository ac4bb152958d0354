//! A ring buffer of recent events, from which listeners catch up.

use std::{
    collections::{VecDeque, vec_deque},
    iter::Peekable,
    time::Duration,
};

use super::{event::Event, position::ResumePosition};
use crate::{
    fence::{Fence, LogId},
    field::Timestamp,
    user::PartitionMember,
};

/// Maximum number of events in a buffer.
const MAX_EVENTS: usize = 4096;
/// Maximum size of all events in a buffer, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Assumed maximum skew between the clocks of the log and of clients.
const SKEW: Duration = Duration::from_mins(1);

/// Maximum number of earlier logs remembered.
const MAX_LOGS: usize = 64;

/// The last events of a log and of the logs that it continues, without gaps.
///
/// Purges without visible tags are not kept.
#[derive(Debug)]
pub(super) struct EventRing {
    /// The position of the last record; `None` if no log is known yet.
    position: Option<Fence>,
    /// Last positions of earlier logs that the current log continues, oldest first.
    ends: VecDeque<Fence>,
    events: EventBuffer,
    /// Events for single users, in a buffer of their own so that they evict no public events.
    private: EventBuffer,
}

/// Events in order, limited in number and size.
#[derive(Debug, Default)]
struct EventBuffer {
    events: VecDeque<Event>,
    bytes: usize,
    /// The sequence number after which all events are present.
    low_watermark: u64,
    /// The time after which all events are present.
    low_watermark_at: Option<Timestamp>,
}

/// Iterator over the events of both buffers that the user may see, in order.
#[derive(Debug)]
pub(super) struct EventIter<'a> {
    public: Peekable<vec_deque::Iter<'a, Event>>,
    private: Peekable<vec_deque::Iter<'a, Event>>,
    user: Option<&'a PartitionMember>,
}

/// The events after a position.
#[derive(Debug)]
pub(super) enum CatchUp<'a> {
    Events(EventIter<'a>),
    /// There are no visible events. The listener moves to this position.
    UpToDate(Option<Fence>),
    /// Events are missing: the client must reset.
    Gap(Fence),
    /// The position belongs to an unknown log: the client must reset.
    OtherLog(Fence),
}

impl Default for EventRing {
    /// Creates an empty ring without a log.
    fn default() -> Self {
        let (ends, events, private) = Default::default();
        Self { position: None, ends, events, private }
    }
}

impl EventRing {
    pub(super) fn position(&self) -> Option<Fence> {
        self.position
    }

    /// Drops all events, and starts at this position.
    ///
    /// If the same log begins again at an earlier position, its sequence numbers are reused. It
    /// then counts as another log, so that no client resumes from an old position.
    pub(super) fn begin(&mut self, mut position: Fence, at: Timestamp) {
        if let Some(last) = self.position
            && last.log == position.log
            && last.seq > position.seq
        {
            position.log = LogId(last.log.0.wrapping_add(last.seq));
        }
        self.position = Some(position);
        self.forget(position.seq, at);
    }

    /// Returns the position of a record, or `None` if it is not after the last record.
    pub(super) fn next_position(&self, fence: Fence) -> Option<Fence> {
        (fence.seq > self.position?.seq).then_some(fence)
    }

    /// Moves to the record at `position`, and adds its event if it has a visible part.
    pub(super) fn advance(&mut self, position: Fence, at: Timestamp, event: Option<Event>) {
        if let Some(last) = self.position.filter(|last| last.log != position.log) {
            self.end(last);
        }
        let last = self.position.map_or(0, |last| last.seq);
        if position.seq > last.saturating_add(1) {
            self.forget(position.seq - 1, at);
        }
        self.position = Some(position);
        if let Some(event) = event {
            let kept = if event.is_public() { &mut self.events } else { &mut self.private };
            kept.push(event);
        }
    }

    /// Drops all events, because they were filtered by the previous settings.
    pub(super) fn restart(&mut self, now: Timestamp) {
        if let Some(position) = self.position {
            self.forget(position.seq, now);
        }
    }

    /// Returns the events after `since` that this user may see. Without `since`, returns a gap.
    pub(super) fn after<'a>(
        &'a self,
        since: Option<Fence>,
        user: Option<&'a PartitionMember>,
    ) -> CatchUp<'a> {
        let Some(position) = self.position else { return CatchUp::UpToDate(since) };
        let Some(since) = since else { return CatchUp::Gap(position) };
        let Some((start, end)) = self.extent(since.log) else { return CatchUp::OtherLog(position) };
        let low_watermark = if user.is_some() { self.private.low_watermark } else { 0 };
        if since.seq < start.max(self.events.low_watermark).max(low_watermark)
            || end.is_some_and(|end| since.seq > end)
        {
            return CatchUp::Gap(position);
        }
        let (public, private) = (self.events.after(since.seq), self.private.after(since.seq));
        let mut events = EventIter { public, private, user };
        if events.skip_to_next().is_some() {
            return CatchUp::Events(events);
        }
        // The client's previous node may have been ahead of this node.
        CatchUp::UpToDate(Some(Fence { seq: position.seq.max(since.seq), ..position }))
    }

    /// Returns the position that `since` refers to, or `None` if events after it may be missing.
    pub(super) fn find(&self, since: ResumePosition, now: Timestamp) -> Option<Fence> {
        if let ResumePosition::Position(since) = since {
            return Some(since);
        }
        let position = self.position?;
        match since {
            ResumePosition::Seq(seq) => {
                (seq <= position.seq).then(|| self.position_of(seq)).flatten()
            }
            ResumePosition::Time(time) if time > now => None,
            ResumePosition::Time(time) => self.from(time.saturating_sub(SKEW)),
            ResumePosition::Position(_) | ResumePosition::Foreign => None,
        }
    }

    /// Returns the position before the first event at or after this time, by the clock of the log.
    /// Returns `None` if events may be missing.
    fn from(&self, time: Timestamp) -> Option<Fence> {
        if self.events.low_watermark_at.is_none_or(|low_watermark_at| time <= low_watermark_at) {
            return None;
        }
        let seq_of = |kept: &EventBuffer| {
            let first = kept.events.iter().find(|event| event.at >= time);
            first.map(|event| event.position.seq.saturating_sub(1))
        };
        let first = [&self.events, &self.private].into_iter().filter_map(seq_of).min();
        self.position_of(first.unwrap_or(self.position?.seq))
    }

    /// Returns the position of the record with this sequence number.
    fn position_of(&self, seq: u64) -> Option<Fence> {
        let earlier = self.ends.iter().find(|end| seq <= end.seq);
        earlier.or(self.position.as_ref()).map(|log| Fence { seq, ..*log })
    }

    /// Returns the first and last sequence number of a log; `None` if the log is unknown. The last
    /// number of the current log is `None`.
    fn extent(&self, log: LogId) -> Option<(u64, Option<u64>)> {
        let mut start = 0;
        for end in &self.ends {
            if end.log == log {
                return Some((start, Some(end.seq)));
            }
            start = end.seq;
        }
        self.position.filter(|position| position.log == log).map(|_| (start, None))
    }

    /// Records the end of the current log, which another log continues.
    fn end(&mut self, last: Fence) {
        self.ends.push_back(last);
        if self.ends.len() > MAX_LOGS
            && let Some(oldest) = self.ends.pop_front()
        {
            self.events.raise_low_watermark(oldest.seq);
            self.private.raise_low_watermark(oldest.seq);
        }
    }

    fn forget(&mut self, low_watermark: u64, at: Timestamp) {
        self.ends.clear();
        self.events = EventBuffer::from(low_watermark, at);
        self.private = EventBuffer::from(low_watermark, at);
    }
}

impl EventBuffer {
    /// Creates an empty buffer that is complete after this record and time.
    fn from(low_watermark: u64, at: Timestamp) -> Self {
        Self { low_watermark, low_watermark_at: Some(at), ..Self::default() }
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.drop_oldest();
        }
    }

    /// Drops all events up to this record, and counts them as missing.
    fn raise_low_watermark(&mut self, low_watermark: u64) {
        self.low_watermark = self.low_watermark.max(low_watermark);
        while self.events.front().is_some_and(|event| event.position.seq <= self.low_watermark) {
            self.drop_oldest();
        }
    }

    fn after(&self, seq: u64) -> Peekable<vec_deque::Iter<'_, Event>> {
        let first = self.events.partition_point(|event| event.position.seq <= seq);
        self.events.range(first..).peekable()
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.events.pop_front() else { return };
        self.bytes -= oldest.size();
        self.low_watermark = self.low_watermark.max(oldest.position.seq);
        self.low_watermark_at = self.low_watermark_at.max(Some(oldest.at));
    }
}

impl<'a> EventIter<'a> {
    /// Skips events that the user may not see. Returns the buffer with the next event.
    fn skip_to_next(&mut self) -> Option<&mut Peekable<vec_deque::Iter<'a, Event>>> {
        let user = self.user;
        let hidden = move |event: &&Event| !event.is_for(user);
        while self.private.next_if(hidden).is_some() {}
        let next = |events: &mut Peekable<vec_deque::Iter<'a, Event>>| {
            events.peek().map(|event| event.position.seq)
        };
        match (next(&mut self.public), next(&mut self.private)) {
            (None, None) => None,
            (Some(public), Some(private)) if private < public => Some(&mut self.private),
            (Some(_), _) => Some(&mut self.public),
            (None, Some(_)) => Some(&mut self.private),
        }
    }
}

impl<'a> Iterator for EventIter<'a> {
    type Item = &'a Event;

    fn next(&mut self) -> Option<&'a Event> {
        self.skip_to_next()?.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feed::settings::VisibleTags,
        fence::{LogId, Purge, PurgeMode, PurgeRecord, PurgeSource},
    };

    fn position(log: u64, seq: u64) -> Fence {
        Fence { log: LogId(log), seq }
    }

    fn at(seq: u64) -> Timestamp {
        Timestamp::from_seconds(1000 + seq)
    }

    /// Adds a record of log 1, visible with this tag.
    fn take(ring: &mut EventRing, seq: u64, tag: Option<&str>) {
        take_of(ring, 1, seq, tag);
    }

    fn take_of(ring: &mut EventRing, log: u64, seq: u64, tag: Option<&str>) {
        let purge = Purge {
            mode: PurgeMode::Hard,
            selectors: vec![],
            source: PurgeSource::Api,
            reason: None,
            warm: false,
        };
        let record = PurgeRecord { seq, at: at(seq), purge };
        let event = |tag| {
            let shown = VisibleTags { tags: vec![tag], everything: false, private: vec![] };
            Event::new(position(log, seq), &record, &shown)
        };
        ring.advance(position(log, seq), at(seq), tag.map(event));
    }

    fn ring() -> EventRing {
        let mut ring = EventRing::default();
        ring.begin(position(1, 10), at(10));
        for seq in 11..=15 {
            take(&mut ring, seq, (seq % 2 == 0).then_some("a"));
        }
        ring
    }

    fn seqs(after: CatchUp<'_>) -> Vec<u64> {
        let CatchUp::Events(events) = after else { panic!("{after:?}") };
        events.map(|event| event.position.seq).collect()
    }

    #[test]
    fn a_position_yields_the_events_after_it() {
        let ring = ring();
        assert_eq!(seqs(ring.after(Some(position(1, 10)), None)), [12, 14]);
        assert_eq!(seqs(ring.after(Some(position(1, 12)), None)), [14]);
        for seq in [14, 15] {
            let CatchUp::UpToDate(Some(current)) = ring.after(Some(position(1, seq)), None) else {
                panic!()
            };
            assert_eq!(current, position(1, 15));
        }
        let CatchUp::UpToDate(Some(ahead)) = ring.after(Some(position(1, 17)), None) else {
            panic!()
        };
        assert_eq!(ahead, position(1, 17));
    }

    #[test]
    fn a_client_that_may_have_missed_events_gets_a_reset() {
        let ring = ring();
        for since in [Some(position(1, 9)), None] {
            let CatchUp::Gap(current) = ring.after(since, None) else { panic!("{since:?}") };
            assert_eq!(current, position(1, 15));
        }
        let CatchUp::OtherLog(current) = ring.after(Some(position(2, 12)), None) else { panic!() };
        assert_eq!(current, position(1, 15));
        assert!(matches!(
            EventRing::default().after(Some(position(1, 9)), None),
            CatchUp::UpToDate(Some(_))
        ));
    }

    #[test]
    fn clients_cannot_resume_in_a_gap() {
        let mut ring = ring();
        take(&mut ring, 18, Some("a"));
        assert!(matches!(ring.after(Some(position(1, 15)), None), CatchUp::Gap(_)));
        assert_eq!(seqs(ring.after(Some(position(1, 17)), None)), [18]);
        assert_eq!(ring.next_position(position(1, 18)), None);
        assert_eq!(ring.next_position(position(1, 19)), Some(position(1, 19)));
    }

    #[test]
    fn another_log_invalidates_all_positions() {
        let mut ring = ring();
        ring.begin(position(2, 15), at(15));
        assert!(matches!(ring.after(Some(position(1, 15)), None), CatchUp::OtherLog(_)));
        ring.begin(position(2, 20), at(15));
        assert!(matches!(ring.after(Some(position(2, 15)), None), CatchUp::Gap(_)));
        assert!(matches!(ring.after(Some(position(2, 20)), None), CatchUp::UpToDate(_)));
    }

    /// A ring with log 1 up to record 15, continued by log 2 up to record 18.
    fn continued() -> EventRing {
        let mut ring = ring();
        (16..=18).for_each(|seq| take_of(&mut ring, 2, seq, (seq % 2 == 0).then_some("a")));
        ring
    }

    #[test]
    fn clients_resume_across_continued_logs() {
        let ring = continued();
        assert_eq!(seqs(ring.after(Some(position(1, 12)), None)), [14, 16, 18]);
        assert_eq!(seqs(ring.after(Some(position(1, 15)), None)), [16, 18]);
        assert_eq!(seqs(ring.after(Some(position(2, 15)), None)), [16, 18]);
        assert_eq!(seqs(ring.after(Some(position(2, 16)), None)), [18]);
        let CatchUp::UpToDate(Some(current)) = ring.after(Some(position(2, 19)), None) else {
            panic!()
        };
        assert_eq!(current, position(2, 19));
        for elsewhere in [position(1, 16), position(2, 14), position(1, 9)] {
            assert!(matches!(ring.after(Some(elsewhere), None), CatchUp::Gap(_)), "{elsewhere:?}");
        }
        assert!(matches!(ring.after(Some(position(3, 16)), None), CatchUp::OtherLog(_)));
    }

    #[test]
    fn numbers_and_times_are_found_in_the_log_that_has_them() {
        let ring = continued();
        let find = |since| ring.find(since, at(100));
        assert_eq!(find(ResumePosition::Seq(12)), Some(position(1, 12)));
        assert_eq!(find(ResumePosition::Seq(15)), Some(position(1, 15)));
        assert_eq!(find(ResumePosition::Seq(16)), Some(position(2, 16)));
        assert_eq!(find(ResumePosition::Time(at(73))), Some(position(1, 13)));
        assert_eq!(find(ResumePosition::Time(at(77))), Some(position(2, 17)));
    }

    #[test]
    fn clients_cannot_resume_in_a_gap_between_two_logs() {
        let mut ring = ring();
        take_of(&mut ring, 2, 17, Some("a"));
        assert!(matches!(ring.after(Some(position(1, 15)), None), CatchUp::OtherLog(_)));
        assert!(matches!(ring.after(Some(position(2, 15)), None), CatchUp::Gap(_)));
        assert_eq!(seqs(ring.after(Some(position(2, 16)), None)), [17]);
    }

    #[test]
    fn the_number_of_remembered_logs_is_limited() {
        let mut ring = ring();
        let last = MAX_LOGS as u64 + 2;
        (2..=last).for_each(|log| take_of(&mut ring, log, 14 + log, Some("a")));
        assert_eq!((ring.ends.len(), ring.events.low_watermark), (MAX_LOGS, 15));
        assert!(matches!(ring.after(Some(position(1, 15)), None), CatchUp::OtherLog(_)));
        assert_eq!(seqs(ring.after(Some(position(2, 15)), None)).len(), MAX_LOGS + 1);
    }

    #[test]
    fn a_log_that_goes_back_is_another() {
        let mut ring = ring();
        ring.begin(position(1, 12), at(15));
        for seq in [11, 12, 15, 17] {
            assert!(
                matches!(ring.after(Some(position(1, seq)), None), CatchUp::OtherLog(_)),
                "{seq}"
            );
        }
        let CatchUp::Gap(current) = ring.after(None, None) else { panic!() };
        assert_eq!(current.seq, 12);
        assert!(matches!(ring.after(Some(current), None), CatchUp::UpToDate(_)));
    }

    #[test]
    fn it_is_bounded_in_count_and_bytes() {
        let mut ring = EventRing::default();
        ring.begin(position(1, 0), at(0));
        let last = MAX_EVENTS as u64 + 5;
        (1..=last).for_each(|seq| take(&mut ring, seq, Some("a")));
        assert_eq!(
            (ring.events.events.len(), ring.events.low_watermark, ring.events.low_watermark_at),
            (MAX_EVENTS, 5, Some(at(5)))
        );
        assert!(matches!(ring.after(Some(position(1, 4)), None), CatchUp::Gap(_)));
        assert_eq!(seqs(ring.after(Some(position(1, 5)), None)).len(), MAX_EVENTS);
        let large = "x".repeat(1 << 20);
        (last + 1..last + 9).for_each(|seq| take(&mut ring, seq, Some(&large)));
        assert!(
            ring.events.bytes <= MAX_BYTES && ring.events.events.len() == 3,
            "{}",
            ring.events.events.len()
        );
        ring.restart(at(0));
        assert_eq!((ring.events.bytes, ring.events.low_watermark), (0, last + 8));
    }

    #[test]
    fn positions_are_found_by_number_and_time() {
        let ring = ring();
        let now = at(100);
        let find = |since| ring.find(since, now);
        assert_eq!(find(ResumePosition::Seq(3)), Some(position(1, 3)));
        assert_eq!(find(ResumePosition::Seq(15)), Some(position(1, 15)));
        assert_eq!(find(ResumePosition::Seq(16)), None, "of another log");
        assert_eq!(find(ResumePosition::Time(at(70))), None, "before anything is known");
        assert_eq!(find(ResumePosition::Time(at(71))), Some(position(1, 11)));
        assert_eq!(
            find(ResumePosition::Time(at(72))),
            Some(position(1, 11)),
            "what came just then counts"
        );
        assert_eq!(find(ResumePosition::Time(at(73))), Some(position(1, 13)));
        assert_eq!(find(ResumePosition::Time(at(75))), Some(position(1, 15)));
        assert_eq!(find(ResumePosition::Time(at(101))), None, "a clock that is ahead");
        assert_eq!(find(ResumePosition::Foreign), None);
    }
}

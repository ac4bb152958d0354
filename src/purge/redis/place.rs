//! Where a node stands in the stream, and what follows from what it sees there.
//!
//! The rule under all of it: go on only where the stream surely continues what was applied; otherwise
//! raise the floor.

use super::entry::{Line, Mark};
use crate::{
    fence::{Fence, LogId},
    purge::Rise,
};

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It has applied nothing yet, and holds nothing.
    New,
    /// It has applied everything up to here.
    At(Mark),
    /// It has met what is none of ours, and cannot say what it missed.
    Lost,
}

/// What is in the stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    /// The run of the server; empty where nobody may know.
    pub(super) run: Box<str>,
    pub(super) first: Seen,
    pub(super) last: Seen,
    /// At the node's own place.
    pub(super) own: Seen,
}

/// An entry, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    /// One that is none of ours.
    Strange,
    Mark(Mark),
}

/// What a node does about what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It goes on from where it stands, to reach at least this.
    GoOn(u64),
    /// It follows the log from here, to reach at least `until`; what has an older fence is dead.
    Begin { mark: Mark, rise: Option<Rise>, until: u64 },
    /// Another log has to begin: the one there, or this one, must not go on.
    Renew(Option<LogId>),
}

/// What a node does about the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is applied already.
    Skip,
    Apply,
    /// First the floor rises to here.
    BeginAndApply(Fence, Rise),
}

impl Place {
    /// What to do about what the stream looks like.
    pub(super) fn decide(&self, sight: &Sight) -> Decision {
        let Seen::Mark(last) = &sight.last else { return Decision::Renew(None) };
        if is_other_run(&last.run, &sight.run) {
            return Decision::Renew(None);
        }
        match self {
            Self::New => begin_before(&sight.first, last, None),
            Self::Lost => begin_at(last),
            Self::At(mark) => go_on(mark, last, sight),
        }
    }

    /// The id of the entry applied last.
    pub(super) fn id(&self) -> String {
        match self {
            Self::At(mark) => format!("{}-0", mark.fence.seq),
            Self::New | Self::Lost => "0-0".to_owned(),
        }
    }

    /// The last place applied.
    pub(super) fn seq(&self) -> u64 {
        match self {
            Self::At(mark) => mark.fence.seq,
            Self::New | Self::Lost => 0,
        }
    }
}

impl Mark {
    /// What to do about the entry that comes after this one.
    pub(super) fn step(&self, line: &Line) -> Step {
        let Fence { log, seq } = line.mark.fence;
        let before = Fence { log, seq: seq.saturating_sub(1) };
        if seq <= self.fence.seq {
            Step::Skip
        } else if log == self.fence.log {
            match seq - self.fence.seq {
                1 => Step::Apply,
                _ => Step::BeginAndApply(before, Rise::Gap),
            }
        } else if let Some(rise) = line.begins {
            Step::BeginAndApply(before, rise)
        } else {
            let is_other = is_other_run(&self.run, &line.mark.run);
            Step::BeginAndApply(before, if is_other { Rise::Restart } else { Rise::Foreign })
        }
    }
}

/// Whether two runs are surely not the same.
fn is_other_run(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

fn go_on(mark: &Mark, last: &Mark, sight: &Sight) -> Decision {
    let seq = mark.fence.seq;
    match (&sight.own, &sight.first) {
        (Seen::Mark(own), _) if own.fence == mark.fence && is_same(own.nonce, mark.nonce) => {
            Decision::GoOn(last.fence.seq)
        }
        (Seen::Nothing, Seen::Mark(first)) if first.fence.seq == seq + 1 => {
            Decision::GoOn(last.fence.seq)
        }
        (Seen::Nothing, Seen::Mark(first)) if first.fence.seq > seq => {
            begin_before(&sight.first, last, Some(Rise::Gap))
        }
        // What was applied is not there, or something else is in its place.
        _ if last.fence.log == mark.fence.log => Decision::Renew(Some(mark.fence.log)),
        _ => begin_at(last),
    }
}

fn is_same(one: Option<u64>, other: Option<u64>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Follows the stream from its first entry on.
fn begin_before(first: &Seen, last: &Mark, rise: Option<Rise>) -> Decision {
    let Seen::Mark(first) = first else { return begin_at(last) };
    let seq = first.fence.seq.saturating_sub(1);
    let fence = Fence { seq, ..first.fence };
    let mark = Mark { fence, nonce: None, run: first.run.clone() };
    Decision::Begin { mark, rise, until: last.fence.seq }
}

/// Follows the stream from its end on: everything there is may have been purged.
fn begin_at(last: &Mark) -> Decision {
    let until = last.fence.seq;
    Decision::Begin { mark: last.clone(), rise: Some(Rise::Foreign), until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fence::{Purge, Record},
        field::Timestamp,
    };

    const RUN: &str = "run-one";

    /// A mark whose nonce follows from log and place.
    fn mark(log: u64, seq: u64) -> Mark {
        let nonce = Some(log * 1000 + seq);
        Mark { fence: Fence { log: LogId(log), seq }, nonce, run: RUN.into() }
    }

    fn seen(log: u64, seq: u64) -> Seen {
        Seen::Mark(mark(log, seq))
    }

    fn sight(first: Seen, last: Seen, own: Seen) -> Sight {
        Sight { run: RUN.into(), first, last, own }
    }

    fn at(log: u64, seq: u64) -> Place {
        Place::At(mark(log, seq))
    }

    fn begins_at(decision: &Decision, log: u64, seq: u64, rise: Option<Rise>) {
        let Decision::Begin { mark, rise: given, .. } = decision else { panic!("{decision:?}") };
        assert_eq!((mark.fence, *given), (Fence { log: LogId(log), seq }, rise));
    }

    fn every_place() -> [Place; 3] {
        [Place::New, at(1, 5), Place::Lost]
    }

    #[test]
    fn an_empty_or_strange_stream_gets_another_log() {
        for place in every_place() {
            let empty = sight(Seen::Nothing, Seen::Nothing, Seen::Nothing);
            assert_eq!(place.decide(&empty), Decision::Renew(None));
            let strange = sight(seen(1, 1), Seen::Strange, seen(1, 5));
            assert_eq!(place.decide(&strange), Decision::Renew(None));
        }
    }

    #[test]
    fn a_server_that_restarted_gets_another_log() {
        for place in every_place() {
            let sight =
                Sight { run: "run-two".into(), ..sight(seen(1, 1), seen(1, 5), seen(1, 5)) };
            assert_eq!(place.decide(&sight), Decision::Renew(None));
        }
    }

    #[test]
    fn a_run_that_nobody_may_know_is_no_other_run() {
        let unknown = Sight { run: "".into(), ..sight(seen(1, 1), seen(1, 9), seen(1, 5)) };
        assert_eq!(at(1, 5).decide(&unknown), Decision::GoOn(9));
        let last = Seen::Mark(Mark { run: "".into(), ..mark(1, 9) });
        assert_eq!(at(1, 5).decide(&sight(seen(1, 1), last, seen(1, 5))), Decision::GoOn(9));
    }

    #[test]
    fn a_new_node_reads_all_there_is() {
        let sight = sight(seen(1, 4), seen(2, 9), Seen::Nothing);
        let decision = Place::New.decide(&sight);
        begins_at(&decision, 1, 3, None);
        assert!(matches!(decision, Decision::Begin { until: 9, .. }));
    }

    #[test]
    fn a_new_node_skips_a_beginning_that_is_none_of_ours() {
        let sight = sight(Seen::Strange, seen(2, 9), Seen::Nothing);
        begins_at(&Place::New.decide(&sight), 2, 9, Some(Rise::Foreign));
    }

    #[test]
    fn a_lost_node_follows_from_the_end_on() {
        let sight = sight(seen(1, 1), seen(1, 9), Seen::Nothing);
        begins_at(&Place::Lost.decide(&sight), 1, 9, Some(Rise::Foreign));
    }

    #[test]
    fn a_node_goes_on_where_its_place_is_as_it_was() {
        let sight = sight(seen(1, 1), seen(2, 9), seen(1, 5));
        assert_eq!(at(1, 5).decide(&sight), Decision::GoOn(9));
    }

    #[test]
    fn a_node_goes_on_where_just_its_own_place_was_trimmed() {
        let sight = sight(seen(1, 6), seen(1, 9), Seen::Nothing);
        assert_eq!(at(1, 5).decide(&sight), Decision::GoOn(9));
    }

    #[test]
    fn a_gap_raises_the_floor_to_it() {
        let sight = sight(seen(1, 7), seen(1, 9), Seen::Nothing);
        begins_at(&at(1, 5).decide(&sight), 1, 6, Some(Rise::Gap));
    }

    #[test]
    fn a_log_that_lost_its_end_must_not_go_on() {
        let sight = sight(seen(1, 1), seen(1, 4), Seen::Nothing);
        assert_eq!(at(1, 5).decide(&sight), Decision::Renew(Some(LogId(1))));
    }

    #[test]
    fn a_log_that_was_rewritten_must_not_go_on() {
        let rewritten = Seen::Mark(Mark { nonce: Some(0), ..mark(1, 5) });
        let sight = sight(seen(1, 1), seen(1, 9), rewritten);
        assert_eq!(at(1, 5).decide(&sight), Decision::Renew(Some(LogId(1))));
    }

    #[test]
    fn a_log_with_a_hole_at_the_nodes_place_must_not_go_on() {
        let sight = sight(seen(1, 1), seen(1, 9), Seen::Nothing);
        assert_eq!(at(1, 5).decide(&sight), Decision::Renew(Some(LogId(1))));
    }

    #[test]
    fn another_log_that_is_shorter_or_in_the_way_kills_everything() {
        let shorter = sight(seen(2, 1), seen(2, 4), Seen::Nothing);
        begins_at(&at(1, 5).decide(&shorter), 2, 4, Some(Rise::Foreign));
        let in_the_way = sight(seen(2, 1), seen(2, 9), seen(2, 5));
        begins_at(&at(1, 5).decide(&in_the_way), 2, 9, Some(Rise::Foreign));
        let hole = sight(seen(1, 1), seen(2, 9), Seen::Nothing);
        begins_at(&at(1, 5).decide(&hole), 2, 9, Some(Rise::Foreign));
    }

    fn line(log: u64, seq: u64) -> Line {
        let at = Timestamp::from_millis(0);
        let record = Record { seq, at, purge: Purge::boundary() };
        Line { mark: mark(log, seq), begins: None, by: None, record }
    }

    #[test]
    fn the_next_record_of_the_log_is_applied() {
        assert_eq!(mark(1, 5).step(&line(1, 6)), Step::Apply);
        assert_eq!(mark(1, 5).step(&line(1, 5)), Step::Skip);
        assert_eq!(mark(1, 5).step(&line(2, 4)), Step::Skip);
    }

    #[test]
    fn missing_records_raise_the_floor() {
        let floor = Fence { log: LogId(1), seq: 7 };
        assert_eq!(mark(1, 5).step(&line(1, 8)), Step::BeginAndApply(floor, Rise::Gap));
    }

    #[test]
    fn another_log_raises_the_floor_and_tells_why() {
        let floor = Fence { log: LogId(2), seq: 5 };
        let begins = |line: &Line| mark(1, 5).step(line);
        assert_eq!(begins(&line(2, 6)), Step::BeginAndApply(floor, Rise::Foreign));
        let restarted = Mark { run: "run-two".into(), ..mark(2, 6) };
        let restarted = Line { mark: restarted, ..line(2, 6) };
        assert_eq!(begins(&restarted), Step::BeginAndApply(floor, Rise::Restart));
        let told = Line { begins: Some(Rise::Empty), ..line(2, 6) };
        assert_eq!(begins(&told), Step::BeginAndApply(floor, Rise::Empty));
    }
}

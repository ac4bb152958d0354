//! The position of a node in the stream, and the decision to continue or to start over.
//!
//! Invariant: a node continues only if the stream provably continues the records that it has
//! applied. Otherwise it raises the low watermark.

use super::stream_entry::{LogEntry, StreamPosition};
use crate::{
    fence::{Fence, LogId},
    purge::WatermarkRaise,
};

/// The position of a node in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamCursor {
    /// The node has neither applied a record nor stored a response yet.
    New,
    /// The node has applied everything up to this position.
    At(StreamPosition),
    /// An unreadable entry was found, so records may have been missed.
    Lost,
}

/// The state of the stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamView {
    /// The run id of the Redis server; empty if the ACL denies access to it.
    pub(super) run: Box<str>,
    pub(super) first: ViewedEntry,
    pub(super) last: ViewedEntry,
    /// The entry at the position of this node.
    pub(super) own: ViewedEntry,
}

/// The entry, if any, at one position in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ViewedEntry {
    Missing,
    /// An entry that Larder did not write.
    Foreign,
    Known(StreamPosition),
}

/// The decision of a node that has viewed the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SyncDecision {
    /// Continue from the current position. The node is synced once it reaches this sequence number.
    Continue(u64),
    /// Follow the log from `position`. The node is synced at `until`. Older fences are invalid.
    Begin { position: StreamPosition, raise: Option<WatermarkRaise>, until: u64 },
    /// Start a new log. If an id is given, the log with this id must not continue.
    StartNewLog(Option<LogId>),
}

/// How a node handles the next entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryAction {
    Skip,
    Apply,
    /// Raise the low watermark to this fence, then apply the entry.
    BeginAndApply(Fence, WatermarkRaise),
}

impl StreamCursor {
    /// Decides how to proceed after a view of the stream.
    pub(super) fn decide(&self, view: &StreamView) -> SyncDecision {
        let ViewedEntry::Known(last) = &view.last else { return SyncDecision::StartNewLog(None) };
        if is_other_run(&last.run, &view.run) {
            return SyncDecision::StartNewLog(None);
        }
        match self {
            Self::New => restart_at_first(&view.first, last, None),
            Self::Lost => restart_at_end(last),
            Self::At(position) => continue_or_restart(position, last, view),
        }
    }

    /// Returns the stream id of the last entry applied.
    pub(super) fn id(&self) -> String {
        match self {
            Self::At(position) => format!("{}-0", position.fence.seq),
            Self::New | Self::Lost => "0-0".to_owned(),
        }
    }

    /// Returns the sequence number of the last record applied.
    pub(super) fn seq(&self) -> u64 {
        match self {
            Self::At(position) => position.fence.seq,
            Self::New | Self::Lost => 0,
        }
    }
}

impl StreamPosition {
    /// Decides how to handle the entry that follows this position.
    pub(super) fn action_for(&self, log_entry: &LogEntry) -> EntryAction {
        let Fence { log, seq } = log_entry.position.fence;
        let before = Fence { log, seq: seq.saturating_sub(1) };
        if seq <= self.fence.seq {
            EntryAction::Skip
        } else if log == self.fence.log {
            match seq - self.fence.seq {
                1 => EntryAction::Apply,
                _ => EntryAction::BeginAndApply(before, WatermarkRaise::Gap),
            }
        } else if let Some(raise) = log_entry.begins {
            EntryAction::BeginAndApply(before, raise)
        } else {
            let is_other = is_other_run(&self.run, &log_entry.position.run);
            EntryAction::BeginAndApply(
                before,
                if is_other { WatermarkRaise::Restart } else { WatermarkRaise::Foreign },
            )
        }
    }
}

/// Returns whether two run ids are known to differ.
fn is_other_run(one: &str, other: &str) -> bool {
    !one.is_empty() && !other.is_empty() && one != other
}

fn continue_or_restart(
    position: &StreamPosition,
    last: &StreamPosition,
    view: &StreamView,
) -> SyncDecision {
    let seq = position.fence.seq;
    match (&view.own, &view.first) {
        (ViewedEntry::Known(own), _)
            if own.fence == position.fence && may_be_same(own.nonce, position.nonce) =>
        {
            SyncDecision::Continue(last.fence.seq)
        }
        (ViewedEntry::Missing, ViewedEntry::Known(first)) if first.fence.seq == seq + 1 => {
            SyncDecision::Continue(last.fence.seq)
        }
        (ViewedEntry::Missing, ViewedEntry::Known(first)) if first.fence.seq > seq => {
            restart_at_first(&view.first, last, Some(WatermarkRaise::Gap))
        }
        // The applied record is missing or was replaced.
        _ if last.fence.log == position.fence.log => {
            SyncDecision::StartNewLog(Some(position.fence.log))
        }
        _ => restart_at_end(last),
    }
}

fn may_be_same(one: Option<u64>, other: Option<u64>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// Returns the decision to follow the stream from its first entry.
fn restart_at_first(
    first: &ViewedEntry,
    last: &StreamPosition,
    raise: Option<WatermarkRaise>,
) -> SyncDecision {
    let ViewedEntry::Known(first) = first else { return restart_at_end(last) };
    let seq = first.fence.seq.saturating_sub(1);
    let fence = Fence { seq, ..first.fence };
    let position = StreamPosition { fence, nonce: None, run: first.run.clone() };
    SyncDecision::Begin { position, raise, until: last.fence.seq }
}

/// Returns the decision to follow the stream from its end and to invalidate all stored responses.
fn restart_at_end(last: &StreamPosition) -> SyncDecision {
    let until = last.fence.seq;
    SyncDecision::Begin { position: last.clone(), raise: Some(WatermarkRaise::Foreign), until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fence::{Purge, PurgeRecord},
        field::Timestamp,
    };

    const RUN: &str = "run-one";

    /// A position with a nonce derived from log and sequence number.
    fn position(log: u64, seq: u64) -> StreamPosition {
        let nonce = Some(log * 1000 + seq);
        StreamPosition { fence: Fence { log: LogId(log), seq }, nonce, run: RUN.into() }
    }

    fn seen(log: u64, seq: u64) -> ViewedEntry {
        ViewedEntry::Known(position(log, seq))
    }

    fn view(first: ViewedEntry, last: ViewedEntry, own: ViewedEntry) -> StreamView {
        StreamView { run: RUN.into(), first, last, own }
    }

    fn at(log: u64, seq: u64) -> StreamCursor {
        StreamCursor::At(position(log, seq))
    }

    fn begins_at(decision: &SyncDecision, log: u64, seq: u64, raise: Option<WatermarkRaise>) {
        let SyncDecision::Begin { position, raise: given, .. } = decision else {
            panic!("{decision:?}")
        };
        assert_eq!((position.fence, *given), (Fence { log: LogId(log), seq }, raise));
    }

    fn every_cursor() -> [StreamCursor; 3] {
        [StreamCursor::New, at(1, 5), StreamCursor::Lost]
    }

    #[test]
    fn an_empty_or_strange_stream_gets_another_log() {
        for cursor in every_cursor() {
            let empty = view(ViewedEntry::Missing, ViewedEntry::Missing, ViewedEntry::Missing);
            assert_eq!(cursor.decide(&empty), SyncDecision::StartNewLog(None));
            let strange = view(seen(1, 1), ViewedEntry::Foreign, seen(1, 5));
            assert_eq!(cursor.decide(&strange), SyncDecision::StartNewLog(None));
        }
    }

    #[test]
    fn a_server_that_restarted_gets_another_log() {
        for cursor in every_cursor() {
            let view =
                StreamView { run: "run-two".into(), ..view(seen(1, 1), seen(1, 5), seen(1, 5)) };
            assert_eq!(cursor.decide(&view), SyncDecision::StartNewLog(None));
        }
    }

    #[test]
    fn an_unknown_run_id_is_not_another_run() {
        let unknown = StreamView { run: "".into(), ..view(seen(1, 1), seen(1, 9), seen(1, 5)) };
        assert_eq!(at(1, 5).decide(&unknown), SyncDecision::Continue(9));
        let last = ViewedEntry::Known(StreamPosition { run: "".into(), ..position(1, 9) });
        assert_eq!(at(1, 5).decide(&view(seen(1, 1), last, seen(1, 5))), SyncDecision::Continue(9));
    }

    #[test]
    fn a_new_node_reads_the_whole_log() {
        let view = view(seen(1, 4), seen(2, 9), ViewedEntry::Missing);
        let decision = StreamCursor::New.decide(&view);
        begins_at(&decision, 1, 3, None);
        assert!(matches!(decision, SyncDecision::Begin { until: 9, .. }));
    }

    #[test]
    fn a_new_node_skips_a_foreign_beginning() {
        let view = view(ViewedEntry::Foreign, seen(2, 9), ViewedEntry::Missing);
        begins_at(&StreamCursor::New.decide(&view), 2, 9, Some(WatermarkRaise::Foreign));
    }

    #[test]
    fn a_lost_node_follows_from_the_end_on() {
        let view = view(seen(1, 1), seen(1, 9), ViewedEntry::Missing);
        begins_at(&StreamCursor::Lost.decide(&view), 1, 9, Some(WatermarkRaise::Foreign));
    }

    #[test]
    fn a_node_continues_if_its_entry_is_unchanged() {
        let view = view(seen(1, 1), seen(2, 9), seen(1, 5));
        assert_eq!(at(1, 5).decide(&view), SyncDecision::Continue(9));
    }

    #[test]
    fn a_node_continues_if_only_its_own_entry_was_trimmed() {
        let view = view(seen(1, 6), seen(1, 9), ViewedEntry::Missing);
        assert_eq!(at(1, 5).decide(&view), SyncDecision::Continue(9));
    }

    #[test]
    fn a_gap_raises_the_low_watermark() {
        let view = view(seen(1, 7), seen(1, 9), ViewedEntry::Missing);
        begins_at(&at(1, 5).decide(&view), 1, 6, Some(WatermarkRaise::Gap));
    }

    #[test]
    fn a_log_that_lost_its_end_must_not_go_on() {
        let view = view(seen(1, 1), seen(1, 4), ViewedEntry::Missing);
        assert_eq!(at(1, 5).decide(&view), SyncDecision::StartNewLog(Some(LogId(1))));
    }

    #[test]
    fn a_log_that_was_rewritten_must_not_go_on() {
        let rewritten = ViewedEntry::Known(StreamPosition { nonce: Some(0), ..position(1, 5) });
        let view = view(seen(1, 1), seen(1, 9), rewritten);
        assert_eq!(at(1, 5).decide(&view), SyncDecision::StartNewLog(Some(LogId(1))));
    }

    #[test]
    fn a_log_with_a_hole_at_the_nodes_place_must_not_go_on() {
        let view = view(seen(1, 1), seen(1, 9), ViewedEntry::Missing);
        assert_eq!(at(1, 5).decide(&view), SyncDecision::StartNewLog(Some(LogId(1))));
    }

    #[test]
    fn another_log_invalidates_everything() {
        let shorter = view(seen(2, 1), seen(2, 4), ViewedEntry::Missing);
        begins_at(&at(1, 5).decide(&shorter), 2, 4, Some(WatermarkRaise::Foreign));
        let in_the_way = view(seen(2, 1), seen(2, 9), seen(2, 5));
        begins_at(&at(1, 5).decide(&in_the_way), 2, 9, Some(WatermarkRaise::Foreign));
        let hole = view(seen(1, 1), seen(2, 9), ViewedEntry::Missing);
        begins_at(&at(1, 5).decide(&hole), 2, 9, Some(WatermarkRaise::Foreign));
    }

    fn log_entry(log: u64, seq: u64) -> LogEntry {
        let at = Timestamp::from_millis(0);
        let record = PurgeRecord { seq, at, purge: Purge::boundary() };
        LogEntry { position: position(log, seq), begins: None, by: None, record }
    }

    #[test]
    fn the_next_record_of_the_log_is_applied() {
        assert_eq!(position(1, 5).action_for(&log_entry(1, 6)), EntryAction::Apply);
        assert_eq!(position(1, 5).action_for(&log_entry(1, 5)), EntryAction::Skip);
        assert_eq!(position(1, 5).action_for(&log_entry(2, 4)), EntryAction::Skip);
    }

    #[test]
    fn missing_records_raise_the_low_watermark() {
        let low_watermark = Fence { log: LogId(1), seq: 7 };
        assert_eq!(
            position(1, 5).action_for(&log_entry(1, 8)),
            EntryAction::BeginAndApply(low_watermark, WatermarkRaise::Gap)
        );
    }

    #[test]
    fn another_log_raises_the_low_watermark_with_its_cause() {
        let low_watermark = Fence { log: LogId(2), seq: 5 };
        let begins = |log_entry: &LogEntry| position(1, 5).action_for(log_entry);
        assert_eq!(
            begins(&log_entry(2, 6)),
            EntryAction::BeginAndApply(low_watermark, WatermarkRaise::Foreign)
        );
        let restarted = StreamPosition { run: "run-two".into(), ..position(2, 6) };
        let restarted = LogEntry { position: restarted, ..log_entry(2, 6) };
        assert_eq!(
            begins(&restarted),
            EntryAction::BeginAndApply(low_watermark, WatermarkRaise::Restart)
        );
        let with_cause = LogEntry { begins: Some(WatermarkRaise::Empty), ..log_entry(2, 6) };
        assert_eq!(
            begins(&with_cause),
            EntryAction::BeginAndApply(low_watermark, WatermarkRaise::Empty)
        );
    }
}

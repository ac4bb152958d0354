//! The history of a run, and the check that it is consistent.
//!
//! The origin numbers its requests. After an acknowledged purge, every read returns a greater
//! number than the last one before the purge. So each target has a *lower bound* that only grows.
//! Each read is compared with the bound at its start.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::targets::{Selector, Target};

/// Span and number of reads before a violation that its report includes.
const BEFORE: Duration = Duration::from_secs(2);
const READS: usize = 30;

/// A process in a slot. Another process in the same slot is another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeProcess {
    pub(super) slot: usize,
    pub(super) process: usize,
}

impl fmt::Display for NodeProcess {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "node {} (process {})", self.slot, self.process)
    }
}

/// The nodes on which a purge is effective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Everywhere,
    /// On the node that took it.
    Here(NodeProcess),
}

/// A span of the history.
#[derive(Debug)]
struct Event {
    begin: Instant,
    end: Option<Instant>,
    text: String,
    /// The selectors of a purge; none for a fault.
    selectors: Vec<Selector>,
}

/// A response read by a client.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) seat: NodeProcess,
    pub(super) target: usize,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) number: u64,
    pub(super) cache: String,
}

/// The smallest number that a read may return, and the event that requires it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LowerBound {
    number: u64,
    event: usize,
}

pub(super) struct History {
    pub(super) begin: Instant,
    pub(super) targets: Vec<Target>,
    log: Mutex<HistoryState>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct HistoryState {
    events: Vec<Event>,
    reads: Vec<Read>,
    everywhere: Vec<LowerBound>,
    here: HashMap<NodeProcess, Vec<LowerBound>>,
    counts: BTreeMap<String, usize>,
    violations: Vec<String>,
}

impl History {
    pub(super) fn of(targets: Vec<Target>) -> Self {
        let log = HistoryState {
            everywhere: vec![LowerBound::default(); targets.len()],
            ..HistoryState::default()
        };
        let (log, is_over) = (Mutex::new(log), AtomicBool::new(false));
        Self { begin: Instant::now(), targets, log, is_over }
    }

    /// Returns whether the run is over, by time or by a violation.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    pub(super) fn finish(&self) {
        self.is_over.store(true, SeqCst);
    }

    /// Increments a counter of the coverage check.
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.log.lock().unwrap().counts.entry(what.into()).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        self.log.lock().unwrap().counts.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.log.lock().unwrap().violations.clone()
    }

    /// Records a violation, and ends the run.
    pub(super) fn violated(&self, text: String) {
        self.log.lock().unwrap().violations.push(text);
        self.finish();
    }

    /// Starts a purge or a fault, and returns its number.
    pub(super) fn begins(&self, text: String, selectors: Vec<Selector>) -> usize {
        let mut log = self.log.lock().unwrap();
        log.events.push(Event { begin: Instant::now(), end: None, text, selectors });
        log.events.len() - 1
    }

    /// Ends an event with this outcome.
    pub(super) fn ends(&self, event: usize, outcome: &str) {
        let mut log = self.log.lock().unwrap();
        let event = &mut log.events[event];
        event.end = Some(Instant::now());
        write!(event.text, " → {outcome}").unwrap();
    }

    /// Requires greater numbers than `number` for everything that this event purges, within
    /// `reach`.
    pub(super) fn require(&self, event: usize, number: u64, reach: Reach) {
        let mut log = self.log.lock().unwrap();
        let HistoryState { events, everywhere, here, .. } = &mut *log;
        let bounds = match reach {
            Reach::Everywhere => everywhere,
            Reach::Here(seat) => {
                here.entry(seat).or_insert_with(|| vec![LowerBound::default(); self.targets.len()])
            }
        };
        for (target, bound) in self.targets.iter().zip(bounds) {
            let is_selected = events[event].selectors.iter().any(|each| each.selects(target));
            if is_selected && number > bound.number {
                *bound = LowerBound { number, event };
            }
        }
    }

    /// Returns the lower bound of a read that starts now.
    pub(super) fn lower_bound(&self, seat: NodeProcess, target: usize) -> LowerBound {
        let log = self.log.lock().unwrap();
        let everywhere = log.everywhere[target];
        let here = log.here.get(&seat).map(|bounds| bounds[target]);
        here.filter(|here| here.number > everywhere.number).unwrap_or(everywhere)
    }

    /// Records a read, and checks it against its lower bound.
    pub(super) fn read(&self, read: &Read, bound: LowerBound) {
        let mut log = self.log.lock().unwrap();
        *log.counts.entry(format!("read {}", read.cache)).or_default() += 1;
        let is_old = read.number < bound.number;
        log.reads.push(read.clone());
        if is_old && log.violations.is_empty() {
            let report = self.excerpt(&log, read, bound);
            log.violations.push(report);
            self.finish();
        }
    }

    /// Returns the events and reads around a violation.
    fn excerpt(&self, log: &HistoryState, read: &Read, bound: LowerBound) -> String {
        let target = &self.targets[read.target];
        let purge = &log.events[bound.event];
        let mut lines = vec![format!(
            "{} {}: read {} on {}, expected at least {} since: {}",
            self.at(read.begin),
            target.path,
            read.number,
            read.seat,
            bound.number,
            purge.text
        )];
        let begin = purge.begin.checked_sub(BEFORE).unwrap_or(self.begin);
        let around =
            |event: &&Event| event.begin <= read.end && event.end.is_none_or(|end| end >= begin);
        let concerns = |event: &&Event| {
            event.selectors.is_empty() || event.selectors.iter().any(|each| each.selects(target))
        };
        let mut report: Vec<(Instant, String)> = Vec::new();
        for event in log.events.iter().filter(around).filter(concerns) {
            let end = event.end.map_or("…".to_owned(), |end| self.at(end));
            let text = format!("{}–{end} {}", self.at(event.begin), event.text);
            report.push((event.begin, text));
        }
        let reads = log.reads.iter().rev().filter(|each| each.target == read.target);
        for each in reads.take_while(|each| each.end >= begin).take(READS) {
            let Read { begin, end, seat, number, cache, .. } = each;
            let (at, end) = (self.at(*begin), self.at(*end));
            report.push((*begin, format!("{at}–{end} {seat}: {cache} {number}")));
        }
        report.sort();
        lines.extend(report.into_iter().map(|(_, text)| format!("    {text}")));
        lines.join("\n")
    }

    /// Formats an instant in seconds since the start of the run.
    fn at(&self, moment: Instant) -> String {
        format!("{:.3}", moment.saturating_duration_since(self.begin).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::targets;

    const ONE: NodeProcess = NodeProcess { slot: 0, process: 0 };
    const OTHER: NodeProcess = NodeProcess { slot: 1, process: 1 };

    /// A history in which the first target was purged after origin request 7.
    fn purged(reach: Reach) -> History {
        let history = History::of(targets::all());
        let selector = Selector::Url(history.targets[0].path.clone());
        let event = history.begins("PURGE".to_owned(), vec![selector]);
        history.ends(event, "200");
        history.require(event, 8, reach);
        history
    }

    /// Returns the violation caused by a read that starts now.
    fn read(history: &History, seat: NodeProcess, target: usize, number: u64) -> Vec<String> {
        let (bound, begin) = (history.lower_bound(seat, target), Instant::now());
        let read = Read { seat, target, begin, end: begin, number, cache: "HIT".to_owned() };
        history.read(&read, bound);
        history.violations()
    }

    #[test]
    fn responses_requested_before_a_purge_are_not_read_after_it() {
        let history = purged(Reach::Everywhere);
        assert!(read(&history, ONE, 0, 8).is_empty() && !history.is_over());
        assert!(read(&history, ONE, 1, 7).is_empty(), "it is another target");
        let report = read(&history, OTHER, 0, 7).join("\n");
        assert!(report.contains("read 7 on node 1 (process 1), expected at least 8"), "{report}");
        assert!(report.contains("PURGE → 200") && report.contains("HIT 7"), "{report}");
        assert!(history.is_over());
    }

    #[test]
    fn a_read_that_began_before_the_acknowledgement_may_be_older() {
        let history = purged(Reach::Here(OTHER));
        let (bound, begin) = (history.lower_bound(ONE, 0), Instant::now());
        history.require(0, 8, Reach::Everywhere);
        let (seat, target, end) = (ONE, 0, Instant::now());
        let cache = "HIT".to_owned();
        history.read(&Read { seat, target, begin, end, number: 7, cache }, bound);
        assert!(history.violations().is_empty());
    }

    #[test]
    fn a_local_acknowledgement_binds_one_node_only() {
        let history = purged(Reach::Here(ONE));
        assert!(read(&history, OTHER, 0, 7).is_empty());
        assert!(!read(&history, ONE, 0, 7).is_empty());
    }
}

//! What happened in a run, and whether it may have happened.
//!
//! The origin numbers the requests that it gets. Whoever acknowledges a purge says thereby: what is
//! read from now on has a greater number than the last one before the purge was asked for. Each target
//! so has a *least* number, which only grows, and each read is held against what it was when the read
//! began.

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

/// How much of the history before the purge, and how many reads, are told of a violation.
const BEFORE: Duration = Duration::from_secs(2);
const READS: usize = 30;

/// A process in its place among the nodes. Another process in the same place is another node.
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

/// Where a purge holds.
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
    /// What it purges; nothing where it is a fault.
    selectors: Vec<Selector>,
}

/// A response that a client read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) seat: NodeProcess,
    pub(super) target: usize,
    pub(super) begin: Instant,
    pub(super) end: Instant,
    pub(super) number: u64,
    pub(super) cache: String,
}

/// The least number that a target may be read with, and the event from which that follows.
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

    /// Whether nothing more is to be done: the time is over, or something was found.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    pub(super) fn finish(&self) {
        self.is_over.store(true, SeqCst);
    }

    /// Counts what a run must not lack.
    pub(super) fn count(&self, what: impl Into<String>) {
        *self.log.lock().unwrap().counts.entry(what.into()).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        self.log.lock().unwrap().counts.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.log.lock().unwrap().violations.clone()
    }

    /// Notes something that must not happen, and ends the run.
    pub(super) fn violated(&self, text: String) {
        self.log.lock().unwrap().violations.push(text);
        self.finish();
    }

    /// Begins something that may purge, or break; its number.
    pub(super) fn begins(&self, text: String, selectors: Vec<Selector>) -> usize {
        let mut log = self.log.lock().unwrap();
        log.events.push(Event { begin: Instant::now(), end: None, text, selectors });
        log.events.len() - 1
    }

    /// Ends it, with this outcome.
    pub(super) fn ends(&self, event: usize, outcome: &str) {
        let mut log = self.log.lock().unwrap();
        let event = &mut log.events[event];
        event.end = Some(Instant::now());
        write!(event.text, " → {outcome}").unwrap();
    }

    /// From now on nothing is read of what this event purges with a lower number, as far as it reaches.
    pub(super) fn holds(&self, event: usize, number: u64, reach: Reach) {
        let mut log = self.log.lock().unwrap();
        let HistoryState { events, everywhere, here, .. } = &mut *log;
        let bounds = match reach {
            Reach::Everywhere => everywhere,
            Reach::Here(seat) => {
                here.entry(seat).or_insert_with(|| vec![LowerBound::default(); self.targets.len()])
            }
        };
        for (target, least) in self.targets.iter().zip(bounds) {
            let is_selected = events[event].selectors.iter().any(|each| each.selects(target));
            if is_selected && number > least.number {
                *least = LowerBound { number, event };
            }
        }
    }

    /// What a read that begins now has to bring at least.
    pub(super) fn least(&self, seat: NodeProcess, target: usize) -> LowerBound {
        let log = self.log.lock().unwrap();
        let everywhere = log.everywhere[target];
        let here = log.here.get(&seat).map(|bounds| bounds[target]);
        here.filter(|here| here.number > everywhere.number).unwrap_or(everywhere)
    }

    /// Notes a read, and holds it against what it had to bring.
    pub(super) fn read(&self, read: &Read, least: LowerBound) {
        let mut log = self.log.lock().unwrap();
        *log.counts.entry(format!("read {}", read.cache)).or_default() += 1;
        let is_old = read.number < least.number;
        log.reads.push(read.clone());
        if is_old && log.violations.is_empty() {
            let report = self.excerpt(&log, read, least);
            log.violations.push(report);
            self.finish();
        }
    }

    /// What happened around a read that got what was purged before it.
    fn excerpt(&self, log: &HistoryState, read: &Read, least: LowerBound) -> String {
        let target = &self.targets[read.target];
        let purge = &log.events[least.event];
        let mut lines = vec![format!(
            "{} {}: read {} on {}, which had to be {} at least since: {}",
            self.at(read.begin),
            target.path,
            read.number,
            read.seat,
            least.number,
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

    /// A moment of the run, in seconds.
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

    /// A history in which the first target was purged when the origin had given the number 7.
    fn purged(reach: Reach) -> History {
        let history = History::of(targets::all());
        let selector = Selector::Url(history.targets[0].path.clone());
        let event = history.begins("PURGE".to_owned(), vec![selector]);
        history.ends(event, "200");
        history.holds(event, 8, reach);
        history
    }

    /// What is said of a read that begins now.
    fn read(history: &History, seat: NodeProcess, target: usize, number: u64) -> Vec<String> {
        let (least, begin) = (history.least(seat, target), Instant::now());
        let read = Read { seat, target, begin, end: begin, number, cache: "HIT".to_owned() };
        history.read(&read, least);
        history.violations()
    }

    #[test]
    fn what_was_asked_for_before_the_purge_must_not_be_read_after_it() {
        let history = purged(Reach::Everywhere);
        assert!(read(&history, ONE, 0, 8).is_empty() && !history.is_over());
        assert!(read(&history, ONE, 1, 7).is_empty(), "it is another target");
        let report = read(&history, OTHER, 0, 7).join("\n");
        assert!(report.contains("read 7 on node 1 (process 1), which had to be 8"), "{report}");
        assert!(report.contains("PURGE → 200") && report.contains("HIT 7"), "{report}");
        assert!(history.is_over());
    }

    #[test]
    fn a_read_that_began_before_the_acknowledgement_may_be_older() {
        let history = purged(Reach::Here(OTHER));
        let (least, begin) = (history.least(ONE, 0), Instant::now());
        history.holds(0, 8, Reach::Everywhere);
        let (seat, target, end) = (ONE, 0, Instant::now());
        let cache = "HIT".to_owned();
        history.read(&Read { seat, target, begin, end, number: 7, cache }, least);
        assert!(history.violations().is_empty());
    }

    #[test]
    fn what_holds_on_one_node_holds_on_no_other() {
        let history = purged(Reach::Here(ONE));
        assert!(read(&history, OTHER, 0, 7).is_empty());
        assert!(!read(&history, ONE, 0, 7).is_empty());
    }
}

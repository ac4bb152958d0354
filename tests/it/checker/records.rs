//! The records applied by each node, and the check that none is lost.
//!
//! A record is *lost* on a node that followed the log before the purge, runs until the end, and
//! neither lists the record nor has raised its low watermark since. Such a node may serve what the
//! record selects. No acknowledged record may be lost. Purges of successful writes may only be lost
//! if their node ended before it could append them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Mutex,
    time::Instant,
};

use serde_json::Value;

use super::{
    cluster::{Node, TOKEN},
    history::NodeProcess,
};
use crate::support::proxy::request;

/// Records per query: more than are appended between two queries.
const PAGE: usize = 100;
/// Maximum number of records that a node lists.
const MAX_RECORDS: usize = 1000;

/// A record that every node must have.
pub(super) struct Expected {
    marker: String,
    seq: Option<u64>,
    begun: Instant,
    holder: Option<NodeProcess>,
}

impl Expected {
    /// Creates the expectation for a purge first requested at `begun`.
    ///
    /// `marker` is a selector that occurs in no other record, or in none at this position.
    pub(super) fn new(marker: String, seq: Option<u64>, begun: Instant) -> Self {
        Self { marker, seq, begun, holder: None }
    }

    /// Drops the expectation if this process ends before the run does.
    pub(super) fn unless_ended(self, holder: NodeProcess) -> Self {
        Self { holder: Some(holder), ..self }
    }
}

#[derive(Default)]
pub(super) struct Records {
    expected: Mutex<Vec<Expected>>,
    known: Mutex<HashMap<NodeProcess, ReportedRecords>>,
}

/// The records listed by a node.
#[derive(Default)]
struct ReportedRecords {
    /// When it was first seen to follow the log.
    since: Option<Instant>,
    records: HashSet<(u64, String)>,
    selectors: HashSet<(u64, String)>,
    texts: HashSet<String>,
    /// The number of low watermark raises, at each query.
    raises: Vec<(Instant, u64)>,
}

impl ReportedRecords {
    fn take_in(&mut self, record: &Value) -> bool {
        let (seq, at) = (record["seq"].as_u64().unwrap(), record["at"].as_str().unwrap());
        if !self.records.insert((seq, at.to_owned())) {
            return false;
        }
        for selector in record["selectors"].as_array().unwrap() {
            let text = selector.as_object().and_then(|selector| selector.values().next()?.as_str());
            if let Some(text) = text {
                self.selectors.insert((seq, text.to_owned()));
                self.texts.insert(text.to_owned());
            }
        }
        true
    }

    fn has(&self, expected: &Expected) -> bool {
        match expected.seq {
            Some(seq) => self.selectors.contains(&(seq, expected.marker.clone())),
            None => self.texts.contains(&expected.marker),
        }
    }

    /// Returns whether the low watermark was raised since a query before `begun`.
    fn has_risen_since(&self, begun: Instant) -> bool {
        let before = self.raises.iter().rev().find(|(seen, _)| *seen < begun);
        self.raises.last().map(|(_, raises)| raises) > before.map(|(_, raises)| raises)
    }
}

impl Records {
    pub(super) fn expect(&self, expected: Expected) {
        self.expected.lock().unwrap().push(expected);
    }

    /// Queries the records applied since the last query. Returns whether the node responded.
    pub(super) async fn query(&self, node: &Node) -> bool {
        let Some(metrics) = node.metrics().await else { return false };
        let seen = Instant::now();
        {
            let mut known = self.known.lock().unwrap();
            let known = known.entry(node.seat).or_default();
            known.raises.push((seen, metrics.raises()));
            if known.since.is_none() && metrics.is_synced() {
                known.since = Some(seen);
            }
        }
        for limit in [PAGE, MAX_RECORDS] {
            let target = format!("/v1/purges?limit={limit}");
            let Some(reply) = node.call(request("GET", &target, &[TOKEN])).await else {
                return false;
            };
            let document: Value = serde_json::from_str(&reply.body).unwrap();
            let records = document["purges"].as_array().unwrap();
            let mut known = self.known.lock().unwrap();
            let known = known.get_mut(&node.seat).unwrap();
            let new = records.iter().filter(|record| known.take_in(record)).count();
            if new < limit {
                break;
            }
        }
        true
    }

    /// Returns the number of expected records found, and the lost ones, on nodes that run until the
    /// end.
    pub(super) fn compare(&self, nodes: &[NodeProcess]) -> (usize, Vec<String>) {
        let (expected, known) = (self.expected.lock().unwrap(), self.known.lock().unwrap());
        let (mut found, mut lost) = (0, Vec::new());
        let is_due =
            |expected: &&Expected| expected.holder.is_none_or(|holder| nodes.contains(&holder));
        for expected in expected.iter().filter(is_due) {
            for seat in nodes {
                let Some(known) = known.get(seat) else { continue };
                let followed = known.since.is_some_and(|since| since < expected.begun);
                if followed && known.has(expected) {
                    found += 1;
                } else if followed && !known.has_risen_since(expected.begun) {
                    let Expected { marker, seq, .. } = expected;
                    lost.push(format!("{marker} at {seq:?} is lost on {seat}"));
                }
            }
        }
        (found, lost)
    }

    /// Returns the number of listed records with this selector.
    pub(super) fn with_selector(&self, text: &str) -> usize {
        let known = self.known.lock().unwrap();
        let all = known.values().flat_map(|known| &known.selectors);
        all.filter(|(_, selector)| selector == text).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: NodeProcess = NodeProcess { slot: 0, process: 0 };
    const OTHER: NodeProcess = NodeProcess { slot: 1, process: 1 };

    /// Returns the loss of a record on a node that followed the log before the purge.
    fn lost(
        known: impl FnOnce(&mut ReportedRecords),
        expected: impl FnOnce(Expected) -> Expected,
    ) -> usize {
        let records = Records::default();
        let since = Instant::now();
        let mut node = ReportedRecords {
            since: Some(since),
            raises: vec![(since, 3)],
            ..ReportedRecords::default()
        };
        let begun = loop {
            let now = Instant::now();
            if now > since {
                break now;
            }
        };
        known(&mut node);
        records.known.lock().unwrap().insert(ONE, node);
        records.expect(expected(Expected::new("id:1".to_owned(), Some(5), begun)));
        records.compare(&[ONE]).1.len()
    }

    fn at(seq: u64) -> Value {
        json!({ "seq": seq, "at": "now", "selectors": [{ "tag": "a" }, { "tag": "id:1" }] })
    }

    #[test]
    fn a_record_listed_at_its_position_is_not_lost() {
        assert_eq!(lost(|known| assert!(known.take_in(&at(5))), |expected| expected), 0);
        assert_eq!(lost(|known| assert!(known.take_in(&at(6))), |expected| expected), 1);
        let anywhere = |expected| Expected { seq: None, ..expected };
        assert_eq!(lost(|known| assert!(known.take_in(&at(6))), anywhere), 0);
        assert_eq!(lost(|_| {}, anywhere), 1);
    }

    #[test]
    fn a_raised_low_watermark_covers_a_record() {
        let risen = |known: &mut ReportedRecords| known.raises.push((Instant::now(), 4));
        assert_eq!(lost(risen, |expected| expected), 0);
        let before =
            |known: &mut ReportedRecords| known.raises = vec![(known.since.unwrap(), 4); 2];
        assert_eq!(lost(before, |expected| expected), 1);
    }

    #[test]
    fn a_record_known_only_to_an_ended_node_may_be_lost() {
        assert_eq!(lost(|_| {}, |expected| expected.unless_ended(OTHER)), 0);
        assert_eq!(lost(|_| {}, |expected| expected.unless_ended(ONE)), 1);
    }

    #[test]
    fn a_later_node_need_not_list_the_record() {
        assert_eq!(lost(|known| known.since = Some(Instant::now()), |expected| expected), 0);
        assert_eq!(lost(|known| known.since = None, |expected| expected), 0);
    }
}

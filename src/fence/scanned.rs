//! Selectors that have to be looked at one by one: patterns, and what takes several things at once.

use std::collections::VecDeque;

use super::Selector;
use crate::field::Timestamp;

/// How many are remembered. A response that is older than all of them is held against each once.
const MAX_SCANNED: usize = 1000;

/// The selectors that no hash can stand for, in the order in which they came last.
#[derive(Debug, Default)]
pub(super) struct ScannedSelectors {
    selectors: VecDeque<ScannedSelector>,
    bytes: usize,
    /// When the last record was appended.
    now: Option<Timestamp>,
}

#[derive(Debug)]
struct ScannedSelector {
    /// Under which its last purge is found.
    hash: u64,
    /// The table's version with which it came last.
    version: u64,
    /// When it came last.
    at: Option<Timestamp>,
    selector: Box<Selector>,
}

impl ScannedSelectors {
    /// Notes when what comes from now on was appended.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = Some(now);
    }

    /// Notes that a selector came with this version, the latest so far.
    pub(super) fn insert(&mut self, hash: u64, selector: &Selector, version: u64) {
        let known = self.selectors.iter().rposition(|scanned| scanned.hash == hash);
        let scanned = known.and_then(|index| self.selectors.remove(index));
        let mut scanned = scanned.unwrap_or_else(|| {
            self.bytes += size(selector);
            ScannedSelector { hash, version, at: self.now, selector: Box::new(selector.clone()) }
        });
        (scanned.version, scanned.at) = (version, self.now);
        self.selectors.push_back(scanned);
    }

    /// The hashes of those that came after the version `since` and fit.
    pub(super) fn since(
        &self,
        since: u64,
        matches: impl Fn(&Selector) -> bool,
    ) -> impl Iterator<Item = u64> {
        let newer = self.selectors.iter().rev().take_while(move |scanned| scanned.version > since);
        newer.filter(move |scanned| matches(&scanned.selector)).map(|scanned| scanned.hash)
    }

    /// Takes the oldest out that need not stay, if there are too many. Returns its hash and when it came.
    pub(super) fn pop_excess(
        &mut self,
        must_stay: impl Fn(u64) -> bool,
    ) -> Option<(u64, Option<Timestamp>)> {
        if self.selectors.len() <= MAX_SCANNED {
            return None;
        }
        let index = self.selectors.iter().position(|scanned| !must_stay(scanned.hash))?;
        let scanned = self.selectors.remove(index)?;
        self.bytes -= size(&scanned.selector);
        Some((scanned.hash, scanned.at))
    }

    /// Takes out what need not stay.
    pub(super) fn retain(&mut self, must_stay: impl Fn(u64) -> bool) {
        self.selectors.retain(|scanned| must_stay(scanned.hash));
        self.bytes = self.selectors.iter().map(|scanned| size(&scanned.selector)).sum();
    }

    pub(super) fn bytes(&self) -> usize {
        self.selectors.capacity() * size_of::<ScannedSelector>() + self.bytes
    }
}

/// About how many bytes a selector takes.
fn size(selector: &Selector) -> usize {
    let text = match selector {
        Selector::Tag(text)
        | Selector::Url(text)
        | Selector::Prefix(text)
        | Selector::Pattern(text)
        | Selector::User(text)
        | Selector::Route(text)
        | Selector::Version(text)
        | Selector::Credential(text) => text.len(),
        Selector::Everything => 0,
        Selector::All(selectors) => selectors.iter().map(size).sum(),
    };
    size_of::<Selector>() + text
}

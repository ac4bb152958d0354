//! Selectors that are matched one by one, because they cannot be looked up by hash: patterns and
//! combinations.

use std::collections::VecDeque;

use super::Selector;
use crate::field::Timestamp;

/// Maximum number of scanned selectors. Each lookup may have to match every one.
const MAX_SCANNED: usize = 1000;

/// The scanned selectors, in order of their last purge.
#[derive(Debug, Default)]
pub(super) struct ScannedSelectors {
    selectors: VecDeque<ScannedSelector>,
    bytes: usize,
    /// When the last applied record was appended; `None` before the first record.
    now: Option<Timestamp>,
}

#[derive(Debug)]
struct ScannedSelector {
    /// The hash under which the selector's last purge is stored.
    hash: u64,
    /// The table version of the selector's last purge.
    version: u64,
    at: Option<Timestamp>,
    selector: Box<Selector>,
}

impl ScannedSelectors {
    /// Sets the time at which the next record was appended.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.now = Some(now);
    }

    /// Adds a selector, or moves it to the end. `version` is the new version of the table.
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

    /// Returns the hashes of matching selectors that were last purged after the version `since`.
    pub(super) fn since(
        &self,
        since: u64,
        matches: impl Fn(&Selector) -> bool,
    ) -> impl Iterator<Item = u64> {
        let newer = self.selectors.iter().rev().take_while(move |scanned| scanned.version > since);
        newer.filter(move |scanned| matches(&scanned.selector)).map(|scanned| scanned.hash)
    }

    /// If there are too many selectors, removes the oldest one for which `must_stay` is false.
    /// Returns its hash and the time of its last purge.
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

    /// Removes all selectors for which `must_stay` is false.
    pub(super) fn retain(&mut self, must_stay: impl Fn(u64) -> bool) {
        self.selectors.retain(|scanned| must_stay(scanned.hash));
        self.bytes = self.selectors.iter().map(|scanned| size(&scanned.selector)).sum();
    }

    pub(super) fn bytes(&self) -> usize {
        self.selectors.capacity() * size_of::<ScannedSelector>() + self.bytes
    }
}

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

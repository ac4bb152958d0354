//! Equivalent query values: lists that differ only in order, and defaults such as `page=1` that may
//! be omitted.

use std::collections::BTreeMap;

use super::{
    log::{LoggedRequest, digest},
    sample::SampledTable,
};
use crate::key::uri::query::pairs;

/// Parameters for paging and sorting. Their values are numbers and directions, not user data.
const DEFAULTED: [&str; 12] = [
    "dir",
    "direction",
    "limit",
    "offset",
    "order",
    "page",
    "pageSize",
    "page_size",
    "perPage",
    "per_page",
    "size",
    "start",
];

/// Maximum length of a default value, in bytes.
const MAX_DEFAULT: usize = 4;

/// Minimum number of pairs of equal responses that count as evidence.
const MIN_EQUAL: u32 = 20;

/// Maximum time between two compared responses, in milliseconds.
const MAX_GAP: i64 = 10_000;

/// Maximum number of parameters and values that are compared for a template.
const MAX_COMPARED: usize = 128;

/// Maximum length of the name of a list that is compared. Longer names would never be shown.
const MAX_NAME: usize = 64;

/// Maximum number of targets remembered for a template.
const MAX_TARGETS: usize = 1024;

/// Comparisons of responses to queries that may be equivalent.
#[derive(Debug)]
pub(super) struct ValueEvidence {
    /// The last responses by digest of the target, without one parameter or with one list sorted.
    responses: SampledTable<Option<LastResponse>>,
    defaults: BTreeMap<(&'static str, String), Compared>,
    lists: BTreeMap<String, Compared>,
}

/// The last response to a target, and the order of the list in its query.
#[derive(Debug, Clone, Copy)]
struct LastResponse {
    at: i64,
    order: u64,
    representation: u64,
}

/// Numbers of equal and of different pairs of responses.
#[derive(Debug, Clone, Copy, Default)]
struct Compared {
    equal: u32,
    different: u32,
}

impl Default for ValueEvidence {
    fn default() -> Self {
        Self {
            responses: SampledTable::new(MAX_TARGETS),
            defaults: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }
}

impl ValueEvidence {
    /// Adds a response.
    pub(super) fn add(&mut self, request: &LoggedRequest<'_>) {
        let Some(representation) = request.representation() else { return };
        let query = request.query().unwrap_or_default();
        let last = LastResponse { at: request.at, order: 0, representation };
        if let Some(before) = self.responses.entry(without(request, query, "")) {
            *before = Some(last);
        }
        for name in DEFAULTED {
            let value = pairs(query).find(|(known, _)| *known == name).and_then(|(_, value)| value);
            let Some(value) = value.filter(|value| is_constant(value)) else { continue };
            let before = self.responses.known(without(request, query, name)).copied().flatten();
            if let Some(before) = before.filter(|before| request.at - before.at <= MAX_GAP)
                && self.defaults.len() < MAX_COMPARED
            {
                let compared = self.defaults.entry((name, value.to_owned())).or_default();
                compared.add(before.representation == representation);
            }
        }
        let short = pairs(query).filter(|(name, _)| name.len() <= MAX_NAME);
        let lists = short.filter_map(|(name, value)| Some((name, sorted(value?)?)));
        for (name, (members, order)) in lists {
            let key = digest((without(request, query, name), name, members));
            self.add_list(name, key, LastResponse { order, ..last });
        }
    }

    fn add_list(&mut self, name: &str, key: u64, last: LastResponse) {
        let Some(before) = self.responses.entry(key) else { return };
        let before = before.replace(last);
        let is_comparable =
            |before: &LastResponse| before.order != last.order && last.at - before.at <= MAX_GAP;
        if let Some(before) = before.filter(is_comparable)
            && (self.lists.len() < MAX_COMPARED || self.lists.contains_key(name))
        {
            let compared = self.lists.entry(name.to_owned()).or_default();
            compared.add(before.representation == last.representation);
        }
    }

    /// Returns the parameters and values that can be left out.
    ///
    /// A parameter is skipped if several of its values change nothing, because then the API ignores
    /// the parameter, or its lists are empty.
    pub(super) fn defaults(&self) -> Vec<(String, String)> {
        let proven = self.defaults.iter().filter(|(_, compared)| compared.are_equal());
        let proven: Vec<_> = proven.map(|(key, _)| key).collect();
        let is_only = |name: &str| proven.iter().filter(|(known, _)| *known == name).count() == 1;
        let found = proven.iter().filter(|(name, _)| is_only(name));
        found.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// Returns the parameters whose values are lists in which the order does not matter.
    pub(super) fn lists(&self) -> impl Iterator<Item = &String> {
        let proven = self.lists.iter().filter(|(_, compared)| compared.are_equal());
        proven.map(|(name, _)| name)
    }
}

impl Compared {
    fn add(&mut self, is_equal: bool) {
        *if is_equal { &mut self.equal } else { &mut self.different } += 1;
    }

    /// Returns whether nearly all pairs are equal. Some may differ because the data changed.
    fn are_equal(self) -> bool {
        self.equal >= MIN_EQUAL && self.different * 5 <= self.equal
    }
}

/// Returns the digest of a target without a parameter.
fn without(request: &LoggedRequest<'_>, query: &str, name: &str) -> u64 {
    let kept = pairs(query).filter(|(known, _)| *known != name);
    digest((&request.path, request.variant, kept.collect::<Vec<_>>()))
}

/// Returns the sorted members of a list, and a digest of their original order. `None` if the value
/// is no list.
fn sorted(value: &str) -> Option<(Vec<&str>, u64)> {
    let separator = [",", "%2C", "%2c"].into_iter().find(|comma| value.contains(comma))?;
    let mut members: Vec<&str> = value.split(separator).collect();
    members.sort_unstable();
    Some((members, digest(value)))
}

/// Returns whether a value is a short number or a sort direction.
fn is_constant(value: &str) -> bool {
    let is_number = !value.is_empty()
        && value.len() <= MAX_DEFAULT
        && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number || matches!(value, "asc" | "desc")
}

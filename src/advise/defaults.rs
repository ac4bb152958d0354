//! Parameters that mean the same as if they were left out, such as `page=1`.

use std::collections::BTreeMap;

use super::{
    log::{LoggedRequest, digest},
    sample::Sample,
};
use crate::key::uri::query::pairs;

/// Parameters of lists whose values are numbers and directions of the API, not of a user.
const NAMES: [&str; 12] = [
    "dir",
    "direction",
    "limit",
    "offset",
    "order",
    "page",
    "page_size",
    "pageSize",
    "per_page",
    "perPage",
    "size",
    "start",
];

/// Longer values are not considered.
const MAX_VALUE: usize = 4;

/// Equal responses that prove a default.
const MIN_EQUAL: u32 = 20;

/// Responses are compared within this time, in milliseconds.
const MAX_GAP: i64 = 600_000;

/// Comparisons of responses with and without a parameter.
#[derive(Debug)]
pub(super) struct DefaultEvidence {
    /// For each target without the parameter: the last response to it.
    without: Sample<Option<(u64, i64)>>,
    /// Equal and different responses by name and value.
    compared: BTreeMap<(&'static str, String), [u32; 2]>,
}

impl Default for DefaultEvidence {
    fn default() -> Self {
        Self { without: Sample::new(1024), compared: BTreeMap::new() }
    }
}

impl DefaultEvidence {
    /// Adds a response.
    pub(super) fn add(&mut self, request: &LoggedRequest<'_>) {
        let Some(seen) = request.representation() else { return };
        let query = request.query().unwrap_or_default();
        let key = |left_out: &str| {
            let kept = pairs(query).filter(|(name, _)| *name != left_out);
            digest((&request.path, request.client, request.variant, kept.collect::<Vec<_>>()))
        };
        if let Some(last) = self.without.entry(key("")) {
            *last = Some((seen, request.at));
        }
        for name in NAMES {
            let value = pairs(query).find(|(known, _)| *known == name).and_then(|(_, value)| value);
            let Some(value) = value.filter(|value| is_constant(value)) else { continue };
            if let Some(Some((before, at))) = self.without.known(key(name))
                && request.at - at <= MAX_GAP
                && self.compared.len() < 128
            {
                let counts = self.compared.entry((name, value.to_owned())).or_default();
                let [equal, different] = counts;
                *if *before == seen { equal } else { different } += 1;
            }
        }
    }

    /// Returns the parameters and values that changed nothing.
    pub(super) fn found(&self) -> Vec<(String, String)> {
        let proven = self
            .compared
            .iter()
            .filter(|(_, [equal, different])| *equal >= MIN_EQUAL && different * 50 <= *equal);
        let proven: Vec<_> = proven.map(|(key, _)| key).collect();
        // If several values of a parameter change nothing, the API ignores it or its lists are empty.
        let is_only = |name: &str| proven.iter().filter(|(known, _)| *known == name).count() == 1;
        let found = proven.iter().filter(|(name, _)| is_only(name));
        found.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}

/// Returns whether a value is a short number or a direction.
fn is_constant(value: &str) -> bool {
    let is_number = !value.is_empty()
        && value.len() <= MAX_VALUE
        && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number || matches!(value, "asc" | "desc")
}

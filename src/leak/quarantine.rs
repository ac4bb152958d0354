//! Quarantined routes: the state that the nodes of a fleet share.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::comparison::LeakEvidence;
use crate::field::{Rfc3339, Timestamp};

/// How long the end of a quarantine is remembered, so that no other node restores the quarantine.
const MEMORY_OF_CLEARED: Duration = Duration::from_hours(24 * 30);

/// The quarantines of all routes. A node merges its table with those of other nodes.
///
/// The later of two states of a route wins; if both have the same time, the quarantine wins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct QuarantineTable {
    routes: BTreeMap<Box<str>, RouteQuarantine>,
}

/// The state of one route that is or was quarantined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct RouteQuarantine {
    /// When the state changed, in milliseconds since the Unix epoch. Always later than in the state
    /// that it replaces, even if a clock is behind.
    at: u64,
    /// Why the route is quarantined; `None` if an operator has cleared it.
    details: Option<Details>,
}

/// Why a route is quarantined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Details {
    cause: Box<str>,
    /// The path of the responses that were compared, as the access log shows it.
    path: Box<str>,
    places: Vec<String>,
}

/// Why a quarantine was not cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClearError {
    /// The route is not quarantined.
    NotQuarantined,
    /// The state of the fleet cannot be reached.
    Unavailable,
}

/// A quarantined route, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct QuarantinedRoute {
    /// The name of the route.
    pub route: String,
    /// When the route was quarantined (RFC 3339).
    pub since: String,
    /// `differs-by-requester` or `names-requester`.
    pub cause: String,
    /// The path of the responses that were compared.
    pub path: String,
    /// The places in the responses that differ.
    pub places: Vec<String>,
}

impl QuarantineTable {
    /// Quarantines a route. Returns `false` if the route is already quarantined.
    pub(crate) fn add(
        &mut self,
        route: &str,
        (evidence, path): (&LeakEvidence, &str),
        now: Timestamp,
    ) -> bool {
        let is_new = !self.contains(route);
        if is_new {
            let cause = evidence.cause.as_str().into();
            let details = Details { cause, path: path.into(), places: evidence.places.clone() };
            self.set(route, Some(details), now);
        }
        is_new
    }

    /// Ends the quarantine of a route. Returns `false` if it is not quarantined.
    pub(crate) fn clear(&mut self, route: &str, now: Timestamp) -> bool {
        let is_known = self.contains(route);
        if is_known {
            self.set(route, None, now);
        }
        is_known
    }

    fn set(&mut self, route: &str, details: Option<Details>, now: Timestamp) {
        let before = self.routes.get(route).map_or(0, |known| known.at);
        let at = now.millis().max(before.saturating_add(1));
        self.routes.insert(route.into(), RouteQuarantine { at, details });
    }

    /// Adopts the later states from another table, and drops states that were cleared long ago.
    pub(crate) fn merge(&mut self, other: Self, now: Timestamp) {
        for (route, theirs) in other.routes {
            let counts = self.routes.get(&route).is_none_or(|ours| *ours < theirs);
            if counts {
                self.routes.insert(route, theirs);
            }
        }
        let is_remembered = |state: &RouteQuarantine| {
            let age = now.saturating_since(Timestamp::from_millis(state.at));
            state.details.is_some() || age < MEMORY_OF_CLEARED
        };
        self.routes.retain(|_, state| is_remembered(state));
    }

    /// Returns whether a route is quarantined.
    pub(crate) fn contains(&self, route: &str) -> bool {
        self.routes.get(route).is_some_and(|state| state.details.is_some())
    }

    /// Returns the quarantined routes, by name.
    pub(crate) fn list(&self) -> Vec<QuarantinedRoute> {
        let quarantined = self.routes.iter().filter_map(|(route, state)| {
            let Details { cause, path, places } = state.details.clone()?;
            Some(QuarantinedRoute {
                route: route.to_string(),
                since: Rfc3339(Timestamp::from_millis(state.at)).to_string(),
                cause: cause.into(),
                path: path.into(),
                places,
            })
        });
        quarantined.collect()
    }

    /// Returns the routes that are or were quarantined; `true` means that the route still is.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.routes.iter().map(|(route, state)| (&**route, state.details.is_some()))
    }

    /// Returns the JSON that [`Self::from_json`] reads.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses a table. Returns `None` if it is damaged, or was written by an incompatible version.
    pub(crate) fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak::comparison::LeakCause;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn evidence() -> LeakEvidence {
        let places = vec!["$.email".to_owned()];
        LeakEvidence { cause: LeakCause::DiffersByRequester, places }
    }

    fn table(route: &str, seconds: u64) -> QuarantineTable {
        let mut table = QuarantineTable::default();
        assert!(table.add(route, (&evidence(), "/me"), at(seconds)));
        table
    }

    #[test]
    fn a_table_survives_its_json_and_lists_what_is_quarantined() {
        let mut known = table("a", 100);
        assert!(!known.add("a", (&evidence(), "/me"), at(101)), "it is already");
        let listed = known.list();
        assert_eq!(listed.len(), 1);
        let found = (&*listed[0].route, &*listed[0].cause, &*listed[0].path);
        assert_eq!(found, ("a", "differs-by-requester", "/me"));
        assert_eq!(listed[0].since, "1970-01-01T00:01:40.000Z");
        assert_eq!(QuarantineTable::from_json(&known.to_json()), Some(known));
        for json in ["", "{", r#"{"routes":[]}"#] {
            assert_eq!(QuarantineTable::from_json(json), None, "{json}");
        }
    }

    #[test]
    fn nodes_agree_in_whatever_order_they_hear_of_each_other() {
        let mut cleared = table("a", 100);
        assert!(cleared.clear("a", at(50)), "a clock that is behind");
        assert!(!cleared.contains("a") && !cleared.clear("a", at(51)));
        let again = {
            let mut again = cleared.clone();
            assert!(again.add("a", (&evidence(), "/me"), at(40)));
            again
        };
        let tables = [table("a", 100), cleared, again, table("b", 1)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut merged = QuarantineTable::default();
            for index in order {
                merged.merge(tables[index].clone(), at(200));
            }
            assert!(merged.contains("a") && merged.contains("b"), "{order:?}");
        }
    }

    #[test]
    fn what_was_cleared_stays_cleared_and_is_forgotten_in_the_end() {
        let (old, mut node) = (table("a", 100), table("a", 100));
        node.clear("a", at(200));
        node.merge(old, at(300));
        assert!(!node.contains("a") && node.states().count() == 1);
        node.merge(QuarantineTable::default(), at(200 + 31 * 24 * 3600));
        assert_eq!(node.states().count(), 0);
    }
}

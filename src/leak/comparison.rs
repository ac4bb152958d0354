//! The comparison of two requesters: whether the origin's responses depend on the requester.

use std::collections::{HashMap, HashSet};

use super::{
    body::{BodyDigest, shown},
    names::RequesterNames,
};

/// One of the two requesters that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComparedRequester {
    First,
    Second,
}

use ComparedRequester::{First as A, Second as B};

/// Number of responses after which a difference in one part counts as a leak. If each response
/// contains one of two values at random, one comparison in eight million shows such a difference.
const ENOUGH_FOR_ONE_PART: usize = 24;

/// Returns the requester of the request at this position: A, B, B, A, B, A, A, B and so on.
///
/// A value that changes once, or increases, never differs by requester in this order: the first
/// requester is asked first, and again after the second. Nor can servers that take turns, however
/// many, imitate the two requesters (Thue–Morse).
fn requester_at(position: usize) -> ComparedRequester {
    if position.count_ones().is_multiple_of(2) { A } else { B }
}

/// Returns the number of responses after which a difference counts as a leak, if the first response
/// has this many parts. Each part may differ by chance: twice as many parts need one more response.
fn enough_for(parts: usize) -> usize {
    ENOUGH_FOR_ONE_PART + usize::try_from(parts.max(1).next_power_of_two().ilog2()).unwrap_or(0)
}

/// Number of responses after which the names in them count as evidence. A client can use a server's
/// name as its own. If each response comes from one of two servers at random, one comparison in
/// 65,536 looks like a leak.
const ENOUGH_FOR_NAMES: usize = 16;

/// Maximum number of places that are reported.
const MAX_PLACES: usize = 5;

/// The result of a comparison so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More responses are needed.
    Undecided,
    /// Both requesters get the same response.
    Same,
    /// The responses differ, but responses to the same requester differ as well.
    Volatile,
    /// The responses depend on the requester.
    Leak(LeakEvidence),
}

/// How responses depend on the requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeakEvidence {
    pub cause: LeakCause,
    /// The places that differ, as `JSONPath`s or lines. Contains no values.
    pub places: Vec<String>,
}

/// The kind of evidence for a leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeakCause {
    /// Parts of the responses are the same for one requester and differ between the two.
    DiffersByRequester,
    /// Each response contains its own requester's name, but not the other requester's name.
    NamesRequester,
}

impl LeakCause {
    /// Returns the name used in the admin API, logs and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::DiffersByRequester => "differs-by-requester",
            Self::NamesRequester => "names-requester",
        }
    }
}

/// The responses to two requesters so far.
#[derive(Debug)]
pub(crate) struct RequesterComparison {
    names: [RequesterNames; 2],
    sides: [Side; 2],
    /// Number of responses so far.
    seen: usize,
    /// Number of responses after which a difference counts as a leak.
    enough: usize,
}

/// The parts that the responses to one requester have in common, and those that differ.
#[derive(Debug, Default)]
struct Side {
    /// The parts that all responses have; `None` before the first response.
    stable: Option<HashMap<Box<str>, u64>>,
    /// The places where the responses differ from each other.
    volatile: HashSet<Box<str>>,
    /// Whether a response lacked the requester's own name, or contained the other requester's name.
    is_anonymous: bool,
}

impl RequesterComparison {
    /// Begins a comparison of requesters with these names.
    pub(crate) fn new(names: [RequesterNames; 2]) -> Self {
        let sides = [Side::default(), Side::default()];
        Self { names, sides, seen: 0, enough: ENOUGH_FOR_ONE_PART }
    }

    /// Returns the requester of the next request; `None` after the last.
    pub(crate) fn next(&self) -> Option<ComparedRequester> {
        (self.seen < self.enough).then(|| requester_at(self.seen))
    }

    /// Adds the decoded body of the response to the next requester, and returns the verdict.
    pub(crate) fn add(&mut self, body: &[u8]) -> Verdict {
        let Some(requester) = self.next() else { return Verdict::Volatile };
        self.seen += 1;
        let [first, second] = &self.names;
        let (own, other) = match requester {
            ComparedRequester::First => (first, second),
            ComparedRequester::Second => (second, first),
        };
        let is_anonymous = !own.stand_in(body) || other.stand_in(body);
        let [first, second] = &mut self.sides;
        let side = match requester {
            ComparedRequester::First => first,
            ComparedRequester::Second => second,
        };
        side.is_anonymous |= is_anonymous;
        let digest = BodyDigest::of(body);
        if self.seen == 1 {
            self.enough = enough_for(digest.parts().len());
        }
        side.add(&digest);
        self.verdict()
    }

    fn verdict(&self) -> Verdict {
        let [first, second] = &self.sides;
        if second.stable.is_none() {
            return Verdict::Undecided;
        }
        if self.seen == 2 && first.stable == second.stable {
            return Verdict::Same;
        }
        let places = self.differences();
        if self.seen >= ENOUGH_FOR_NAMES && !first.is_anonymous && !second.is_anonymous {
            return Verdict::Leak(LeakEvidence { cause: LeakCause::NamesRequester, places });
        }
        let may_still_name = !first.is_anonymous && !second.is_anonymous;
        if places.is_empty() && !may_still_name {
            return Verdict::Volatile;
        }
        if self.next().is_some() {
            return Verdict::Undecided;
        }
        Verdict::Leak(LeakEvidence { cause: LeakCause::DiffersByRequester, places })
    }

    /// Returns the places that are stable for each requester and differ between the two, in the
    /// form that operators read.
    fn differences(&self) -> Vec<String> {
        let [first, second] = &self.sides;
        let of_first = first.differing_from(second);
        let of_second = second.differing_from(first);
        let mut places: Vec<String> = of_first.chain(of_second).map(shown).collect();
        places.sort();
        places.dedup();
        places.truncate(MAX_PLACES);
        places
    }
}

impl Side {
    fn add(&mut self, body: &BodyDigest) {
        let Some(stable) = &mut self.stable else {
            self.stable = Some(body.parts().clone());
            return;
        };
        let places = body.parts().keys();
        self.volatile.extend(places.filter(|place| !stable.contains_key(*place)).cloned());
        let volatile = &mut self.volatile;
        stable.retain(|place, digest| {
            let is_same = body.parts().get(place) == Some(digest);
            if !is_same {
                volatile.insert(place.clone());
            }
            is_same
        });
    }

    /// Returns the stable places that have a different stable value, or are missing, in `other`.
    fn differing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let stable = self.stable.iter().flatten().map(|(place, digest)| (&**place, digest));
        let differs = move |(place, digest): &(&str, &u64)| match other
            .stable
            .as_ref()
            .and_then(|stable| stable.get(*place))
        {
            Some(others) => others != *digest,
            None => !other.volatile.contains(*place),
        };
        stable.filter(differs).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> RequesterNames {
        let mut names = RequesterNames::default();
        names.add(name);
        names
    }

    /// Runs a comparison, and returns the verdict and the number of requests. `origin` returns the
    /// body for a requester and the number of earlier requests.
    fn compare(
        names: [RequesterNames; 2],
        mut origin: impl FnMut(ComparedRequester, usize) -> String,
    ) -> (Verdict, usize) {
        let mut comparison = RequesterComparison::new(names);
        while let Some(requester) = comparison.next() {
            let body = origin(requester, comparison.seen);
            let verdict = comparison.add(body.as_bytes());
            if verdict != Verdict::Undecided {
                return (verdict, comparison.seen);
            }
        }
        panic!("no verdict");
    }

    fn anonymous() -> [RequesterNames; 2] {
        [RequesterNames::default(), RequesterNames::default()]
    }

    fn leak(cause: LeakCause, places: &[&str]) -> Verdict {
        let places = places.iter().map(|&place| place.to_owned()).collect();
        Verdict::Leak(LeakEvidence { cause, places })
    }

    #[test]
    fn equal_responses_cost_two_requests() {
        let same = compare(anonymous(), |_, _| r#"{"a":1}"#.to_owned());
        assert_eq!(same, (Verdict::Same, 2));
        let spelled = |requester, _| match requester {
            A => r#"{"a":1,"b":2}"#.to_owned(),
            B => r#"{"b":2, "a":1}"#.to_owned(),
        };
        assert_eq!(compare(anonymous(), spelled), (Verdict::Same, 2));
    }

    #[test]
    fn what_stays_with_its_requester_and_differs_between_them_is_a_leak() {
        let origin = |requester, turn| match requester {
            A => format!(r#"{{"at":{turn},"user":{{"balance":100}},"shared":1}}"#),
            B => format!(r#"{{"at":{turn},"user":{{"balance":250}},"shared":1}}"#),
        };
        let expected = leak(LeakCause::DiffersByRequester, &["$.user.balance"]);
        assert_eq!(compare(anonymous(), origin), (expected, enough_for(3)));
        let missing = |requester, turn| match requester {
            A => format!(r#"{{"at":{turn},"admin":true}}"#),
            B => format!(r#"{{"at":{turn}}}"#),
        };
        let expected = leak(LeakCause::DiffersByRequester, &["$.admin"]);
        assert_eq!(compare(anonymous(), missing).0, expected);
    }

    #[test]
    fn responses_that_name_their_requesters_are_a_leak_after_sixteen() {
        let names = || [named("alice@example.com"), named("bob@example.com")];
        let origin = |requester, turn| match requester {
            A => format!("<p nonce={turn}>Hello alice@example.com</p>"),
            B => format!("<p nonce={turn}>Hello bob@example.com</p>"),
        };
        assert_eq!(compare(names(), origin), (leak(LeakCause::NamesRequester, &[]), 16));
        let team = |_, turn| format!("<p nonce={turn}>alice@example.com bob@example.com</p>");
        assert_eq!(compare(names(), team).0, Verdict::Volatile, "a list of both");
    }

    #[test]
    fn data_that_changes_is_no_leak_whenever_it_does() {
        for change in 0..ENOUGH_FOR_ONE_PART {
            let once = |_, turn| format!(r#"{{"price":{}}}"#, i32::from(turn >= change));
            let verdict = compare(anonymous(), once).0;
            assert!(matches!(verdict, Verdict::Same | Verdict::Volatile), "{change}");
        }
    }

    #[test]
    fn the_more_parts_a_response_has_the_more_responses_are_needed() {
        let needed = [0, 1, 2, 3, 4, 5, 1024, 8192].map(enough_for);
        assert_eq!(needed, [24, 24, 25, 26, 26, 27, 34, 37]);
        // One of many random values looks like the requester for a while.
        let origin = |_, turn: usize| {
            let drawn = turn < 30 && requester_at(turn) == A;
            let others = (0..1000).map(|part| format!("\"part{part}\":{part}"));
            format!(r#"{{"drawn":{drawn},{}}}"#, others.collect::<Vec<_>>().join(","))
        };
        let verdict = compare(anonymous(), origin).0;
        assert_eq!(verdict, Verdict::Volatile);
    }

    #[test]
    fn servers_that_take_turns_are_no_leak() {
        for servers in 2..8 {
            for first in 0..servers {
                let turns = |_, turn| format!(r#"{{"server":{}}}"#, (turn + first) % servers);
                let verdict = compare(anonymous(), turns).0;
                assert!(!matches!(verdict, Verdict::Leak(_)), "{servers} {first}");
            }
        }
    }

    proptest! {
        #[test]
        fn data_that_only_advances_is_no_leak(steps in prop::collection::vec(0_u64..3, enough_for(2))) {
            let mut version = 0;
            let origin = |_, turn: usize| {
                version += steps[turn];
                format!(r#"{{"version":{version},"even":{}}}"#, version - version % 2)
            };
            prop_assert!(!matches!(compare(anonymous(), origin).0, Verdict::Leak(_)));
        }
    }
}

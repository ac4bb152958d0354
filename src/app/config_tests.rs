//! Runs the tests of a configuration: explains each request and compares the result with
//! expectations.

use std::{collections::BTreeMap, ops::Range};

use super::Explainer;
use crate::{
    config::{Assertion, AssertionKind, Config, TestCase, format_duration, nearest},
    pipeline::explain::{ExplainRequest, ExplainRequestResponse, Explanation},
};

/// An expectation that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    /// The name of the test.
    pub test: String,
    /// The location of the expectation in the file.
    pub at: Range<usize>,
    /// The expected and the actual result.
    pub message: String,
    /// The line of the explanation that gives the reason.
    pub because: String,
}

/// Runs all tests of a configuration.
///
/// # Errors
/// Fails if the configuration cannot be assembled without I/O.
pub fn run_tests(config: &Config) -> anyhow::Result<Vec<TestFailure>> {
    if config.tests.is_empty() {
        return Ok(Vec::new());
    }
    let explainer = Explainer::for_tests(config)?;
    let (mut found, mut failures) = (BTreeMap::new(), Vec::new());
    for test in &config.tests {
        match explainer.explain_for(&request_of(test), test.claims.as_ref()) {
            Ok(explanation) => drop(found.insert(test.name.as_str(), explanation)),
            Err(error) => {
                failures.push(failure(test, &test.at, (error.to_string(), String::new())));
            }
        }
    }
    for test in &config.tests {
        let Some(explanation) = found.get(test.name.as_str()) else { continue };
        for expectation in &test.expected {
            let Assertion { at, kind: what } = expectation;
            if let Err(difference) = check(what, explanation, (config, &found)) {
                failures.push(failure(test, at, difference));
            }
        }
    }
    failures.sort_by_key(|failure| failure.at.start);
    Ok(failures)
}

fn failure(
    test: &TestCase,
    at: &Range<usize>,
    (difference, because): (String, String),
) -> TestFailure {
    let message = format!("test `{}`: {difference}", test.name);
    TestFailure { test: test.name.clone(), at: at.clone(), message, because }
}

fn request_of(test: &TestCase) -> ExplainRequest {
    ExplainRequest {
        method: test.method.clone(),
        url: test.url.clone(),
        headers: test.headers.clone(),
        body: test.body.clone(),
        from: test.from,
        response: test.response.as_ref().map(|given| ExplainRequestResponse {
            status: given.status,
            headers: given.headers.clone(),
            body: given.body.clone(),
        }),
    }
}

/// Compares a result with the expectation. Fails with the difference and its reason.
fn check(
    what: &AssertionKind,
    found: &Explanation,
    (config, others): (&Config, &BTreeMap<&str, Explanation>),
) -> Result<(), (String, String)> {
    match what {
        AssertionKind::Route(name) => {
            equal("route", name, &found.route.name, || why_route(name, found, config))
        }
        AssertionKind::Outcome(word) => outcome(word, found),
        AssertionKind::Reason(reason) => {
            equal("reason", reason, reason_of(found).unwrap_or("none"), || why(found))
        }
        AssertionKind::Partition(kind) => {
            equal("partition", kind, &found.partition.kind, || found.partition.means.to_owned())
        }
        AssertionKind::Host(host) => {
            equal("host", host, key(found, |key| Some(&*key.host)), || why(found))
        }
        AssertionKind::Path(path) => {
            equal("path", path, key(found, |key| Some(&*key.path)), || why(found))
        }
        AssertionKind::Query(query) => {
            let actual = key(found, |key| Some(key.query.as_deref().unwrap_or_default()));
            equal("query", query, actual, || why_query(found))
        }
        AssertionKind::Ttl(time) => {
            let response = found.response.as_ref().filter(|response| response.stored);
            let actual = response.map(|response| format_duration(response.lifetime.fresh_for.0));
            let actual = actual.unwrap_or_else(|| "not stored".to_owned());
            equal("ttl", &format_duration(*time), &actual, || why_ttl(found))
        }
        AssertionKind::Tags(tags) => equal_tags(tags, found),
        AssertionKind::SameKeyAs(name) => {
            same_key(name, found, others).then_some(()).ok_or_else(|| {
                (
                    format!("expected the same key as `{name}`"),
                    differences(found, others.get(name.as_str())),
                )
            })
        }
        AssertionKind::OtherKeyThan(name) => {
            (!same_key(name, found, others)).then_some(()).ok_or_else(|| {
                let because = "the two keys are equal: the requests share responses";
                (format!("expected another key than `{name}`"), because.to_owned())
            })
        }
    }
}

fn equal(
    what: &str,
    expected: &str,
    actual: &str,
    because: impl FnOnce() -> String,
) -> Result<(), (String, String)> {
    if expected == actual {
        return Ok(());
    }
    Err((format!("expected {what} `{expected}`, found `{actual}`"), because()))
}

fn outcome(word: &str, found: &Explanation) -> Result<(), (String, String)> {
    let actual = match &found.response {
        Some(response) if word.ends_with("stored") && response.stored => "stored",
        _ if word.ends_with("stored") => "not-stored",
        _ => found.outcome.outcome,
    };
    equal("outcome", word, actual, || why(found))
}

fn reason_of(found: &Explanation) -> Option<&'static str> {
    found.outcome.reason.or_else(|| found.response.as_ref()?.reason)
}

fn key<'a>(
    found: &'a Explanation,
    part: impl FnOnce(&'a crate::pipeline::explain::ExplainedKey) -> Option<&'a str>,
) -> &'a str {
    found.key.as_ref().and_then(part).unwrap_or("no key")
}

/// Returns the reason: the decision on the request, or else the verdict on the response.
fn why(found: &Explanation) -> String {
    if let Some(decision) = found.decisions.iter().find(|decision| decision.reason.is_some()) {
        let (question, answer) = (decision.question, &decision.answer);
        return format!("{question} {answer}: {}", found.outcome.means);
    }
    match &found.response {
        Some(response) => response.means.clone(),
        None => found.outcome.means.clone(),
    }
}

fn why_route(name: &str, found: &Explanation, config: &Config) -> String {
    if let Some(route) = found.route.before.iter().find(|route| route.name == name) {
        return format!("`{name}` (`{}`) does not match: another {}", route.pattern, route.differs);
    }
    let names = || config.routes.routes().iter().map(|route| &*route.name);
    if !names().any(|known| known == name) {
        let meant = nearest(name, names()).map(|meant| format!("; did you mean `{meant}`?"));
        return format!("there is no route `{name}`{}", meant.unwrap_or_default());
    }
    let pattern = found.route.pattern.as_deref().unwrap_or("what no route matches");
    format!("`{}` (`{pattern}`) comes first and matches", found.route.name)
}

fn why_query(found: &Explanation) -> String {
    match found.key.as_ref().map(|key| key.left_out.join(", ")) {
        Some(names) if !names.is_empty() => format!("the route leaves out {names}"),
        Some(_) => "the route keeps all parameters".to_owned(),
        None => why(found),
    }
}

fn why_ttl(found: &Explanation) -> String {
    let Some(response) = found.response.as_ref().filter(|response| response.stored) else {
        return why(found);
    };
    let lifetime = &response.lifetime;
    let lifetimes = match (lifetime.by_origin, lifetime.by_ttl) {
        (Some((time, directive)), Some(ttl)) => {
            format!("the origin sets {time} ({directive}), the `ttl` {ttl}")
        }
        (Some((time, directive)), None) => format!("the origin sets {time} ({directive})"),
        (None, Some(ttl)) => format!("the `ttl` sets {ttl}, the origin nothing"),
        (None, None) => "neither the origin nor a `ttl` sets a lifetime".to_owned(),
    };
    format!("{lifetimes}; `ttl_from` is `{}`", lifetime.ttl_from)
}

fn equal_tags(expected: &[String], found: &Explanation) -> Result<(), (String, String)> {
    let selectors = found.selectors.as_ref().map(|selectors| selectors.tags.clone());
    let (mut expected, mut actual) = (expected.to_vec(), selectors.unwrap_or_default());
    for tags in [&mut expected, &mut actual] {
        tags.sort_unstable();
        tags.dedup();
    }
    let because =
        || format!("these are the tags of route `{}` and of the response", found.route.name);
    equal("tags", &expected.join(", "), &actual.join(", "), because)
}

fn same_key(name: &str, found: &Explanation, others: &BTreeMap<&str, Explanation>) -> bool {
    let id = |found: &Explanation| found.key.as_ref().map(|key| key.id.clone());
    let other = others.get(name).and_then(id);
    other.is_some() && other == id(found)
}

/// Returns the components in which two keys differ.
fn differences(found: &Explanation, other: Option<&Explanation>) -> String {
    let keys = found.key.as_ref().zip(other.and_then(|other| other.key.as_ref()));
    let Some((own, other)) = keys else {
        return "one of the two requests has no key, because it bypasses the cache".to_owned();
    };
    let parts = [
        ("scheme", own.scheme == other.scheme),
        ("host", own.host == other.host && own.origin_host == other.origin_host),
        ("path", own.path == other.path),
        ("query", own.query == other.query),
        ("proxy fields about the target", own.forwarded == other.forwarded),
        ("cookies", own.cookies == other.cookies),
        ("partition", own.partition == other.partition),
    ];
    let differing: Vec<&str> = parts.iter().filter(|part| !part.1).map(|part| part.0).collect();
    if differing.is_empty() {
        return "the keys differ in hidden values: of the partition, `vary`, cookies or credentials in the query"
            .to_owned();
    }
    format!("the keys differ in {}", differing.join(", "))
}

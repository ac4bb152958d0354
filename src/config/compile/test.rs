//! Compilation of `[[test]]`: an operator's assertions about the configuration.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::problems::Problems;
use crate::{
    config::{
        file::{HeaderFields, Located, TestResponse, TestSection, Text, Texts},
        report::Finding,
        settings::{Assertion, AssertionKind, MockResponse, TestCase},
        suggest::{did_you_mean, nearest},
        value,
    },
    policy::{Partition, Reason},
};

/// Outcomes that a test can expect of a request or its response.
const OUTCOMES: [&str; 7] =
    ["lookup", "refresh", "shadow", "pass", "refused", "stored", "not-stored"];

/// Compiles the tests of a file. Leaves out invalid tests.
pub(super) fn compile(
    sections: &[Located<TestSection>],
    problems: &mut Problems<'_>,
) -> Vec<TestCase> {
    let names = problems.unique("test", sections.iter().map(|section| section.name.as_ref()));
    sections.iter().filter_map(|section| test(section, &names, problems)).collect()
}

fn test(
    section: &Located<TestSection>,
    names: &BTreeMap<&str, &Range<usize>>,
    problems: &mut Problems<'_>,
) -> Option<TestCase> {
    let name = problems.required(section.name.as_ref(), &section.span, "test", "name");
    let line = problems.required(section.request.as_ref(), &section.span, "test", "request")?;
    let (method, url) = problems.read(line, request)?;
    let from = section.from.as_ref().and_then(|text| {
        problems.read(text, |text| {
            text.parse::<IpAddr>().map_err(|_| "expected an IP address such as `10.0.0.1`")
        })
    });
    let expected = expectations(section, names, problems);
    if expected.is_empty() {
        let finding = Finding::warning(section.span.clone(), "this test has no assertions");
        let help = "add one, such as `route = \"tiles\"` or `outcome = \"stored\"`";
        problems.push(finding.help(help).doubtful());
    }
    Some(TestCase {
        name: name?.value.clone(),
        at: section.span.clone(),
        method,
        url,
        headers: fields(&section.headers, problems),
        body: section.body.as_ref().map(|text| text.value.clone()),
        from,
        claims: section.user.as_ref().map(|user| user.value.clone()),
        response: section.response.as_ref().and_then(|table| response(table, problems)),
        expected,
    })
}

/// Parses `GET https://host/path`.
fn request(text: &str) -> Result<(String, String), &'static str> {
    const PROBLEM: &str = "expected a method and a URL such as `GET https://api.example.com/path`";
    let (method, url) = text.trim().split_once(' ').ok_or(PROBLEM)?;
    let is_method = Method::from_bytes(method.as_bytes()).is_ok()
        && method.bytes().all(|byte| !byte.is_ascii_lowercase());
    let url = url.trim();
    let is_url = !url.is_empty() && !url.contains(char::is_whitespace);
    if is_method && is_url { Ok((method.to_owned(), url.to_owned())) } else { Err(PROBLEM) }
}

fn response(table: &Located<TestResponse>, problems: &mut Problems<'_>) -> Option<MockResponse> {
    let given = table.status.as_ref().map(|status| (status, u16::try_from(status.value)));
    let status = match given {
        None => 200,
        Some((_, Ok(code @ 200..=599))) => code,
        Some((status, _)) => {
            problems.error(&status.span, "expected a status between 200 and 599");
            return None;
        }
    };
    let body = table.body.as_ref().map(|text| text.value.clone());
    Some(MockResponse { status, headers: fields(&table.headers, problems), body })
}

/// Formats header fields as lines.
fn fields(fields: &HeaderFields, problems: &mut Problems<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        let texts = value.0.iter().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        for text in texts {
            let is_field = HeaderName::from_bytes(name.get_ref().as_bytes()).is_ok()
                && HeaderValue::from_str(&text).is_ok();
            if is_field {
                lines.push(format!("{}: {text}", name.get_ref()));
            } else {
                problems.error(&name.span(), "invalid header field");
            }
        }
    }
    lines
}

/// Creates an assertion from a text in the file.
type AssertionFromText = fn(String) -> AssertionKind;

fn expectations(
    section: &TestSection,
    names: &BTreeMap<&str, &Range<usize>>,
    problems: &mut Problems<'_>,
) -> Vec<Assertion> {
    let mut expected = Vec::new();
    let texts: [(Option<&Text>, AssertionFromText); 4] = [
        (section.route.as_ref(), AssertionKind::Route),
        (section.host.as_ref(), AssertionKind::Host),
        (section.path.as_ref(), AssertionKind::Path),
        (section.query.as_ref(), AssertionKind::Query),
    ];
    for (text, kind) in texts {
        expected.extend(text.map(|text| at(text, kind(text.value.clone()))));
    }
    expected.extend(section.outcome.as_ref().and_then(|text| outcome(section, text, problems)));
    expected.extend(section.reason.as_ref().and_then(|text| reason(text, problems)));
    expected.extend(section.partition.as_ref().and_then(|text| partition(text, problems)));
    if let Some(text) = &section.ttl {
        let time = problems.read(text, value::duration);
        expected.extend(time.map(|time| at(text, AssertionKind::Ttl(time))));
        needs_response(section, text, problems);
    }
    expected.extend(section.tags.as_ref().map(|texts| Assertion {
        at: texts.span.clone(),
        kind: AssertionKind::Tags(texts.iter().map(|text| text.value.clone()).collect()),
    }));
    let keys: [(Option<&Texts>, AssertionFromText); 2] = [
        (section.same_key_as.as_ref(), AssertionKind::SameKeyAs),
        (section.other_key_than.as_ref(), AssertionKind::OtherKeyThan),
    ];
    for (texts, kind) in keys {
        let texts = texts.into_iter().flat_map(|texts| texts.iter());
        expected.extend(texts.filter_map(|text| other_test(text, kind, names, problems)));
    }
    expected
}

fn partition(text: &Text, problems: &mut Problems<'_>) -> Option<Assertion> {
    if text.as_str() == "none" || Partition::parse(text).is_some() {
        return Some(at(text, AssertionKind::Partition(text.value.clone())));
    }
    let message = "expected `none`, `everyone`, `authenticated`, `user`, or `claim:NAME`";
    problems.error(&text.span, message);
    None
}

/// Parses the name of another test.
fn other_test(
    text: &Text,
    kind: AssertionFromText,
    names: &BTreeMap<&str, &Range<usize>>,
    problems: &mut Problems<'_>,
) -> Option<Assertion> {
    if names.contains_key(text.as_str()) {
        return Some(at(text, kind(text.value.clone())));
    }
    let finding = Finding::error(Some(text.span.clone()), "unknown test");
    let help = did_you_mean(nearest(text, names.keys().copied()));
    problems.push(finding.maybe_help(help));
    None
}

fn at(text: &Text, kind: AssertionKind) -> Assertion {
    Assertion { at: text.span.clone(), kind }
}

fn outcome(section: &TestSection, text: &Text, problems: &mut Problems<'_>) -> Option<Assertion> {
    let word = problems.one_of(Some(text), &OUTCOMES.map(|word| (word, word)))?;
    if word.ends_with("stored") {
        needs_response(section, text, problems);
    }
    Some(at(text, AssertionKind::Outcome(word.to_owned())))
}

fn reason(text: &Text, problems: &mut Problems<'_>) -> Option<Assertion> {
    let known = || Reason::ALL.iter().map(|reason| reason.as_str());
    if known().any(|reason| reason == text.as_str()) {
        return Some(at(text, AssertionKind::Reason(text.value.clone())));
    }
    let finding = Finding::error(Some(text.span.clone()), "unknown reason");
    let help = did_you_mean(nearest(text, known()));
    problems.push(finding.maybe_help(help.or(Some("see docs/headers.md for the list".to_owned()))));
    None
}

fn needs_response(section: &TestSection, text: &Text, problems: &mut Problems<'_>) {
    if section.response.is_none() {
        let message = "this assertion requires a `response`";
        problems.push(
            Finding::error(Some(text.span.clone()), message)
                .help("set the origin's response, as in `response = { status = 200 }`")
                .doubtful(),
        );
    }
}

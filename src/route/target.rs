//! Target templates: `/users/{user}/notes?range={?range}`.

use std::{borrow::Cow, fmt, ops::Range};

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use super::{
    pattern::{Params, Pattern},
    tags::{PlaceholderNames, TagProblem, TagTemplate, TagTemplatePart, query_values},
};

/// How many targets one template makes at most, where query parameters repeat.
const MAX_TARGETS: usize = 32;

/// What must be encoded wherever it stands: all but the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path and query with placeholders, to be filled in from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTemplate(TagTemplate);

/// A template that cannot be read, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct TargetError {
    /// What is wrong.
    pub problem: TargetProblem,
    /// The bytes of the text that are.
    pub at: Range<usize>,
}

/// What can be wrong with a target template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetProblem {
    /// It does not begin with `/`.
    #[error("a path begins with `/`; the host is the request's own")]
    Path,
    /// Characters that no path or query has, outside placeholders.
    #[error("this cannot be sent as a path: write it as clients do, as in `/a%20b`")]
    Characters,
    /// A placeholder is wrong.
    #[error(transparent)]
    Placeholder(TagProblem),
}

impl TargetTemplate {
    /// Reads a template of a route with this pattern.
    pub fn parse(text: &str, pattern: &Pattern) -> Result<Self, TargetError> {
        let fail = |problem, at| Err(TargetError { problem, at });
        if !text.starts_with('/') {
            return fail(TargetProblem::Path, 0..text.len());
        }
        let template =
            TagTemplate::parse(text, PlaceholderNames::of_path(pattern)).map_err(|error| {
                match error.problem {
                    TagProblem::Control => {
                        TargetError { problem: TargetProblem::Characters, at: error.at }
                    }
                    problem => {
                        TargetError { problem: TargetProblem::Placeholder(problem), at: error.at }
                    }
                }
            })?;
        let filled = template.0.iter().map(|part| match part {
            TagTemplatePart::Literal(text) => text,
            TagTemplatePart::Param(_) | TagTemplatePart::Query(_) | TagTemplatePart::User => "x",
        });
        if !is_target(&filled.collect::<String>()) {
            return fail(TargetProblem::Characters, 0..text.len());
        }
        Ok(Self(template))
    }

    /// Adds its targets for a request, leaving out those that are there already.
    ///
    /// Values are encoded so that they stay what they are: one segment of the path, one value of the
    /// query. A query parameter that repeats makes a target for each value; one that is missing or
    /// empty makes none.
    pub fn render(&self, params: &Params<'_>, query: Option<&str>, into: &mut Vec<String>) {
        let mut targets = vec![String::new()];
        for part in &self.0.0 {
            match part {
                TagTemplatePart::Literal(text) => append(&mut targets, &[Cow::Borrowed(&**text)]),
                TagTemplatePart::Param(name) => {
                    let value = params.value(name).map(|value| reencode_segment(value));
                    append(&mut targets, value.as_slice());
                }
                TagTemplatePart::Query(name) => {
                    let values = query_values(query, name);
                    let values: Vec<_> = values.iter().map(|value| encode(value)).collect();
                    append(&mut targets, &values);
                }
                // Never read: a target names no user.
                TagTemplatePart::User => append(&mut targets, &[]),
            }
        }
        for target in targets {
            if !into.contains(&target) {
                into.push(target);
            }
        }
    }
}

impl fmt::Display for TargetTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

fn is_target(text: &str) -> bool {
    !text.contains('#') && text.parse::<PathAndQuery>().is_ok()
}

/// Replaces each target by one for each value.
fn append(targets: &mut Vec<String>, values: &[Cow<'_, str>]) {
    *targets = targets
        .iter()
        .flat_map(|target| values.iter().map(move |value| format!("{target}{value}")))
        .take(MAX_TARGETS)
        .collect();
}

/// A segment of a path, in which more may stand unencoded than in a query.
fn reencode_segment(segment: &str) -> Cow<'static, str> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(value) => Cow::Owned(encode(&value).into_owned()),
        // Bytes that are no text pass as they came: all of them are encoded already.
        Err(_) => Cow::Owned(segment.to_owned()),
    }
}

fn encode(value: &str) -> Cow<'_, str> {
    utf8_percent_encode(value, RESERVED).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::PathForm;

    fn targets(template: &str, path: &str, query: Option<&str>) -> Vec<String> {
        let pattern = Pattern::parse("/users/{user}/**").unwrap();
        let template = TargetTemplate::parse(template, &pattern).unwrap();
        let mut targets = Vec::new();
        template.render(&pattern.params((PathForm::Sent, path)).unwrap(), query, &mut targets);
        targets
    }

    #[test]
    fn placeholders_are_filled_in_and_stay_what_they_are() {
        assert_eq!(targets("/a?b=c", "/users/7", None), ["/a?b=c"]);
        assert_eq!(targets("/n/{user}/x", "/users/caf%C3%A9", None), ["/n/caf%C3%A9/x"]);
        assert_eq!(targets("/n?u={user}&v=1", "/users/a&b=c", None), ["/n?u=a%26b%3Dc&v=1"]);
        assert_eq!(targets("/n/{?p}", "/users/7", Some("p=a/b%3Fc")), ["/n/a%2Fb%3Fc"]);
        assert_eq!(targets("/n/{?p}", "/users/7", Some("p=1&p=2&p=1")), ["/n/1", "/n/2"]);
        assert_eq!(targets("/n/{?p}", "/users/7", Some("q=1&p")), [""; 0]);
        let many: Vec<String> = (0..100).map(|value| format!("p={value}")).collect();
        assert_eq!(targets("/{?p}{?p}", "/users/7", Some(&many.join("&"))).len(), MAX_TARGETS);
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        let pattern = Pattern::parse("/{user}").unwrap();
        let problem = |text: &'static str| {
            let error = TargetTemplate::parse(text, &pattern).unwrap_err();
            (error.to_string(), &text[error.at])
        };
        assert_eq!(problem("").1, "");
        assert_eq!(problem("api.test/a").0, TargetProblem::Path.to_string());
        assert_eq!(problem("/a b"), (TargetProblem::Characters.to_string(), "/a b"));
        assert_eq!(problem("/a\n").0, TargetProblem::Characters.to_string());
        assert_eq!(problem("/a/{order}").1, "{order}");
        assert_eq!(problem("/a/{user").1, "{");
        assert!(TargetTemplate::parse("/a/{user}?b={?b}", &pattern).is_ok());
    }
}

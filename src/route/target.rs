//! Target templates, such as `/users/{user}/notes?range={?range}`.

use std::{borrow::Cow, fmt, ops::Range};

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use super::{
    pattern::{Params, Pattern},
    tags::{PlaceholderNames, TagProblem, TagTemplate, TagTemplatePart, query_values},
};

/// Maximum number of targets from one template, if query parameters repeat.
const MAX_TARGETS: usize = 32;

/// Characters that are encoded everywhere: all except the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A template of a path and query that is filled from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTemplate(TagTemplate);

/// A target template syntax error and its position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct TargetError {
    /// Kind of error.
    pub problem: TargetProblem,
    /// Byte range of the error.
    pub at: Range<usize>,
}

/// The kinds of errors in a target template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetProblem {
    /// The target does not begin with `/`.
    #[error("expected a path that begins with `/`; the host is that of the request")]
    Path,
    /// The target has invalid characters outside placeholders.
    #[error("invalid characters in a path; encode them as in `/a%20b`")]
    Characters,
    /// A placeholder is invalid.
    #[error(transparent)]
    Placeholder(TagProblem),
}

impl TargetTemplate {
    /// Parses a template of a route with this pattern.
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

    /// Adds the targets for a request, without duplicates.
    ///
    /// Values are encoded so that each remains one path segment or one query value. A repeated
    /// query parameter adds a target for each value; a missing or empty parameter adds no target.
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
                // Never parsed: a target has no user.
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

/// Appends each value to a copy of each target. Stops at [`MAX_TARGETS`] targets.
fn append(targets: &mut Vec<String>, values: &[Cow<'_, str>]) {
    *targets = targets
        .iter()
        .flat_map(|target| values.iter().map(move |value| format!("{target}{value}")))
        .take(MAX_TARGETS)
        .collect();
}

/// Encodes the reserved characters that are allowed in a path segment but not in a query value.
fn reencode_segment(segment: &str) -> Cow<'static, str> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(value) => Cow::Owned(encode(&value).into_owned()),
        // A segment that is not UTF-8 is already fully encoded.
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

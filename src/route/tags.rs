//! Tag templates: `stocks:{symbol}`, `range:{?range}`.

use std::{borrow::Cow, fmt, ops::Range};

use thiserror::Error;

use super::pattern::{Params, Pattern};
use crate::key::target::query;

/// How many tags one template makes at most, where query parameters repeat.
const MAX_TAGS: usize = 32;

/// A tag with placeholders, to be filled in for each response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTemplate(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// A segment of the path, by its name in the pattern.
    Param(Box<str>),
    /// A query parameter.
    Query(Box<str>),
}

/// A template that cannot be read, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct TagError {
    /// What is wrong.
    pub problem: TagProblem,
    /// The bytes of the text that are.
    pub at: Range<usize>,
}

/// What can be wrong with a tag template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TagProblem {
    /// No text at all.
    #[error("a tag is empty")]
    Empty,
    /// A brace without its counterpart.
    #[error("a brace has no counterpart")]
    Brace,
    /// A placeholder for nothing that the route knows.
    #[error("nothing is called `{{{0}}}` here")]
    Unknown(String),
    /// A control character.
    #[error("a tag has no control characters")]
    Control,
}

impl TagTemplate {
    /// Reads a template of a route with this pattern.
    pub fn parse(text: &str, pattern: &Pattern) -> Result<Self, TagError> {
        let fail = |problem, at| Err(TagError { problem, at });
        if text.is_empty() {
            return fail(TagProblem::Empty, 0..0);
        }
        if text.contains(char::is_control) {
            return fail(TagProblem::Control, 0..text.len());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let start = text.len() - after.len();
            push_literal(&mut parts, literal, start - literal.len() - 1)?;
            let Some((name, after)) = after.split_once('}') else {
                return fail(TagProblem::Brace, start - 1..start);
            };
            let Some(part) = placeholder(name, pattern) else {
                let at = start - 1..start + name.len() + 1;
                return fail(TagProblem::Unknown(name.to_owned()), at);
            };
            parts.push(part);
            rest = after;
        }
        push_literal(&mut parts, rest, text.len() - rest.len())?;
        Ok(Self(parts.into()))
    }

    /// Adds its tags for a request, leaving out those that are there already.
    ///
    /// Values are percent-decoded. A query parameter that repeats makes a tag for each value, so that
    /// a purge of any of them finds the response; one that is missing or empty makes no tag.
    pub fn render(&self, params: &Params<'_>, query: Option<&str>, into: &mut Vec<String>) {
        let mut tags = vec![String::new()];
        for part in &self.0 {
            match part {
                Part::Literal(text) => append(&mut tags, &[Cow::Borrowed(text)]),
                Part::Param(name) => append(&mut tags, &path_values(params, name)),
                Part::Query(name) => append(&mut tags, &query_values(query, name)),
            }
        }
        for tag in tags {
            if !tag.is_empty() && !into.contains(&tag) {
                into.push(tag);
            }
        }
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => formatter.write_str(text),
            Part::Param(name) => write!(formatter, "{{{name}}}"),
            Part::Query(name) => write!(formatter, "{{?{name}}}"),
        })
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &str, start: usize) -> Result<(), TagError> {
    if let Some(index) = literal.find('}') {
        let at = start + index..start + index + 1;
        return Err(TagError { problem: TagProblem::Brace, at });
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(())
}

fn placeholder(name: &str, pattern: &Pattern) -> Option<Part> {
    match name.strip_prefix('?') {
        Some("") => None,
        Some(query) => Some(Part::Query(query.into())),
        None => pattern.param_names().any(|param| param == name).then(|| Part::Param(name.into())),
    }
}

/// Replaces each tag by one for each value.
fn append(tags: &mut Vec<String>, values: &[Cow<'_, str>]) {
    if let [value] = values {
        for tag in tags {
            tag.push_str(value);
        }
        return;
    }
    *tags = tags
        .iter()
        .flat_map(|tag| values.iter().map(move |value| format!("{tag}{value}")))
        .take(MAX_TAGS)
        .collect();
}

fn path_values<'a>(params: &Params<'a>, name: &str) -> Vec<Cow<'a, str>> {
    let decode = |value| {
        percent_encoding::percent_decode_str(value).decode_utf8().unwrap_or(Cow::Borrowed(value))
    };
    params.value(name).map(decode).into_iter().collect()
}

fn query_values<'a>(query: Option<&'a str>, name: &str) -> Vec<Cow<'a, str>> {
    query::pairs(query.unwrap_or_default())
        .filter(|(given, _)| query::decoded(given) == name)
        .filter_map(|(_, value)| value.filter(|value| !value.is_empty()).map(query::decoded))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(template: &str, path: &str, query: Option<&str>) -> Vec<String> {
        let pattern = Pattern::parse("/api/{symbol}/**").unwrap();
        let template = TagTemplate::parse(template, &pattern).unwrap();
        let mut tags = Vec::new();
        template.render(&pattern.params(path).unwrap(), query, &mut tags);
        tags
    }

    fn problem(text: &str) -> (TagProblem, &str) {
        let pattern = Pattern::parse("/{symbol}").unwrap();
        let error = TagTemplate::parse(text, &pattern).unwrap_err();
        (error.problem, &text[error.at])
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(tags("stocks", "/api/x", None), ["stocks"]);
        assert_eq!(tags("stock:{symbol}", "/api/caf%C3%A9/x", None), ["stock:café"]);
        assert_eq!(tags("{symbol}-{?range}!", "/api/x", Some("a=1&range=5+d")), ["x-5 d!"]);
    }

    #[test]
    fn repeated_parameters_make_a_tag_each_and_missing_ones_none() {
        assert_eq!(tags("r:{?r}", "/api/x", Some("r=1&r=2&r=1")), ["r:1", "r:2"]);
        assert_eq!(tags("r:{?r}", "/api/x", Some("s=1&r")), [""; 0]);
        assert_eq!(tags("r:{?r}", "/api/x", None), [""; 0]);
        let many: Vec<String> = (0..1000).map(|value| format!("r={value}")).collect();
        assert_eq!(tags("{?r}{?r}{?r}", "/api/x", Some(&many.join("&"))).len(), MAX_TAGS);
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        assert_eq!(problem(""), (TagProblem::Empty, ""));
        assert_eq!(problem("a{symbol"), (TagProblem::Brace, "{"));
        assert_eq!(problem("a}b"), (TagProblem::Brace, "}"));
        assert_eq!(problem("a:{user}"), (TagProblem::Unknown("user".into()), "{user}"));
        assert_eq!(problem("a:{$.id}"), (TagProblem::Unknown("$.id".into()), "{$.id}"));
        assert_eq!(problem("{?}"), (TagProblem::Unknown("?".into()), "{?}"));
    }
}

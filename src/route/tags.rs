//! Tag templates: `stocks:{symbol}`, `range:{?range}`, `product:{$.id}`.

use std::{borrow::Cow, fmt, ops::Range};

use thiserror::Error;

use super::{
    json_path::{self, JsonPathError},
    pattern::{Params, Pattern},
};
use crate::key::uri::query;

/// Maximum number of tags from one template, if query parameters repeat.
const MAX_TAGS: usize = 32;

/// A tag template that is filled from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTemplate(pub(super) Box<[TagTemplatePart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagTemplatePart {
    Literal(Box<str>),
    /// A path segment, by its name in the pattern.
    Param(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// The authenticated user.
    User,
}

/// The names that placeholders may use, in addition to query parameters and JSON paths.
#[derive(Debug, Clone, Copy)]
pub struct PlaceholderNames<'a> {
    /// The pattern with the named segments, which take precedence: a segment called `user` shadows
    /// the user.
    pub pattern: &'a Pattern,
    /// Whether requests are authenticated.
    pub users: UserPlaceholder,
}

/// Whether `{user}` is defined without a segment of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserPlaceholder {
    /// Requests are authenticated as a user.
    Defined,
    /// The `[user]` section configures neither tokens nor a gateway.
    Undefined,
}

/// The values for a template from one request.
#[derive(Debug, Clone)]
pub struct PlaceholderValues<'a> {
    /// The path segments that the route's pattern names.
    pub params: Params<'a>,
    /// The query as sent.
    pub query: Option<&'a str>,
    /// The user's name from the claim or the gateway.
    pub user: Option<&'a str>,
}

impl<'a> PlaceholderNames<'a> {
    /// Creates names for a template without a user.
    pub const fn of_path(pattern: &'a Pattern) -> Self {
        Self { pattern, users: UserPlaceholder::Undefined }
    }
}

/// A tag template syntax error and its position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct TagError {
    /// Kind of error.
    pub problem: TagProblem,
    /// Byte range of the error.
    pub at: Range<usize>,
}

/// The kinds of errors in a tag template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TagProblem {
    /// The tag is empty.
    #[error("empty tag")]
    Empty,
    /// A brace has no counterpart.
    #[error("unbalanced brace")]
    Brace,
    /// A placeholder has an unknown name.
    #[error("unknown placeholder `{{{0}}}`")]
    Unknown(String),
    /// The tag uses `{user}`, but there are no users and no path segment has this name.
    #[error("`{{user}}` is not available: `[user]` configures no authentication")]
    User,
    /// The tag uses a JSON path where there is no JSON document.
    #[error("a JSONPath cannot be used here: there is no JSON document")]
    NoBody,
    /// A JSON path is invalid.
    #[error("{0}")]
    Path(JsonPathError),
    /// The tag contains a control character.
    #[error("a tag cannot contain control characters")]
    Control,
}

impl TagTemplate {
    /// Parses a template of a route on which these names are defined.
    pub fn parse(text: &str, names: PlaceholderNames<'_>) -> Result<Self, TagError> {
        Self::from_tokens(&tokenize(text)?, names)
    }

    pub(super) fn from_tokens(
        tokens: &[TemplateToken<'_>],
        names: PlaceholderNames<'_>,
    ) -> Result<Self, TagError> {
        tokens
            .iter()
            .map(|token| TagTemplatePart::from_token(token, names))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Adds the tags for a request, without duplicates.
    ///
    /// Values are percent-decoded. A repeated query parameter adds a tag for each value, so that a
    /// purge of any of them finds the response. A missing or empty parameter adds no tag, and
    /// neither does an unknown user.
    pub fn render(&self, values: &PlaceholderValues<'_>, into: &mut Vec<String>) {
        let mut tags = vec![String::new()];
        for part in &self.0 {
            append(&mut tags, &part.values(values));
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
        self.0.iter().try_for_each(|part| part.fmt(formatter))
    }
}

impl TagTemplatePart {
    /// Creates the part for literal text, or for a placeholder that a request fills.
    pub(super) fn from_token(
        token: &TemplateToken<'_>,
        names: PlaceholderNames<'_>,
    ) -> Result<Self, TagError> {
        let TemplateToken::Placeholder { name, at } = token else {
            return Ok(Self::Literal(token.text().into()));
        };
        let fail = |problem| Err(TagError { problem, at: at.clone() });
        if names.pattern.param_names().any(|param| param == *name) {
            return Ok(Self::Param((*name).into()));
        }
        match name.strip_prefix('?') {
            Some(parameter) if !parameter.is_empty() => Ok(Self::Query(parameter.into())),
            _ if token.is_path() => fail(TagProblem::NoBody),
            _ if *name == "user" => match names.users {
                UserPlaceholder::Defined => Ok(Self::User),
                UserPlaceholder::Undefined => fail(TagProblem::User),
            },
            _ => fail(TagProblem::Unknown((*name).to_owned())),
        }
    }

    /// Returns the query parameter that the part stands for, if any.
    pub(super) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Literal(_) | Self::Param(_) | Self::User => None,
        }
    }

    /// Returns the percent-decoded values for a request.
    pub(super) fn values<'a>(&'a self, values: &'a PlaceholderValues<'_>) -> Vec<Cow<'a, str>> {
        match self {
            Self::Literal(text) => vec![Cow::Borrowed(text)],
            Self::Param(name) => path_values(&values.params, name),
            Self::Query(name) => query_values(values.query, name),
            Self::User => values.user.map(Cow::Borrowed).into_iter().collect(),
        }
    }
}

impl fmt::Display for TagTemplatePart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => formatter.write_str(text),
            Self::Param(name) => write!(formatter, "{{{name}}}"),
            Self::Query(name) => write!(formatter, "{{?{name}}}"),
            Self::User => formatter.write_str("{user}"),
        }
    }
}

/// A token of a template's text.
pub(super) enum TemplateToken<'a> {
    /// Literal text.
    Literal(&'a str),
    /// The text between two braces; `at` includes the braces.
    Placeholder { name: &'a str, at: Range<usize> },
}

impl<'a> TemplateToken<'a> {
    /// Returns whether the token is meant as a JSON path.
    pub(super) fn is_path(&self) -> bool {
        matches!(self, Self::Placeholder { name, .. } if name.starts_with('$'))
    }

    fn text(&self) -> &'a str {
        match self {
            Self::Literal(text) | Self::Placeholder { name: text, .. } => text,
        }
    }
}

/// Splits a template's text into tokens.
pub(super) fn tokenize(text: &str) -> Result<Vec<TemplateToken<'_>>, TagError> {
    let fail = |problem, at| Err(TagError { problem, at });
    if text.is_empty() {
        return fail(TagProblem::Empty, 0..0);
    }
    if text.contains(char::is_control) {
        return fail(TagProblem::Control, 0..text.len());
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let start = text.len() - after.len();
        tokens.extend(literal_token(literal, start - literal.len() - 1)?);
        let Some(length) = placeholder_length(after) else {
            return fail(TagProblem::Brace, start - 1..start);
        };
        let (name, end) = after.split_at(length);
        tokens.push(TemplateToken::Placeholder { name, at: start - 1..start + length + 1 });
        rest = end.get(1..).unwrap_or_default();
    }
    tokens.extend(literal_token(rest, text.len() - rest.len())?);
    Ok(tokens)
}

/// Returns the length of a placeholder up to its closing brace.
fn placeholder_length(after: &str) -> Option<usize> {
    if after.starts_with('$') { json_path::placeholder_end(after) } else { after.find('}') }
}

fn literal_token(literal: &str, start: usize) -> Result<Option<TemplateToken<'_>>, TagError> {
    if let Some(index) = literal.find('}') {
        let at = start + index..start + index + 1;
        return Err(TagError { problem: TagProblem::Brace, at });
    }
    Ok((!literal.is_empty()).then_some(TemplateToken::Literal(literal)))
}

/// Appends each value to a copy of each tag. Stops at [`MAX_TAGS`] tags.
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

pub(super) fn query_values<'a>(query: Option<&'a str>, name: &str) -> Vec<Cow<'a, str>> {
    query::pairs(query.unwrap_or_default())
        .filter(|(given, _)| query::decoded(given) == name)
        .filter_map(|(_, value)| value.filter(|value| !value.is_empty()).map(query::decoded))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::PathForm;

    fn tags(template: &str, path: &str, query: Option<&str>) -> Vec<String> {
        let pattern = Pattern::parse("/api/{symbol}/**").unwrap();
        let names = PlaceholderNames { pattern: &pattern, users: UserPlaceholder::Defined };
        let template = TagTemplate::parse(template, names).unwrap();
        let mut tags = Vec::new();
        let params = pattern.params((PathForm::Sent, path)).unwrap();
        template.render(&PlaceholderValues { params, query, user: Some("u|1") }, &mut tags);
        tags
    }

    fn problem(text: &str) -> (TagProblem, &str) {
        let pattern = Pattern::parse("/{symbol}").unwrap();
        let error = TagTemplate::parse(text, PlaceholderNames::of_path(&pattern)).unwrap_err();
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
    fn a_user_is_named_as_the_claim_says_and_an_unknown_one_makes_no_tag() {
        let pattern = Pattern::parse("/api/**").unwrap();
        let names = PlaceholderNames { pattern: &pattern, users: UserPlaceholder::Defined };
        let template = TagTemplate::parse("stocks:{user}", names).unwrap();
        let tags = |user| {
            let mut tags = Vec::new();
            let values = PlaceholderValues { params: Params::default(), query: None, user };
            template.render(&values, &mut tags);
            tags
        };
        assert_eq!(tags(Some("auth0|%41")), ["stocks:auth0|%41"]);
        assert_eq!(tags(None), [""; 0]);
    }

    #[test]
    fn a_segment_that_is_called_user_comes_first() {
        let pattern = Pattern::parse("/users/{user}").unwrap();
        let names = PlaceholderNames { pattern: &pattern, users: UserPlaceholder::Defined };
        let template = TagTemplate::parse("{user}", names).unwrap();
        let params = pattern.params((PathForm::Sent, "/users/7")).unwrap();
        let mut tags = Vec::new();
        template.render(&PlaceholderValues { params, query: None, user: Some("42") }, &mut tags);
        assert_eq!(tags, ["7"]);
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        assert_eq!(problem(""), (TagProblem::Empty, ""));
        assert_eq!(problem("a{symbol"), (TagProblem::Brace, "{"));
        assert_eq!(problem("a}b"), (TagProblem::Brace, "}"));
        assert_eq!(problem("a:{name}"), (TagProblem::Unknown("name".into()), "{name}"));
        assert_eq!(problem("a:{user}"), (TagProblem::User, "{user}"));
        assert_eq!(problem("a:{$.id}"), (TagProblem::NoBody, "{$.id}"));
        assert_eq!(problem("{?}"), (TagProblem::Unknown("?".into()), "{?}"));
    }
}

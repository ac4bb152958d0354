//! Tag templates: `stocks:{symbol}`, `range:{?range}`, `product:{$.id}`.

use std::{borrow::Cow, fmt, ops::Range};

use thiserror::Error;

use super::{
    body_tags::BodyTagTemplate,
    json_path::{self, JsonPathError},
    pattern::{Params, Pattern},
};
use crate::key::uri::query;

/// How many tags one template makes at most, where query parameters repeat.
const MAX_TAGS: usize = 32;

/// A tag of a response, by what fills its placeholders in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnyTagTemplate {
    /// The request alone.
    Request(TagTemplate),
    /// The JSON of the response, too.
    Body(BodyTagTemplate),
}

/// A tag with placeholders, to be filled in for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTemplate(pub(super) Box<[TagTemplatePart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TagTemplatePart {
    Literal(Box<str>),
    /// A segment of the path, by its name in the pattern.
    Param(Box<str>),
    /// A query parameter.
    Query(Box<str>),
    /// The user whom the request proves to be from.
    User,
}

/// What placeholders may name besides query parameters and JSON.
#[derive(Debug, Clone, Copy)]
pub struct PlaceholderNames<'a> {
    /// The segments of the path that this pattern names. They come first: a segment called `user` is
    /// what `{user}` means on its route.
    pub pattern: &'a Pattern,
    /// Whether requests prove which user they are from.
    pub users: UserPlaceholder,
}

/// Whether `{user}` has a meaning where no segment of the path is called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserPlaceholder {
    /// Requests prove which user they are from.
    Defined,
    /// They do not: `[user]` says nothing about tokens or a gateway.
    Undefined,
}

/// What fills in the placeholders of a template for one request.
#[derive(Debug, Clone)]
pub struct PlaceholderValues<'a> {
    /// The segments of the path that the route's pattern names.
    pub params: Params<'a>,
    /// The query as sent.
    pub query: Option<&'a str>,
    /// The user's name as the claim or the gateway writes it.
    pub user: Option<&'a str>,
}

impl<'a> PlaceholderNames<'a> {
    /// Those of a path alone.
    pub const fn of_path(pattern: &'a Pattern) -> Self {
        Self { pattern, users: UserPlaceholder::Undefined }
    }
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
    /// `{user}` where users are unknown and the path has no segment of this name.
    #[error("nothing is called `{{user}}` here: requests do not prove which user they are from")]
    User,
    /// A path into JSON where there is none at hand.
    #[error("there is no JSON at hand here")]
    NoBody,
    /// A placeholder that begins like a path into JSON and is none.
    #[error("{0}")]
    Path(JsonPathError),
    /// A control character.
    #[error("a tag has no control characters")]
    Control,
}

impl AnyTagTemplate {
    /// Reads a tag of the responses of a route in which these names have a meaning.
    pub(crate) fn parse(text: &str, names: PlaceholderNames<'_>) -> Result<Self, TagError> {
        let tokens = tokenize(text)?;
        if tokens.iter().any(TemplateToken::is_path) {
            return BodyTagTemplate::from_tokens(&tokens, names).map(Self::Body);
        }
        TagTemplate::from_tokens(&tokens, names).map(Self::Request)
    }

    /// The query parameters that it is made of.
    pub(crate) fn parameters(&self) -> Vec<&str> {
        match self {
            Self::Request(template) => {
                template.0.iter().filter_map(TagTemplatePart::parameter).collect()
            }
            Self::Body(template) => template.parameters(),
        }
    }
}

impl TagTemplate {
    /// Reads a template of a route in which these names have a meaning.
    pub fn parse(text: &str, names: PlaceholderNames<'_>) -> Result<Self, TagError> {
        Self::from_tokens(&tokenize(text)?, names)
    }

    fn from_tokens(
        tokens: &[TemplateToken<'_>],
        names: PlaceholderNames<'_>,
    ) -> Result<Self, TagError> {
        tokens
            .iter()
            .map(|token| TagTemplatePart::from_token(token, names))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Adds its tags for a request, leaving out those that are there already.
    ///
    /// Values are percent-decoded. A query parameter that repeats makes a tag for each value, so that
    /// a purge of any of them finds the response; one that is missing or empty makes no tag. The same
    /// holds for a user who is unknown.
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
    /// What the request fills in here.
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

    /// The query parameter that it stands for, if it does.
    pub(super) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Literal(_) | Self::Param(_) | Self::User => None,
        }
    }

    /// Its values in a request, percent-decoded.
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

/// A part of a template's text.
pub(super) enum TemplateToken<'a> {
    /// Text that stands for itself.
    Literal(&'a str),
    /// What stands between two braces, and where, braces included.
    Placeholder { name: &'a str, at: Range<usize> },
}

impl<'a> TemplateToken<'a> {
    /// Whether it is meant as a path into JSON.
    pub(super) fn is_path(&self) -> bool {
        matches!(self, Self::Placeholder { name, .. } if name.starts_with('$'))
    }

    fn text(&self) -> &'a str {
        match self {
            Self::Literal(text) | Self::Placeholder { name: text, .. } => text,
        }
    }
}

/// Takes a template's text apart.
fn tokenize(text: &str) -> Result<Vec<TemplateToken<'_>>, TagError> {
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

/// The bytes up to the brace that closes a placeholder.
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

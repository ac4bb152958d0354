//! Tag templates that may use a response's JSON, such as `product:{$.id}`.

use std::{borrow::Cow, fmt};

use serde_json::Value;
use serde_json_path::JsonPath;

use super::{
    json_path::{self, TagLimitExceeded},
    tags::{
        PlaceholderNames, PlaceholderValues, TagError, TagProblem, TagTemplate, TagTemplatePart,
        TemplateToken, tokenize,
    },
};
use crate::policy::tag;

/// A tag template for responses, classified by the source of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnyTagTemplate {
    /// The values come from the request alone.
    Request(TagTemplate),
    /// The values come from the request and the JSON of the response.
    Body(BodyTagTemplate),
}

/// A tag template with at least one placeholder for the response's JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTagTemplate(Box<[BodyTemplatePart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum BodyTemplatePart {
    Request(TagTemplatePart),
    Path(JsonPath),
}

/// The values that fill a template: from a request and from the JSON of its response.
#[derive(Debug, Clone)]
pub struct BodyValues<'a> {
    /// Values from the request.
    pub values: PlaceholderValues<'a>,
    /// The response's JSON.
    pub document: &'a Value,
}

impl AnyTagTemplate {
    /// Parses a tag template of a route on which these names are defined.
    pub(crate) fn parse(text: &str, names: PlaceholderNames<'_>) -> Result<Self, TagError> {
        let tokens = tokenize(text)?;
        if tokens.iter().any(TemplateToken::is_path) {
            return BodyTagTemplate::from_tokens(&tokens, names).map(Self::Body);
        }
        TagTemplate::from_tokens(&tokens, names).map(Self::Request)
    }

    /// Returns the query parameters that the template uses.
    pub(crate) fn parameters(&self) -> Vec<&str> {
        match self {
            Self::Request(template) => {
                template.0.iter().filter_map(TagTemplatePart::parameter).collect()
            }
            Self::Body(template) => template.parameters(),
        }
    }
}

impl BodyTagTemplate {
    fn from_tokens(
        tokens: &[TemplateToken<'_>],
        names: PlaceholderNames<'_>,
    ) -> Result<Self, TagError> {
        let part = |token: &TemplateToken<'_>| match token {
            TemplateToken::Placeholder { name, at } if token.is_path() => {
                let fail = |error| TagError {
                    problem: TagProblem::Path(error),
                    at: at.start + 1..at.end - 1,
                };
                json_path::parse(name).map(BodyTemplatePart::Path).map_err(fail)
            }
            _ => TagTemplatePart::from_token(token, names).map(BodyTemplatePart::Request),
        };
        tokens.iter().map(part).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the query parameters that the template uses.
    fn parameters(&self) -> Vec<&str> {
        let parts = self.0.iter().filter_map(|part| match part {
            BodyTemplatePart::Request(part) => part.parameter(),
            BodyTemplatePart::Path(_) => None,
        });
        parts.collect()
    }

    /// Adds one tag for each combination of the placeholders' values. Adds no tag if a placeholder
    /// has no value, and may add a tag twice.
    pub fn render(
        &self,
        body_values: &BodyValues<'_>,
        into: &mut Vec<String>,
    ) -> Result<(), TagLimitExceeded> {
        let mut tags = vec![String::new()];
        for part in &self.0 {
            tags = combine(&tags, &part.values(body_values)?)?;
        }
        into.append(&mut tags);
        Ok(())
    }
}

impl BodyTemplatePart {
    fn values<'a>(
        &'a self,
        body_values: &'a BodyValues<'_>,
    ) -> Result<Vec<Cow<'a, str>>, TagLimitExceeded> {
        match self {
            Self::Request(part) => Ok(part.values(&body_values.values)),
            Self::Path(path) => json_path::values(path, body_values.document),
        }
    }
}

impl fmt::Display for BodyTagTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            BodyTemplatePart::Request(part) => part.fmt(formatter),
            BodyTemplatePart::Path(path) => write!(formatter, "{{{path}}}"),
        })
    }
}

/// Returns each tag with each value appended.
fn combine(tags: &[String], values: &[Cow<'_, str>]) -> Result<Vec<String>, TagLimitExceeded> {
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default();
    let length = longest(&mut tags.iter().map(String::len))
        + longest(&mut values.iter().map(|value| value.len()));
    if tags.len().saturating_mul(values.len()) > tag::MAX_COUNT || length > tag::MAX_LENGTH {
        return Err(TagLimitExceeded);
    }
    let pairs = tags.iter().flat_map(|tag| values.iter().map(move |value| (tag, value)));
    Ok(pairs.map(|(tag, value)| format!("{tag}{value}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        key::uri::PathForm,
        route::{Pattern, tags::UserPlaceholder},
    };

    const PATTERN: &str = "/shops/{shop}";

    fn parse(text: &str, users: UserPlaceholder) -> Result<AnyTagTemplate, TagError> {
        AnyTagTemplate::parse(
            text,
            PlaceholderNames { pattern: &Pattern::parse(PATTERN).unwrap(), users },
        )
    }

    fn template(text: &str) -> BodyTagTemplate {
        match parse(text, UserPlaceholder::Defined) {
            Ok(AnyTagTemplate::Body(template)) => template,
            other => panic!("{other:?}"),
        }
    }

    fn rendered(text: &str, document: &Value) -> Result<Vec<String>, TagLimitExceeded> {
        let pattern = Pattern::parse(PATTERN).unwrap();
        let params = pattern.params((PathForm::Sent, "/shops/a%20b")).unwrap();
        let values = PlaceholderValues { params, query: Some("page=1&page=2"), user: Some("u1") };
        let body_values = BodyValues { values, document };
        let mut tags = Vec::new();
        template(text).render(&body_values, &mut tags)?;
        Ok(tags)
    }

    fn tags(text: &str, document: &Value) -> Vec<String> {
        rendered(text, document).unwrap()
    }

    fn problem(text: &str) -> (TagProblem, &str) {
        let error = parse(text, UserPlaceholder::Undefined).unwrap_err();
        (error.problem, &text[error.at])
    }

    #[test]
    fn placeholders_are_filled_in_from_body_and_request() {
        let document = json!({ "id": 17, "open": true, "café": "é", "price": 1.5 });
        assert_eq!(tags("product:{$.id}", &document), ["product:17"]);
        assert_eq!(tags("{shop}:{$.open}!", &document), ["a b:true!"]);
        assert_eq!(tags("{$['café']}{$.price}", &document), ["é1.5"]);
        assert_eq!(tags("{?page}-{$.id}", &document), ["1-17", "2-17"]);
        assert_eq!(tags("{user}:{$.id}", &document), ["u1:17"]);
    }

    #[test]
    fn each_value_makes_one_tag_and_none_makes_none() {
        let items =
            json!({ "items": [{ "c": "b" }, { "c": "a" }, { "c": "b" }, {}, { "c": null }] });
        assert_eq!(tags("cat:{$.items[*].c}", &items), ["cat:a", "cat:b"]);
        let document =
            json!({ "null": null, "empty": "", "list": [1], "object": {}, "nl": "a\nb" });
        for path in ["$.missing", "$.null", "$.empty", "$.list", "$.object", "$.nl"] {
            assert_eq!(tags(&format!("a:{{{path}}}"), &document), [""; 0], "{path}");
        }
        assert_eq!(tags("{$.list[*]}{$.missing}", &document), [""; 0]);
        assert_eq!(tags("{$.list[*]}{?missing}", &document), [""; 0]);
    }

    #[test]
    fn there_are_no_more_tags_than_a_response_may_have_and_no_longer_ones() {
        let numbers = |count: usize| json!((0..count).collect::<Vec<_>>());
        assert_eq!(tags("{$[*]}", &numbers(tag::MAX_COUNT)).len(), tag::MAX_COUNT);
        assert_eq!(rendered("{$[*]}", &numbers(tag::MAX_COUNT + 1)), Err(TagLimitExceeded));
        assert_eq!(rendered("{$[*]}{$[*]}", &numbers(32)), Err(TagLimitExceeded));
        let same = json!(vec!["same"; 10 * tag::MAX_COUNT]);
        assert_eq!(tags("{$[*]}", &same), ["same"]);
        let long = |length: usize| json!({ "text": "t".repeat(length) });
        assert_eq!(tags("t{$.text}", &long(tag::MAX_LENGTH - 1)).len(), 1);
        assert_eq!(rendered("t{$.text}", &long(tag::MAX_LENGTH)), Err(TagLimitExceeded));
    }

    #[test]
    fn braces_in_strings_of_a_path_close_nothing() {
        let document = json!({ "a}'": 1, "b": [{ "k": "}", "v": 2 }] });
        assert_eq!(tags(r#"x{$["a}'"]}y"#, &document), ["x1y"]);
        assert_eq!(tags("{$.b[?@.k=='}'].v}", &document), ["2"]);
        assert_eq!(tags(r"{$['a}\'']}", &document), ["1"]);
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        assert_eq!(problem("a{$.id"), (TagProblem::Brace, "{"));
        assert_eq!(problem("a{$['}"), (TagProblem::Brace, "{"));
        assert_eq!(problem("{$.id}{order}"), (TagProblem::Unknown("order".into()), "{order}"));
        assert_eq!(problem("{$.id}{user}"), (TagProblem::User, "{user}"));
        let (problem, at) = problem("é:{$.items[}");
        assert!(matches!(problem, TagProblem::Path(_)), "{problem}");
        assert_eq!(at, "$.items[");
    }

    #[test]
    fn a_template_reads_back_as_written() {
        assert_eq!(template("{shop}:{?page}:{$.id}").to_string(), "{shop}:{?page}:{$.id}");
    }
}

//! Templates that make tags from a payload: `order:{$.id}`, `product:{$.items[*].sku}`. Pure.

use std::{borrow::Cow, fmt, ops::Range};

use serde_json::Value;
use serde_json_path::JsonPath;
use thiserror::Error;

use crate::route::{
    TagLimitExceeded,
    json_path::{self, JsonPathError},
};

/// A tag with placeholders for values of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadTemplate(Box<[PayloadTemplatePart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum PayloadTemplatePart {
    Literal(Box<str>),
    Path(JsonPath),
}

/// A syntax error in a template, with its position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct TemplateError {
    pub problem: TemplateProblem,
    /// The position in the text, in bytes.
    pub at: Range<usize>,
}

/// The kinds of errors in a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateProblem {
    /// The text is empty.
    #[error("the tag is empty")]
    Empty,
    /// A brace is unbalanced.
    #[error("unbalanced brace")]
    Brace,
    /// A placeholder does not contain a JSON path, which starts with `$`.
    #[error("expected a JSONPath into the payload, such as `{{$.id}}`")]
    NoPath,
    /// The JSON path in a placeholder is invalid.
    #[error("{0}")]
    Path(JsonPathError),
    /// The text has a control character.
    #[error("tags cannot contain control characters")]
    Control,
}

/// The error if the tags of a delivery exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTags;

impl PayloadTemplate {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fail = |problem, at| Err(TemplateError { problem, at });
        if text.is_empty() {
            return fail(TemplateProblem::Empty, 0..0);
        }
        if text.contains(char::is_control) {
            return fail(TemplateProblem::Control, 0..text.len());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let start = text.len() - after.len();
            push_literal(&mut parts, literal, start - literal.len() - 1)?;
            let Some(length) = json_path::placeholder_end(after) else {
                return fail(TemplateProblem::Brace, start - 1..start);
            };
            let (path, end) = after.split_at(length);
            parts.push(PayloadTemplatePart::Path(parse_path(path, start)?));
            rest = end.get(1..).unwrap_or_default();
        }
        push_literal(&mut parts, rest, text.len() - rest.len())?;
        Ok(Self(parts.into()))
    }

    /// Renders the tags of a payload: one for each combination of the placeholders' values.
    ///
    /// If a placeholder has no value, returns no tag. [`json_path::values`] defines which results
    /// are values.
    pub fn render(&self, payload: &Value, limit: usize) -> Result<Vec<String>, TooManyTags> {
        let mut tags = vec![String::new()];
        for part in &self.0 {
            match part {
                PayloadTemplatePart::Literal(text) => {
                    for tag in &mut tags {
                        tag.push_str(text);
                    }
                }
                PayloadTemplatePart::Path(path) => {
                    let values =
                        json_path::values(path, payload).map_err(|TagLimitExceeded| TooManyTags)?;
                    tags = combined(&tags, &values, limit)?;
                }
            }
        }
        Ok(tags)
    }
}

impl fmt::Display for PayloadTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            PayloadTemplatePart::Literal(text) => formatter.write_str(text),
            PayloadTemplatePart::Path(path) => write!(formatter, "{{{path}}}"),
        })
    }
}

fn push_literal(
    parts: &mut Vec<PayloadTemplatePart>,
    literal: &str,
    start: usize,
) -> Result<(), TemplateError> {
    if let Some(index) = literal.find('}') {
        let at = start + index..start + index + 1;
        return Err(TemplateError { problem: TemplateProblem::Brace, at });
    }
    if !literal.is_empty() {
        parts.push(PayloadTemplatePart::Literal(literal.into()));
    }
    Ok(())
}

fn parse_path(text: &str, start: usize) -> Result<JsonPath, TemplateError> {
    let fail = |problem, at| Err(TemplateError { problem, at });
    if !text.starts_with('$') {
        return fail(TemplateProblem::NoPath, start - 1..start + text.len() + 1);
    }
    json_path::parse(text)
        .or_else(|error| fail(TemplateProblem::Path(error), start..start + text.len()))
}

fn combined(
    tags: &[String],
    values: &[Cow<'_, str>],
    limit: usize,
) -> Result<Vec<String>, TooManyTags> {
    if tags.len().saturating_mul(values.len()) > limit {
        return Err(TooManyTags);
    }
    let pairs = tags.iter().flat_map(|tag| values.iter().map(move |value| (tag, value)));
    Ok(pairs.map(|(tag, value)| format!("{tag}{value}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tags(template: &str, payload: &Value) -> Vec<String> {
        PayloadTemplate::parse(template).unwrap().render(payload, 100).unwrap()
    }

    fn problem(text: &str) -> (TemplateProblem, &str) {
        let error = PayloadTemplate::parse(text).unwrap_err();
        (error.problem, &text[error.at])
    }

    #[test]
    fn placeholders_are_filled_in_from_the_payload() {
        let payload = json!({ "id": 17, "open": true, "customer": { "id": "c 1" }, "café": "é" });
        assert_eq!(tags("kpi", &payload), ["kpi"]);
        assert_eq!(tags("order:{$.id}", &payload), ["order:17"]);
        assert_eq!(tags("{$.customer.id}-{$.open}!", &payload), ["c 1-true!"]);
        assert_eq!(tags("x:{$['café']}", &payload), ["x:é"]);
    }

    #[test]
    fn a_placeholder_with_several_values_makes_a_tag_each() {
        let payload = json!({ "items": [{ "sku": "a" }, { "sku": "b" }], "shops": [1, 2] });
        assert_eq!(tags("sku:{$.items[*].sku}", &payload), ["sku:a", "sku:b"]);
        let both = tags("{$.shops[*]}:{$.items[*].sku}", &payload);
        assert_eq!(both, ["1:a", "1:b", "2:a", "2:b"]);
    }

    #[test]
    fn a_placeholder_without_a_value_makes_no_tag() {
        let payload = json!({ "null": null, "empty": "", "list": [1], "object": {}, "nl": "a\nb" });
        for path in ["$.missing", "$.null", "$.empty", "$.list", "$.object", "$.nl"] {
            assert_eq!(tags(&format!("a:{{{path}}}"), &payload), [""; 0], "{path}");
        }
        assert_eq!(tags("{$.list[*]}{$.missing}", &payload), [""; 0]);
    }

    #[test]
    fn combinations_are_bounded() {
        let payload = json!((0..11).collect::<Vec<_>>());
        let template = PayloadTemplate::parse("{$[*]}{$[*]}").unwrap();
        assert_eq!(template.render(&payload, 120), Err(TooManyTags));
        assert_eq!(template.render(&payload, 121).unwrap().len(), 121);
    }

    #[test]
    fn braces_in_strings_of_a_path_close_nothing() {
        let payload = json!({ "a}'": 1, "b": [{ "k": "}", "v": 2 }] });
        assert_eq!(tags(r#"x{$["a}'"]}y"#, &payload), ["x1y"]);
        assert_eq!(tags("{$.b[?@.k=='}'].v}", &payload), ["2"]);
        assert_eq!(tags(r"{$['a}\'']}", &payload), ["1"]);
    }

    #[test]
    fn syntax_errors_have_positions() {
        assert_eq!(problem(""), (TemplateProblem::Empty, ""));
        assert_eq!(problem("a\tb"), (TemplateProblem::Control, "a\tb"));
        assert_eq!(problem("a{$.id"), (TemplateProblem::Brace, "{"));
        assert_eq!(problem("a{$['}"), (TemplateProblem::Brace, "{"));
        assert_eq!(problem("a}b"), (TemplateProblem::Brace, "}"));
        assert_eq!(problem("a:{id}"), (TemplateProblem::NoPath, "{id}"));
        assert_eq!(problem("a:{}"), (TemplateProblem::NoPath, "{}"));
        let (problem, at) = problem("é:{$.items[}");
        assert!(matches!(problem, TemplateProblem::Path(_)), "{problem}");
        assert_eq!(at, "$.items[");
    }
}

//! Paths into JSON (RFC 9535), and the values that they yield as they stand in tags.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::Value;
use serde_json_path::JsonPath;
use thiserror::Error;

use crate::policy::tag;

/// Text that is no path as in RFC 9535, and what its parser has to say about that.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this is no JSONPath (RFC 9535){0}")]
pub struct JsonPathError(String);

/// There are more tags than a response may have, or one is longer than a tag may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there are too many tags, or too long ones")]
pub struct TagLimitExceeded;

/// Reads a path.
pub(crate) fn parse(text: &str) -> Result<JsonPath, JsonPathError> {
    JsonPath::parse(text).map_err(|error| match error.message() {
        "parser error" => JsonPathError(String::new()),
        message => JsonPathError(format!(": {message}")),
    })
}

/// The bytes up to the brace that closes a placeholder: the first that stands in no string of the path.
pub(crate) fn placeholder_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if byte == b'\\' => is_escaped = true,
            Some(open) if open == byte => quote = None,
            None if byte == b'}' => return Some(index),
            None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
            _ => {}
        }
    }
    None
}

/// The values that a path yields in a document, each once.
///
/// Values are texts, numbers, `true` and `false`. An empty text, one with control characters, `null`, a
/// list or an object is no value.
pub(crate) fn values<'a>(
    path: &JsonPath,
    document: &'a Value,
) -> Result<Vec<Cow<'a, str>>, TagLimitExceeded> {
    let mut values = BTreeSet::new();
    for value in path.query(document).into_iter().filter_map(text_of) {
        values.insert(value);
        if values.len() > tag::MAX_COUNT {
            return Err(TagLimitExceeded);
        }
    }
    Ok(values.into_iter().collect())
}

fn text_of(node: &Value) -> Option<Cow<'_, str>> {
    match node {
        Value::String(text) if text.is_empty() || text.contains(char::is_control) => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

//! JSON paths (RFC 9535), and the values that they select, in the form of tags.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::Value;
use serde_json_path::JsonPath;
use thiserror::Error;

use crate::policy::tag;

/// Error for an invalid JSON path, with the message of its parser.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid JSONPath (RFC 9535){0}")]
pub struct JsonPathError(String);

/// Error for more tags than a response may have, or a tag that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many tags, or a tag is too long")]
pub struct TagLimitExceeded;

/// Parses a JSON path.
pub(crate) fn parse(text: &str) -> Result<JsonPath, JsonPathError> {
    JsonPath::parse(text).map_err(|error| match error.message() {
        "parser error" => JsonPathError(String::new()),
        message => JsonPathError(format!(": {message}")),
    })
}

/// Returns the offset of the brace that closes a placeholder. It is the first one outside the
/// strings of the path.
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

/// Returns the distinct values that a path selects in a document.
///
/// Values are strings, numbers, `true` and `false`. Empty strings, strings with control characters,
/// `null`, lists and objects are skipped.
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

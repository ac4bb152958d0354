//! Digests of the parts of response bodies, so that two bodies can be compared part by part.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::Value;

use crate::parsing;

/// Maximum length of a body that is compared, in bytes.
pub(crate) const MAX_BODY: usize = 256 << 10;

/// Maximum number of parts. A body with more parts is compared as a whole.
const MAX_PARTS: usize = 8192;

/// Maximum total length of the places of all parts, in bytes. A body with longer places is compared
/// as a whole.
const MAX_PLACES_BYTES: usize = 1 << 20;

/// The `JSONPath` of a whole body.
const WHOLE: &str = "$";

/// The digests of the parts of one body, keyed by the place of each part.
///
/// The parts of JSON are the values that contain no other values. Their places are `JSONPath`s. The
/// parts of other text are its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyDigest {
    parts: HashMap<Box<str>, u64>,
}

impl BodyDigest {
    /// Computes the digests of a decoded body of at most [`MAX_BODY`] bytes. Parses it if it is
    /// JSON.
    pub(crate) fn of(body: &[u8]) -> Self {
        let parts = parsing::parse(body)
            .ok()
            .and_then(|document| parts_of_json(&document))
            .or_else(|| parts_of_text(body));
        Self { parts: parts.unwrap_or_else(|| HashMap::from([(WHOLE.into(), digest(body))])) }
    }

    /// Returns the digest of each part, keyed by the part's place.
    pub(super) fn parts(&self) -> &HashMap<Box<str>, u64> {
        &self.parts
    }
}

/// Returns the digests of the values that contain no other values. `None` if there are too many.
fn parts_of_json(document: &Value) -> Option<HashMap<Box<str>, u64>> {
    let mut parts = HashMap::new();
    let mut open = vec![(String::from(WHOLE), document)];
    let mut length = 0;
    while let Some((place, value)) = open.pop() {
        let mut enter = |inner: String, value| {
            length += inner.len();
            open.push((inner, value));
            length <= MAX_PLACES_BYTES
        };
        let is_within = match value {
            Value::Object(members) if !members.is_empty() => {
                members.iter().all(|(name, value)| enter(format!("{place}[{name:?}]"), value))
            }
            Value::Array(items) if !items.is_empty() => {
                let mut items = items.iter().enumerate();
                items.all(|(index, value)| enter(format!("{place}[{index}]"), value))
            }
            value => {
                parts.insert(place.into(), digest(value));
                true
            }
        };
        if !is_within || parts.len() + open.len() > MAX_PARTS {
            return None;
        }
    }
    Some(parts)
}

/// Returns the digests of the lines of a text. `None` if the body is not text, or has too many
/// lines.
fn parts_of_text(body: &[u8]) -> Option<HashMap<Box<str>, u64>> {
    let text = str::from_utf8(body).ok()?;
    let lines = text.lines().enumerate().take(MAX_PARTS + 1);
    let parts: HashMap<_, _> = lines
        .map(|(index, line)| (format!("line {}", index + 1).into_boxed_str(), digest(line)))
        .collect();
    (parts.len() <= MAX_PARTS).then_some(parts)
}

fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Returns a place in the form that operators read: a `JSONPath` such as `$.user.email`.
///
/// Indexes become `*`, so that the items of a list have one place. Names that are not common in
/// APIs become `*` as well: they may be a user's data.
pub(super) fn shown(place: &str) -> String {
    let Some(segments) = place.strip_prefix(WHOLE) else { return place.to_owned() };
    let mut shown = String::from(WHOLE);
    for segment in segments_of(segments) {
        let name = segment.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        let _infallible = match name.filter(|name| parsing::is_common_name(name)) {
            Some(name) => write!(shown, ".{name}"),
            None => write!(shown, "[*]"),
        };
    }
    shown
}

/// Returns the segments of `[…][…]`: indexes, and names in quotes.
fn segments_of(mut rest: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    while let Some(open) = rest.strip_prefix('[') {
        let end = end_of_segment(open);
        let (segment, after) = open.split_at(end);
        segments.push(segment);
        rest = after.strip_prefix(']').unwrap_or_default();
    }
    segments
}

/// Returns the position of the `]` that ends a segment, outside of quotes.
fn end_of_segment(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b']' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(body: &str) -> Vec<String> {
        let digest = BodyDigest::of(body.as_bytes());
        let mut places: Vec<String> = digest.parts().keys().map(|place| shown(place)).collect();
        places.sort();
        places
    }

    #[test]
    fn json_is_compared_value_by_value_and_text_line_by_line() {
        let json = r#"{"user": {"email": "a"}, "items": [{"id": 1}, {"id": 2}], "none": {}}"#;
        assert_eq!(places(json), ["$.items[*].id", "$.items[*].id", "$.none", "$.user.email"]);
        assert_eq!(places("7"), ["$"]);
        assert_eq!(places("<p>\nHello\n</p>"), ["line 1", "line 2", "line 3"]);
        assert_eq!(BodyDigest::of(b"\xff\xfe").parts().len(), 1);
        assert_eq!(BodyDigest::of(b"").parts().len(), 0);
    }

    #[test]
    fn order_and_spacing_of_json_do_not_count_and_values_do() {
        let digest = |text: &str| BodyDigest::of(text.as_bytes());
        assert_eq!(digest(r#"{"a": 1, "b": [2]}"#), digest(r#"{"b":[2],"a":1}"#));
        for (one, other) in
            [("[1]", "[2]"), ("[1]", r#"["1"]"#), ("[]", "{}"), ("[null]", "[]"), ("a\nb", "a\nc")]
        {
            assert_ne!(digest(one), digest(other), "{one} {other}");
        }
    }

    #[test]
    fn a_body_of_too_many_parts_is_compared_as_a_whole() {
        let array = format!("[{}]", vec!["1"; MAX_PARTS + 1].join(","));
        assert_eq!(places(&array), ["line 1"], "a text of one line");
        let long = format!("{{\"{}\":[0,1,2,3]}}", "n".repeat(MAX_PLACES_BYTES / 3));
        assert_eq!(places(&long), ["line 1"], "its places would take too much memory");
        let lines = "x\n".repeat(MAX_PARTS + 1);
        assert_eq!(places(&lines), ["$"]);
    }

    #[test]
    fn places_show_no_names_that_may_be_data() {
        for (json, expected) in [
            (r#"{"bob@example.com": 1}"#, "$[*]"),
            (r#"{"u1234": {"balance": 1}}"#, "$[*].balance"),
            (r#"{"a]b\"c": {"id": 1}}"#, "$[*].id"),
            (r#"{"": 1}"#, "$[*]"),
            (r#"{"alice": {"total": 1}}"#, "$[*].total"),
            (r#"{"first_name": 1}"#, "$.first_name"),
        ] {
            assert_eq!(places(json), [expected], "{json}");
        }
    }
}

//! Strict JSON parsing for tokens: no ambiguity, no loss.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// An object with distinct names, and values as written.
///
/// Parsers differ on duplicate names (RFC 8259 §4), so two parsers may see different users in one
/// token. RFC 7519 §4 allows rejecting duplicates.
#[derive(Debug)]
pub struct JsonObject<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> JsonObject<'a> {
    /// Parses an object. Returns `None` if the text is anything else or repeats a name.
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the value with this name, as written.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.get())
    }

    /// Returns the names in order, with their values as written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.get()))
    }
}

impl<'de> Deserialize<'de> for JsonObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = JsonObject<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject<'de>, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(JsonObject(members))
    }
}

/// Parses a JSON string; `None` if the text is anything else.
pub(crate) fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// Parses a list; its elements are kept as written.
pub(crate) fn list(raw: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// Parses a string or a list of strings, as in `aud` (RFC 7519 §4.1.3).
pub(crate) fn strings(raw: &str) -> Option<Vec<String>> {
    match string(raw) {
        Some(one) => Some(vec![one]),
        None => serde_json::from_str(raw).ok(),
    }
}

/// Parses a non-negative `NumericDate` (RFC 7519 §2) as whole seconds, rounded down.
pub(crate) fn seconds(raw: &str) -> Option<u64> {
    if let Ok(seconds) = raw.parse() {
        return Some(seconds);
    }
    let seconds: f64 = serde_json::from_str(raw).ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded below")]
    (0.0..1e15).contains(&seconds).then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_keeps_its_values_as_written() {
        let object = JsonObject::parse(r#" {"a": 1.0 , "b":{"c":[ ]},"\u0064":"e"} "#).unwrap();
        let members: Vec<_> = object.iter().collect();
        assert_eq!(members, [("a", "1.0"), ("b", r#"{"c":[ ]}"#), ("d", r#""e""#)]);
        assert_eq!(object.get("absent"), None);
    }

    #[test]
    fn what_has_more_than_one_meaning_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            "{",
            "{} {}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":01}"#,
            "{'a':1}",
            r#"{"a":1,}"#,
            "\u{feff}{}",
        ] {
            assert!(JsonObject::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn dates_are_whole_seconds() {
        for (raw, expected) in [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000)),
            ("1700000000.9", Some(1_700_000_000)),
            ("1.7e9", Some(1_700_000_000)),
            ("-1", None),
            ("\"1700000000\"", None),
            ("null", None),
            ("1e300", None),
        ] {
            assert_eq!(seconds(raw), expected, "{raw}");
        }
    }
}

//! Extracts the data version from a response. Pure.

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use serde_json_path::{JsonPath, ParseError};

/// The length limit of a version in bytes. Versions are stored and shown to clients, so a longer
/// version is replaced with a digest.
const MAX_BYTES: usize = 128;

/// The location of the version in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionFrom {
    /// The values that a JSON path selects, in any order.
    ///
    /// A path that can select several values (not a singular query, RFC 9535 §2.3.5.1) reads a set,
    /// and the empty set is a valid version.
    Payload(JsonPath, Cardinality),
    /// The `ETag`, or else a digest of the body.
    Validator,
}

/// How many values a JSON path can select.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// At most one: the path has names and indices only.
    One,
    /// Several: the path has a wildcard, a slice, a filter, a list of selectors or descendants.
    Several,
}

impl VersionFrom {
    /// Parses a JSON path.
    pub fn payload(text: &str) -> Result<Self, ParseError> {
        let cardinality = if selects_one(text) { Cardinality::One } else { Cardinality::Several };
        Ok(Self::Payload(JsonPath::parse(text)?, cardinality))
    }

    /// Returns the version in a response, or `None` if a singular path finds nothing or `null`.
    ///
    /// Fails if the version is to be read from the payload and the body is not JSON.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Box<str>>, serde_json::Error> {
        match self {
            Self::Payload(path, cardinality) => {
                Ok(version_at(path, *cardinality, &serde_json::from_slice(body)?))
            }
            Self::Validator => Ok(Some(match headers.get(header::ETAG) {
                Some(tag) if !tag.is_empty() => version_of_etag(tag),
                _ => digest_of(body),
            })),
        }
    }
}

/// The version of an empty set.
const EMPTY_SET: &str = "[]";

fn version_at(path: &JsonPath, cardinality: Cardinality, document: &Value) -> Option<Box<str>> {
    let found = path.query(document).all();
    let mut values: Vec<String> =
        found.into_iter().filter(|value| !value.is_null()).map(value_text).collect();
    values.sort_unstable();
    values.dedup();
    match values.as_slice() {
        [] if cardinality == Cardinality::One => None,
        [] => Some(EMPTY_SET.into()),
        [one] => Some(shorten(one.clone())),
        // Length prefixes give different sets different digests.
        several => {
            let texts = several.iter().map(|text| format!("{}:{text}", text.len()));
            Some(digest_of(texts.collect::<String>().as_bytes()))
        }
    }
}

/// Returns a JSON value as text. A string is returned without quotes.
fn value_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns true if the path is a singular query (RFC 9535 §2.3.5.1).
fn selects_one(path: &str) -> bool {
    let (mut quote, mut previous) = (None, ' ');
    for character in path.chars() {
        if let Some(open) = quote {
            if previous == '\\' {
                previous = ' ';
                continue;
            }
            if character == open {
                quote = None;
            }
        } else if matches!(character, '\'' | '"') {
            quote = Some(character);
        } else if matches!(character, '*' | '?' | ':' | ',') || (character, previous) == ('.', '.')
        {
            return false;
        }
        previous = character;
    }
    true
}

/// Returns the version that an entity tag stands for.
///
/// Tags with the same text, weak or strong, have one version, because compression weakens tags.
fn version_of_etag(tag: &HeaderValue) -> Box<str> {
    let bytes = tag.as_bytes();
    let opaque = bytes.strip_prefix(b"W/").unwrap_or(bytes);
    shorten(String::from_utf8_lossy(opaque).into_owned())
}

fn shorten(text: String) -> Box<str> {
    if text.len() > MAX_BYTES { digest_of(text.as_bytes()) } else { text.into() }
}

fn digest_of(bytes: &[u8]) -> Box<str> {
    format!("sha256:{}", const_hex::encode(digest(&SHA256, bytes))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(path: &str, body: &str) -> Option<Box<str>> {
        let version = VersionFrom::payload(path).unwrap();
        version.read(&HeaderMap::new(), body.as_bytes()).unwrap()
    }

    fn validator(tag: Option<&'static str>, body: &str) -> Box<str> {
        let tag = tag.map(|tag| (header::ETAG, HeaderValue::from_static(tag)));
        let read = VersionFrom::Validator.read(&tag.into_iter().collect(), body.as_bytes());
        read.unwrap().unwrap()
    }

    /// Returns a task as listed by a Druid Overlord.
    fn task(id: &str, kind: &str, created: &str, status: &str) -> String {
        format!(
            r#"{{"id": "{id}", "groupId": "load", "type": "{kind}", "createdTime": "{created}",
                 "queueInsertionTime": "1970-01-01T00:00:00.000Z", "statusCode": "{status}",
                 "status": "{status}", "runnerStatusCode": "NONE", "duration": 25546,
                 "location": {{"host": null, "port": -1, "tlsPort": -1}}, "dataSource": "sales", "errorMsg": null}}"#
        )
    }

    #[test]
    fn a_load_is_seen_whose_sub_task_was_created_later_and_ended_earlier() {
        let parent =
            task("index_parallel_sales", "index_parallel", "2026-11-21T03:00:12Z", "SUCCESS");
        let child = task(
            "single_phase_sub_task_sales",
            "single_phase_sub_task",
            "2026-11-21T03:00:20Z",
            "SUCCESS",
        );
        let failed = task("index_parallel_b", "index_parallel", "2026-11-21T04:00:00Z", "FAILED");
        // The list is sorted by creation time, latest first.
        let before = format!("[{child}]");
        let after = format!("[{child}, {parent}]");
        let newest = "$[0].createdTime";
        assert_eq!(
            payload(newest, &before),
            payload(newest, &after),
            "the newest task says nothing"
        );
        assert_ne!(payload("$[*].id", &before), payload("$[*].id", &after));
        let loads = "$[?@.type == 'index_parallel' && @.statusCode == 'SUCCESS'].id";
        assert_eq!(payload(loads, &before).as_deref(), Some("[]"));
        assert_eq!(payload(loads, &after).as_deref(), Some("index_parallel_sales"));
        assert_eq!(
            payload(loads, &format!("[{failed}, {child}, {parent}]")),
            payload(loads, &after)
        );
    }

    #[test]
    fn values_of_any_kind_are_versions() {
        assert_eq!(payload("$.v", r#"{"v": 42}"#).as_deref(), Some("42"));
        assert_eq!(payload("$.v", r#"{"v": false}"#).as_deref(), Some("false"));
        assert_eq!(payload("$.v", r#"{"v": {"a": [1]}}"#).as_deref(), Some(r#"{"a":[1]}"#));
        assert_eq!(payload("$.v", r#"{"v": null}"#), None);
        assert_eq!(payload("$.v", "3"), None);
    }

    #[test]
    fn all_values_count_and_their_order_does_not() {
        let set = |body| payload("$[*].id", body).unwrap();
        let both = set(r#"[{"id": "a"}, {"id": "b"}]"#);
        assert!(both.starts_with("sha256:"), "{both}");
        assert_eq!(set(r#"[{"id": "b"}, {"id": "a"}, {"id": "b"}, {}, {"id": null}]"#), both);
        for other in [
            r#"[{"id": "a"}]"#,
            r#"[{"id": "a"}, {"id": "c"}]"#,
            r#"[{"id": "ab"}]"#,
            r#"[{"id": "a"}, {"id": "b"}, {"id": "c"}]"#,
        ] {
            assert_ne!(set(other), both, "{other}");
        }
        assert_eq!(&*set(r#"[{"id": "a"}]"#), "a");
    }

    #[test]
    fn an_empty_set_is_a_version_and_a_missing_value_is_none() {
        for path in ["$[*].id", "$[?@.type == 'x'].id", "$[0:5].id", "$..id", "$['a','b'].id"] {
            assert_eq!(payload(path, "[]").as_deref(), Some("[]"), "{path}");
        }
        for path in ["$[0].id", "$.a", "$['a,b'].c", r#"$["it's *"]"#, r"$['\\'].x"] {
            assert_eq!(payload(path, "[]"), None, "{path}");
        }
    }

    #[test]
    fn long_versions_are_replaced_by_their_digest() {
        let one = payload("$", &format!("\"{}\"", "a".repeat(200))).unwrap();
        let other = payload("$", &format!("\"{}\"", "b".repeat(200))).unwrap();
        assert!(one.starts_with("sha256:") && one.len() == 71 && one != other, "{one}");
    }

    #[test]
    fn invalid_json_is_rejected() {
        let version = VersionFrom::payload("$.v").unwrap();
        let nested = "[".repeat(1_000_000);
        for body in ["", "<html>", r#"{"v": 1"#, nested.as_str()] {
            assert!(version.read(&HeaderMap::new(), body.as_bytes()).is_err());
        }
    }

    #[test]
    fn the_entity_tag_goes_before_the_body() {
        assert_eq!(&*validator(Some("\"v7\""), "a"), "\"v7\"");
        assert_eq!(validator(Some("W/\"v7\""), "a"), validator(Some("\"v7\""), "b"));
        assert_eq!(validator(None, "a"), validator(Some(""), "a"));
        assert_ne!(validator(None, "a"), validator(None, "b"));
        let digest = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        assert_eq!(&*validator(None, "a"), digest);
    }
}

//! What of an answer is the data version. Pure.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use serde_json_path::JsonPath;

/// Longer versions are told by their digest: they are shown to clients, and kept.
const LONGEST: usize = 128;

/// Where in an answer the version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionFrom {
    /// A value of the JSON document, or several.
    Payload(JsonPath),
    /// The `ETag`, else a digest of the body.
    Validator,
}

impl VersionFrom {
    /// The version that an answer tells; none where the document has no value there, or only `null`.
    /// Fails where the body is no JSON and would have to be.
    pub(super) fn read(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Box<str>>, serde_json::Error> {
        match self {
            Self::Payload(path) => Ok(at(path, &serde_json::from_slice(body)?)),
            Self::Validator => Ok(Some(match headers.get(header::ETAG) {
                Some(tag) if !tag.is_empty() => of_tag(tag),
                _ => digested(body),
            })),
        }
    }
}

fn at(path: &JsonPath, document: &Value) -> Option<Box<str>> {
    let found = path.query(document).all();
    let text = match found.as_slice() {
        [] | [Value::Null] => return None,
        [Value::String(text)] => text.clone(),
        [one] => one.to_string(),
        several => {
            let texts: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(","))
        }
    };
    Some(shortened(text))
}

/// A weak tag and a strong one of the same text are the same version: compression on the way makes the
/// one of the other.
fn of_tag(tag: &HeaderValue) -> Box<str> {
    let bytes = tag.as_bytes();
    let opaque = bytes.strip_prefix(b"W/").unwrap_or(bytes);
    shortened(String::from_utf8_lossy(opaque).into_owned())
}

fn shortened(text: String) -> Box<str> {
    if text.len() > LONGEST { digested(text.as_bytes()) } else { text.into() }
}

fn digested(bytes: &[u8]) -> Box<str> {
    let mut text = String::from("sha256:");
    for byte in digest(&SHA256, bytes).as_ref() {
        let _always_fits = write!(text, "{byte:02x}");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(path: &str, body: &str) -> Option<Box<str>> {
        let version = VersionFrom::Payload(JsonPath::parse(path).unwrap());
        version.read(&HeaderMap::new(), body.as_bytes()).unwrap()
    }

    fn validator(tag: Option<&'static str>, body: &str) -> Box<str> {
        let tag = tag.map(|tag| (header::ETAG, HeaderValue::from_static(tag)));
        let read = VersionFrom::Validator.read(&tag.into_iter().collect(), body.as_bytes());
        read.unwrap().unwrap()
    }

    #[test]
    fn a_druid_overlord_tells_when_its_last_task_was_created() {
        let tasks = r#"[
            {"id": "index_parallel_sales_2", "type": "index_parallel", "statusCode": "SUCCESS",
             "createdTime": "2026-11-21T03:00:12.345Z", "dataSource": "sales", "duration": 41234},
            {"id": "index_parallel_sales_1", "createdTime": "2026-11-20T03:00:09.001Z"}
        ]"#;
        let version = payload("$[0].createdTime", tasks);
        assert_eq!(version.as_deref(), Some("2026-11-21T03:00:12.345Z"));
        assert_eq!(payload("$[0].createdTime", "[]"), None);
    }

    #[test]
    fn values_of_any_kind_are_versions() {
        assert_eq!(payload("$.v", r#"{"v": 42}"#).as_deref(), Some("42"));
        assert_eq!(payload("$.v", r#"{"v": false}"#).as_deref(), Some("false"));
        assert_eq!(payload("$.v", r#"{"v": {"a": [1]}}"#).as_deref(), Some(r#"{"a":[1]}"#));
        assert_eq!(payload("$.v", r#"{"v": null}"#), None);
        assert_eq!(payload("$.v", "3"), None);
        let several = payload("$[*].v", r#"[{"v": 1}, {"v": "2"}, {}]"#);
        assert_eq!(several.as_deref(), Some(r#"[1,"2"]"#));
    }

    #[test]
    fn long_versions_are_told_by_their_digest() {
        let one = payload("$", &format!("\"{}\"", "a".repeat(200))).unwrap();
        let other = payload("$", &format!("\"{}\"", "b".repeat(200))).unwrap();
        assert!(one.starts_with("sha256:") && one.len() == 71 && one != other, "{one}");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let version = VersionFrom::Payload(JsonPath::parse("$.v").unwrap());
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

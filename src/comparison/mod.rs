//! Comparison of a stored response with a live one: whether a client would notice a difference.
//!
//! JSON is compared by its values. The order of members, the spelling of numbers and the paths that
//! the operator ignores have no effect. Other bodies are compared byte by byte after decoding.
//! Differences are described without any value of the responses.

mod content;
mod difference;
mod json;
mod skip_reason;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json_path::JsonPath;

pub(crate) use difference::Difference;
pub(crate) use skip_reason::SkipReason;

use crate::parsing::ParseError;
use content::DecodedBody;

/// Header fields that change what a client does with a response. Other fields describe its
/// transfer, or vary from one response to the next.
const COMPARED_FIELDS: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_LANGUAGE,
    header::LOCATION,
    header::CONTENT_DISPOSITION,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// A complete response.
#[derive(Debug, Clone)]
pub(crate) struct ComparedResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// A client would notice no difference.
    Same,
    /// The responses differ. The list is never empty.
    Different(Vec<Difference>),
    /// The responses could not be compared.
    Skipped(SkipReason),
}

/// Compares two responses without decoding them. Returns `None` if only [`compare_contents`] can
/// tell.
///
/// Costs one pass over bodies of equal length.
pub(crate) fn compare_heads_and_bytes(
    stored: &ComparedResponse,
    live: &ComparedResponse,
) -> Option<Comparison> {
    let differences =
        head_differences((stored.status, &stored.headers), (live.status, &live.headers));
    if !differences.is_empty() {
        return Some(Comparison::Different(differences));
    }
    let codings = (content::codings(&stored.headers), content::codings(&live.headers));
    if codings.0 == codings.1 && stored.body == live.body {
        return Some(Comparison::Same);
    }
    let is_plain = codings.0.is_empty() && codings.1.is_empty();
    let is_text =
        |response: &ComparedResponse| content::may_be_json(&response.headers, &response.body);
    if is_plain && !(is_text(stored) && is_text(live)) {
        return Some(Comparison::Different(vec![Difference::of_bodies(&stored.body, &live.body)]));
    }
    None
}

/// Compares two responses for which [`compare_heads_and_bytes`] returns `None`: decodes the bodies,
/// and parses JSON.
///
/// The memory used is a multiple of the bodies' size, up to tens of MiB.
pub(crate) fn compare_contents(
    stored: &ComparedResponse,
    live: &ComparedResponse,
    ignore: &[JsonPath],
) -> Comparison {
    let decoded = |response: &ComparedResponse| {
        content::decode(&response.headers, &response.body).map(|bytes| DecodedBody {
            may_be_json: content::may_be_json(&response.headers, &bytes),
            bytes,
        })
    };
    let (stored, live) = match (decoded(stored), decoded(live)) {
        (Ok(stored), Ok(live)) => (stored, live),
        (Err(reason), _) | (_, Err(reason)) => return Comparison::Skipped(reason),
    };
    if stored.bytes == live.bytes {
        return Comparison::Same;
    }
    let bytes_differ =
        || Comparison::Different(vec![Difference::of_bodies(&stored.bytes, &live.bytes)]);
    if !(stored.may_be_json && live.may_be_json) {
        return bytes_differ();
    }
    match json::differences(&stored.bytes, &live.bytes, ignore) {
        Ok(differences) if differences.is_empty() => Comparison::Same,
        Ok(differences) => Comparison::Different(differences),
        Err(ParseError::TooLarge) => Comparison::Skipped(SkipReason::TooLong),
        Err(ParseError::Malformed) => bytes_differ(),
    }
}

/// Returns the differences between two heads that a client would notice.
pub(crate) fn head_differences(
    stored: (StatusCode, &HeaderMap),
    live: (StatusCode, &HeaderMap),
) -> Vec<Difference> {
    if stored.0 != live.0 {
        return vec![Difference::of_statuses(stored.0, live.0)];
    }
    let value = |headers: &HeaderMap, name: &HeaderName| {
        let lines = headers.get_all(name).iter().map(|line| line.as_bytes().to_vec());
        let value = lines.collect::<Vec<_>>().join(&b", "[..]);
        if *name == header::CONTENT_TYPE { content::canonical_type(&value) } else { value }
    };
    let differing = COMPARED_FIELDS.iter().filter_map(|name| {
        let (stored, live) = (value(stored.1, name), value(live.1, name));
        (stored != live).then(|| Difference::of_fields(name, &stored, &live))
    });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use http::HeaderValue;

    use super::*;
    use crate::comparison::difference::shown;

    fn response(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: &[u8],
    ) -> ComparedResponse {
        let field = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        ComparedResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields.iter().map(field).collect(),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn compare(stored: &ComparedResponse, live: &ComparedResponse) -> Comparison {
        compare_heads_and_bytes(stored, live).unwrap_or_else(|| compare_contents(stored, live, &[]))
    }

    fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");

    #[test]
    fn a_status_and_fields_that_clients_act_on_count() {
        let stored = response(200, &[JSON, ("date", "1")], b"{}");
        let same = response(
            200,
            &[("content-type", "application/json; charset=UTF-8"), ("date", "2")],
            b"{}",
        );
        assert_eq!(compare(&stored, &same), Comparison::Same);
        let refused = response(401, &[JSON], b"{}");
        let Comparison::Different(found) = compare(&stored, &refused) else { panic!() };
        assert_eq!(shown(&found), ["status: 200, now 401"]);
        let other =
            response(200, &[("content-type", "text/html"), ("content-language", "de")], b"{}");
        let Comparison::Different(found) = compare(&stored, &other) else { panic!() };
        assert_eq!(
            shown(&found),
            [
                "header content-type: text of 16, now text of 9",
                "header content-language: absent, now text of 2"
            ]
        );
    }

    #[test]
    fn json_is_compared_by_its_values_in_any_coding() {
        let one = br#"{"a": 1, "b": [true, 2.0]}"#;
        let other = br#"{"b":[true,2],"a":1.0}"#;
        let coded = |bytes: &[u8], level| response(200, &[JSON, GZIP], &gzip(bytes, level));
        let plain = response(200, &[JSON], one);
        for live in [
            response(200, &[JSON], other),
            coded(one, Compression::fast()),
            coded(other, Compression::best()),
        ] {
            assert_eq!(compare(&plain, &live), Comparison::Same);
        }
        let changed = coded(br#"{"a": 2, "b": [true, 2]}"#, Compression::fast());
        let Comparison::Different(found) = compare(&plain, &changed) else { panic!() };
        assert_eq!(shown(&found), ["$.*: number, now number"]);
    }

    #[test]
    fn other_bodies_are_compared_byte_by_byte() {
        let html = [("content-type", "text/html")];
        let stored = response(200, &html, b"<p>1</p>");
        let Comparison::Different(found) = compare(&stored, &response(200, &html, b"<p>12</p>"))
        else {
            panic!()
        };
        assert_eq!(shown(&found), ["body: 8 bytes, now 9 bytes"]);
        let lines = [("content-type", "application/x-ndjson")];
        let (one, two) = (&b"{\"a\":1}\n{\"a\":2}\n"[..], &b"{\"a\":1}\n{\"a\":3}\n"[..]);
        let found = compare(&response(200, &lines, one), &response(200, &lines, two));
        assert!(matches!(found, Comparison::Different(_)), "{found:?}");
        assert_eq!(
            compare(&response(200, &lines, one), &response(200, &lines, one)),
            Comparison::Same
        );
    }

    #[test]
    fn a_coding_that_cannot_be_read_is_compared_only_by_its_bytes() {
        let coded = |body| response(200, &[JSON, ("content-encoding", "dcb")], body);
        assert_eq!(compare(&coded(b"x"), &coded(b"x")), Comparison::Same);
        assert_eq!(compare(&coded(b"x"), &coded(b"y")), Comparison::Skipped(SkipReason::Coding));
        let cut = response(200, &[JSON, GZIP], b"x");
        let plain = response(200, &[JSON], b"{}");
        assert_eq!(compare(&plain, &cut), Comparison::Skipped(SkipReason::Coding));
    }
}

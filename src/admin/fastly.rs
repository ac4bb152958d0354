//! Fastly's form of the purge calls. Any service id is accepted, as there is only one service.

use bytes::Bytes;
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::AdminCall, dialect::Dialect};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    problem::Problem,
    purge::LogUnavailable,
    trigger::{
        Purger, SelectorError, json_response, log_unavailable,
        purge_method::{is_fastly_soft_purge, surrogate_keys},
        receipt_status, selector,
    },
};

/// The request body of a call that purges several keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysBody {
    surrogate_keys: Vec<String>,
}

/// Purges the keys in the body and in `Surrogate-Key`.
pub(super) async fn purge_keys(purger: &Purger, call: AdminCall<'_>) -> Response<Bytes> {
    let keys = match read_keys(&call) {
        Ok(keys) => keys,
        Err(detail) => return refuse(detail),
    };
    let selectors: Result<Vec<Selector>, _> = keys.iter().map(|key| selector::tag(key)).collect();
    match selectors {
        Err(error) => refuse(format!("Invalid key: {error}.")),
        Ok(selectors) => {
            purge(purger, mode(&call), selectors, |seq| {
                keys.iter().map(|key| (key.clone(), json!(seq))).collect()
            })
            .await
        }
    }
}

/// Purges the key in the path.
pub(super) async fn purge_key(purger: &Purger, call: AdminCall<'_>) -> Response<Bytes> {
    let key = call.parameters.get(1).and_then(|key| percent_decode_str(key).decode_utf8().ok());
    let tag = selector::tag(&key.unwrap_or_default());
    purge_these(purger, mode(&call), tag.map(|tag| vec![tag])).await
}

/// Purges the URL in the path.
pub(super) async fn purge_url(purger: &Purger, call: AdminCall<'_>) -> Response<Bytes> {
    let url = cached_url(&call);
    purge_these(purger, mode(&call), purger.url(&url)).await
}

/// Purges everything in hard mode.
pub(super) async fn purge_all(purger: &Purger) -> Response<Bytes> {
    purge_these(purger, PurgeMode::Hard, Ok(vec![Selector::Everything])).await
}

/// Returns the URL in a path `/purge/{url}`, even if it is percent-encoded as a single segment.
fn cached_url(call: &AdminCall<'_>) -> String {
    let place = call.parameters.first().copied().unwrap_or_default();
    let url = match percent_decode_str(place).decode_utf8() {
        Ok(decoded) if !place.contains('/') && decoded.contains('/') => decoded.into_owned(),
        _ => place.to_owned(),
    };
    match call.query {
        Some(query) => format!("{url}?{query}"),
        None => url,
    }
}

fn read_keys(call: &AdminCall<'_>) -> Result<Vec<String>, String> {
    const FORM: &str = r#"Send `Surrogate-Key: a b`, or JSON: {"surrogate_keys": ["a", "b"]}."#;
    let mut keys = surrogate_keys(call.headers);
    if !call.body.trim_ascii().is_empty() {
        let body: KeysBody = serde_json::from_slice(call.body)
            .map_err(|_| format!("The body is invalid. {FORM}"))?;
        keys.extend(body.surrogate_keys);
    }
    if keys.is_empty() { Err(format!("The request contains no key. {FORM}")) } else { Ok(keys) }
}

fn mode(call: &AdminCall<'_>) -> PurgeMode {
    if is_fastly_soft_purge(call.headers) { PurgeMode::Soft } else { PurgeMode::Hard }
}

async fn purge_these(
    purger: &Purger,
    mode: PurgeMode,
    selectors: Result<Vec<Selector>, SelectorError>,
) -> Response<Bytes> {
    match selectors {
        Err(error) => refuse(format!("Invalid key or URL: {error}.")),
        Ok(selectors) => {
            purge(purger, mode, selectors, |id| json!({ "status": "ok", "id": id })).await
        }
    }
}

/// Runs a purge, and responds with the JSON that `answer` returns for its sequence number.
async fn purge(
    purger: &Purger,
    mode: PurgeMode,
    selectors: Vec<Selector>,
    answer: impl Fn(&str) -> Value,
) -> Response<Bytes> {
    let purge = Purge { mode, selectors, source: PurgeSource::Api, reason: None, warm: false };
    match purger.purge(purge).await {
        Ok(receipt) => json_response(receipt_status(&receipt), &answer(&receipt.seq.to_string())),
        Err(LogUnavailable) => Dialect::Fastly.refuse(log_unavailable()),
    }
}

fn refuse(detail: String) -> Response<Bytes> {
    Dialect::Fastly.refuse(Problem::new(StatusCode::BAD_REQUEST, "No purge", detail))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn call<'a>(place: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> AdminCall<'a> {
        AdminCall { parameters: vec![place], query, headers, body: &[] }
    }

    #[test]
    fn a_url_may_be_encoded_or_not() {
        let headers = HeaderMap::new();
        let url = |place, query| cached_url(&call(place, query, &headers));
        assert_eq!(url("www.example.com/a%2Fb", Some("q=1")), "www.example.com/a%2Fb?q=1");
        assert_eq!(url("https://h/a", None), "https://h/a");
        assert_eq!(url("www.example.com%2Fa%3Fq%3D1", None), "www.example.com/a?q=1");
        assert_eq!(url("https%3A%2F%2Fh%2Fa", None), "https://h/a");
        assert_eq!(url("www.example.com", None), "www.example.com");
        assert_eq!(url("h%FF", None), "h%FF");
    }

    #[test]
    fn keys_stand_in_the_field_and_in_the_body() {
        let headers =
            HeaderMap::from_iter([("surrogate-key".parse().unwrap(), "a b".parse().unwrap())]);
        let keys = |headers, body| read_keys(&AdminCall { body, ..call("x", None, headers) });
        assert_eq!(keys(&headers, b"".as_slice()).unwrap(), ["a", "b"]);
        let body = br#"{"surrogate_keys":["c d"]}"#.as_slice();
        assert_eq!(keys(&headers, body).unwrap(), ["a", "b", "c d"]);
        let none = HeaderMap::new();
        for body in
            ["", "{}", "[]", r#"{"surrogate_keys":[]}"#, r#"{"surrogate_keys":["a"],"x":1}"#]
        {
            assert!(keys(&none, body.as_bytes()).is_err(), "{body}");
        }
    }
}

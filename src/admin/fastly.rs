//! Purge calls as clients of Fastly make them. A service is whatever they say: there is one.

use bytes::Bytes;
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{calls::Said, dialect::Dialect};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    problem::Problem,
    purge::Unavailable,
    trigger::{
        Purger, SelectorError, json, log_out_of_reach,
        method::{is_soft_for_fastly, surrogate_keys},
        selector, status,
    },
};

/// The body of a call with several keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    surrogate_keys: Vec<String>,
}

/// Purges the keys of the body and of `Surrogate-Key`.
pub(super) async fn keys(purger: &Purger, said: Said<'_>) -> Response<Bytes> {
    let keys = match read_keys(&said) {
        Ok(keys) => keys,
        Err(detail) => return refuse(detail),
    };
    let selectors: Result<Vec<Selector>, _> = keys.iter().map(|key| selector::tag(key)).collect();
    match selectors {
        Err(error) => refuse(format!("A key purges nothing: {error}.")),
        Ok(selectors) => {
            purge(purger, mode(&said), selectors, |seq| {
                keys.iter().map(|key| (key.clone(), json!(seq))).collect()
            })
            .await
        }
    }
}

/// Purges the key of the path.
pub(super) async fn key(purger: &Purger, said: Said<'_>) -> Response<Bytes> {
    let key = said.places.get(1).and_then(|key| percent_decode_str(key).decode_utf8().ok());
    one(purger, mode(&said), selector::tag(&key.unwrap_or_default())).await
}

/// Purges the URL of the path.
pub(super) async fn url(purger: &Purger, said: Said<'_>) -> Response<Bytes> {
    let url = cached_url(&said);
    one(purger, mode(&said), purger.url(&url)).await
}

/// Purges everything; there is no soft way.
pub(super) async fn all(purger: &Purger) -> Response<Bytes> {
    one(purger, Mode::Hard, Ok(Selector::Everything)).await
}

/// The URL of `/purge/{url}`: as it is, or as one segment in which all of it is encoded.
fn cached_url(said: &Said<'_>) -> String {
    let place = said.places.first().copied().unwrap_or_default();
    let url = match percent_decode_str(place).decode_utf8() {
        Ok(decoded) if !place.contains('/') && decoded.contains('/') => decoded.into_owned(),
        _ => place.to_owned(),
    };
    match said.query {
        Some(query) => format!("{url}?{query}"),
        None => url,
    }
}

fn read_keys(said: &Said<'_>) -> Result<Vec<String>, String> {
    const FORM: &str = r#"Send `Surrogate-Key: a b`, or JSON: {"surrogate_keys": ["a", "b"]}."#;
    let mut keys = surrogate_keys(said.headers);
    if !said.body.trim_ascii().is_empty() {
        let body: Keys = serde_json::from_slice(said.body)
            .map_err(|_| format!("The body cannot be read. {FORM}"))?;
        keys.extend(body.surrogate_keys);
    }
    if keys.is_empty() { Err(format!("No key is named. {FORM}")) } else { Ok(keys) }
}

fn mode(said: &Said<'_>) -> Mode {
    if is_soft_for_fastly(said.headers) { Mode::Soft } else { Mode::Hard }
}

async fn one(
    purger: &Purger,
    mode: Mode,
    selector: Result<Selector, SelectorError>,
) -> Response<Bytes> {
    match selector {
        Err(error) => refuse(format!("This purges nothing: {error}.")),
        Ok(selector) => {
            purge(purger, mode, vec![selector], |id| json!({ "status": "ok", "id": id })).await
        }
    }
}

/// Purges, and answers with the place in the log as the id.
async fn purge(
    purger: &Purger,
    mode: Mode,
    selectors: Vec<Selector>,
    answer: impl Fn(&str) -> Value,
) -> Response<Bytes> {
    let purge = Purge { mode, selectors, source: Source::Api, reason: None, warm: false };
    match purger.purge(purge).await {
        Ok(receipt) => json(status(&receipt), &answer(&receipt.seq.to_string())),
        Err(Unavailable) => Dialect::Fastly.refuse(log_out_of_reach()),
    }
}

fn refuse(detail: String) -> Response<Bytes> {
    Dialect::Fastly.refuse(Problem::new(StatusCode::BAD_REQUEST, "No purge", detail))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn said<'a>(place: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> Said<'a> {
        Said { places: vec![place], query, headers, body: &[] }
    }

    #[test]
    fn a_url_may_be_encoded_or_not() {
        let headers = HeaderMap::new();
        let url = |place, query| cached_url(&said(place, query, &headers));
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
        let keys = |headers, body| read_keys(&Said { body, ..said("x", None, headers) });
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

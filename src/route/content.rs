//! The requests with content whose responses are stored, and how the key contains their content.

use http::{HeaderMap, Method, header};

use crate::field::list;

/// The requests with content that a route treats as reads.
///
/// A `QUERY` is a read on every route (RFC 10008).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentRule {
    /// `QUERY`, keyed by its bytes.
    #[default]
    Query,
    /// `QUERY`, keyed by its bytes or as JSON, and `POST` with JSON. JSON is keyed and forwarded in
    /// its canonical form.
    Json,
    /// `QUERY` and `POST`, keyed by their bytes.
    Bytes,
    /// `QUERY` and `POST` with GraphQL. Some of these are writes.
    Graphql,
}

/// The form in which the key contains the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentForm {
    /// The bytes as sent.
    Bytes,
    /// Canonical JSON if possible, otherwise the bytes as sent.
    Json,
    /// A canonical GraphQL request. Other content is not part of the key.
    Graphql,
}

/// How a GraphQL request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GraphqlMedia {
    /// As JSON, the only form whose responses are stored.
    Json,
    /// As a document alone (`application/graphql`).
    Document,
    /// As a form without files (`application/x-www-form-urlencoded`).
    Form,
}

impl GraphqlMedia {
    /// Returns how a request with these fields is sent; `None` if it is not known to be GraphQL.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        match &*essence(headers)? {
            b"application/graphql" => Some(Self::Document),
            b"application/x-www-form-urlencoded" => Some(Self::Form),
            _ => is_json(headers).then_some(Self::Json),
        }
    }
}

/// Why the content of a request is not part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKeyed {
    /// Requests with this method are not reads on this route.
    Method,
    /// The route keys only JSON content, and the content is not JSON.
    NotJson,
}

impl ContentRule {
    /// Returns how the key contains the content of a request with this method and these fields.
    ///
    /// # Errors
    /// Fails if such a request is not a read.
    pub fn form(self, method: &Method, headers: &HeaderMap) -> Result<ContentForm, NotKeyed> {
        match (*method == Method::QUERY, *method == Method::POST, self) {
            (true, _, Self::Graphql) | (_, true, Self::Graphql) => {
                GraphqlMedia::of(headers).map(|_| ContentForm::Graphql).ok_or(NotKeyed::NotJson)
            }
            (true, _, Self::Json) if is_json(headers) => Ok(ContentForm::Json),
            (true, ..) | (_, true, Self::Bytes) => Ok(ContentForm::Bytes),
            (_, true, Self::Json) if is_json(headers) => Ok(ContentForm::Json),
            (_, true, Self::Json) => Err(NotKeyed::NotJson),
            _ => Err(NotKeyed::Method),
        }
    }

    /// Returns whether some `POST` requests are reads.
    pub fn reads_by_post(self) -> bool {
        self != Self::Query
    }
}

/// Returns the media type of a single `Content-Type` line, in lower case and without parameters.
fn essence(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let essence = line.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    Some(list::trim(essence).to_ascii_lowercase())
}

/// Returns whether the only `Content-Type` line names JSON (RFC 8259, RFC 6839 §3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(essence) = essence(headers) else { return false };
    let is_one = !essence.iter().any(|byte| matches!(byte, b',' | b' ' | b'\t'));
    matches!(&*essence, b"application/json" | b"text/json")
        || (is_one && essence.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn form(
        rule: ContentRule,
        method: &Method,
        types: &[&'static str],
    ) -> Result<ContentForm, NotKeyed> {
        let lines = types.iter().map(|it| (header::CONTENT_TYPE, HeaderValue::from_static(it)));
        rule.form(method, &lines.collect())
    }

    #[test]
    fn a_query_is_a_read_everywhere_and_a_post_where_the_route_says_so() {
        use ContentRule::{Bytes, Json, Query};
        let json = &["application/json"][..];
        for (rule, method, types, expected) in [
            (Query, Method::QUERY, json, Ok(ContentForm::Bytes)),
            (Query, Method::POST, json, Err(NotKeyed::Method)),
            (Json, Method::QUERY, json, Ok(ContentForm::Json)),
            (Json, Method::QUERY, &["application/sql"], Ok(ContentForm::Bytes)),
            (Json, Method::POST, json, Ok(ContentForm::Json)),
            (Json, Method::POST, &["text/plain"], Err(NotKeyed::NotJson)),
            (Json, Method::POST, &[], Err(NotKeyed::NotJson)),
            (Bytes, Method::POST, &[], Ok(ContentForm::Bytes)),
            (Bytes, Method::QUERY, json, Ok(ContentForm::Bytes)),
            (Json, Method::PUT, json, Err(NotKeyed::Method)),
            (Bytes, Method::PATCH, json, Err(NotKeyed::Method)),
            (Bytes, Method::GET, json, Err(NotKeyed::Method)),
        ] {
            assert_eq!(form(rule, &method, types), expected, "{rule:?} {method} {types:?}");
        }
    }

    #[test]
    fn graphql_is_sent_as_json_as_a_document_or_as_a_form() {
        let media = |text| {
            GraphqlMedia::of(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(text),
            )]))
        };
        assert_eq!(media("application/json; charset=utf-8"), Some(GraphqlMedia::Json));
        assert_eq!(media("Application/GraphQL"), Some(GraphqlMedia::Document));
        assert_eq!(media("application/x-www-form-urlencoded"), Some(GraphqlMedia::Form));
        assert_eq!(media("multipart/form-data; boundary=x"), None);
        assert_eq!(media("application/graphql+json"), Some(GraphqlMedia::Json));
        assert_eq!(GraphqlMedia::of(&HeaderMap::new()), None);
    }

    #[test]
    fn one_content_type_names_json() {
        let is_json =
            |types: &[&'static str]| form(ContentRule::Json, &Method::POST, types).is_ok();
        for json in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            "text/json",
            "application/ld+json",
        ] {
            assert!(is_json(&[json]), "{json}");
        }
        for other in [
            "",
            "application/jsonp",
            "application/json, text/html",
            "text/html, application/ld+json",
            "application/x-ndjson",
        ] {
            assert!(!is_json(&[other]), "{other}");
        }
        assert!(!is_json(&["application/json", "application/json"]));
    }
}

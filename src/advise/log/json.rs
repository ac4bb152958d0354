//! Lines of JSON: nginx's `escape=json` formats with the usual names, and Larder's own.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use http::{HeaderMap, HeaderValue, header};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    larder,
    record::{
        LineError, LoggedQuery, LoggedRequest, LoggedResponse, digest, is_method, split_request,
        split_target,
    },
    time,
};
use crate::{
    field::{cookie, identity},
    policy::{
        ResponseDirectives,
        credentials::{CookieKind, CredentialRules},
    },
};

/// The members of a line by lower-case name. The value of an object or a list is empty.
struct Members<'a>(BTreeMap<String, Cow<'a, str>>);

/// Parses a line of JSON.
pub(super) fn parse(line: &str) -> Result<LoggedRequest<'_>, LineError> {
    let Line(members) = serde_json::from_str(line).map_err(|_| LineError::Format)?;
    let members = Members(members);
    let at = ["time_iso8601", "time_local", "msec", "@timestamp", "timestamp", "ts", "time"];
    let at = members.first(&at).and_then(|text| time::parse(&text)).ok_or(LineError::Time)?;
    let (method, path, query) = members.target()?;
    let status = members.first(&["status", "status_code"]);
    let status = status.and_then(|status| status.parse().ok()).ok_or(LineError::Format)?;
    let reason = members.first(&["reason"]).unwrap_or_default();
    let (is_refused, response) = larder::meaning(&reason);
    let outcome = members.first(&["cache", "upstream_cache_status"]).unwrap_or_default();
    Ok(LoggedRequest {
        at,
        method,
        path,
        query,
        host: members.first(&["host", "http_host", "server_name"]),
        status,
        bytes: members.number(&["body_bytes_sent", "bytes", "bytes_sent", "size"]),
        duration: members.duration(),
        client: members.client(),
        variant: digest(VARIANT.map(|name| members.first(&[name]))),
        validator: members.first(&VALIDATORS).map(digest),
        has_credentials: is_refused || members.have_credentials(),
        is_from_cache: larder::is_from_cache(&outcome),
        response: members.response(response),
    })
}

/// Request fields on which responses commonly vary, and the coding of the response.
const VARIANT: [&str; 4] = [
    "http_user_agent",
    "http_accept_encoding",
    "http_accept_language",
    "sent_http_content_encoding",
];

const VALIDATORS: [&str; 4] = [
    "sent_http_etag",
    "upstream_http_etag",
    "sent_http_last_modified",
    "upstream_http_last_modified",
];

impl<'a> Members<'a> {
    /// Returns the first value of these members that is neither empty nor nginx's `-`.
    fn first(&self, names: &[&str]) -> Option<Cow<'a, str>> {
        let values = names.iter().filter_map(|name| self.0.get(*name));
        values.into_iter().find(|value| !matches!(&***value, "" | "-")).cloned()
    }

    fn number<T: std::str::FromStr>(&self, names: &[&str]) -> Option<T> {
        self.first(names).and_then(|text| text.parse().ok())
    }

    /// Returns the request's method, path and query.
    fn target(&self) -> Result<(Cow<'a, str>, Cow<'a, str>, LoggedQuery<'a>), LineError> {
        let line = self.first(&["request"]);
        let line = line.as_deref().and_then(split_request);
        let (method, target) = if let Some((method, target)) = line {
            (Cow::Owned(method.to_owned()), Cow::Owned(target.to_owned()))
        } else {
            let method = self.first(&["request_method", "method"]);
            let target = self.first(&["request_uri", "uri", "url", "path"]);
            (method.ok_or(LineError::Request)?, target.ok_or(LineError::Request)?)
        };
        let is_whole = line.is_some()
            || target.contains('?')
            || ["request_uri", "args", "query_string"]
                .iter()
                .any(|name| self.0.contains_key(*name));
        let (path, query) = split_target(target).ok_or(LineError::Request)?;
        if !is_method(&method) {
            return Err(LineError::Request);
        }
        let query = query.or_else(|| self.first(&["args", "query_string"]));
        let query = if is_whole { LoggedQuery::Logged(query) } else { LoggedQuery::NotLogged };
        Ok((method, path, query))
    }

    /// Returns the response time in milliseconds. nginx logs seconds.
    fn duration(&self) -> Option<f64> {
        let seconds = self.number::<f64>(&["upstream_response_time"]);
        let seconds = seconds.or_else(|| self.number(&["request_time"]));
        let millis = seconds.map(|seconds| seconds * 1e3);
        let millis = millis.or_else(|| self.number(&["dur_ms", "duration_ms"]));
        millis.filter(|millis| (0.0..86_400_000.0).contains(millis))
    }

    fn client(&self) -> Option<u64> {
        let names = ["remote_user", "http_x_forwarded_for", "remote_addr", "client_ip", "client"];
        self.first(&names).map(digest)
    }

    /// Returns whether the line shows a user, or a request header field that is a credential.
    fn have_credentials(&self) -> bool {
        let rules = CredentialRules::default();
        self.first(&["remote_user", "http_authorization", "authorization"]).is_some()
            || self.0.iter().any(|(name, value)| {
                let field = name.strip_prefix("http_").filter(|_| !matches!(&**value, "" | "-"));
                field.is_some_and(|field| match field {
                    "cookie" => cookie::in_line(value.as_bytes())
                        .any(|cookie| rules.cookie_kind(cookie.name) == CookieKind::Session),
                    field => identity::classify(field).is_some(),
                })
            })
    }

    /// Returns the response's properties, extended by what its logged headers say.
    fn response(&self, known: LoggedResponse) -> LoggedResponse {
        let mut headers = HeaderMap::new();
        let control = self.first(&["sent_http_cache_control", "upstream_http_cache_control"]);
        if let Some(value) = control.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::CACHE_CONTROL, value);
        }
        let directives = ResponseDirectives::parse(&headers);
        let media = self.first(&["sent_http_content_type", "upstream_http_content_type"]);
        let cookie = self.first(&["sent_http_set_cookie", "upstream_http_set_cookie"]);
        LoggedResponse {
            is_no_store: known.is_no_store || directives.no_store,
            is_private: known.is_private || directives.private,
            sets_cookie: known.sets_cookie || cookie.is_some(),
            is_stream: known.is_stream
                || media.is_some_and(|media| media.starts_with("text/event-stream")),
            has_lifetime: directives.max_age.or(directives.s_maxage).is_some_and(|age| age > 0),
        }
    }
}

/// The members of a JSON object, with scalar values as text.
struct Line<'a>(BTreeMap<String, Cow<'a, str>>);

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LineVisitor)
    }
}

struct LineVisitor;

/// Maximum number of members that are read, which is more than usual formats have.
const MAX_MEMBERS: usize = 128;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, Scalar(value))) = map.next_entry::<String, Scalar<'de>>()? {
            if members.len() < MAX_MEMBERS {
                members.insert(name.to_ascii_lowercase(), value);
            }
        }
        Ok(Line(members))
    }
}

/// A string, or a number as text; empty for other values.
struct Scalar<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Owned(number.to_string())))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar(Cow::Borrowed("")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar(Cow::Borrowed("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nginx_is_read() {
        let line = r#"{"time_iso8601":"2024-02-28T23:59:59+00:00","remote_addr":"203.0.113.9","request":"GET /a/b?x=1 HTTP/2.0","status":"200","body_bytes_sent":"77","upstream_response_time":"0.250","http_authorization":"Bearer s","sent_http_cache_control":"private, max-age=0","sent_http_etag":"W/\"1\"","nested":{"a":[1]}}"#;
        let request = parse(line).unwrap();
        assert_eq!(
            (&*request.method, &*request.path, request.query()),
            ("GET", "/a/b", Some("x=1"))
        );
        assert_eq!((request.bytes, request.duration), (Some(77), Some(250.0)));
        assert!(request.has_credentials && request.response.is_private);
        assert_eq!(request.representation(), Some(digest(Cow::Borrowed("W/\"1\""))));
    }

    #[test]
    fn a_line_of_larder_is_read() {
        let line = r#"{"ts":"2024-02-28T23:59:59.123Z","request_id":"x","method":"GET","host":"h","path":"/a","route":"r","status":200,"bytes":9,"dur_ms":3.250,"cache":"MISS","reason":"credential-field"}"#;
        let request = parse(line).unwrap();
        assert_eq!((request.query.clone(), request.client), (LoggedQuery::NotLogged, None));
        assert_eq!((request.bytes, request.duration), (Some(9), Some(3.25)));
        assert!(request.has_credentials && !request.is_from_cache);
    }

    #[test]
    fn cookies_count_by_their_names() {
        let of = |cookie: &str| {
            let line = format!(
                r#"{{"msec":1709164799.1,"request_method":"GET","request_uri":"/a","status":200,"http_cookie":"{cookie}"}}"#
            );
            parse(&line).unwrap().has_credentials
        };
        assert!(of("sessionid=1") && !of("_ga=1") && !of(""));
    }

    #[test]
    fn other_json_is_refused() {
        for line in ["{", "{}", "[]", r#"{"ts":"x"}"#, r#"{"ts":1709164799,"path":"/a"}"#] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

//! The input of an explanation: a request and optionally a response.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::server::Connection;

/// Maximum number of header fields in a request or response.
const MAX_FIELDS: usize = 200;

/// The JSON input of `POST /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The URL as `https://host/path?query`, `host/path` or `/path`.
    pub url: String,
    /// The header fields of the request, each as `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The origin's response, if it is to be explained too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ExplainRequestResponse>,
}

impl ExplainRequest {
    /// Creates a `GET` of this URL without header fields.
    pub fn get(url: &str) -> Self {
        let (method, url) = (get(), url.to_owned());
        Self { method, url, headers: Vec::new(), body: None, from: None, response: None }
    }
}

/// A response of the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequestResponse {
    /// The status.
    #[serde(default = "ok")]
    pub status: u16,
    /// The header fields of the response, each as `name: value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The body of the response. It is needed if the route reads tags from JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

const fn ok() -> u16 {
    200
}

/// Why the input is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidExplainRequest {
    #[error("`{0}` is not a method; write it in upper case, such as `GET`")]
    Method(String),
    #[error("expected a URL such as `https://api.example.com/path?query`, or `/path`")]
    Url,
    #[error("the URL must not contain a user name; use an `authorization` header")]
    UserInfo,
    /// The field at this position (from 1) is malformed. The error does not repeat its value.
    #[error("header {0} is not of the form `name: value`")]
    Field(usize),
    #[error("more than {MAX_FIELDS} headers")]
    Fields,
    #[error("{0} is not a final status code")]
    Status(u16),
}

/// A request and its connection, and optionally a response.
pub(super) struct ParsedRequest {
    pub request: Request<Full<Bytes>>,
    /// The body of the request.
    pub content: Bytes,
    pub connection: Connection,
    pub response: Option<ParsedResponse>,
}

/// A response of the origin.
#[derive(Debug, Clone)]
pub(super) struct ParsedResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body of the response; `None` if unknown.
    pub body: Option<Bytes>,
}

impl ParsedRequest {
    /// Parses the input. `host` is the default for URLs without a host.
    pub(super) fn read(input: &ExplainRequest, host: &str) -> Result<Self, InvalidExplainRequest> {
        let method = Method::from_bytes(input.method.as_bytes())
            .map_err(|_| InvalidExplainRequest::Method(input.method.clone()))?;
        let ParsedUrl { secure, host, uri } = target(&input.url, host)?;
        let mut headers = fields(&input.headers)?;
        if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, host);
        }
        let content = Bytes::from(input.body.clone().unwrap_or_default());
        let mut request = Request::new(Full::new(content.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let peer = input.from.map(|address| (address, 0).into());
        let connection = Connection { peer, secure, ..Connection::default() };
        let response = input.response.as_ref().map(ParsedResponse::read).transpose()?;
        Ok(Self { request, content, connection, response })
    }
}

impl ParsedResponse {
    fn read(input: &ExplainRequestResponse) -> Result<Self, InvalidExplainRequest> {
        let status =
            StatusCode::from_u16(input.status).ok().filter(|status| status.as_u16() >= 200);
        let status = status.ok_or(InvalidExplainRequest::Status(input.status))?;
        let body = input.body.clone().map(Bytes::from);
        Ok(Self { status, headers: fields(&input.headers)?, body })
    }
}

fn fields(lines: &[String]) -> Result<HeaderMap, InvalidExplainRequest> {
    if lines.len() > MAX_FIELDS {
        return Err(InvalidExplainRequest::Fields);
    }
    let mut headers = HeaderMap::with_capacity(lines.len() + 1);
    for (index, line) in lines.iter().enumerate() {
        let field = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = field.ok_or(InvalidExplainRequest::Field(index + 1))?;
        headers.append(name, value);
    }
    Ok(headers)
}

struct ParsedUrl {
    secure: bool,
    host: HeaderValue,
    uri: Uri,
}

/// Parses a URL without normalising it, because the spelling of a path matters.
fn target(text: &str, usual_host: &str) -> Result<ParsedUrl, InvalidExplainRequest> {
    let (secure, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, _)) if !scheme.contains(['/', '?']) => {
            return Err(InvalidExplainRequest::Url);
        }
        _ => (false, text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at_checked(end).ok_or(InvalidExplainRequest::Url)?;
    if host.contains('@') {
        return Err(InvalidExplainRequest::UserInfo);
    }
    let host = if host.is_empty() { usual_host } else { host };
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let is_host = host.parse::<http::uri::Authority>().is_ok();
    let host =
        HeaderValue::from_str(host).ok().filter(|_| is_host).ok_or(InvalidExplainRequest::Url)?;
    let uri = Uri::try_from(target).map_err(|_| InvalidExplainRequest::Url)?;
    Ok(ParsedUrl { secure, host, uri })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, headers: &[&str]) -> Result<ParsedRequest, InvalidExplainRequest> {
        let headers = headers.iter().map(|line| (*line).to_owned()).collect();
        let (method, url) = (get(), url.to_owned());
        let input = ExplainRequest { method, url, headers, body: None, from: None, response: None };
        ParsedRequest::read(&input, "localhost")
    }

    #[test]
    fn a_url_is_parsed_without_normalisation() {
        for (url, secure, host, target) in [
            ("https://api.test/a%2Fb/../c?d=%7e", true, "api.test", "/a%2Fb/../c?d=%7e"),
            ("HTTP://api.test:81", false, "api.test:81", "/"),
            ("api.test?x", false, "api.test", "/?x"),
            ("/a//b#c", false, "localhost", "/a//b"),
            ("/a?to=https://b.test/", false, "localhost", "/a?to=https://b.test/"),
        ] {
            let parsed = parse(url, &[]).ok().unwrap();
            assert_eq!(parsed.connection.secure, secure, "{url}");
            assert_eq!(parsed.request.headers()["host"], host, "{url}");
            assert_eq!(parsed.request.uri().to_string(), target, "{url}");
        }
    }

    #[test]
    fn errors_contain_no_field_values() {
        for (url, headers, expected) in [
            ("ftp://a/", &[][..], InvalidExplainRequest::Url),
            ("https://u:secret@a/", &[], InvalidExplainRequest::UserInfo),
            ("/a b", &[], InvalidExplainRequest::Url),
            ("/", &["a: b", "secret"], InvalidExplainRequest::Field(2)),
        ] {
            let error = parse(url, headers).err();
            assert_eq!(error, Some(expected), "{url}");
            assert!(!error.unwrap().to_string().contains("secret"));
        }
    }
}

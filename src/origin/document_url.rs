//! The URL of a document, split into server, target and credentials.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use url::Url;

use super::{ServerUrl, settings::InvalidEndpoint};

/// A document's server, target and credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentUrl {
    pub server: ServerUrl,
    pub target: Uri,
    /// The Basic credentials from the URL; `None` if the URL has none. Never displayed.
    pub authorization: Option<HeaderValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a URL such as `https://data.internal/version`")]
pub struct InvalidDocumentUrl;

impl DocumentUrl {
    /// Parses an `http` or `https` URL. A user and password in the URL become Basic credentials
    /// (RFC 7617).
    pub fn parse(text: &str) -> Result<Self, InvalidDocumentUrl> {
        let url = Url::parse(text).map_err(|_| InvalidDocumentUrl)?;
        let host = url.host_str().ok_or(InvalidDocumentUrl)?;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let server = match url.scheme() {
            scheme @ ("http" | "https") => format!("{scheme}://{host}{port}"),
            _ => return Err(InvalidDocumentUrl),
        };
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Ok(Self {
            server: server.parse().map_err(|_: InvalidEndpoint| InvalidDocumentUrl)?,
            target: format!("{}{query}", url.path()).parse().map_err(|_| InvalidDocumentUrl)?,
            authorization: basic(&url)?,
        })
    }
}

fn basic(url: &Url) -> Result<Option<HeaderValue>, InvalidDocumentUrl> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let password = decoded(url.password().unwrap_or_default());
    let credentials = [decoded(url.username()), password].join(&b':');
    let credentials = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    let mut value = HeaderValue::try_from(credentials).map_err(|_| InvalidDocumentUrl)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = DocumentUrl::parse("https://data.test:8443/a/b?c=d#e").unwrap();
        assert_eq!(url.server.to_string(), "https://data.test:8443");
        assert_eq!(url.target, "/a/b?c=d");
        assert_eq!(url.authorization, None);
        let url = DocumentUrl::parse("http://[::1]").unwrap();
        assert_eq!((url.server.to_string().as_str(), url.target.path()), ("http://[::1]", "/"));
        for text in ["", "data.test/a", "ftp://data.test/", "h2c://a/", "http://", "unix:/a"] {
            assert_eq!(DocumentUrl::parse(text), Err(InvalidDocumentUrl), "{text}");
        }
    }

    #[test]
    fn users_are_sent_as_basic_credentials_and_never_shown() {
        let url = DocumentUrl::parse("http://druid:p%40ss@data.test/").unwrap();
        assert_eq!(url.authorization.as_ref().unwrap(), "Basic ZHJ1aWQ6cEBzcw==");
        assert!(!format!("{url:?}").contains("ZHJ1"));
        assert_eq!(url.server.to_string(), "http://data.test");
    }
}

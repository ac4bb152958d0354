//! One poll of a data version: a conditional request and its response.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use thiserror::Error;

use super::{Poll, VersionFrom};
use crate::origin::{
    SetupError,
    document::{DocumentClient, DocumentError},
};

/// The time limit of a poll, from its start to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of a successful poll.
#[derive(Debug)]
pub(super) enum PollResponse {
    /// The version has not changed.
    Unchanged,
    /// The version, and the entity tag of the response that contains it, if any.
    Version(Box<str>, Option<HeaderValue>),
    /// The response has no version.
    NoVersion,
}

/// The reasons why a poll failed, for the log.
#[derive(Debug, Error)]
pub(super) enum VersionFetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the response is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// A source of data versions.
pub(super) trait VersionSource: Send + Sync + 'static {
    /// Fetches the version. `etag` is the entity tag of the last response that contained a version.
    fn fetch(
        &self,
        etag: Option<&HeaderValue>,
    ) -> impl Future<Output = Result<PollResponse, VersionFetchError>> + Send;
}

/// A data version at an HTTP URL, fetched over kept-alive connections.
pub(super) struct HttpVersionSource {
    client: DocumentClient,
    version: VersionFrom,
}

impl VersionSource for HttpVersionSource {
    async fn fetch(&self, etag: Option<&HeaderValue>) -> Result<PollResponse, VersionFetchError> {
        let mut fields = HeaderMap::new();
        if let Some(tag) = etag {
            fields.insert(header::IF_NONE_MATCH, tag.clone());
        }
        let (head, body) = self.client.get(fields).await?.into_parts();
        if head.status == StatusCode::NOT_MODIFIED {
            let is_conditional = etag.is_some();
            return is_conditional
                .then_some(PollResponse::Unchanged)
                .ok_or(DocumentError::Status(head.status).into());
        }
        let version = self.version.read(&head.headers, &body)?;
        let tag = head.headers.get(header::ETAG).filter(|tag| !tag.is_empty()).cloned();
        Ok(version.map_or(PollResponse::NoVersion, |version| PollResponse::Version(version, tag)))
    }
}

impl HttpVersionSource {
    /// Creates a source with its HTTP client. Must be called on the runtime that will poll it.
    pub(super) fn new(poll: &Poll) -> Result<Self, SetupError> {
        let client = DocumentClient::new(&poll.source, TIMEOUT)?;
        Ok(Self { client, version: poll.version.clone() })
    }
}

#[cfg(test)]
mod tests;

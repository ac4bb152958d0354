//! One look at a data version: a conditional request and what its answer says.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use thiserror::Error;

use super::{Poll, VersionFrom};
use crate::origin::{
    SetupError,
    document::{DocumentClient, DocumentError},
};

/// How long an answer may take, to its last byte.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a look has found.
#[derive(Debug)]
pub(super) enum PollResponse {
    /// What was found the last time.
    Unchanged,
    /// A version, and the tag of the answer that told it.
    Version(Box<str>, Option<HeaderValue>),
    /// An answer without a version.
    NoVersion,
}

/// Why nothing was found. For the log.
#[derive(Debug, Error)]
pub(super) enum VersionFetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the answer is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// Who knows the version.
pub(super) trait VersionSource: Send + Sync + 'static {
    /// Looks once. `known` is the tag of the answer that told the version known.
    fn fetch(
        &self,
        known: Option<&HeaderValue>,
    ) -> impl Future<Output = Result<PollResponse, VersionFetchError>> + Send;
}

/// A server that is asked, with connections that are kept.
pub(super) struct HttpVersionSource {
    client: DocumentClient,
    version: VersionFrom,
}

impl VersionSource for HttpVersionSource {
    async fn fetch(&self, known: Option<&HeaderValue>) -> Result<PollResponse, VersionFetchError> {
        let mut fields = HeaderMap::new();
        if let Some(tag) = known {
            fields.insert(header::IF_NONE_MATCH, tag.clone());
        }
        let (head, body) = self.client.get(fields).await?.into_parts();
        if head.status == StatusCode::NOT_MODIFIED {
            let is_conditional = known.is_some();
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
    /// To be called on the runtime that will ask.
    pub(super) fn new(poll: &Poll) -> Result<Self, SetupError> {
        let client = DocumentClient::new(&poll.source, TIMEOUT)?;
        Ok(Self { client, version: poll.version.clone() })
    }
}

#[cfg(test)]
mod tests;

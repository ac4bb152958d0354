//! One look at a data version: a conditional request and what its answer says.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use thiserror::Error;
use tokio::time::timeout;

use super::{Poll, Source, VersionFrom};
use crate::origin::{
    Origin, OriginError, RequestBody, ResponseBody, SetupError, settings::Settings,
};

/// The largest answer that is read.
const LARGEST: usize = 1 << 20;

/// How long an answer may take, to its last byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// What a look has found.
#[derive(Debug)]
pub(super) enum Answer {
    /// What was found the last time.
    Same,
    /// A version, and the tag of the answer that told it.
    Version(Box<str>, Option<HeaderValue>),
    /// An answer without a version.
    Nothing,
}

/// Why nothing was found. For the log.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("the answer took too long")]
    Late,
    #[error("the status is {0}")]
    Status(StatusCode),
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
    #[error("the answer broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

/// Who knows the version.
pub(super) trait Ask: Send + Sync + 'static {
    /// Looks once. `known` is the tag of the answer that told the version known.
    fn ask(
        &self,
        known: Option<&HeaderValue>,
    ) -> impl Future<Output = Result<Answer, AskError>> + Send;
}

/// A server that is asked, with connections that are kept.
pub(super) struct Asker {
    origin: Arc<Origin>,
    source: Source,
    version: VersionFrom,
}

impl Ask for Asker {
    async fn ask(&self, known: Option<&HeaderValue>) -> Result<Answer, AskError> {
        timeout(PATIENCE, self.look(known)).await.map_err(|_| AskError::Late)?
    }
}

impl Asker {
    /// To be called on the runtime that will ask.
    pub(super) fn new(poll: &Poll) -> Result<Self, SetupError> {
        let source = poll.source.clone();
        let settings = Settings {
            connect_timeout: CONNECTING,
            first_byte_timeout: PATIENCE,
            retries: 0,
            ..Settings::new(vec![source.server.clone()])
        };
        let origin = Origin::new(&settings)?;
        Ok(Self { origin, source, version: poll.version.clone() })
    }

    async fn look(&self, known: Option<&HeaderValue>) -> Result<Answer, AskError> {
        let response = self.origin.send(request(&self.source, known), None).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Same),
            StatusCode::PARTIAL_CONTENT => return Err(AskError::Status(response.status())),
            status if !status.is_success() => return Err(AskError::Status(status)),
            _ => {}
        }
        let (head, body) = read(response).await?.into_parts();
        let version = self.version.read(&head.headers, &body)?;
        let tag = head.headers.get(header::ETAG).filter(|tag| !tag.is_empty()).cloned();
        Ok(version.map_or(Answer::Nothing, |version| Answer::Version(version, tag)))
    }
}

fn request(source: &Source, known: Option<&HeaderValue>) -> Request<RequestBody> {
    let agent = concat!("larder/", env!("CARGO_PKG_VERSION"));
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = source.target.clone();
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
    // A cache on the way has to ask whether what it holds is still so.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(tag) = known {
        headers.insert(header::IF_NONE_MATCH, tag.clone());
    }
    if let Some(authorization) = &source.authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    request
}

async fn read(response: Response<ResponseBody>) -> Result<Response<bytes::Bytes>, AskError> {
    let (head, body) = response.into_parts();
    match Limited::new(body, LARGEST).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(AskError::TooLarge),
        Err(error) => Err(AskError::Broken(error)),
    }
}

#[cfg(test)]
mod tests;

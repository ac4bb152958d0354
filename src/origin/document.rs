//! A client for small documents on other servers, such as data versions and key sets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    Origin, OriginError, RequestBody, ResponseBody, SetupError, document_url::DocumentUrl,
    settings::Settings,
};

/// Maximum size of a document, in bytes.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 1 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a document could not be fetched. `Display` is for the log.
#[derive(Debug, Error)]
pub(crate) enum DocumentError {
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("the response took too long")]
    TimedOut,
    /// The status is neither a success nor a `304`, or it is `206`. Redirects are not followed.
    #[error("unexpected status {0}")]
    Status(StatusCode),
    #[error("the response is larger than 1 MiB")]
    TooLarge,
    #[error("the response ended early: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// A client for one document. Reuses its connections.
pub(crate) struct DocumentClient {
    origin: Arc<Origin>,
    url: DocumentUrl,
    timeout: Duration,
}

impl DocumentClient {
    /// Creates a client that waits at most `limit` for a whole response. Must be called on the
    /// runtime that will use it.
    pub(crate) fn new(url: &DocumentUrl, limit: Duration) -> Result<Self, SetupError> {
        let settings = Settings {
            connect_timeout: CONNECT_TIMEOUT.min(limit),
            first_byte_timeout: limit,
            retries: 0,
            ..Settings::new(vec![url.server.clone()])
        };
        Ok(Self { origin: Origin::new(&settings)?, url: url.clone(), timeout: limit })
    }

    /// Sends a `GET` with these additional fields. Returns a successful response with its whole
    /// body, or a `304`.
    pub(crate) async fn get(&self, fields: HeaderMap) -> Result<Response<Bytes>, DocumentError> {
        timeout(self.timeout, self.exchange(fields)).await.map_err(|_| DocumentError::TimedOut)?
    }

    async fn exchange(&self, fields: HeaderMap) -> Result<Response<Bytes>, DocumentError> {
        let response = self.origin.send(self.request(fields), None).await;
        let response = response.map_err(|failure| failure.error)?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(response.map(|_| Bytes::new())),
            StatusCode::PARTIAL_CONTENT => Err(DocumentError::Status(response.status())),
            status if !status.is_success() => Err(DocumentError::Status(status)),
            _ => read(response).await,
        }
    }

    fn request(&self, fields: HeaderMap) -> Request<RequestBody> {
        let agent = concat!("larder/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.url.target.clone();
        let headers = request.headers_mut();
        *headers = fields;
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        // Makes caches on the path revalidate the document.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(authorization) = &self.url.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }
}

async fn read(response: Response<ResponseBody>) -> Result<Response<Bytes>, DocumentError> {
    let (head, body) = response.into_parts();
    match Limited::new(body, MAX_DOCUMENT_BYTES).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(DocumentError::TooLarge),
        Err(error) => Err(DocumentError::Broken(error)),
    }
}

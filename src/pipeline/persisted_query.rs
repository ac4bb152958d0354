//! The response to a GraphQL request by a hash whose document is not known here.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::graphql::UnpersistedRequest;

/// Returns the response that makes a client send the document, as servers send it.
///
/// Scripts of other origins may read it: it says nothing about anybody. Whether they may ask for data
/// is up to the origin, which gets what they send next.
pub(super) fn response(asked: UnpersistedRequest, request: &HeaderMap) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(asked.response()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if let Some(origin) = request.get(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

//! The response to a GraphQL request that names its document by a hash unknown to this node.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::graphql::UnpersistedRequest;

/// Returns the response that makes a client send the document, in the form that servers use.
///
/// Scripts of other web origins may read the response, since it contains no user data. The origin
/// server decides whether they may read the response to their next request.
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

//! A call of the admin API.

use http::HeaderMap;

/// A request to the admin API, after routing and authorization.
pub(super) struct AdminCall<'a> {
    /// The values of the path parameters, still percent-encoded.
    pub(super) parameters: Vec<&'a str>,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

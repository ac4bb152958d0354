//! What the policy sees of a request and of the response to it.

use http::{HeaderMap, Method, StatusCode};

use super::Credentials;
use crate::field::Timestamp;

/// A request without its content.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// Host and optional port that the client asked.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The fields as the client sent them.
    pub headers: &'a HeaderMap,
    /// What it says about who asks.
    pub credentials: Credentials,
}

/// A final response without its content, as it came from the origin.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The status.
    pub status: StatusCode,
    /// All its fields, `Age` and `Set-Cookie` too.
    pub headers: &'a HeaderMap,
    /// When the request was sent.
    pub requested_at: Timestamp,
    /// When these fields had arrived.
    pub received_at: Timestamp,
}

//! The heads of a request and its response, as the policy reads them.

use http::{HeaderMap, Method, StatusCode};

use super::Credentials;
use crate::field::Timestamp;

/// A request without its content.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The request method.
    pub method: &'a Method,
    /// Requested host and optional port.
    pub authority: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Fields as the client sent them.
    pub headers: &'a HeaderMap,
    /// Credentials in the request.
    pub credentials: Credentials,
}

/// A final response from the origin, without its content.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: StatusCode,
    /// All fields, including `Age` and `Set-Cookie`.
    pub headers: &'a HeaderMap,
    /// Time at which the request was sent.
    pub requested_at: Timestamp,
    /// Time at which all fields had arrived.
    pub received_at: Timestamp,
}

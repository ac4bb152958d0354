//! Problem documents: the only place that turns failures into responses to clients.

use http::StatusCode;

use crate::{
    origin::{OriginError, UploadFailure},
    problem::Problem,
};

/// Returns the problem document for an origin that did not respond: `504` if it timed out, `503` if
/// all connections to it are in use, otherwise `502`. If the client's own body was the cause,
/// describes the body instead.
///
/// The document contains no address and no internal cause. Both are in the log.
pub(super) fn origin_error(error: &OriginError) -> Problem {
    if let OriginError::RequestBody(failure) = error {
        return upload_failure(*failure);
    }
    if matches!(error, OriginError::Overloaded { .. }) {
        let detail = "All connections to the API behind this proxy are in use. Try again later.";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The origin is busy", detail);
        return Problem { retry_after: Some(BUSY_SECONDS), ..problem };
    }
    if error.is_timeout() {
        let detail = "The API behind this proxy did not respond in time. Try again later.";
        return Problem::new(StatusCode::GATEWAY_TIMEOUT, "The origin is too slow", detail);
    }
    let detail = "The API behind this proxy could not be reached. Try again later.";
    Problem::new(StatusCode::BAD_GATEWAY, "The origin is unavailable", detail)
}

/// The value of `Retry-After` if all connections to the origin are in use.
const BUSY_SECONDS: u32 = 1;

/// Returns the problem document for a follower of a fetch that ended with an error response which
/// must not be shared.
pub(super) fn shared_origin_error(status: StatusCode, retry_after: Option<u32>) -> Problem {
    let detail = "The API behind this proxy failed. Try again later.";
    Problem { retry_after, ..Problem::new(status, "The origin failed", detail) }
}

/// Returns the problem document for a request body that could not be forwarded.
fn upload_failure(failure: UploadFailure) -> Problem {
    let (status, title, detail) = match failure {
        UploadFailure::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "Content too large",
            "The request's content exceeds the limit.",
        ),
        UploadFailure::TimedOut => (
            StatusCode::REQUEST_TIMEOUT,
            "The request is too slow",
            "The request's content did not arrive in time. Send it again.",
        ),
        UploadFailure::Broken => (
            StatusCode::BAD_REQUEST,
            "Invalid content",
            "The request's content is truncated or malformed. Send it again.",
        ),
    };
    Problem::new(status, title, detail)
}

/// Returns the problem document for an internal error.
pub(super) fn internal_error() -> Problem {
    let detail = "This proxy failed to process the request. Try again; its log has details.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The proxy failed", detail)
}

/// Returns the problem document for `only-if-cached` without a stored response (RFC 9111 §5.2.1.7).
pub(super) fn only_if_cached() -> Problem {
    let detail = "No stored response is usable, and the request says only-if-cached.";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "Not in the cache", detail)
}

/// Returns the problem document for a host that is not served (RFC 9110 §15.5.20).
pub(super) fn misdirected() -> Problem {
    let detail =
        "This proxy does not serve the requested host. The setting `hosts` lists those it serves.";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "Host not served", detail)
}

/// Returns the problem document if the limit on tunnels is reached.
pub(super) fn too_many_tunnels() -> Problem {
    let detail =
        "The limit on open WebSockets and other upgraded connections is reached. Try again later.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too many tunnels", detail)
}

/// Returns the problem document if the memory for request bodies is full.
pub(super) fn too_many_bodies() -> Problem {
    let detail = "The memory for the bodies of GraphQL requests is full. Try again later.";
    let title = "Too many request bodies";
    Problem { retry_after: Some(1), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, detail) }
}

/// Returns the problem document for a forwarding loop (RFC 5842 §7.2).
pub(super) fn loop_detected() -> Problem {
    let detail = "This request has already passed through this proxy. Check that the origin's address \
                  does not lead back to it.";
    Problem::new(StatusCode::LOOP_DETECTED, "Forwarding loop", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault_it_was_is_in_the_status() {
        for (error, status) in [
            (OriginError::NoHealthyServer, 502),
            (OriginError::Overloaded { server: "a".into(), limit: 1 }, 503),
            (OriginError::FirstByteTimeout { server: "a".into() }, 504),
            (OriginError::RequestBody(UploadFailure::TooLarge), 413),
            (OriginError::RequestBody(UploadFailure::TimedOut), 408),
            (OriginError::RequestBody(UploadFailure::Broken), 400),
        ] {
            assert_eq!(origin_error(&error).status, status, "{error}");
        }
    }
}

//! Causes into responses: the one place where a failure becomes what a client reads.

use http::StatusCode;

use crate::{
    origin::{OriginError, UploadFailure},
    problem::Problem,
};

/// The problem document for a request that got no response from the origin: `504` if it was too slow, `503` if
/// it has no connection to spare, else `502`; and what is wrong with the client's own request body, if that
/// is why.
/// Names no address and no cause that an outsider has no use for; those are in the log.
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
        let detail = "The API behind this proxy did not answer in time. Try again later.";
        return Problem::new(StatusCode::GATEWAY_TIMEOUT, "The origin is too slow", detail);
    }
    let detail = "The API behind this proxy could not be reached. Try again later.";
    Problem::new(StatusCode::BAD_GATEWAY, "The origin is unavailable", detail)
}

/// When a client may try again that found all connections to the origin in use.
const BUSY_SECONDS: u32 = 1;

/// What a client is told whose request waited for another one's, to which the origin responded with an error
/// that is not for others.
pub(super) fn shared_origin_error(status: StatusCode, retry_after: Option<u32>) -> Problem {
    let detail = "The API behind this proxy failed. Try again later.";
    Problem { retry_after, ..Problem::new(status, "The origin failed", detail) }
}

/// What a client is told whose request body could not be passed on whole.
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
            "The request's content stopped coming before its end. Send it again.",
        ),
        UploadFailure::Broken => (
            StatusCode::BAD_REQUEST,
            "Broken content",
            "The request's content broke off or is malformed. Send it again, whole.",
        ),
    };
    Problem::new(status, title, detail)
}

/// What a client is told whose request Larder itself failed.
pub(super) fn internal_error() -> Problem {
    let detail = "This proxy failed to answer. Try again; its log says more.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The proxy failed", detail)
}

/// What a client is told that asked for a stored response only (RFC 9111 §5.2.1.7).
pub(super) fn only_if_cached() -> Problem {
    let detail = "Nothing stored answers this request, and it says only-if-cached.";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "Not in the cache", detail)
}

/// What a client is told that asks for a host which is not served here (RFC 9110 §15.5.20).
pub(super) fn misdirected() -> Problem {
    let detail =
        "This proxy serves other hosts only: those that its configuration lists as `hosts`.";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "No such host here", detail)
}

/// What a client is told whose request would open one tunnel too many.
pub(super) fn too_many_tunnels() -> Problem {
    let detail = "As many WebSockets and other upgrades are open as may be. Try again later.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Too many tunnels", detail)
}

/// What a client is told whose request comes round in a circle (RFC 5842 §7.2).
pub(super) fn loop_detected() -> Problem {
    let detail = "This request has been through this proxy before. Check that the origin's address \
                  does not lead back to it.";
    Problem::new(StatusCode::LOOP_DETECTED, "The request goes in a circle", detail)
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

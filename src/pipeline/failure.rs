//! Causes into responses: the one place where a failure becomes what a client reads.

use http::StatusCode;

use crate::{origin::OriginError, problem::Problem};

/// What a client is told when the origin gave no answer: `504` where it was too slow, else `502`.
/// Names no address and no cause that an outsider has no use for; those are in the log.
pub fn of_origin(error: &OriginError) -> Problem {
    if error.is_timeout() {
        let detail = "The API behind this proxy did not answer in time. Try again later.";
        return Problem::new(StatusCode::GATEWAY_TIMEOUT, "The origin is too slow", detail);
    }
    let detail = "The API behind this proxy could not be reached. Try again later.";
    Problem::new(StatusCode::BAD_GATEWAY, "The origin is unavailable", detail)
}

/// What a client is told whose request Larder itself failed.
pub fn of_larder() -> Problem {
    let detail = "This proxy failed to answer. Try again; its log says more.";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The proxy failed", detail)
}

/// What a client is told that asked for a stored response only (RFC 9111 §5.2.1.7).
pub fn only_if_cached() -> Problem {
    let detail = "Nothing stored answers this request, and it says only-if-cached.";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "Not in the cache", detail)
}

/// What a client is told whose request comes round in a circle (RFC 5842 §7.2).
pub fn of_loop() -> Problem {
    let detail = "This request has been through this proxy before. Check that the origin's address \
                  does not lead back to it.";
    Problem::new(StatusCode::LOOP_DETECTED, "The request goes in a circle", detail)
}

//! What an HTTP/2 error means for a request.

use h2::Reason;

/// Returns whether the origin has not processed the request, because its stream is above the last
/// stream in a GOAWAY (RFC 9113 §6.8) or was refused (§8.7).
pub(in crate::origin) fn is_unprocessed(error: &h2::Error) -> bool {
    (error.is_remote() && error.is_go_away()) || is_refusal(error)
}

/// Returns whether the origin refused the stream. Other streams on the same connection would be
/// refused as well.
pub(in crate::origin) fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)
}

/// Returns whether the origin violated the protocol or exceeded a limit.
pub(in crate::origin) fn is_violation(error: &h2::Error) -> bool {
    error.is_library() && error.reason() != Some(Reason::NO_ERROR)
}

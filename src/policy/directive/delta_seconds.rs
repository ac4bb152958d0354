//! Numbers of seconds in directives (RFC 9111 §1.2.2).

/// Upper limit of delta-seconds (RFC 9111 §1.2.2).
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// Parses delta-seconds, clamped to 2^31. Returns `None` if the number is invalid. Signs,
/// fractions, letters and quotes make a number invalid; pass a quoted argument without its quotes.
pub(crate) fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut seconds: u32 = 0;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        seconds = seconds.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
    }
    Some(seconds.min(MAX_DELTA_SECONDS))
}

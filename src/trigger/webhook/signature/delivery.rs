//! The checks that all signature schemes share.

use std::time::Duration;

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use http::{HeaderMap, HeaderName};
use thiserror::Error;

use crate::field::Timestamp;

/// The maximum number of digests read from one delivery. Rotation of secrets needs fewer.
pub(super) const MAX_DIGESTS: usize = 8;

/// The parts of a delivery that signature schemes check.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The body, exactly as sent.
    pub body: &'a [u8],
    /// The time of arrival.
    pub now: Timestamp,
}

/// The reasons why a signature was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// A required field is missing or unreadable.
    #[error("the field `{0}` is missing or unreadable")]
    MissingField(HeaderName),
    /// The signature was made with another secret or for another body.
    #[error("the signature does not match the body and the secret")]
    Mismatch,
    /// The signing time is too long ago, or in the future.
    #[error("it was signed too long ago, or the sender's clock is wrong")]
    Timestamp,
}

/// Verifies that one of the digests is an HMAC of the output of `write` under one of the keys.
pub(super) fn verify_digests(
    keys: &[hmac::Key],
    digests: &[Vec<u8>],
    write: impl Fn(&mut hmac::Context),
) -> Result<(), SignatureError> {
    let sign = |key: &hmac::Key| {
        let mut context = hmac::Context::with_key(key);
        write(&mut context);
        context.sign()
    };
    let expected: Vec<hmac::Tag> = keys.iter().map(sign).collect();
    let digests: Vec<&[u8]> = digests.iter().map(Vec::as_slice).collect();
    verify_any_equal(expected.iter().map(AsRef::as_ref), &digests)
}

/// Verifies that a given value equals an expected value. Compares every pair in constant time.
pub(super) fn verify_any_equal<'a>(
    expected: impl Iterator<Item = &'a [u8]>,
    given: &[&[u8]],
) -> Result<(), SignatureError> {
    let is_equal = expected.fold(false, |found, expected| {
        given
            .iter()
            .fold(found, |found, given| found | verify_slices_are_equal(expected, given).is_ok())
    });
    if is_equal { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Returns the value of a required field, or an error if the field is missing or unreadable.
pub(super) fn required_field<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<&'a str, SignatureError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.map(str::trim).ok_or_else(|| SignatureError::MissingField(name.clone()))
}

/// Checks that a time is within the tolerance. `header` is the field that contains the time.
pub(super) fn check_timestamp(
    text: &str,
    now: Timestamp,
    tolerance: Duration,
    header: &HeaderName,
) -> Result<(), SignatureError> {
    let signed =
        parse_timestamp(text).ok_or_else(|| SignatureError::MissingField(header.clone()))?;
    let apart = now.millis().abs_diff(signed);
    if u128::from(apart) <= tolerance.as_millis() { Ok(()) } else { Err(SignatureError::Timestamp) }
}

/// Parses seconds or milliseconds, and returns milliseconds. A number counts as milliseconds if it
/// would be past the year 5000 in seconds.
fn parse_timestamp(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_number)?;
    if number < 100_000_000_000 { number.checked_mul(1000) } else { Some(number) }
}

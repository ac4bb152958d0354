//! Verifies that the sender of a delivery has the secret. Pure.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, header};
use thiserror::Error;

use crate::{field::Timestamp, trigger::access};

mod standard;
mod stripe;

pub use standard::StandardWebhooks;
pub use stripe::Stripe;

/// The number of digests read from one delivery. Rotating secrets takes fewer.
const MAX_DIGESTS: usize = 8;

/// The signature scheme of a webhook.
///
/// Every scheme accepts several secrets, so that they can be rotated without a gap. It tries each
/// of them and compares in constant time.
#[derive(Clone)]
pub enum SignatureScheme {
    /// The secret itself, in a field.
    Bearer(BearerSecret),
    /// A keyed digest of the body, and optionally of the time.
    Hmac(HmacScheme),
    /// Standard Webhooks: a digest of the delivery's id, time and body.
    Standard(StandardWebhooks),
    /// Stripe: time and digests share a field.
    Stripe(Stripe),
}

/// A secret that is sent in a field.
#[derive(Clone)]
pub struct BearerSecret {
    header: HeaderName,
    secrets: Vec<Box<[u8]>>,
}

/// A keyed digest (RFC 2104) in a configurable field.
#[derive(Clone)]
pub struct HmacScheme {
    format: HmacFormat,
    keys: Vec<hmac::Key>,
}

/// The signed content, the hash function, and the location of the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacFormat {
    /// The field with one or more digests, separated by commas or spaces.
    pub header: HeaderName,
    /// The prefix of a digest, such as `sha256=`. Digests without it are ignored.
    pub prefix: Box<str>,
    /// The encoding of the digest.
    pub encoding: Encoding,
    /// The hash function.
    pub algorithm: Algorithm,
    /// The signed content.
    pub signed: SigningTemplate,
    /// The field with the signing time. Without one, a delivery can be replayed at any time.
    pub time: Option<TimestampHeader>,
}

/// The encoding of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two hexadecimal digits a byte, in either case.
    Hex,
    /// RFC 4648 §4 or §5, with or without padding.
    Base64,
}

/// The hash function of a keyed digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1. Secure in an HMAC, and used by older senders.
    Sha1,
    Sha256,
    Sha512,
}

/// The signing time of a delivery and its tolerance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampHeader {
    /// The field with the time, in seconds or milliseconds since the Unix epoch.
    pub header: HeaderName,
    /// The largest accepted difference from the current time, in both directions.
    pub tolerance: Duration,
}

/// A template of the signed content: the body, and literals around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningTemplate(Box<[SignedPart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedPart {
    Literal(Box<str>),
    Timestamp,
    Body,
}

/// The errors in a template of signed content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningTemplateError {
    /// The body is missing or appears twice.
    #[error("the signed content has to contain the body exactly once, as `{{body}}`")]
    Body,
    /// A placeholder is unknown.
    #[error("unknown placeholder; use `{{body}}` and `{{timestamp}}`")]
    Unknown,
}

/// The parts of a delivery that signatures cover.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    pub headers: &'a HeaderMap,
    /// The body, byte by byte as sent.
    pub body: &'a [u8],
    /// The time of arrival.
    pub now: Timestamp,
}

/// What the fields of a delivery prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProof {
    /// The sender has the secret.
    Complete,
    /// Nothing yet. The signature has to match the body.
    NeedsBody,
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
    /// The delivery was signed too long ago, or in the future.
    #[error("it was signed too long ago, or the sender's clock is wrong")]
    Timestamp,
}

impl SignatureScheme {
    /// Creates a scheme for a secret in `Authorization: Bearer`, or as the whole value of another
    /// field.
    pub fn bearer(header: HeaderName, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|secret| secret.as_bytes().into()).collect();
        Self::Bearer(BearerSecret { header, secrets })
    }

    /// Creates a scheme for keyed digests.
    pub fn hmac(format: HmacFormat, secrets: &[&str]) -> Self {
        let algorithm = format.algorithm.algorithm();
        let key = |secret: &&str| hmac::Key::new(algorithm, secret.as_bytes());
        Self::Hmac(HmacScheme { keys: secrets.iter().map(key).collect(), format })
    }

    /// Verifies the fields of a delivery before its body is read.
    ///
    /// Fails if the signature is missing or too old.
    pub fn verify_fields(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<HeaderProof, SignatureError> {
        let delivery = Delivery { headers, body: &[], now };
        match self {
            Self::Bearer(bearer) => bearer.verify(headers).map(|()| HeaderProof::Complete),
            Self::Hmac(hmac) => hmac.fields(&delivery).map(|_| HeaderProof::NeedsBody),
            Self::Standard(standard) => standard.fields(&delivery).map(|_| HeaderProof::NeedsBody),
            Self::Stripe(stripe) => stripe.fields(&delivery).map(|_| HeaderProof::NeedsBody),
        }
    }

    /// Verifies that a delivery was signed with one of the secrets.
    pub fn verify(&self, delivery: &Delivery<'_>) -> Result<(), SignatureError> {
        match self {
            Self::Bearer(bearer) => bearer.verify(delivery.headers),
            Self::Hmac(hmac) => hmac.verify(delivery),
            Self::Standard(standard) => standard.verify(delivery),
            Self::Stripe(stripe) => stripe.verify(delivery),
        }
    }
}

impl fmt::Debug for SignatureScheme {
    /// Hides the secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(bearer) => formatter.debug_tuple("Bearer").field(&bearer.header).finish(),
            Self::Hmac(hmac) => formatter.debug_tuple("Hmac").field(&hmac.format).finish(),
            Self::Standard(_) => formatter.write_str("Standard"),
            Self::Stripe(_) => formatter.write_str("Stripe"),
        }
    }
}

impl BearerSecret {
    fn verify(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let given = if self.header == header::AUTHORIZATION {
            access::bearer_token(headers)
        } else {
            headers.get(&self.header).map(|value| value.as_bytes().trim_ascii())
        };
        let given = given.ok_or_else(|| SignatureError::MissingField(self.header.clone()))?;
        verify_any_equal(self.secrets.iter().map(|secret| &**secret), &[given])
    }
}

impl HmacScheme {
    /// Returns the digests and the time in the fields of a delivery.
    fn fields<'a>(
        &self,
        delivery: &Delivery<'a>,
    ) -> Result<(Vec<Vec<u8>>, &'a str), SignatureError> {
        let digests = self.digests(delivery.headers);
        if digests.is_empty() {
            return Err(SignatureError::MissingField(self.format.header.clone()));
        }
        let timestamp = match &self.format.time {
            None => "",
            Some(time) => time.check(delivery)?,
        };
        Ok((digests, timestamp))
    }

    fn verify(&self, delivery: &Delivery<'_>) -> Result<(), SignatureError> {
        let (digests, timestamp) = self.fields(delivery)?;
        verify_digests(&self.keys, &digests, |context| {
            self.format.signed.write(timestamp, delivery.body, |bytes| context.update(bytes));
        })
    }

    /// Returns the digests in the field.
    fn digests(&self, headers: &HeaderMap) -> Vec<Vec<u8>> {
        let lines =
            headers.get_all(&self.format.header).iter().filter_map(|line| line.to_str().ok());
        let members = lines.flat_map(|line| line.split([',', ' '])).map(str::trim);
        members
            .filter_map(|member| member.strip_prefix(&*self.format.prefix))
            .filter_map(|digest| self.format.encoding.decode(digest))
            .take(MAX_DIGESTS)
            .collect()
    }
}

/// Verifies that one of the digests is the digest of `write`'s output under one of the keys.
fn verify_digests(
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

/// Compares every pair in constant time.
fn verify_any_equal<'a>(
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

impl TimestampHeader {
    /// Returns the time as the sender wrote it. Fails if it is out of tolerance.
    fn check<'a>(&self, delivery: &Delivery<'a>) -> Result<&'a str, SignatureError> {
        let text = required_field(delivery.headers, &self.header)?;
        check_timestamp(text, delivery.now, self.tolerance, &self.header)?;
        Ok(text)
    }
}

/// Returns the value of a required field.
fn required_field<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<&'a str, SignatureError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.map(str::trim).ok_or_else(|| SignatureError::MissingField(name.clone()))
}

/// Checks that a time is within the tolerance. `header` is its field.
fn check_timestamp(
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

/// Parses seconds or milliseconds. Numbers that count as milliseconds would be past the year 5000
/// in seconds.
fn parse_timestamp(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_number)?;
    if number < 100_000_000_000 { number.checked_mul(1000) } else { Some(number) }
}

impl SigningTemplate {
    /// Parses a template such as `{body}`, `{timestamp}.{body}`, `v0:{timestamp}:{body}`.
    pub fn parse(text: &str) -> Result<Self, SigningTemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(SigningTemplateError::Unknown)?;
            if !literal.is_empty() {
                parts.push(SignedPart::Literal(literal.into()));
            }
            parts.push(match name {
                "body" => SignedPart::Body,
                "timestamp" => SignedPart::Timestamp,
                _ => return Err(SigningTemplateError::Unknown),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(SignedPart::Literal(rest.into()));
        }
        let bodies = parts.iter().filter(|part| **part == SignedPart::Body).count();
        if bodies == 1 { Ok(Self(parts.into())) } else { Err(SigningTemplateError::Body) }
    }

    /// Creates a template of these parts, one of which is the body.
    pub(super) fn of(parts: impl Into<Box<[SignedPart]>>) -> Self {
        Self(parts.into())
    }

    /// Returns true if the time is signed as well.
    pub fn has_timestamp(&self) -> bool {
        self.0.contains(&SignedPart::Timestamp)
    }

    fn write(&self, timestamp: &str, body: &[u8], mut update: impl FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                SignedPart::Literal(text) => update(text.as_bytes()),
                SignedPart::Timestamp => update(timestamp.as_bytes()),
                SignedPart::Body => update(body),
            }
        }
    }
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// Returns the name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Hex, Self::Base64];

    /// Returns the name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// Decodes a digest. `None` if the text is empty or not in this encoding.
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => decode_hex(text.as_bytes()),
            Self::Base64 => decode_base64(text),
        }
        .filter(|bytes| !bytes.is_empty())
    }
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect()
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(standard).ok()
}

#[cfg(test)]
mod tests;

//! How a delivery proves that it comes from somebody who knows the secret. Pure.

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

/// More digests than this in one delivery are no rotation of secrets.
const MAX_DIGESTS: usize = 8;

/// The proof that one webhook demands.
///
/// Each way of proving is a variant. All of them take several secrets, so that they can be exchanged
/// without a gap, try every one of them, and compare in constant time.
#[derive(Clone)]
pub enum SignatureScheme {
    /// The secret itself is sent along.
    Bearer(BearerSecret),
    /// A keyed digest of the body, and of the time it was made.
    Hmac(HmacScheme),
    /// Standard Webhooks: the delivery's id and time are signed with the body.
    Standard(StandardWebhooks),
    /// Stripe: the time and the digests share a field.
    Stripe(Stripe),
}

/// A secret that is sent along.
#[derive(Clone)]
pub struct BearerSecret {
    header: HeaderName,
    secrets: Vec<Box<[u8]>>,
}

/// A keyed digest (RFC 2104) in a field of the sender's choice.
#[derive(Clone)]
pub struct HmacScheme {
    format: HmacFormat,
    keys: Vec<hmac::Key>,
}

/// What is digested, by which function, and where the digest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacFormat {
    /// The field with the digest, or with several of them, separated by commas or spaces.
    pub header: HeaderName,
    /// What stands before a digest, as in `sha256=`. A digest without it does not count.
    pub prefix: Box<str>,
    /// How a digest is written.
    pub encoding: Encoding,
    /// Of which hash function.
    pub algorithm: Algorithm,
    /// What is digested.
    pub signed: SigningTemplate,
    /// How the sender tells when it signed; without, a delivery can be repeated for ever.
    pub time: Option<TimestampHeader>,
}

/// How bytes are written in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Two digits a byte, in either case.
    Hex,
    /// RFC 4648 §4 or §5, with or without padding.
    Base64,
}

/// The hash function of a keyed digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1; sound in an HMAC, and what older senders have.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// When a delivery was signed, and how long ago that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampHeader {
    /// The field with the time, in seconds or milliseconds since the Unix epoch.
    pub header: HeaderName,
    /// How far it may be from now, in both directions.
    pub tolerance: Duration,
}

/// A template of what is digested: the body, and what stands around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningTemplate(Box<[SignedPart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SignedPart {
    Literal(Box<str>),
    Timestamp,
    Body,
}

/// What is wrong with a template of what is digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningTemplateError {
    /// The body is not signed, or twice.
    #[error("what is signed holds the body once, as `{{body}}`")]
    Body,
    /// A placeholder that means nothing.
    #[error("the placeholders are `{{body}}` and `{{timestamp}}`")]
    Unknown,
}

/// A delivery as its signature sees it.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Its body, byte by byte as sent.
    pub body: &'a [u8],
    /// When it came.
    pub now: Timestamp,
}

/// What the fields of a delivery verify_digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProof {
    /// That its sender knows the secret.
    Complete,
    /// Nothing yet: there is a signature, which the body has to match.
    NeedsBody,
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// A field that the proof takes is missing, or cannot be read.
    #[error("the field `{0}` is missing or not readable")]
    MissingField(HeaderName),
    /// The proof was made with another secret, or for another body.
    #[error("the signature does not match the body and the secret")]
    Mismatch,
    /// It was signed too long ago, or too far in the future.
    #[error("it was signed too long ago, or its clock is wrong")]
    Timestamp,
}

impl SignatureScheme {
    /// The secret in `Authorization: Bearer`, or as the whole value of another field.
    pub fn bearer(header: HeaderName, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|secret| secret.as_bytes().into()).collect();
        Self::Bearer(BearerSecret { header, secrets })
    }

    /// A keyed digest under these secrets.
    pub fn hmac(format: HmacFormat, secrets: &[&str]) -> Self {
        let algorithm = format.algorithm.algorithm();
        let key = |secret: &&str| hmac::Key::new(algorithm, secret.as_bytes());
        Self::Hmac(HmacScheme { keys: secrets.iter().map(key).collect(), format })
    }

    /// Checks what a delivery proves by its fields alone, before its body is read: that there is a signature,
    /// and that it is not too old.
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

    /// Whether a delivery comes from somebody who knows one of the secrets.
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
    /// Shows no secret.
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
    /// The digests and the time in the fields of a delivery.
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

    /// The digests that the sender gives.
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

/// Whether one of these digests is that of what `write` writes, under one of these keys.
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
    /// The time as the sender writes it, if it is near enough to now.
    fn check<'a>(&self, delivery: &Delivery<'a>) -> Result<&'a str, SignatureError> {
        let text = required_field(delivery.headers, &self.header)?;
        check_timestamp(text, delivery.now, self.tolerance, &self.header)?;
        Ok(text)
    }
}

/// The value of a field that has to be there.
fn required_field<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<&'a str, SignatureError> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.map(str::trim).ok_or_else(|| SignatureError::MissingField(name.clone()))
}

/// Whether a time is near enough to now. `header` is the field that it stands in.
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

/// Reads seconds or milliseconds; in seconds, what is taken for milliseconds lies beyond the year 5000.
fn parse_timestamp(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_number)?;
    if number < 100_000_000_000 { number.checked_mul(1000) } else { Some(number) }
}

impl SigningTemplate {
    /// Reads `{body}`, `{timestamp}.{body}`, `v0:{timestamp}:{body}`.
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

    /// These parts, one of which is the body.
    pub(super) fn of(parts: impl Into<Box<[SignedPart]>>) -> Self {
        Self(parts.into())
    }

    /// Whether the time is signed as well.
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
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// The function as the configuration spells it.
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
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Hex, Self::Base64];

    /// The encoding as the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }

    /// The bytes that a text stands for; none where it is not in this encoding, or empty.
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

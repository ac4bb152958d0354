//! How a delivery proves that it comes from somebody who knows the secret. Pure.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, header};
use thiserror::Error;

use crate::{field::Timestamp, trigger::access};

mod standard;
mod stripe;

pub use standard::Standard;
pub use stripe::Stripe;

/// More digests than this in one delivery are no rotation of secrets.
const MOST_DIGESTS: usize = 8;

/// The proof that one webhook demands.
///
/// Each way of proving is a variant. All of them take several secrets, so that they can be exchanged
/// without a gap, try every one of them, and compare in constant time.
#[derive(Clone)]
pub enum Scheme {
    /// The secret itself is sent along.
    Bearer(Bearer),
    /// A keyed digest of the body, and of the time it was made.
    Hmac(Hmac),
    /// Standard Webhooks: the delivery's id and time are signed with the body.
    Standard(Standard),
    /// Stripe: the time and the digests share a field.
    Stripe(Stripe),
}

/// A secret that is sent along.
#[derive(Clone)]
pub struct Bearer {
    header: HeaderName,
    secrets: Vec<Box<[u8]>>,
}

/// A keyed digest (RFC 2104) in a field of the sender's choice.
#[derive(Clone)]
pub struct Hmac {
    form: HmacForm,
    keys: Vec<hmac::Key>,
}

/// What is digested, by which function, and where the digest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacForm {
    /// The field with the digest, or with several of them, separated by commas or spaces.
    pub header: HeaderName,
    /// What stands before a digest, as in `sha256=`. A digest without it does not count.
    pub prefix: Box<str>,
    /// How a digest is written.
    pub encoding: Encoding,
    /// Of which hash function.
    pub algorithm: Algorithm,
    /// What is digested.
    pub signed: Signed,
    /// How the sender tells when it signed; without, a delivery can be repeated for ever.
    pub time: Option<SignedAt>,
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
pub struct SignedAt {
    /// The field with the time, in seconds or milliseconds since the Unix epoch.
    pub header: HeaderName,
    /// How far it may be from now, in both directions.
    pub tolerance: Duration,
}

/// A template of what is digested: the body, and what stands around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<str>),
    Timestamp,
    Body,
}

/// What is wrong with a template of what is digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignedError {
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

/// What the fields of a delivery prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// That its sender knows the secret.
    Complete,
    /// Nothing yet: there is a signature, which the body has to match.
    InBody,
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unproven {
    /// A field that the proof takes is missing, or cannot be read.
    #[error("the field `{0}` is missing or not readable")]
    Field(HeaderName),
    /// The proof was made with another secret, or for another body.
    #[error("the signature does not match the body and the secret")]
    Mismatch,
    /// It was signed too long ago, or too far in the future.
    #[error("it was signed too long ago, or its clock is wrong")]
    Time,
}

impl Scheme {
    /// The secret in `Authorization: Bearer`, or as the whole value of another field.
    pub fn bearer(header: HeaderName, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|secret| secret.as_bytes().into()).collect();
        Self::Bearer(Bearer { header, secrets })
    }

    /// A keyed digest under these secrets.
    pub fn hmac(form: HmacForm, secrets: &[&str]) -> Self {
        let algorithm = form.algorithm.algorithm();
        let key = |secret: &&str| hmac::Key::new(algorithm, secret.as_bytes());
        Self::Hmac(Hmac { keys: secrets.iter().map(key).collect(), form })
    }

    /// Checks what a delivery proves by its fields alone, before its body is read: that there is a signature,
    /// and that it is not too old.
    pub fn verify_fields(&self, headers: &HeaderMap, now: Timestamp) -> Result<Proof, Unproven> {
        let delivery = Delivery { headers, body: &[], now };
        match self {
            Self::Bearer(bearer) => bearer.verify(headers).map(|()| Proof::Complete),
            Self::Hmac(hmac) => hmac.fields(&delivery).map(|_| Proof::InBody),
            Self::Standard(standard) => standard.fields(&delivery).map(|_| Proof::InBody),
            Self::Stripe(stripe) => stripe.fields(&delivery).map(|_| Proof::InBody),
        }
    }

    /// Whether a delivery comes from somebody who knows one of the secrets.
    pub fn verify(&self, delivery: &Delivery<'_>) -> Result<(), Unproven> {
        match self {
            Self::Bearer(bearer) => bearer.verify(delivery.headers),
            Self::Hmac(hmac) => hmac.verify(delivery),
            Self::Standard(standard) => standard.verify(delivery),
            Self::Stripe(stripe) => stripe.verify(delivery),
        }
    }
}

impl fmt::Debug for Scheme {
    /// Shows no secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(bearer) => formatter.debug_tuple("Bearer").field(&bearer.header).finish(),
            Self::Hmac(hmac) => formatter.debug_tuple("Hmac").field(&hmac.form).finish(),
            Self::Standard(_) => formatter.write_str("Standard"),
            Self::Stripe(_) => formatter.write_str("Stripe"),
        }
    }
}

impl Bearer {
    fn verify(&self, headers: &HeaderMap) -> Result<(), Unproven> {
        let given = if self.header == header::AUTHORIZATION {
            access::bearer(headers)
        } else {
            headers.get(&self.header).map(|value| value.as_bytes().trim_ascii())
        };
        let given = given.ok_or_else(|| Unproven::Field(self.header.clone()))?;
        any_equal(self.secrets.iter().map(|secret| &**secret), &[given])
    }
}

impl Hmac {
    /// The digests and the time in the fields of a delivery.
    fn fields<'a>(&self, delivery: &Delivery<'a>) -> Result<(Vec<Vec<u8>>, &'a str), Unproven> {
        let digests = self.digests(delivery.headers);
        if digests.is_empty() {
            return Err(Unproven::Field(self.form.header.clone()));
        }
        let timestamp = match &self.form.time {
            None => "",
            Some(time) => time.check(delivery)?,
        };
        Ok((digests, timestamp))
    }

    fn verify(&self, delivery: &Delivery<'_>) -> Result<(), Unproven> {
        let (digests, timestamp) = self.fields(delivery)?;
        prove(&self.keys, &digests, |context| {
            self.form.signed.write(timestamp, delivery.body, |bytes| context.update(bytes));
        })
    }

    /// The digests that the sender gives.
    fn digests(&self, headers: &HeaderMap) -> Vec<Vec<u8>> {
        let lines = headers.get_all(&self.form.header).iter().filter_map(|line| line.to_str().ok());
        let members = lines.flat_map(|line| line.split([',', ' '])).map(str::trim);
        members
            .filter_map(|member| member.strip_prefix(&*self.form.prefix))
            .filter_map(|digest| self.form.encoding.decode(digest))
            .take(MOST_DIGESTS)
            .collect()
    }
}

/// Whether one of these digests is that of what `write` writes, under one of these keys.
fn prove(
    keys: &[hmac::Key],
    digests: &[Vec<u8>],
    write: impl Fn(&mut hmac::Context),
) -> Result<(), Unproven> {
    let sign = |key: &hmac::Key| {
        let mut context = hmac::Context::with_key(key);
        write(&mut context);
        context.sign()
    };
    let expected: Vec<hmac::Tag> = keys.iter().map(sign).collect();
    let digests: Vec<&[u8]> = digests.iter().map(Vec::as_slice).collect();
    any_equal(expected.iter().map(AsRef::as_ref), &digests)
}

/// Compares every pair in constant time.
fn any_equal<'a>(
    expected: impl Iterator<Item = &'a [u8]>,
    given: &[&[u8]],
) -> Result<(), Unproven> {
    let is_equal = expected.fold(false, |found, expected| {
        given
            .iter()
            .fold(found, |found, given| found | verify_slices_are_equal(expected, given).is_ok())
    });
    if is_equal { Ok(()) } else { Err(Unproven::Mismatch) }
}

impl SignedAt {
    /// The time as the sender writes it, if it is near enough to now.
    fn check<'a>(&self, delivery: &Delivery<'a>) -> Result<&'a str, Unproven> {
        let text = field(delivery.headers, &self.header)?;
        check_time(text, delivery.now, self.tolerance, &self.header)?;
        Ok(text)
    }
}

/// The value of a field that has to be there.
fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Unproven> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.map(str::trim).ok_or_else(|| Unproven::Field(name.clone()))
}

/// Whether a time is near enough to now. `header` is the field that it stands in.
fn check_time(
    text: &str,
    now: Timestamp,
    tolerance: Duration,
    header: &HeaderName,
) -> Result<(), Unproven> {
    let signed = millis(text).ok_or_else(|| Unproven::Field(header.clone()))?;
    let apart = now.millis().abs_diff(signed);
    if u128::from(apart) <= tolerance.as_millis() { Ok(()) } else { Err(Unproven::Time) }
}

/// Reads seconds or milliseconds; in seconds, what is taken for milliseconds lies beyond the year 5000.
fn millis(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|_| is_number)?;
    if number < 100_000_000_000 { number.checked_mul(1000) } else { Some(number) }
}

impl Signed {
    /// Reads `{body}`, `{timestamp}.{body}`, `v0:{timestamp}:{body}`.
    pub fn parse(text: &str) -> Result<Self, SignedError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(SignedError::Unknown)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            parts.push(match name {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                _ => return Err(SignedError::Unknown),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        let bodies = parts.iter().filter(|part| **part == Part::Body).count();
        if bodies == 1 { Ok(Self(parts.into())) } else { Err(SignedError::Body) }
    }

    /// These parts, one of which is the body.
    pub(super) fn of(parts: impl Into<Box<[Part]>>) -> Self {
        Self(parts.into())
    }

    /// Whether the time is signed as well.
    pub fn has_timestamp(&self) -> bool {
        self.0.contains(&Part::Timestamp)
    }

    fn write(&self, timestamp: &str, body: &[u8], mut update: impl FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => update(text.as_bytes()),
                Part::Timestamp => update(timestamp.as_bytes()),
                Part::Body => update(body),
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

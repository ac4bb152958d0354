//! Keyed digests in a configurable format.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use super::{
    delivery::{
        Delivery, MAX_DIGESTS, SignatureError, check_timestamp, required_field, verify_digests,
    },
    encoding::Encoding,
    signing_template::SigningTemplate,
};

/// A keyed digest (RFC 2104) in a configurable field.
#[derive(Clone)]
pub struct HmacScheme {
    pub(super) format: HmacFormat,
    keys: Vec<hmac::Key>,
}

/// The signed content, the hash function, and the location of the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacFormat {
    /// The field with one or more digests, separated by commas or spaces.
    pub header: HeaderName,
    /// The prefix of a digest, such as `sha256=`. Digests without the prefix are ignored.
    pub prefix: Box<str>,
    /// The encoding of the digest.
    pub encoding: Encoding,
    /// The hash function.
    pub algorithm: Algorithm,
    /// The signed content.
    pub signed: SigningTemplate,
    /// The field with the signing time; if `None`, a delivery can be replayed at any time.
    pub time: Option<TimestampHeader>,
}

/// The hash function of a keyed digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1, which older senders use; it is secure in an HMAC.
    Sha1,
    Sha256,
    Sha512,
}

/// The field with a delivery's signing time, and the tolerance for this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampHeader {
    /// The field with the time, in seconds or milliseconds since the Unix epoch.
    pub header: HeaderName,
    /// The largest accepted difference from the current time, in both directions.
    pub tolerance: Duration,
}

impl HmacScheme {
    pub(super) fn new(format: HmacFormat, secrets: &[&str]) -> Self {
        let algorithm = format.algorithm.algorithm();
        let key = |secret: &&str| hmac::Key::new(algorithm, secret.as_bytes());
        Self { keys: secrets.iter().map(key).collect(), format }
    }

    /// Returns the digests and the time in the fields of a delivery.
    pub(super) fn fields<'a>(
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

    pub(super) fn verify(&self, delivery: &Delivery<'_>) -> Result<(), SignatureError> {
        let (digests, timestamp) = self.fields(delivery)?;
        verify_digests(&self.keys, &digests, |context| {
            self.format.signed.write(timestamp, delivery.body, |bytes| context.update(bytes));
        })
    }

    /// Returns the digests in a delivery's fields. Skips text without the prefix or in another
    /// encoding.
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

impl TimestampHeader {
    /// Returns the time as the sender wrote it. Fails if the time is outside the tolerance.
    fn check<'a>(&self, delivery: &Delivery<'a>) -> Result<&'a str, SignatureError> {
        let text = required_field(delivery.headers, &self.header)?;
        check_timestamp(text, delivery.now, self.tolerance, &self.header)?;
        Ok(text)
    }
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// Returns the name of the algorithm in the configuration.
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

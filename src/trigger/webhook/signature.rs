//! Verifies that the sender of a delivery has the secret. Pure.

mod bearer;
mod delivery;
mod encoding;
mod keyed_digest;
mod signing_template;
mod standard;
mod stripe;

use std::fmt;

use http::{HeaderMap, HeaderName};

pub use delivery::Delivery;
pub(crate) use delivery::SignatureError;
pub(crate) use encoding::Encoding;
pub(crate) use keyed_digest::{Algorithm, HmacFormat, TimestampHeader};
pub(super) use signing_template::SignedPart;
pub(crate) use signing_template::SigningTemplate;
pub(crate) use standard::StandardWebhooks;
pub(crate) use stripe::Stripe;

use self::{bearer::BearerSecret, keyed_digest::HmacScheme};
use crate::field::Timestamp;

/// The signature scheme of a webhook.
///
/// Every scheme accepts several secrets, so that secrets can be rotated without a gap. All secrets
/// are tried, and each comparison takes constant time.
#[derive(Clone)]
pub enum SignatureScheme {
    /// The secret itself, in a field.
    Bearer(BearerSecret),
    /// A keyed digest of the body, and optionally of the time.
    Hmac(HmacScheme),
    /// Standard Webhooks: a digest of the delivery's id, time and body.
    Standard(StandardWebhooks),
    /// Stripe: the time and the digests are in one field.
    Stripe(Stripe),
}

/// The result of verifying a delivery's fields before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProof {
    /// The fields prove that the sender has the secret.
    Complete,
    /// The body must be read first, because the signature covers it.
    NeedsBody,
}

impl SignatureScheme {
    /// Creates a scheme for a secret in `Authorization: Bearer`, or as the whole value of another
    /// field.
    pub fn bearer(header: HeaderName, secrets: &[&str]) -> Self {
        Self::Bearer(BearerSecret::new(header, secrets))
    }

    /// Creates a scheme for keyed digests.
    pub fn hmac(format: HmacFormat, secrets: &[&str]) -> Self {
        Self::Hmac(HmacScheme::new(format, secrets))
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
    /// Formats the scheme without its secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(bearer) => formatter.debug_tuple("Bearer").field(&bearer.header).finish(),
            Self::Hmac(hmac) => formatter.debug_tuple("Hmac").field(&hmac.format).finish(),
            Self::Standard(_) => formatter.write_str("Standard"),
            Self::Stripe(_) => formatter.write_str("Stripe"),
        }
    }
}

#[cfg(test)]
mod tests;

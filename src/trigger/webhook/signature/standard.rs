//! Signatures of Standard Webhooks, as sent by Svix and its customers.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};

use super::{
    delivery::{
        Delivery, MAX_DIGESTS, SignatureError, check_timestamp, required_field, verify_digests,
    },
    encoding::{Encoding, decode_base64},
};

/// The prefix of a base64-encoded secret.
const SECRET_PREFIX: &str = "whsec_";

/// The prefix of an HMAC. Other prefixes denote other kinds of signatures.
const VERSION: &str = "v1,";

/// The scheme of Standard Webhooks: an HMAC-SHA256 of `{id}.{timestamp}.{body}`, in base64.
///
/// Source: standard-webhooks, "Signature scheme".
#[derive(Clone)]
pub struct StandardWebhooks {
    keys: Vec<hmac::Key>,
    tolerance: Duration,
}

/// The names of the fields with the id, time and signature of a delivery.
struct FieldNames {
    id: HeaderName,
    timestamp: HeaderName,
    signature: HeaderName,
}

/// The field names of the specification.
const STANDARD: FieldNames = FieldNames {
    id: HeaderName::from_static("webhook-id"),
    timestamp: HeaderName::from_static("webhook-timestamp"),
    signature: HeaderName::from_static("webhook-signature"),
};

/// The older field names of Svix.
const SVIX: FieldNames = FieldNames {
    id: HeaderName::from_static("svix-id"),
    timestamp: HeaderName::from_static("svix-timestamp"),
    signature: HeaderName::from_static("svix-signature"),
};

impl StandardWebhooks {
    /// Creates the scheme with base64-encoded secrets, with or without `whsec_`. `None` if a secret
    /// is invalid.
    pub fn new(secrets: &[&str], tolerance: Duration) -> Option<Self> {
        let keys = secrets.iter().map(|secret| key(secret)).collect::<Option<_>>()?;
        Some(Self { keys, tolerance })
    }

    /// Returns the names of the fields with the delivery id, which is signed. The first field with
    /// a value counts.
    pub fn ids() -> [HeaderName; 2] {
        [STANDARD.id, SVIX.id]
    }

    /// Returns the id, the time and the digests of a delivery.
    pub(super) fn fields<'a>(
        &self,
        delivery: &Delivery<'a>,
    ) -> Result<(&'a str, &'a str, Vec<Vec<u8>>), SignatureError> {
        let fields = if uses_svix_names(delivery.headers) { SVIX } else { STANDARD };
        let id = required_field(delivery.headers, &fields.id)?;
        let timestamp = required_field(delivery.headers, &fields.timestamp)?;
        let digests = digests(delivery.headers, &fields.signature);
        if id.is_empty() {
            return Err(SignatureError::MissingField(fields.id));
        }
        if digests.is_empty() {
            return Err(SignatureError::MissingField(fields.signature));
        }
        check_timestamp(timestamp, delivery.now, self.tolerance, &fields.timestamp)?;
        Ok((id, timestamp, digests))
    }

    pub(super) fn verify(&self, delivery: &Delivery<'_>) -> Result<(), SignatureError> {
        let (id, timestamp, digests) = self.fields(delivery)?;
        verify_digests(&self.keys, &digests, |context| {
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", delivery.body] {
                context.update(part);
            }
        })
    }
}

fn uses_svix_names(headers: &HeaderMap) -> bool {
    headers.contains_key(SVIX.id) && !headers.contains_key(STANDARD.id)
}

fn key(secret: &str) -> Option<hmac::Key> {
    let bytes = decode_base64(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret))?;
    (!bytes.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn digests(headers: &HeaderMap, name: &HeaderName) -> Vec<Vec<u8>> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(' '))
        .filter_map(|member| Encoding::Base64.decode(member.strip_prefix(VERSION)?))
        .take(MAX_DIGESTS)
        .collect()
}

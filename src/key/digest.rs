//! Keyed digests, which stand for credentials in keys without revealing them.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use super::StoragePlacement;

/// The minimum length of a secret in bytes, equal to that of the digest (RFC 2104 §3).
pub(crate) const MIN_DIGEST_KEY_LENGTH: usize = 32;

/// The operator's secret for digests of credentials. `Debug` redacts it.
#[derive(Clone)]
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// Builds a key from a secret; `None` if it has fewer than [`MIN_DIGEST_KEY_LENGTH`] bytes.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= MIN_DIGEST_KEY_LENGTH).then(|| Self(hmac::Key::new(HMAC_SHA256, secret)))
    }

    /// Returns 128 bits of the HMAC-SHA-256 of `bytes` (RFC 2104). Takes about 500 ns.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.0, bytes);
        tag.as_ref().first_chunk::<16>().copied().unwrap_or_default()
    }
}

/// The HMAC key that turns credentials into digests for cache keys.
#[derive(Debug, Clone)]
pub(crate) struct CredentialDigester {
    pub key: DigestKey,
    /// The stores for responses with digests in their keys: those of the fleet if all nodes have
    /// `key`.
    pub storage_placement: StoragePlacement,
}

pub(crate) fn hex(digest: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(digest))
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_the_key_and_never_shows_it() {
        let [one, other] = [b'a', b'b'].map(|byte| DigestKey::new(&[byte; 32]).unwrap());
        assert_eq!(one.digest(b"x"), one.digest(b"x"));
        assert_ne!(one.digest(b"x"), other.digest(b"x"));
        assert_ne!(one.digest(b"x"), one.digest(b"y"));
        assert_eq!(format!("{one:?}"), "[redacted]");
        assert!(DigestKey::new(&[b'a'; 31]).is_none());
    }
}

//! Keyed digests: how credentials enter keys without being readable there.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};

use super::StorageScope;

/// The shortest key that is accepted, in bytes: as long as the digest (RFC 2104 §3).
pub(crate) const MIN_DIGEST_KEY_LENGTH: usize = 32;

/// The operator's key for digests of credentials; it is never shown.
#[derive(Clone)]
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// A key of at least [`MIN_DIGEST_KEY_LENGTH`] bytes; none if it is shorter.
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= MIN_DIGEST_KEY_LENGTH).then(|| Self(hmac::Key::new(HMAC_SHA256, secret)))
    }

    /// 128 bits of the HMAC-SHA-256 of these bytes (RFC 2104). About 500 ns.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.0, bytes);
        tag.as_ref().first_chunk::<16>().copied().unwrap_or_default()
    }
}

/// How credentials enter keys.
#[derive(Debug, Clone)]
pub(crate) struct CredentialDigests {
    /// The key of the digests.
    pub key: DigestKey,
    /// Which nodes have the same key.
    pub storage_scope: StorageScope,
}

/// A digest in hexadecimal.
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

//! Keys that verify tokens: shared secrets and public keys.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer as _,
    hmac, rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::algorithm::{JwsAlgorithm, KeyType};

/// Minimum length of a secret for HMAC-SHA-256 in bytes (RFC 7518 §3.2).
pub(crate) const MIN_SECRET_LENGTH: usize = 32;

/// A key and its algorithms. The key, not the token, determines which `alg` is accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationKey {
    /// Digest of the key.
    pub id: KeyFingerprint,
    /// Key ID in tokens.
    pub kid: Option<Box<str>>,
    key_type: KeyType,
    /// The only accepted algorithm, if restricted.
    only_algorithm: Option<JwsAlgorithm>,
    /// A secret, a curve point, or a public key in DER.
    bytes: Arc<[u8]>,
}

/// Identifies a key by a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(u128);

/// The reason why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text has no block between `BEGIN` and `END`.
    #[error("expected a public key in PEM, between `-----BEGIN PUBLIC KEY-----` and `-----END …`")]
    NoPem,
    /// The text is a private key.
    #[error("expected a public key, not a private one")]
    Private,
    /// The text is a certificate.
    #[error("expected a public key, not a certificate; `openssl x509 -pubkey -noout` extracts it")]
    Certificate,
    /// The text is a key of an unsupported type.
    #[error("expected an RSA key of 2,048 to 8,192 bits, or a P-256, P-384 or Ed25519 key")]
    Unsupported,
}

impl VerificationKey {
    /// Creates a key from a shared secret.
    pub fn secret(bytes: &[u8]) -> Self {
        Self::new(KeyType::Secret, bytes)
    }

    /// Parses public keys in PEM: `PUBLIC KEY` (RFC 7468 §13) or `RSA PUBLIC KEY` (RFC 8017
    /// §A.1.1).
    pub fn from_pem(text: &str) -> Result<Vec<Self>, PemError> {
        let mut keys = Vec::new();
        let mut rest = text;
        while let Some((_, block)) = rest.split_once("-----BEGIN ") {
            let (label, block) = block.split_once("-----").ok_or(PemError::NoPem)?;
            let (body, after) = block.split_once("-----END ").ok_or(PemError::NoPem)?;
            match label {
                "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
                "CERTIFICATE" => return Err(PemError::Certificate),
                _ if label.ends_with("PRIVATE KEY") => return Err(PemError::Private),
                _ => return Err(PemError::Unsupported),
            }
            let body: String = body.split_ascii_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| PemError::NoPem)?;
            keys.push(Self::from_der(&der).ok_or(PemError::Unsupported)?);
            rest = after;
        }
        if keys.is_empty() { Err(PemError::NoPem) } else { Ok(keys) }
    }

    /// Parses a public key of any supported type in DER.
    fn from_der(der: &[u8]) -> Option<Self> {
        let key_type = if ParsedPublicKey::new(&ED25519, der).is_ok() {
            KeyType::Ed25519
        } else if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).is_ok() {
            KeyType::P256
        } else if ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, der).is_ok() {
            KeyType::P384
        } else {
            // Rejects keys of fewer than 2,048 bits.
            let key = rsa::PublicKey::from_der(der).ok()?;
            let der = key.as_der().ok()?;
            rsa::PublicEncryptingKey::from_der(der.as_ref()).ok()?;
            return Some(Self::new(KeyType::Rsa, der.as_ref()));
        };
        Some(Self::new(key_type, der))
    }

    /// Creates an RSA key from modulus and exponent, big-endian (RFC 7518 §6.3.1).
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let der = RsaPublicKeyComponents { n, e }.as_der().ok()?;
        rsa::PublicEncryptingKey::from_der(der.as_ref()).ok()?;
        Some(Self::new(KeyType::Rsa, der.as_ref()))
    }

    /// Creates a key from a curve point in the form of SEC 1 or RFC 8032.
    pub(crate) fn point(key_type: KeyType, bytes: &[u8]) -> Option<Self> {
        let is_point = match key_type {
            KeyType::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).is_ok(),
            KeyType::P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, bytes).is_ok(),
            KeyType::Ed25519 => ParsedPublicKey::new(&ED25519, bytes).is_ok(),
            KeyType::Secret | KeyType::Rsa => false,
        };
        is_point.then(|| Self::new(key_type, bytes))
    }

    fn new(key_type: KeyType, bytes: &[u8]) -> Self {
        let sum = digest(&SHA256, bytes);
        let id = sum.as_ref().first_chunk().map_or(0, |id| u128::from_be_bytes(*id));
        Self {
            id: KeyFingerprint(id),
            kid: None,
            key_type,
            only_algorithm: None,
            bytes: bytes.into(),
        }
    }

    /// Sets the key ID, and restricts the key to one algorithm if given. Returns `None` if the
    /// algorithm needs another type of key.
    pub(crate) fn with_kid(self, kid: Option<&str>, only: Option<JwsAlgorithm>) -> Option<Self> {
        let fits = only.is_none_or(|algorithm| algorithm.key_type() == self.key_type);
        fits.then(|| Self { kid: kid.map(Into::into), only_algorithm: only, ..self })
    }

    /// Returns the key's length and bytes, for digests.
    pub(crate) fn material(&self) -> Vec<u8> {
        let length = (self.bytes.len() as u64).to_le_bytes();
        [&length, &*self.bytes].concat()
    }

    /// Returns whether the key may be used with an algorithm.
    pub fn is_for(&self, algorithm: JwsAlgorithm) -> bool {
        self.key_type == algorithm.key_type()
            && self.only_algorithm.is_none_or(|only| only == algorithm)
    }

    /// Verifies a signature of a message. Takes 1 µs for a secret, and up to 100 µs for a public
    /// key.
    pub fn verifies(&self, algorithm: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.is_for(algorithm) {
            return false;
        }
        match (algorithm.hmac(), algorithm.signature()) {
            (Some(hmac), _) => {
                hmac::verify(&hmac::Key::new(hmac, &self.bytes), message, signature).is_ok()
            }
            (None, Some(algorithm)) => {
                UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
            }
            (None, None) => false,
        }
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

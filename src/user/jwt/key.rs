//! Keys that tokens are verified with: shared secrets and public keys.

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

/// The shortest secret that HMAC-SHA-256 should be used with, in bytes (RFC 7518 §3.2).
pub(crate) const MIN_SECRET_LENGTH: usize = 32;

/// A key, with the algorithms that it is for. The key says what a token's `alg` may be, never the token.
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationKey {
    /// A digest of the key itself.
    pub id: KeyId,
    /// The name that tokens may call it by.
    pub kid: Option<Box<str>>,
    key_type: KeyType,
    /// The only algorithm that it is for, if there is one.
    only_algorithm: Option<JwsAlgorithm>,
    /// A secret as it is, a point of a curve, or the DER of a public key.
    bytes: Arc<[u8]>,
}

/// Tells one key from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(u128);

/// Why a text holds no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// There is no block between `BEGIN` and `END`.
    #[error("expected a public key in PEM, between `-----BEGIN PUBLIC KEY-----` and `-----END …`")]
    NoPem,
    /// It is a private key.
    #[error("this is a private key; expected the public one, which verifies signatures")]
    Private,
    /// It is a certificate.
    #[error(
        "this is a certificate; expected its public key, which `openssl x509 -pubkey -noout` writes"
    )]
    Certificate,
    /// It is none of the kinds that are known.
    #[error("expected a key of RSA with 2,048 to 8,192 bits, P-256, P-384 or Ed25519")]
    Unsupported,
}

impl VerificationKey {
    /// A shared secret.
    pub fn secret(bytes: &[u8]) -> Self {
        Self::new(KeyType::Secret, bytes)
    }

    /// The public keys in a text of PEM: `PUBLIC KEY` (RFC 7468 §13) or `RSA PUBLIC KEY` (RFC 8017 §A.1.1).
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

    /// A public key in DER, whatever kind it is of.
    fn from_der(der: &[u8]) -> Option<Self> {
        let key_type = if ParsedPublicKey::new(&ED25519, der).is_ok() {
            KeyType::Ed25519
        } else if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).is_ok() {
            KeyType::P256
        } else if ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, der).is_ok() {
            KeyType::P384
        } else {
            // Refuses keys of fewer than 2,048 bits.
            let key = rsa::PublicKey::from_der(der).ok()?;
            let der = key.as_der().ok()?;
            rsa::PublicEncryptingKey::from_der(der.as_ref()).ok()?;
            return Some(Self::new(KeyType::Rsa, der.as_ref()));
        };
        Some(Self::new(key_type, der))
    }

    /// An RSA key of this modulus and exponent, big-endian (RFC 7518 §6.3.1).
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        let der = RsaPublicKeyComponents { n, e }.as_der().ok()?;
        rsa::PublicEncryptingKey::from_der(der.as_ref()).ok()?;
        Some(Self::new(KeyType::Rsa, der.as_ref()))
    }

    /// A point of a curve, as SEC 1 or RFC 8032 write it.
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
        Self { id: KeyId(id), kid: None, key_type, only_algorithm: None, bytes: bytes.into() }
    }

    /// The same key under a name, for one algorithm only if one is given. None if it is of another kind.
    pub(crate) fn with_kid(self, kid: Option<&str>, only: Option<JwsAlgorithm>) -> Option<Self> {
        let fits = only.is_none_or(|algorithm| algorithm.key_type() == self.key_type);
        fits.then(|| Self { kid: kid.map(Into::into), only_algorithm: only, ..self })
    }

    /// What it is made of, after its length.
    pub(crate) fn material(&self) -> Vec<u8> {
        let length = (self.bytes.len() as u64).to_le_bytes();
        [&length, &*self.bytes].concat()
    }

    /// Whether it is for this algorithm.
    pub fn is_for(&self, algorithm: JwsAlgorithm) -> bool {
        self.key_type == algorithm.key_type()
            && self.only_algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether this is its signature of a message. Takes 1 µs for a secret, up to 100 µs for a public key.
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

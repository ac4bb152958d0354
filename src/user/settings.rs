//! Settings of authentication.

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::HeaderName;
use ipnet::IpNet;

use super::jwt::{algorithm::JwsAlgorithm, key::VerificationKey};
use crate::{key::DigestKey, origin::document_url::DocumentUrl};

/// The source of identities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IdentitySource {
    /// There is no source: users are known by their exact credentials only.
    #[default]
    None,
    /// Signed tokens.
    Token(Box<TokenRules>),
    /// A gateway that has authenticated the user and names the user in a field.
    Gateway(GatewayRules),
}

/// The tokens that are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The part of a request that carries the token.
    pub location: TokenLocation,
    /// Verification keys.
    pub keys: KeySource,
    /// Accepted algorithms; `None` for all that a key supports.
    pub algorithms: Option<Box<[JwsAlgorithm]>>,
    /// Accepted audiences (`aud`). If empty, tokens with any audience or none are accepted.
    pub audiences: Box<[Box<str>]>,
    /// Accepted issuers (`iss`). If empty, tokens of any issuer or none are accepted.
    pub issuers: Box<[Box<str>]>,
    /// The claim that identifies users.
    pub claim: Box<str>,
    /// The claims that narrow a user's permissions.
    pub narrows: Box<[Box<str>]>,
}

/// The part of a request that carries the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    /// The field with this name. `Bearer` precedes the token in `Authorization`, and optionally in
    /// other fields.
    Field(HeaderName),
    /// The cookie with this name.
    Cookie(Box<str>),
}

impl TokenLocation {
    /// Returns the name of the field; `None` for a cookie.
    pub fn field(&self) -> Option<&HeaderName> {
        match self {
            Self::Field(name) => Some(name),
            Self::Cookie(_) => None,
        }
    }

    /// Returns the name of the cookie; `None` for a field.
    pub fn cookie(&self) -> Option<&str> {
        match self {
            Self::Cookie(name) => Some(name),
            Self::Field(_) => None,
        }
    }
}

/// The source of verification keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Configured keys.
    Configured(Box<[VerificationKey]>),
    /// Keys that the issuer publishes at this URL (RFC 7517 §5).
    Jwks(DocumentUrl),
}

/// The trusted gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRules {
    /// The field that names the user.
    pub name: HeaderName,
    /// Addresses of the gateway.
    pub from: Box<[IpNet]>,
    /// Gateway fields that narrow a user's permissions, in addition to the built-in ones.
    pub narrows: Box<[HeaderName]>,
}

impl IdentitySource {
    /// Returns the default of `recheck`. It is longer for tokens: Larder verifies them itself, so
    /// that only a revocation can be missed.
    pub const fn default_recheck(&self) -> Duration {
        match self {
            Self::Token(_) => Duration::from_mins(5),
            Self::None | Self::Gateway(_) => Duration::from_mins(1),
        }
    }

    /// Returns the configured fields that carry an identity.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        let (own, further) = match self {
            Self::None => (None, [].as_slice()),
            Self::Token(rules) => (rules.location.field(), [].as_slice()),
            Self::Gateway(rules) => (Some(&rules.name), &*rules.narrows),
        };
        own.into_iter().chain(further)
    }

    /// Returns the key for digests of identities, the same on all nodes with these settings.
    ///
    /// `None` if there is no source of identities. The key is secret only if a shared secret
    /// verifies tokens. Otherwise anyone with the settings and access to Redis can test whether
    /// Redis holds responses of a known user.
    pub fn digest_key(&self, prefix: &str) -> Option<DigestKey> {
        let material = match self {
            Self::None => return None,
            Self::Token(rules) => match &rules.keys {
                KeySource::Configured(keys) => {
                    keys.iter().flat_map(VerificationKey::material).collect()
                }
                KeySource::Jwks(url) => format!("{}{}", url.server, url.target).into_bytes(),
            },
            Self::Gateway(rules) => rules.name.as_str().as_bytes().to_vec(),
        };
        let message = [b"larder: digests of identities\n", prefix.as_bytes()].concat();
        let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, &material), &message);
        DigestKey::new(tag.as_ref())
    }
}

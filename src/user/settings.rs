//! What proves who asks, as an operator sets it.

use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::HeaderName;
use ipnet::IpNet;

use super::jwt::{algorithm::JwsAlgorithm, key::VerificationKey};
use crate::{key::DigestKey, origin::document_url::DocumentUrl};

/// What proves who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IdentitySource {
    /// Nothing does: a user is known by exact credentials only.
    #[default]
    None,
    /// A signed token.
    Token(Box<TokenRules>),
    /// A gateway that has logged the user in, and names it in a field.
    Gateway(GatewayRules),
}

/// Which tokens prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// Where the token stands.
    pub location: TokenLocation,
    /// What it is verified with.
    pub keys: KeySource,
    /// The algorithms that count, if not all that a key is for.
    pub algorithms: Option<Box<[JwsAlgorithm]>>,
    /// The audiences (`aud`), one of which a token must name. Empty: any, and tokens without.
    pub audiences: Box<[Box<str>]>,
    /// The issuers (`iss`) that count. Empty: any, and tokens without.
    pub issuers: Box<[Box<str>]>,
    /// The claim that tells users apart.
    pub claim: Box<str>,
    /// The claims that narrow what a user may see.
    pub narrows: Box<[Box<str>]>,
}

/// Where a request carries its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    /// In this field: behind `Bearer` in `Authorization`, with or without it in others.
    Field(HeaderName),
    /// In the cookie of this name.
    Cookie(Box<str>),
}

impl TokenLocation {
    /// The field, if it is one.
    pub fn field(&self) -> Option<&HeaderName> {
        match self {
            Self::Field(name) => Some(name),
            Self::Cookie(_) => None,
        }
    }

    /// The cookie, if it is one.
    pub fn cookie(&self) -> Option<&str> {
        match self {
            Self::Cookie(name) => Some(name),
            Self::Field(_) => None,
        }
    }
}

/// Where the keys of tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The operator gives them.
    Configured(Box<[VerificationKey]>),
    /// The issuer publishes them at this URL (RFC 7517 §5).
    Jwks(DocumentUrl),
}

/// Which gateway says who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRules {
    /// The field that names the user.
    pub name: HeaderName,
    /// The addresses of the gateway.
    pub from: Box<[IpNet]>,
    /// Further fields of the gateway that narrow what a user may see, beside those that are known.
    pub narrows: Box<[HeaderName]>,
}

impl IdentitySource {
    /// How long credentials count as accepted if the operator does not say it: tokens are verified here, so
    /// that only a revocation can be missed.
    pub const fn default_recheck(&self) -> Duration {
        match self {
            Self::Token(_) => Duration::from_mins(5),
            Self::None | Self::Gateway(_) => Duration::from_mins(1),
        }
    }

    /// The fields that only say who asks.
    pub fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        let (own, further) = match self {
            Self::None => (None, [].as_slice()),
            Self::Token(rules) => (rules.location.field(), [].as_slice()),
            Self::Gateway(rules) => (Some(&rules.name), &*rules.narrows),
        };
        own.into_iter().chain(further)
    }

    /// Returns a key for digests of identities that all nodes with these settings have in common. None if
    /// nothing proves any.
    ///
    /// It is a secret only if a shared secret verifies tokens. Otherwise those who know the settings and can
    /// read Redis can find out whether a user they know of is in it.
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

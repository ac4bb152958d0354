//! Reasons why a request has no verified identity.

use crate::policy::Reason;

/// The reason why a request has no verified identity. `Display` is for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The request has no token.
    #[error("the request has no token")]
    NoToken,
    /// The peer is not a gateway, or the gateway names no user.
    #[error("no trusted gateway names a user")]
    NoUser,
    /// The user claim is missing, empty, too long, or not a scalar.
    #[error(
        "the claim is missing, empty, longer than 256 bytes, or not a string, a whole number or a boolean"
    )]
    NoClaim,
    /// The field with the token is repeated.
    #[error("the field or cookie with the token is repeated")]
    Twice,
    /// The scheme is not `Bearer`.
    #[error("the field does not contain a bearer token")]
    Scheme,
    /// The token is bound to a key, or the request is signed.
    #[error("the token is bound to a key (`cnf`, DPoP), or the request is signed")]
    Bound,
    /// The token is longer than 8 KiB.
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// The token is not a compact JWS.
    #[error("the token is not a compact JWS (three parts in base64url)")]
    Form,
    /// The token's header requires something unsupported.
    #[error("the token's header has `crit`, an embedded key, or an unknown `typ`")]
    Header,
    /// The algorithm is not accepted.
    #[error("the token's `alg` is not accepted for its key")]
    Algorithm,
    /// No key has the token's `kid`.
    #[error("no known key has the token's `kid`")]
    UnknownKey,
    /// The keys have not been fetched yet.
    #[error("the issuer's keys have not been fetched")]
    NoKeys,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// The claims are not an object, or a required claim has an invalid form.
    #[error(
        "the claims are not an object with distinct names, or `exp`, `nbf`, `iat`, `iss` or `aud` is malformed"
    )]
    Claims,
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet (`nbf` or `iat`)")]
    NotYet,
    /// The issuer is not accepted.
    #[error("`iss` is not an accepted issuer")]
    Issuer,
    /// The audience is not accepted.
    #[error("`aud` does not contain an accepted audience")]
    Audience,
}

impl IdentityError {
    /// Returns the reason for `Cache-Status`.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoToken | Self::NoUser | Self::NoClaim => Reason::NoIdentity,
            _ => Reason::UnverifiedToken,
        }
    }
}

//! Credentials in requests.
//!
//! A credential is anything that may identify the client: `Authorization`, or a field, a cookie or
//! a query parameter named like a key, a token, a user or a session. Operators extend and narrow
//! the built-in lists with [`CredentialRules`].

mod cookies;
mod lists;
mod parameters;
mod rules;

use super::CacheRule;

pub(crate) use cookies::{CookieFindings, CookieKind};
pub use lists::{
    CREDENTIAL_PARAMETERS, FORGERY_PARTS, HARMLESS_COOKIES, SELECTING_COOKIES, SESSION_COOKIES,
    SESSION_ENDS, SESSION_PARTS, SIGNATURE_PARAMETERS,
};
pub(crate) use parameters::ParameterKind;
pub(crate) use rules::{CredentialRules, InvalidNamePattern, NameList};

/// The kinds of credentials in a request, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credentials(u8);

impl Credentials {
    /// No credentials.
    pub const NONE: Self = Self(0);
    /// `Authorization` (RFC 9111 §3.5).
    pub const AUTHORIZATION: Self = Self(1);
    /// A field or query parameter that is not part of the cache key and is named like a key, a
    /// token, a user or a session. Does not include `Authorization`.
    pub const FIELD: Self = Self(1 << 1);
    /// A session cookie, recognised by a list or by parts of its name.
    pub const SESSION_COOKIE: Self = Self(1 << 2);
    /// A cookie that is in no list.
    pub const UNKNOWN_COOKIE: Self = Self(1 << 3);
    /// A query parameter that carries a key or a token, and is part of the cache key.
    pub const PARAMETER: Self = Self(1 << 4);
    /// A query parameter with a signature, which the origin may consider expired at any time.
    pub const SIGNATURE: Self = Self(1 << 5);

    /// Credentials that make a request [personal](Self::are_personal).
    const PERSONAL: Self = Self(Self::AUTHORIZATION.0 | Self::FIELD.0 | Self::SESSION_COOKIE.0);

    /// Returns whether the two sets intersect.
    pub const fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Returns this set without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Returns the intersection of both sets.
    #[must_use]
    pub const fn only(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Returns whether the request is personal: credentials outside its key identify the client. A
    /// personal request has a fetch of its own, whose response goes to no other request.
    pub const fn are_personal(self) -> bool {
        self.has(Self::PERSONAL)
    }

    /// Returns whether the request needs a fetch of its own under this rule.
    ///
    /// If a `ttl` may make the response fresh, a request with an unknown cookie or a signature can
    /// neither use another request's response nor provide one.
    pub fn need_own_fetch(self, rule: &CacheRule) -> bool {
        let refuses_guesses = self.has(Self::UNKNOWN_COOKIE.with(Self::SIGNATURE));
        self.are_personal() || (rule.has_ttl() && refuses_guesses)
    }
}

#[cfg(test)]
mod tests;

//! What a request says about who asks, and what it may share for all that.
//!
//! A credential is whatever may say who asks: `Authorization`, a field or a cookie whose name says that it
//! carries a key, a token, a user or a session, and such a parameter of the query. Operators extend and
//! narrow the built-in lists with [`CredentialRules`].

mod cookies;
mod lists;
mod parameters;
mod rules;

use super::{CacheRule, Freshness, Reason, freshness::Constraints};

pub(crate) use cookies::{CookieFindings, CookieKind, CookiePairs};
pub use lists::{
    CREDENTIAL_PARAMETERS, FORGERY_PARTS, HARMLESS_COOKIES, SELECTING_COOKIES, SESSION_COOKIES,
    SESSION_ENDS, SESSION_PARTS, SIGNATURE_PARAMETERS,
};
pub(crate) use parameters::{Parameter, ParameterKind};
pub(crate) use rules::{CredentialRules, InvalidNamePattern, NameList};

/// What a request carries that could make its response somebody's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credentials(u8);

impl Credentials {
    /// Nothing that says who asks.
    pub const NONE: Self = Self(0);
    /// `Authorization` (RFC 9111 §3.5).
    pub const AUTHORIZATION: Self = Self(1);
    /// Another field that commonly carries a key, a token, a user or a session, or a parameter of the query
    /// that does and is no part of the key.
    pub const FIELD: Self = Self(1 << 1);
    /// A cookie that is known for one of a session, or looks like one.
    pub const SESSION_COOKIE: Self = Self(1 << 2);
    /// A cookie of which nothing is known.
    pub const UNKNOWN_COOKIE: Self = Self(1 << 3);
    /// A parameter of the query with a key or a token. A part of the key separates by itself.
    pub const PARAMETER: Self = Self(1 << 4);
    /// A parameter of the query with a signature, which the origin may take for expired at any time.
    pub const SIGNATURE: Self = Self(1 << 5);

    /// What says who asks, in fields that are no part of the key.
    const PERSONAL: Self = Self(Self::AUTHORIZATION.0 | Self::FIELD.0 | Self::SESSION_COOKIE.0);

    /// Whether any of these is there.
    pub const fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those of these that are among others.
    #[must_use]
    pub const fn only(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Whether something besides the target says who asks: such requests lead no fetch that others wait
    /// for, wait for none, and are not made again on behalf of everyone.
    pub const fn are_personal(self) -> bool {
        self.has(Self::PERSONAL)
    }

    /// Whether such requests share no fetch under this rule. Where a `ttl` may make the response fresh, one
    /// with an unknown cookie would not be answered by the fetch of another, nor others by its own: it would
    /// hold them up for nothing.
    pub fn need_own_fetch(self, rule: &CacheRule) -> bool {
        let refuses_guesses = self.has(Self::UNKNOWN_COOKIE.with(Self::SIGNATURE));
        self.are_personal() || (rule.has_ttl() && refuses_guesses)
    }
}

impl Freshness {
    /// Why a request with these credentials may not share the response, if it may not.
    ///
    /// `Authorization` needs `public`, `s-maxage` or `must-revalidate` (RFC 9111 §3.5); other fields and
    /// session cookies need one of the first two. An unknown cookie, or a signature in the query, needs a
    /// response that the origin itself made fresh, or one that is never used without asking it.
    pub fn sharing_refusal(&self, credentials: Credentials) -> Option<Reason> {
        if credentials == Credentials::NONE || self.constraints.has_any(Constraints::SHAREABLE) {
            return None;
        }
        let revalidates = self.constraints.has_any(Constraints::MUST_REVALIDATE);
        let is_guess =
            !self.lifetime.is_zero() && !self.constraints.has_any(Constraints::FRESH_BY_ORIGIN);
        let refusals = [
            (Credentials::AUTHORIZATION, !revalidates, Reason::Authorization),
            (Credentials::FIELD, true, Reason::CredentialField),
            (Credentials::SESSION_COOKIE, true, Reason::CookieRequest),
            (Credentials::SIGNATURE, is_guess, Reason::SignedTarget),
            (Credentials::UNKNOWN_COOKIE, is_guess, Reason::UnknownCookie),
        ];
        let mut refusals = refusals.into_iter();
        refusals
            .find(|(carried, applies, _)| *applies && credentials.has(*carried))
            .map(|(_, _, reason)| reason)
    }
}

#[cfg(test)]
mod tests;

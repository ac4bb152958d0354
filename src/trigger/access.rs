//! Bearer tokens and the operations that they allow.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, header};

/// The permission that an endpoint requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequiredPermission {
    /// No token is required, as for health checks.
    Open,
    /// A token with the permission `read`. If no tokens are configured, none is required.
    Read,
    /// A token with the permission `purge`.
    Purge,
}

/// A bearer token and its permissions.
#[derive(Clone)]
pub(crate) struct Token {
    secret: String,
    granted: Vec<RequiredPermission>,
}

/// The tokens of the admin listener.
///
/// Without configured tokens, every client may read and no client may purge. By default, the
/// listener is bound to loopback.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Vec<Token>);

/// The result of checking a request's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authorization {
    Granted,
    /// The request carries no valid token.
    Unauthenticated,
    /// The token is valid but lacks the permission.
    Forbidden,
    /// No configured token has the permission.
    Unconfigured,
}

impl Token {
    pub(crate) fn new(secret: impl Into<String>, granted: Vec<RequiredPermission>) -> Self {
        Self { secret: secret.into(), granted }
    }

    /// Creates a token with all permissions.
    #[cfg(test)]
    pub(crate) fn full_access(secret: impl Into<String>) -> Self {
        Self::new(secret, vec![RequiredPermission::Read, RequiredPermission::Purge])
    }
}

impl Tokens {
    pub(crate) fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Checks whether a request with these fields has the permission `access`.
    ///
    /// Compares the request's token with all configured tokens in constant time, even after a
    /// match.
    pub(crate) fn authorize(
        &self,
        access: RequiredPermission,
        headers: &HeaderMap,
    ) -> Authorization {
        if access == RequiredPermission::Open
            || (access == RequiredPermission::Read && self.0.is_empty())
        {
            return Authorization::Granted;
        }
        if !self.any_grants(access) {
            return Authorization::Unconfigured;
        }
        let Some(given) = presented_token(headers) else { return Authorization::Unauthenticated };
        self.0.iter().fold(Authorization::Unauthenticated, |best, token| {
            let is_same = verify_slices_are_equal(token.secret.as_bytes(), given).is_ok();
            match (is_same, token.granted.contains(&access)) {
                (true, true) => Authorization::Granted,
                (true, false) if best == Authorization::Unauthenticated => Authorization::Forbidden,
                _ => best,
            }
        })
    }

    /// Returns true if no token is configured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether at least one configured token has this permission.
    pub(crate) fn any_grants(&self, access: RequiredPermission) -> bool {
        self.0.iter().any(|token| token.granted.contains(&access))
    }
}

/// The field in which Fastly's clients send their token.
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// Returns the token in `Authorization: Bearer`, else in `Fastly-Key`, else `None`.
fn presented_token(headers: &HeaderMap) -> Option<&[u8]> {
    bearer_token(headers).or_else(|| Some(headers.get(FASTLY_KEY)?.as_bytes().trim_ascii()))
}

/// Returns the token in `Authorization: Bearer`, if any.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn authorize(tokens: &Tokens, access: RequiredPermission, token: &str) -> Authorization {
        tokens.authorize(access, &headers(&[("authorization", token)]))
    }

    #[test]
    fn a_token_allows_exactly_its_permissions() {
        let reader = Token::new("reader", vec![RequiredPermission::Read]);
        let tokens = Tokens::new(vec![reader.clone(), Token::full_access("both")]);
        assert_eq!(
            authorize(&tokens, RequiredPermission::Purge, "Bearer both"),
            Authorization::Granted
        );
        assert_eq!(
            authorize(&tokens, RequiredPermission::Purge, "bearer  both"),
            Authorization::Granted
        );
        assert_eq!(
            authorize(&tokens, RequiredPermission::Read, "Bearer reader"),
            Authorization::Granted
        );
        assert_eq!(
            authorize(&tokens, RequiredPermission::Purge, "Bearer reader"),
            Authorization::Forbidden
        );
        for unknown in ["Bearer other", "Bearer bot", "Bearer", "Basic both", "both"] {
            assert_eq!(
                authorize(&tokens, RequiredPermission::Purge, unknown),
                Authorization::Unauthenticated,
                "{unknown}"
            );
            assert_eq!(
                authorize(&tokens, RequiredPermission::Open, unknown),
                Authorization::Granted
            );
        }
        let reader_only = Tokens::new(vec![reader]);
        assert_eq!(
            authorize(&reader_only, RequiredPermission::Purge, "Bearer reader"),
            Authorization::Unconfigured
        );
    }

    #[test]
    fn the_token_may_be_in_the_field_of_fastlys_clients() {
        let tokens = Tokens::new(vec![Token::full_access("secret")]);
        let authorize = |lines: &[(&'static str, &str)]| {
            tokens.authorize(RequiredPermission::Purge, &headers(lines))
        };
        assert_eq!(authorize(&[("fastly-key", "secret")]), Authorization::Granted);
        assert_eq!(authorize(&[("fastly-key", "secre")]), Authorization::Unauthenticated);
        let both = [("authorization", "Bearer other"), ("fastly-key", "secret")];
        assert_eq!(authorize(&both), Authorization::Unauthenticated);
    }

    #[test]
    fn without_tokens_reading_is_open_and_purging_forbidden() {
        let tokens = Tokens::default();
        assert_eq!(
            authorize(&tokens, RequiredPermission::Read, "Bearer x"),
            Authorization::Granted
        );
        assert_eq!(
            authorize(&tokens, RequiredPermission::Purge, "Bearer "),
            Authorization::Unconfigured
        );
    }
}

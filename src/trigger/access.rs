//! Who may do what: bearer tokens.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, header};

/// What a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone may: health checks.
    Open,
    /// A token that may read; anyone where there are no tokens at all.
    Read,
    /// A token that may purge.
    Purge,
}

/// A bearer token and what it may do.
#[derive(Clone)]
pub struct Token {
    secret: String,
    may: Vec<Access>,
}

/// The tokens of the admin listener. Without any, it may be read by whoever reaches it (it is bound to
/// loopback unless configured otherwise), and nobody may purge.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

/// Whether a request may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Granted,
    /// It carries no token, or none that is known.
    Unknown,
    /// Its token may do other things only.
    Forbidden,
    /// There is no token that may.
    Impossible,
}

impl Token {
    /// A token that may do these things.
    pub fn new(secret: impl Into<String>, may: Vec<Access>) -> Self {
        Self { secret: secret.into(), may }
    }

    /// A token that may do everything.
    pub fn all(secret: impl Into<String>) -> Self {
        Self::new(secret, vec![Access::Read, Access::Purge])
    }
}

impl Tokens {
    /// These tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Whether a request with these fields may make a call that takes `access`. Compares in constant
    /// time, and every token whichever matches.
    pub fn permit(&self, access: Access, headers: &HeaderMap) -> Permit {
        if access == Access::Open || (access == Access::Read && self.0.is_empty()) {
            return Permit::Granted;
        }
        if !self.any_may(access) {
            return Permit::Impossible;
        }
        let Some(given) = token(headers) else { return Permit::Unknown };
        self.0.iter().fold(Permit::Unknown, |permit, token| {
            let is_same = verify_slices_are_equal(token.secret.as_bytes(), given).is_ok();
            match (is_same, token.may.contains(&access)) {
                (true, true) => Permit::Granted,
                (true, false) if permit == Permit::Unknown => Permit::Forbidden,
                _ => permit,
            }
        })
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a token that gives this access.
    pub fn any_may(&self, access: Access) -> bool {
        self.0.iter().any(|token| token.may.contains(&access))
    }
}

/// What clients of Fastly send a token in.
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// The token that a request carries: that of `Authorization: Bearer`, else that of `Fastly-Key`.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    bearer(headers).or_else(|| Some(headers.get(FASTLY_KEY)?.as_bytes().trim_ascii()))
}

/// The token of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
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

    fn permit(tokens: &Tokens, access: Access, token: &str) -> Permit {
        tokens.permit(access, &headers(&[("authorization", token)]))
    }

    #[test]
    fn a_token_allows_what_it_may() {
        let reader = Token::new("reader", vec![Access::Read]);
        let tokens = Tokens::new(vec![reader.clone(), Token::all("both")]);
        assert_eq!(permit(&tokens, Access::Purge, "Bearer both"), Permit::Granted);
        assert_eq!(permit(&tokens, Access::Purge, "bearer  both"), Permit::Granted);
        assert_eq!(permit(&tokens, Access::Read, "Bearer reader"), Permit::Granted);
        assert_eq!(permit(&tokens, Access::Purge, "Bearer reader"), Permit::Forbidden);
        for unknown in ["Bearer other", "Bearer bot", "Bearer", "Basic both", "both"] {
            assert_eq!(permit(&tokens, Access::Purge, unknown), Permit::Unknown, "{unknown}");
            assert_eq!(permit(&tokens, Access::Open, unknown), Permit::Granted);
        }
        let reader_only = Tokens::new(vec![reader]);
        assert_eq!(permit(&reader_only, Access::Purge, "Bearer reader"), Permit::Impossible);
    }

    #[test]
    fn a_token_may_stand_where_clients_of_fastly_put_it() {
        let tokens = Tokens::new(vec![Token::all("secret")]);
        let permit = |lines: &[(&'static str, &str)]| tokens.permit(Access::Purge, &headers(lines));
        assert_eq!(permit(&[("fastly-key", "secret")]), Permit::Granted);
        assert_eq!(permit(&[("fastly-key", "secre")]), Permit::Unknown);
        let both = [("authorization", "Bearer other"), ("fastly-key", "secret")];
        assert_eq!(permit(&both), Permit::Unknown);
    }

    #[test]
    fn without_tokens_all_may_read_and_nobody_may_purge() {
        let tokens = Tokens::default();
        assert_eq!(permit(&tokens, Access::Read, "Bearer x"), Permit::Granted);
        assert_eq!(permit(&tokens, Access::Purge, "Bearer "), Permit::Impossible);
    }
}

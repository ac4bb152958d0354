//! Who may call the admin listener.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, header};

/// What a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone may: health checks.
    Open,
    /// A token that may read.
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

/// The tokens of the admin listener. Without any, the listener is open: it is bound to loopback unless
/// configured otherwise.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

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
    pub fn permit(&self, access: Access, headers: &HeaderMap) -> bool {
        if access == Access::Open || self.0.is_empty() {
            return true;
        }
        let Some(given) = bearer(headers) else { return false };
        self.0.iter().fold(false, |permitted, token| {
            let same = verify_slices_are_equal(token.secret.as_bytes(), given).is_ok();
            permitted | (same && token.may.contains(&access))
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

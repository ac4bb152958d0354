//! Who may do what: bearer tokens, and the addresses that may purge.

use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

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

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Fields by which proxies tell of the client behind them.
const FORWARDED_BY: [HeaderName; 4] =
    [header::FORWARDED, header::VIA, X_FORWARDED_FOR, HeaderName::from_static("x-real-ip")];

/// The address that a request comes from, if it can be told.
///
/// Of what came through a proxy that is the address which the trusted proxies tell in
/// `X-Forwarded-For`. It cannot be told where a proxy is not trusted, or tells of the client in another
/// way: a proxy's own address gives nobody behind it any right.
pub fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    if !FORWARDED_BY.iter().any(|name| headers.contains_key(name)) {
        return Some(peer);
    }
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) || headers.contains_key(header::FORWARDED) {
        return None;
    }
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let mut client = None;
    hops.all(|hop| {
        client = hop.trim().parse().ok().map(|address: IpAddr| address.to_canonical());
        client.as_ref().is_some_and(is_trusted)
    });
    client
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

    #[test]
    fn the_address_is_the_peers_or_what_trusted_proxies_tell() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let told = |peer: &str, lines: &[(&'static str, &str)]| {
            let address = client(Some(peer.parse().unwrap()), &headers(lines), &trusted);
            address.map_or("-".to_owned(), |address| address.to_string())
        };
        let forwarded = "x-forwarded-for";
        assert_eq!(told("1.2.3.4", &[]), "1.2.3.4");
        assert_eq!(told("::ffff:1.2.3.4", &[]), "1.2.3.4");
        assert_eq!(told("10.0.0.1", &[(forwarded, "1.2.3.4")]), "1.2.3.4");
        assert_eq!(told("10.0.0.1", &[(forwarded, "6.6.6.6, 1.2.3.4, 10.0.0.2")]), "1.2.3.4");
        let lines = [(forwarded, "6.6.6.6"), (forwarded, "1.2.3.4"), (forwarded, "10.0.0.2")];
        assert_eq!(told("10.0.0.1", &lines), "1.2.3.4");
        assert_eq!(told("10.0.0.1", &[(forwarded, "10.0.0.9, 10.0.0.2")]), "10.0.0.9");
    }

    #[test]
    fn behind_a_proxy_that_nobody_trusts_there_is_no_address() {
        let client_of = |peer: &str, lines| {
            client(Some(peer.parse().unwrap()), &headers(lines), &["10.0.0.0/8".parse().unwrap()])
        };
        assert_eq!(client(None, &HeaderMap::new(), &[]), None);
        assert_eq!(client_of("1.2.3.4", &[("x-forwarded-for", "1.2.3.4")]), None);
        assert_eq!(client_of("1.2.3.4", &[("via", "1.1 proxy")]), None);
        assert_eq!(client_of("10.0.0.1", &[("via", "1.1 proxy")]), None);
        assert_eq!(client_of("10.0.0.1", &[("x-real-ip", "10.0.0.1")]), None);
        assert_eq!(client_of("10.0.0.1", &[("x-forwarded-for", "unknown")]), None);
        let both = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(client_of("10.0.0.1", &both), None);
    }
}

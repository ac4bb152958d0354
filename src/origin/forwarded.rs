//! The grammar of the fields that tell whom a request is forwarded for (RFC 7239, `X-Forwarded-For`).

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue,
    header::{self, GetAll},
};

use super::rewrite::Source;
use crate::server::Introduction;

/// How the client of a connection that asks for this host is introduced.
pub(super) fn introduction(source: &Source<'_>, host: Option<&HeaderValue>) -> Introduction {
    Introduction {
        // A copy: it is kept longer than the request whose bytes it stands in.
        host: host.and_then(|host| HeaderValue::from_bytes(host.as_bytes()).ok()),
        element: element(source, host),
        address: for_chain(HeaderMap::new().get_all(header::FORWARDED), source.peer),
    }
}

/// One element of `Forwarded`: this hop.
fn element(source: &Source<'_>, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut element = String::with_capacity(96);
    element.push_str("for=");
    match source.peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V4(peer)) => push_ipv4(&mut element, peer),
        Some(IpAddr::V6(peer)) => write!(element, "\"[{peer}]\"").ok()?,
        None => element.push_str("unknown"),
    }
    // A host that passed the server's check has neither quotes nor backslashes.
    let is_quotable = |host: &&str| !host.bytes().any(|byte| matches!(byte, b'"' | b'\\'));
    if let Some(host) = host.and_then(|host| host.to_str().ok()).filter(is_quotable) {
        let quote = if is_token(host) { "" } else { "\"" };
        for part in [";host=", quote, host, quote] {
            element.push_str(part);
        }
    }
    element.push_str(";proto=");
    element.push_str(source.scheme());
    HeaderValue::from_maybe_shared(Bytes::from(element)).ok()
}

/// Every request that is passed on names its client twice: worth not going through `Display`.
fn push_ipv4(text: &mut String, address: Ipv4Addr) {
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
}

/// `X-Forwarded-For` with this hop's peer at its end; none where the peer has no address.
pub(super) fn for_chain(
    earlier: GetAll<'_, HeaderValue>,
    peer: Option<IpAddr>,
) -> Option<HeaderValue> {
    let mut chain = String::with_capacity(16);
    for line in earlier.into_iter().filter_map(|line| line.to_str().ok()) {
        chain.push_str(line);
        chain.push_str(", ");
    }
    match peer?.to_canonical() {
        IpAddr::V4(peer) => push_ipv4(&mut chain, peer),
        IpAddr::V6(peer) => write!(chain, "{peer}").ok()?,
    }
    HeaderValue::from_maybe_shared(Bytes::from(chain)).ok()
}

fn is_token(text: &str) -> bool {
    let is_token_char =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn addresses_are_written_as_the_rfc_wants() {
        let element = |peer: Option<&str>| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            let source = Source {
                peer,
                secure: false,
                version: Version::HTTP_11,
                trusted: &[],
                known: None,
            };
            let host = HeaderValue::from_static("a.test");
            element(&source, Some(&host)).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(element(Some("2001:db8::1")), r#"for="[2001:db8::1]";host=a.test;proto=http"#);
        assert_eq!(element(Some("::ffff:192.0.2.1")), "for=192.0.2.1;host=a.test;proto=http");
        for address in ["0.0.0.0", "1.20.100.255", "10.9.99.200", "255.255.255.255"] {
            let told = element(Some(address));
            assert_eq!(told, format!("for={address};host=a.test;proto=http"));
        }
        assert_eq!(element(None), "for=unknown;host=a.test;proto=http");
        let none = HeaderMap::new();
        assert_eq!(for_chain(none.get_all("x-forwarded-for"), None), None);
    }
}

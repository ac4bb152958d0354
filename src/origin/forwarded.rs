//! The grammar of the fields that tell whom a request is forwarded for (RFC 7239, `X-Forwarded-For`).

use std::{fmt::Write, net::IpAddr};

use http::{HeaderValue, header::GetAll};

use super::rewrite::Source;

/// One element of `Forwarded`: this hop.
pub(super) fn element(source: &Source<'_>, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let mut element = String::with_capacity(64);
    match source.peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V4(peer)) => write!(element, "for={peer}"),
        Some(IpAddr::V6(peer)) => write!(element, "for=\"[{peer}]\""),
        None => write!(element, "for=unknown"),
    }
    .ok()?;
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        let quote = if is_token(host) { "" } else { "\"" };
        // A host that passed the server's check has neither quotes nor backslashes.
        if !host.contains(['"', '\\']) {
            write!(element, ";host={quote}{host}{quote}").ok()?;
        }
    }
    write!(element, ";proto={}", source.scheme()).ok()?;
    HeaderValue::try_from(element).ok()
}

/// `X-Forwarded-For` with this hop's peer at its end; none where the peer has no address.
pub(super) fn for_chain(
    earlier: GetAll<'_, HeaderValue>,
    peer: Option<IpAddr>,
) -> Option<HeaderValue> {
    let mut chain = String::new();
    for line in earlier.into_iter().filter_map(|line| line.to_str().ok()) {
        chain.push_str(line);
        chain.push_str(", ");
    }
    write!(chain, "{}", peer?.to_canonical()).ok()?;
    HeaderValue::try_from(chain).ok()
}

fn is_token(text: &str) -> bool {
    let is_token_char =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_char)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Version};

    use super::*;

    #[test]
    fn addresses_are_written_as_the_rfc_wants() {
        let element = |peer: Option<&str>| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            let source = Source { peer, secure: false, version: Version::HTTP_11, trusted: &[] };
            let host = HeaderValue::from_static("a.test");
            element(&source, Some(&host)).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(element(Some("2001:db8::1")), r#"for="[2001:db8::1]";host=a.test;proto=http"#);
        assert_eq!(element(Some("::ffff:192.0.2.1")), "for=192.0.2.1;host=a.test;proto=http");
        assert_eq!(element(None), "for=unknown;host=a.test;proto=http");
        let none = HeaderMap::new();
        assert_eq!(for_chain(none.get_all("x-forwarded-for"), None), None);
    }
}

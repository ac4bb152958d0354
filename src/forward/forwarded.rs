//! Fields that identify the client and the requested target to the origin: `Forwarded` (RFC 7239)
//! and `X-Forwarded-*`.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    forwarded_fields::{X_FORWARDED_HOST, X_FORWARDED_PROTO, first},
    source::RequestSource,
};
use crate::{
    field::{RequestFields, forwarded},
    key::OriginTarget,
    server::ForwardedHeaders,
};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Appends the fields that describe the client and the target as the client requested it.
pub(super) fn append(
    outgoing: &mut RequestFields,
    client: &HeaderMap,
    target: &OriginTarget<'_>,
    source: &RequestSource<'_>,
) {
    let chain = if source.is_trusted { chain(client) } else { String::new() };
    if chain.is_empty()
        && target.forwarded_fields.is_empty()
        && let Some(cache) = source.cache
    {
        let known = cache.get_or_init(|| ForwardedHeaders {
            host: target.requested_host.as_ref().into(),
            fields: forwarded_fields(target, source, ""),
        });
        if *known.host == *target.requested_host {
            return outgoing.append_all(&known.fields);
        }
    }
    outgoing.append_all(&forwarded_fields(target, source, &chain));
}

fn forwarded_fields(
    target: &OriginTarget<'_>,
    source: &RequestSource<'_>,
    chain: &str,
) -> RequestFields {
    let mut fields = RequestFields::default();
    if let Some(element) = forwarded(target, source, chain) {
        fields.append(&header::FORWARDED, &element);
    }
    if let Some(address) = address(source.peer, chain) {
        fields.append(&X_FORWARDED_FOR, &address);
    }
    let is_told = |name: &HeaderName| target.forwarded_fields.iter().any(|(told, _)| told == name);
    if !is_told(&X_FORWARDED_PROTO) {
        fields.append(&X_FORWARDED_PROTO, &HeaderValue::from_static(target.scheme.as_str()));
    }
    if !is_told(&X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::from_str(&target.requested_host)
        && !host.is_empty()
    {
        fields.append(&X_FORWARDED_HOST, &host);
    }
    for (name, value) in &target.forwarded_fields {
        fields.append(name, value);
    }
    fields
}

/// Returns the addresses in a trusted proxy's forwarding fields, beginning with the client's.
fn chain(client: &HeaderMap) -> String {
    let lines = client.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
    let chain = lines.collect::<Vec<_>>().join(", ");
    if chain.is_empty() { forwarded::all(client, "for").join(", ") } else { chain }
}

/// Builds `Forwarded`: the first element names the requested host, and the last one names this
/// hop's peer.
fn forwarded(
    target: &OriginTarget<'_>,
    source: &RequestSource<'_>,
    chain: &str,
) -> Option<HeaderValue> {
    let mut value = String::with_capacity(96);
    let mut earlier = chain.split(',').map(str::trim).filter(|address| !address.is_empty());
    match earlier.next() {
        Some(client) => push_node(&mut value, client),
        None => push_peer(&mut value, source.peer)?,
    }
    let trusted = |wanted: &HeaderName| {
        target
            .forwarded_fields
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| first(value))
    };
    push_parameter(&mut value, ";host=", trusted(&X_FORWARDED_HOST), &target.requested_host);
    push_parameter(&mut value, ";proto=", trusted(&X_FORWARDED_PROTO), target.scheme.as_str());
    if !chain.is_empty() {
        for address in earlier {
            value.push_str(", ");
            push_node(&mut value, address);
        }
        value.push_str(", ");
        push_peer(&mut value, source.peer)?;
    }
    HeaderValue::from_maybe_shared(Bytes::from(value)).ok()
}

fn push_peer(text: &mut String, peer: Option<IpAddr>) -> Option<()> {
    text.push_str("for=");
    match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V4(peer)) => push_ipv4(text, peer),
        Some(IpAddr::V6(peer)) => write!(text, "\"[{peer}]\"").ok()?,
        None => text.push_str("unknown"),
    }
    Some(())
}

/// Appends one address from another proxy's chain: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, or a
/// name.
fn push_node(text: &mut String, node: &str) {
    text.push_str("for=");
    let bare = node.trim_matches(['[', ']']);
    if let Ok(IpAddr::V6(address)) = bare.parse() {
        let _infallible = write!(text, "\"[{address}]\"");
    } else {
        push_quoted(text, node);
    }
}

/// Appends a parameter: the trusted value, or `own` if there is none. Omits it if the value is
/// empty.
fn push_parameter(text: &mut String, name: &str, trusted: Option<&[u8]>, own: &str) {
    let value = trusted.and_then(|trusted| std::str::from_utf8(trusted).ok()).unwrap_or(own);
    if !value.is_empty() {
        text.push_str(name);
        push_quoted(text, value);
    }
}

fn push_quoted(text: &mut String, value: &str) {
    if is_token(value) {
        return text.push_str(value);
    }
    text.push('"');
    let is_plain = |character: &char| !matches!(character, '"' | '\\') && !character.is_control();
    text.extend(value.chars().filter(is_plain));
    text.push('"');
}

/// Appends an IPv4 address faster than `Display`: every forwarded request contains two addresses.
fn push_ipv4(text: &mut String, address: Ipv4Addr) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
}

/// Builds `X-Forwarded-For` with this hop's peer at its end. Returns `None` if the peer has no
/// address.
fn address(peer: Option<IpAddr>, chain: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(16 + chain.len());
    if !chain.is_empty() {
        text.push_str(chain);
        text.push_str(", ");
    }
    match peer?.to_canonical() {
        IpAddr::V4(peer) => push_ipv4(&mut text, peer),
        IpAddr::V6(peer) => write!(text, "{peer}").ok()?,
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
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
    use crate::key::uri::Scheme;

    fn written(peer: Option<&str>, chain: &str) -> (String, Option<String>) {
        let source = RequestSource {
            peer: peer.map(|peer| peer.parse().unwrap()),
            version: Version::HTTP_11,
            is_trusted: false,
            is_gateway: false,
            request_id: None,
            cache: None,
        };
        let target = OriginTarget::plain(Scheme::Http, "a.test", "/");
        let fields = forwarded_fields(&target, &source, chain).to_map();
        let text = |name| Some(fields.get(name)?.to_str().unwrap().to_owned());
        (text(header::FORWARDED).unwrap(), text(X_FORWARDED_FOR))
    }

    #[test]
    fn addresses_are_written_as_the_rfc_wants() {
        let element = |peer| written(peer, "").0;
        assert_eq!(element(Some("2001:db8::1")), r#"for="[2001:db8::1]";host=a.test;proto=http"#);
        assert_eq!(element(Some("::ffff:192.0.2.1")), "for=192.0.2.1;host=a.test;proto=http");
        for address in ["0.0.0.0", "1.20.100.255", "10.9.99.200", "255.255.255.255"] {
            let expected = format!("for={address};host=a.test;proto=http");
            assert_eq!(written(Some(address), ""), (expected, Some(address.to_owned())));
        }
        assert_eq!(written(None, ""), ("for=unknown;host=a.test;proto=http".to_owned(), None));
    }

    #[test]
    fn a_chain_goes_on_with_this_hops_peer() {
        let (element, address) = written(Some("10.0.0.1"), "2001:db8::1, 192.0.2.1:80, a\"b");
        let expected = r#"for="[2001:db8::1]";host=a.test;proto=http, for="192.0.2.1:80", for="ab", for=10.0.0.1"#;
        assert_eq!(element, expected);
        assert_eq!(address.as_deref(), Some("2001:db8::1, 192.0.2.1:80, a\"b, 10.0.0.1"));
    }
}

//! The address of the client, for permissions by address. Pure.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::field::list;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Names of fields that show that a proxy forwarded the request.
const PROXY_MARKS: [&str; 5] = ["via", "cdn-loop", "cf-ray", "x-amz-cf-id", "front-end-https"];

/// Suffixes of the names of fields in which proxies, CDNs and clouds send a client address.
const ADDRESS_SUFFIXES: [&str; 12] = [
    "forwarded-for",
    "client-ip",
    "clientip",
    "client-connection-ip",
    "connecting-ip",
    "connecting-ipv6",
    "real-ip",
    "remote-ip",
    "remote-addr",
    "user-ip",
    "socketip",
    "external-address",
];

/// A hint in a request field that the request passed through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProxyHint {
    /// The field holds the address of a client, and some servers trust it.
    Address,
    /// A proxy forwarded the request.
    Proxy,
}

/// Returns the client address of a request, or `None` if it is uncertain.
///
/// - From an untrusted peer: the peer's address. `None` if any field shows that a proxy forwarded
///   the request: permissions of the proxy's address do not apply to its clients.
/// - From a trusted peer: the last untrusted address in `X-Forwarded-For` or `Forwarded`. `None` if
///   both are missing, if one of them is unreadable, or if any field names another client. A proxy
///   that names no client, or lets clients name themselves, gives no permissions.
pub(super) fn address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !is_trusted(peer) {
        let is_forwarded = headers.keys().any(|name| hint(name).is_some());
        return (!is_forwarded).then_some(peer);
    }
    let client = forwarded_client(headers, &is_trusted)?;
    let agrees = |value: &HeaderValue| {
        parse_ip(value.as_bytes()).is_some_and(|other| other == client || is_trusted(other))
    };
    let mut others = headers.iter().filter(|(name, _)| {
        **name != X_FORWARDED_FOR
            && **name != header::FORWARDED
            && hint(name) == Some(ProxyHint::Address)
    });
    others.all(|(_, value)| agrees(value)).then_some(client)
}

/// Returns the client that a trusted peer names in `X-Forwarded-For` or `Forwarded`; `None` if the
/// fields differ.
fn forwarded_client(headers: &HeaderMap, is_trusted: &impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let chain = |name: HeaderName, read: fn(&[u8]) -> Option<IpAddr>| {
        headers.contains_key(&name).then(|| {
            let hops: Vec<_> = list::members(headers, name).map(read).collect();
            first_untrusted(&hops, is_trusted)
        })
    };
    match (chain(X_FORWARDED_FOR, parse_ip), chain(header::FORWARDED, forwarded_for)) {
        (Some(client), None) | (None, Some(client)) => client,
        (Some(client), Some(same)) if client == same => client,
        _ => None,
    }
}

/// Returns the address of the last hop that is not trusted, or of the first hop if all are trusted.
/// `None` if that hop or a later hop has no address.
fn first_untrusted(
    hops: &[Option<IpAddr>],
    is_trusted: &impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut client = None;
    for hop in hops.iter().rev() {
        client = Some((*hop)?);
        if client.is_some_and(|client| !is_trusted(client)) {
            break;
        }
    }
    client
}

/// Returns the hint in a field's name; `None` for most fields. `_` counts as `-`, because CGI
/// variables do not distinguish them.
fn hint(name: &HeaderName) -> Option<ProxyHint> {
    let name = name.as_str().replace('_', "-");
    let is_address = ADDRESS_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || matches!(&*name, "forwarded" | "x-forwarded");
    let is_mark = name.contains("forwarded") || PROXY_MARKS.contains(&&*name);
    match (is_address, is_mark) {
        (true, _) => Some(ProxyHint::Address),
        (false, true) => Some(ProxyHint::Proxy),
        (false, false) => None,
    }
}

/// Parses an address without a port, as in `X-Forwarded-For`; `None` if invalid.
fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Parses the `for` parameter of a `Forwarded` element (RFC 7239 §4), without its port.
///
/// `None` if the element does not have exactly one `for`, if the value is obfuscated, or if the
/// element has an escape.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let element = std::str::from_utf8(element).ok().filter(|element| !element.contains('\\'))?;
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (Some((_, node)), None) = (nodes.next(), nodes.next()) else {
        return None;
    };
    let node = node.trim();
    let node = match node.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => node,
    };
    match node.strip_prefix('[') {
        Some(bracketed) => parse_ip(bracketed.strip_suffix(']')?.as_bytes()),
        None => parse_ip(node.as_bytes()).filter(IpAddr::is_ipv4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let address = address(Some(peer.parse().unwrap()), &headers, &trusted);
        address.map_or("-".to_owned(), |address| address.to_string())
    }

    #[test]
    fn the_address_is_the_peer_or_named_by_trusted_proxies() {
        let forwarded = "x-forwarded-for";
        assert_eq!(client("1.2.3.4", &[]), "1.2.3.4");
        assert_eq!(client("::ffff:1.2.3.4", &[]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[(forwarded, "1.2.3.4")]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[(forwarded, "6.6.6.6, 1.2.3.4, 10.0.0.2")]), "1.2.3.4");
        let lines = [(forwarded, "6.6.6.6"), (forwarded, "1.2.3.4"), (forwarded, "10.0.0.2")];
        assert_eq!(client("10.0.0.1", &lines), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[(forwarded, "10.0.0.9, 10.0.0.2")]), "10.0.0.9");
    }

    #[test]
    fn forwarded_elements_are_read_as_the_rfc_has_them() {
        for (value, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("proto=http; For=\"1.2.3.4\" ;by=10.0.0.1", "1.2.3.4"),
            ("for=6.6.6.6, for=1.2.3.4;host=\"a,b\", for=10.0.0.2", "1.2.3.4"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=\"1.2.3.4:80\"", "-"),
            ("for=unknown", "-"),
            ("for=1.2.3.4, for=_hidden", "-"),
            ("for=1.2.3.4;for=10.0.0.2", "-"),
            ("for=\"1.2.3.\\4\"", "-"),
            ("for=\"1.2.3.4", "-"),
            ("for=1.2.3.4, proto=http", "-"),
            ("", "-"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn behind_a_proxy_that_is_not_trusted_there_is_no_address() {
        assert_eq!(address(None, &HeaderMap::new(), &[]), None);
        let fields = ["x-forwarded-for", "via", "x_forwarded_host", "x-vercel-forwarded-for"];
        for name in fields {
            assert_eq!(client("1.2.3.4", &[(name, "1.2.3.4")]), "-", "{name}");
        }
        for name in ["accept", "x-request-id", "client-ipsum", "x-real-ipanema", "viable"] {
            assert_eq!(client("1.2.3.4", &[(name, "1.2.3.4")]), "1.2.3.4", "{name}");
        }
    }

    #[test]
    fn a_trusted_proxy_that_names_no_client_has_no_address() {
        assert_eq!(client("10.0.0.1", &[]), "-");
        assert_eq!(client("10.0.0.1", &[("via", "1.1 proxy")]), "-");
        assert_eq!(client("10.0.0.1", &[("x-real-ip", "1.2.3.4")]), "-");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "unknown")]), "-");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "")]), "-");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, unknown")]), "-");
    }

    #[test]
    fn fields_that_name_different_clients_name_none() {
        let forwarded = ("x-forwarded-for", "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[forwarded, ("forwarded", "for=6.6.6.6")]), "-");
        assert_eq!(client("10.0.0.1", &[forwarded, ("forwarded", "for=1.2.3.4")]), "1.2.3.4");
        for (value, expected) in
            [("6.6.6.6", "-"), ("unknown", "-"), ("1.2.3.4", "1.2.3.4"), ("10.0.0.2", "1.2.3.4")]
        {
            for name in ["x-real-ip", "true-client-ip", "x_forwarded_for"] {
                assert_eq!(client("10.0.0.1", &[forwarded, (name, value)]), expected, "{name}");
            }
        }
    }
}

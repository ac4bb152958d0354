//! Checks and normalises a request before it reaches a handler (RFC 9112 §3.2, RFC 9113 §8.3.1).
//! Pure.

use std::{net::Ipv6Addr, sync::OnceLock};

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::refusal::RequestRefusal;

/// The first valid host of a connection. It is cached, since most requests on a connection name the
/// same host.
#[derive(Debug, Default)]
pub(super) struct ValidatedHost(OnceLock<HeaderValue>);

impl ValidatedHost {
    fn is_host(&self, host: &[u8]) -> bool {
        let known = self.0.get();
        if known.is_some_and(|known| known.as_bytes() == host) {
            return true;
        }
        let is_valid = is_host(host);
        // Cached as a copy: the value itself would keep its whole read buffer in memory.
        if is_valid
            && known.is_none()
            && let Ok(copy) = HeaderValue::from_bytes(host)
        {
            let _ = self.0.set(copy);
        }
        is_valid
    }

    /// Returns the host as a field value. Fails if the host is invalid.
    fn value(&self, host: &[u8]) -> Result<HeaderValue, RequestRefusal> {
        if !self.is_host(host) {
            return Err(RequestRefusal::Host);
        }
        match self.0.get() {
            Some(known) if known.as_bytes() == host => Ok(known.clone()),
            _ => HeaderValue::from_bytes(host).map_err(|_| RequestRefusal::Host),
        }
    }
}

/// Checks and normalises the target and the host. Afterwards the target is in origin form, and the
/// host is in `Host`.
///
/// The authority of an absolute-form target, or `:authority`, replaces `Host` (RFC 9112 §3.2.2).
pub(super) fn validate<B>(
    request: &mut Request<B>,
    known: &ValidatedHost,
) -> Result<(), RequestRefusal> {
    if request.method() == Method::CONNECT {
        return Err(RequestRefusal::Connect);
    }
    let authority = match request.uri().authority() {
        None => None,
        Some(_) => Some(take_authority(request.uri_mut(), known)?),
    };
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let is_asterisk = target == "*" && request.method() == Method::OPTIONS;
    if !target.is_ascii() || (!target.starts_with('/') && !is_asterisk) {
        return Err(RequestRefusal::Target);
    }
    let version = request.version();
    normalize_host(request.headers_mut(), version, authority, known)
}

/// Removes the authority from the target and returns it as a field value.
fn take_authority(uri: &mut Uri, known: &ValidatedHost) -> Result<HeaderValue, RequestRefusal> {
    let scheme = uri.scheme_str().ok_or(RequestRefusal::Target)?;
    if scheme != "http" && scheme != "https" {
        return Err(RequestRefusal::Target);
    }
    let target = std::mem::take(uri).into_parts();
    let authority = target.authority.as_ref().map_or("", |authority| authority.as_str());
    *uri = target.path_and_query.map(Uri::from).unwrap_or_default();
    known.value(authority.as_bytes())
}

fn normalize_host(
    headers: &mut HeaderMap,
    version: Version,
    authority: Option<HeaderValue>,
    known: &ValidatedHost,
) -> Result<(), RequestRefusal> {
    let given = single_host(headers, known)?;
    let is_modern = version == Version::HTTP_2;
    match (given, authority) {
        (Some(given), Some(authority)) => {
            if is_modern && !given.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) {
                return Err(RequestRefusal::Host);
            }
            headers.insert(header::HOST, authority);
        }
        (None, Some(authority)) if is_modern || version == Version::HTTP_10 => {
            headers.insert(header::HOST, authority);
        }
        (None, None) if version == Version::HTTP_10 => {}
        (None, _) => return Err(RequestRefusal::Host),
        (Some(_), None) => {}
    }
    Ok(())
}

fn single_host<'h>(
    headers: &'h HeaderMap,
    known: &ValidatedHost,
) -> Result<Option<&'h HeaderValue>, RequestRefusal> {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let Some(host) = hosts.next() else {
        return Ok(None);
    };
    let is_valid = hosts.next().is_none() && known.is_host(host.as_bytes());
    is_valid.then_some(Some(host)).ok_or(RequestRefusal::Host)
}

/// Returns whether these bytes have the form `uri-host [ ":" port ]` (RFC 9110 §7.2) with a
/// non-empty host.
///
/// Stricter than RFC 3986: `%` and sub-delimiters, which no host name contains, are invalid.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = if let Some((b'[', rest)) = host.split_first() {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let (address, rest) = rest.split_at(end);
        if !is_ipv6(address) {
            return false;
        }
        (None, rest.get(1..).unwrap_or_default())
    } else {
        let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
        let (name, port) = host.split_at(end);
        (Some(name), port)
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    name.is_none_or(|name| !name.is_empty() && name.iter().all(is_name)) && is_port(port)
}

fn is_ipv6(address: &[u8]) -> bool {
    std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_port(port: &[u8]) -> bool {
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn validated(method: &str, target: &str, hosts: &[&str], version: Version) -> String {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        let mut request = request.body(()).unwrap();
        match validate(&mut request, &ValidatedHost::default()) {
            Ok(()) => {
                let host = request.headers().get("host");
                let host = host.map_or("-", |host| host.to_str().unwrap());
                format!("{host} {}", request.uri())
            }
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn targets_come_in_one_form() {
        let one = |method, target, host| validated(method, target, &[host], Version::HTTP_11);
        assert_eq!(one("GET", "/a%2Fb?c=d&", "h:80"), "h:80 /a%2Fb?c=d&");
        assert_eq!(one("GET", "http://b:81/x?y", "a"), "b:81 /x?y");
        assert_eq!(one("GET", "http://b", "a"), "b /");
        assert_eq!(one("OPTIONS", "*", "a"), "a *");
        assert_eq!(one("GET", "*", "a"), "Target");
        assert_eq!(one("GET", "/caf\u{e9}", "a"), "Target", "not percent-encoded");
        assert_eq!(one("GET", "a:80", "a"), "Target");
        assert_eq!(one("GET", "ftp://a/", "a"), "Target");
        assert_eq!(one("GET", "http://user@a/", "a"), "Host");
        assert_eq!(one("CONNECT", "a:443", "a"), "Connect");
    }

    #[test]
    fn there_is_exactly_one_host() {
        let with = |hosts: &[&str], version| validated("GET", "/", hosts, version);
        assert_eq!(with(&[], Version::HTTP_11), "Host");
        assert_eq!(with(&["a", "a"], Version::HTTP_11), "Host");
        assert_eq!(with(&[], Version::HTTP_10), "- /");
        let h2 = |hosts: &[&str]| validated("GET", "https://a.b/", hosts, Version::HTTP_2);
        assert_eq!(h2(&[]), "a.b /");
        assert_eq!(h2(&["A.B"]), "a.b /");
        assert_eq!(h2(&["c"]), "Host");
    }

    #[test]
    fn hosts_are_names_addresses_and_ports() {
        for host in ["a", "a-b.c_d:8080", "127.0.0.1", "[::1]:80", "[::1]", "a:"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in
            ["", ":80", "a b", "a@b", "a/b", "a:b", "a,b", "[::1", "[g]", "[::1]x", "a:80:80", "é"]
        {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn another_host_is_checked_although_one_is_known() {
        let known = ValidatedHost::default();
        for (host, expected) in
            [("a/b", false), ("a", true), ("b", true), ("a", true), ("a ", false)]
        {
            assert_eq!(known.is_host(host.as_bytes()), expected, "{host}");
            assert_eq!(known.value(host.as_bytes()).is_ok(), expected, "{host}");
        }
        assert_eq!(known.value(b"b").unwrap(), "b");
    }
}

//! What a proxy changes in the heads that it forwards (RFC 9110 §7.6), as pure functions.

use std::{net::IpAddr, sync::OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use ipnet::IpNet;

use super::{forwarded, random};
use crate::{
    field::{Timestamp, hop},
    server::Introduction,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The field by which one request is found in every log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer request ids are replaced.
const REQUEST_ID_BYTES: usize = 128;

/// How this process signs the messages that it forwards.
#[derive(Debug, Clone)]
pub struct Identity {
    id: String,
    requests: [HeaderValue; 3],
    responses: [HeaderValue; 3],
}

impl Identity {
    /// An identity that no other process has.
    pub fn random() -> Self {
        Self::new(&format!("{:016x}", random::next()))
    }

    /// This identity; characters that a comment cannot have are left out.
    pub fn new(id: &str) -> Self {
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let versions = ["1.0", "1.1", "2"];
        let signed = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1.1 larder"))
        };
        Self {
            requests: versions.map(|version| signed(format!("{version} larder ({id})"))),
            responses: versions.map(|version| signed(format!("{version} larder"))),
            id: format!("({id})"),
        }
    }

    fn for_request(&self, version: Version) -> HeaderValue {
        pick(&self.requests, version)
    }

    fn for_response(&self, version: Version) -> HeaderValue {
        pick(&self.responses, version)
    }
}

fn pick([http10, http11, http2]: &[HeaderValue; 3], version: Version) -> HeaderValue {
    match version {
        Version::HTTP_2 => http2.clone(),
        Version::HTTP_10 => http10.clone(),
        _ => http11.clone(),
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The other end of the client's connection; none on Unix sockets.
    pub peer: Option<IpAddr>,
    /// Whether that connection is TLS.
    pub secure: bool,
    /// The version of the request.
    pub version: Version,
    /// Peers whose forwarding fields are believed and continued.
    pub trusted: &'a [IpNet],
    /// Where it is remembered how this client is introduced.
    pub known: Option<&'a OnceLock<Introduction>>,
}

impl Source<'_> {
    /// Whether what the peer says about its own clients is believed.
    pub fn is_trusted(&self) -> bool {
        self.peer
            .is_some_and(|peer| self.trusted.iter().any(|net| net.contains(&peer.to_canonical())))
    }

    /// How origins are told of it when it asks for this host.
    fn introduction(&self, host: Option<&HeaderValue>) -> Introduction {
        let introduce = || forwarded::introduction(self, host);
        match self.known.map(|known| known.get_or_init(introduce)) {
            Some(known) if known.host.as_ref() == host => known.clone(),
            _ => introduce(),
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Whether this process has forwarded the request before: the caller answers 508.
pub fn is_loop(headers: &HeaderMap, identity: &Identity) -> bool {
    let id = identity.id.as_bytes();
    let is_ours = |via: &HeaderValue| via.as_bytes().windows(id.len()).any(|part| part == id);
    headers.get_all(header::VIA).into_iter().any(is_ours)
}

/// Whether the client asks to leave HTTP on this connection, for a protocol that can be passed on.
pub fn is_upgrade(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(header::UPGRADE)
        && has_token(headers, &header::CONNECTION, "upgrade")
        && !has_token(headers, &header::UPGRADE, "h2c")
}

/// Fields that a request may gain on its way.
const ADDED: usize = 8;

/// A client's fields as they go to the origin. `Host` is left: the origin settles it; and so is
/// `X-Request-ID`, see [`ensure_request_id`].
///
/// On the way of every request that is passed on: one pass, into a map that need not grow.
pub fn request_headers(headers: &HeaderMap, source: &Source<'_>, identity: &Identity) -> HeaderMap {
    if headers.contains_key(header::CONNECTION) {
        let mut unlisted = headers.clone();
        hop::remove_listed(&mut unlisted);
        return onward(&unlisted, source, identity);
    }
    onward(headers, source, identity)
}

fn onward(headers: &HeaderMap, source: &Source<'_>, identity: &Identity) -> HeaderMap {
    let mut onward = HeaderMap::with_capacity(headers.len() + ADDED);
    let is_trusted = source.is_trusted();
    let mut belongs_to_hop = false;
    let mut earlier = Earlier::SaidNothing;
    for (name, value) in headers {
        if hop::is_hop_by_hop(name) {
            belongs_to_hop = true;
        } else if !is_forwarding(name) {
            onward.append(name, value.clone());
        } else if is_trusted {
            onward.append(name, value.clone());
            earlier = Earlier::Said;
        }
    }
    if belongs_to_hop {
        continue_hop(headers, &mut onward, source.version);
    }
    onward.append(header::VIA, identity.for_request(source.version));
    forward(&mut onward, source, earlier);
    onward
}

/// Whether a proxy before this one that is believed has said whom it forwards for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    SaidNothing,
    Said,
}

/// What is asked of this connection and may be asked of the next one too.
fn continue_hop(headers: &HeaderMap, onward: &mut HeaderMap, version: Version) {
    let upgrade = headers.get(header::UPGRADE).filter(|_| is_upgrade(headers, version));
    if let Some(upgrade) = upgrade {
        onward.insert(header::UPGRADE, upgrade.clone());
        onward.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if has_token(headers, &header::TE, "trailers") {
        onward.insert(header::TE, HeaderValue::from_static("trailers"));
        onward.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Turns an origin's fields into those that go to the client. A 101 keeps what it switches to.
///
/// `Date` is added where the origin sent none (RFC 9110 §6.6.1): `now` is when the response was received.
pub fn response_headers(
    status: StatusCode,
    headers: &mut HeaderMap,
    version: Version,
    identity: &Identity,
    now: Timestamp,
) {
    let upgrade = (status == StatusCode::SWITCHING_PROTOCOLS)
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten();
    hop::remove(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date(now));
    }
    headers.append(header::VIA, identity.for_response(version));
}

/// Tells the origin who asked (RFC 7239 and its predecessors), after what the peer may have said of it.
fn forward(headers: &mut HeaderMap, source: &Source<'_>, earlier: Earlier) {
    let Introduction { host, element, address } = source.introduction(headers.get(header::HOST));
    if let Some(element) = element {
        headers.append(header::FORWARDED, element);
    }
    if earlier == Earlier::SaidNothing {
        let scheme = HeaderValue::from_static(source.scheme());
        for (name, value) in [
            (X_FORWARDED_FOR, address),
            (X_FORWARDED_PROTO, Some(scheme)),
            (X_FORWARDED_HOST, host),
        ] {
            value.map(|value| headers.append(name, value));
        }
        return;
    }
    if let Some(value) = forwarded::for_chain(headers.get_all(&X_FORWARDED_FOR), source.peer) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(source.scheme()));
    }
    if let (Some(host), false) = (host, headers.contains_key(&X_FORWARDED_HOST)) {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Whether proxies tell each other about the client by this field. Origins build links and redirects from
/// such, so that a stranger's would get into what others are answered.
fn is_forwarding(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Gives a request without a usable `X-Request-ID` a new one, by which it is found in every log.
pub fn ensure_request_id(headers: &mut HeaderMap) {
    let is_usable = headers.get(&X_REQUEST_ID).is_some_and(|id| {
        (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if !is_usable && let Ok(id) = HeaderValue::from_bytes(&request_id()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// A new request id: 32 hexadecimal digits.
fn request_id() -> [u8; 32] {
    let mut id = [0; 32];
    let (first, second) = (random::next(), random::next());
    let parts = [first >> 32, first, second >> 32, second];
    for (digits, part) in id.chunks_exact_mut(8).zip(parts) {
        digits.copy_from_slice(&hex(part & 0xffff_ffff));
    }
    id
}

/// Eight hexadecimal digits, all at once: every request that is passed on may need an id.
fn hex(number: u64) -> [u8; 8] {
    let halves = (number << 16 | number) & 0x0000_ffff_0000_ffff;
    let bytes = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    let digits = (bytes << 4 | bytes) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

fn date(now: Timestamp) -> HeaderValue {
    let since = std::time::Duration::from_secs(now.seconds().min(LAST_SECOND));
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since);
    HeaderValue::try_from(date).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The end of the year 9999, beyond which an HTTP-date cannot be written.
const LAST_SECOND: u64 = 253_402_300_799;

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let is_token = |part: &[u8]| {
        let name = part.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    };
    headers
        .get_all(name)
        .into_iter()
        .any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn rewritten(lines: &[(&'static str, &'static str)], trusted: &[IpNet]) -> HeaderMap {
        let source = Source {
            peer: Some("192.0.2.1".parse().unwrap()),
            secure: true,
            version: Version::HTTP_11,
            trusted,
            known: None,
        };
        request_headers(&headers(lines), &source, &Identity::new("3f9c"))
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn upgrades_and_trailers_are_asked_for_again() {
        let asked = rewritten(&[("connection", "Upgrade"), ("upgrade", "websocket")], &[]);
        assert_eq!(
            (&asked["connection"], &asked["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let h2c = rewritten(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], &[]);
        assert!(!h2c.contains_key("upgrade") && !h2c.contains_key("connection"));
        let trailers = rewritten(&[("te", "gzip, trailers;q=0.5"), ("connection", "te")], &[]);
        assert_eq!(values(&trailers, "te"), ["trailers"]);
    }

    #[test]
    fn our_own_requests_are_recognised() {
        let identity = Identity::new("3f9c");
        let once = rewritten(&[("via", "1.0 fred")], &[]);
        assert_eq!(values(&once, "via"), ["1.0 fred", "1.1 larder (3f9c)"]);
        assert!(is_loop(&once, &identity));
        assert!(!is_loop(&once, &Identity::new("3f9")));
        assert!(!is_loop(&headers(&[("via", "1.1 larder")]), &identity));
    }

    #[test]
    fn strangers_do_not_say_whom_they_forward_for() {
        let lines = [
            ("host", "api.test:8443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let stranger = rewritten(&lines, &[]);
        assert_eq!(values(&stranger, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&stranger, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&stranger, "x-forwarded-host"), ["api.test:8443"]);
        let element = r#"for=192.0.2.1;host="api.test:8443";proto=https"#;
        assert_eq!(values(&stranger, "forwarded"), [element]);
        let trusted = rewritten(&lines, &["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(values(&trusted, "x-forwarded-for"), ["10.0.0.1, 192.0.2.1"]);
        assert_eq!(values(&trusted, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&trusted, "forwarded"), ["for=10.0.0.1", element]);
    }

    #[test]
    fn numbers_are_written_in_hexadecimal() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, 0xffff_ffff, 0x00a0_9f90] {
            assert_eq!(hex(number), format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let ensured = |lines| {
            let mut headers = headers(lines);
            ensure_request_id(&mut headers);
            values(&headers, "x-request-id")
        };
        assert_eq!(ensured(&[("x-request-id", "abc")]), ["abc"]);
        assert_eq!(values(&rewritten(&[("x-request-id", "abc")], &[]), "x-request-id"), ["abc"]);
        let first = ensured(&[("x-request-id", "a b")]);
        assert!(first[0].len() == 32 && first[0].bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(first, ensured(&[]));
    }

    #[test]
    fn a_connection_remembers_its_client_and_not_the_host_of_another_request() {
        let known = OnceLock::new();
        for (host, path) in [("a.test", "first"), ("a.test", "again"), ("b.test:8", "other")] {
            let source = Source {
                peer: Some("192.0.2.1".parse().unwrap()),
                secure: false,
                version: Version::HTTP_11,
                trusted: &[],
                known: Some(&known),
            };
            let asked = headers(&[("host", host), ("x-path", path)]);
            let told = request_headers(&asked, &source, &Identity::new("3f9c"));
            let expected = match host {
                "a.test" => "for=192.0.2.1;host=a.test;proto=http",
                _ => r#"for=192.0.2.1;host="b.test:8";proto=http"#,
            };
            assert_eq!(values(&told, "forwarded"), [expected], "{path}");
            assert_eq!(values(&told, "x-forwarded-host"), [host], "{path}");
            assert_eq!(values(&told, "x-forwarded-for"), ["192.0.2.1"], "{path}");
        }
    }

    #[test]
    fn responses_are_signed_and_dated() {
        let identity = Identity::new("3f9c");
        let now = Timestamp::from_seconds(784_111_777);
        let mut answer = headers(&[("connection", "close"), ("via", "1.1 a")]);
        response_headers(StatusCode::OK, &mut answer, Version::HTTP_2, &identity, now);
        assert_eq!(values(&answer, "via"), ["1.1 a", "2 larder"]);
        assert_eq!(values(&answer, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
        let mut switch =
            headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("date", "x")]);
        response_headers(
            StatusCode::SWITCHING_PROTOCOLS,
            &mut switch,
            Version::HTTP_11,
            &identity,
            now,
        );
        assert_eq!(values(&switch, "upgrade"), ["websocket"]);
        assert_eq!(values(&switch, "date"), ["x"]);
    }
}

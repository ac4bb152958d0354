//! The head of a request to the origin (RFC 9110 §7.6).

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{
    ViaIdentity, forwarded, max_forwards, request_id::X_REQUEST_ID, source::RequestSource,
};
use crate::{
    field::{RequestFields, forwarding::ForwardingKind, hop, list},
    key::OriginTarget,
};

/// Returns whether the client requests an upgrade to a protocol that can be forwarded.
pub fn is_upgrade(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(header::UPGRADE)
        && has_token(headers, &header::CONNECTION, "upgrade")
        && !has_token(headers, &header::UPGRADE, "h2c")
}

/// Initial buffer size in bytes for all fields that forwarding adds.
const ADDED_BYTES: usize = 384;
/// Initial buffer size in bytes for each client field.
const FIELD_BYTES: usize = 64;

/// Returns the fields to send to the origin for a client's request, without `omitted` fields.
///
/// Fields that describe the target come from `target` only. The caller has removed the fields that
/// the client's `Connection` lists, see [`hop::remove_listed`]. `X-Request-ID` comes from `source`
/// only. Makes one pass, because it runs for every forwarded request.
pub fn fields(
    client: &HeaderMap,
    target: &OriginTarget<'_>,
    source: &RequestSource<'_>,
    identity: &ViaIdentity,
    omitted: impl Fn(&HeaderName) -> bool,
) -> RequestFields {
    let mut outgoing = RequestFields::with_capacity(ADDED_BYTES + FIELD_BYTES * client.len());
    outgoing.set_host(&target.host);
    let max_forwards = max_forwards::decremented(target.method, client);
    let mut belongs_to_hop = false;
    for (name, value) in client {
        if hop::is_hop_by_hop(name) {
            belongs_to_hop = true;
        } else if is_passed_on(name, source)
            && !omitted(name)
            && (max_forwards.is_none() || *name != header::MAX_FORWARDS)
        {
            outgoing.append(name, value);
        }
    }
    if belongs_to_hop {
        continue_hop(client, &mut outgoing, source.version);
    }
    if let Some(max_forwards) = max_forwards {
        outgoing.append(&header::MAX_FORWARDS, &max_forwards);
    }
    if let Some(id) = source.request_id {
        outgoing.append_visible(&X_REQUEST_ID, id);
    }
    outgoing.append(&header::VIA, identity.for_request(source.version));
    forwarded::append(&mut outgoing, client, target, source);
    outgoing
}

/// Returns whether a field is forwarded unchanged. Excludes `Host`, fields that Larder rebuilds,
/// and the forwarding fields of untrusted clients.
fn is_passed_on(name: &HeaderName, source: &RequestSource<'_>) -> bool {
    match ForwardingKind::of(name.as_str()) {
        None => ![header::HOST, hop::LARDER_WARM, X_REQUEST_ID].contains(name),
        Some(ForwardingKind::Target) => false,
        Some(ForwardingKind::Client) => source.is_trusted && *name != forwarded::X_FORWARDED_FOR,
        Some(ForwardingKind::Identity) => source.is_trusted || source.is_gateway,
    }
}

/// Repeats the hop-by-hop fields that also apply to the next connection: `Upgrade` and `TE:
/// trailers`.
fn continue_hop(headers: &HeaderMap, outgoing: &mut RequestFields, version: Version) {
    let upgrade = headers.get(header::UPGRADE).filter(|_| is_upgrade(headers, version));
    if let Some(upgrade) = upgrade {
        outgoing.append(&header::UPGRADE, upgrade);
        outgoing.append(&header::CONNECTION, &HeaderValue::from_static("upgrade"));
    } else if has_token(headers, &header::TE, "trailers") {
        outgoing.append(&header::TE, &HeaderValue::from_static("trailers"));
        outgoing.append(&header::CONNECTION, &HeaderValue::from_static("te"));
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list::members(headers, name).any(|member| {
        let name = member.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::{forward::forwarded_fields, key::uri::Scheme};

    fn given(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    fn rewritten(lines: &[(&'static str, &'static str)], is_trusted: bool) -> HeaderMap {
        let source = RequestSource {
            peer: Some("192.0.2.1".parse().unwrap()),
            version: Version::HTTP_11,
            is_trusted,
            is_gateway: false,
            request_id: None,
            cache: None,
        };
        let client = given(lines);
        let told = if is_trusted { forwarded_fields::of(&client) } else { Vec::new() };
        let target = OriginTarget {
            host: "inner.test".into(),
            forwarded_fields: told,
            ..OriginTarget::plain(Scheme::Https, "api.test:8443", "/")
        };
        fields(&client, &target, &source, &ViaIdentity::new("3f9c"), |_| false).to_map()
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn upgrades_and_trailers_are_asked_for_again() {
        let asked = rewritten(&[("connection", "Upgrade"), ("upgrade", "websocket")], false);
        assert_eq!(
            (&asked["connection"], &asked["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let h2c =
            rewritten(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")], false);
        assert!(!h2c.contains_key("upgrade") && !h2c.contains_key("connection"));
        let trailers = rewritten(&[("te", "gzip, trailers;q=0.5"), ("connection", "te")], false);
        assert_eq!(values(&trailers, "te"), ["trailers"]);
    }

    #[test]
    fn strangers_do_not_say_for_which_client_they_forward() {
        let lines = [
            ("host", "API.test:8443"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-user", "root"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let stranger = rewritten(&lines, false);
        assert_eq!(values(&stranger, "host"), ["inner.test"]);
        assert_eq!(values(&stranger, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&stranger, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&stranger, "x-forwarded-host"), ["api.test:8443"]);
        assert!(!stranger.contains_key("x-forwarded-user") && !stranger.contains_key("x-real-ip"));
        let element = r#"for=192.0.2.1;host="api.test:8443";proto=https"#;
        assert_eq!(values(&stranger, "forwarded"), [element]);
        let trusted = rewritten(&lines, true);
        assert_eq!(values(&trusted, "x-forwarded-for"), ["10.0.0.1, 192.0.2.1"]);
        assert_eq!(values(&trusted, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&trusted, "x-forwarded-user"), ["root"]);
        assert_eq!(values(&trusted, "x-real-ip"), ["10.0.0.1"]);
        let chain = "for=10.0.0.1;host=evil;proto=http, for=192.0.2.1";
        assert_eq!(values(&trusted, "forwarded"), [chain]);
    }

    #[test]
    fn the_origin_receives_one_request_id() {
        let client = given(&[("x-request-id", "a b"), ("x-request-id", "c"), ("x-other", "d")]);
        let target = OriginTarget::plain(Scheme::Http, "a.test", "/");
        let sent = |request_id| {
            let source = RequestSource {
                peer: None,
                version: Version::HTTP_11,
                is_trusted: false,
                is_gateway: false,
                request_id,
                cache: None,
            };
            fields(&client, &target, &source, &ViaIdentity::new("3f"), |_| false).to_map()
        };
        assert_eq!(values(&sent(Some("an-id")), "x-request-id"), ["an-id"]);
        assert_eq!(values(&sent(None), "x-request-id"), [""; 0]);
        assert_eq!(values(&sent(None), "x-other"), ["d"]);
    }

    #[test]
    fn a_connection_remembers_its_client_and_not_the_host_of_another_request() {
        let known = OnceLock::new();
        for host in ["a.test", "a.test", "b.test:8"] {
            let source = RequestSource {
                peer: Some("192.0.2.1".parse().unwrap()),
                version: Version::HTTP_11,
                is_trusted: false,
                is_gateway: false,
                request_id: None,
                cache: Some(&known),
            };
            let target = OriginTarget::plain(Scheme::Http, host, "/");
            let (client, identity) = (HeaderMap::new(), ViaIdentity::new("3f"));
            let outgoing = fields(&client, &target, &source, &identity, |_| false).to_map();
            let expected = match host {
                "a.test" => "for=192.0.2.1;host=a.test;proto=http",
                _ => r#"for=192.0.2.1;host="b.test:8";proto=http"#,
            };
            assert_eq!(values(&outgoing, "forwarded"), [expected]);
            assert_eq!(values(&outgoing, "x-forwarded-host"), [host]);
            assert_eq!(values(&outgoing, "x-forwarded-for"), ["192.0.2.1"]);
        }
    }
}

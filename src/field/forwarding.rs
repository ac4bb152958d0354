//! Request fields that proxies set for the next server, and fields that servers mistake for them.

use http::{HeaderMap, HeaderName};

use super::hop;

/// The subject of a forwarding field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ForwardingKind {
    /// The target as the client requested it: host, scheme, port, prefix. Origins build links from
    /// it.
    Target,
    /// The address of the client.
    Client,
    /// The client's identity, as established by a gateway.
    Identity,
}

impl ForwardingKind {
    /// Returns the subject of a field with this name, or `None` if proxies do not use such a field.
    ///
    /// `name` is in lower case, with `-` for `_`.
    pub(crate) fn of(name: &str) -> Option<Self> {
        if !matches!(name.as_bytes().first(), Some(b'c' | b'd' | b'f' | b'p' | b'w' | b'x')) {
            return None; // most names
        }
        if let Some(rest) = name.strip_prefix("x-forwarded") {
            return Some(by_suffix(rest));
        }
        match name {
            "forwarded"
            | "front-end-https"
            | "x-host"
            | "x-http-host-override"
            | "x-original-host"
            | "x-original-proto"
            | "x-original-scheme"
            | "x-proxy-host"
            | "x-proxy-proto"
            | "x-scheme"
            | "x-url-scheme"
            | "x-https"
            | "x-script-name"
            | "x-replaced-path"
            | "cf-visitor"
            | "cloudfront-forwarded-proto"
            | "disguised-host"
            | "wl-proxy-ssl"
            | "x-arr-ssl"
            | "x-backend-host"
            | "x-base-path"
            | "x-envoy-original-host"
            | "x-ingress-path"
            | "x-ms-original-url"
            | "x-waws-unencoded-url"
            | "proxy" => Some(Self::Target),
            "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-original-for"
            | "x-remote-ip"
            | "x-remote-addr" => Some(Self::Client),
            _ => None,
        }
    }
}

/// Name suffixes after `x-forwarded` that describe the client's identity.
const IDENTITY: [&str; 9] = [
    "-user",
    "-email",
    "-group",
    "-access-token",
    "-preferred-username",
    "-client-cert",
    "-tls-client-cert",
    "-role",
    "-id-token",
];

fn by_suffix(rest: &str) -> ForwardingKind {
    match rest {
        "-for" | "-for-original" => ForwardingKind::Client,
        _ if IDENTITY.iter().any(|start| rest.starts_with(start)) => ForwardingKind::Identity,
        _ => ForwardingKind::Target,
    }
}

/// Fields that some origins treat as the method or target of the request.
///
/// Such origins are Symfony, Laravel, Rails and Express with their override middleware, ASP.NET,
/// and servers behind IIS URL rewriting or Envoy.
pub(crate) const OVERRIDES: [&str; 11] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-method",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-http-path-override",
    "x-envoy-original-path",
];

/// Returns whether some origins treat a field with this name as the request's method or target.
///
/// Runs for each name of every forwarded request. Few names pass the first comparison.
pub(crate) fn is_override(name: &str) -> bool {
    matches!(name.as_bytes(), [b'x', b'-', b'e' | b'h' | b'm' | b'o' | b'r', ..])
        && OVERRIDES.contains(&name)
}

/// Removes trailers that could change how an origin reads the request.
///
/// These are forwarding fields, method or target overrides, and fields that only heads may contain.
pub(crate) fn remove_from_trailers(trailers: &mut HeaderMap) {
    hop::remove_from_trailers(trailers);
    let is_forged = |name: &str| {
        ForwardingKind::of(name).is_some() || OVERRIDES.contains(&name) || is_underscore_alias(name)
    };
    let forged: Vec<HeaderName> =
        trailers.keys().filter(|name| is_forged(name.as_str())).cloned().collect();
    for name in forged {
        trailers.remove(name);
    }
}

/// Returns whether a name with `_` aliases a field that decides how the request is read.
///
/// CGI and WSGI origins cannot distinguish `X_Forwarded_Host` from `X-Forwarded-Host`. For that
/// reason nginx drops all such names.
pub(crate) fn is_underscore_alias(name: &str) -> bool {
    if !name.as_bytes().contains(&b'_') {
        return false;
    }
    let folded = name.replace('_', "-");
    ForwardingKind::of(&folded).is_some()
        || OVERRIDES.contains(&&*folded)
        || FRAMING.contains(&&*folded)
}

/// Fields that describe message framing or the connection.
const FRAMING: [&str; 10] = [
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "upgrade",
    "trailer",
    "expect",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::identity::{IdentityFieldKind, classify};

    #[test]
    fn what_tells_of_the_clients_identity_is_a_credential() {
        for suffix in IDENTITY {
            let name = format!("x-forwarded{suffix}");
            assert_eq!(classify(&name), Some(IdentityFieldKind::Credential), "{name}");
        }
        assert_eq!(
            classify("x-forwarded-tls-client-cert-info"),
            Some(IdentityFieldKind::Credential)
        );
    }

    #[test]
    fn fields_are_told_apart_by_what_they_are_about() {
        for (name, about) in [
            ("x-forwarded-host", Some(ForwardingKind::Target)),
            ("x-forwarded-whatever", Some(ForwardingKind::Target)),
            ("x-forwarded", Some(ForwardingKind::Target)),
            ("forwarded", Some(ForwardingKind::Target)),
            ("x-forwarded-for", Some(ForwardingKind::Client)),
            ("x-real-ip", Some(ForwardingKind::Client)),
            ("x-forwarded-user", Some(ForwardingKind::Identity)),
            ("x-forwarded-groups", Some(ForwardingKind::Identity)),
            ("x-forwarded-preferred-username", Some(ForwardingKind::Identity)),
            ("x-request-id", None),
            ("host", None),
        ] {
            assert_eq!(ForwardingKind::of(name), about, "{name}");
        }
    }

    #[test]
    fn names_with_underscores_are_compared_with_hyphens() {
        for name in ["x_forwarded_host", "x-original_url", "content_length"] {
            assert!(is_underscore_alias(name), "{name}");
        }
        for name in ["x-forwarded-host", "x_api_key", "my_field"] {
            assert!(!is_underscore_alias(name), "{name}");
        }
    }

    #[test]
    fn trailers_tell_nothing_about_the_request() {
        let trailers = |names: &[&'static str]| -> HeaderMap {
            let value = http::HeaderValue::from_static("1");
            names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect()
        };
        let mut given = trailers(&[
            "checksum",
            "x-forwarded-for",
            "x_forwarded_host",
            "forwarded",
            "x-forwarded-user",
            "x-http-method-override",
            "host",
            "content-length",
            "x-real-ip",
        ]);
        remove_from_trailers(&mut given);
        assert_eq!(given, trailers(&["checksum"]));
    }

    #[test]
    fn every_field_that_overrides_is_seen() {
        for name in OVERRIDES {
            assert!(is_override(name), "{name}");
        }
        for name in ["x-request-id", "x-original-host", "host", "x"] {
            assert!(!is_override(name), "{name}");
        }
    }
}

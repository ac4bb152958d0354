//! Checks `Host`, so that a page in an operator's browser cannot read the admin API by DNS
//! rebinding.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;

/// Fields that mark browser requests.
///
/// Browsers send at least one with each request, and scripts cannot omit it. Health checkers,
/// Prometheus and curl send none of these fields.
const BROWSER_FIELDS: [&str; 6] =
    ["origin", "referer", "accept-language", "sec-fetch-site", "sec-fetch-mode", "sec-ch-ua"];

/// The parts of a request that the host check reads.
pub(super) struct HostCheck<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) peer: Option<SocketAddr>,
}

impl HostCheck<'_> {
    /// Returns whether the host of the call is trusted.
    ///
    /// Addresses, `localhost` and names without a dot cannot belong to an attacker. Other names are
    /// trusted if they are configured, or if the request is neither from a browser nor from this
    /// machine. An operator's browser on this machine would connect over loopback.
    pub(super) fn is_allowed(&self, hosts: &[Box<str>]) -> bool {
        let Some(host) = self.headers.get(header::HOST) else { return true };
        let Ok(host) = host.to_str() else { return false };
        let name = canonical_name(host);
        is_trusted_name(&name)
            || hosts.iter().any(|known| is_name(known, &name))
            || !(self.is_from_browser() || self.is_local())
    }

    fn is_from_browser(&self) -> bool {
        let agent = self.headers.get(header::USER_AGENT);
        BROWSER_FIELDS.iter().any(|field| self.headers.contains_key(*field))
            || agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
    }

    fn is_local(&self) -> bool {
        self.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }
}

/// Returns the response to a call with an unknown host.
pub(super) fn unknown_host() -> Problem {
    let detail = "Call the admin listener by its address, or add the name to `admin.hosts`: with an unknown name, a malicious web page could read it.";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "Unknown host", detail)
}

/// Returns a host's name in lower case, without the port and a trailing dot.
fn canonical_name(host: &str) -> String {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.trim_end_matches('.').to_ascii_lowercase()
}

fn is_trusted_name(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok() || !name.contains(['.', ':']) || name.ends_with(".localhost")
}

fn is_name(known: &str, name: &str) -> bool {
    match known.strip_prefix('*') {
        Some(domain) => name.len() > domain.len() && name.ends_with(domain),
        None => known == name,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn is_answered(peer: &str, host: &str, fields: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let peer = Some(peer.parse().unwrap());
        let hosts = ["larder.example".into(), "*.ops.example".into()];
        HostCheck { headers: &headers, peer }.is_allowed(&hosts)
    }

    const HERE: &str = "127.0.0.1:5000";
    const ELSEWHERE: &str = "10.0.0.9:5000";
    const BROWSER: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)");

    #[test]
    fn addresses_local_names_and_configured_names_are_allowed() {
        for host in [
            "127.0.0.1:9180",
            "[::1]:9180",
            "10.1.2.3",
            "localhost:9180",
            "a.localhost",
            "larder:9180",
            "LARDER.example.:9180",
            "a.ops.example",
        ] {
            assert!(is_answered(HERE, host, &[BROWSER]), "{host}");
        }
    }

    #[test]
    fn a_page_under_a_name_of_its_own_is_refused() {
        for host in ["evil.example:9180", "ops.example", "larder.example.evil.example", "1.evil.io"]
        {
            assert!(!is_answered(HERE, host, &[]), "{host}");
            assert!(!is_answered("[::ffff:127.0.0.1]:5", host, &[]), "{host}");
            assert!(!is_answered(ELSEWHERE, host, &[BROWSER]), "{host}");
            let disguised = ("user-agent", "Prometheus/3");
            for field in BROWSER_FIELDS {
                assert!(!is_answered(ELSEWHERE, host, &[disguised, (field, "x")]), "{field}");
            }
        }
    }

    #[test]
    fn services_may_use_any_name() {
        let service = "larder.default.svc.cluster.local:9180";
        assert!(is_answered(ELSEWHERE, service, &[("user-agent", "Prometheus/3.0.0")]));
        assert!(!is_answered(HERE, service, &[("authorization", "Bearer guessed")]));
    }
}

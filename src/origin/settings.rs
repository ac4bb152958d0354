//! Settings of an origin: its servers, timeouts, TLS.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use http::{HeaderValue, uri::Authority};
use url::Url;

/// Settings of an origin, as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The origin's servers; at least one.
    pub urls: Vec<ServerUrl>,
    /// Time limit for name lookup, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Time limit from the request's last byte to the response's head.
    pub first_byte_timeout: Duration,
    /// Longest pause in a response's body, unless it is a `text/event-stream`.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept; shorter if the origin's `Keep-Alive` says so.
    pub keep_alive: Duration,
    /// The size limit of a response head, in bytes.
    pub max_header_bytes: u32,
    /// Whether HTTP/2 is offered to `https` servers.
    pub http2: bool,
    /// Limits on connections to each server, and on queued requests.
    pub limits: ConnectionLimits,
    /// How long the addresses of a server's name are used before the next lookup.
    pub dns_refresh: Duration,
    /// Number of further servers to try after a failure before the response began.
    pub retries: u32,
    /// Active health checks.
    pub health: Option<HealthCheck>,
    /// TLS towards `https` servers.
    pub tls: OriginTls,
    /// The `Host` of requests.
    pub host: HostHeader,
}

impl Settings {
    /// Returns the defaults, for these servers.
    pub fn new(urls: Vec<ServerUrl>) -> Self {
        Self {
            urls,
            connect_timeout: Duration::from_secs(1),
            first_byte_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            keep_alive: Duration::from_mins(1),
            max_header_bytes: 64 * 1024,
            http2: true,
            limits: ConnectionLimits::default(),
            dns_refresh: Duration::from_secs(30),
            retries: 1,
            health: None,
            tls: OriginTls::default(),
            host: HostHeader::default(),
        }
    }
}

/// The `Host` that servers are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's, in canonical form.
    #[default]
    Preserve,
    /// Each server's own.
    Origin,
    /// A fixed value.
    Literal(Authority),
}

impl HostHeader {
    /// Returns the `Host` for a client's; empty if each server gets its own.
    pub(crate) fn of<'a>(&'a self, requested: &'a str) -> &'a str {
        match self {
            Self::Preserve => requested,
            Self::Origin => "",
            Self::Literal(host) => host.as_str(),
        }
    }
}

/// Limits on the connections to one server, and on the requests queued for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time. Idle ones count, tunnels do not.
    pub connections: usize,
    /// Requests that may be queued; further ones fail at once.
    pub pending: usize,
    /// How long a request may be queued.
    pub pending_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 256, pending: 1024, pending_timeout: Duration::from_secs(5) }
    }
}

/// Asks each server for a path, again and again; statuses below 400 mean healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path, with query.
    pub path: String,
    /// The time between two checks, and the time limit of one.
    pub interval: Duration,
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginTls {
    /// Certificate authorities (PEM) trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// A certificate chain (PEM) to authenticate with; needs `key`.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have, if it is not the host.
    pub server_name: Option<String>,
}

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginScheme {
    /// HTTP/1.1 in plain text.
    Http,
    /// TLS; HTTP/2 if the server negotiates it, else HTTP/1.1.
    Https,
    /// HTTP/2 in plain text, with prior knowledge.
    H2c,
}

/// One server: `http://host:port`, `https://…` or `h2c://…`, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Its protocol.
    pub scheme: OriginScheme,
    /// Its address.
    pub address: ServerAddress,
    /// Host and port as in its URL; `localhost` for sockets.
    pub authority: Authority,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A name or address (IPv6 without brackets) and a port.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl ServerUrl {
    /// Creates the endpoint of a Unix socket.
    pub fn unix(path: PathBuf) -> Self {
        Self {
            scheme: OriginScheme::Http,
            address: ServerAddress::Unix(path),
            authority: Authority::from_static("localhost"),
        }
    }

    /// The value of a `Host` field for it.
    pub(super) fn host(&self) -> HeaderValue {
        HeaderValue::from_str(self.authority.as_str())
            .unwrap_or_else(|_| HeaderValue::from_static("localhost"))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.scheme, &self.address) {
            (_, ServerAddress::Unix(path)) => return write!(f, "unix:{}", path.display()),
            (OriginScheme::Http, _) => "http",
            (OriginScheme::Https, _) => "https",
            (OriginScheme::H2c, _) => "h2c",
        };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// Why a text is not a server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is not a URL with a host.
    #[error("expected a URL such as `http://127.0.0.1:3000`")]
    Syntax,
    /// Its scheme is unknown.
    #[error("expected the scheme `http`, `https` or `h2c`")]
    Scheme,
    /// It has a user name or a password.
    #[error("expected a URL without user name and password")]
    Credentials,
    /// It has a path, a query or a fragment.
    #[error("expected a URL without a path: paths of requests are forwarded unchanged")]
    Excess,
}

impl FromStr for ServerUrl {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidEndpoint::Syntax)?;
        let (scheme, web_scheme) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (OriginScheme::Http, "http"),
            "https" => (OriginScheme::Https, "https"),
            "h2c" => (OriginScheme::H2c, "http"),
            _ => return Err(InvalidEndpoint::Scheme),
        };
        // Hosts are normalised in URLs with well-known schemes only.
        let url = Url::parse(&format!("{web_scheme}://{rest}"));
        let url = url.map_err(|_| InvalidEndpoint::Syntax)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Credentials);
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidEndpoint::Excess);
        }
        let host = url.host_str().ok_or(InvalidEndpoint::Syntax)?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let port = url.port_or_known_default().ok_or(InvalidEndpoint::Syntax)?;
        Ok(Self {
            scheme,
            address: ServerAddress::Tcp(host.trim_matches(['[', ']']).to_owned(), port),
            authority: authority.parse().map_err(|_| InvalidEndpoint::Syntax)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_parsed_from_their_urls() {
        let parse = |text: &str| text.parse::<ServerUrl>();
        for (text, scheme, host, port, authority) in [
            ("http://a:80", OriginScheme::Http, "a", 80, "a"),
            ("http://[::1]", OriginScheme::Http, "::1", 80, "[::1]"),
            ("HTTPS://API.test/", OriginScheme::Https, "api.test", 443, "api.test"),
            ("h2c://[::1]:50051/", OriginScheme::H2c, "::1", 50051, "[::1]:50051"),
        ] {
            let server = parse(text).unwrap();
            assert_eq!((server.scheme, server.authority.as_str()), (scheme, authority), "{text}");
            assert_eq!(server.address, ServerAddress::Tcp(host.into(), port), "{text}");
        }
        assert_eq!(parse("http://a:80").unwrap().to_string(), "http://a");
        assert_eq!(ServerUrl::unix("/run/a.sock".into()).to_string(), "unix:/run/a.sock");
        for text in ["", "3000", "api.test:3000", "http://"] {
            assert_eq!(parse(text), Err(InvalidEndpoint::Syntax), "{text}");
        }
        assert_eq!(parse("ftp://a"), Err(InvalidEndpoint::Scheme));
        assert_eq!(parse("http://u:p@a"), Err(InvalidEndpoint::Credentials));
        for text in ["http://a/b", "http://a?", "http://a#b"] {
            assert_eq!(parse(text), Err(InvalidEndpoint::Excess), "{text}");
        }
    }
}

//! Settings of an origin: its servers, timeouts, limits and TLS.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use http::{HeaderValue, uri::Authority};
use url::Url;

/// Settings of an origin, as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The origin's servers; at least one.
    pub urls: Vec<ServerUrl>,
    /// Maximum total time for name lookup, TCP and TLS.
    pub connect_timeout: Duration,
    /// Maximum time from the request's last byte to the response's head.
    pub first_byte_timeout: Duration,
    /// Maximum pause in a response's body, except for `text/event-stream`.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept. A shorter time in the origin's `Keep-Alive` takes
    /// precedence.
    pub keep_alive: Duration,
    /// Maximum size of a response head, in bytes.
    pub max_header_bytes: u32,
    /// Whether HTTP/2 is offered to `https` servers.
    pub http2: bool,
    /// Limits on connections to each server, and on queued requests.
    pub limits: ConnectionLimits,
    /// How long the addresses of a server's name are used before the next lookup.
    pub dns_refresh: Duration,
    /// Maximum number of other servers to try if one fails before the response begins.
    pub retries: u32,
    /// Active health checks; `None` disables health checks.
    pub health: Option<HealthCheck>,
    /// TLS towards `https` servers.
    pub tls: OriginTls,
    /// The `Host` field of requests to the origin.
    pub host: HostHeader,
}

impl Settings {
    /// Returns the default settings for these servers.
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

/// The `Host` field of requests to the origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's `Host`, in canonical form.
    #[default]
    Preserve,
    /// The host and port in each server's URL.
    Origin,
    /// A fixed `Host`.
    Literal(Authority),
}

impl HostHeader {
    /// Returns the `Host` to send for a client that requested the host `requested`. Returns an
    /// empty string if each server's own host is sent.
    pub(crate) fn of<'a>(&'a self, requested: &'a str) -> &'a str {
        match self {
            Self::Preserve => requested,
            Self::Origin => "",
            Self::Literal(host) => host.as_str(),
        }
    }
}

/// Limits on the connections to one server, and on the requests queued for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of connections, including idle connections, but not tunnels.
    pub connections: usize,
    /// Maximum number of queued requests. Further requests fail immediately.
    pub pending: usize,
    /// Maximum time that a request is queued.
    pub pending_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 256, pending: 1024, pending_timeout: Duration::from_secs(5) }
    }
}

/// Active health checks: a path is requested from each server periodically. A server that responds
/// with a status below 400 is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path, including the query.
    pub path: String,
    /// The time between two checks, and the timeout of each.
    pub interval: Duration,
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginTls {
    /// Certificate authorities (PEM) to trust; `None` trusts the system's.
    pub ca: Option<PathBuf>,
    /// A certificate chain (PEM) to authenticate with, if any; needs `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert` (PEM), if any.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must have; `None` for the host in the URL.
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
    /// The server's protocol.
    pub scheme: OriginScheme,
    /// The server's address.
    pub address: ServerAddress,
    /// Host and port as in the URL; `localhost` for Unix sockets.
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
    /// Creates the URL of a server on a Unix socket.
    pub fn unix(path: PathBuf) -> Self {
        Self {
            scheme: OriginScheme::Http,
            address: ServerAddress::Unix(path),
            authority: Authority::from_static("localhost"),
        }
    }

    /// Returns the value of a `Host` field for the server.
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

/// The reason why a text is not a server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// The text is not a URL with a host.
    #[error("expected a URL such as `http://127.0.0.1:3000`")]
    Syntax,
    /// The URL's scheme is unknown.
    #[error("expected the scheme `http`, `https` or `h2c`")]
    Scheme,
    /// The URL has a user name or a password.
    #[error("expected a URL without user name and password")]
    Credentials,
    /// The URL has a path, a query or a fragment.
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

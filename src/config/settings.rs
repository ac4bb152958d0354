//! The compiled configuration: plain types, resolved and checked.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::uri::Authority;
use ipnet::IpNet;

use super::{report::ConfigReport, secret::Secret, value};
use crate::{
    feed,
    policy::CredentialRules,
    redis,
    route::RouteTable,
    trigger::{Poll, Schedule, Webhook},
    user::IdentitySource,
};

/// All settings, with defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listen addresses of the public listener; at least one.
    pub listen: Vec<ListenAddress>,
    /// Whether other processes may listen on the same TCP addresses.
    pub reuse_port: bool,
    /// Certificate of TCP listeners; plain text if `None`. Unix sockets never use TLS.
    pub tls: Option<CertificateFiles>,
    /// The origin.
    pub origin: OriginConfig,
    /// The hosts that are served, in canonical form; empty for all.
    pub hosts: Vec<Box<str>>,
    /// Networks of proxies, from which `Forwarded` and `X-Forwarded-*` are accepted.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether responses carry `Server-Timing`.
    pub server_timing: bool,
    /// Limits on clients.
    pub limits: LimitsConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// The store.
    pub store: StoreConfig,
    /// Credentials and authentication.
    pub user: UserConfig,
    /// The routes.
    pub routes: RouteTable,
    /// Scheduled purges and prefetches.
    pub schedules: Vec<Schedule>,
    /// Polled data versions and their dependent tags.
    pub polls: Vec<Poll>,
    /// Webhooks.
    pub webhooks: Vec<Webhook>,
    /// Event streams of purges; `None` disables them.
    pub events: Option<feed::Settings>,
    /// The logs.
    pub log: LogConfig,
    /// Tests for `larder check`.
    pub tests: Vec<TestCase>,
    /// Warnings, without errors.
    pub warnings: ConfigReport,
}

/// A test of the configuration: one request and its expected handling.
#[derive(Debug, Clone)]
pub struct TestCase {
    /// Name of the test.
    pub name: String,
    /// Byte range in the file.
    pub at: Range<usize>,
    /// Method of the request.
    pub method: String,
    /// URL of the request.
    pub url: String,
    /// Fields of the request, as lines.
    pub headers: Vec<String>,
    /// Body of the request.
    pub body: Option<String>,
    /// Address of the client.
    pub from: Option<IpAddr>,
    /// Claims of the user, in place of a token.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The response to the request.
    pub response: Option<MockResponse>,
    /// Assertions.
    pub expected: Vec<Assertion>,
}

/// The response in a test.
#[derive(Debug, Clone)]
pub struct MockResponse {
    /// Status.
    pub status: u16,
    /// Fields, as lines.
    pub headers: Vec<String>,
    /// Body.
    pub body: Option<String>,
}

/// One assertion and its position in the file.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// Byte range in the file.
    pub at: Range<usize>,
    /// The assertion.
    pub kind: AssertionKind,
}

/// The kind of an assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssertionKind {
    /// The name of the selected route.
    Route(String),
    /// The outcome of the request or the response.
    Outcome(String),
    /// The reason for not using the cache or not storing the response.
    Reason(String),
    /// The route's partition.
    Partition(String),
    /// The host in the key.
    Host(String),
    /// The path in the key.
    Path(String),
    /// The query in the key.
    Query(String),
    /// The lifetime of the response.
    Ttl(Duration),
    /// The exact tags of the response, in any order.
    Tags(Vec<String>),
    /// The request has the same key as that of another test.
    SameKeyAs(String),
    /// The request has another key than that of another test.
    OtherKeyThan(String),
}

/// A listen address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and port; port 0 is any free port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// The file of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    /// Path.
    pub path: PathBuf,
    /// Permissions, if given.
    pub mode: Option<u32>,
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        value::listen_address(text)
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(UnixSocket { path, mode: None }) => {
                write!(formatter, "unix:{}", path.display())
            }
            Self::Unix(UnixSocket { path, mode: Some(mode) }) => {
                write!(formatter, "unix:{}?mode={mode:04o}", path.display())
            }
        }
    }
}

/// PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// The servers of the origin and the connections to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// Equal servers; at least one.
    pub urls: Vec<OriginUrl>,
    /// Timeout of connecting, TLS included.
    pub connect_timeout: Duration,
    /// Timeout of the response head.
    pub first_byte_timeout: Duration,
    /// Timeout of a pause in a body.
    pub idle_timeout: Duration,
    /// Limits on the connections to each server.
    pub connections: OriginConnections,
    /// Maximum size of a response head in bytes.
    pub max_header_bytes: u32,
    /// Whether HTTP/2 is offered to `https` servers.
    pub http2: bool,
    /// Interval of DNS lookups.
    pub dns_refresh: Duration,
    /// Maximum number of retries of a safe request.
    pub retries: u32,
    /// Active health checks; `None` for passive ones only.
    pub health: Option<HealthCheckConfig>,
    /// TLS towards `https` servers.
    pub tls: OriginTls,
    /// The `Host` that is sent.
    pub host: HostHeader,
}

/// Limits on the connections to each server of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginConnections {
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Maximum number of connections.
    pub max: usize,
    /// Maximum number of requests that wait for a connection.
    pub max_pending: usize,
    /// Timeout of waiting for a connection.
    pub pending_timeout: Duration,
}

/// The URL of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    /// Protocol.
    pub scheme: OriginScheme,
    /// Name or address; IPv6 in brackets.
    pub host: String,
    /// Port, with the default of the scheme filled in.
    pub port: u16,
    /// Host and port as in `Host`, without a default port.
    pub authority: Authority,
}

impl FromStr for OriginUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        value::origin_url(text)
    }
}

impl std::fmt::Display for OriginUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

/// The protocol of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OriginScheme {
    /// HTTP/1.1 without TLS.
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS, chosen by ALPN.
    Https,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3).
    H2c,
}

impl OriginScheme {
    /// Returns the scheme as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        }
    }
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// Path to request; a 2xx or 3xx means healthy.
    pub path: String,
    /// Interval.
    pub every: Duration,
}

/// Verification of `https` origins, and the client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginTls {
    /// PEM file of authorities that replace those of the system.
    pub ca: Option<PathBuf>,
    /// Client certificate.
    pub client: Option<CertificateFiles>,
    /// Expected server name, if not the host of the URL.
    pub server_name: Option<String>,
}

/// The `Host` that is sent to the origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// That of the origin's URL.
    Origin,
    /// A fixed value.
    Literal(Authority),
}

/// Limits on clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Maximum size of a request head in bytes.
    pub header_bytes: usize,
    /// Maximum number of fields in a request head.
    pub headers: usize,
    /// Maximum size of a request body in bytes; `None` for no limit.
    pub body: Option<u64>,
    /// Maximum number of connections, over all listeners.
    pub connections: usize,
    /// Maximum number of tunnels (WebSocket and other upgrades); half of the connections if `None`.
    pub tunnels: Option<usize>,
    /// Idle timeout of a tunnel.
    pub tunnel_idle_timeout: Duration,
    /// Timeout of a request head.
    pub header_timeout: Duration,
    /// Idle timeout of a connection.
    pub idle_timeout: Duration,
    /// How long listeners accept connections after SIGTERM, while readiness already fails.
    pub drain_delay: Duration,
    /// How long requests may continue after that.
    pub drain: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            headers: 100,
            body: None,
            connections: 10_000,
            tunnels: None,
            tunnel_idle_timeout: Duration::from_hours(1),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(30),
        }
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Listen address; `None` disables the listener.
    pub listen: Option<ListenAddress>,
    /// Accepted host names, besides addresses and names without a dot.
    pub hosts: Vec<Box<str>>,
    /// Tokens of callers.
    pub tokens: Vec<AdminToken>,
    /// Networks that may send `PURGE` to the public listener without a token.
    pub purge_from: Vec<IpNet>,
}

/// A bearer token and its permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The token.
    pub secret: Secret,
    /// Permissions.
    pub permissions: Vec<Permission>,
}

/// A permission of a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read statistics and stored responses.
    Read,
    /// Purge stored responses.
    Purge,
}

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 2] = [Self::Read, Self::Purge];

    /// Returns the permission as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Purge => "purge",
        }
    }
}

/// The storage of responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The Redis of a fleet; `None` for a single node.
    pub redis: Option<redis::Settings>,
    /// Timeout of Redis requests.
    pub timeout: Duration,
    /// Prefix of Redis keys.
    pub prefix: String,
    /// Version after the prefix; versions do not share stored responses.
    pub version: String,
    /// How long responses of the previous version may be served stale.
    pub grace: Duration,
    /// Entries above this size in bytes are compressed in Redis.
    pub compress_above: u64,
    /// Secrets that encrypt private entries in Redis: the first encrypts, all decrypt. Empty
    /// disables encryption.
    pub encrypt_keys: Vec<Secret>,
    /// Size of the memory tier in bytes; 0 disables it.
    pub memory: u64,
    /// Maximum size of a stored response in bytes.
    pub max_object: u64,
    /// Maximum age of responses that a node uses while it has lost the purge log.
    pub unsynced_ttl: Duration,
    /// Behaviour of such a node.
    pub when_unsynced: WhenUnsynced,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            redis: None,
            timeout: Duration::from_millis(20),
            prefix: "larder".to_owned(),
            version: "v1".to_owned(),
            grace: Duration::ZERO,
            compress_above: 4 << 10,
            encrypt_keys: Vec::new(),
            memory: 256 << 20,
            max_object: 16 << 20,
            unsynced_ttl: Duration::from_secs(1),
            when_unsynced: WhenUnsynced::default(),
        }
    }
}

/// The behaviour of a node that has lost the purge log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnsynced {
    /// Use only very recent responses, so that no purge is missed.
    #[default]
    Bounded,
    /// Use all fresh responses.
    Serve,
}

impl WhenUnsynced {
    /// Returns the choice as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounded => "bounded",
            Self::Serve => "serve",
        }
    }
}

/// Credentials, authentication, and their use in keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserConfig {
    /// Credentials besides the built-in ones.
    pub credentials: CredentialRules,
    /// Key that makes credentials in keys unreadable.
    pub digest_key: Option<Secret>,
    /// Source of identities.
    pub identity_source: IdentitySource,
    /// How long credentials count as accepted by the origin; `None` for the default.
    pub recheck: Option<Duration>,
}

/// The logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// Level of Larder's own messages.
    pub level: LogLevel,
    /// Format of the access log.
    pub access: AccessLogFormat,
}

/// The level of Larder's own messages, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// No messages.
    Off,
    /// Conditions that need attention now.
    Error,
    /// Conditions that will need attention.
    Warn,
    /// Events of interest to operators.
    #[default]
    Info,
    /// Steps of each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Returns the level as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The format of the access log, on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Readable lines.
    Text,
    /// Disabled.
    Off,
}

impl AccessLogFormat {
    /// Returns the format as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Off => "off",
        }
    }
}

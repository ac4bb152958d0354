//! A configuration as the rest of Larder sees it: plain types, everything resolved and checked.

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

/// Everything an operator has said, with defaults filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listen: Vec<ListenAddress>,
    /// Whether another process may listen on the same TCP addresses at the same time.
    pub reuse_port: bool,
    /// The certificate for clients; plain text without. Not used on Unix sockets.
    pub tls: Option<CertificateFiles>,
    /// Where requests go.
    pub origin: OriginConfig,
    /// The hosts that are served, in canonical form; empty for all.
    pub hosts: Vec<Box<str>>,
    /// Whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether responses carry `Server-Timing`.
    pub server_timing: bool,
    /// What one client may ask for.
    pub limits: LimitsConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Where stored responses live.
    pub store: StoreConfig,
    /// What says who asks.
    pub user: UserConfig,
    /// Which rule governs a request.
    pub routes: RouteTable,
    /// What is purged or fetched ahead when.
    pub schedules: Vec<Schedule>,
    /// Data versions that are looked at, and what depends on them.
    pub polls: Vec<Poll>,
    /// Who tells of changes, and what that purges.
    pub webhooks: Vec<Webhook>,
    /// What clients hear of purges; nothing without.
    pub events: Option<feed::Settings>,
    /// What is written where.
    pub log: LogConfig,
    /// What is expected of all that, for `larder check`.
    pub tests: Vec<TestCase>,
    /// What is hardly meant; without errors.
    pub warnings: ConfigReport,
}

/// What an operator expects of one request.
#[derive(Debug, Clone)]
pub struct TestCase {
    /// The name of the test.
    pub name: String,
    /// Where it stands in the file.
    pub at: Range<usize>,
    /// The method of the request.
    pub method: String,
    /// Its URL.
    pub url: String,
    /// Its fields, as lines.
    pub headers: Vec<String>,
    /// Its body.
    pub body: Option<String>,
    /// The address of its client.
    pub from: Option<IpAddr>,
    /// The claims of its user, in place of a token.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The response to it.
    pub response: Option<MockResponse>,
    /// What is expected.
    pub expected: Vec<Assertion>,
}

/// A response in a test.
#[derive(Debug, Clone)]
pub struct MockResponse {
    /// The status.
    pub status: u16,
    /// Its fields, as lines.
    pub headers: Vec<String>,
    /// Its body.
    pub body: Option<String>,
}

/// One thing that is expected, and where the file says so.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// The bytes of the file.
    pub at: Range<usize>,
    /// What is expected.
    pub kind: AssertionKind,
}

/// An expectation of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssertionKind {
    /// The route of this name governs.
    Route(String),
    /// This becomes of the request, or of the response.
    Outcome(String),
    /// For this reason the cache has no part in the request, or the response is not stored.
    Reason(String),
    /// The route has this partition.
    Partition(String),
    /// The key has this host.
    Host(String),
    /// The key has this path.
    Path(String),
    /// The key has this query.
    Query(String),
    /// The response is fresh for so long.
    Ttl(Duration),
    /// The response has these tags and no others, in any order.
    Tags(Vec<String>),
    /// The request shares responses with that of another test.
    SameKeyAs(String),
    /// The request shares no responses with that of another test.
    OtherKeyThan(String),
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and port; port 0 is any free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixSocket),
}

/// The file of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixSocket {
    /// Its path.
    pub path: PathBuf,
    /// Its permissions, if they are given.
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

/// The PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The servers that answer what Larder does not, and how to talk to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// Equal servers; at least one.
    pub urls: Vec<OriginUrl>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the response head may take.
    pub first_byte_timeout: Duration,
    /// How long a body may pause.
    pub idle_timeout: Duration,
    /// Connections to each server.
    pub connections: OriginConnections,
    /// The largest head of a response in bytes.
    pub max_header_bytes: u32,
    /// Whether HTTP/2 is offered to `https` servers.
    pub http2: bool,
    /// How long the addresses of a server's name are used before they are looked up again.
    pub dns_refresh: Duration,
    /// How often a safe request is tried again.
    pub retries: u32,
    /// Active checks; none where only real requests tell.
    pub health: Option<HealthCheckConfig>,
    /// How `https` servers are verified.
    pub tls: OriginTls,
    /// The `Host` they are sent.
    pub host: HostHeader,
}

/// The connections to each server of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginConnections {
    /// How long an unused one is kept.
    pub keep_alive: Duration,
    /// How many there may be.
    pub max: usize,
    /// How many requests may wait for one.
    pub max_pending: usize,
    /// How long a request may wait.
    pub pending_timeout: Duration,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    /// The protocol.
    pub scheme: OriginScheme,
    /// Its name or address; IPv6 in brackets.
    pub host: String,
    /// Its port, the scheme's default filled in.
    pub port: u16,
    /// Host and port as `Host` carries them: without the default port.
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
    /// HTTP/1.1 in plain text.
    Http,
    /// TLS, HTTP/2 or HTTP/1.1 by ALPN.
    Https,
    /// HTTP/2 in plain text, with prior knowledge (RFC 9113 §3.3).
    H2c,
}

impl OriginScheme {
    /// The scheme as the configuration spells it.
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
    /// The path to ask for; a 2xx or 3xx means well.
    pub path: String,
    /// How often.
    pub every: Duration,
}

/// How `https` origins are verified, and how Larder identifies itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginTls {
    /// The PEM file of authorities to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate Larder shows.
    pub client: Option<CertificateFiles>,
    /// The name to expect in place of the URL's host.
    pub server_name: Option<String>,
}

/// The `Host` that origins are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Preserve,
    /// That of the origin's URL.
    Origin,
    /// Always this.
    Literal(Authority),
}

/// What clients may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub headers: usize,
    /// Bytes of a request's body; none for no limit.
    pub body: Option<u64>,
    /// Connections at once, over all listeners.
    pub connections: usize,
    /// Tunnels (WebSocket and other upgrades) at once; half of the connections if left out.
    pub tunnels: Option<usize>,
    /// How long nothing may go through a tunnel.
    pub tunnel_idle_timeout: Duration,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// How long listeners go on after SIGTERM while readiness fails already.
    pub drain_delay: Duration,
    /// How long requests may go on after that.
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
    /// Its address; none where it is turned off.
    pub listen: Option<ListenAddress>,
    /// Names by which it may be asked for, beside addresses and names without a dot.
    pub hosts: Vec<Box<str>>,
    /// Who may call it.
    pub tokens: Vec<AdminToken>,
    /// Who may send `PURGE` to the public listener without a token.
    pub purge_from: Vec<IpNet>,
}

/// A bearer token and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The token itself.
    pub secret: Secret,
    /// What its bearer may do.
    pub permissions: Vec<Permission>,
}

/// What a bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Look at statistics and stored responses.
    Read,
    /// Make stored responses invalid.
    Purge,
}

impl Permission {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Read, Self::Purge];

    /// The permission as the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Purge => "purge",
        }
    }
}

/// Where stored responses live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The Redis that a fleet shares; none where a node is alone.
    pub redis: Option<redis::Settings>,
    /// How long a request waits for it.
    pub timeout: Duration,
    /// What its keys begin with.
    pub prefix: String,
    /// What follows it; another version finds nothing of this one.
    pub version: String,
    /// How long after a new version the one before it may still be served, stale.
    pub grace: Duration,
    /// Entries of more bytes than this are compressed in it.
    pub compress_above: u64,
    /// Secrets by which entries that are not for everyone are encrypted in it: the first encrypts, all
    /// decrypt. None where they are not encrypted.
    pub encrypt_keys: Vec<Secret>,
    /// The budget of the memory tier in bytes; 0 turns it off.
    pub memory: u64,
    /// The largest response that is stored, in bytes.
    pub max_object: u64,
    /// How long ago the origin may have been asked for what a node uses that is cut off from the purge log.
    pub unsynced_ttl: Duration,
    /// What such a node does.
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

/// What a node does that is cut off from the purge log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnsynced {
    /// It uses nothing but what is a moment old: no purge is ever missed.
    #[default]
    Bounded,
    /// It goes by freshness alone.
    Serve,
}

impl WhenUnsynced {
    /// The choice as the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounded => "bounded",
            Self::Serve => "serve",
        }
    }
}

/// What says who asks: the names of credentials, what proves an identity, and how both enter keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserConfig {
    /// What counts as a credential, beside what is built in.
    pub credentials: CredentialRules,
    /// What credentials in keys are made unreadable with.
    pub digest_key: Option<Secret>,
    /// What proves who asks.
    pub identity_source: IdentitySource,
    /// How long the origin's consent to credentials counts; none for what is usual.
    pub recheck: Option<Duration>,
}

/// What is written where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogConfig {
    /// What of Larder's own messages is shown.
    pub level: LogLevel,
    /// One line for each request.
    pub access: AccessLogFormat,
}

/// How much Larder says about itself, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs attention now.
    Error,
    /// What will need attention.
    Warn,
    /// What an operator wants to have known.
    #[default]
    Info,
    /// Steps of each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as the configuration spells it.
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

/// The form of the access log, on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines to be read by people.
    Text,
    /// None.
    Off,
}

impl AccessLogFormat {
    /// The form as the configuration spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Off => "off",
        }
    }
}

//! The compiled configuration: plain types, resolved and checked.

use std::{net::IpAddr, ops::Range, path::PathBuf, time::Duration};

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use super::{listen::ListenAddress, report::ConfigReport, secret::Secret};
use crate::{
    feed, origin,
    policy::CredentialRules,
    purge::UnsyncedPolicy,
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
    pub origin: origin::Settings,
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
    /// Warnings about this configuration.
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
    /// The origin's response; `None` if the test is only about the request.
    pub response: Option<MockResponse>,
    /// Assertions about the outcome.
    pub expected: Vec<Assertion>,
}

/// The response in a test.
#[derive(Debug, Clone)]
pub struct MockResponse {
    /// The status code of the response.
    pub status: u16,
    /// The header lines of the response.
    pub headers: Vec<String>,
    /// The response body.
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
    /// The request has the same key as the request of the named test.
    SameKeyAs(String),
    /// The request's key differs from that of the named test's request.
    OtherKeyThan(String),
}

/// PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
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
    /// Time limit for receiving a request head.
    pub header_timeout: Duration,
    /// Idle timeout of a connection.
    pub idle_timeout: Duration,
    /// How long listeners accept connections after SIGTERM, while readiness already fails.
    pub drain_delay: Duration,
    /// How long active requests may continue after `drain_delay`.
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
    /// Accepted host names, in addition to IP addresses and names without a dot.
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

    /// Returns the permission as written in the configuration.
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
    /// How stored responses are used on a node that has lost the purge log.
    pub unsynced: UnsyncedPolicy,
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
            unsynced: UnsyncedPolicy::Bounded(Duration::from_secs(1)),
        }
    }
}

/// Credentials, authentication, and their use in keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserConfig {
    /// The configured additions and exceptions to the built-in rules about credentials.
    pub credentials: CredentialRules,
    /// Key of the digests that stand for credentials in cache keys.
    pub digest_key: Option<Secret>,
    /// Source of identities.
    pub identity_source: IdentitySource,
    /// How long credentials count as accepted by the origin; `None` for the default.
    pub recheck: Option<Duration>,
}

/// The logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Level of Larder's own messages, on standard error.
    pub level: LevelFilter,
    /// Format of the access log.
    pub access: AccessLogFormat,
}

/// The format of the access log, on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Readable lines.
    Text,
    /// Disabled.
    Off,
}

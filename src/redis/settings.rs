//! Settings of Redis connections, and the parser of Redis URLs.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use percent_encoding::percent_decode_str;
use url::Url;

/// The settings of a Redis connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The address of the deployment.
    pub address: RedisAddress,
    /// TLS settings; without them the connection is in plain text.
    pub tls: Option<TlsSettings>,
    /// The ACL user; the default user if absent.
    pub username: Option<String>,
    /// The password of the user, or the token of a hosted Redis.
    pub password: Option<Password>,
    /// The database number, if not 0. A cluster only has database 0.
    pub database: Option<u8>,
    /// Timeout for connecting, including the TLS handshake and authentication.
    pub connect_deadline: Duration,
    /// Timeout for a command.
    pub command_deadline: Duration,
}

/// The address of a Redis deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisAddress {
    /// A single server, by host and port.
    Server(String, u16),
    /// The path of the Unix socket of a server on this machine.
    Socket(PathBuf),
    /// Some nodes of a cluster, from which the client discovers the others.
    Cluster(Vec<(String, u16)>),
    /// The primary elected by sentinels.
    Sentinel {
        sentinels: Vec<(String, u16)>,
        /// The service name of the primary.
        service: String,
        /// The ACL user of the sentinels.
        username: Option<String>,
        password: Option<Password>,
    },
}

/// TLS settings of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    /// PEM file of trusted authorities. If absent, the system's authorities are trusted.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate and its chain.
    pub cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key: Option<PathBuf>,
}

/// A password, redacted in its `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    /// Creates a password.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The reason why a Redis URL is invalid. Never contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("invalid URL: {0}")]
    Url(#[from] url::ParseError),
    #[error(
        "unknown scheme `{0}:`, expected redis:, rediss:, redis-cluster:, rediss-cluster:, redis-sentinel:, rediss-sentinel:, redis+unix: or unix:"
    )]
    Scheme(String),
    #[error("missing host")]
    Host,
    #[error("missing path of the socket")]
    Socket,
    #[error("invalid database `{0}`, expected a number from 0 to 255")]
    Database(String),
    #[error("a cluster has database 0 only")]
    ClusterDatabase,
    #[error("invalid `node={0}`, expected `host:port`")]
    Node(String),
    #[error("missing service name of the sentinels: add `?service=…`")]
    Service,
    #[error("unknown parameter `{0}`")]
    Parameter(String),
    #[error(
        "`/`, `?` and `#` in user name or password must be percent-encoded: `%2F`, `%3F`, `%23`"
    )]
    Credentials,
    #[error("the percent-encoded text is not UTF-8")]
    Text,
}

impl Settings {
    /// Default timeout for connecting.
    pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
    /// Default timeout for a command.
    pub const COMMAND_DEADLINE: Duration = Duration::from_millis(250);

    /// Parses a URL with percent-encoded credentials.
    ///
    /// - `redis[s]://[user:password@]host[:6379][/database]`
    /// - `redis[s]-cluster://[user:password@]host[:6379][?node=host:port…]`
    /// - `redis[s]-sentinel://[user:password@]host[:26379][/database]?service=name[&node=host:port…]`
    ///   with `sentinel_username=` and `sentinel_password=` for the sentinels themselves
    /// - `redis+unix://[user:password@]/path/of/socket[?database=1]`
    /// - `unix:/path/of/socket`, short form of the previous one
    ///
    /// The schemes may start with `valkey` instead of `redis`. The timeouts are the defaults.
    pub fn parse(url: &str) -> Result<Self, SettingsError> {
        let url = match Url::parse(url) {
            // URL syntax requires a host after credentials. For a socket, the host is ignored.
            Err(url::ParseError::EmptyHost) if url.contains("+unix:") => {
                Url::parse(&url.replacen("@/", "@localhost/", 1))?
            }
            parsed => parsed?,
        };
        let scheme = UrlScheme::of(url.scheme())?;
        let parameters = UrlParameters::of(&url, scheme.deployment)?;
        let database = database(&url, scheme.deployment, &parameters)?;
        Ok(Self {
            tls: scheme.is_encrypted.then(TlsSettings::default),
            username: decode_non_empty(url.username())?,
            password: decode_non_empty(url.password().unwrap_or_default())?.map(Password::new),
            database,
            address: address(&url, scheme.deployment, parameters)?,
            connect_deadline: Self::CONNECT_DEADLINE,
            command_deadline: Self::COMMAND_DEADLINE,
        })
    }
}

impl FromStr for Settings {
    type Err = SettingsError;

    fn from_str(url: &str) -> Result<Self, SettingsError> {
        Self::parse(url)
    }
}

#[derive(Clone, Copy)]
struct UrlScheme {
    deployment: Deployment,
    is_encrypted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deployment {
    Server,
    Socket,
    Cluster,
    Sentinel,
}

impl UrlScheme {
    fn of(scheme: &str) -> Result<Self, SettingsError> {
        let invalid = || SettingsError::Scheme(scheme.to_owned());
        if scheme == "unix" {
            return Ok(Self { deployment: Deployment::Socket, is_encrypted: false });
        }
        let rest = scheme.strip_prefix("redis").or_else(|| scheme.strip_prefix("valkey"));
        let rest = rest.ok_or_else(invalid)?;
        let (is_encrypted, rest) = match rest.strip_prefix('s') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let deployment = match (rest, is_encrypted) {
            ("", _) => Deployment::Server,
            ("-cluster", _) => Deployment::Cluster,
            ("-sentinel", _) => Deployment::Sentinel,
            ("+unix", false) => Deployment::Socket,
            _ => return Err(invalid()),
        };
        Ok(Self { deployment, is_encrypted })
    }
}

/// The query parameters of a Redis URL.
#[derive(Default)]
struct UrlParameters {
    nodes: Vec<(String, u16)>,
    service: Option<String>,
    username: Option<String>,
    password: Option<Password>,
    database: Option<String>,
}

impl UrlParameters {
    fn of(url: &Url, deployment: Deployment) -> Result<Self, SettingsError> {
        let mut parameters = Self::default();
        for (name, value) in url.query_pairs() {
            match (&*name, deployment) {
                ("node", Deployment::Cluster | Deployment::Sentinel) => {
                    parameters.nodes.push(node(&value)?);
                }
                ("service", Deployment::Sentinel) => parameters.service = Some(value.into_owned()),
                ("sentinel_username", Deployment::Sentinel) => {
                    parameters.username = Some(value.into_owned());
                }
                ("sentinel_password", Deployment::Sentinel) => {
                    parameters.password = Some(Password::new(value.into_owned()));
                }
                ("database", Deployment::Socket) => parameters.database = Some(value.into_owned()),
                _ => return Err(without_credentials(&name, SettingsError::Parameter)),
            }
        }
        Ok(parameters)
    }
}

fn address(
    url: &Url,
    deployment: Deployment,
    parameters: UrlParameters,
) -> Result<RedisAddress, SettingsError> {
    let UrlParameters { nodes, service, username, password, .. } = parameters;
    match deployment {
        Deployment::Server => host(url, 6379).map(|(host, port)| RedisAddress::Server(host, port)),
        Deployment::Socket => match decode_non_empty(url.path())? {
            Some(path) if path != "/" => Ok(RedisAddress::Socket(path.into())),
            _ => Err(SettingsError::Socket),
        },
        Deployment::Cluster => {
            let first = host(url, 6379)?;
            Ok(RedisAddress::Cluster(std::iter::once(first).chain(nodes).collect()))
        }
        Deployment::Sentinel => {
            let first = host(url, 26379)?;
            let sentinels = std::iter::once(first).chain(nodes).collect();
            let service = service.ok_or(SettingsError::Service)?;
            Ok(RedisAddress::Sentinel { sentinels, service, username, password })
        }
    }
}

fn host(url: &Url, default_port: u16) -> Result<(String, u16), SettingsError> {
    let host = decode_non_empty(url.host_str().unwrap_or_default())?.ok_or(SettingsError::Host)?;
    Ok((without_brackets(&host).to_owned(), url.port().unwrap_or(default_port)))
}

fn node(text: &str) -> Result<(String, u16), SettingsError> {
    let invalid = || without_credentials(text, SettingsError::Node);
    let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse().map_err(|_| invalid())?;
    if host.is_empty() { Err(invalid()) } else { Ok((without_brackets(host).to_owned(), port)) }
}

/// Removes the brackets of an IPv6 address.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn database(
    url: &Url,
    deployment: Deployment,
    parameters: &UrlParameters,
) -> Result<Option<u8>, SettingsError> {
    let text = match deployment {
        Deployment::Socket => parameters.database.as_deref().unwrap_or_default(),
        _ => url.path().trim_matches('/'),
    };
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.parse().map_err(|_| without_credentials(text, SettingsError::Database))?;
    match (deployment, number) {
        // Database 0 is the default.
        (_, 0) => Ok(None),
        (Deployment::Cluster, _) => Err(SettingsError::ClusterDatabase),
        _ => Ok(Some(number)),
    }
}

/// Creates an error that contains this text, unless it may be part of a password.
fn without_credentials(text: &str, error: fn(String) -> SettingsError) -> SettingsError {
    if text.contains('@') { SettingsError::Credentials } else { error(text.to_owned()) }
}

/// Percent-decodes a text. Returns `None` if it is empty.
fn decode_non_empty(encoded: &str) -> Result<Option<String>, SettingsError> {
    let text = percent_decode_str(encoded).decode_utf8().map_err(|_| SettingsError::Text)?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(url: &str) -> RedisAddress {
        Settings::parse(url).unwrap().address
    }

    #[test]
    fn a_server_has_a_host_and_a_port() {
        let at = |host: &str, port| RedisAddress::Server(host.to_owned(), port);
        assert_eq!(address_of("redis://cache.internal"), at("cache.internal", 6379));
        assert_eq!(address_of("valkey://cache.internal:7000/"), at("cache.internal", 7000));
        assert_eq!(address_of("redis://[::1]:7000"), at("::1", 7000));
    }

    #[test]
    fn credentials_are_percent_encoded() {
        let settings = Settings::parse("rediss://default:p%40ss%2Fw@host:6379/3").unwrap();
        assert_eq!(settings.username.as_deref(), Some("default"));
        assert_eq!(settings.password.as_ref().map(Password::expose), Some("p@ss/w"));
        assert_eq!(settings.database, Some(3));
        assert_eq!(settings.tls, Some(TlsSettings::default()));
        let alone = Settings::parse("redis://:secret@host/0").unwrap();
        assert_eq!((alone.username, alone.database), (None, None));
        assert_eq!(alone.password, Some(Password::new("secret")));
        assert_eq!(alone.tls, None);
    }

    #[test]
    fn no_error_repeats_a_password() {
        for (url, error) in [
            ("redis://u:1/hunter2@host", SettingsError::Credentials),
            ("redis://u:1?hunter2@host", SettingsError::Credentials),
            ("redis-cluster://host?node=u:hunter2@host", SettingsError::Credentials),
            ("redis://host/a", SettingsError::Database("a".to_owned())),
        ] {
            assert_eq!(Settings::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn sockets_have_a_path() {
        let settings = Settings::parse("redis+unix:///run/redis%20a.sock?database=2").unwrap();
        assert_eq!(settings.address, RedisAddress::Socket("/run/redis a.sock".into()));
        assert_eq!(settings.database, Some(2));
        assert_eq!(address_of("unix:/run/a.sock"), RedisAddress::Socket("/run/a.sock".into()));
        for url in ["redis+unix://u:p@localhost/run/redis.sock", "redis+unix://u:p@/run/redis.sock"]
        {
            let with_password = Settings::parse(url).unwrap();
            assert_eq!(with_password.address, RedisAddress::Socket("/run/redis.sock".into()));
            assert_eq!(with_password.username.as_deref(), Some("u"));
        }
    }

    #[test]
    fn clusters_and_sentinels_have_several_nodes() {
        let nodes = vec![("a".to_owned(), 7000), ("b".to_owned(), 7001)];
        assert_eq!(
            address_of("redis-cluster://a:7000/0?node=b:7001"),
            RedisAddress::Cluster(nodes.clone())
        );
        let sentinel = "rediss-sentinel://a:7000/1?node=b:7001&service=primary&sentinel_password=x";
        assert_eq!(
            address_of(sentinel),
            RedisAddress::Sentinel {
                sentinels: nodes,
                service: "primary".to_owned(),
                username: None,
                password: Some(Password::new("x")),
            }
        );
    }

    #[test]
    fn invalid_urls_are_rejected() {
        use SettingsError as Error;
        let refused = [
            ("host:6379", Error::Scheme("host".to_owned())),
            ("http://host", Error::Scheme("http".to_owned())),
            ("redisx://host", Error::Scheme("redisx".to_owned())),
            ("rediss+unix:///a", Error::Scheme("rediss+unix".to_owned())),
            ("redis:///1", Error::Host),
            ("redis://u:p@/1", Error::Url(url::ParseError::EmptyHost)),
            ("redis+unix://", Error::Socket),
            ("redis://host/one", Error::Database("one".to_owned())),
            ("redis://host/256", Error::Database("256".to_owned())),
            ("redis-cluster://host/1", Error::ClusterDatabase),
            ("redis-cluster://host?node=b", Error::Node("b".to_owned())),
            ("redis-sentinel://host", Error::Service),
            ("redis://host?pool=3", Error::Parameter("pool".to_owned())),
            ("redis://:%ff@host", Error::Text),
        ];
        for (url, error) in refused {
            assert_eq!(Settings::parse(url).unwrap_err(), error, "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let settings = Settings::parse("redis://u:hunter2@host").unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}

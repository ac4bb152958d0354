//! Redis clients, which are replaced rather than repaired.

use std::{ops::Deref, pin::pin, sync::Arc, time::Duration};

use fred::{
    error::Error,
    interfaces::ClientLike,
    types::{
        RespVersion,
        config::{
            ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectError,
            ReconnectPolicy, Server, ServerConfig, TcpConfig, TlsConfig, TlsConnector,
            TlsHostMapping, UnresponsiveConfig,
        },
    },
};
use tokio::{sync::watch, task::AbortHandle};

use super::{
    clock::ServerClocks,
    inline,
    settings::{Password, RedisAddress, Settings, TlsSettings},
};
use crate::tls::{self, PemFiles, TlsError};

/// Maximum number of queued commands of a client. At the limit, commands fail at once.
const MAX_QUEUED_COMMANDS: usize = 10_000;
/// How long sent bytes may stay unacknowledged before the kernel closes the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum and maximum delay between reconnection attempts, in milliseconds.
const RECONNECT: (u32, u32) = (50, 2_000);

/// Creates clients for one Redis deployment. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisConnector {
    config: Config,
    connect_deadline: Duration,
    command_deadline: Duration,
    clocks: Arc<ServerClocks>,
}

/// The purpose of a client, which determines reconnection and timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisClientKind {
    /// Many short commands from many tasks.
    ///
    /// The client reconnects indefinitely. While it is disconnected, each command fails after its
    /// deadline.
    Commands,
    /// A session whose owner must notice its end: it never reconnects, and later commands fail.
    Session,
    /// A session with blocking commands, whose timeouts are this much longer than usual.
    Blocking(Duration),
    /// A session whose owner checks each reply.
    ///
    /// Commands fail after this time. An error reply does not end the session.
    Supervised(Duration),
    /// A supervised session that also receives messages.
    Subscriber(Duration),
}

/// A Redis client, with the task that drives its connections. A client that hangs is replaced, not
/// repaired. The circuit breaker is in `store/redis`.
///
/// Dropping the client closes the connection, even if the server hangs; commands in progress fail.
#[derive(Debug)]
pub struct RedisClient {
    fred: fred::clients::Client,
    task: AbortHandle,
    alive: watch::Receiver<()>,
}

impl RedisConnector {
    /// Creates a connector, and reads the certificates named by the settings.
    pub fn new(settings: &Settings) -> Result<Self, TlsError> {
        let config = Config {
            fail_fast: false,
            // fred sends the credentials in an inline `HELLO`, which requires quotes.
            username: settings.username.as_deref().map(inline::quoted),
            password: settings.password.as_ref().map(|it| inline::quoted(it.expose())),
            database: settings.database,
            version: RespVersion::RESP3,
            server: server(&settings.address),
            tls: settings.tls.as_ref().map(connector).transpose()?,
            ..Config::default()
        };
        Ok(Self {
            config,
            connect_deadline: settings.connect_deadline,
            command_deadline: settings.command_deadline,
            clocks: Arc::new(ServerClocks::new(matches!(
                settings.address,
                RedisAddress::Cluster(_)
            ))),
        })
    }

    /// Returns the timeout for commands.
    pub fn command_deadline(&self) -> Duration {
        self.command_deadline
    }

    /// Returns the timeout for connecting.
    pub fn connect_deadline(&self) -> Duration {
        self.connect_deadline
    }

    /// Returns the clock estimates of the servers.
    pub fn clocks(&self) -> &Arc<ServerClocks> {
        &self.clocks
    }

    /// Returns whether keys are distributed over several servers.
    pub fn is_cluster(&self) -> bool {
        matches!(self.config.server, ServerConfig::Clustered { .. })
    }

    /// Creates a client that starts to connect; see [`ClientLike::wait_for_connect`].
    ///
    /// Requires a runtime, which then serves the connection.
    pub fn client(&self, kind: RedisClientKind) -> RedisClient {
        RedisClient::spawn(self.unconnected(kind))
    }

    /// Returns a connected client. Cancel-safe.
    ///
    /// Requires a runtime, which then serves the connection.
    pub async fn connect(&self, kind: RedisClientKind) -> Result<RedisClient, Error> {
        let fred = self.unconnected(kind);
        let waiting = fred.clone();
        let mut connected = pin!(waiting.wait_for_connect());
        // The connect event is sent once, so the waiter must be registered before connecting.
        let _nothing_yet = futures_util::poll!(connected.as_mut());
        let client = RedisClient::spawn(fred);
        connected.await?;
        Ok(client)
    }

    fn unconnected(&self, kind: RedisClientKind) -> fred::clients::Client {
        let config = Config { fail_fast: kind.is_session(), ..self.config.clone() };
        let performance = PerformanceConfig {
            default_command_timeout: kind.deadline(self.command_deadline),
            broadcast_channel_capacity: kind.channel_capacity(),
            ..PerformanceConfig::default()
        };
        let connection = self.connection(kind);
        fred::clients::Client::new(config, Some(performance), Some(connection), kind.reconnect())
    }

    fn connection(&self, kind: RedisClientKind) -> ConnectionConfig {
        if let RedisClientKind::Supervised(_) | RedisClientKind::Subscriber(_) = kind {
            return ConnectionConfig {
                reconnect_on_auth_error: false,
                unresponsive: UnresponsiveConfig::default(),
                reconnect_errors: Vec::new(),
                ..self.connection(RedisClientKind::Session)
            };
        }
        ConnectionConfig {
            connection_timeout: self.connect_deadline,
            internal_command_timeout: self.connect_deadline,
            // Never retry a command that may have run; the caller decides.
            max_command_attempts: 1,
            max_command_buffer_len: MAX_QUEUED_COMMANDS,
            reconnect_on_auth_error: true,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(kind.deadline(Duration::from_secs(2))),
                interval: Duration::from_millis(500),
            },
            tcp: TcpConfig {
                nodelay: Some(true),
                user_timeout: Some(USER_TIMEOUT),
                ..TcpConfig::default()
            },
            reconnect_errors: vec![
                ReconnectError::ReadOnly,
                ReconnectError::Loading,
                ReconnectError::ClusterDown,
                ReconnectError::MasterDown,
            ],
            ..ConnectionConfig::default()
        }
    }
}

impl RedisClientKind {
    fn is_session(self) -> bool {
        self != Self::Commands
    }

    fn reconnect(self) -> Option<ReconnectPolicy> {
        let (min, max) = RECONNECT;
        (!self.is_session()).then(|| ReconnectPolicy::new_exponential(0, min, max, 2))
    }

    /// Capacity of the message and event channels.
    ///
    /// Each client preallocates eight channels; a capacity of 1,000 takes 1 MB.
    fn channel_capacity(self) -> usize {
        match self {
            Self::Subscriber(_) => 1024,
            _ => 16,
        }
    }

    fn deadline(self, default: Duration) -> Duration {
        match self {
            Self::Blocking(longer) => default.saturating_add(longer),
            Self::Supervised(own) | Self::Subscriber(own) => own,
            Self::Commands | Self::Session => default,
        }
    }
}

impl RedisClient {
    fn spawn(fred: fred::clients::Client) -> Self {
        let connection = fred.connect();
        let task = connection.abort_handle();
        let (living, alive) = watch::channel(());
        tokio::spawn(async move {
            let _however_it_ended = connection.await;
            drop(living);
        });
        Self { fred, task, alive }
    }

    /// Closes the connection now. Commands in progress fail.
    pub fn close(&self) {
        self.task.abort();
    }

    /// Waits until the connection is closed for good.
    pub async fn closed(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// Returns whether the connection is closed for good.
    pub fn is_closed(&self) -> bool {
        self.task.is_finished()
    }
}

impl Deref for RedisClient {
    type Target = fred::clients::Client;

    fn deref(&self) -> &Self::Target {
        &self.fred
    }
}

impl Drop for RedisClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn exposed(password: &Password) -> String {
    password.expose().to_owned()
}

fn connector(TlsSettings { ca, cert, key }: &TlsSettings) -> Result<TlsConfig, TlsError> {
    let files = PemFiles { ca: ca.as_deref(), cert: cert.as_deref(), key: key.as_deref() };
    let config = Arc::new(tls::client_config(files)?);
    let connector = TlsConnector::Rustls(tokio_rustls::TlsConnector::from(config));
    // Cluster nodes are announced by address, but their certificates name the configured host.
    Ok(TlsConfig { connector, hostnames: TlsHostMapping::DefaultHost })
}

fn server(address: &RedisAddress) -> ServerConfig {
    let servers = |nodes: &[(String, u16)]| {
        nodes.iter().map(|(host, port)| Server::new(host.as_str(), *port)).collect()
    };
    match address {
        RedisAddress::Server(host, port) => ServerConfig::new_centralized(host.as_str(), *port),
        RedisAddress::Socket(path) => ServerConfig::new_unix_socket(path),
        RedisAddress::Cluster(nodes) => ServerConfig::Clustered {
            hosts: servers(nodes),
            policy: ClusterDiscoveryPolicy::ConfigEndpoint,
        },
        RedisAddress::Sentinel { sentinels, service, username, password } => {
            ServerConfig::Sentinel {
                hosts: servers(sentinels),
                service_name: service.clone(),
                username: username.clone(),
                password: password.as_ref().map(exposed),
            }
        }
    }
}

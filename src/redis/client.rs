//! Clients: made anew as often as it takes, and gone when they are dropped.

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
    settings::{Password, RedisAddress, Settings},
    tls::{self, TlsError},
};
/// Commands that may wait in one client. Beyond it they fail at once: a cache that has got that far
/// behind is of no use.
const MAX_QUEUED_COMMANDS: usize = 10_000;
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Milliseconds from one attempt to connect again to the next, at least and at most.
const RECONNECT: (u32, u32) = (50, 2_000);

/// Makes clients of one Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisConnector {
    config: Config,
    connect_deadline: Duration,
    command_deadline: Duration,
    clocks: Arc<ServerClocks>,
}

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisClientKind {
    /// Many short commands from many tasks. It connects again by itself, for ever; until it has, each
    /// command fails after its deadline.
    Commands,
    /// A session whose owner has to know when it ends: it never connects again, and each command fails
    /// from then on.
    Session,
    /// The same, for commands that block: they may take this much longer than others.
    Blocking(Duration),
    /// A session whose owner watches each answer itself: each command fails after this long, and an
    /// error that the server answers with is an answer, whatever it says.
    Supervised(Duration),
    /// The same, for a session that messages come to.
    Subscriber(Duration),
}

/// A client, and the task that drives its connection. When it is dropped the connection is closed,
/// even if the server hangs, and commands under way fail.
#[derive(Debug)]
pub struct RedisClient {
    fred: fred::clients::Client,
    task: AbortHandle,
    alive: watch::Receiver<()>,
}

impl RedisConnector {
    /// Reads the certificates that the settings name.
    pub fn new(settings: &Settings) -> Result<Self, TlsError> {
        let config = Config {
            fail_fast: false,
            // They go out within an inline `HELLO`.
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

    /// How long the answer to a command may take.
    pub fn command_deadline(&self) -> Duration {
        self.command_deadline
    }

    /// How long connecting may take.
    pub fn connect_deadline(&self) -> Duration {
        self.connect_deadline
    }

    /// The clocks of the servers that its clients talk to.
    pub fn clocks(&self) -> &Arc<ServerClocks> {
        &self.clocks
    }

    /// Whether keys stand on several servers, so that one command cannot name any two of them.
    pub fn is_cluster(&self) -> bool {
        matches!(self.config.server, ServerConfig::Clustered { .. })
    }

    /// A client that begins to connect now. [`ClientLike::wait_for_connect`] tells how that went.
    ///
    /// It has to be called inside a runtime; its connection is served there.
    pub fn client(&self, kind: RedisClientKind) -> RedisClient {
        RedisClient::spawn(self.unconnected(kind))
    }

    /// A client that has connected. Dropped before, it leaves nothing behind.
    ///
    /// It has to be called inside a runtime; its connection is served there.
    pub async fn connect(&self, kind: RedisClientKind) -> Result<RedisClient, Error> {
        let fred = self.unconnected(kind);
        let waiting = fred.clone();
        let mut connected = pin!(waiting.wait_for_connect());
        // What it waits for is told but once: it has to listen before there is anything to hear.
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
            // A command that may have run is never sent again: whoever asked decides.
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

    /// Messages, and news of the connection, that may wait. Each client keeps room for as many of eight
    /// kinds: a thousand take a megabyte.
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

    /// Closes the connection now. Commands under way fail.
    pub fn close(&self) {
        self.task.abort();
    }

    /// Waits until its connection is gone for good.
    pub async fn closed(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// Whether its connection is gone for good.
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

fn connector(settings: &super::settings::TlsSettings) -> Result<TlsConfig, TlsError> {
    let config = tls::client_config(settings)?;
    let connector = TlsConnector::Rustls(tokio_rustls::TlsConnector::from(Arc::clone(&config)));
    // A cluster tells its nodes by address; their certificates name the host that was asked for.
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

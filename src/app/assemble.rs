//! Translates a configuration into the settings of each module.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use http::HeaderValue;
use tokio::runtime::Handle;

use super::{files, issuers::IssuerKeys};

use crate::{
    admin,
    config::{AccessLogFormat as LogForm, Config, Permission, StoreConfig},
    feed::CorsOrigins,
    forward::ViaIdentity,
    key::{
        DigestKey, StoragePlacement,
        digest::{CredentialDigester, MIN_DIGEST_KEY_LENGTH},
    },
    origin::Origin,
    pipeline::{ConfigSnapshot, FiguresByRoute, ServedHosts, ServerTiming, SnapshotId},
    purge::{AppliedPurges, LogRetention, PurgeLog, RedisLogSettings},
    redis,
    server::{
        self,
        tls::{self, Certificates},
    },
    store::{self, MemoryStore, RedisStore, TieredStore},
    telemetry::{AccessLog, AccessLogEncoding, Metrics, log::LogQueue},
    trigger::{self, PurgeAccess, RequiredPermission, Token, Tokens},
    user::{Authenticator, IdentitySource, TokenKeys},
};

/// The size limit of a stored response's head, in bytes.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// Loads the certificates of the listeners, if TLS is configured.
pub(super) fn certificates(config: &Config) -> anyhow::Result<Option<Arc<Certificates>>> {
    let Some(files) = &config.tls else { return Ok(None) };
    Ok(Some(Certificates::load(&files.cert, &files.key)?))
}

/// Returns the settings of the public listeners.
pub(super) fn server(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
) -> anyhow::Result<server::Settings> {
    let limits = &config.limits;
    let clients = files::for_clients(limits);
    Ok(server::Settings {
        tls: certificates.map(tls::server_config).transpose()?,
        connections: clients.connections,
        tunnels: clients.tunnels,
        tunnel_idle_timeout: limits.tunnel_idle_timeout,
        header_bytes: limits.header_bytes,
        header_count: limits.headers,
        body_bytes: limits.body.unwrap_or(u64::MAX),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        ..server::Settings::default()
    })
}

/// Returns the settings of the admin listener.
///
/// The listener has reserved file descriptors, so that clients cannot make it unreachable.
pub(super) fn admin_server() -> server::Settings {
    server::Settings { reserved_files: files::ADMIN_RESERVE, ..server::Settings::default() }
}

/// Creates the store. Must be called in the runtime that runs its background tasks.
pub(super) fn store(config: &Config, metrics: &Metrics) -> anyhow::Result<TieredStore> {
    let settings = &config.store;
    let memory = (settings.memory > 0).then(|| {
        MemoryStore::new(settings.memory, settings.max_object)
            .with_files(files::for_bodies(&config.limits))
    });
    let redis = match &settings.redis {
        None => None,
        Some(connection) => {
            let settings = redis_store(config, connection.clone())?;
            let runtime = Handle::current();
            let redis = RedisStore::start(settings, metrics.for_redis(), &runtime);
            Some(redis.context("cannot set up the connection to Redis")?)
        }
    };
    Ok(TieredStore::new(memory, redis))
}

fn redis_store(
    config: &Config,
    connection: redis::Settings,
) -> anyhow::Result<store::redis::Settings> {
    let StoreConfig { timeout, prefix, version, compress_above, max_object, .. } = &config.store;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(store::redis::Settings {
        connection,
        read_deadline: *timeout,
        prefix: prefix.clone(),
        version: version.clone(),
        compress_above: bytes(*compress_above),
        max_entry: bytes(max_object.saturating_add(MAX_HEAD_BYTES)),
        sealing_keys: sealing_keys(config)?,
        stale_for: stale_for(config),
    })
}

/// Returns the longest time for which any route serves stale responses.
pub(super) fn stale_for(config: &Config) -> Duration {
    let routes = config.routes.each();
    routes.map(|route| route.rule.max_stale_window()).max().unwrap_or_default()
}

/// Returns the keys that encrypt entries in Redis, if configured.
fn sealing_keys(config: &Config) -> anyhow::Result<Option<store::redis::SealingKeys>> {
    let keys = &config.store.encrypt_keys;
    if keys.is_empty() {
        return Ok(None);
    }
    let sealing_keys =
        store::redis::SealingKeys::new(keys.iter().map(|key| key.expose().as_bytes()));
    // An error, because the fallback would store entries unencrypted.
    sealing_keys.map(Some).context("a key in `store.encrypt_keys` is too short")
}

/// Creates the purge log: in Redis if configured, or else in memory.
pub(super) fn log(config: &Config) -> anyhow::Result<PurgeLog> {
    let settings = &config.store;
    let Some(connection) = &settings.redis else { return Ok(PurgeLog::in_memory()) };
    let connector =
        redis::RedisConnector::new(connection).context("cannot set up the connection to Redis")?;
    let applied_purges = AppliedPurges::in_fleet(settings.unsynced);
    let log =
        RedisLogSettings { connector, prefix: &settings.prefix, retention: retention(config) };
    Ok(PurgeLog::in_redis(log, Arc::new(applied_purges), &Handle::current()))
}

/// Returns how long Redis keeps purge records, which is at least as long as any response is kept.
pub(super) fn retention(config: &Config) -> LogRetention {
    let routes = config.routes.each();
    LogRetention::of(routes.map(|route| route.rule.max_use()).max().unwrap_or_default())
}

/// Builds the pipeline's snapshot of the configuration.
///
/// The instance id, the store version and the keys of issuers belong to the process and outlive
/// configurations.
pub(super) fn site(
    config: &Config,
    (identity, version, issuers): (&ViaIdentity, &Arc<str>, &IssuerKeys),
    metrics: &Arc<Metrics>,
    log_queue: Option<&Arc<LogQueue>>,
) -> anyhow::Result<ConfigSnapshot> {
    let routes = config.routes.clone();
    let names = routes.each().map(|route| &*route.name);
    let is_graphql = routes.routes().iter().any(|route| route.graphql.is_some());
    let server_timing = if config.server_timing { ServerTiming::On } else { ServerTiming::Off };
    let digests = digests(config)?;
    Ok(ConfigSnapshot {
        id: SnapshotId::next(),
        version: Arc::clone(version),
        metrics: names.map(|name| metrics.for_route(name)).collect(),
        watches: Arc::default(),
        figures: FiguresByRoute::default(),
        routes,
        origin: Origin::new(&config.origin).context("cannot set up the origin")?,
        identity: identity.clone(),
        hosts: ServedHosts { patterns: config.hosts.clone().into() },
        host: config.origin.host.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        credentials: config.user.credentials.clone(),
        users: Arc::new(users(
            config,
            &digests,
            issuers.keys(&config.user.identity_source, metrics)?,
        )?),
        digests,
        access_log: log_queue.and_then(|log_queue| access_log(config, log_queue)).map(Arc::new),
        max_object: config.store.max_object,
        server_timing,
        recent_requests: is_graphql.then(Arc::default),
    })
}

/// Creates the digester for credentials in keys, with the fleet's secret or this process's own.
fn digests(config: &Config) -> anyhow::Result<CredentialDigester> {
    static OWN: OnceLock<DigestKey> = OnceLock::new();
    let given = config.user.digest_key.as_ref();
    let of_fleet = given.and_then(|key| DigestKey::new(key.expose().as_bytes()));
    if let Some(key) = of_fleet {
        return Ok(CredentialDigester { key, storage_placement: StoragePlacement::Fleet });
    }
    let mut secret = [0; MIN_DIGEST_KEY_LENGTH];
    aws_lc_rs::rand::fill(&mut secret).context("the system's random number generator failed")?;
    let drawn = DigestKey::new(&secret).context("cannot create a digest key")?;
    let key = OWN.get_or_init(|| drawn).clone();
    // Without Redis this process is the whole fleet.
    let storage_placement =
        if config.store.redis.is_some() { StoragePlacement::Node } else { StoragePlacement::Fleet };
    Ok(CredentialDigester { key, storage_placement })
}

/// Creates the authenticator.
///
/// If no digest key is configured, it is derived from the keys that verify tokens, so that digests
/// are the same on all nodes.
fn users(
    config: &Config,
    digests: &CredentialDigester,
    keys: Option<Arc<TokenKeys>>,
) -> anyhow::Result<Authenticator> {
    let user = &config.user;
    let key = match digests.storage_placement {
        StoragePlacement::Node if user.identity_source != IdentitySource::None => user
            .identity_source
            .digest_key(&config.store.prefix)
            .context("cannot create a digest key")?,
        StoragePlacement::Node | StoragePlacement::Fleet => digests.key.clone(),
    };
    let routes = config.routes.each();
    let partitions = routes.map(|route| route.rule.partition.clone());
    let users = Authenticator::new(key).with_source(user.identity_source.clone(), keys, partitions);
    Ok(users.with_recheck(user.recheck))
}

/// Returns the settings of the admin listener: tokens and host names.
pub(super) fn admin(config: &Config) -> admin::Settings {
    admin::Settings { tokens: tokens(config), hosts: config.admin.hosts.clone() }
}

fn tokens(config: &Config) -> Tokens {
    let access = |permission: &Permission| match permission {
        Permission::Read => RequiredPermission::Read,
        Permission::Purge => RequiredPermission::Purge,
    };
    let tokens = config.admin.tokens.iter();
    Tokens::new(
        tokens
            .map(|token| {
                Token::new(token.secret.expose(), token.permissions.iter().map(access).collect())
            })
            .collect(),
    )
}

/// Returns the settings of Larder's endpoints on the public listener.
pub(super) fn endpoints(config: &Config) -> trigger::Settings {
    let networks = config.admin.purge_from.clone();
    let trusted_proxies = config.trusted_proxies.clone();
    trigger::Settings {
        webhooks: config.webhooks.iter().cloned().map(Arc::new).collect(),
        purge_access: PurgeAccess { tokens: tokens(config), networks, trusted_proxies },
        clear_origins: (config.user.identity_source != IdentitySource::None)
            .then(|| page_origins(config)),
    }
}

/// Returns the web origins whose pages may call Larder's endpoints for their users.
fn page_origins(config: &Config) -> Box<[HeaderValue]> {
    match config.events.as_ref().map(|events| &events.origins) {
        Some(CorsOrigins::Only(origins)) => origins.clone().into(),
        Some(CorsOrigins::Any) | None => Box::default(),
    }
}

fn access_log(config: &Config, log_queue: &Arc<LogQueue>) -> Option<AccessLog> {
    let format = match config.log.access {
        LogForm::Json => AccessLogEncoding::Json,
        LogForm::Text => AccessLogEncoding::Text,
        LogForm::Off => return None,
    };
    Some(AccessLog::new(format, Arc::clone(log_queue)))
}

//! From a configuration to the settings of each room.

use std::{io::Write, sync::Arc};

use anyhow::Context as _;

use crate::{
    admin::{Access, Token, Tokens},
    config::{AccessLog as LogForm, Config, OriginHost, OriginScheme, Permission},
    origin::{Origin, rewrite::Identity, settings as origin_settings},
    pipeline::{ServerTiming, Site, SiteId},
    server::{
        self,
        tls::{self, Certificates},
    },
    telemetry::{AccessLog, Format, Metrics},
};

/// Where the access log goes: something that opens it anew for each configuration.
pub type Sink = Arc<dyn Fn() -> Box<dyn Write + Send> + Send + Sync>;

/// The certificates of the listeners, if they speak TLS.
pub fn certificates(config: &Config) -> anyhow::Result<Option<Arc<Certificates>>> {
    let Some(files) = &config.tls else { return Ok(None) };
    Ok(Some(Certificates::load(&files.cert, &files.key)?))
}

/// What the public listeners are told.
pub fn server(
    config: &Config,
    certificates: Option<Arc<Certificates>>,
) -> anyhow::Result<server::Settings> {
    let limits = &config.limits;
    Ok(server::Settings {
        tls: certificates.map(tls::server_config).transpose()?,
        connections: limits.connections,
        header_bytes: limits.header_bytes,
        header_count: limits.headers,
        body_bytes: limits.body.unwrap_or(u64::MAX),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        ..server::Settings::default()
    })
}

/// What the pipeline is told. `identity` is the process's own: it outlives configurations.
pub fn site(
    config: &Config,
    identity: &Identity,
    metrics: &Arc<Metrics>,
    sink: &Sink,
) -> anyhow::Result<Site> {
    let routes = config.routes.clone();
    let names = routes.routes().iter().chain([routes.unmatched()]).map(|route| &*route.name);
    let server_timing = if config.server_timing { ServerTiming::On } else { ServerTiming::Off };
    Ok(Site {
        id: SiteId::next(),
        metrics: names.map(|name| metrics.of_route(name)).collect(),
        routes,
        origin: Origin::new(&origin(config)).context("the origin cannot be set up")?,
        identity: identity.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        access_log: access_log(config, metrics, sink)?.map(Arc::new),
        max_object: config.store.max_object,
        server_timing,
    })
}

/// Who may call the admin listener.
pub fn tokens(config: &Config) -> Tokens {
    let access = |permission: &Permission| match permission {
        Permission::Read => Access::Read,
        Permission::Purge => Access::Purge,
    };
    let tokens = config.admin.tokens.iter();
    Tokens::new(
        tokens
            .map(|token| Token::new(token.secret.expose(), token.may.iter().map(access).collect()))
            .collect(),
    )
}

fn access_log(
    config: &Config,
    metrics: &Metrics,
    sink: &Sink,
) -> anyhow::Result<Option<AccessLog>> {
    let format = match config.log.access {
        LogForm::Json => Format::Json,
        LogForm::Text => Format::Text,
        LogForm::Off => return Ok(None),
    };
    let dropped = metrics.access_log_dropped.clone();
    let log = AccessLog::start(format, sink(), dropped).context("cannot start the access log")?;
    Ok(Some(log))
}

fn origin(config: &Config) -> origin_settings::Settings {
    let origin = &config.origin;
    origin_settings::Settings {
        urls: origin.urls.iter().map(endpoint).collect(),
        connect_timeout: origin.connect_timeout,
        first_byte_timeout: origin.first_byte_timeout,
        idle_timeout: origin.idle_timeout,
        retries: origin.retries,
        health: origin.health.as_ref().map(|health| origin_settings::Health {
            path: health.path.clone(),
            every: health.every,
        }),
        tls: origin_settings::Tls {
            ca: origin.tls.ca.clone(),
            cert: origin.tls.client.as_ref().map(|files| files.cert.clone()),
            key: origin.tls.client.as_ref().map(|files| files.key.clone()),
            server_name: origin.tls.server_name.clone(),
        },
        host: match &origin.host {
            OriginHost::Preserve => origin_settings::Host::Preserve,
            OriginHost::Origin => origin_settings::Host::Origin,
            OriginHost::Literal(authority) => origin_settings::Host::Literal(authority.clone()),
        },
    }
}

fn endpoint(url: &crate::config::OriginUrl) -> origin_settings::Endpoint {
    origin_settings::Endpoint {
        scheme: match url.scheme {
            OriginScheme::Http => origin_settings::Scheme::Http,
            OriginScheme::Https => origin_settings::Scheme::Https,
            OriginScheme::H2c => origin_settings::Scheme::H2c,
        },
        place: origin_settings::Place::Tcp(url.host.trim_matches(['[', ']']).to_owned(), url.port),
        authority: url.authority.clone(),
    }
}

//! Compilation of the sections of a file into checked settings, with a finding for each problem.

mod content;
mod events;
mod graphql;
mod identity;
mod layers;
mod origin;
mod problems;
mod request_rules;
mod routes;
mod schedules;
mod store;
mod test;
mod ttl;
mod user;
mod warnings;
mod webhook;

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use problems::Problems;
use tracing::level_filters::LevelFilter;

use super::{
    file::{AdminTable, ConfigFile, LimitsTable, LogTable, Texts, TlsTable, TokenTable},
    flags::CliOverrides,
    listen::{ListenAddress, listen_address},
    report::{ConfigReport, Finding},
    secret::Secret,
    settings::{
        AccessLogFormat, AdminConfig, AdminToken, CertificateFiles, Config, LimitsConfig,
        LogConfig, Permission,
    },
    value,
};
use crate::key::uri::Scheme;

/// Compiles a file and a command line. Returns `None` if a required setting is missing.
pub(super) fn compile(
    file: &ConfigFile,
    flags: &CliOverrides,
    source: &str,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    let mut problems = Problems { source, findings };
    let listen = listen(file.listen.as_ref(), flags, &mut problems);
    let tls = file.tls.as_ref().and_then(|tls| certificate(tls, &tls.span, &mut problems));
    let origin = origin::compile(file.origin.as_ref(), flags, &mut problems);
    let hosts = problems.each(file.hosts.as_ref(), value::served_host);
    let trusted_proxies = problems.each(file.trusted_proxies.as_ref(), value::network);
    let admin = admin(&file.admin, flags, &trusted_proxies, &mut problems);
    let limits = limits(&file.limits, &mut problems);
    let user = user::compile(&file.user, &mut problems);
    user::warn_about_vary(&file.route, &user.credentials, &mut problems);
    let routes = routes::compile(file, &mut problems);
    let store = store::compile(&file.store, flags, &mut problems);
    let is_shared = store.redis.is_some();
    identity::check(file, &routes, (&user, is_shared), &mut problems);
    let default_scheme = if file.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let public = schedules::public_host(file.public_host.as_ref(), default_scheme, &mut problems);
    let events = events::compile(file, limits.connections, &mut problems);
    let config = Config {
        listen,
        reuse_port: file.reuse_port.unwrap_or_default(),
        tls,
        hosts,
        trusted_proxies,
        server_timing: file.server_timing.unwrap_or_default(),
        limits,
        admin,
        store,
        user,
        routes,
        schedules: schedules::schedules(&file.schedule, &public, &mut problems),
        polls: schedules::polls(&file.poll, &public, &mut problems),
        webhooks: webhook::compile(&file.webhook, &mut problems),
        events,
        tests: test::compile(&file.test, &mut problems),
        log: log(&file.log, flags, &mut problems),
        warnings: ConfigReport::default(),
        origin: origin?,
    };
    warnings::warn(file, &config, &mut problems);
    Some(config)
}

fn listen(
    listen: Option<&Texts>,
    flags: &CliOverrides,
    problems: &mut Problems<'_>,
) -> Vec<ListenAddress> {
    let given = problems.each(listen, listen_address);
    if !flags.listen.is_empty() {
        return flags.listen.clone();
    }
    let Some(texts) = listen else {
        return vec![ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], 8080)))];
    };
    if texts.is_empty() {
        problems.error(&texts.span, "`listen` is empty; expected at least one address");
    }
    for (index, text) in texts.iter().enumerate() {
        if texts.iter().take(index).any(|earlier| earlier.value == text.value) {
            problems.error(&text.span, "this address is listed twice");
        }
    }
    given
}

fn certificate(
    tls: &TlsTable,
    span: &std::ops::Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<CertificateFiles> {
    let cert = problems.required(tls.cert.as_ref(), span, "tls", "cert");
    let key = problems.required(tls.key.as_ref(), span, "tls", "key");
    Some(CertificateFiles { cert: cert?.as_str().into(), key: key?.as_str().into() })
}

fn limits(table: &LimitsTable, problems: &mut Problems<'_>) -> LimitsConfig {
    let defaults = LimitsConfig::default();
    let mut time = |text, default| problems.positive_duration(text).unwrap_or(default);
    let header_timeout = time(table.header_timeout.as_ref(), defaults.header_timeout);
    let idle_timeout = time(table.idle_timeout.as_ref(), defaults.idle_timeout);
    let tunnel_idle_timeout =
        time(table.tunnel_idle_timeout.as_ref(), defaults.tunnel_idle_timeout);
    let mut count = |given, default| problems.positive_count(given).unwrap_or(default);
    let headers = count(table.headers.as_ref(), defaults.headers);
    let connections = count(table.connections.as_ref(), defaults.connections);
    LimitsConfig {
        header_bytes: header_bytes(table, problems).unwrap_or(defaults.header_bytes),
        headers,
        body: problems.size(table.body.as_ref()).filter(|bytes| *bytes > 0),
        connections,
        tunnels: problems.positive_count(table.tunnels.as_ref()),
        tunnel_idle_timeout,
        header_timeout,
        idle_timeout,
        drain_delay: drain_delay(table, problems).unwrap_or(defaults.drain_delay),
        drain: problems.duration(table.drain.as_ref()).unwrap_or(defaults.drain),
    }
}

/// Compiles `limits.drain_delay`, which is limited because supervisors wait only a few minutes.
fn drain_delay(table: &LimitsTable, problems: &mut Problems<'_>) -> Option<Duration> {
    const MAX_DRAIN_DELAY: Duration = Duration::from_mins(10);
    let text = table.drain_delay.as_ref()?;
    let delay = problems.duration(Some(text))?;
    if delay > MAX_DRAIN_DELAY {
        problems.error(&text.span, "expected at most `10m`");
        return None;
    }
    Some(delay)
}

/// Compiles `limits.header_bytes`. The minimum is the size of hyper's HTTP/1 buffer.
fn header_bytes(table: &LimitsTable, problems: &mut Problems<'_>) -> Option<usize> {
    let text = table.header_bytes.as_ref()?;
    let bytes = problems.size(Some(text))?;
    if !(8 << 10..=16 << 20).contains(&bytes) {
        problems.error(&text.span, "expected a size between `8KiB` and `16MiB`");
        return None;
    }
    usize::try_from(bytes).ok()
}

fn admin(
    table: &AdminTable,
    flags: &CliOverrides,
    trusted: &[IpNet],
    problems: &mut Problems<'_>,
) -> AdminConfig {
    let default = || Some(ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9180))));
    let listen = match (&flags.admin, &table.listen) {
        (Some(address), _) => Some(address.clone()),
        (None, Some(text)) if text.value == "off" => None,
        (None, Some(text)) => problems.read(text, listen_address).or_else(default),
        (None, None) => default(),
    };
    let mut tokens: Vec<AdminToken> =
        table.tokens.iter().filter_map(|entry| token(entry, &entry.span, problems)).collect();
    if let Some(text) = &table.token
        && let Some(secret) = secret(text, problems)
    {
        tokens.push(AdminToken { secret, permissions: Permission::ALL.to_vec() });
    }
    let is_open =
        matches!(&listen, Some(ListenAddress::Tcp(address)) if !address.ip().is_loopback());
    if let Some(text) = table.listen.as_ref().filter(|_| is_open && tokens.is_empty()) {
        let message = "the admin listener is reachable from other machines and has no token";
        problems.push(Finding::warning(text.span.clone(), message).help(
            "set `admin.token`, or listen on `127.0.0.1`: without a token, only health and metrics \
             are available",
        ));
    }
    let purge_from = problems.each(table.purge_from.as_ref(), value::network);
    warn_about_trusted_purgers(table.purge_from.as_ref(), trusted, problems);
    let hosts = problems.each(table.hosts.as_ref(), value::admin_host);
    AdminConfig { listen, hosts, tokens, purge_from }
}

/// Warns about trusted proxies in `purge_from`, which is compared with the addresses of clients.
fn warn_about_trusted_purgers(
    purge_from: Option<&Texts>,
    trusted: &[IpNet],
    problems: &mut Problems<'_>,
) {
    let overlaps = |network: &IpNet| {
        trusted.iter().any(|other| other.contains(network) || network.contains(other))
    };
    let texts = purge_from.into_iter().flat_map(|texts| texts.iter());
    for text in texts.filter(|text| value::network(text).is_ok_and(|network| overlaps(&network))) {
        let message =
            "some of these addresses are in `trusted_proxies`, so they may purge only for a client";
        problems.push(Finding::warning(text.span.clone(), message).help(
            "a trusted proxy purges on behalf of the client in `X-Forwarded-For`, and not without one; \
             keep the networks apart, or use a token",
        ));
    }
}

fn token(
    table: &TokenTable,
    span: &std::ops::Range<usize>,
    problems: &mut Problems<'_>,
) -> Option<AdminToken> {
    let token = problems.required(table.token.as_ref(), span, "admin.tokens", "token");
    let Some(may) = &table.may else {
        let message = "`may` is missing: the permissions of this token, as in `may = [\"read\"]`";
        problems.push(Finding::error(Some(span.clone()), message).doubtful());
        return None;
    };
    let words = Permission::ALL.map(|permission| (permission.as_str(), permission));
    let may = may.iter().filter_map(|text| problems.one_of(Some(text), &words)).collect();
    let secret = token.and_then(|text| secret(text, problems))?;
    Some(AdminToken { secret, permissions: may })
}

fn secret(text: &super::file::Text, problems: &mut Problems<'_>) -> Option<Secret> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.error(&text.span, "expected a token of visible ASCII characters");
        return None;
    }
    Some(Secret::new(text.as_str()))
}

fn log(table: &LogTable, flags: &CliOverrides, problems: &mut Problems<'_>) -> LogConfig {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let levels = levels.map(|word| (word, word.parse().unwrap_or(LevelFilter::INFO)));
    let formats = [
        ("json", AccessLogFormat::Json),
        ("text", AccessLogFormat::Text),
        ("off", AccessLogFormat::Off),
    ];
    let level = problems.one_of(table.level.as_ref(), &levels);
    let access = problems.one_of(table.access.as_ref(), &formats);
    LogConfig {
        level: level.unwrap_or(LevelFilter::INFO),
        access: flags.access_log.or(access).unwrap_or_default(),
    }
}

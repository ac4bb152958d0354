//! Compilation of `[origin]`.

use std::time::Duration;

use http::uri::Authority;

use super::problems::Problems;
use crate::{
    config::{
        file::{Located, OriginTable, OriginTlsTable, Text},
        flags::CliOverrides,
        report::Finding,
    },
    origin::{
        ConnectionLimits, HostHeader, ServerUrl, Settings,
        settings::{HealthCheck, OriginScheme, OriginTls},
    },
};

/// Compiles `[origin]`; `None` if there is no URL.
pub(super) fn compile(
    table: Option<&Located<OriginTable>>,
    flags: &CliOverrides,
    problems: &mut Problems<'_>,
) -> Option<Settings> {
    let nothing = OriginTable::default();
    let given = table.map_or(&nothing, |table| &table.value);
    let defaults = Settings::new(urls(table, flags, problems));
    let mut time =
        |text: &Option<Text>, default| problems.positive_duration(text.as_ref()).unwrap_or(default);
    let settings = Settings {
        connect_timeout: time(&given.connect_timeout, defaults.connect_timeout),
        first_byte_timeout: time(&given.first_byte_timeout, defaults.first_byte_timeout),
        idle_timeout: time(&given.idle_timeout, defaults.idle_timeout),
        keep_alive: time(&given.keep_alive, defaults.keep_alive),
        dns_refresh: time(&given.dns_refresh, defaults.dns_refresh),
        limits: connection_limits(given, defaults.limits, problems),
        max_header_bytes: header_bytes(given.max_header_bytes.as_ref(), problems)
            .unwrap_or(defaults.max_header_bytes),
        http2: given.http2.unwrap_or(defaults.http2),
        retries: retries(given.retries.as_ref(), problems).unwrap_or(defaults.retries),
        health: health(given, problems),
        tls: tls(given.tls.as_ref(), &defaults.urls, problems),
        host: host(given.host.as_ref(), problems),
        urls: defaults.urls,
    };
    (!settings.urls.is_empty()).then_some(settings)
}

fn urls(
    table: Option<&Located<OriginTable>>,
    flags: &CliOverrides,
    problems: &mut Problems<'_>,
) -> Vec<ServerUrl> {
    let texts = table.and_then(|table| table.urls.as_ref());
    let urls = problems.each(texts, str::parse);
    if !flags.origin.is_empty() {
        return flags.origin.clone();
    }
    if texts.is_none_or(|texts| texts.is_empty()) {
        let at = texts.map(|texts| &texts.span).or(table.map(|table| &table.span));
        problems.push(
            Finding::error(at.cloned(), "no origin is configured")
                .help("set `origin = \"http://127.0.0.1:3000\"`, or pass `--origin`")
                .doubtful(),
        );
    }
    urls
}

fn tls(
    table: Option<&Located<OriginTlsTable>>,
    urls: &[ServerUrl],
    problems: &mut Problems<'_>,
) -> OriginTls {
    let Some(table) = table else { return OriginTls::default() };
    if !urls.is_empty() && urls.iter().all(|url| url.scheme != OriginScheme::Https) {
        let message = "`origin.tls` has no effect without an `https` origin";
        problems.push(Finding::warning(table.span.clone(), message));
    }
    problems.together((&table.cert, &table.key));
    let path = |text: &Option<Text>| text.as_ref().map(|text| text.as_str().into());
    OriginTls {
        ca: path(&table.ca),
        cert: path(&table.cert),
        key: path(&table.key),
        server_name: table.server_name.as_ref().map(|name| name.value.clone()),
    }
}

fn host(text: Option<&Text>, problems: &mut Problems<'_>) -> HostHeader {
    let Some(text) = text else {
        return HostHeader::default();
    };
    let read = |text: &str| match text {
        "preserve" => Ok(HostHeader::Preserve),
        "origin" => Ok(HostHeader::Origin),
        _ => match text.parse::<Authority>() {
            Ok(host) if !text.contains('@') => Ok(HostHeader::Literal(host)),
            _ => Err("expected `preserve`, `origin` or a host name"),
        },
    };
    problems.read(text, read).unwrap_or_default()
}

fn connection_limits(
    given: &OriginTable,
    defaults: ConnectionLimits,
    problems: &mut Problems<'_>,
) -> ConnectionLimits {
    let connections = problems.positive_count(given.max_connections.as_ref());
    let pending_timeout = problems.positive_duration(given.pending_timeout.as_ref());
    ConnectionLimits {
        connections: connections.unwrap_or(defaults.connections),
        pending: max_pending(given.max_pending.as_ref(), problems).unwrap_or(defaults.pending),
        pending_timeout: pending_timeout.unwrap_or(defaults.pending_timeout),
    }
}

/// Compiles `origin.max_pending`, which is bounded because each waiting request takes memory.
fn max_pending(count: Option<&Located<u64>>, problems: &mut Problems<'_>) -> Option<usize> {
    let count = count?;
    if count.value > 1_000_000 {
        problems.error(&count.span, "expected at most 1000000 waiting requests");
        return None;
    }
    usize::try_from(count.value).ok()
}

fn header_bytes(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<u32> {
    let bytes = problems.size(text)?;
    if !(4 << 10..=16 << 20).contains(&bytes) {
        problems.error(&text?.span, "expected a size between `4KiB` and `16MiB`");
    }
    u32::try_from(bytes).ok()
}

fn health(given: &OriginTable, problems: &mut Problems<'_>) -> Option<HealthCheck> {
    let table = given.health.as_ref()?;
    let every = problems.positive_duration(table.every.as_ref());
    let path = problems.required(table.path.as_ref(), &table.span, "origin.health", "path")?;
    let path = problems.read(path, |path| {
        let is_path = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
        if is_path { Ok(path.to_owned()) } else { Err("expected a path such as `/healthz`") }
    })?;
    Some(HealthCheck { path, interval: every.unwrap_or(Duration::from_secs(5)) })
}

fn retries(given: Option<&Located<u64>>, problems: &mut Problems<'_>) -> Option<u32> {
    let count = given?;
    if count.value > 10 {
        let message = "expected at most 10 retries: more would overload a failing origin";
        problems.error(&count.span, message);
    }
    u32::try_from(count.value).ok()
}

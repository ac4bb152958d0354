//! Compilation of `[origin]`.

use std::time::Duration;

use http::uri::Authority;

use super::problems::Problems;
use crate::config::{
    Flags,
    file::{Located, OriginTable, OriginTlsTable, Text},
    report::Finding,
    settings::{
        CertificateFiles, HealthCheckConfig, HostHeader, OriginConfig, OriginConnections,
        OriginScheme, OriginTls, OriginUrl,
    },
    value,
};

/// Compiles `[origin]`; `None` if there is no URL.
pub(super) fn compile(
    table: Option<&Located<OriginTable>>,
    flags: &Flags,
    problems: &mut Problems<'_>,
) -> Option<OriginConfig> {
    let nothing = OriginTable::default();
    let given = table.map_or(&nothing, |table| &table.value);
    let urls = urls(table, flags, problems);
    let mut time = |text: &Option<Text>, default: u64| {
        problems.positive_duration(text.as_ref()).unwrap_or(Duration::from_secs(default))
    };
    let connect_timeout = time(&given.connect_timeout, 1);
    let first_byte_timeout = time(&given.first_byte_timeout, 30);
    let idle_timeout = time(&given.idle_timeout, 90);
    let dns_refresh = time(&given.dns_refresh, 30);
    let connections = connections(given, problems);
    let max_header_bytes = header_bytes(given.max_header_bytes.as_ref(), problems);
    let tls = given.tls.as_ref().map(|tls| tls_settings(tls, &urls, problems)).unwrap_or_default();
    let host = host(given.host.as_ref(), problems);
    let health = health(given, problems);
    let retries = retries(given.retries.as_ref(), problems);
    (!urls.is_empty()).then_some(OriginConfig {
        urls,
        connect_timeout,
        first_byte_timeout,
        idle_timeout,
        connections,
        max_header_bytes,
        http2: given.http2.unwrap_or(true),
        dns_refresh,
        retries,
        health,
        tls,
        host,
    })
}

fn urls(
    table: Option<&Located<OriginTable>>,
    flags: &Flags,
    problems: &mut Problems<'_>,
) -> Vec<OriginUrl> {
    let texts = table.and_then(|table| table.urls.as_ref());
    let urls = problems.each(texts, value::origin_url);
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

fn tls_settings(
    table: &Located<OriginTlsTable>,
    urls: &[OriginUrl],
    problems: &mut Problems<'_>,
) -> OriginTls {
    if !urls.is_empty() && urls.iter().all(|url| url.scheme != OriginScheme::Https) {
        let message = "`origin.tls` has no effect without an `https` origin";
        problems.push(Finding::warning(table.span.clone(), message));
    }
    let client = match (&table.cert, &table.key) {
        (Some(cert), Some(key)) => {
            Some(CertificateFiles { cert: cert.as_str().into(), key: key.as_str().into() })
        }
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            let message = "`cert` and `key` must be set together";
            problems.push(Finding::error(Some(one.span.clone()), message).doubtful());
            None
        }
    };
    OriginTls {
        ca: table.ca.as_ref().map(|path| path.as_str().into()),
        client,
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

fn connections(given: &OriginTable, problems: &mut Problems<'_>) -> OriginConnections {
    let seconds = Duration::from_secs;
    OriginConnections {
        keep_alive: problems.positive_duration(given.keep_alive.as_ref()).unwrap_or(seconds(60)),
        max: problems.positive_count(given.max_connections.as_ref()).unwrap_or(256),
        max_pending: max_pending(given.max_pending.as_ref(), problems).unwrap_or(1024),
        pending_timeout: problems
            .positive_duration(given.pending_timeout.as_ref())
            .unwrap_or(seconds(5)),
    }
}

/// Each waiting request takes memory.
fn max_pending(count: Option<&Located<u64>>, problems: &mut Problems<'_>) -> Option<usize> {
    let count = count?;
    if count.value > 1_000_000 {
        problems.error(&count.span, "expected at most 1000000 waiting requests");
        return None;
    }
    usize::try_from(count.value).ok()
}

fn header_bytes(text: Option<&Text>, problems: &mut Problems<'_>) -> u32 {
    const DEFAULT: u32 = 64 << 10;
    let Some(text) = text else { return DEFAULT };
    match problems.size(Some(text)) {
        Some(bytes) if !(4 << 10..=16 << 20).contains(&bytes) => {
            problems.error(&text.span, "expected a size between `4KiB` and `16MiB`");
            DEFAULT
        }
        bytes => bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(DEFAULT),
    }
}

fn health(given: &OriginTable, problems: &mut Problems<'_>) -> Option<HealthCheckConfig> {
    let table = given.health.as_ref()?;
    let every = problems.positive_duration(table.every.as_ref());
    problems.required(table.path.as_ref(), &table.span, "origin.health", "path")?;
    let path = problems.read(table.path.as_ref()?, |path| {
        let is_path = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
        if is_path { Ok(path.to_owned()) } else { Err("expected a path such as `/healthz`") }
    })?;
    Some(HealthCheckConfig { path, every: every.unwrap_or(Duration::from_secs(5)) })
}

fn retries(given: Option<&Located<u64>>, problems: &mut Problems<'_>) -> u32 {
    match given {
        None => 1,
        Some(count) if count.value > 10 => {
            problems.error(
                &count.span,
                "expected at most 10 retries: more would overload a failing origin",
            );
            1
        }
        Some(count) => u32::try_from(count.value).unwrap_or(1),
    }
}

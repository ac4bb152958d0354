//! The tree of keys in `proxy.toml`, with the shape of each value.
//!
//! Keys that are not in this list are reported as unknown. Tests check that the list, the serde
//! structs and the documented file have the same keys.

/// A known key.
#[derive(Debug)]
pub(super) struct KeySpec {
    pub(super) name: &'static str,
    pub(super) shape: ValueShape,
}

/// The shape of a key's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum ValueShape {
    /// A string; the variant's text describes it in messages.
    Text(&'static str),
    /// A duration, or durations by status.
    Ttl,
    /// A list of strings, or one string.
    Texts,
    /// `true` or `false`.
    Flag,
    /// Targets to prefetch: a boolean, a list of strings, or one string.
    Warm,
    /// A whole number.
    Count,
    /// A table with these keys.
    Table(&'static [KeySpec]),
    /// A table with these keys; a string sets only the named key.
    TableOrText(&'static str, &'static [KeySpec]),
    /// A list of tables with these keys.
    Tables(&'static [KeySpec]),
    /// Tables with these keys, named by the operator.
    Named(&'static [KeySpec]),
    /// Durations, named by the operator.
    NamedDurations,
    /// Lists of strings, or single strings, named by the operator.
    NamedTexts,
    /// Strings, numbers and booleans, or lists of these, named by the operator.
    Values,
}

impl ValueShape {
    /// Returns the expected shape for messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Text(expected) => expected,
            Self::Ttl => "a duration in quotes such as `\"30s\"`, or a table of them by status",
            Self::Texts => "a string or a list of strings",
            Self::Flag => "`true` or `false`",
            Self::Warm => "`true`, a path or a list of paths",
            Self::Count => "a whole number",
            Self::NamedDurations => "a table of durations in quotes such as `\"30s\"`",
            Self::NamedTexts => "a table of lists of strings",
            Self::Table(_) | Self::Named(_) | Self::Values => "a table",
            Self::TableOrText(..) => "a string or a table",
            Self::Tables(_) => "a list of tables",
        }
    }
}

const STRING: ValueShape = ValueShape::Text("a string");
pub(super) const DURATION: ValueShape = ValueShape::Text("a duration in quotes such as `\"30s\"`");
const SIZE: ValueShape = ValueShape::Text("a size in quotes such as `\"64KiB\"`");

const fn key(name: &'static str, shape: ValueShape) -> KeySpec {
    KeySpec { name, shape }
}

/// The keys at the top level.
pub(super) const FILE: &[KeySpec] = &[
    key("listen", ValueShape::Texts),
    key("reuse_port", ValueShape::Flag),
    key("tls", ValueShape::Table(TLS)),
    key("origin", ValueShape::TableOrText("urls", ORIGIN)),
    key("hosts", ValueShape::Texts),
    key("public_host", STRING),
    key("trusted_proxies", ValueShape::Texts),
    key("server_timing", ValueShape::Flag),
    key("limits", ValueShape::Table(LIMITS)),
    key("admin", ValueShape::Table(ADMIN)),
    key("store", ValueShape::Table(STORE)),
    key("user", ValueShape::Table(USER)),
    key("defaults", ValueShape::Table(DEFAULTS)),
    key("tier", ValueShape::Named(TIER)),
    key("route", ValueShape::Tables(ROUTE)),
    key("schedule", ValueShape::Tables(SCHEDULE)),
    key("poll", ValueShape::Tables(POLL)),
    key("webhook", ValueShape::Tables(WEBHOOK)),
    key("events", ValueShape::Table(EVENTS)),
    key("log", ValueShape::Table(LOG)),
    key("test", ValueShape::Tables(TEST)),
];

pub(super) const TLS: &[KeySpec] = &[key("cert", STRING), key("key", STRING)];

pub(super) const ORIGIN: &[KeySpec] = &[
    key("urls", ValueShape::Texts),
    key("connect_timeout", DURATION),
    key("first_byte_timeout", DURATION),
    key("idle_timeout", DURATION),
    key("keep_alive", DURATION),
    key("max_connections", ValueShape::Count),
    key("max_pending", ValueShape::Count),
    key("pending_timeout", DURATION),
    key("max_header_bytes", SIZE),
    key("http2", ValueShape::Flag),
    key("dns_refresh", DURATION),
    key("retries", ValueShape::Count),
    key("health", ValueShape::Table(HEALTH)),
    key("tls", ValueShape::Table(ORIGIN_TLS)),
    key("host", STRING),
];

pub(super) const HEALTH: &[KeySpec] = &[key("path", STRING), key("every", DURATION)];

pub(super) const ORIGIN_TLS: &[KeySpec] =
    &[key("ca", STRING), key("cert", STRING), key("key", STRING), key("server_name", STRING)];

pub(super) const LIMITS: &[KeySpec] = &[
    key("header_bytes", SIZE),
    key("headers", ValueShape::Count),
    key("body", SIZE),
    key("connections", ValueShape::Count),
    key("tunnels", ValueShape::Count),
    key("tunnel_idle_timeout", DURATION),
    key("header_timeout", DURATION),
    key("idle_timeout", DURATION),
    key("drain_delay", DURATION),
    key("drain", DURATION),
];

pub(super) const ADMIN: &[KeySpec] = &[
    key("listen", STRING),
    key("hosts", ValueShape::Texts),
    key("token", STRING),
    key("tokens", ValueShape::Tables(TOKEN)),
    key("purge_from", ValueShape::Texts),
];

pub(super) const TOKEN: &[KeySpec] = &[key("token", STRING), key("may", ValueShape::Texts)];

pub(super) const STORE: &[KeySpec] = &[
    key("redis", STRING),
    key("token", STRING),
    key("tls", ValueShape::Table(STORE_TLS)),
    key("timeout", DURATION),
    key("prefix", STRING),
    key("version", STRING),
    key("grace", DURATION),
    key("compress_above", SIZE),
    key("encrypt_key", STRING),
    key("encrypt_keys", ValueShape::Texts),
    key("memory", SIZE),
    key("max_object", SIZE),
    key("unsynced_ttl", DURATION),
    key("when_unsynced", STRING),
];

pub(super) const STORE_TLS: &[KeySpec] =
    &[key("ca", STRING), key("cert", STRING), key("key", STRING)];

pub(super) const USER: &[KeySpec] = &[
    key("credentials", ValueShape::Texts),
    key("harmless_fields", ValueShape::Texts),
    key("harmless_parameters", ValueShape::Texts),
    key("session_cookies", ValueShape::Texts),
    key("harmless_cookies", ValueShape::Texts),
    key("selecting_cookies", ValueShape::Texts),
    key("digest_key", STRING),
    key("recheck", DURATION),
    key("narrows", ValueShape::Texts),
    key("jwt", ValueShape::Table(JWT)),
    key("header", ValueShape::Table(GATEWAY)),
];

pub(super) const JWT: &[KeySpec] = &[
    key("header", STRING),
    key("cookie", STRING),
    key("secret", STRING),
    key("secrets", ValueShape::Texts),
    key("public_key", ValueShape::Texts),
    key("jwks", STRING),
    key("aud", ValueShape::Texts),
    key("iss", ValueShape::Texts),
    key("claim", STRING),
    key("algorithms", ValueShape::Texts),
];

pub(super) const GATEWAY: &[KeySpec] = &[key("name", STRING), key("from", ValueShape::Texts)];

pub(super) const EVENTS: &[KeySpec] = &[
    key("allow_origins", ValueShape::Texts),
    key("tags", ValueShape::Texts),
    key("listeners", ValueShape::Count),
    key("per_client", ValueShape::Count),
];

pub(super) const DEFAULTS: &[KeySpec] = &[
    key("partition", STRING),
    key("ttl", ValueShape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("tags", ValueShape::Texts),
    key("query", ValueShape::Table(QUERY)),
    key("vary", ValueShape::Table(VARY)),
    key("bypass", ValueShape::Table(BYPASS)),
    key("store_unless", ValueShape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
    key("encode", ValueShape::Texts),
    key("encode_private", ValueShape::Flag),
    key("detect_leaks", ValueShape::Flag),
    key("shadow", ValueShape::Flag),
    key("audit", STRING),
    key("compare", ValueShape::Table(COMPARE)),
];

pub(super) const TIER: &[KeySpec] = &[
    key("partition", STRING),
    key("ttl", ValueShape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("cache", ValueShape::Flag),
    key("sensitive", ValueShape::Flag),
    key("tags", ValueShape::Texts),
    key("query", ValueShape::Table(QUERY)),
    key("vary", ValueShape::Table(VARY)),
    key("bypass", ValueShape::Table(BYPASS)),
    key("store_unless", ValueShape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
    key("encode", ValueShape::Texts),
    key("encode_private", ValueShape::Flag),
    key("detect_leaks", ValueShape::Flag),
    key("shadow", ValueShape::Flag),
    key("audit", STRING),
    key("compare", ValueShape::Table(COMPARE)),
];

pub(super) const ROUTE: &[KeySpec] = &[
    key("name", STRING),
    key("match", STRING),
    key("tier", STRING),
    key("key", STRING),
    key("partition", STRING),
    key("ttl", ValueShape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("cache", ValueShape::Flag),
    key("sensitive", ValueShape::Flag),
    key("tags", ValueShape::Texts),
    key("query", ValueShape::Table(QUERY)),
    key("vary", ValueShape::Table(VARY)),
    key("bypass", ValueShape::Table(BYPASS)),
    key("graphql", ValueShape::Flag),
    key("operation", ValueShape::NamedDurations),
    key("documents", STRING),
    key("on_write", ValueShape::Table(ON_WRITE)),
    key("on_success", ValueShape::Table(ON_SUCCESS)),
    key("store_unless", ValueShape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
    key("encode", ValueShape::Texts),
    key("encode_private", ValueShape::Flag),
    key("detect_leaks", ValueShape::Flag),
    key("shadow", ValueShape::Flag),
    key("audit", STRING),
    key("compare", ValueShape::Table(COMPARE)),
];

pub(super) const QUERY: &[KeySpec] = &[
    key("ignore", ValueShape::Texts),
    key("only", ValueShape::Texts),
    key("sort", ValueShape::Flag),
    key("forward", STRING),
    key("lists", ValueShape::Texts),
    key("defaults", ValueShape::Values),
];

pub(super) const VARY: &[KeySpec] =
    &[key("headers", ValueShape::Texts), key("cookies", ValueShape::Texts)];

pub(super) const BYPASS: &[KeySpec] = &[
    key("query", ValueShape::Texts),
    key("header", ValueShape::Texts),
    key("refresh", ValueShape::Flag),
];

pub(super) const COMPARE: &[KeySpec] = &[key("ignore", ValueShape::Texts)];

pub(super) const ON_WRITE: &[KeySpec] = &[
    key("everyone", ValueShape::Flag),
    key("invalidate", ValueShape::Flag),
    key("purge", ValueShape::Texts),
    key("purge_by_response", STRING),
    key("purge_by_operation", ValueShape::NamedTexts),
];

pub(super) const ON_SUCCESS: &[KeySpec] =
    &[key("logout", ValueShape::Flag), key("warm", ValueShape::Texts)];

pub(super) const SCHEDULE: &[KeySpec] = &[
    key("name", STRING),
    key("cron", STRING),
    key("timezone", STRING),
    key("purge", ValueShape::Texts),
    key("mode", STRING),
    key("warm", ValueShape::Warm),
    key("host", ValueShape::Texts),
    key("headers", ValueShape::Values),
];

pub(super) const POLL: &[KeySpec] = &[
    key("name", STRING),
    key("url", STRING),
    key("every", DURATION),
    key("version", STRING),
    key("purge", ValueShape::Texts),
    key("mode", STRING),
    key("delay", DURATION),
    key("warm", ValueShape::Warm),
    key("host", ValueShape::Texts),
    key("headers", ValueShape::Values),
    key("alert_after", DURATION),
];

pub(super) const WEBHOOK: &[KeySpec] = &[
    key("name", STRING),
    key("scheme", STRING),
    key("secret", STRING),
    key("secrets", ValueShape::Texts),
    key("header", STRING),
    key("prefix", STRING),
    key("encoding", STRING),
    key("algorithm", STRING),
    key("timestamp_header", STRING),
    key("signed", STRING),
    key("tolerance", DURATION),
    key("event_from", STRING),
    key("id_from", STRING),
    key("on", ValueShape::Tables(WEBHOOK_RULE)),
];

pub(super) const WEBHOOK_RULE: &[KeySpec] = &[
    key("event", ValueShape::Texts),
    key("when", ValueShape::Values),
    key("purge", ValueShape::Texts),
    key("users", ValueShape::Texts),
    key("mode", STRING),
    key("warm", ValueShape::Flag),
];

pub(super) const LOG: &[KeySpec] = &[key("level", STRING), key("access", STRING)];

pub(super) const TEST: &[KeySpec] = &[
    key("name", STRING),
    key("request", STRING),
    key("headers", ValueShape::Values),
    key("body", STRING),
    key("from", STRING),
    key("user", ValueShape::Values),
    key("response", ValueShape::Table(TEST_RESPONSE)),
    key("route", STRING),
    key("outcome", STRING),
    key("reason", STRING),
    key("partition", STRING),
    key("host", STRING),
    key("path", STRING),
    key("query", STRING),
    key("ttl", DURATION),
    key("tags", ValueShape::Texts),
    key("same_key_as", ValueShape::Texts),
    key("other_key_than", ValueShape::Texts),
];

pub(super) const TEST_RESPONSE: &[KeySpec] =
    &[key("status", ValueShape::Count), key("headers", ValueShape::Values), key("body", STRING)];

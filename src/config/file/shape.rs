//! The keys of `proxy.toml`: where each stands and what it holds.
//!
//! The list is what unknown keys are compared with. Tests hold it against the serde structs and
//! against the documented file, so that none of the three can say less than the others.

/// A key that has a meaning somewhere.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A string; the text tells what it says.
    Text(&'static str),
    /// A duration, or durations by status.
    Ttl,
    /// A list of strings, or one string.
    Texts,
    /// `true` or `false`.
    Flag,
    /// What is fetched ahead: a flag, a list of strings, or one string.
    Warm,
    /// A whole number.
    Count,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table with these keys; a string stands for a table with only this key.
    TableOrText(&'static str, &'static [Key]),
    /// A list of such tables.
    Tables(&'static [Key]),
    /// Such tables by names of the operator's choice.
    Named(&'static [Key]),
    /// Strings, numbers and flags, or lists of these, by names of the operator's choice.
    Values,
}

impl Shape {
    /// What is expected, for messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Text(expected) => expected,
            Self::Ttl => "a duration in quotes, as in `\"30s\"`, or a table of them by status",
            Self::Texts => "a string or a list of strings",
            Self::Flag => "`true` or `false`",
            Self::Warm => "`true`, a path or a list of paths",
            Self::Count => "a whole number",
            Self::Table(_) | Self::Named(_) | Self::Values => "a table",
            Self::TableOrText(..) => "a string or a table",
            Self::Tables(_) => "a list of tables",
        }
    }
}

const STRING: Shape = Shape::Text("a string");
pub(super) const DURATION: Shape = Shape::Text("a duration in quotes, as in `\"30s\"`");
const SIZE: Shape = Shape::Text("a size in quotes, as in `\"64KiB\"`");

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape }
}

/// The keys of the file itself.
pub(super) const FILE: &[Key] = &[
    key("listen", Shape::Texts),
    key("reuse_port", Shape::Flag),
    key("tls", Shape::Table(TLS)),
    key("origin", Shape::TableOrText("urls", ORIGIN)),
    key("hosts", Shape::Texts),
    key("public_host", STRING),
    key("trusted_proxies", Shape::Texts),
    key("server_timing", Shape::Flag),
    key("limits", Shape::Table(LIMITS)),
    key("admin", Shape::Table(ADMIN)),
    key("store", Shape::Table(STORE)),
    key("user", Shape::Table(USER)),
    key("defaults", Shape::Table(DEFAULTS)),
    key("tier", Shape::Named(TIER)),
    key("route", Shape::Tables(ROUTE)),
    key("schedule", Shape::Tables(SCHEDULE)),
    key("poll", Shape::Tables(POLL)),
    key("webhook", Shape::Tables(WEBHOOK)),
    key("events", Shape::Table(EVENTS)),
    key("log", Shape::Table(LOG)),
    key("test", Shape::Tables(TEST)),
];

pub(super) const TLS: &[Key] = &[key("cert", STRING), key("key", STRING)];

pub(super) const ORIGIN: &[Key] = &[
    key("urls", Shape::Texts),
    key("connect_timeout", DURATION),
    key("first_byte_timeout", DURATION),
    key("idle_timeout", DURATION),
    key("keep_alive", DURATION),
    key("max_connections", Shape::Count),
    key("max_pending", Shape::Count),
    key("pending_timeout", DURATION),
    key("max_header_bytes", SIZE),
    key("http2", Shape::Flag),
    key("dns_refresh", DURATION),
    key("retries", Shape::Count),
    key("health", Shape::Table(HEALTH)),
    key("tls", Shape::Table(ORIGIN_TLS)),
    key("host", STRING),
];

pub(super) const HEALTH: &[Key] = &[key("path", STRING), key("every", DURATION)];

pub(super) const ORIGIN_TLS: &[Key] =
    &[key("ca", STRING), key("cert", STRING), key("key", STRING), key("server_name", STRING)];

pub(super) const LIMITS: &[Key] = &[
    key("header_bytes", SIZE),
    key("headers", Shape::Count),
    key("body", SIZE),
    key("connections", Shape::Count),
    key("tunnels", Shape::Count),
    key("tunnel_idle_timeout", DURATION),
    key("header_timeout", DURATION),
    key("idle_timeout", DURATION),
    key("drain_delay", DURATION),
    key("drain", DURATION),
];

pub(super) const ADMIN: &[Key] = &[
    key("listen", STRING),
    key("hosts", Shape::Texts),
    key("token", STRING),
    key("tokens", Shape::Tables(TOKEN)),
    key("purge_from", Shape::Texts),
];

pub(super) const TOKEN: &[Key] = &[key("token", STRING), key("may", Shape::Texts)];

pub(super) const STORE: &[Key] = &[
    key("redis", STRING),
    key("token", STRING),
    key("tls", Shape::Table(STORE_TLS)),
    key("timeout", DURATION),
    key("prefix", STRING),
    key("version", STRING),
    key("grace", DURATION),
    key("compress_above", SIZE),
    key("encrypt_key", STRING),
    key("encrypt_keys", Shape::Texts),
    key("memory", SIZE),
    key("max_object", SIZE),
    key("unsynced_ttl", DURATION),
    key("when_unsynced", STRING),
];

pub(super) const STORE_TLS: &[Key] = &[key("ca", STRING), key("cert", STRING), key("key", STRING)];

pub(super) const USER: &[Key] = &[
    key("credentials", Shape::Texts),
    key("harmless_fields", Shape::Texts),
    key("harmless_parameters", Shape::Texts),
    key("session_cookies", Shape::Texts),
    key("harmless_cookies", Shape::Texts),
    key("selecting_cookies", Shape::Texts),
    key("digest_key", STRING),
    key("recheck", DURATION),
    key("narrows", Shape::Texts),
    key("jwt", Shape::Table(JWT)),
    key("header", Shape::Table(GATEWAY)),
];

pub(super) const JWT: &[Key] = &[
    key("header", STRING),
    key("cookie", STRING),
    key("secret", STRING),
    key("secrets", Shape::Texts),
    key("public_key", Shape::Texts),
    key("jwks", STRING),
    key("aud", Shape::Texts),
    key("iss", Shape::Texts),
    key("claim", STRING),
    key("algorithms", Shape::Texts),
];

pub(super) const GATEWAY: &[Key] = &[key("name", STRING), key("from", Shape::Texts)];

pub(super) const EVENTS: &[Key] = &[
    key("allow_origins", Shape::Texts),
    key("tags", Shape::Texts),
    key("listeners", Shape::Count),
    key("per_client", Shape::Count),
];

pub(super) const DEFAULTS: &[Key] = &[
    key("partition", STRING),
    key("ttl", Shape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("tags", Shape::Texts),
    key("query", Shape::Table(QUERY)),
    key("vary", Shape::Table(VARY)),
    key("bypass", Shape::Table(BYPASS)),
    key("store_unless", Shape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
];

pub(super) const TIER: &[Key] = &[
    key("partition", STRING),
    key("ttl", Shape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("cache", Shape::Flag),
    key("sensitive", Shape::Flag),
    key("tags", Shape::Texts),
    key("query", Shape::Table(QUERY)),
    key("vary", Shape::Table(VARY)),
    key("bypass", Shape::Table(BYPASS)),
    key("store_unless", Shape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
];

pub(super) const ROUTE: &[Key] = &[
    key("name", STRING),
    key("match", STRING),
    key("tier", STRING),
    key("partition", STRING),
    key("ttl", Shape::Ttl),
    key("ttl_from", STRING),
    key("stale_while_revalidate", DURATION),
    key("stale_if_error", DURATION),
    key("stale_if_disconnected", DURATION),
    key("cache", Shape::Flag),
    key("sensitive", Shape::Flag),
    key("tags", Shape::Texts),
    key("query", Shape::Table(QUERY)),
    key("vary", Shape::Table(VARY)),
    key("bypass", Shape::Table(BYPASS)),
    key("on_write", Shape::Table(ON_WRITE)),
    key("on_success", Shape::Table(ON_SUCCESS)),
    key("store_unless", Shape::Texts),
    key("client_cache", STRING),
    key("client_cache_control", STRING),
];

pub(super) const QUERY: &[Key] = &[
    key("ignore", Shape::Texts),
    key("only", Shape::Texts),
    key("sort", Shape::Flag),
    key("forward", STRING),
];

pub(super) const VARY: &[Key] = &[key("headers", Shape::Texts), key("cookies", Shape::Texts)];

pub(super) const BYPASS: &[Key] =
    &[key("query", Shape::Texts), key("header", Shape::Texts), key("refresh", Shape::Flag)];

pub(super) const ON_WRITE: &[Key] =
    &[key("everyone", Shape::Flag), key("invalidate", Shape::Flag), key("purge", Shape::Texts)];

pub(super) const ON_SUCCESS: &[Key] = &[key("logout", Shape::Flag), key("warm", Shape::Texts)];

pub(super) const SCHEDULE: &[Key] = &[
    key("name", STRING),
    key("cron", STRING),
    key("timezone", STRING),
    key("purge", Shape::Texts),
    key("mode", STRING),
    key("warm", Shape::Warm),
    key("host", Shape::Texts),
    key("headers", Shape::Values),
];

pub(super) const POLL: &[Key] = &[
    key("name", STRING),
    key("url", STRING),
    key("every", DURATION),
    key("version", STRING),
    key("purge", Shape::Texts),
    key("mode", STRING),
    key("delay", DURATION),
    key("warm", Shape::Warm),
    key("host", Shape::Texts),
    key("headers", Shape::Values),
    key("alert_after", DURATION),
];

pub(super) const WEBHOOK: &[Key] = &[
    key("name", STRING),
    key("scheme", STRING),
    key("secret", STRING),
    key("secrets", Shape::Texts),
    key("header", STRING),
    key("prefix", STRING),
    key("encoding", STRING),
    key("algorithm", STRING),
    key("timestamp_header", STRING),
    key("signed", STRING),
    key("tolerance", DURATION),
    key("event_from", STRING),
    key("id_from", STRING),
    key("on", Shape::Tables(WEBHOOK_RULE)),
];

pub(super) const WEBHOOK_RULE: &[Key] = &[
    key("event", Shape::Texts),
    key("when", Shape::Values),
    key("purge", Shape::Texts),
    key("users", Shape::Texts),
    key("mode", STRING),
    key("warm", Shape::Flag),
];

pub(super) const LOG: &[Key] = &[key("level", STRING), key("access", STRING)];

pub(super) const TEST: &[Key] = &[
    key("name", STRING),
    key("request", STRING),
    key("headers", Shape::Values),
    key("body", STRING),
    key("from", STRING),
    key("user", Shape::Values),
    key("response", Shape::Table(TEST_RESPONSE)),
    key("route", STRING),
    key("outcome", STRING),
    key("reason", STRING),
    key("partition", STRING),
    key("host", STRING),
    key("path", STRING),
    key("query", STRING),
    key("ttl", DURATION),
    key("tags", Shape::Texts),
    key("same_key_as", Shape::Texts),
    key("other_key_than", Shape::Texts),
];

pub(super) const TEST_RESPONSE: &[Key] =
    &[key("status", Shape::Count), key("headers", Shape::Values), key("body", STRING)];

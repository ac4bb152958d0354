//! Serde structs of the sections about listeners, origin, store and logs.

use serde::Deserialize;

use super::events::EventsTable;
use super::located::{Located, Text, Texts};
use super::routing::{DefaultsTable, RouteSection, TierTable};
use super::schedules::{PollSection, ScheduleSection};
use super::test::TestSection;
use super::user::UserTable;
use super::webhook::WebhookSection;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    pub(crate) listen: Option<Texts>,
    pub(crate) reuse_port: Option<bool>,
    pub(crate) tls: Option<Located<TlsTable>>,
    pub(crate) origin: Option<Located<OriginTable>>,
    pub(crate) hosts: Option<Texts>,
    pub(crate) public_host: Option<Text>,
    pub(crate) trusted_proxies: Option<Texts>,
    pub(crate) server_timing: Option<bool>,
    pub(crate) limits: LimitsTable,
    pub(crate) admin: AdminTable,
    pub(crate) store: StoreTable,
    pub(crate) user: UserTable,
    pub(crate) defaults: DefaultsTable,
    pub(crate) tier: std::collections::BTreeMap<String, TierTable>,
    pub(crate) route: Vec<Located<RouteSection>>,
    pub(crate) schedule: Vec<Located<ScheduleSection>>,
    pub(crate) poll: Vec<Located<PollSection>>,
    pub(crate) webhook: Vec<Located<WebhookSection>>,
    pub(crate) events: Option<Located<EventsTable>>,
    pub(crate) log: LogTable,
    pub(crate) test: Vec<Located<TestSection>>,
}

/// The `tls` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsTable {
    pub(crate) cert: Option<Text>,
    pub(crate) key: Option<Text>,
}

/// The `[origin]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OriginTable {
    pub(crate) urls: Option<Texts>,
    pub(crate) connect_timeout: Option<Text>,
    pub(crate) first_byte_timeout: Option<Text>,
    pub(crate) idle_timeout: Option<Text>,
    pub(crate) keep_alive: Option<Text>,
    pub(crate) max_connections: Option<Located<u64>>,
    pub(crate) max_pending: Option<Located<u64>>,
    pub(crate) pending_timeout: Option<Text>,
    pub(crate) max_header_bytes: Option<Text>,
    pub(crate) http2: Option<bool>,
    pub(crate) dns_refresh: Option<Text>,
    pub(crate) retries: Option<Located<u64>>,
    pub(crate) health: Option<Located<HealthTable>>,
    pub(crate) tls: Option<Located<OriginTlsTable>>,
    pub(crate) host: Option<Text>,
}

/// The `origin.health` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthTable {
    pub(crate) path: Option<Text>,
    pub(crate) every: Option<Text>,
}

/// The `origin.tls` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OriginTlsTable {
    pub(crate) ca: Option<Text>,
    pub(crate) cert: Option<Text>,
    pub(crate) key: Option<Text>,
    pub(crate) server_name: Option<Text>,
}

/// The `[limits]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsTable {
    pub(crate) header_bytes: Option<Text>,
    pub(crate) headers: Option<Located<u64>>,
    pub(crate) body: Option<Text>,
    pub(crate) connections: Option<Located<u64>>,
    pub(crate) tunnels: Option<Located<u64>>,
    pub(crate) tunnel_idle_timeout: Option<Text>,
    pub(crate) header_timeout: Option<Text>,
    pub(crate) idle_timeout: Option<Text>,
    pub(crate) drain_delay: Option<Text>,
    pub(crate) drain: Option<Text>,
}

/// The `[admin]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminTable {
    pub(crate) listen: Option<Text>,
    pub(crate) hosts: Option<Texts>,
    pub(crate) token: Option<Text>,
    pub(crate) tokens: Vec<Located<TokenTable>>,
    pub(crate) purge_from: Option<Texts>,
}

/// An element of `admin.tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TokenTable {
    pub(crate) token: Option<Text>,
    pub(crate) may: Option<Texts>,
}

/// The `[store]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreTable {
    pub(crate) redis: Option<Text>,
    pub(crate) token: Option<Text>,
    pub(crate) tls: Option<Located<StoreTlsTable>>,
    pub(crate) timeout: Option<Text>,
    pub(crate) prefix: Option<Text>,
    pub(crate) version: Option<Text>,
    pub(crate) grace: Option<Text>,
    pub(crate) compress_above: Option<Text>,
    pub(crate) encrypt_key: Option<Text>,
    pub(crate) encrypt_keys: Option<Texts>,
    pub(crate) memory: Option<Text>,
    pub(crate) max_object: Option<Text>,
    pub(crate) unsynced_ttl: Option<Text>,
    pub(crate) when_unsynced: Option<Text>,
}

/// The `store.tls` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreTlsTable {
    pub(crate) ca: Option<Text>,
    pub(crate) cert: Option<Text>,
    pub(crate) key: Option<Text>,
}

/// The `[log]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogTable {
    pub(crate) level: Option<Text>,
    pub(crate) access: Option<Text>,
}

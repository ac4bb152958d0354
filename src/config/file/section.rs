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
pub(in crate::config) struct ConfigFile {
    pub(in crate::config) listen: Option<Texts>,
    pub(in crate::config) reuse_port: Option<bool>,
    pub(in crate::config) tls: Option<Located<TlsTable>>,
    pub(in crate::config) origin: Option<Located<OriginTable>>,
    pub(in crate::config) hosts: Option<Texts>,
    pub(in crate::config) public_host: Option<Text>,
    pub(in crate::config) trusted_proxies: Option<Texts>,
    pub(in crate::config) server_timing: Option<bool>,
    pub(in crate::config) limits: LimitsTable,
    pub(in crate::config) admin: AdminTable,
    pub(in crate::config) store: StoreTable,
    pub(in crate::config) user: UserTable,
    pub(in crate::config) defaults: DefaultsTable,
    pub(in crate::config) tier: std::collections::BTreeMap<String, TierTable>,
    pub(in crate::config) route: Vec<Located<RouteSection>>,
    pub(in crate::config) schedule: Vec<Located<ScheduleSection>>,
    pub(in crate::config) poll: Vec<Located<PollSection>>,
    pub(in crate::config) webhook: Vec<Located<WebhookSection>>,
    pub(in crate::config) events: Option<Located<EventsTable>>,
    pub(in crate::config) log: LogTable,
    pub(in crate::config) test: Vec<Located<TestSection>>,
}

/// `tls`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TlsTable {
    pub(in crate::config) cert: Option<Text>,
    pub(in crate::config) key: Option<Text>,
}

/// `[origin]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OriginTable {
    pub(in crate::config) urls: Option<Texts>,
    pub(in crate::config) connect_timeout: Option<Text>,
    pub(in crate::config) first_byte_timeout: Option<Text>,
    pub(in crate::config) idle_timeout: Option<Text>,
    pub(in crate::config) keep_alive: Option<Text>,
    pub(in crate::config) max_connections: Option<Located<u64>>,
    pub(in crate::config) max_pending: Option<Located<u64>>,
    pub(in crate::config) pending_timeout: Option<Text>,
    pub(in crate::config) max_header_bytes: Option<Text>,
    pub(in crate::config) http2: Option<bool>,
    pub(in crate::config) dns_refresh: Option<Text>,
    pub(in crate::config) retries: Option<Located<u64>>,
    pub(in crate::config) health: Option<Located<HealthTable>>,
    pub(in crate::config) tls: Option<Located<OriginTlsTable>>,
    pub(in crate::config) host: Option<Text>,
}

/// `origin.health`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct HealthTable {
    pub(in crate::config) path: Option<Text>,
    pub(in crate::config) every: Option<Text>,
}

/// `origin.tls`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OriginTlsTable {
    pub(in crate::config) ca: Option<Text>,
    pub(in crate::config) cert: Option<Text>,
    pub(in crate::config) key: Option<Text>,
    pub(in crate::config) server_name: Option<Text>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct LimitsTable {
    pub(in crate::config) header_bytes: Option<Text>,
    pub(in crate::config) headers: Option<Located<u64>>,
    pub(in crate::config) body: Option<Text>,
    pub(in crate::config) connections: Option<Located<u64>>,
    pub(in crate::config) tunnels: Option<Located<u64>>,
    pub(in crate::config) tunnel_idle_timeout: Option<Text>,
    pub(in crate::config) header_timeout: Option<Text>,
    pub(in crate::config) idle_timeout: Option<Text>,
    pub(in crate::config) drain_delay: Option<Text>,
    pub(in crate::config) drain: Option<Text>,
}

/// `[admin]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct AdminTable {
    pub(in crate::config) listen: Option<Text>,
    pub(in crate::config) hosts: Option<Texts>,
    pub(in crate::config) token: Option<Text>,
    pub(in crate::config) tokens: Vec<Located<TokenTable>>,
    pub(in crate::config) purge_from: Option<Texts>,
}

/// An element of `admin.tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TokenTable {
    pub(in crate::config) token: Option<Text>,
    pub(in crate::config) may: Option<Texts>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct StoreTable {
    pub(in crate::config) redis: Option<Text>,
    pub(in crate::config) token: Option<Text>,
    pub(in crate::config) tls: Option<Located<StoreTlsTable>>,
    pub(in crate::config) timeout: Option<Text>,
    pub(in crate::config) prefix: Option<Text>,
    pub(in crate::config) version: Option<Text>,
    pub(in crate::config) grace: Option<Text>,
    pub(in crate::config) compress_above: Option<Text>,
    pub(in crate::config) encrypt_key: Option<Text>,
    pub(in crate::config) encrypt_keys: Option<Texts>,
    pub(in crate::config) memory: Option<Text>,
    pub(in crate::config) max_object: Option<Text>,
    pub(in crate::config) unsynced_ttl: Option<Text>,
    pub(in crate::config) when_unsynced: Option<Text>,
}

/// `store.tls`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct StoreTlsTable {
    pub(in crate::config) ca: Option<Text>,
    pub(in crate::config) cert: Option<Text>,
    pub(in crate::config) key: Option<Text>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct LogTable {
    pub(in crate::config) level: Option<Text>,
    pub(in crate::config) access: Option<Text>,
}

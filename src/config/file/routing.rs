//! The serde structs of the sections about routes.

use serde::Deserialize;

use super::at::{At, Text, Texts};

/// `[defaults]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct DefaultsTable {
    pub(in crate::config) ttl: Option<Text>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) client_cache_control: Option<Text>,
}

/// `[tier.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TierTable {
    pub(in crate::config) ttl: Option<Text>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) cache: Option<bool>,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RouteSection {
    pub(in crate::config) name: Option<Text>,
    #[serde(rename = "match")]
    pub(in crate::config) pattern: Option<Text>,
    pub(in crate::config) tier: Option<Text>,
    pub(in crate::config) ttl: Option<Text>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) cache: Option<bool>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) query: Option<At<QueryTable>>,
    pub(in crate::config) vary: Option<At<VaryTable>>,
    pub(in crate::config) bypass: Option<At<BypassTable>>,
    pub(in crate::config) on_write: Option<At<OnWriteTable>>,
    pub(in crate::config) on_success: Option<At<OnSuccessTable>>,
    pub(in crate::config) client_cache: Option<Text>,
    pub(in crate::config) client_cache_control: Option<Text>,
}

/// `route.query`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct QueryTable {
    pub(in crate::config) ignore: Option<Texts>,
    pub(in crate::config) only: Option<Texts>,
    pub(in crate::config) sort: Option<bool>,
    pub(in crate::config) forward: Option<Text>,
}

/// `route.vary`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct VaryTable {
    pub(in crate::config) headers: Option<Texts>,
    pub(in crate::config) cookies: Option<Texts>,
}

/// `route.bypass`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct BypassTable {
    pub(in crate::config) query: Option<Texts>,
    pub(in crate::config) header: Option<Texts>,
}

/// `route.on_write`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OnWriteTable {
    pub(in crate::config) purge: Option<Texts>,
}

/// `route.on_success`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OnSuccessTable {
    pub(in crate::config) warm: Option<Texts>,
}

//! Serde structs of the sections about routes.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::located::{Located, Text, Texts};

/// `[defaults]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct DefaultsTable {
    pub(in crate::config) partition: Option<Text>,
    pub(in crate::config) ttl: Option<Located<TtlValue>>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) stale_if_disconnected: Option<Text>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) query: Option<Located<QueryTable>>,
    pub(in crate::config) vary: Option<Located<VaryTable>>,
    pub(in crate::config) bypass: Option<Located<BypassTable>>,
    pub(in crate::config) store_unless: Option<Texts>,
    pub(in crate::config) client_cache: Option<Text>,
    pub(in crate::config) client_cache_control: Option<Text>,
}

/// `[tier.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TierTable {
    pub(in crate::config) partition: Option<Text>,
    pub(in crate::config) ttl: Option<Located<TtlValue>>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) stale_if_disconnected: Option<Text>,
    pub(in crate::config) cache: Option<bool>,
    pub(in crate::config) sensitive: Option<bool>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) query: Option<Located<QueryTable>>,
    pub(in crate::config) vary: Option<Located<VaryTable>>,
    pub(in crate::config) bypass: Option<Located<BypassTable>>,
    pub(in crate::config) store_unless: Option<Texts>,
    pub(in crate::config) client_cache: Option<Text>,
    pub(in crate::config) client_cache_control: Option<Text>,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RouteSection {
    pub(in crate::config) name: Option<Text>,
    #[serde(rename = "match")]
    pub(in crate::config) pattern: Option<Text>,
    pub(in crate::config) tier: Option<Text>,
    pub(in crate::config) partition: Option<Text>,
    pub(in crate::config) ttl: Option<Located<TtlValue>>,
    pub(in crate::config) ttl_from: Option<Text>,
    pub(in crate::config) stale_while_revalidate: Option<Text>,
    pub(in crate::config) stale_if_error: Option<Text>,
    pub(in crate::config) stale_if_disconnected: Option<Text>,
    pub(in crate::config) cache: Option<bool>,
    pub(in crate::config) sensitive: Option<bool>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) query: Option<Located<QueryTable>>,
    pub(in crate::config) vary: Option<Located<VaryTable>>,
    pub(in crate::config) bypass: Option<Located<BypassTable>>,
    pub(in crate::config) on_write: Option<Located<OnWriteTable>>,
    pub(in crate::config) on_success: Option<Located<OnSuccessTable>>,
    pub(in crate::config) store_unless: Option<Texts>,
    pub(in crate::config) client_cache: Option<Text>,
    pub(in crate::config) client_cache_control: Option<Text>,
}

/// `ttl`: one time, or one for each status.
#[derive(Debug)]
pub(in crate::config) enum TtlValue {
    /// A time for successful responses.
    ForSuccesses(String),
    /// Times by status, both as written.
    ByStatus(Vec<(Text, Text)>),
}

impl<'de> Deserialize<'de> for TtlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TtlVisitor)
    }
}

struct TtlVisitor;

impl<'de> Visitor<'de> for TtlVisitor {
    type Value = TtlValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a duration or a table of durations")
    }

    fn visit_str<E>(self, text: &str) -> Result<TtlValue, E> {
        Ok(TtlValue::ForSuccesses(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TtlValue, A::Error> {
        let mut times = Vec::new();
        while let Some(time) = map.next_entry()? {
            times.push(time);
        }
        Ok(TtlValue::ByStatus(times))
    }
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
    pub(in crate::config) refresh: Option<Located<bool>>,
}

/// `route.on_write`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OnWriteTable {
    pub(in crate::config) everyone: Option<bool>,
    pub(in crate::config) invalidate: Option<bool>,
    pub(in crate::config) purge: Option<Texts>,
}

/// `route.on_success`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OnSuccessTable {
    pub(in crate::config) logout: Option<bool>,
    pub(in crate::config) warm: Option<Texts>,
}

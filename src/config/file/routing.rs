//! Serde structs of the sections about routes.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use toml::Spanned;

use super::located::{Located, Text, Texts, Values};

/// The `[defaults]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DefaultsTable {
    pub(crate) partition: Option<Text>,
    pub(crate) ttl: Option<Located<TtlValue>>,
    pub(crate) ttl_from: Option<Text>,
    pub(crate) stale_while_revalidate: Option<Text>,
    pub(crate) stale_if_error: Option<Text>,
    pub(crate) stale_if_disconnected: Option<Text>,
    pub(crate) tags: Option<Texts>,
    pub(crate) query: Option<Located<QueryTable>>,
    pub(crate) vary: Option<Located<VaryTable>>,
    pub(crate) bypass: Option<Located<BypassTable>>,
    pub(crate) store_unless: Option<Texts>,
    pub(crate) client_cache: Option<Text>,
    pub(crate) client_cache_control: Option<Text>,
    pub(crate) encode: Option<Texts>,
    pub(crate) encode_private: Option<Located<bool>>,
    pub(crate) detect_leaks: Option<Located<bool>>,
    pub(crate) shadow: Option<Located<bool>>,
    pub(crate) audit: Option<Text>,
    pub(crate) compare: Option<Located<CompareTable>>,
}

/// A `[tier.NAME]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TierTable {
    pub(crate) partition: Option<Text>,
    pub(crate) ttl: Option<Located<TtlValue>>,
    pub(crate) ttl_from: Option<Text>,
    pub(crate) stale_while_revalidate: Option<Text>,
    pub(crate) stale_if_error: Option<Text>,
    pub(crate) stale_if_disconnected: Option<Text>,
    pub(crate) cache: Option<bool>,
    pub(crate) sensitive: Option<bool>,
    pub(crate) tags: Option<Texts>,
    pub(crate) query: Option<Located<QueryTable>>,
    pub(crate) vary: Option<Located<VaryTable>>,
    pub(crate) bypass: Option<Located<BypassTable>>,
    pub(crate) store_unless: Option<Texts>,
    pub(crate) client_cache: Option<Text>,
    pub(crate) client_cache_control: Option<Text>,
    pub(crate) encode: Option<Texts>,
    pub(crate) encode_private: Option<Located<bool>>,
    pub(crate) detect_leaks: Option<Located<bool>>,
    pub(crate) shadow: Option<Located<bool>>,
    pub(crate) audit: Option<Text>,
    pub(crate) compare: Option<Located<CompareTable>>,
}

/// A `[[route]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RouteSection {
    pub(crate) name: Option<Text>,
    #[serde(rename = "match")]
    pub(crate) pattern: Option<Text>,
    pub(crate) tier: Option<Text>,
    pub(crate) key: Option<Text>,
    pub(crate) partition: Option<Text>,
    pub(crate) ttl: Option<Located<TtlValue>>,
    pub(crate) ttl_from: Option<Text>,
    pub(crate) stale_while_revalidate: Option<Text>,
    pub(crate) stale_if_error: Option<Text>,
    pub(crate) stale_if_disconnected: Option<Text>,
    pub(crate) cache: Option<bool>,
    pub(crate) sensitive: Option<bool>,
    pub(crate) tags: Option<Texts>,
    pub(crate) query: Option<Located<QueryTable>>,
    pub(crate) vary: Option<Located<VaryTable>>,
    pub(crate) bypass: Option<Located<BypassTable>>,
    pub(crate) graphql: Option<Located<bool>>,
    pub(crate) operation: Option<Located<Named<Text>>>,
    pub(crate) documents: Option<Text>,
    pub(crate) on_write: Option<Located<OnWriteTable>>,
    pub(crate) on_success: Option<Located<OnSuccessTable>>,
    pub(crate) store_unless: Option<Texts>,
    pub(crate) client_cache: Option<Text>,
    pub(crate) client_cache_control: Option<Text>,
    pub(crate) encode: Option<Texts>,
    pub(crate) encode_private: Option<Located<bool>>,
    pub(crate) detect_leaks: Option<Located<bool>>,
    pub(crate) shadow: Option<Located<bool>>,
    pub(crate) audit: Option<Text>,
    pub(crate) compare: Option<Located<CompareTable>>,
}

/// Values keyed by names that the operator chooses.
pub(crate) type Named<T> = BTreeMap<Spanned<String>, T>;

/// `ttl`: one time, or one for each status.
#[derive(Debug)]
pub(crate) enum TtlValue {
    /// A time for successful responses.
    ForSuccesses(String),
    /// Statuses and their times, not yet parsed.
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
        formatter.write_str(
            "a duration such as `\"5m\"`, or durations by status such as `{ \"200\" = \"5m\" }`",
        )
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

/// The `route.query` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct QueryTable {
    pub(crate) ignore: Option<Texts>,
    pub(crate) only: Option<Texts>,
    pub(crate) sort: Option<bool>,
    pub(crate) forward: Option<Text>,
    pub(crate) lists: Option<Texts>,
    pub(crate) defaults: BTreeMap<Spanned<String>, Values>,
}

/// The `route.vary` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VaryTable {
    pub(crate) headers: Option<Texts>,
    pub(crate) cookies: Option<Texts>,
}

/// The `route.bypass` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BypassTable {
    pub(crate) query: Option<Texts>,
    pub(crate) header: Option<Texts>,
    pub(crate) refresh: Option<Located<bool>>,
}

/// The `route.compare` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CompareTable {
    pub(crate) ignore: Option<Texts>,
}

/// The `route.on_write` table: what a write invalidates, and for which users.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnWriteTable {
    pub(crate) everyone: Option<bool>,
    pub(crate) invalidate: Option<bool>,
    pub(crate) purge: Option<Texts>,
    pub(crate) purge_by_response: Option<Text>,
    pub(crate) purge_by_operation: Option<Located<Named<Texts>>>,
}

/// The `route.on_success` table: after success, logs the user out or warms targets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OnSuccessTable {
    pub(crate) logout: Option<bool>,
    pub(crate) warm: Option<Texts>,
}

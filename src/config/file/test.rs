//! Serde structs of the sections with tests.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::located::{Located, Text, Texts, Values};

/// A `[[test]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TestSection {
    pub(crate) name: Option<Text>,
    pub(crate) request: Option<Text>,
    pub(crate) headers: HeaderFields,
    pub(crate) body: Option<Text>,
    pub(crate) from: Option<Text>,
    pub(crate) user: Option<Located<serde_json::Map<String, serde_json::Value>>>,
    pub(crate) response: Option<Located<TestResponse>>,
    pub(crate) route: Option<Text>,
    pub(crate) outcome: Option<Text>,
    pub(crate) reason: Option<Text>,
    pub(crate) partition: Option<Text>,
    pub(crate) host: Option<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) query: Option<Text>,
    pub(crate) ttl: Option<Text>,
    pub(crate) tags: Option<Texts>,
    pub(crate) same_key_as: Option<Texts>,
    pub(crate) other_key_than: Option<Texts>,
}

/// The `test.response` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TestResponse {
    pub(crate) status: Option<Located<u64>>,
    pub(crate) headers: HeaderFields,
    pub(crate) body: Option<Text>,
}

/// Header fields: one or several values for each name.
pub(crate) type HeaderFields = BTreeMap<Spanned<String>, Values>;

//! Serde structs of the sections with tests.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::located::{Located, Text, Texts};

/// `[[test]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TestSection {
    pub(in crate::config) name: Option<Text>,
    pub(in crate::config) request: Option<Text>,
    pub(in crate::config) headers: HeaderFields,
    pub(in crate::config) body: Option<Text>,
    pub(in crate::config) from: Option<Text>,
    pub(in crate::config) user: Option<Located<BTreeMap<String, toml::Value>>>,
    pub(in crate::config) response: Option<Located<TestResponse>>,
    pub(in crate::config) route: Option<Text>,
    pub(in crate::config) outcome: Option<Text>,
    pub(in crate::config) reason: Option<Text>,
    pub(in crate::config) partition: Option<Text>,
    pub(in crate::config) host: Option<Text>,
    pub(in crate::config) path: Option<Text>,
    pub(in crate::config) query: Option<Text>,
    pub(in crate::config) ttl: Option<Text>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) same_key_as: Option<Texts>,
    pub(in crate::config) other_key_than: Option<Texts>,
}

/// `test.response`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct TestResponse {
    pub(in crate::config) status: Option<Located<u64>>,
    pub(in crate::config) headers: HeaderFields,
    pub(in crate::config) body: Option<Text>,
}

/// Header fields: one or several values for each name.
pub(in crate::config) type HeaderFields = BTreeMap<Spanned<String>, toml::Value>;

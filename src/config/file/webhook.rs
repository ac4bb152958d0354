//! Serde structs of the sections about webhooks.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::located::{Located, Text, Texts};

/// `[[webhook]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct WebhookSection {
    pub(in crate::config) name: Option<Text>,
    pub(in crate::config) scheme: Option<Text>,
    pub(in crate::config) secret: Option<Text>,
    pub(in crate::config) secrets: Option<Texts>,
    pub(in crate::config) header: Option<Text>,
    pub(in crate::config) prefix: Option<Text>,
    pub(in crate::config) encoding: Option<Text>,
    pub(in crate::config) algorithm: Option<Text>,
    pub(in crate::config) timestamp_header: Option<Text>,
    pub(in crate::config) signed: Option<Text>,
    pub(in crate::config) tolerance: Option<Text>,
    pub(in crate::config) event_from: Option<Text>,
    pub(in crate::config) id_from: Option<Text>,
    pub(in crate::config) on: Vec<Located<WebhookRule>>,
}

/// `[[webhook.on]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct WebhookRule {
    pub(in crate::config) event: Option<Texts>,
    pub(in crate::config) when: When,
    pub(in crate::config) purge: Option<Texts>,
    pub(in crate::config) users: Option<Texts>,
    pub(in crate::config) mode: Option<Text>,
    pub(in crate::config) warm: bool,
}

/// `webhook.on.when`: expected values by their path.
pub(in crate::config) type When = BTreeMap<Spanned<String>, toml::Value>;

//! Serde structs of the sections about webhooks.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::located::{Located, Text, Texts, Values};

/// A `[[webhook]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhookSection {
    pub(crate) name: Option<Text>,
    pub(crate) scheme: Option<Text>,
    pub(crate) secret: Option<Text>,
    pub(crate) secrets: Option<Texts>,
    pub(crate) header: Option<Text>,
    pub(crate) prefix: Option<Text>,
    pub(crate) encoding: Option<Text>,
    pub(crate) algorithm: Option<Text>,
    pub(crate) timestamp_header: Option<Text>,
    pub(crate) signed: Option<Text>,
    pub(crate) tolerance: Option<Text>,
    pub(crate) event_from: Option<Text>,
    pub(crate) id_from: Option<Text>,
    pub(crate) on: Vec<Located<WebhookRule>>,
}

/// A `[[webhook.on]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhookRule {
    pub(crate) event: Option<Texts>,
    pub(crate) when: When,
    pub(crate) purge: Option<Texts>,
    pub(crate) users: Option<Texts>,
    pub(crate) mode: Option<Text>,
    pub(crate) warm: bool,
}

/// `webhook.on.when`: expected values, keyed by path.
pub(crate) type When = BTreeMap<Spanned<String>, Values>;

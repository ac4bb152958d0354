//! Serde struct of the events section.

use serde::Deserialize;

use super::located::{Located, Texts};

/// `[events]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct EventsTable {
    pub(in crate::config) allow_origins: Option<Texts>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) listeners: Option<Located<u64>>,
    pub(in crate::config) per_client: Option<Located<u64>>,
}

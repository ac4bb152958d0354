//! Serde struct of the events section.

use serde::Deserialize;

use super::located::{Located, Texts};

/// The `[events]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EventsTable {
    pub(crate) allow_origins: Option<Texts>,
    pub(crate) tags: Option<Texts>,
    pub(crate) listeners: Option<Located<u64>>,
    pub(crate) per_client: Option<Located<u64>>,
}

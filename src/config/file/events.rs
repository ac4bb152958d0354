//! The serde struct of the section about what clients hear.

use serde::Deserialize;

use super::at::{At, Texts};

/// `[events]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct EventsTable {
    pub(in crate::config) allow_origins: Option<Texts>,
    pub(in crate::config) tags: Option<Texts>,
    pub(in crate::config) listeners: Option<At<u64>>,
    pub(in crate::config) per_client: Option<At<u64>>,
}

//! The serde struct of the section about who asks.

use serde::Deserialize;

use super::at::{Text, Texts};

/// `[user]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct UserTable {
    pub(in crate::config) credentials: Option<Texts>,
    pub(in crate::config) harmless_fields: Option<Texts>,
    pub(in crate::config) harmless_parameters: Option<Texts>,
    pub(in crate::config) session_cookies: Option<Texts>,
    pub(in crate::config) harmless_cookies: Option<Texts>,
    pub(in crate::config) selecting_cookies: Option<Texts>,
    pub(in crate::config) digest_key: Option<Text>,
}

//! Serde structs of the section about credentials and authentication.

use serde::Deserialize;

use super::located::{Located, Text, Texts};

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
    pub(in crate::config) recheck: Option<Text>,
    pub(in crate::config) narrows: Option<Texts>,
    pub(in crate::config) jwt: Option<Located<JwtTable>>,
    pub(in crate::config) header: Option<Located<GatewayTable>>,
}

/// `user.jwt`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct JwtTable {
    pub(in crate::config) header: Option<Text>,
    pub(in crate::config) cookie: Option<Text>,
    pub(in crate::config) secret: Option<Text>,
    pub(in crate::config) secrets: Option<Texts>,
    pub(in crate::config) public_key: Option<Texts>,
    pub(in crate::config) jwks: Option<Text>,
    pub(in crate::config) aud: Option<Texts>,
    pub(in crate::config) iss: Option<Texts>,
    pub(in crate::config) claim: Option<Text>,
    pub(in crate::config) algorithms: Option<Texts>,
}

/// `user.header`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct GatewayTable {
    pub(in crate::config) name: Option<Text>,
    pub(in crate::config) from: Option<Texts>,
}

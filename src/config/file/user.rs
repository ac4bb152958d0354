//! Serde structs of the section about credentials and authentication.

use serde::Deserialize;

use super::located::{Located, Text, Texts};

/// The `[user]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UserTable {
    pub(crate) credentials: Option<Texts>,
    pub(crate) harmless_fields: Option<Texts>,
    pub(crate) harmless_parameters: Option<Texts>,
    pub(crate) session_cookies: Option<Texts>,
    pub(crate) harmless_cookies: Option<Texts>,
    pub(crate) selecting_cookies: Option<Texts>,
    pub(crate) digest_key: Option<Text>,
    pub(crate) recheck: Option<Text>,
    pub(crate) narrows: Option<Texts>,
    pub(crate) jwt: Option<Located<JwtTable>>,
    pub(crate) header: Option<Located<GatewayTable>>,
}

/// The `user.jwt` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JwtTable {
    pub(crate) header: Option<Text>,
    pub(crate) cookie: Option<Text>,
    pub(crate) secret: Option<Text>,
    pub(crate) secrets: Option<Texts>,
    pub(crate) public_key: Option<Texts>,
    pub(crate) jwks: Option<Text>,
    pub(crate) aud: Option<Texts>,
    pub(crate) iss: Option<Texts>,
    pub(crate) claim: Option<Text>,
    pub(crate) algorithms: Option<Texts>,
}

/// The `user.header` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GatewayTable {
    pub(crate) name: Option<Text>,
    pub(crate) from: Option<Texts>,
}

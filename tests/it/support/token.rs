//! Signed tokens (RFC 7519), and routes that identify users by them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use super::wire::Reply;

/// The signing secret of the tokens.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Returns `Authorization` with a token for this user and these scopes, valid for an hour of real
/// time.
pub(crate) fn bearer(user: &str, scope: &str) -> String {
    bearer_until(user, scope, now() + 3600)
}

/// Returns `Authorization` with a token that expires at `end`.
pub(crate) fn bearer_until(user: &str, scope: &str, end: u64) -> String {
    let firm = user.get(..1).unwrap();
    bearer_of(&json!({ "sub": user, "scope": scope, "firm": firm, "exp": end, "iss": "i" }))
}

/// Returns `Authorization` with a token of these claims.
pub(crate) fn bearer_of(claims: &Value) -> String {
    format!("Bearer {}", signed(claims))
}

/// Returns a token of these claims.
pub(crate) fn signed(claims: &Value) -> String {
    let signed = [r#"{"alg":"HS256"}"#.to_owned(), claims.to_string()].map(|it| BASE64.encode(it));
    let signed = signed.join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{signed}.{}", BASE64.encode(hmac::sign(&key, signed.as_bytes())))
}

/// Returns the real time in seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Returns the configuration of a route with this partition, based on tokens. Further keys can
/// follow.
pub(crate) fn by_token(partition: &str) -> String {
    format!(
        "user.jwt = {{ secret = \"{SECRET}\", iss = \"i\" }}\n[[route]]\nname = \"a\"\n\
         match = \"/**\"\nttl = \"1h\"\npartition = \"{partition}\""
    )
}

/// Returns `X-API-Cache` and the reason.
pub(crate) fn outcome(reply: &Reply) -> String {
    let status = reply.header("cache-status").unwrap();
    let detail = status.split("detail=").nth(1).unwrap_or("-");
    format!("{} {detail}", reply.cache())
}

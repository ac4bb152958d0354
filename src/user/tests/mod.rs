//! Tests of identities, from requests to partition members.

mod gateway;
mod published;
mod tokens;
mod vectors;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

use super::{
    Authenticator, DEFAULT_NARROWING_CLAIMS, IdentityError, IdentitySource, KeySource,
    PartitionMember, TokenKeys, TokenLocation, TokenRules, jwt::key::VerificationKey,
};
use crate::{field::Timestamp, key::DigestKey, policy::Partition};
use std::sync::Arc;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn rules(keys: impl Into<Box<[VerificationKey]>>) -> TokenRules {
    TokenRules {
        location: TokenLocation::Field(header::AUTHORIZATION),
        keys: KeySource::Configured(keys.into()),
        algorithms: None,
        audiences: Box::default(),
        issuers: Box::default(),
        claim: "sub".into(),
        narrows: DEFAULT_NARROWING_CLAIMS.map(Box::from).into(),
    }
}

fn claims(names: &[&str]) -> Partition {
    Partition::Claims(names.iter().map(|name| (*name).into()).collect())
}

fn users(rules: TokenRules) -> Authenticator {
    let partitions = [Partition::Authenticated, claims(&["tenant"]), claims(&["tenant", "plan"])];
    proven(IdentitySource::Token(Box::new(rules)), partitions)
}

fn proven(
    identity_source: IdentitySource,
    partitions: impl IntoIterator<Item = Partition>,
) -> Authenticator {
    let keys = match &identity_source {
        IdentitySource::Token(rules) => match &rules.keys {
            KeySource::Configured(keys) => Some(TokenKeys::configured(keys)),
            KeySource::Jwks(_) => None,
        },
        _ => None,
    };
    Authenticator::new(DigestKey::new(&[7; 32]).unwrap()).with_source(
        identity_source,
        keys,
        partitions,
    )
}

fn by_secret() -> Authenticator {
    users(rules([VerificationKey::secret(SECRET)]))
}

fn encoded(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Returns a token signed with HMAC-SHA-256.
fn signed_with(secret: &[u8], header: &str, payload: &str) -> String {
    let message = format!("{}.{}", encoded(header), encoded(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", encoded(hmac::sign(&key, message.as_bytes())))
}

fn token(payload: &str) -> String {
    signed_with(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, payload)
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn bearing(token: &str) -> HeaderMap {
    fields(&[("authorization", &format!("Bearer {token}"))])
}

fn user_of(
    users: &Authenticator,
    headers: &HeaderMap,
) -> Result<Arc<PartitionMember>, IdentityError> {
    users.identify_with_cause(&Partition::User, (headers, None), NOW)
}

fn member(users: &Authenticator, partition: &Partition, payload: &str) -> Arc<PartitionMember> {
    users.identify_with_cause(partition, (&bearing(&token(payload)), None), NOW).unwrap()
}

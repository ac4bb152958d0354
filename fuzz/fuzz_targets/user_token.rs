//! A signed token says who asks only if its header and its claims can be read in one way, and say nothing
//! that Larder does not understand.
#![no_main]

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use larder::testing::{
    field::Timestamp,
    key::DigestKey,
    policy::Partition,
    user::{
        TokenLocation, KeySource, TokenKeys, PartitionMember, IdentitySource, TokenRules, Authenticator,
        jwt::{Jwt, key::VerificationKey},
    },
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";
const NOW: u64 = 1_700_000_000;

static USERS: LazyLock<Authenticator> = LazyLock::new(|| {
    let keys = [VerificationKey::secret(SECRET)];
    let rules = TokenRules {
        location: TokenLocation::Field(header::AUTHORIZATION),
        keys: KeySource::Configured(keys.clone().into()),
        algorithms: None,
        audiences: ["api".into()].into(),
        issuers: ["https://issuer".into()].into(),
        claim: "sub".into(),
        narrows: ["scope".into()].into(),
    };
    let digests = DigestKey::new(&[7; 32]).expect("a key");
    let identity_source = IdentitySource::Token(Box::new(rules));
    Authenticator::new(digests).with_source(identity_source, Some(TokenKeys::configured(&keys)), [Partition::User])
});

fuzz_target!(|input: (&[u8], &[u8], &[u8])| {
    let (head, claims, raw) = input;
    let _ = Jwt::parse(raw).map(|token| token.claims().map(|claims| claims.iter().count()));
    assert!(member(raw).is_none(), "nothing signed it");

    // Signed, so that the fuzzer gets behind the signature; the header mostly as it should be.
    let head =
        if head.is_empty() { Cow::Borrowed(&br#"{"alg":"HS256"}"#[..]) } else { head.into() };
    let token = signed(&head, claims);
    let Some(member) = member(token.as_bytes()) else { return };
    let head: Value = serde_json::from_slice(&head).expect("a header in JSON");
    assert_eq!(head["alg"], "HS256", "nothing else is signed with this secret here");
    assert!(head.get("crit").is_none());
    let claims: Value = serde_json::from_slice(claims).expect("claims in JSON");
    assert_eq!(claims["iss"], "https://issuer");
    assert!(claims.get("cnf").is_none());
    assert!(
        claims["aud"] == "api" || claims["aud"].as_array().expect("a list").contains(&"api".into())
    );
    let expires = claims.get("exp").map(|it| it.as_f64().expect("a number"));
    assert!(expires.is_none_or(|expires| expires > NOW as f64));
    match &claims["sub"] {
        Value::String(subject) => assert_eq!(member.user.as_deref(), Some(&**subject)),
        subject => assert!(subject.is_number()),
    }
});

/// The user that a request with this token is of.
fn member(token: &[u8]) -> Option<Arc<PartitionMember>> {
    let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    let now = Timestamp::from_seconds(NOW);
    USERS.identify(&Partition::User, (&headers, None), now).ok()
}

fn signed(head: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

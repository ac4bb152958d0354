//! Users in configuration tests: adds the claims that a test lists, so that no test contains a
//! token.

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac::{self, HMAC_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{
    config::Config,
    pipeline::explain::ExplainRequest,
    user::{IdentitySource, KeySource, TokenLocation, TokenRules, jwt::key::VerificationKey},
};

/// The claims of a user.
pub(super) type TestClaims = Map<String, Value>;

/// The signing secret of test tokens. No serving configuration accepts it.
const SECRET: &[u8] = b"the secret of tests, which counts nowhere else";

/// Returns a configuration that accepts test tokens as well.
pub(super) fn with_test_key(mut config: Config) -> Config {
    if let IdentitySource::Token(rules) = &mut config.user.identity_source {
        let mut keys = match &rules.keys {
            KeySource::Configured(keys) => keys.to_vec(),
            KeySource::Jwks(_) => Vec::new(),
        };
        keys.push(VerificationKey::secret(SECRET));
        (rules.keys, rules.algorithms) = (KeySource::Configured(keys.into()), None);
    }
    config
}

/// Adds the claims to a request as its user would send them.
///
/// They become a token, the gateway's field, or credentials that differ for different claims.
pub(super) fn with_claims(
    request: &ExplainRequest,
    claims: &TestClaims,
    identity_source: &IdentitySource,
) -> ExplainRequest {
    let mut request = request.clone();
    match identity_source {
        IdentitySource::Token(rules) => {
            let token = token(claims, rules);
            match &rules.location {
                TokenLocation::Field(name) => {
                    replace(&mut request, name.as_str(), &format!("Bearer {token}"));
                }
                TokenLocation::Cookie(name) => add_cookie(&mut request, &format!("{name}={token}")),
            }
        }
        IdentitySource::Gateway(rules) => {
            let user = claims.get("sub").or_else(|| claims.values().next());
            let user =
                user.map(|user| user.as_str().map_or_else(|| user.to_string(), str::to_owned));
            replace(&mut request, rules.name.as_str(), &user.unwrap_or_default());
            request.from = request.from.or_else(|| rules.from.first().map(ipnet::IpNet::addr));
        }
        IdentitySource::None => {
            let text = Value::from(claims.clone()).to_string();
            let credential = URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()));
            replace(&mut request, "authorization", &format!("Bearer {credential}"));
        }
    }
    request
}

/// Signs a token with these claims, and with the accepted issuer and audience if they are missing.
fn token(claims: &TestClaims, rules: &TokenRules) -> String {
    let mut claims = claims.clone();
    for (name, known) in [("iss", &rules.issuers), ("aud", &rules.audiences)] {
        if let Some(first) = known.first().filter(|_| !claims.contains_key(name)) {
            claims.insert(name.to_owned(), Value::from(&**first));
        }
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(Value::from(claims).to_string());
    let signed = format!("{header}.{payload}");
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// Sets a request field, and replaces the test's own value.
fn replace(request: &mut ExplainRequest, name: &str, value: &str) {
    request.headers.retain(|line| !is_named(line, name));
    request.headers.push(format!("{name}: {value}"));
}

/// Appends a cookie to the test's own cookies, in one field line.
fn add_cookie(request: &mut ExplainRequest, pair: &str) {
    match request.headers.iter_mut().find(|line| is_named(line, "cookie")) {
        Some(line) => *line = format!("{line}; {pair}"),
        None => request.headers.push(format!("cookie: {pair}")),
    }
}

fn is_named(line: &str, name: &str) -> bool {
    line.split(':').next().is_some_and(|known| known.trim().eq_ignore_ascii_case(name))
}

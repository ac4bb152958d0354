//! Tokens: what the issuer signs, and what attackers make of it.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub(super) const SECRET: &str = "the secret of the issuer, which nobody else has";
pub(super) const ISSUER: &str = "https://issuer.test";
pub(super) const AUDIENCE: &str = "api";

/// How a token comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavor {
    /// Valid for longer than any run, with all rights.
    Full,
    /// The same with fewer rights.
    Narrow,
    /// Valid for a few seconds.
    Brief,
    /// Valid until a while ago.
    Expired,
    /// Another user's claims under the signature of one's own.
    Forged,
    /// Signed with a key that is not the issuer's.
    WrongKey,
    WrongAudience,
    WrongIssuer,
    /// `alg: none`, without a signature.
    Unsigned,
    /// Valid, but without the claim `tenant`.
    Tenantless,
}

impl Flavor {
    /// Those that no one accepts.
    pub(super) const BAD: [Self; 6] = [
        Self::Expired,
        Self::Forged,
        Self::WrongKey,
        Self::WrongAudience,
        Self::WrongIssuer,
        Self::Unsigned,
    ];
}

/// Makes a token for a user; `serial` tells it from all others.
pub(super) fn mint(flavor: Flavor, user: usize, serial: u64, now: u64) -> String {
    let mut claims = claims(flavor, user, serial, now);
    match flavor {
        Flavor::Unsigned => format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims)),
        Flavor::WrongKey => signed(&claims, "another secret, of at least as many bytes"),
        Flavor::Forged => {
            let own = signed(&claims, SECRET);
            claims["sub"] = sub(user + 1).into();
            let (header, rest) = own.split_once('.').unwrap();
            let (_, signature) = rest.split_once('.').unwrap();
            format!("{header}.{}.{signature}", part(&claims))
        }
        _ => signed(&claims, SECRET),
    }
}

fn claims(flavor: Flavor, user: usize, serial: u64, now: u64) -> Value {
    let expires = match flavor {
        Flavor::Brief => now + 2 + serial % 4,
        Flavor::Expired => now - 1 - serial % 600,
        _ => now + 3600,
    };
    let narrow = flavor == Flavor::Narrow;
    let mut claims = json!({
        "iss": if flavor == Flavor::WrongIssuer { "https://evil.test" } else { ISSUER },
        "aud": if flavor == Flavor::WrongAudience { "another" } else { AUDIENCE },
        "sub": sub(user),
        "tenant": format!("t{}", user % 3),
        "scope": if narrow { "read" } else { "read write" },
        "roles": if narrow { json!([]) } else { json!(["editor"]) },
        "iat": now - 700,
        "exp": expires,
        "jti": serial.to_string(),
    });
    if flavor == Flavor::Tenantless {
        claims.as_object_mut().unwrap().remove("tenant");
    }
    claims
}

pub(super) fn sub(user: usize) -> String {
    format!("u{user}")
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signed(claims: &Value, secret: &str) -> String {
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    let tag = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// What a token claims, whether or not it is true.
pub(super) fn claimed(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Whether a careful origin accepts a token at this time, in seconds.
pub(super) fn is_accepted(token: &str, now: f64) -> bool {
    let Some(claims) = claimed(token) else { return false };
    let Some((text, signature)) = token.rsplit_once('.') else { return false };
    let tag = sign(&Key::new(HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    let header = text.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Option<Value> = header.and_then(|text| serde_json::from_slice(&text).ok());
    header.is_some_and(|header| header["alg"] == "HS256")
        && URL_SAFE_NO_PAD.encode(tag) == signature
        && claims["iss"] == ISSUER
        && claims["aud"] == AUDIENCE
        && expiry(&claims) > now
}

/// When a token ends, in seconds.
pub(super) fn expiry(claims: &Value) -> f64 {
    claims["exp"].as_f64().unwrap_or(0.0)
}

//! JSON Web Key Sets (RFC 7517 §5).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::jwt::{
    algorithm::{JwsAlgorithm, KeyType},
    json::{self, JsonObject},
    key::VerificationKey,
};

/// Maximum number of keys that are read from a set; issuers publish two or three.
const MAX_KEYS: usize = 64;

/// Parses a key set; `None` if the text is not a key set. Skips keys that are unsupported, too
/// weak, or not for signatures (RFC 7517 §5).
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<VerificationKey>> {
    let document = JsonObject::parse(str::from_utf8(bytes).ok()?)?;
    let keys = json::list(document.get("keys")?)?;
    Some(keys.into_iter().filter_map(key).take(MAX_KEYS).collect())
}

fn key(raw: &str) -> Option<VerificationKey> {
    let members = JsonObject::parse(raw)?;
    let text = |name| members.get(name).and_then(json::string);
    let is_absent = |name| members.get(name).is_none();
    let is_for_signatures = is_absent("use") || text("use").as_deref() == Some("sig");
    let verifies = is_absent("key_ops")
        || json::strings(members.get("key_ops")?)?.iter().any(|operation| operation == "verify");
    if !is_for_signatures || !verifies {
        return None;
    }
    let only = match members.get("alg") {
        Some(raw) => Some(JwsAlgorithm::named(&json::string(raw)?)?),
        None => None,
    };
    let kid = match members.get("kid") {
        Some(raw) => Some(json::string(raw)?),
        None => None,
    };
    let bytes = |name| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let key = match (text("kty")?.as_str(), text("crv").as_deref()) {
        ("RSA", _) => VerificationKey::rsa(
            strip_leading_zeros(&bytes("n")?),
            strip_leading_zeros(&bytes("e")?),
        ),
        ("EC", Some("P-256")) => point(KeyType::P256, 32, &bytes("x")?, &bytes("y")?),
        ("EC", Some("P-384")) => point(KeyType::P384, 48, &bytes("x")?, &bytes("y")?),
        ("OKP", Some("Ed25519")) => VerificationKey::point(KeyType::Ed25519, &bytes("x")?),
        // Shared secrets (`oct`) are never published.
        _ => None,
    };
    key?.with_kid(kid.as_deref(), only)
}

/// Removes leading zeros from a number.
fn strip_leading_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

/// Creates a key from the coordinates of a curve point (SEC 1 §2.3.3); `None` if they are invalid.
fn point(key_type: KeyType, length: usize, x: &[u8], y: &[u8]) -> Option<VerificationKey> {
    if x.len() != length || y.len() != length {
        return None;
    }
    VerificationKey::point(key_type, &[&[4], x, y].concat())
}

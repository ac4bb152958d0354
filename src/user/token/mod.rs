//! Signed tokens: JSON Web Tokens (RFC 7519) in the compact form of JSON Web Signatures (RFC 7515 §7.1).
//!
//! A token is read here as strictly as it can be: what is refused goes to the origin as it came.

pub mod algorithm;
pub mod json;
pub mod key;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::refusal::Refusal;
use crate::field::Timestamp;
use algorithm::Algorithm;
use json::Object;

/// The longest token that is looked at, in bytes.
pub const LONGEST: usize = 8 << 10;

/// How far `nbf` and `iat` may lie in the future: clocks differ. `exp` has no such leeway.
const LEEWAY: Duration = Duration::from_mins(1);

/// Header parameters that ask for what is not done here: extensions, keys that the token brings along or
/// points to, encryption, compression, other encodings.
const REFUSED_PARAMETERS: [&str; 9] =
    ["crit", "jku", "jwk", "x5u", "x5c", "enc", "zip", "b64", "epk"];

/// What `typ` may be: other kinds of tokens prove other things (RFC 8725 §3.11).
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// A token taken apart. Nothing in it is proven yet.
#[derive(Debug)]
pub struct Token<'a> {
    /// What is signed.
    pub signed: &'a [u8],
    /// How it is signed, as it says itself.
    pub algorithm: Algorithm,
    /// The name of the key that signed it, as it says itself.
    pub kid: Option<String>,
    /// The signature.
    pub signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart. A token has one spelling only: base64url without padding and without stray bits.
    pub fn parse(token: &'a [u8]) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Form);
        };
        let signed = token.get(..=header.len() + payload.len()).ok_or(Refusal::Form)?;
        let (algorithm, kid) = read_header(&decode(header)?)?;
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        Ok(Self { signed, algorithm, kid, signature, payload })
    }

    /// The claims, if they are an object in which each name stands once. To be believed once the signature
    /// is verified.
    pub fn claims(&self) -> Result<Object<'_>, Refusal> {
        let text = str::from_utf8(&self.payload).map_err(|_| Refusal::Claims)?;
        Object::parse(text).ok_or(Refusal::Claims)
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Form)
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, Option<String>), Refusal> {
    let text = str::from_utf8(bytes).map_err(|_| Refusal::Form)?;
    let header = Object::parse(text).ok_or(Refusal::Form)?;
    if REFUSED_PARAMETERS.iter().any(|name| header.get(name).is_some()) {
        return Err(Refusal::Header);
    }
    if let Some(kind) = header.get("typ") {
        let kind = json::string(kind).ok_or(Refusal::Header)?;
        if !TYPES.iter().any(|known| known.eq_ignore_ascii_case(&kind)) {
            return Err(Refusal::Header);
        }
    }
    let kid = match header.get("kid") {
        Some(kid) => Some(json::string(kid).ok_or(Refusal::Header)?),
        None => None,
    };
    let name = header.get("alg").and_then(json::string).ok_or(Refusal::Algorithm)?;
    Ok((Algorithm::named(&name).ok_or(Refusal::Algorithm)?, kid))
}

/// Checks the times of a token, and that no key is needed beside it (`cnf`, RFC 7800). Returns its `exp`.
pub fn check_times(claims: &Object<'_>, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    if claims.get("cnf").is_some() {
        return Err(Refusal::Bound);
    }
    let time = |name| match claims.get(name) {
        Some(raw) => {
            json::seconds(raw).map(Timestamp::from_seconds).map(Some).ok_or(Refusal::Claims)
        }
        None => Ok(None),
    };
    for begin in [time("nbf")?, time("iat")?].into_iter().flatten() {
        if now.saturating_add(LEEWAY) < begin {
            return Err(Refusal::NotYet);
        }
    }
    let expires = time("exp")?;
    if expires.is_some_and(|expires| expires <= now) {
        return Err(Refusal::Expired);
    }
    Ok(expires)
}

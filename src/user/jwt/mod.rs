//! JSON Web Tokens (RFC 7519) in compact JWS form (RFC 7515 §7.1).
//!
//! Parsing is as strict as possible. Requests with rejected tokens go to the origin unchanged.

pub(crate) mod algorithm;
pub(crate) mod json;
pub(crate) mod key;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::error::IdentityError;
use crate::field::Timestamp;
use algorithm::JwsAlgorithm;
use json::JsonObject;

/// Maximum length of a token in bytes.
pub(crate) const MAX_LENGTH: usize = 8 << 10;

/// Tolerance for `nbf` and `iat` in the future, since clocks differ. `exp` has no tolerance.
const LEEWAY: Duration = Duration::from_mins(1);

/// Header parameters for unsupported features: extensions, keys that the token contains or refers
/// to, encryption, compression, other encodings.
const UNSUPPORTED_PARAMETERS: [&str; 9] =
    ["crit", "jku", "jwk", "x5u", "x5c", "enc", "zip", "b64", "epk"];

/// Accepted values of `typ`; other types of tokens have other purposes (RFC 8725 §3.11).
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];

/// A parsed token, not yet verified.
#[derive(Debug)]
pub struct Jwt<'a> {
    /// The signed bytes.
    pub signed: &'a [u8],
    /// The algorithm that the token claims.
    pub algorithm: JwsAlgorithm,
    /// The key ID that the token claims.
    pub kid: Option<String>,
    /// The signature.
    pub signature: Vec<u8>,
    payload: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Parses a token. Only one spelling is accepted: base64url without padding or stray bits.
    pub fn parse(token: &'a [u8]) -> Result<Self, IdentityError> {
        if token.len() > MAX_LENGTH {
            return Err(IdentityError::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Form);
        };
        let signed = token.get(..=header.len() + payload.len()).ok_or(IdentityError::Form)?;
        let (algorithm, kid) = read_header(&decode(header)?)?;
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        Ok(Self { signed, algorithm, kid, signature, payload })
    }

    /// Parses the claims as an object with distinct names. Trust them only after verification.
    pub fn claims(&self) -> Result<JsonObject<'_>, IdentityError> {
        let text = str::from_utf8(&self.payload).map_err(|_| IdentityError::Claims)?;
        JsonObject::parse(text).ok_or(IdentityError::Claims)
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, IdentityError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| IdentityError::Form)
}

fn read_header(bytes: &[u8]) -> Result<(JwsAlgorithm, Option<String>), IdentityError> {
    let text = str::from_utf8(bytes).map_err(|_| IdentityError::Form)?;
    let header = JsonObject::parse(text).ok_or(IdentityError::Form)?;
    if UNSUPPORTED_PARAMETERS.iter().any(|name| header.get(name).is_some()) {
        return Err(IdentityError::Header);
    }
    if let Some(kind) = header.get("typ") {
        let kind = json::string(kind).ok_or(IdentityError::Header)?;
        if !TYPES.iter().any(|known| known.eq_ignore_ascii_case(&kind)) {
            return Err(IdentityError::Header);
        }
    }
    let kid = match header.get("kid") {
        Some(kid) => Some(json::string(kid).ok_or(IdentityError::Header)?),
        None => None,
    };
    let name = header.get("alg").and_then(json::string).ok_or(IdentityError::Algorithm)?;
    Ok((JwsAlgorithm::named(&name).ok_or(IdentityError::Algorithm)?, kid))
}

/// Checks the times of a token, and that it is not bound to a key (`cnf`, RFC 7800). Returns its
/// `exp`.
pub(crate) fn check_times(
    claims: &JsonObject<'_>,
    now: Timestamp,
) -> Result<Option<Timestamp>, IdentityError> {
    if claims.get("cnf").is_some() {
        return Err(IdentityError::Bound);
    }
    let time = |name| match claims.get(name) {
        Some(raw) => {
            json::seconds(raw).map(Timestamp::from_seconds).map(Some).ok_or(IdentityError::Claims)
        }
        None => Ok(None),
    };
    for begin in [time("nbf")?, time("iat")?].into_iter().flatten() {
        if now.saturating_add(LEEWAY) < begin {
            return Err(IdentityError::NotYet);
        }
    }
    let expires = time("exp")?;
    if expires.is_some_and(|expires| expires <= now) {
        return Err(IdentityError::Expired);
    }
    Ok(expires)
}

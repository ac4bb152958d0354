//! The names by which a request identifies its requester, and the search for them in bodies.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// Minimum length of a name in bytes. Shorter names occur in many bodies by chance.
const MIN_LENGTH: usize = 8;

/// Maximum length of a name in bytes.
const MAX_LENGTH: usize = 256;
/// Maximum number of names of one request.
const MAX_NAMES: usize = 4;

/// Maximum length of a token that is read, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// Claims that always name a user.
const SUBJECT_CLAIMS: [&str; 2] = ["sub", "email"];
/// Claims that name a user if their value is an e-mail address.
const ADDRESS_CLAIMS: [&str; 2] = ["preferred_username", "upn"];

/// The names of a requester: the subject and the e-mail addresses in its credentials.
///
/// Credentials are read, not verified. `Debug` redacts them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct RequesterNames(Vec<Box<str>>);

impl RequesterNames {
    /// Adds the names in a credential: the claims of a token (RFC 7519), or the value itself if it
    /// is an e-mail address.
    pub(crate) fn add_credential(&mut self, value: &[u8]) {
        let Ok(text) = str::from_utf8(value) else { return };
        let text = text.split_once(' ').map_or(text, |(scheme, token)| {
            if scheme.eq_ignore_ascii_case("bearer") { token } else { text }
        });
        if let Some(claims) = claims_of(text.trim()) {
            let subjects = SUBJECT_CLAIMS.iter().filter_map(|name| claims.get(*name));
            for claim in subjects {
                self.add_claim(claim);
            }
            let addresses = ADDRESS_CLAIMS.iter().filter_map(|name| claims.get(*name)?.as_str());
            addresses.filter(|text| is_address(text)).for_each(|text| self.add(text));
        } else if is_address(text) {
            self.add(text);
        }
    }

    /// Adds a name that is known to identify the requester.
    pub(crate) fn add(&mut self, name: &str) {
        let is_new = !self.0.iter().any(|known| known.eq_ignore_ascii_case(name));
        let fits = (MIN_LENGTH..=MAX_LENGTH).contains(&name.len());
        if is_new && fits && self.0.len() < MAX_NAMES {
            self.0.push(name.into());
        }
    }

    fn add_claim(&mut self, claim: &Value) {
        match claim {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            _ => {}
        }
    }

    /// Returns whether there are no names.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a decoded body contains one of the names, at the boundaries of a value.
    ///
    /// Ignores case. Slashes may be escaped, as in JSON.
    pub(crate) fn stand_in(&self, body: &[u8]) -> bool {
        self.0.iter().any(|name| {
            stands_in(name.as_bytes(), body)
                || (name.contains('/') && stands_in(name.replace('/', "\\/").as_bytes(), body))
        })
    }
}

impl fmt::Debug for RequesterNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[{} redacted]", self.0.len())
    }
}

/// Returns the claims of a signed token, unverified. `None` if the text is not such a token.
fn claims_of(text: &str) -> Option<Map<String, Value>> {
    let mut parts = Some(text).filter(|text| text.len() <= MAX_TOKEN)?.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Returns whether a text looks like an e-mail address.
fn is_address(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    text.split_once('@').is_some_and(|(local, domain)| {
        is_part(local) && is_part(domain) && domain.contains('.') && !domain.contains('@')
    })
}

fn stands_in(name: &[u8], body: &[u8]) -> bool {
    let Some(last) = body.len().checked_sub(name.len()) else { return false };
    (0..=last).any(|start| {
        let end = start + name.len();
        body.get(start..end).is_some_and(|found| found.eq_ignore_ascii_case(name))
            && !continues_before(body.get(..start).unwrap_or_default())
            && !continues_after(body.get(end..).unwrap_or_default())
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Returns whether the text before a match continues the name.
fn continues_before(before: &[u8]) -> bool {
    before.last().is_some_and(|byte| is_word(*byte) || b".+@".contains(byte))
}

/// Returns whether the text after a match continues the name. A dot continues it only before a
/// word character.
fn continues_after(after: &[u8]) -> bool {
    match after {
        [b'.', next, ..] => is_word(*next),
        [next, ..] => is_word(*next) || *next == b'@',
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(credential: &str) -> Vec<String> {
        let mut names = RequesterNames::default();
        names.add_credential(credential.as_bytes());
        names.0.iter().map(ToString::to_string).collect()
    }

    fn token(claims: &str) -> String {
        let parts = [r#"{"alg":"HS256"}"#, claims, "signature"];
        parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    #[test]
    fn names_are_read_from_tokens_and_addresses() {
        let claims =
            r#"{"sub":"user-1234","email":"bob@example.com","upn":"bob","name":"Bob Jones"}"#;
        assert_eq!(names(&format!("Bearer {}", token(claims))), ["user-1234", "bob@example.com"]);
        assert_eq!(names(&token(r#"{"sub":12345678}"#)), ["12345678"]);
        assert_eq!(
            names(&token(r#"{"preferred_username":"bob@example.com"}"#)),
            ["bob@example.com"]
        );
        assert_eq!(names("bob@example.com"), ["bob@example.com"]);
        for nothing in
            ["Bearer opaque-token", "Basic Ym9iOnBhc3N3b3Jk", "a.b.c", "", "@", "bob@", "a@b.c@d.e"]
        {
            assert_eq!(names(nothing), [""; 0], "{nothing}");
        }
        assert_eq!(names(&token(r#"{"sub":"short"}"#)), [""; 0], "stands in many bodies by chance");
    }

    #[test]
    fn a_name_counts_at_the_boundaries_of_a_value() {
        let mut names = RequesterNames::default();
        names.add("bob@example.com");
        for (body, expected) in [
            (r#"{"email":"bob@example.com"}"#, true),
            (r#"{"email":"Bob@Example.com"}"#, true),
            ("Hello bob@example.com, welcome.", true),
            ("Write to bob@example.com.", true),
            ("<a href=mailto:bob@example.com>", true),
            ("jim.bob@example.com", false),
            ("bob@example.community", false),
            ("bob@example.com.au", false),
            ("bob@example", false),
            ("", false),
        ] {
            assert_eq!(names.stand_in(body.as_bytes()), expected, "{body}");
        }
        let mut names = RequesterNames::default();
        names.add("https://issuer/users/1");
        assert!(names.stand_in(br#"{"user":"https:\/\/issuer\/users\/1"}"#));
        assert!(!names.stand_in(br#"{"user":"https:\/\/issuer\/users\/12"}"#));
    }

    #[test]
    fn names_are_never_shown() {
        let mut names = RequesterNames::default();
        names.add("bob@example.com");
        assert_eq!(format!("{names:?}"), "[1 redacted]");
    }
}

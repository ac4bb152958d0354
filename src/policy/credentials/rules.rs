//! The operator's own lists, beside the built-in ones.

use http::{HeaderMap, HeaderName, header};

use super::Credentials;
use crate::field::{
    identity::{self, IdentityFieldKind},
    name,
    presence::FieldPresence,
};

/// What an operator adds to the built-in lists, and takes off them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialRules {
    /// Fields that are credentials.
    pub fields: NameList,
    /// Fields that are none.
    pub harmless_fields: NameList,
    /// Parameters that are none.
    pub harmless_parameters: NameList,
    /// Cookies of sessions.
    pub session_cookies: NameList,
    /// Cookies that count for nothing.
    pub harmless_cookies: NameList,
    /// Cookies that choose what is shown.
    pub selecting_cookies: NameList,
    /// The cookie that holds the token of an identity.
    pub token_cookie: Option<Box<str>>,
}

/// Patterns of names: without case, `_`, `-` and `.` alike, `*` for any characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameList(Box<[Box<str>]>);

/// A text that is no pattern of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is a name, or a part of one with `*`, as in `shop_*`")]
pub struct InvalidNamePattern;

impl NameList {
    /// Checks a pattern: it holds visible characters that may stand in names, and not stars alone, which
    /// would turn a whole protection off.
    pub fn check(pattern: &str) -> Result<(), InvalidNamePattern> {
        let may_stand = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\&?".contains(&byte);
        let says_something = pattern.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if says_something && pattern.bytes().all(may_stand) {
            Ok(())
        } else {
            Err(InvalidNamePattern)
        }
    }

    /// Whether a name fits one of the patterns.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| name::matches(pattern.as_bytes(), name))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<Text: Into<Box<str>>> FromIterator<Text> for NameList {
    fn from_iter<Patterns: IntoIterator<Item = Text>>(patterns: Patterns) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }
}

impl CredentialRules {
    /// What the fields of a request say about who asks, cookies aside, and those that are known aside. A
    /// tenant that is in `vary_headers`, the fields by which the route separates responses, says nothing more.
    ///
    /// Costs nothing for most requests: `presence` tells that no name says anything.
    pub fn credentials_in_fields(
        &self,
        request: &HeaderMap,
        presence: FieldPresence,
        vary_headers: &[HeaderName],
        is_known: impl Fn(&HeaderName) -> bool,
    ) -> Credentials {
        let mut found = Credentials::NONE;
        if presence.has(FieldPresence::AUTHORIZATION) && !is_known(&header::AUTHORIZATION) {
            found = found.with(Credentials::AUTHORIZATION);
        }
        let is_in_question = presence.has(FieldPresence::IDENTITY) || !self.fields.is_empty();
        if is_in_question
            && request.keys().any(|name| !is_known(name) && self.is_credential(name, vary_headers))
        {
            found = found.with(Credentials::FIELD);
        }
        found
    }

    /// Whether a field says who asks, `Authorization` and `Cookie` aside, where responses are separated by
    /// these fields.
    pub fn is_credential(&self, name: &HeaderName, vary_headers: &[HeaderName]) -> bool {
        match self.field_kind(name.as_str()) {
            Some(IdentityFieldKind::Credential) => true,
            Some(IdentityFieldKind::Tenant) => !vary_headers.contains(name),
            None => false,
        }
    }

    /// What kind a field is of, `Authorization` and `Cookie` aside. The operator's lists come first; of
    /// these, the one that protects.
    pub fn field_kind(&self, name: &str) -> Option<IdentityFieldKind> {
        if matches!(name, "authorization" | "cookie") {
            return None;
        }
        if self.fields.has(name.as_bytes()) {
            return Some(IdentityFieldKind::Credential);
        }
        if self.harmless_fields.has(name.as_bytes()) {
            return None;
        }
        identity::classify(name)
    }
}

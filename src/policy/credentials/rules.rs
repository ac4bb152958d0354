//! The operator's lists of credentials, which extend and narrow the built-in lists.

use http::{HeaderMap, HeaderName, header};

use super::Credentials;
use crate::field::{
    identity::{self, IdentityFieldKind},
    name,
    presence::FieldPresence,
};

/// The operator's additions to the built-in lists of credentials, and exceptions to these lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialRules {
    /// Fields that are credentials.
    pub fields: NameList,
    /// Fields that are not credentials.
    pub harmless_fields: NameList,
    /// Query parameters that are not credentials.
    pub harmless_parameters: NameList,
    /// Session cookies.
    pub session_cookies: NameList,
    /// Cookies without influence on responses.
    pub harmless_cookies: NameList,
    /// Cookies that select content.
    pub selecting_cookies: NameList,
    /// The cookie that carries the token of a client's identity, if the operator names one.
    pub token_cookie: Option<Box<str>>,
}

/// Name patterns. Case is ignored, `_`, `-` and `.` are equal, and `*` matches any characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameList(Box<[Box<str>]>);

/// Error for an invalid name pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a name, or a pattern with `*` such as `shop_*`")]
pub struct InvalidNamePattern;

impl NameList {
    /// Checks a name pattern. Accepts visible characters that are allowed in names. Rejects a
    /// pattern that consists of stars and punctuation only, since it could match every name.
    pub fn check(pattern: &str) -> Result<(), InvalidNamePattern> {
        let may_stand = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\&?".contains(&byte);
        let says_something = pattern.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if says_something && pattern.bytes().all(may_stand) {
            Ok(())
        } else {
            Err(InvalidNamePattern)
        }
    }

    /// Returns whether one of the patterns matches a name.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| name::matches(pattern.as_bytes(), name))
    }

    /// Returns whether the list is empty.
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
    /// Returns the credentials in the fields of a request, except cookies and fields that
    /// `is_known` accepts.
    ///
    /// A tenant field is no credential if it is in `vary_headers`, the fields that the route varies
    /// by. Most requests need no search, since `presence` shows that no field can match.
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

    /// Returns whether a field other than `Authorization` and `Cookie` is a credential. A tenant
    /// field in `vary_headers` is not a credential.
    pub fn is_credential(&self, name: &HeaderName, vary_headers: &[HeaderName]) -> bool {
        match self.field_kind(name.as_str()) {
            Some(IdentityFieldKind::Credential) => true,
            Some(IdentityFieldKind::Tenant) => !vary_headers.contains(name),
            None => false,
        }
    }

    /// Returns the kind of an identity field; `None` for `Authorization`, `Cookie` and all harmless
    /// fields. The operator's lists come first; a name in both of them is a credential.
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

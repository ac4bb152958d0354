//! Keys and tokens in query parameters.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    CredentialRules, Credentials,
    lists::{CREDENTIAL_PARAMETERS, SIGNATURE_PARAMETERS},
};

/// A query parameter that is a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Zero-based position among all pairs separated by `&`, including empty ones.
    pub position: usize,
    /// Name as sent.
    pub name: &'a str,
    /// Value as sent; empty if there is none.
    pub value: &'a str,
    /// Kind of credential.
    pub kind: ParameterKind,
}

/// The kind of credential in a query parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A key, a token, a session or a password.
    Secret,
    /// A signature of the target, which expires.
    Signature,
}

impl CredentialRules {
    /// Returns the query parameters that are credentials. Their values must not be shown anywhere,
    /// and enter keys only as a digest.
    pub fn credential_parameters<'a>(&self, query: &'a str) -> impl Iterator<Item = Parameter<'a>> {
        query.split('&').enumerate().filter_map(|(position, pair)| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Some servers split at `;` too.
            let mut names =
                pair.split(';').map(|part| part.split_once('=').map_or(part, |(name, _)| name));
            let kind = names.find_map(|name| self.parameter_kind(name))?;
            Some(Parameter { position, name, value, kind })
        })
    }

    /// Returns the credentials in a query.
    pub fn credentials_in_query(&self, query: Option<&str>) -> Credentials {
        let kinds = query.into_iter().flat_map(|query| self.credential_parameters(query));
        kinds.fold(Credentials::NONE, |found, parameter| match parameter.kind {
            ParameterKind::Secret => found.with(Credentials::PARAMETER),
            ParameterKind::Signature => {
                found.with(Credentials::PARAMETER).with(Credentials::SIGNATURE)
            }
        })
    }

    /// Returns the kind of credential in a parameter with this name as sent, else `None`. Names are
    /// compared exactly, apart from case and word separators: `pageToken` is not `token`.
    pub fn parameter_kind(&self, name: &str) -> Option<ParameterKind> {
        let name = decode(name);
        let separates = |byte: &u8| matches!(byte, b'-' | b'_' | b'.');
        let kind = if name.as_bytes().iter().any(separates) {
            let words = name.bytes().filter(|byte| !separates(byte));
            classify(&words.take(MAX_NAME_LENGTH).collect::<SmallVec<[u8; MAX_NAME_LENGTH]>>())
        } else {
            classify(name.as_bytes())
        };
        kind.filter(|_| !self.harmless_parameters.has(name.as_bytes()))
    }
}

/// Length to which names are cut before they are compared. All listed names are shorter.
const MAX_NAME_LENGTH: usize = 32;

/// Looks up a name, written without separators, in the built-in lists; `None` if not listed.
fn classify(name: &[u8]) -> Option<ParameterKind> {
    if SIGNATURE_PARAMETERS.has(name) {
        Some(ParameterKind::Signature)
    } else if CREDENTIAL_PARAMETERS.has(name) {
        Some(ParameterKind::Secret)
    } else {
        None
    }
}

/// Decodes a name as servers do. Bytes that are not UTF-8 match no listed name.
fn decode(name: &str) -> Cow<'_, str> {
    if !name.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(name);
    }
    let spaced = name.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(spaced.trim()).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

//! Keys and tokens in the query.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    CredentialRules, Credentials,
    lists::{CREDENTIAL_PARAMETERS, SIGNATURE_PARAMETERS},
};

/// A pair of a query that is a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Its position among all pairs between the `&`s, from 0; empty ones count.
    pub position: usize,
    /// The name as sent.
    pub name: &'a str,
    /// The value as sent; empty where there is none.
    pub value: &'a str,
    /// What it carries.
    pub kind: ParameterKind,
}

/// What a parameter carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A key, a token, a session or a password.
    Secret,
    /// A signature of the target, which holds for a while only.
    Signature,
}

impl CredentialRules {
    /// The pairs of a query that are credentials: their values are to be seen nowhere, and enter keys as a
    /// digest only.
    pub fn credential_parameters<'a>(&self, query: &'a str) -> impl Iterator<Item = Parameter<'a>> {
        query.split('&').enumerate().filter_map(|(position, pair)| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Some servers split at `;`, too.
            let mut names =
                pair.split(';').map(|part| part.split_once('=').map_or(part, |(name, _)| name));
            let kind = names.find_map(|name| self.parameter_kind(name))?;
            Some(Parameter { position, name, value, kind })
        })
    }

    /// What a query carries.
    pub fn credentials_in_query(&self, query: Option<&str>) -> Credentials {
        let kinds = query.into_iter().flat_map(|query| self.credential_parameters(query));
        kinds.fold(Credentials::NONE, |found, parameter| match parameter.kind {
            ParameterKind::Secret => found.with(Credentials::PARAMETER),
            ParameterKind::Signature => {
                found.with(Credentials::PARAMETER).with(Credentials::SIGNATURE)
            }
        })
    }

    /// What a parameter of this name, as sent, carries. Names are compared exactly, but for case and the
    /// separators of words: `pageToken` is no `token`.
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

/// One more than the longest name that is known.
const MAX_NAME_LENGTH: usize = 32;

/// What a parameter carries whose name, without separators, is this.
fn classify(name: &[u8]) -> Option<ParameterKind> {
    if SIGNATURE_PARAMETERS.has(name) {
        Some(ParameterKind::Signature)
    } else if CREDENTIAL_PARAMETERS.has(name) {
        Some(ParameterKind::Secret)
    } else {
        None
    }
}

/// A name as servers decode it. Bytes that are not UTF-8 match no known name.
fn decode(name: &str) -> Cow<'_, str> {
    if !name.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(name);
    }
    let spaced = name.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(spaced.trim()).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

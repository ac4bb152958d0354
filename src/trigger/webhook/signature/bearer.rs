//! Secrets that senders put into a field as they are, without a digest.

use http::{HeaderMap, HeaderName, header};

use super::delivery::{SignatureError, verify_any_equal};
use crate::trigger::access;

/// A secret that is sent in a field.
#[derive(Clone)]
pub struct BearerSecret {
    pub(super) header: HeaderName,
    secrets: Vec<Box<[u8]>>,
}

impl BearerSecret {
    pub(super) fn new(header: HeaderName, secrets: &[&str]) -> Self {
        Self { header, secrets: secrets.iter().map(|secret| secret.as_bytes().into()).collect() }
    }

    pub(super) fn verify(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let given = if self.header == header::AUTHORIZATION {
            access::bearer_token(headers)
        } else {
            headers.get(&self.header).map(|value| value.as_bytes().trim_ascii())
        };
        let given = given.ok_or_else(|| SignatureError::MissingField(self.header.clone()))?;
        verify_any_equal(self.secrets.iter().map(|secret| &**secret), &[given])
    }
}

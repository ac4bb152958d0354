//! Templates of signed content.

use thiserror::Error;

/// A template of the signed content: the body, literals, and optionally the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningTemplate(Box<[SignedPart]>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignedPart {
    Literal(Box<str>),
    Timestamp,
    Body,
}

/// The errors in a template of signed content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningTemplateError {
    /// The body is missing or appears twice.
    #[error("the signed content has to contain the body exactly once, as `{{body}}`")]
    Body,
    /// A placeholder is unknown.
    #[error("unknown placeholder; use `{{body}}` and `{{timestamp}}`")]
    Unknown,
}

impl SigningTemplate {
    /// Parses a template such as `{body}`, `{timestamp}.{body}`, `v0:{timestamp}:{body}`.
    pub fn parse(text: &str) -> Result<Self, SigningTemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(SigningTemplateError::Unknown)?;
            if !literal.is_empty() {
                parts.push(SignedPart::Literal(literal.into()));
            }
            parts.push(match name {
                "body" => SignedPart::Body,
                "timestamp" => SignedPart::Timestamp,
                _ => return Err(SigningTemplateError::Unknown),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(SignedPart::Literal(rest.into()));
        }
        let bodies = parts.iter().filter(|part| **part == SignedPart::Body).count();
        if bodies == 1 { Ok(Self(parts.into())) } else { Err(SigningTemplateError::Body) }
    }

    /// Creates a template from these parts, which must include the body.
    pub(crate) fn of(parts: impl Into<Box<[SignedPart]>>) -> Self {
        Self(parts.into())
    }

    /// Returns whether the template contains the time.
    pub fn has_timestamp(&self) -> bool {
        self.0.contains(&SignedPart::Timestamp)
    }

    pub(super) fn write(&self, timestamp: &str, body: &[u8], mut update: impl FnMut(&[u8])) {
        for part in &self.0 {
            match part {
                SignedPart::Literal(text) => update(text.as_bytes()),
                SignedPart::Timestamp => update(timestamp.as_bytes()),
                SignedPart::Body => update(body),
            }
        }
    }
}

//! Names of parameters in the configuration.

use std::fmt;

use thiserror::Error;

/// A parameter name, or a pattern for all names with a prefix or suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// One name: `range`.
    Exact(Box<str>),
    /// All names with a prefix: `utm_*`.
    Prefix(Box<str>),
    /// All names with a suffix: `*_id`.
    Suffix(Box<str>),
}

/// An error in a name pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NamePatternError {
    /// The pattern is empty.
    #[error("the parameter name is empty")]
    Empty,
    /// A `*` is in the middle, or there are several.
    #[error("`*` is allowed only at the beginning or the end")]
    Wildcard,
}

impl NamePattern {
    /// Parses `name`, `name*`, `*name` or `*`.
    pub fn parse(text: &str) -> Result<Self, NamePatternError> {
        let (pattern, literal) = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(prefix), _) => (Self::Prefix(prefix.into()), prefix),
            (None, Some(suffix)) => (Self::Suffix(suffix.into()), suffix),
            (None, None) => (Self::Exact(text.into()), text),
        };
        if text.is_empty() {
            return Err(NamePatternError::Empty);
        }
        if literal.contains('*') {
            return Err(NamePatternError::Wildcard);
        }
        Ok(pattern)
    }

    /// Returns whether the pattern matches a decoded name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == &**text,
            Self::Prefix(text) => name.starts_with(&**text),
            Self::Suffix(text) => name.ends_with(&**text),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => formatter.write_str(text),
            Self::Prefix(text) => write!(formatter, "{text}*"),
            Self::Suffix(text) => write!(formatter, "*{text}"),
        }
    }
}

//! Values with their position in the file.

use std::ops::{Deref, Range};

use serde::{Deserialize, Deserializer};

/// A value and its byte range in the file.
#[derive(Debug, Clone)]
pub(in crate::config) struct Located<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) span: Range<usize>,
}

/// An expanded string.
pub(in crate::config) type Text = Located<String>;

/// A list of expanded strings; a single string is a list of one.
pub(in crate::config) type Texts = Located<Vec<Text>>;

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

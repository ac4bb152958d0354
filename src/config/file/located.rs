//! Values with their position in the file.

use std::ops::{Deref, Range};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A value and its byte range in the file.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// A string in which `${VAR}` and `${file:/path}` are replaced.
pub(crate) type Text = Located<String>;

/// A list of expanded strings; a single string is a list of one.
pub(crate) type Texts = Located<Vec<Text>>;

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

/// Strings, numbers and booleans; a single value is a list of one.
#[derive(Debug, Clone)]
pub(crate) struct Values(pub(crate) Vec<Value>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Array(values) => values,
            value => vec![value],
        }))
    }
}

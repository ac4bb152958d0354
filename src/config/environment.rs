//! Environment variables and secret files that a configuration refers to.

use std::{fmt, io, path::Path};

/// The source of `${VAR}` and `${file:/path}`.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Returns the value of a variable, if it is set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Environment<'static> {
    /// Returns the environment of this process.
    pub fn process() -> Self {
        Self {
            variable: &|name| std::env::var(name).ok(),
            file: &|path| std::fs::read_to_string(path),
        }
    }

    /// Returns an environment without variables and files.
    pub fn empty() -> Self {
        Self { variable: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) }
    }
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Environment")
    }
}

/// A reference that could not be resolved. Messages never contain the resolved text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExpandError {
    /// A `${` without `}`.
    #[error("unterminated `${{`: `}}` is missing")]
    Open,
    /// `${}` or an invalid variable name.
    #[error("invalid variable name in `${{{0}}}`")]
    Name(String),
    /// The variable is not set.
    #[error("environment variable `{0}` is not set")]
    Unset(String),
    /// The file could not be read.
    #[error("cannot read file `{0}`: {1}")]
    File(String, io::ErrorKind),
}

/// Replaces `${VAR}` and `${file:/path}` in a text. `$${` stands for `${`. A line break at the end
/// of a file is left out.
pub(super) fn expand(text: &str, environment: Environment<'_>) -> Result<String, ExpandError> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (reference, after) = after.split_once('}').ok_or(ExpandError::Open)?;
        expanded.push_str(&resolve(reference, environment)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn resolve(reference: &str, environment: Environment<'_>) -> Result<String, ExpandError> {
    if let Some(path) = reference.strip_prefix("file:") {
        let mut text = (environment.file)(Path::new(path))
            .map_err(|error| ExpandError::File(path.to_owned(), error.kind()))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        return Ok(text);
    }
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if reference.is_empty() || !reference.bytes().all(is_named) {
        return Err(ExpandError::Name(reference.to_owned()));
    }
    (environment.variable)(reference).ok_or_else(|| ExpandError::Unset(reference.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let environment = Environment {
            variable: &|name| (name == "HOST").then(|| "example.com".to_owned()),
            file: &|path| match path.to_str() {
                Some("/run/secret") => Ok("s3cret\n".to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        };
        expand(text, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn references_are_replaced() {
        assert_eq!(expanded("http://${HOST}/${HOST}").unwrap(), "http://example.com/example.com");
        assert_eq!(expanded("${file:/run/secret}").unwrap(), "s3cret");
        assert_eq!(expanded("a $ b {x} $x").unwrap(), "a $ b {x} $x");
        assert_eq!(expanded("$${HOST}").unwrap(), "${HOST}");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(expanded("${PORT}").unwrap_err(), "environment variable `PORT` is not set");
        assert_eq!(expanded("${a b}").unwrap_err(), "invalid variable name in `${a b}`");
        assert_eq!(expanded("x${HOST").unwrap_err(), "unterminated `${`: `}` is missing");
        assert_eq!(
            expanded("${file:/nowhere}").unwrap_err(),
            "cannot read file `/nowhere`: entity not found"
        );
    }
}

//! Form-encoded parameters (`application/x-www-form-urlencoded`), as in the queries of URLs.

use std::borrow::Cow;

/// Returns the parameters of a query in order, as sent: each name, and the value after its `=`.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    })
}

/// Decodes a name or value as HTML forms do: `+` is a space, percent-encodings are UTF-8.
///
/// Text that does not decode to UTF-8 stays as sent.
pub(crate) fn decoded(raw: &str) -> Cow<'_, str> {
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Cow::Owned(text.into_owned()),
        Err(_) => Cow::Borrowed(raw),
    }
}

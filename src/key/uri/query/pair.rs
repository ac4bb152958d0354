//! The pairs of a query, as servers read them.

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

/// Returns whether servers may split a pair differently: at `;`, or at a NUL.
pub(super) fn is_ambiguous(pair: &str) -> bool {
    let encodes =
        |code: &[u8; 3]| pair.as_bytes().windows(3).any(|part| part.eq_ignore_ascii_case(code));
    pair.contains([';', '\0']) || encodes(b"%3b") || encodes(b"%00")
}

/// Returns the name in a pair, as sent.
pub(super) fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

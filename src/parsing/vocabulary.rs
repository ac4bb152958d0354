//! The common words of APIs. A name that consists of such words reveals nothing about a user.

use std::{collections::HashSet, sync::LazyLock};

/// Maximum number of words in a common name.
const MAX_WORDS: usize = 5;

/// Common words in the field names and paths of APIs, in lower case and in the singular. First
/// names are left out.
static WORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("vocabulary.txt").split_ascii_whitespace().collect());

/// Returns whether a name, such as `createdAt`, `line_items` or `__typename`, consists only of
/// words that are common in APIs.
///
/// The names of JSON members may be data, in maps such as `{"alice": 3}`, and a document does not
/// show which names are data. A name that consists of words from a fixed list reveals nothing.
pub(crate) fn is_common_name(name: &str) -> bool {
    let words = name.trim_start_matches(['_', '$', '@']).split(['_', '-', '.']);
    let mut count = 0;
    for word in words.flat_map(camel_words) {
        count += 1;
        if count > MAX_WORDS || !is_common_word(&word.to_ascii_lowercase()) {
            return false;
        }
    }
    count > 0
}

/// Returns the words of a name such as `createdAt` or `userID`.
fn camel_words(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let word = first_word(rest)?;
        rest = rest.get(word.len()..).unwrap_or_default();
        Some(word)
    })
}

/// Returns the first word of a name, which is a run of capitals or ends before the next capital.
fn first_word(name: &str) -> Option<&str> {
    let bytes = name.as_bytes();
    bytes.first()?;
    let capitals = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    let end = if capitals > 1 {
        // The last capital begins the next word, as in `HTTPStatus`.
        if capitals < bytes.len() { capitals - 1 } else { capitals }
    } else {
        let next = bytes.iter().skip(1).position(u8::is_ascii_uppercase);
        next.map_or(bytes.len(), |next| next + 1)
    };
    name.get(..end).or(Some(name))
}

/// Returns whether a word in lower case is common, in the singular or in the plural.
fn is_common_word(word: &str) -> bool {
    let is_known = |word: &str| WORDS.contains(word);
    is_known(word)
        || word.strip_suffix('s').is_some_and(is_known)
        || word.strip_suffix("es").is_some_and(is_known)
        || word.strip_suffix("ies").is_some_and(|stem| is_known(&format!("{stem}y")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_apis_are_common() {
        for name in [
            "id",
            "createdAt",
            "line_items",
            "__typename",
            "$ref",
            "userID",
            "HTTPStatus",
            "categories",
            "addresses",
            "first_name",
        ] {
            assert!(is_common_name(name), "{name}");
        }
    }

    #[test]
    fn names_that_may_be_of_a_user_are_not() {
        for name in [
            "",
            "_",
            "alice",
            "Bob",
            "max",
            "alice_balance",
            "alice@example.com",
            "order7",
            "7",
            "é",
            "ID-é",
            "a b",
            "user.user.user.user.user.user",
            "price\u{0}",
        ] {
            assert!(!is_common_name(name), "{name}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_in_lower_case() {
        let words: Vec<&str> = include_str!("vocabulary.txt").split_ascii_whitespace().collect();
        assert!(words.is_sorted_by(|one, next| one < next));
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())));
    }
}

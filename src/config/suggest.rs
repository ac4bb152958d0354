//! Suggestions for misspelt words.

/// Returns the known word nearest to `given`; `None` if no word is near enough for a misspelling.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given: String = given.chars().take(64).flat_map(char::to_lowercase).collect();
    let limit = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (strsim::osa_distance(&given, word), word))
        .filter(|(distance, word)| *distance <= limit && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Returns the question "did you mean …?" for `word`; `None` without a word.
pub(super) fn did_you_mean(word: Option<&str>) -> Option<String> {
    word.map(|word| format!("did you mean `{word}`?"))
}

/// Formats words as a list for a message: `` `a`, `b`, `c` ``.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["ttl", "ttl_from", "stale_while_revalidate", "tags", "match", "listen"];
        for (given, meant) in [
            ("tll", "ttl"),
            ("TTL", "ttl"),
            ("mach", "match"),
            ("ttl-from", "ttl_from"),
            ("stale_while_revaldate", "stale_while_revalidate"),
            ("tag", "tags"),
            ("lsiten", "listen"),
        ] {
            assert_eq!(nearest(given, known), Some(meant), "{given}");
        }
        assert_eq!(nearest("partition", known), None);
        assert_eq!(nearest("", ["a"]), None);
    }

    #[test]
    fn words_are_listed() {
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b`, `c`");
    }
}

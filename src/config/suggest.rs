//! Suggestions for misspelt words.

/// Returns the known word nearest to `given`, if it is near enough to be a misspelling.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(64).flat_map(char::to_lowercase).collect();
    let limit = (given.len() / 3).max(1);
    known
        .into_iter()
        .map(|word| (distance(&given, &word.chars().collect::<Vec<_>>()), word))
        .filter(|(distance, word)| *distance <= limit && *distance < word.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Returns advice to write `word`, if there is one.
pub(super) fn did_you_mean(word: Option<&str>) -> Option<String> {
    word.map(|word| format!("did you mean `{word}`?"))
}

/// Formats words as a list for a message: `` `a`, `b`, `c` ``.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// Counts the insertions, deletions, replacements and swaps of neighbours between two words
/// (optimal string alignment).
fn distance(one: &[char], other: &[char]) -> usize {
    let width = other.len() + 1;
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..width).collect();
    for (row, left) in one.iter().enumerate() {
        let mut current = Vec::with_capacity(width);
        current.push(row + 1);
        for (column, right) in other.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX);
            let replaced = at(&above, column) + usize::from(left != right);
            let mut best = replaced.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            let is_swapped = row > 0
                && column > 0
                && one.get(row - 1) == Some(right)
                && other.get(column - 1) == Some(left);
            if is_swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or_default()
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

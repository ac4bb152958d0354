//! Differences between two JSON documents.

use serde_json::{Map, Number, Value};
use serde_json_path::{JsonPath, NormalizedPath};

use super::difference::Difference;
use crate::parsing::{self, ParseError};

/// Maximum number of differences that are described. Further differences are left out.
const MAX_DIFFERENCES: usize = 8;

/// Returns the differences between two documents, without the ignored parts.
///
/// Fails if one document is not JSON, or if both together are too large.
pub(super) fn differences(
    stored: &[u8],
    live: &[u8],
    ignore: &[JsonPath],
) -> Result<Vec<Difference>, ParseError> {
    let (mut stored, mut live) = parsing::parse_pair(stored, live)?;
    for path in ignore {
        remove(path, &mut stored);
        remove(path, &mut live);
    }
    let mut walk = Walk { path: "$".to_owned(), found: Vec::new() };
    walk.compare(&stored, &live);
    Ok(walk.found)
}

/// Removes the nodes that a path selects. Items of arrays become `null`, so that the other items
/// keep their positions.
fn remove(path: &JsonPath, document: &mut Value) {
    let located = path.query_located(document);
    let pointers: Vec<String> = located.locations().map(NormalizedPath::to_json_pointer).collect();
    for pointer in pointers {
        let Some((parent, name)) = pointer.rsplit_once('/') else {
            *document = Value::Null;
            return;
        };
        match document.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.remove(&name.replace("~1", "/").replace("~0", "~"));
            }
            Some(Value::Array(_)) => {
                if let Some(item) = document.pointer_mut(&pointer) {
                    *item = Value::Null;
                }
            }
            _ => {}
        }
    }
}

/// A recursive comparison of two documents, which collects their differences.
struct Walk {
    /// The path to the compared values. Names that may be data are hidden.
    path: String,
    found: Vec<Difference>,
}

impl Walk {
    fn compare(&mut self, stored: &Value, live: &Value) {
        match (stored, live) {
            (Value::Object(stored), Value::Object(live)) => self.compare_members(stored, live),
            (Value::Array(stored), Value::Array(live)) if stored.len() == live.len() => {
                for (stored, live) in stored.iter().zip(live) {
                    self.within("[*]", |walk| walk.compare(stored, live));
                }
            }
            (Value::Number(one), Value::Number(other)) if is_same_number(one, other) => {}
            (stored, live) if stored == live => {}
            (stored, live) => self.note(Some(stored), Some(live)),
        }
    }

    fn compare_members(&mut self, stored: &Map<String, Value>, live: &Map<String, Value>) {
        for (name, value) in stored {
            self.within(&step(name), |walk| match live.get(name) {
                Some(other) => walk.compare(value, other),
                None => walk.note(Some(value), None),
            });
        }
        for (name, value) in live.iter().filter(|(name, _)| !stored.contains_key(*name)) {
            self.within(&step(name), |walk| walk.note(None, Some(value)));
        }
    }

    fn within(&mut self, step: &str, compare: impl FnOnce(&mut Self)) {
        if self.found.len() >= MAX_DIFFERENCES {
            return;
        }
        let length = self.path.len();
        self.path.push_str(step);
        compare(self);
        self.path.truncate(length);
    }

    /// Adds a difference at the current path, unless the path already has a difference.
    fn note(&mut self, stored: Option<&Value>, live: Option<&Value>) {
        if !self.found.iter().any(|known| known.at == self.path) {
            self.found.push(Difference::of_values(self.path.clone(), stored, live));
        }
    }
}

/// Returns the path step to a member of an object. A name that may be data is hidden.
fn step(name: &str) -> String {
    if parsing::is_common_name(name) { format!(".{name}") } else { ".*".to_owned() }
}

/// Returns whether two numbers are equal, however they are written.
fn is_same_number(one: &Number, other: &Number) -> bool {
    let is_whole = |number: &Number| number.is_i64() || number.is_u64();
    if is_whole(one) && is_whole(other) {
        return one == other;
    }
    matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one.to_bits() == other.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::difference::shown;

    fn found(stored: &str, live: &str, ignore: &[&str]) -> Vec<String> {
        let ignore: Vec<JsonPath> =
            ignore.iter().map(|path| JsonPath::parse(path).unwrap()).collect();
        shown(&differences(stored.as_bytes(), live.as_bytes(), &ignore).unwrap())
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn values_count_and_their_spelling_does_not() {
        assert_eq!(found(r#"{"a":1,"b":"x"}"#, r#"{ "b": "\u0078", "a": 1e0 }"#, &[]), NONE);
        assert_eq!(found("[1,2]", "[1,2.0]", &[]), NONE);
        assert_eq!(found("9007199254740993", "9007199254740992", &[]), ["$: number, now number"]);
        assert_eq!(found("[1,2]", "[2,1]", &[]), ["$[*]: number, now number"]);
        assert_eq!(found(r#"{"a":null}"#, "{}", &[]), ["$.*: null, now absent"]);
    }

    #[test]
    fn each_path_is_described_once_and_without_values() {
        let stored =
            r#"{"user":{"email":"alice@example.com"},"rows":[{"sum":1},{"sum":2}],"items":[1]}"#;
        let live =
            r#"{"user":{"email":"bob@example.com"},"rows":[{"sum":3},{"sum":4}],"items":[1,2]}"#;
        assert_eq!(
            found(stored, live, &[]),
            [
                "$.items: array of 1, now array of 2",
                "$.rows[*].sum: number, now number",
                "$.user.email: string of 17, now string of 15",
            ]
        );
    }

    #[test]
    fn names_that_may_be_data_are_hidden() {
        for (stored, live) in [
            (r#"{"alice@example.com":1}"#, r#"{"alice@example.com":2}"#),
            (r#"{"order73281":1}"#, r#"{"order73281":2}"#),
            (r#"{"7":1}"#, r#"{"7":2}"#),
            (r#"{"alice":1}"#, r#"{"alice":2}"#),
            (r#"{"bobSmith":1,"bob_jones":1}"#, r#"{"bobSmith":2,"bob_jones":2}"#),
        ] {
            assert_eq!(found(stored, live, &[]), ["$.*: number, now number"]);
        }
        assert_eq!(found(r#"{"alice":1}"#, r#"{"bob":1}"#, &[]), ["$.*: number, now absent"]);
        assert_eq!(found(r#"{"id":1}"#, r#"{"name":1}"#, &[]).len(), 2);
    }

    #[test]
    fn ignored_paths_may_differ_or_be_missing() {
        let stored = r#"{"at":1,"meta":{"id":"x","v":1},"rows":[{"t":1,"v":1},{"t":2,"v":2}]}"#;
        let live = r#"{"meta":{"id":"y","v":1},"rows":[{"t":3,"v":1},{"v":2}]}"#;
        assert_eq!(found(stored, live, &["$.at", "$.meta.id", "$.rows[*].t"]), NONE);
        assert_eq!(found(stored, live, &["$..id", "$..t", "$..at"]), NONE);
        assert_eq!(found("[1,5,3]", "[1,6,3]", &["$[1]"]), NONE);
        assert_eq!(found("[1,5,3]", "[1,6,4]", &["$[1]"]), ["$[*]: number, now number"]);
        assert_eq!(found(r#"{"a/b~c":1}"#, r#"{"a/b~c":2}"#, &["$['a/b~c']"]), NONE);
        assert_eq!(found("1", "2", &["$"]), NONE);
    }

    #[test]
    fn many_differences_are_cut() {
        let names =
            ["id", "name", "price", "size", "date", "rate", "item", "user", "page", "total"];
        let document = |value: u8| {
            let members = names.map(|name| format!("\"{name}\":{value}"));
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(found(&document(1), &document(2), &[]).len(), MAX_DIFFERENCES);
    }

    #[test]
    fn what_is_not_json_is_not_compared_by_value() {
        assert_eq!(differences(b"{}", b"{", &[]), Err(ParseError::Malformed));
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        assert_eq!(differences(deep.as_bytes(), b"[]", &[]), Err(ParseError::Malformed));
    }
}

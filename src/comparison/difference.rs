//! Differences between responses, described without their values.

use http::{HeaderName, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// One difference between a stored and a live response. Contains no value of either response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// `status`, `body`, `header NAME`, or a path into the JSON: `$.items[*].price`.
    pub(crate) at: String,
    /// The kind and length of the stored value.
    pub(crate) stored: String,
    /// The kind and length of the live value.
    pub(crate) live: String,
}

impl Difference {
    pub(super) fn of_statuses(stored: StatusCode, live: StatusCode) -> Self {
        let text = |status: StatusCode| status.as_str().to_owned();
        Self { at: "status".to_owned(), stored: text(stored), live: text(live) }
    }

    pub(super) fn of_fields(name: &HeaderName, stored: &[u8], live: &[u8]) -> Self {
        let text = |value: &[u8]| match value.len() {
            0 => "absent".to_owned(),
            length => format!("text of {length}"),
        };
        Self { at: format!("header {name}"), stored: text(stored), live: text(live) }
    }

    pub(super) fn of_bodies(stored: &[u8], live: &[u8]) -> Self {
        let text = |body: &[u8]| format!("{} bytes", body.len());
        Self { at: "body".to_owned(), stored: text(stored), live: text(live) }
    }

    pub(super) fn of_values(at: String, stored: Option<&Value>, live: Option<&Value>) -> Self {
        Self { at, stored: kind(stored), live: kind(live) }
    }
}

/// Returns the kind of a JSON value, and its length.
fn kind(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(_)) => "boolean".to_owned(),
        Some(Value::Number(_)) => "number".to_owned(),
        Some(Value::String(text)) => format!("string of {}", text.chars().count()),
        Some(Value::Array(items)) => format!("array of {}", items.len()),
        Some(Value::Object(members)) => format!("object of {}", members.len()),
    }
}

/// Formats differences for tests.
#[cfg(test)]
pub(super) fn shown(differences: &[Difference]) -> Vec<String> {
    let text = |it: &Difference| format!("{}: {}, now {}", it.at, it.stored, it.live);
    differences.iter().map(text).collect()
}

//! GraphQL responses: errors, cache hints, and the objects that a response holds.

use std::collections::BTreeSet;

use serde_json::Value;

/// The members that identify an object among those of its type, by preference.
const IDS: [&str; 2] = ["id", "_id"];

/// Maximum depth at which objects are searched. Deeper JSON has already been rejected.
const MAX_DEPTH: usize = 128;

/// Returns whether a response, or a response in a batch, has errors (GraphQL §7.1.2).
pub(crate) fn has_errors(document: &Value) -> bool {
    match document {
        Value::Array(batch) => batch.iter().any(has_errors),
        _ => match document.get("errors") {
            None | Some(Value::Null) => false,
            Some(Value::Array(errors)) => !errors.is_empty(),
            Some(_) => true,
        },
    }
}

/// The types and objects that responses name, by `__typename` and an identifier.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entities<'a> {
    /// The values of `__typename`.
    pub(crate) types: BTreeSet<&'a str>,
    /// Type and identifier of the objects that have both.
    pub(crate) objects: BTreeSet<(&'a str, String)>,
}

impl<'a> Entities<'a> {
    /// Returns the objects in the data of a response, or of each response in a batch.
    pub(crate) fn of(document: &'a Value) -> Self {
        let mut entities = Self::default();
        match document {
            Value::Array(batch) => batch.iter().for_each(|it| entities.add_data_of(it)),
            _ => entities.add_data_of(document),
        }
        entities
    }

    fn add_data_of(&mut self, response: &'a Value) {
        if let Some(data) = response.get("data") {
            self.add(data, 0);
        }
    }

    fn add(&mut self, value: &'a Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, depth + 1)),
            Value::Object(members) => {
                if let Some(Value::String(name)) = members.get("__typename") {
                    self.types.insert(name);
                    let id = IDS.iter().find_map(|id| identifier(members.get(*id)?));
                    self.objects.extend(id.map(|id| (&**name, id)));
                }
                members.values().for_each(|member| self.add(member, depth + 1));
            }
            _ => {}
        }
    }

    /// Returns the tags of the types: `type:Product`.
    pub(crate) fn type_tags(&self) -> impl Iterator<Item = String> {
        self.types.iter().map(|name| format!("type:{name}"))
    }

    /// Returns the tags of the objects: `Product:17`.
    pub(crate) fn object_tags(&self) -> impl Iterator<Item = String> {
        self.objects.iter().map(|(name, id)| format!("{name}:{id}"))
    }
}

fn identifier(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns whether a response says that none of its mutations had an effect: the request failed as
/// a whole, each root field failed, or no root field was executed.
///
/// Deeper errors prove nothing, nor does an error that made all data null: earlier fields may have
/// been executed (GraphQL §6.4.4).
pub(crate) fn has_no_effect(document: &Value) -> bool {
    if let Value::Array(batch) = document {
        return batch.iter().all(has_no_effect);
    }
    let data = document.get("data");
    if let Some(Value::Object(fields)) = data
        && fields.is_empty()
    {
        return true;
    }
    if !has_errors(document) {
        return false;
    }
    let depth = |error: &Value| error.get("path").and_then(Value::as_array).map_or(0, Vec::len);
    let errors = document.get("errors").and_then(Value::as_array);
    let depth = errors.into_iter().flatten().map(depth).max().unwrap_or(0);
    match data {
        None => true,
        Some(Value::Object(fields)) => fields.values().all(Value::is_null) && depth <= 1,
        Some(data) => data.is_null() && depth == 0,
    }
}

/// The cache hints in `extensions.cacheControl` of a response, as sent by servers with
/// `@cacheControl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheHints {
    /// The smallest `maxAge`, in seconds.
    pub(crate) max_age: Option<u32>,
    /// Whether any part is for one user only.
    pub(crate) is_private: bool,
}

impl CacheHints {
    /// Combines the hints in a response: those for its fields, and the one for the whole response.
    pub(crate) fn of(document: &Value) -> Self {
        let mut hints = Self::default();
        let Some(control) = document.get("extensions").and_then(|it| it.get("cacheControl")) else {
            return hints;
        };
        hints.add(control);
        control.get("hints").and_then(Value::as_array).into_iter().flatten().for_each(|hint| {
            hints.add(hint);
        });
        hints
    }

    fn add(&mut self, hint: &Value) {
        if let Some(max_age) = hint.get("maxAge").and_then(Value::as_f64) {
            let seconds = max_age.clamp(0.0, f64::from(i32::MAX));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let seconds = seconds as u32;
            self.max_age = Some(self.max_age.map_or(seconds, |known| known.min(seconds)));
        }
        let scope = hint.get("scope").and_then(Value::as_str);
        self.is_private |= scope.is_some_and(|scope| scope.eq_ignore_ascii_case("private"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_known_by_type_and_identifier_wherever_they_are() {
        let response = json!({
            "data": {
                "__typename": "Query",
                "products": [
                    { "__typename": "Product", "id": "7", "brand": { "__typename": "Brand", "id": 1 } },
                    { "__typename": "Product", "_id": "8" },
                    { "__typename": "Product", "id": null },
                    { "id": "9" },
                ],
            },
            "extensions": { "__typename": "No", "id": "1" },
        });
        let entities = Entities::of(&response);
        let types: Vec<_> = entities.type_tags().collect();
        assert_eq!(types, ["type:Brand", "type:Product", "type:Query"]);
        let objects: Vec<_> = entities.object_tags().collect();
        assert_eq!(objects, ["Brand:1", "Product:7", "Product:8"]);
        assert_eq!(Entities::of(&json!([{ "data": { "__typename": "A" } }])).types.len(), 1);
        assert_eq!(Entities::of(&json!("text")), Entities::default());
    }

    #[test]
    fn a_response_without_data_shows_no_effect() {
        for (response, expected) in [
            (json!({ "errors": [{}] }), true),
            (json!({ "errors": [{}], "data": null }), true),
            (json!({ "errors": [{}], "data": { "a": null } }), true),
            (json!({ "errors": [{}], "data": { "a": null, "b": 1 } }), false),
            (json!({ "errors": [{ "path": ["a"] }], "data": { "a": null } }), true),
            (json!({ "errors": [{ "path": ["a", "b"] }], "data": { "a": null } }), false),
            (json!({ "errors": [{ "path": ["b"] }], "data": null }), false),
            (json!({ "errors": [], "data": null }), false),
            (json!({ "data": { "a": null } }), false),
            (json!({ "data": {} }), true),
            (json!([{ "data": {} }, { "data": { "a": 1 } }]), false),
            (json!([{ "errors": [{}] }, { "data": { "a": 1 } }]), false),
            (json!([{ "errors": [{}] }]), true),
        ] {
            assert_eq!(has_no_effect(&response), expected, "{response}");
        }
    }

    #[test]
    fn the_least_hint_counts_for_the_whole() {
        let of =
            |control: Value| CacheHints::of(&json!({ "extensions": { "cacheControl": control } }));
        let hints = |max_age, is_private| CacheHints { max_age, is_private };
        assert_eq!(of(json!({ "version": 1, "hints": [] })), hints(None, false));
        let two = json!({ "hints": [{ "path": ["a"], "maxAge": 60 }, { "maxAge": 30.5 }] });
        assert_eq!(of(two), hints(Some(30), false));
        assert_eq!(of(json!({ "hints": [{ "scope": "PRIVATE" }] })), hints(None, true));
        assert_eq!(of(json!({ "maxAge": 10, "scope": "PUBLIC" })), hints(Some(10), false));
        assert_eq!(of(json!({ "maxAge": -1 })), hints(Some(0), false));
        assert_eq!(CacheHints::of(&json!({ "data": 1 })), hints(None, false));
    }
}

//! Parses the text into serde structs, and finds as many independent errors as possible.

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeInteger, DeString, DeTable, DeValue, Deserializer},
};

use super::{
    section::ConfigFile,
    shape::{DURATION, FILE, KeySpec, ValueShape},
};
use crate::config::{
    environment::{Environment, expand},
    report::Finding,
    suggest::{did_you_mean, listed, nearest},
};

/// Parses the text of a file. Invalid parts are left out of the result and added to `findings`.
/// Returns `None` if the text is not TOML.
pub(crate) fn read(
    source: &str,
    environment: Environment<'_>,
    findings: &mut Vec<Finding>,
) -> Option<ConfigFile> {
    let (mut document, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        findings.extend(errors.iter().map(syntax_error));
        return None;
    }
    ShapeChecker { environment, findings }.table(document.get_mut(), FILE, "");
    ConfigFile::deserialize(Deserializer::from(document))
        .map_err(|error| findings.push(syntax_error(&error)))
        .ok()
}

fn syntax_error(error: &toml::de::Error) -> Finding {
    Finding::error(error.span(), error.message())
}

/// Checks a document against the known keys, expands strings, and normalises short forms.
struct ShapeChecker<'a> {
    environment: Environment<'a>,
    findings: &'a mut Vec<Finding>,
}

impl ShapeChecker<'_> {
    /// Checks the entries of a table and removes invalid entries.
    fn table(&mut self, table: &mut DeTable<'_>, keys: &'static [KeySpec], path: &str) {
        retain(table, |name, value| {
            let given = name.get_ref();
            let Some(key) = keys.iter().find(|key| key.name == given) else {
                self.findings.push(unknown_key(name, keys, path));
                return false;
            };
            self.value(value, key.shape, &join(path, key.name))
        });
    }

    /// Returns whether a value has the given shape. Adds a finding if not, and expands its strings.
    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, shape: ValueShape, path: &str) -> bool {
        let span = value.span();
        match (shape, value.get_mut()) {
            (ValueShape::Text(_) | ValueShape::Ttl, DeValue::String(_)) => {
                return self.text(value, path);
            }
            (ValueShape::Ttl, DeValue::Table(times)) => {
                retain(times, |status, time| {
                    self.value(time, DURATION, &join(path, status.get_ref()))
                });
                return true;
            }
            (ValueShape::Texts | ValueShape::Warm, DeValue::String(_)) => {
                let keep = self.text(value, path);
                wrap_in_list(value);
                return keep;
            }
            (ValueShape::Texts | ValueShape::Warm, DeValue::Array(array)) => {
                return self.all(array, ValueShape::Text("a string"), path);
            }
            (ValueShape::Tables(keys), DeValue::Array(array)) => {
                return self.all(array, ValueShape::Table(keys), path);
            }
            (ValueShape::Flag | ValueShape::Warm, DeValue::Boolean(_)) => return true,
            (ValueShape::Count, DeValue::Integer(number)) if is_count(number) => return true,
            (ValueShape::Table(keys) | ValueShape::TableOrText(_, keys), DeValue::Table(table)) => {
                self.table(table, keys, path);
                return true;
            }
            (ValueShape::TableOrText(key, _), DeValue::String(_)) => {
                let keep = self.text(value, path);
                wrap_in_list(value);
                wrap_in_table(value, key);
                return keep;
            }
            (ValueShape::Named(keys), DeValue::Table(tables)) => {
                retain(tables, |name, value| {
                    self.value(value, ValueShape::Table(keys), &join(path, name.get_ref()))
                });
                return true;
            }
            (ValueShape::NamedDurations, DeValue::Table(durations)) => {
                retain(durations, |name, duration| {
                    self.value(duration, DURATION, &join(path, name.get_ref()))
                });
                return true;
            }
            (ValueShape::NamedTexts, DeValue::Table(lists)) => {
                retain(lists, |name, texts| {
                    self.value(texts, ValueShape::Texts, &join(path, name.get_ref()))
                });
                return true;
            }
            (ValueShape::Values, DeValue::Table(values)) => {
                retain(values, |name, value| self.scalars(value, &join(path, name.get_ref())));
                return true;
            }
            _ => {}
        }
        let found = described(value.get_ref());
        let message = format!("`{path}` must be {}, not {found}", shape.expected());
        self.findings.push(Finding::error(Some(span), message));
        false
    }

    /// Returns whether a value is a string, a number or a boolean, or a list of these.
    fn scalars(&mut self, value: &mut Spanned<DeValue<'_>>, path: &str) -> bool {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(_) => self.text(value, path),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => true,
            DeValue::Array(values) if values.iter().all(|value| is_scalar(value.get_ref())) => {
                let mut keep = true;
                for value in values.iter_mut() {
                    keep &= self.scalars(value, path);
                }
                keep
            }
            other => {
                let expected = "a string, a number, a boolean, or a list of these";
                let message = format!("`{path}` must be {expected}, not {}", described(other));
                self.findings.push(Finding::error(Some(span), message));
                false
            }
        }
    }

    /// Returns whether every element has the given shape.
    fn all(&mut self, array: &mut DeArray<'_>, shape: ValueShape, path: &str) -> bool {
        let mut keep = true;
        for element in array.iter_mut() {
            keep &= self.value(element, shape, path);
        }
        keep
    }

    /// Expands a string. Returns whether that succeeded.
    fn text(&mut self, value: &mut Spanned<DeValue<'_>>, path: &str) -> bool {
        let span = value.span();
        let DeValue::String(text) = value.get_mut() else {
            return false;
        };
        if !text.contains("${") {
            return true;
        }
        match expand(text, self.environment) {
            Ok(expanded) => {
                *text = expanded.into();
                true
            }
            Err(error) => {
                self.findings.push(Finding::error(Some(span), format!("`{path}`: {error}")));
                false
            }
        }
    }
}

/// Removes entries for which `keep` returns false.
fn retain<'a>(
    table: &mut DeTable<'a>,
    mut keep: impl FnMut(&Spanned<DeString<'a>>, &mut Spanned<DeValue<'a>>) -> bool,
) {
    for (name, mut value) in std::mem::take(table) {
        if keep(&name, &mut value) {
            table.insert(name, value);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn unknown_key(name: &Spanned<DeString<'_>>, keys: &[KeySpec], path: &str) -> Finding {
    let given = name.get_ref();
    let known = || keys.iter().map(|key| key.name);
    let help = did_you_mean(nearest(given, known()))
        .or_else(|| Some(format!("known keys: {}", listed(known()))));
    let location = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
    Finding::error(Some(name.span()), format!("unknown key `{given}`{location}")).maybe_help(help)
}

fn wrap_in_list(value: &mut Spanned<DeValue<'_>>) {
    let inner = value.clone();
    let mut array = DeArray::new();
    array.push(inner);
    *value.get_mut() = DeValue::Array(array);
}

fn wrap_in_table(value: &mut Spanned<DeValue<'_>>, key: &'static str) {
    let inner = value.clone();
    let mut table = DeTable::new();
    table.insert(Spanned::new(inner.span(), key.into()), inner);
    *value.get_mut() = DeValue::Table(table);
}

fn is_count(number: &DeInteger<'_>) -> bool {
    u32::from_str_radix(number.as_str(), number.radix()).is_ok()
}

fn is_scalar(value: &DeValue<'_>) -> bool {
    use DeValue::{Boolean, Float, Integer, String};
    matches!(value, String(_) | Integer(_) | Float(_) | Boolean(_))
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if is_count(number) => "a number",
        DeValue::Integer(number) if number.as_str().starts_with('-') => "a negative number",
        DeValue::Integer(_) => "too large a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fmt};

    use serde::de::{Error as _, Visitor};

    use super::*;
    use crate::config::file::{events, routing, schedules, section, shape, test, user, webhook};

    /// Records the fields of a struct when serde asks for them.
    struct Fields<'a>(&'a Cell<&'static [&'static str]>);

    #[derive(Debug)]
    struct Enough;

    impl fmt::Display for Enough {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }

    impl std::error::Error for Enough {}

    impl serde::de::Error for Enough {
        fn custom<T: fmt::Display>(_: T) -> Self {
            Self
        }
    }

    impl<'de> serde::Deserializer<'de> for Fields<'_> {
        type Error = Enough;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
            Err(Enough::custom(""))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Enough> {
            self.0.set(fields);
            Err(Enough)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
        let found = Cell::new([].as_slice());
        let _ = T::deserialize(Fields(&found));
        found.get()
    }

    #[test]
    fn the_known_keys_are_those_of_the_structs() {
        let pairs: [(&[KeySpec], &[&str]); 30] = [
            (shape::FILE, fields::<section::ConfigFile>()),
            (shape::TLS, fields::<section::TlsTable>()),
            (shape::ORIGIN, fields::<section::OriginTable>()),
            (shape::HEALTH, fields::<section::HealthTable>()),
            (shape::ORIGIN_TLS, fields::<section::OriginTlsTable>()),
            (shape::LIMITS, fields::<section::LimitsTable>()),
            (shape::ADMIN, fields::<section::AdminTable>()),
            (shape::TOKEN, fields::<section::TokenTable>()),
            (shape::STORE, fields::<section::StoreTable>()),
            (shape::STORE_TLS, fields::<section::StoreTlsTable>()),
            (shape::USER, fields::<user::UserTable>()),
            (shape::JWT, fields::<user::JwtTable>()),
            (shape::GATEWAY, fields::<user::GatewayTable>()),
            (shape::LOG, fields::<section::LogTable>()),
            (shape::DEFAULTS, fields::<routing::DefaultsTable>()),
            (shape::TIER, fields::<routing::TierTable>()),
            (shape::ROUTE, fields::<routing::RouteSection>()),
            (shape::QUERY, fields::<routing::QueryTable>()),
            (shape::VARY, fields::<routing::VaryTable>()),
            (shape::BYPASS, fields::<routing::BypassTable>()),
            (shape::COMPARE, fields::<routing::CompareTable>()),
            (shape::ON_WRITE, fields::<routing::OnWriteTable>()),
            (shape::ON_SUCCESS, fields::<routing::OnSuccessTable>()),
            (shape::SCHEDULE, fields::<schedules::ScheduleSection>()),
            (shape::POLL, fields::<schedules::PollSection>()),
            (shape::EVENTS, fields::<events::EventsTable>()),
            (shape::WEBHOOK, fields::<webhook::WebhookSection>()),
            (shape::WEBHOOK_RULE, fields::<webhook::WebhookRule>()),
            (shape::TEST, fields::<test::TestSection>()),
            (shape::TEST_RESPONSE, fields::<test::TestResponse>()),
        ];
        for (keys, fields) in pairs {
            let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
            assert_eq!(names, fields);
        }
    }

    /// Returns the documented file with its disabled keys (`#key = …`) enabled.
    fn documented() -> String {
        let file = include_str!("../../../proxy.toml");
        let enable = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|first: char| first.is_alphabetic() || first == '[') => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        };
        file.lines().map(enable).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_documented_file_names_every_key() {
        let documented = documented();
        let document = DeTable::parse(&documented).unwrap();
        let mut missing = Vec::new();
        missing_keys(&[document.get_ref()], FILE, "", &mut missing);
        assert_eq!(missing, [""; 0]);
    }

    fn missing_keys(
        tables: &[&DeTable<'_>],
        keys: &[KeySpec],
        path: &str,
        missing: &mut Vec<String>,
    ) {
        for key in keys {
            let path = join(path, key.name);
            let found: Vec<&DeValue<'_>> = tables
                .iter()
                .filter_map(|table| table.get(key.name).map(Spanned::get_ref))
                .collect();
            // Defaults and tiers have the same tables as routes, which are documented in full.
            let is_repeated = path.starts_with("defaults.") || path.starts_with("tier.");
            if found.is_empty() {
                missing.push(path);
            } else if !is_repeated
                && let ValueShape::Table(keys)
                | ValueShape::TableOrText(_, keys)
                | ValueShape::Tables(keys)
                | ValueShape::Named(keys) = key.shape
            {
                let is_named = matches!(key.shape, ValueShape::Named(_));
                let inner: Vec<_> =
                    found.into_iter().flat_map(|value| inner(value, is_named)).collect();
                missing_keys(&inner, keys, &path, missing);
            }
        }
    }

    fn inner<'a>(value: &'a DeValue<'a>, is_named: bool) -> Vec<&'a DeTable<'a>> {
        match value {
            DeValue::Table(table) if is_named => {
                table.values().filter_map(|value| value.get_ref().as_table()).collect()
            }
            DeValue::Table(table) => vec![table],
            DeValue::Array(array) => {
                array.iter().filter_map(|value| value.get_ref().as_table()).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_documented_file_reads_without_findings() {
        let environment = Environment {
            variable: &|_| Some("value".to_owned()),
            file: &|_| Ok("value".to_owned()),
        };
        for text in [documented(), include_str!("../../../proxy.toml").to_owned()] {
            let mut findings = Vec::new();
            assert!(read(&text, environment, &mut findings).is_some());
            assert_eq!(findings, []);
        }
    }
}

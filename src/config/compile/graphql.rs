//! Compilation of GraphQL routes: operations, registered documents, and what mutations purge.

use std::collections::BTreeMap;

use http::header;
use toml::Spanned;

use super::problems::Problems;
use crate::{
    config::{
        file::{Named, RouteSection, Text, Texts},
        report::Finding,
    },
    graphql::{RegisteredDocuments, RegistryError},
    policy::Ttl,
    route::{AddedVary, AnyTagTemplate, GraphqlRule, PurgeByResponse},
};

/// Compiles the GraphQL settings of a route; `None` without `graphql = true`. `tags` compiles the
/// tags that a mutation purges.
pub(super) fn rule(
    section: &RouteSection,
    problems: &mut Problems<'_>,
    mut tags: impl FnMut(&Texts, &mut Problems<'_>) -> Box<[AnyTagTemplate]>,
) -> Option<GraphqlRule> {
    if !section.graphql.as_ref().is_some_and(|flag| flag.value) {
        warn_about_unused(section, problems);
        return None;
    }
    let operations = section.operation.as_ref().map(|table| operations(&table.value, problems));
    let on_write = section.on_write.as_ref().map(|table| &table.value);
    let by_response = on_write.and_then(|table| table.purge_by_response.as_ref());
    let by_operation = on_write.and_then(|table| table.purge_by_operation.as_ref());
    let mut purge_by_operation = BTreeMap::new();
    for (name, texts) in by_operation.into_iter().flat_map(|table| &table.value) {
        let tags = tags(texts, problems);
        if let Some(name) = operation_name(name, problems) {
            purge_by_operation.insert(name, tags);
        }
    }
    let words = [
        ("types", PurgeByResponse::Types),
        ("objects", PurgeByResponse::Objects),
        ("nothing", PurgeByResponse::Nothing),
    ];
    Some(GraphqlRule {
        registered: section.documents.as_ref().and_then(|text| documents(text, problems)),
        operations,
        purge_by_response: problems.one_of(by_response, &words).unwrap_or_default(),
        purge_by_operation,
        ..GraphqlRule::default()
    })
}

/// Adds `Accept` to the request fields by which a GraphQL route separates responses. Servers choose
/// media types, error statuses and HTML pages by `Accept`, mostly without naming it in `Vary`.
pub(super) fn vary(rule: AddedVary, graphql: Option<&GraphqlRule>) -> AddedVary {
    if graphql.is_none() || rule.headers.contains(&header::ACCEPT) {
        return rule;
    }
    let headers = rule.headers.into_iter().chain([header::ACCEPT]).collect();
    AddedVary { headers, ..rule }
}

/// Compiles the lifetime of each operation; invalid entries are left out.
fn operations(table: &Named<Text>, problems: &mut Problems<'_>) -> BTreeMap<Box<str>, Ttl> {
    let mut operations = BTreeMap::new();
    for (name, text) in table {
        let time = problems.duration(Some(text));
        let name = match name.get_ref().as_str() {
            GraphqlRule::OTHERS => Some(GraphqlRule::OTHERS.into()),
            _ => operation_name(name, problems),
        };
        operations.extend(name.zip(time.map(Ttl::for_successes)));
    }
    operations
}

/// Checks the name of an operation (GraphQL §2.1.9).
fn operation_name(name: &Spanned<String>, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let text = name.get_ref();
    let is_start = |first: char| first.is_ascii_alphabetic() || first == '_';
    let is_name = text.starts_with(is_start)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        let message = "this is not the name of a GraphQL operation";
        let help = "use the name in the document, as in `query branchList { … }`, or `\"*\"` in \
                    `operation` for all others";
        problems.push(Finding::error(Some(name.span()), message).help(help));
        return None;
    }
    Some(text.as_str().into())
}

fn documents(text: &Text, problems: &mut Problems<'_>) -> Option<RegisteredDocuments> {
    let error = match RegisteredDocuments::parse(text.as_bytes()) {
        Ok(documents) => return Some(documents),
        Err(error) => error,
    };
    let finding = Finding::error(Some(text.span.clone()), format!("`documents`: {error}"));
    problems.push(match error {
        RegistryError::Json => {
            finding.help("to read a file, write `documents = \"${file:/path/to/documents.json}\"`")
        }
        RegistryError::Form | RegistryError::Document(..) => finding,
    });
    None
}

/// Warns about GraphQL settings on a route without `graphql = true`.
fn warn_about_unused(section: &RouteSection, problems: &mut Problems<'_>) {
    let on_write = section.on_write.as_ref().map(|table| &table.value);
    let by_response = on_write.and_then(|table| table.purge_by_response.as_ref());
    let by_operation = on_write.and_then(|table| table.purge_by_operation.as_ref());
    let keys = [
        ("operation", section.operation.as_ref().map(|table| &table.span)),
        ("documents", section.documents.as_ref().map(|text| &text.span)),
        ("on_write.purge_by_response", by_response.map(|text| &text.span)),
        ("on_write.purge_by_operation", by_operation.map(|table| &table.span)),
    ];
    for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        let message = format!("`{key}` has no effect without `graphql = true`");
        problems.push(Finding::warning(span.clone(), message));
    }
}

//! Compilation of a route's `key`: which requests with a body are reads.

use http::Method;

use super::problems::Problems;
use crate::{
    config::{
        file::{Located, RouteSection},
        report::Finding,
    },
    route::{ContentRule, Pattern},
};

/// Returns which requests with a body a route treats as reads, keyed by their body.
pub(super) fn rule(
    section: &Located<RouteSection>,
    pattern: &Pattern,
    problems: &mut Problems<'_>,
) -> ContentRule {
    let is_graphql = section.graphql.as_ref().is_some_and(|flag| flag.value);
    if let Some(key) = section.key.as_ref().filter(|_| is_graphql) {
        let message = "`key` cannot be combined with `graphql`, which reads the body itself";
        problems.push(Finding::error(Some(key.span.clone()), message).help("remove `key`"));
    }
    if is_graphql {
        return ContentRule::Graphql;
    }
    let words = [("json-body", ContentRule::Json), ("body", ContentRule::Bytes)];
    let Some(rule) = problems.one_of(section.key.as_ref(), &words) else {
        return ContentRule::default();
    };
    let Some(key) = &section.key else { return rule };
    let methods = pattern.methods();
    if !methods.is_empty() && !methods.iter().any(|method| reads(rule, method)) {
        let message = "`key` has no effect: only `POST` and `QUERY` are read by their body";
        problems.push(Finding::warning(key.span.clone(), message).help("add `POST` to `match`"));
    }
    let logs_out = section.on_success.as_ref().and_then(|table| table.logout) == Some(true);
    if logs_out {
        let message = "a logout changes something, but `key` makes `POST` a read";
        problems.push(Finding::error(Some(key.span.clone()), message).help("remove `key`"));
    }
    rule
}

/// Returns whether requests with this method can be reads that are keyed by their body.
pub(super) fn reads(rule: ContentRule, method: &Method) -> bool {
    *method == Method::QUERY || (*method == Method::POST && rule.reads_by_post())
}

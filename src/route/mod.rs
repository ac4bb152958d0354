//! Routes: which rule governs a request.
//!
//! The first route whose pattern matches wins. Nothing here allocates per request, but for the tags
//! of a response that is about to be stored.

pub mod condition;
pub mod pattern;
pub mod select;
pub mod tags;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

pub use condition::Bypass;
pub use pattern::{Params, Pattern, PatternError};
pub use select::{RouteTable, Selection};
pub use tags::{TagError, TagTemplate};

use crate::{key::target::QueryRule, policy::Rule};

/// What an operator says about the requests that match a pattern.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name in logs, metrics and tools; unique within a table.
    pub name: Arc<str>,
    /// The requests it governs; none for the route of what nothing else matches.
    pub pattern: Option<Pattern>,
    /// Its caching rule.
    pub rule: Rule,
    /// Which part of the query makes another target.
    pub query: QueryRule,
    /// What separates responses beyond the origin's own `Vary`.
    pub vary: VaryRule,
    /// Requests that skip the cache.
    pub bypass: Bypass,
    /// Labels of its stored responses.
    pub tags: Box<[TagTemplate]>,
    /// The `Cache-Control` that clients are sent in place of the origin's.
    pub client_cache: Option<HeaderValue>,
}

impl Route {
    /// The name of the route that governs what no pattern matches.
    pub const UNMATCHED: &str = "unmatched";

    /// The route of what no pattern matches, under this rule.
    pub fn unmatched(rule: Rule) -> Self {
        Self {
            name: Arc::from(Self::UNMATCHED),
            pattern: None,
            rule,
            query: QueryRule::default(),
            vary: VaryRule::default(),
            bypass: Bypass::default(),
            tags: Box::default(),
            client_cache: None,
        }
    }

    /// The tags of a response to the request with this normal path (see
    /// [`normal_path`](crate::key::target::normal_path)) and this query as sent; without duplicates.
    pub fn tags_of(&self, path: &str, query: Option<&str>) -> Vec<String> {
        if self.tags.is_empty() {
            return Vec::new();
        }
        let params = self.pattern.as_ref().and_then(|pattern| pattern.params(path));
        let params = params.unwrap_or_default();
        let mut tags = Vec::with_capacity(self.tags.len());
        for template in &self.tags {
            template.render(&params, query, &mut tags);
        }
        tags
    }
}

/// Request headers and cookies that select between variants even if the origin's `Vary` omits them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VaryRule {
    /// Header names.
    pub headers: Box<[HeaderName]>,
    /// Cookie names.
    pub cookies: Box<[Box<str>]>,
}

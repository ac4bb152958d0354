//! Routes: which rule governs a request.
//!
//! The first route whose pattern matches wins. Nothing here allocates per request, but for the tags
//! of a response that is about to be stored.

pub(crate) mod body_tags;
pub(crate) mod condition;
pub(crate) mod json_path;
pub(crate) mod pattern;
pub(crate) mod select;
pub(crate) mod tags;
pub(crate) mod target;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use serde_json_path::JsonPath;

pub use body_tags::BodyTagTemplate;
pub use condition::BypassRule;
pub use json_path::TagLimitExceeded;
pub(crate) use pattern::{Mismatch, Params, Pattern, PatternError};
pub(crate) use select::{Agreement, RouteTable, Selection};
pub(crate) use tags::{AnyTagTemplate, PlaceholderNames, TagError, TagTemplate, UserPlaceholder};
pub(crate) use target::{TargetError, TargetTemplate};

use crate::{
    key::uri::{PathForm, PathReadings, QueryRule, normal_path},
    policy::{CacheRule, invalidation::is_unsafe_method},
};
use body_tags::BodyValues;
use tags::PlaceholderValues;

/// What an operator says about the requests that match a pattern.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name in logs, metrics and tools; unique within a table.
    pub name: Arc<str>,
    /// The requests it governs; none for the route of what nothing else matches.
    pub pattern: Option<Pattern>,
    /// Its caching rule.
    pub rule: CacheRule,
    /// Which part of the query makes another target.
    pub query: QueryRule,
    /// What separates responses beyond the origin's own `Vary`.
    pub vary: VaryRule,
    /// Requests that skip the cache.
    pub bypass: BypassRule,
    /// Labels of its stored responses.
    pub tags: Box<[TagTemplate]>,
    /// Labels of its stored responses that their JSON tells.
    pub body_tags: Box<[BodyTagTemplate]>,
    /// A response whose JSON has a node at one of these is not stored.
    pub store_unless: Arc<[JsonPath]>,
    /// Labels of what a successful unsafe request makes invalid.
    pub purged_on_write: Box<[TagTemplate]>,
    /// Whether its writes make their own targets invalid (RFC 9111 §4.4).
    pub writes_invalidate: bool,
    /// Whether its writes make a target invalid for all users, where the target's route keeps them apart.
    pub writes_for_everyone: bool,
    /// Whether a success ends the login that it came with.
    pub logs_out: bool,
    /// The `Cache-Control` that clients are sent in place of the origin's.
    pub client_cache: Option<HeaderValue>,
    /// What a successful response has fetched ahead.
    pub warm_on_success: Box<[TargetTemplate]>,
}

impl Route {
    /// The name of the route that governs what no pattern matches.
    pub const UNMATCHED: &str = "unmatched";

    /// The route of what no pattern matches, under this rule.
    pub fn unmatched(rule: CacheRule) -> Self {
        Self {
            name: Arc::from(Self::UNMATCHED),
            pattern: None,
            rule,
            query: QueryRule::default(),
            vary: VaryRule::default(),
            bypass: BypassRule::default(),
            tags: Box::default(),
            body_tags: Box::default(),
            store_unless: Arc::default(),
            purged_on_write: Box::default(),
            client_cache: None,
            warm_on_success: Box::default(),
            writes_invalidate: true,
            writes_for_everyone: false,
            logs_out: false,
        }
    }

    /// Returns the tags of a response to the request with this path and this query as sent: those of
    /// every reading of the path; without duplicates. `user` is the name for `{user}`; tags with it are
    /// left out if there is none.
    pub fn tags_of(
        &self,
        path: &PathReadings<'_>,
        query: Option<&str>,
        user: Option<&str>,
    ) -> Vec<String> {
        self.render_tags(&self.tags, path, (query, user))
    }

    /// Returns the tags that the JSON of such a response has for it; without duplicates.
    pub fn body_tags_of(
        &self,
        path: &PathReadings<'_>,
        (query, user): (Option<&str>, Option<&str>),
        document: &Value,
    ) -> Result<Vec<String>, TagLimitExceeded> {
        let mut tags = Vec::new();
        for (form, reading) in path.each() {
            let values = PlaceholderValues { params: self.params((form, &reading)), query, user };
            let body_values = BodyValues { values, document };
            for template in &self.body_tags {
                template.render(&body_values, &mut tags)?;
            }
        }
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// Whether the JSON of its responses is read.
    pub fn reads_body(&self) -> bool {
        !self.body_tags.is_empty() || !self.store_unless.is_empty()
    }

    /// Whether the JSON of a response has what keeps it from being stored.
    pub fn forbids_storing(&self, document: &Value) -> bool {
        self.store_unless.iter().any(|path| !path.query(document).is_empty())
    }

    /// Returns the tags that a successful unsafe request with this path and this query as sent makes
    /// invalid; without duplicates. `user` as in [`tags_of`](Self::tags_of).
    pub fn purged_tags(
        &self,
        path: &PathReadings<'_>,
        query: Option<&str>,
        user: Option<&str>,
    ) -> Vec<String> {
        self.render_tags(&self.purged_on_write, path, (query, user))
    }

    /// Whether a request with this method, once it succeeds, ends the login that it came with: one that changes
    /// something, or one with a method that the pattern names.
    pub fn is_logout(&self, method: &Method) -> bool {
        let is_named = || self.pattern.as_ref().is_some_and(|it| it.methods().contains(method));
        self.logs_out && (is_unsafe_method(method) || is_named())
    }

    fn render_tags(
        &self,
        templates: &[TagTemplate],
        path: &PathReadings<'_>,
        (query, user): (Option<&str>, Option<&str>),
    ) -> Vec<String> {
        if templates.is_empty() {
            return Vec::new();
        }
        let mut tags = Vec::with_capacity(templates.len());
        for (form, reading) in path.each() {
            let values = PlaceholderValues { params: self.params((form, &reading)), query, user };
            for template in templates {
                template.render(&values, &mut tags);
            }
        }
        tags
    }

    fn params<'a>(&'a self, reading: (PathForm, &'a str)) -> Params<'a> {
        let params = self.pattern.as_ref().and_then(|pattern| pattern.params(reading));
        params.unwrap_or_default()
    }

    /// The targets (path and query) to be fetched ahead after a successful response to the request with
    /// this path and this query as sent; without duplicates.
    pub fn targets_to_warm(&self, path: &str, query: Option<&str>) -> Vec<String> {
        let path = normal_path(path);
        let params = self.params((PathForm::Sent, &path));
        let mut targets = Vec::with_capacity(self.warm_on_success.len());
        for template in &self.warm_on_success {
            template.render(&params, query, &mut targets);
        }
        targets
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

impl VaryRule {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty()
    }

    /// What of it belongs into `Vary`: its headers, and `Cookie` if it has cookies.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let cookie = (!self.cookies.is_empty()).then_some("Cookie");
        self.headers.iter().map(HeaderName::as_str).chain(cookie)
    }
}

//! Routes, which select the rule for each request.
//!
//! The first route that matches wins. Nothing here allocates per request, except for the tags of a
//! response that will be stored.

pub(crate) mod body_tags;
pub(crate) mod condition;
pub(crate) mod content;
pub(crate) mod graphql;
pub(crate) mod json_path;
pub(crate) mod pattern;
pub(crate) mod select;
pub(crate) mod tags;
pub(crate) mod target;
pub(crate) mod verification;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use serde_json_path::JsonPath;

pub(crate) use body_tags::{AnyTagTemplate, BodyTagTemplate};
pub(crate) use condition::BypassRule;
pub(crate) use content::{ContentForm, ContentRule, GraphqlMedia, NotKeyed};
pub(crate) use graphql::{GraphqlRule, PurgeByResponse};
pub(crate) use json_path::TagLimitExceeded;
pub(crate) use pattern::{Mismatch, Params, Pattern};
pub(crate) use select::{ReadingAgreement, RouteTable, Selection};
pub(crate) use tags::{PlaceholderNames, TagError, TagTemplate, UserPlaceholder};
pub(crate) use target::TargetTemplate;
pub(crate) use verification::{ComparisonRule, SampleRate, Verification};

use crate::{
    coding::ContentCoding,
    key::uri::{PathForm, PathReadings, QueryRule, normal_path},
    policy::{CacheRule, Partition, invalidation::is_unsafe_method},
};
use body_tags::BodyValues;
use tags::PlaceholderValues;

/// The settings for requests that match a pattern.
#[derive(Debug, Clone)]
pub struct Route {
    /// Name in logs, metrics and tools; unique within a table.
    pub name: Arc<str>,
    /// The requests that the route governs; `None` for the fallback route.
    pub pattern: Option<Pattern>,
    /// Caching rule.
    pub rule: CacheRule,
    /// The query parameters that are part of the key.
    pub query: QueryRule,
    /// The requests with content that are reads.
    pub content: ContentRule,
    /// Request fields that select a variant in addition to the origin's `Vary`.
    pub vary: AddedVary,
    /// Requests that skip the cache.
    pub bypass: BypassRule,
    /// Tags of stored responses, filled from the request.
    pub tags: Box<[TagTemplate]>,
    /// Tags of stored responses, filled from their JSON.
    pub body_tags: Box<[BodyTagTemplate]>,
    /// A response is not stored if one of these paths selects a node in its JSON.
    pub store_unless: Arc<[JsonPath]>,
    /// How GraphQL requests and responses are read; `None` if they are not GraphQL.
    pub graphql: Option<Arc<GraphqlRule>>,
    /// Tags that a successful unsafe request purges.
    pub purged_on_write: Box<[TagTemplate]>,
    /// Whether writes invalidate their own targets (RFC 9111 §4.4).
    pub writes_invalidate: bool,
    /// Whether writes invalidate a target for all users if its route is partitioned.
    pub writes_for_everyone: bool,
    /// Whether a successful response ends the session of its request.
    pub logs_out: bool,
    /// The `Cache-Control` that clients receive in place of the origin's.
    pub client_cache: Option<HeaderValue>,
    /// Content codings in which stored responses are sent, in order of preference. Empty if they are
    /// sent as stored.
    pub encode: Box<[ContentCoding]>,
    /// Targets that are prefetched after a successful response.
    pub warm_on_success: Box<[TargetTemplate]>,
    /// Whether the leak detector watches the route, if its responses are shared.
    pub leak_detection: LeakDetection,
    /// Whether the route may use the cache at present.
    pub quarantine: QuarantineState,
    /// Whether stored responses are compared with the origin's responses.
    pub verification: Verification,
    /// The parts of responses that comparisons ignore.
    pub comparison: ComparisonRule,
}

/// Whether the leak detector watches a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeakDetection {
    #[default]
    On,
    Off,
}

/// Whether a route may use the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuarantineState {
    #[default]
    Open,
    /// The route does not use the cache until an operator clears the quarantine.
    Quarantined,
    /// This node has not yet read which routes are quarantined, so requests that may identify their
    /// requester skip the cache.
    Unknown,
}

impl Route {
    /// Name of the route for requests that no pattern matches.
    pub const UNMATCHED: &str = "unmatched";

    /// Creates the route for requests that no pattern matches.
    pub fn unmatched(rule: CacheRule) -> Self {
        Self {
            name: Arc::from(Self::UNMATCHED),
            pattern: None,
            rule,
            query: QueryRule::default(),
            content: ContentRule::default(),
            vary: AddedVary::default(),
            bypass: BypassRule::default(),
            tags: Box::default(),
            body_tags: Box::default(),
            store_unless: Arc::default(),
            graphql: None,
            purged_on_write: Box::default(),
            client_cache: None,
            encode: Box::default(),
            warm_on_success: Box::default(),
            writes_invalidate: true,
            writes_for_everyone: false,
            logs_out: false,
            leak_detection: LeakDetection::On,
            quarantine: QuarantineState::Open,
            verification: Verification::default(),
            comparison: ComparisonRule::default(),
        }
    }

    /// Returns the distinct tags of a response to a request with this path and query, as sent.
    ///
    /// Parameters that `query` omits have their defaults. Includes the tags of every reading of the
    /// path. `user` fills `{user}`; tags with `{user}` are left out if it is `None`.
    pub fn tags_of(
        &self,
        path: &PathReadings<'_>,
        query: Option<&str>,
        user: Option<&str>,
    ) -> Vec<String> {
        self.render_tags(&self.tags, path, (query, user))
    }

    /// Returns the distinct tags that a response takes from its JSON, `document`.
    pub fn body_tags_of(
        &self,
        path: &PathReadings<'_>,
        (query, user): (Option<&str>, Option<&str>),
        document: &Value,
    ) -> Result<Vec<String>, TagLimitExceeded> {
        let mut tags = Vec::new();
        let query = self.query.values.with_defaults(query);
        for (form, reading) in path.each() {
            let (params, query) = (self.params((form, &reading)), query.as_deref());
            let values = PlaceholderValues { params, query, user };
            let body_values = BodyValues { values, document };
            for template in &self.body_tags {
                template.render(&body_values, &mut tags)?;
            }
        }
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    /// Returns whether the leak detector watches the route.
    pub fn is_watched(&self) -> bool {
        self.leak_detection == LeakDetection::On
            && self.verification != Verification::Shadow
            && self.shares_among_requesters()
    }

    /// Returns whether requesters with different credentials may share responses, although the
    /// origin receives their credentials.
    pub fn shares_among_requesters(&self) -> bool {
        let partition = &self.rule.partition;
        let is_shared =
            matches!(partition, Partition::None | Partition::Authenticated | Partition::Claims(_));
        self.rule.cache && is_shared
    }

    /// Returns the distinct tags that `templates` produce for a request and a JSON document.
    pub(crate) fn tags_with_json(
        &self,
        templates: &[AnyTagTemplate],
        (path, (query, user)): (&PathReadings<'_>, (Option<&str>, Option<&str>)),
        document: &Value,
    ) -> Result<Vec<String>, TagLimitExceeded> {
        let mut tags = Vec::new();
        for (form, reading) in path.each() {
            let values = PlaceholderValues { params: self.params((form, &reading)), query, user };
            let body_values = BodyValues { values, document };
            for template in templates {
                match template {
                    AnyTagTemplate::Request(template) => {
                        template.render(&body_values.values, &mut tags);
                    }
                    AnyTagTemplate::Body(template) => template.render(&body_values, &mut tags)?,
                }
            }
        }
        Ok(tags)
    }

    /// Returns whether the route needs the JSON of its responses.
    pub fn reads_body(&self) -> bool {
        !self.body_tags.is_empty() || !self.store_unless.is_empty() || self.graphql.is_some()
    }

    /// Returns whether stored responses are encoded for clients that accept a content coding.
    #[inline]
    pub fn encodes(&self) -> bool {
        !self.encode.is_empty()
    }

    /// Returns whether the JSON of a response forbids storing it.
    pub fn forbids_storing(&self, document: &Value) -> bool {
        self.store_unless.iter().any(|path| !path.query(document).is_empty())
    }

    /// Returns the distinct tags that a successful unsafe request with this path and query purges.
    /// Path and query are as sent; `user` is as in [`tags_of`](Self::tags_of).
    pub fn purged_tags(
        &self,
        path: &PathReadings<'_>,
        query: Option<&str>,
        user: Option<&str>,
    ) -> Vec<String> {
        self.render_tags(&self.purged_on_write, path, (query, user))
    }

    /// Returns whether a successful request with this method ends its session. True on a logout
    /// route for unsafe methods and for methods that the pattern names.
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
        let query = self.query.values.with_defaults(query);
        for (form, reading) in path.each() {
            let (params, query) = (self.params((form, &reading)), query.as_deref());
            let values = PlaceholderValues { params, query, user };
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

    /// Returns the distinct targets (path and query) to prefetch after a successful response. Path
    /// and query of the request are as sent.
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

/// Request headers and cookies that select a variant even if the origin's `Vary` omits them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddedVary {
    /// Header names.
    pub headers: Box<[HeaderName]>,
    /// Cookie names.
    pub cookies: Box<[Box<str>]>,
}

impl AddedVary {
    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty()
    }

    /// Returns the field names for `Vary`: the headers, and `Cookie` if there are cookies.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let cookie = (!self.cookies.is_empty()).then_some("Cookie");
        self.headers.iter().map(HeaderName::as_str).chain(cookie)
    }
}

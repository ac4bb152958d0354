//! A request, with all decisions that are made without the store.

use bytes::Bytes;
use http::{HeaderName, Request, header};
use http_body_util::Full;

use super::{
    explanation::{ExplainedReading, ExplainedRoute, RemovedField, RequestLine, UnmatchedRoute},
    input::ParsedRequest,
};
use crate::{
    field::{
        Timestamp,
        forwarding::{self, ForwardingKind},
        presence::FieldPresence,
    },
    key::uri::{PathForm, PathReadings, purge_url::CREDENTIAL_MARK},
    pipeline::{
        config_snapshot::ConfigSnapshot,
        content::ContentFields,
        credentials::{self, IdentityInputs, mask_credentials},
        graphql_request,
        ingress::Ingress,
        plan_content,
        receive::{self, LookupRequest, RequestAction},
        received_request::ReceivedRequest,
        request_context::RequestSafety,
    },
    policy::Reason,
    route::{Mismatch, ReadingAgreement, Route},
    server::Connection,
};

const HIDDEN: &str = "***";

/// A request, and the decisions that are made without the store.
pub(super) struct PlannedRequest<'a> {
    pub(super) config: &'a ConfigSnapshot,
    /// The request, with sanitized fields.
    pub(super) received: Request<Full<Bytes>>,
    /// The request without the credentials removed by its partition.
    pub(super) request: Request<Full<Bytes>>,
    pub(super) connection: &'a Connection,
    pub(super) presence: FieldPresence,
    now: Timestamp,
    pub(super) route: usize,
    pub(super) action: RequestAction,
    pub(super) safety: RequestSafety,
    removed: Vec<RemovedField>,
}

impl<'a> PlannedRequest<'a> {
    pub(super) fn of(
        config: &'a ConfigSnapshot,
        parsed: &'a ParsedRequest,
        now: Timestamp,
    ) -> Self {
        let (mut request, connection) = (parsed.request.clone(), &parsed.connection);
        let sent: Vec<HeaderName> = request.headers().keys().cloned().collect();
        let presence = receive::sanitize_fields(config, request.headers_mut(), connection);
        let is_gone = |name: &&HeaderName| !request.headers().contains_key(*name);
        let removed = |name| removed(config, name, connection);
        let removed = sent.iter().filter(is_gone).map(removed).collect();
        let arrival = (connection, now);
        let head = ReceivedRequest::of(&request);
        let (mut route, mut action) = receive::plan(config, &head, presence, arrival);
        let mut safety =
            RequestSafety::of(config.route(route), (request.method(), request.headers()));
        if let RequestAction::Pass(_) = action
            && let Some(class) = graphql_request::class_of(config.route(route), &head)
        {
            safety = RequestSafety::of_class(&class);
        }
        if let RequestAction::ReadContent(form) = action {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let fields = ContentFields::of(request.headers());
            let head = (&method, uri.query(), request.headers_mut());
            let sent = (parsed.content.clone(), None);
            let content = plan_content::interpret(config, (route, form), head, &fields, sent);
            let head = ReceivedRequest::of(&request).with_content(&content);
            if let Some(class) = &content.graphql {
                safety = RequestSafety::of_class(class);
            }
            (route, action) = receive::plan(config, &head, presence, arrival);
        }
        let mut planned = Self {
            config,
            received: request.clone(),
            request,
            connection,
            presence,
            now,
            route,
            action,
            safety,
            removed,
        };
        if planned.lookup().is_some() && !planned.is_shadow() {
            planned.make_anonymous();
        }
        planned
    }

    /// Removes the credentials that the partition ignores.
    fn make_anonymous(&mut self) {
        let (config, presence) = (self.config, self.presence);
        let (route, headers) = (config.route(self.route), self.request.headers_mut());
        credentials::make_anonymous(config, route, headers, presence);
        let sent = self.received.headers();
        for name in sent.keys().filter(|name| self.request.headers().get(*name) != sent.get(*name))
        {
            let why = "`partition = \"everyone\"` removes credentials and cookies";
            self.removed.push(RemovedField { name: name.to_string(), why });
        }
    }

    /// Returns the lookup if the cache is used, or would be used without shadow mode. Otherwise
    /// `None`.
    pub(super) fn lookup(&self) -> Option<&LookupRequest> {
        match &self.action {
            RequestAction::Lookup(lookup)
            | RequestAction::Refresh(lookup)
            | RequestAction::Shadow(lookup) => Some(lookup),
            _ => None,
        }
    }

    /// Returns whether the cache is only measured, so that the origin receives the request as sent.
    pub(super) fn is_shadow(&self) -> bool {
        matches!(self.action, RequestAction::Shadow(_))
    }

    pub(super) fn matched_route(&self) -> &Route {
        self.config.route(self.route)
    }

    pub(super) fn readings(&self) -> PathReadings<'_> {
        PathReadings::of(self.request.uri().path())
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    pub(super) fn identity_inputs(&self) -> IdentityInputs<'_> {
        IdentityInputs {
            query: self.query(),
            headers: self.received.headers(),
            presence: self.presence,
            peer: self.connection.peer.map(|peer| peer.ip().to_canonical()),
            now: self.now,
        }
    }

    pub(super) fn ingress(&self) -> Ingress<'_> {
        Ingress::of(self.config, self.request.headers(), self.connection)
    }

    /// Returns whether the request may be a write, which invalidates stored responses.
    pub(super) fn is_unsafe(&self) -> bool {
        let (route, method) = (self.matched_route(), self.request.method());
        self.safety.is_unsafe(route, method, self.presence)
    }

    /// Returns why the cache is not used; `None` if it is used.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.action.bypass_reason()
    }

    pub(super) fn request_line(&self) -> RequestLine {
        let scheme = if self.connection.secure { "https" } else { "http" };
        let host = self.request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let query = self.query().map(|query| format!("?{}", shown_query(self.config, query)));
        let path = self.request.uri().path();
        let url = format!("{scheme}://{host}{path}{}", query.unwrap_or_default());
        RequestLine { method: self.request.method().to_string(), url }
    }

    pub(super) fn removed(&self) -> Vec<RemovedField> {
        self.removed.clone()
    }

    // ── Route ──

    pub(super) fn route(&self) -> ExplainedRoute {
        let (routes, method) = (&self.config.routes, self.request.method());
        let (ingress, readings) = (self.ingress(), self.readings());
        let agreement = routes.select(method, &ingress.host, &readings).agreement;
        let no_match = |route: &Route| {
            let pattern = route.pattern.as_ref()?;
            let differs =
                pattern.mismatch(method, &ingress.host, (PathForm::Sent, readings.sent()))?;
            let (name, pattern) = (route.name.to_string(), pattern.to_string());
            Some(UnmatchedRoute { name, pattern, differs: differing(differs) })
        };
        let earlier = routes.routes().iter().take(self.route);
        let route = self.matched_route();
        ExplainedRoute {
            name: route.name.to_string(),
            pattern: route.pattern.as_ref().map(ToString::to_string),
            before: earlier.filter_map(|route| no_match(route)).collect(),
            readings: self.several_readings(&ingress.host),
            agree: agreement == ReadingAgreement::Unanimous,
        }
    }

    /// Returns the different readings of the path; empty if all servers agree.
    fn several_readings(&self, host: &str) -> Vec<ExplainedReading> {
        let readings = self.readings();
        if !matches!(readings, PathReadings::Ambiguous(_)) {
            return Vec::new();
        }
        let mut found: Vec<ExplainedReading> = Vec::new();
        for (place, (form, path)) in readings.each().enumerate() {
            let form = match (place, form) {
                (0, _) => "as sent",
                (_, PathForm::Sent) => "normal form",
                (_, PathForm::Once) => "decoded once",
                (_, PathForm::Twice) => "decoded twice",
                (_, PathForm::Loosest) => "loosest",
            };
            let route = self.route_of(place, host, &readings);
            found.push(ExplainedReading { form, path: path.into_owned(), route });
        }
        found
    }

    /// Returns the name of the route selected by a reading.
    fn route_of(&self, place: usize, host: &str, readings: &PathReadings<'_>) -> String {
        let method = self.request.method();
        let fits = |route: &&std::sync::Arc<Route>| {
            let reading = readings.each().nth(place);
            let pattern = route.pattern.as_ref();
            reading
                .zip(pattern)
                .is_some_and(|((form, path), pattern)| pattern.matches(method, host, (form, &path)))
        };
        let found = self.config.routes.routes().iter().find(fits);
        found.unwrap_or_else(|| self.config.routes.unmatched()).name.to_string()
    }
}

fn removed(config: &ConfigSnapshot, name: &HeaderName, connection: &Connection) -> RemovedField {
    let peer = connection.peer.map(|peer| peer.ip());
    let why = if config.users.is_spoofed(name, peer) {
        "only a gateway in `user.header.from` may set this"
    } else if ForwardingKind::of(name.as_str()).is_some() {
        "only a proxy in `trusted_proxies` may set this"
    } else if forwarding::is_underscore_alias(name.as_str()) {
        "some servers treat `_` as `-`, and then this header controls the request"
    } else {
        "listed in `Connection`: for this connection only"
    };
    RemovedField { name: name.to_string(), why }
}

const fn differing(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Method => "method",
        Mismatch::Host => "host",
        Mismatch::Path => "path",
    }
}

/// Formats a tag, with `{user}` in place of the user's name.
pub(super) fn without_user(tag: &str, user: Option<&str>) -> String {
    match user {
        Some(user) if !user.is_empty() => tag.replace(user, "{user}"),
        _ => tag.to_owned(),
    }
}

/// Formats a query, with masked credentials.
pub(super) fn shown_query(config: &ConfigSnapshot, query: &str) -> String {
    mask_credentials(query, &config.credentials, None)
        .map_or_else(|| query.to_owned(), |it| shown_key_query(&it))
}

/// Formats the query of a key.
pub(super) fn shown_key_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once(CREDENTIAL_MARK) {
        Some((name, _digest)) => format!("{name}{HIDDEN}"),
        None => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

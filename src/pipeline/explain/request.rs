//! A request as far as it is decided about without the store, and its route.

use bytes::Bytes;
use http::{HeaderName, Request, header};
use http_body_util::Full;

use super::{
    Question,
    found::{NoMatch, ReadingFound, Removed, RequestLine, RouteFound},
};
use crate::{
    field::{
        Timestamp,
        forwarding::{self, Forwarding},
        presence::Presence,
    },
    key::target::{Form, Readings, purge_url::MASK},
    pipeline::{
        credentials::{self, Asking, masked},
        receive::{self, Ingress, Lookup, Verdict},
        site::Site,
    },
    policy::Reason,
    route::{Agreement, Mismatch, Route},
    server::Connection,
};

/// What stands in the place of every credential.
const HIDDEN: &str = "***";

/// A request as far as it is decided about without the store, by the functions that serve.
pub(super) struct Planned<'a> {
    pub(super) site: &'a Site,
    /// The request, its fields settled.
    pub(super) asked: Request<Full<Bytes>>,
    /// The same without what its partition takes off.
    pub(super) request: Request<Full<Bytes>>,
    pub(super) connection: &'a Connection,
    pub(super) presence: Presence,
    now: Timestamp,
    pub(super) route: usize,
    pub(super) verdict: Verdict,
    removed: Vec<Removed>,
}

impl<'a> Planned<'a> {
    pub(super) fn of(site: &'a Site, question: &'a Question, now: Timestamp) -> Self {
        let (mut request, connection) = (question.request.clone(), &question.connection);
        let sent: Vec<HeaderName> = request.headers().keys().cloned().collect();
        let presence = receive::settle_fields(site, request.headers_mut(), connection);
        let is_gone = |name: &&HeaderName| !request.headers().contains_key(*name);
        let removed = |name| removed(site, name, connection);
        let removed = sent.iter().filter(is_gone).map(removed).collect();
        let (route, verdict) = receive::plan(site, &request, presence, (connection, now));
        let mut planned = Self {
            site,
            asked: request.clone(),
            request,
            connection,
            presence,
            now,
            route,
            verdict,
            removed,
        };
        if planned.lookup().is_some() {
            planned.make_anonymous();
        }
        planned
    }

    /// Takes off what the route's partition takes off.
    fn make_anonymous(&mut self) {
        let (site, presence) = (self.site, self.presence);
        let (route, headers) = (site.route(self.route), self.request.headers_mut());
        credentials::make_anonymous(site, route, headers, presence);
        let sent = self.asked.headers();
        for name in sent.keys().filter(|name| self.request.headers().get(*name) != sent.get(*name))
        {
            let why = "`partition = \"everyone\"` takes credentials and cookies off";
            self.removed.push(Removed { name: name.to_string(), why });
        }
    }

    /// The lookup, if the cache has a part in the request.
    pub(super) fn lookup(&self) -> Option<&Lookup> {
        match &self.verdict {
            Verdict::Lookup(lookup) | Verdict::Refresh(lookup) => Some(lookup),
            _ => None,
        }
    }

    pub(super) fn rule_route(&self) -> &Route {
        self.site.route(self.route)
    }

    pub(super) fn readings(&self) -> Readings<'_> {
        Readings::of(self.request.uri().path())
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.request.uri().query()
    }

    /// The request as it came, as far as it says who asks.
    pub(super) fn asking(&self) -> Asking<'_> {
        Asking {
            query: self.query(),
            headers: self.asked.headers(),
            presence: self.presence,
            peer: self.connection.peer.map(|peer| peer.ip().to_canonical()),
            now: self.now,
        }
    }

    pub(super) fn ingress(&self) -> Ingress<'_> {
        Ingress::of(self.site, self.request.headers(), self.connection)
    }

    /// Why the cache has no part in it, if it has none.
    pub(super) fn reason(&self) -> Option<Reason> {
        match &self.verdict {
            Verdict::Loop => Some(Reason::Loop),
            Verdict::Misdirected => Some(Reason::Misdirected),
            Verdict::Pass(reason) => Some(*reason),
            Verdict::Refresh(_) => Some(Reason::RuleBypass),
            Verdict::Lookup(_) => None,
        }
    }

    pub(super) fn request_line(&self) -> RequestLine {
        let scheme = if self.connection.secure { "https" } else { "http" };
        let host = self.request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let query = self.query().map(|query| format!("?{}", shown_query(self.site, query)));
        let path = self.request.uri().path();
        let url = format!("{scheme}://{host}{path}{}", query.unwrap_or_default());
        RequestLine { method: self.request.method().to_string(), url }
    }

    pub(super) fn removed(&self) -> Vec<Removed> {
        self.removed.clone()
    }

    // ── Route ──

    pub(super) fn route(&self) -> RouteFound {
        let (routes, method) = (&self.site.routes, self.request.method());
        let (ingress, readings) = (self.ingress(), self.readings());
        let agreement = routes.select(method, &ingress.host, &readings).agreement;
        let no_match = |route: &Route| {
            let pattern = route.pattern.as_ref()?;
            let differs = pattern.mismatch(method, &ingress.host, (Form::Sent, readings.sent()))?;
            let (name, pattern) = (route.name.to_string(), pattern.to_string());
            Some(NoMatch { name, pattern, differs: differing(differs) })
        };
        let earlier = routes.routes().iter().take(self.route);
        let route = self.rule_route();
        RouteFound {
            name: route.name.to_string(),
            pattern: route.pattern.as_ref().map(ToString::to_string),
            before: earlier.filter_map(|route| no_match(route)).collect(),
            readings: self.several_readings(&ingress.host),
            agree: agreement == Agreement::Unanimous,
        }
    }

    /// The readings of a path about which servers may disagree.
    fn several_readings(&self, host: &str) -> Vec<ReadingFound> {
        let readings = self.readings();
        if !matches!(readings, Readings::Several(_)) {
            return Vec::new();
        }
        let mut found: Vec<ReadingFound> = Vec::new();
        for (place, (form, path)) in readings.each().enumerate() {
            let form = match (place, form) {
                (0, _) => "as sent",
                (_, Form::Sent) => "normal form",
                (_, Form::Once) => "decoded once",
                (_, Form::Twice) => "decoded twice",
                (_, Form::Loosest) => "loosest",
            };
            let route = self.route_of(place, host, &readings);
            found.push(ReadingFound { form, path: path.into_owned(), route });
        }
        found
    }

    /// The name of the route that the reading at this place selects.
    fn route_of(&self, place: usize, host: &str, readings: &Readings<'_>) -> String {
        let method = self.request.method();
        let fits = |route: &&std::sync::Arc<Route>| {
            let reading = readings.each().nth(place);
            let pattern = route.pattern.as_ref();
            reading
                .zip(pattern)
                .is_some_and(|((form, path), pattern)| pattern.matches(method, host, (form, &path)))
        };
        let found = self.site.routes.routes().iter().find(fits);
        found.unwrap_or_else(|| self.site.routes.unmatched()).name.to_string()
    }
}

fn removed(site: &Site, name: &HeaderName, connection: &Connection) -> Removed {
    let peer = connection.peer.map(|peer| peer.ip());
    let why = if site.users.removes(name, peer) {
        "only a gateway in `user.header.from` may say this"
    } else if Forwarding::of(name.as_str()).is_some() {
        "only a proxy in `trusted_proxies` may say this"
    } else if forwarding::is_misspelt(name.as_str()) {
        "some servers take `_` for `-`, and this name for one that decides about the request"
    } else {
        "`Connection` lists it: it is for this connection only"
    };
    Removed { name: name.to_string(), why }
}

const fn differing(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Method => "method",
        Mismatch::Host => "host",
        Mismatch::Path => "path",
    }
}

/// A tag as it is shown: with `{user}` in the place of the user's name.
pub(super) fn without_user(tag: &str, user: Option<&str>) -> String {
    match user {
        Some(user) if !user.is_empty() => tag.replace(user, "{user}"),
        _ => tag.to_owned(),
    }
}

/// A query without the values of credentials.
pub(super) fn shown_query(site: &Site, query: &str) -> String {
    masked(query, &site.credentials, None)
        .map_or_else(|| query.to_owned(), |it| shown_key_query(&it))
}

/// The query of a key, or a masked one, as people read it.
pub(super) fn shown_key_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once(MASK) {
        Some((name, _digest)) => format!("{name}{HIDDEN}"),
        None => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

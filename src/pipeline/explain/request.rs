//! What is explained of a request before the store is asked: route, credentials, key, decisions.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, header};
use http_body_util::Full;

use super::{
    Question,
    found::{
        CredentialFound, Decision, IdentityFound, KeyFound, NoMatch, OriginFound, Outcome,
        PartitionFound, ReadingFound, Removed, RequestLine, RouteFound,
    },
};
use crate::{
    field::{
        Timestamp,
        cookie::{self, Form as CookieForm},
        forwarding::{self, Forwarding},
        identity::FieldKind,
        presence::Presence,
    },
    forward::{self, Source},
    key::{
        CacheKey, OriginTarget, Reach, digest,
        target::{Form, Readings, purge_url::MASK},
    },
    pipeline::{
        credentials::{self, Asking, masked},
        lookup,
        receive::{self, Ingress, Lookup, Verdict},
        site::Site,
    },
    policy::{
        Partition, Reason,
        credentials::{CookieKind, ParameterKind},
    },
    route::{Agreement, Mismatch, Route},
    server::Connection,
};

/// What stands in the place of every credential.
const HIDDEN: &str = "***";

/// A request as far as it is decided about without the store, by the functions that serve.
pub(super) struct Planned<'a> {
    pub(super) site: &'a Site,
    /// The request, its fields settled.
    asked: Request<Full<Bytes>>,
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
    fn reason(&self) -> Option<Reason> {
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

    // ── Who asks ──

    pub(super) fn credentials(&self) -> Vec<CredentialFound> {
        let mut found: Vec<CredentialFound> =
            self.asked.headers().keys().filter_map(|name| self.field(name)).collect();
        let settled = &self.rule_route().vary.cookies;
        for cookie in cookie::cookies(self.asked.headers()) {
            let kind = self.site.credentials.kind_on_route(cookie.name, settled);
            let is_clear = matches!(cookie.form, CookieForm::Plain | CookieForm::Loose);
            let name =
                if is_clear { String::from_utf8_lossy(cookie.name) } else { "(unclear)".into() };
            let (kind, why) = cookie_kind(kind, cookie.form, self.rule_route().rule.has_ttl());
            let (place, name, why) = ("cookie", name.into_owned(), why.to_owned());
            found.push(CredentialFound { place, name, kind, why });
        }
        found.extend(self.parameters());
        found
    }

    fn field(&self, name: &HeaderName) -> Option<CredentialFound> {
        let rules = &self.site.credentials;
        let is_listed = rules.fields.has(name.as_str().as_bytes());
        let (kind, why) = if self.site.users.reads(name) && *name != header::COOKIE {
            ("identity", "`[user]` says who asks by it")
        } else if *name == header::AUTHORIZATION {
            ("credential", "the standard field for credentials (RFC 9110 §11.6.2)")
        } else {
            match rules.field_kind(name.as_str())? {
                FieldKind::Credential if is_listed => ("credential", "`user.credentials` lists it"),
                FieldKind::Credential => {
                    ("credential", "a header of such a name carries a key, a token or a user")
                }
                FieldKind::Tenant if self.rule_route().vary.headers.contains(name) => {
                    ("separated", "the route's `vary.headers` keeps responses apart by it")
                }
                FieldKind::Tenant => ("credential", "it says on whose behalf the request is made"),
            }
        };
        let (place, name, why) = ("header", name.to_string(), why.to_owned());
        Some(CredentialFound { place, name, kind, why })
    }

    fn parameters(&self) -> Vec<CredentialFound> {
        let query = self.query().unwrap_or_default();
        let found = self.site.credentials.credential_parameters(query).map(|parameter| {
            let (kind, why) = match parameter.kind {
                ParameterKind::Secret => {
                    ("credential", "a parameter of such a name carries a key or a token; a digest of it is in the key")
                }
                ParameterKind::Signature => {
                    ("signature", "a signature expires: only what the origin itself makes fresh is stored")
                }
            };
            let name = parameter.name.split(';').next().unwrap_or_default().to_owned();
            CredentialFound { place: "parameter", name, kind, why: why.to_owned() }
        });
        found.collect()
    }

    pub(super) fn partition(&self) -> PartitionFound {
        let partition = &self.rule_route().rule.partition;
        PartitionFound {
            kind: partition.to_string(),
            means: partition_means(partition),
            identity: self.identity(),
        }
    }

    /// The user's name for itself, if what is stored is its own.
    pub(super) fn user(&self) -> Option<&str> {
        let is_own = self.rule_route().rule.partition == Partition::User;
        self.lookup()?.member.as_deref().filter(|_| is_own)?.user.as_deref()
    }

    /// What stands for the user's name in tags that are shown.
    pub(super) fn placeholder(&self) -> Option<&'static str> {
        self.user().map(|_| "{user}")
    }

    /// Who asks, as far as the partition depends on it; or why nobody is known.
    fn identity(&self) -> Option<IdentityFound> {
        let (users, partition) = (&self.site.users, &self.rule_route().rule.partition);
        if !partition.needs_identity() {
            return None;
        }
        let found = |made_of: String, issuer: &str, expires| IdentityFound {
            made_of,
            issuer: issuer.to_owned(),
            expires,
        };
        if !users.are_verified() {
            let made_of = match partition {
                Partition::User => {
                    "these exact credentials: all headers, cookies and parameters named above but harmless ones"
                }
                _ => "unknown: `[user]` says nothing about tokens",
            };
            return Some(found(made_of.to_owned(), "", None));
        }
        let asking = self.asking();
        match users.examine(partition, (asking.headers, asking.peer), asking.now) {
            Err(refusal) => Some(found(format!("unknown: {refusal}"), "", None)),
            Ok(member) => {
                let made_of = match partition {
                    Partition::User => "the user, and what its token is good for",
                    Partition::Claims(_) => "these claims, and what the token is good for",
                    _ => "the issuer, and what the token is good for",
                };
                let expires = member.expires.map(|end| end.seconds());
                Some(found(format!("{made_of} (values are not shown)"), &member.issuer, expires))
            }
        }
    }

    // ── Key ──

    pub(super) fn key(&self, selecting: &crate::key::vary::VarySet) -> Option<KeyFound> {
        let key = &self.lookup()?.target;
        let target = key.origin_target()?;
        let route = self.rule_route();
        let origin_host = (target.host != target.asked_host).then(|| match &*target.host {
            "" => "that of each origin".to_owned(),
            host => host.to_owned(),
        });
        let vary = &route.vary;
        let headers = selecting.iter().map(|name| name.to_string());
        let cookies = vary.cookies.iter().map(|name| format!("cookie {name}"));
        Some(KeyFound {
            method: target.method.to_string(),
            scheme: target.scheme.as_str(),
            host: target.asked_host.to_string(),
            origin_host,
            path: target.path.to_string(),
            query: target.query.as_deref().map(shown_key_query),
            left_out: self.left_out(route),
            forwarded: target.told.iter().map(|(name, _)| name.to_string()).collect(),
            cookies: self.selecting_cookies(key, route),
            vary: headers.chain(cookies).collect(),
            partition: (!target.partition.is_empty()).then(|| route.rule.partition.to_string()),
            only_here: (target.reach == Reach::Node)
                .then_some("without `user.digest_key` no other node can make this key"),
            id: self.key_id(key, selecting),
        })
    }

    /// A text that two requests have in common if, and only if, they share responses.
    fn key_id(&self, key: &CacheKey, selecting: &crate::key::vary::VarySet) -> String {
        let vary = &self.rule_route().vary;
        if selecting.is_empty() && vary.cookies.is_empty() {
            return digest::hex(key.digest().to_be_bytes());
        }
        let values = lookup::selecting(selecting, vary, self.request.headers());
        digest::hex(key.variant(&values).digest().to_be_bytes())
    }

    fn left_out(&self, route: &Route) -> Vec<String> {
        let pairs = self.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let names = pairs.map(|pair| pair.split('=').next().unwrap_or_default());
        let mut left_out: Vec<String> = Vec::new();
        for name in names.filter(|name| !name.contains(';') && !route.query.keeps(name)) {
            if !left_out.iter().any(|known| known == name) {
                left_out.push(name.to_owned());
            }
        }
        left_out
    }

    fn selecting_cookies(&self, key: &CacheKey, route: &Route) -> Vec<String> {
        if !crate::key::is_selected_by_cookies(key.text()) {
            return Vec::new();
        }
        let pairs =
            self.site.credentials.selecting_cookies(self.request.headers(), &route.vary.cookies);
        let name = |pair: &&[u8]| {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        pairs.iter().map(name).collect()
    }

    // ── Decisions ──

    pub(super) fn decisions(&self) -> Vec<Decision> {
        let reason = self.reason();
        let settled = reason.and_then(|reason| self.settled_by(reason));
        let mut decisions = Vec::new();
        for (place, step) in STEPS.iter().enumerate() {
            if Some(place) == settled {
                let reason = reason.map(Reason::as_str);
                decisions.push(Decision {
                    question: step.question,
                    answer: step.stops.to_owned(),
                    reason,
                });
                return decisions;
            }
            let answer = step.goes_on.to_owned();
            decisions.push(Decision { question: step.question, answer, reason: None });
        }
        decisions
    }

    /// The place of the step at which a request gets this reason.
    fn settled_by(&self, reason: Reason) -> Option<usize> {
        let is_overridden =
            reason == Reason::AmbiguousTarget && self.presence.has(Presence::OVERRIDE);
        let mut steps = STEPS.iter().enumerate().filter(|(_, step)| step.reasons.contains(&reason));
        match steps.next() {
            Some(_) if reason == Reason::AmbiguousTarget && !is_overridden => steps.next(),
            first => first,
        }
        .map(|(place, _)| place)
    }

    pub(super) fn outcome(&self) -> Outcome {
        let outcome = match &self.verdict {
            Verdict::Loop | Verdict::Misdirected => "refused",
            Verdict::Pass(_) => "pass",
            Verdict::Lookup(_) => "lookup",
            Verdict::Refresh(_) => "refresh",
        };
        let means = match (&self.verdict, self.reason()) {
            (Verdict::Lookup(_), _) | (_, None) => "The cache may answer it.".to_owned(),
            (Verdict::Refresh(_), _) => {
                "The cache is bypassed, and the origin's answer takes the place of what is stored."
                    .to_owned()
            }
            (_, Some(reason)) => reason.sentence().to_owned(),
        };
        let reason = self.reason();
        let advice = reason.and_then(super::advice::about);
        Outcome { outcome, reason: reason.map(Reason::as_str), means, advice }
    }

    // ── Origin ──

    pub(super) fn origin(&self) -> OriginFound {
        let headers = self.request.headers();
        let (method, uri) = (self.request.method(), self.request.uri());
        let key = self.lookup().map(|lookup| &lookup.target);
        let as_sent = || self.ingress().into_target(self.site, method, uri);
        let target = key.and_then(CacheKey::origin_target).unwrap_or_else(as_sent);
        let source = Source {
            peer: self.connection.peer.map(|peer| peer.ip()),
            version: self.request.version(),
            is_trusted: self.site.trusts(self.connection),
            known: None,
        };
        let sent = forward::request::headers(headers, &target, &source, &self.site.identity);
        OriginFound {
            asked: self.asked(method, &target),
            added: self.added(&sent),
            left_out: headers
                .keys()
                .filter(|name| !sent.contains_key(*name))
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn asked(&self, method: &Method, target: &OriginTarget<'_>) -> String {
        let query =
            target.query_to_send().map(|query| format!("?{}", shown_query(self.site, query)));
        let (path, query) = (&target.path, query.unwrap_or_default());
        let host = if target.host.is_empty() { "its own host" } else { &*target.host };
        format!("{method} {path}{query} at {host}")
    }

    /// The fields that the origin is sent and the client did not send so; only those that Larder writes.
    fn added(&self, sent: &HeaderMap) -> Vec<String> {
        let headers = self.request.headers();
        let is_new = |name: &&HeaderName| {
            **name != header::HOST && !headers.get_all(*name).iter().eq(sent.get_all(*name).iter())
        };
        let line = |name: &HeaderName| {
            let is_ours = *name == header::VIA
                || Forwarding::of(name.as_str()).is_some_and(|kind| kind != Forwarding::Identity);
            let values = sent.get_all(name).iter().filter_map(|value| value.to_str().ok());
            let values: Vec<&str> = values.collect();
            let is_ours = is_ours && !self.site.trusts(self.connection);
            if is_ours && *name != header::VIA {
                format!("{name}: {}", values.join(", "))
            } else {
                name.to_string()
            }
        };
        let mut names: Vec<&HeaderName> = sent.keys().filter(is_new).collect();
        names.sort_by_key(|name| name.as_str());
        names.into_iter().map(line).collect()
    }
}

/// A decision of [`receive::plan`], in its order.
struct Step {
    question: &'static str,
    /// The answer with which the next decision follows.
    goes_on: &'static str,
    /// The answer that settles what becomes of the request.
    stops: &'static str,
    reasons: &'static [Reason],
}

const fn step(
    question: &'static str,
    [goes_on, stops]: [&'static str; 2],
    reasons: &'static [Reason],
) -> Step {
    Step { question, goes_on, stops, reasons }
}

/// The decisions about a request before the store is asked. A test holds their order against the plan.
const STEPS: [Step; 11] = [
    step("Is its host served?", ["yes", "no"], &[Reason::Misdirected]),
    step("Has it been through this node before?", ["no", "yes"], &[Reason::Loop]),
    step("Is it a GET or HEAD without a body?", ["yes", "no"], &[Reason::MethodNotCacheable]),
    step("Does it ask for another protocol?", ["no", "yes"], &[Reason::Upgrade]),
    step("Does a header replace its method or target?", ["no", "yes"], &[Reason::AmbiguousTarget]),
    step(
        "Does it have a condition that only the origin may judge?",
        ["no", "yes"],
        &[Reason::Precondition],
    ),
    step("Does the route cache, and does no `bypass` apply?", ["yes", "no"], &[Reason::RuleBypass]),
    step(
        "Do all readings of its path select one route?",
        ["yes", "no"],
        &[Reason::AmbiguousTarget],
    ),
    step("Do servers read its cookies alike?", ["yes", "no"], &[Reason::AmbiguousCookie]),
    step(
        "Is it clear whose the response is?",
        ["yes", "no"],
        &[Reason::NoIdentity, Reason::UnverifiedToken],
    ),
    step(
        "Does it carry a credential that the partition is not made of?",
        ["no", "yes"],
        &[Reason::SecondCredential],
    ),
];

fn removed(name: &HeaderName) -> Removed {
    let why = if Forwarding::of(name.as_str()).is_some() {
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

fn cookie_kind(
    kind: Option<CookieKind>,
    form: CookieForm,
    by_ttl: bool,
) -> (&'static str, &'static str) {
    match (form, kind) {
        (CookieForm::OddName | CookieForm::Hidden, kind) if kind != Some(CookieKind::Harmless) => {
            ("unclear", "servers read it differently: the request is passed")
        }
        (_, None) => ("separated", "the route's `vary.cookies` keeps responses apart by it"),
        (_, Some(CookieKind::Session)) => {
            ("session", "a cookie of such a name is a session or a token")
        }
        (_, Some(CookieKind::Token)) => ("token", "`user.jwt` reads the token in it"),
        (_, Some(CookieKind::Harmless)) => {
            ("harmless", "analytics, consent or the like: counts for nothing")
        }
        (_, Some(CookieKind::Selecting)) if by_ttl => {
            ("selecting", "it chooses what is shown: each value has its own response")
        }
        (_, Some(CookieKind::Selecting)) => {
            ("selecting", "it chooses what is shown: the origin says in `Vary` if it counts")
        }
        (_, Some(CookieKind::Unknown)) => {
            ("unknown", "it may say who asks: only what the origin itself makes fresh is shared")
        }
    }
}

const fn partition_means(partition: &Partition) -> &'static str {
    match partition {
        Partition::None => {
            "requests without credentials share responses; others only what the origin says may be shared"
        }
        Partition::Everyone => {
            "all requests share responses; their credentials are taken off before the origin is asked"
        }
        Partition::Authenticated => {
            "all with a valid token of one issuer and the same rights share responses"
        }
        Partition::User => "each user has responses of their own",
        Partition::Claims(_) => {
            "all with the same values of these claims and the same rights share responses"
        }
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
fn shown_query(site: &Site, query: &str) -> String {
    masked(query, &site.credentials, None)
        .map_or_else(|| query.to_owned(), |it| shown_key_query(&it))
}

/// The query of a key, or a masked one, as people read it.
fn shown_key_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once(MASK) {
        Some((name, _digest)) => format!("{name}{HIDDEN}"),
        None => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

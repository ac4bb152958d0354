//! What a request says about who asks: found once, when it is received.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{cookies, sensitive, site::Site};
use crate::{
    field::{Timestamp, presence::Presence},
    key::{
        CacheKey, DigestKey, OriginTarget, Reach, digest,
        partition::{Part, of_identity, of_several},
        target::{Forwarding, QueryRule, purge_url},
    },
    planted::Bug,
    policy::{
        CredentialRules, Credentials, Partition, Reason,
        credentials::{CookieFindings, CookieKind},
    },
    route::Route,
    user::Member,
};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// A request, as far as it says who asks.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The query.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// Which of them there are.
    pub presence: Presence,
    /// The address of the connection's peer.
    pub peer: Option<IpAddr>,
    /// When the request came, by the system's clock.
    pub now: Timestamp,
}

impl<'a> Asking<'a> {
    /// A request from this peer that came at `now`.
    pub fn of(request: &'a Parts, peer: Option<IpAddr>, now: Timestamp) -> Self {
        let (query, headers) = (request.uri.query(), &request.headers);
        Self { query, headers, presence: Presence::of(headers), peer, now }
    }
}

/// Who asks, as far as the partition of a route needs it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The credentials that still count, beside those that the partition is made of.
    pub credentials: Credentials,
    /// The member of the partition that asks; none if the route does not tell members apart.
    pub member: Option<Arc<Member>>,
    partition: Part,
    reach: Reach,
    is_selecting: bool,
}

impl Identity {
    /// Finds out who asks, or why the request takes no part in the cache: its cookies are ambiguous, or its
    /// route needs an identity that it does not prove.
    ///
    /// Costs nothing for requests without credentials on routes without a partition.
    pub fn of(site: &Site, route: &Route, asking: &Asking<'_>) -> Result<Self, Reason> {
        match &route.rule.partition {
            Partition::None => Self::unpartitioned(site, route, asking),
            Partition::Everyone => Self::anyone(site, route, asking),
            partition if site.users.are_verified() => {
                Self::verified((site, route), partition, asking)
            }
            Partition::User => Self::exact(site, route, asking),
            Partition::Authenticated | Partition::Claims(_) => Err(Reason::NoIdentity),
        }
    }

    fn unpartitioned(site: &Site, route: &Route, asking: &Asking<'_>) -> Result<Self, Reason> {
        let rules = &site.credentials;
        let (headers, presence) = (asking.headers, asking.presence);
        let in_fields = rules.in_fields(headers, presence, &route.vary.headers, |_| false);
        let credentials = in_query(rules, &route.query, asking.query).with(in_fields);
        let findings = unambiguous_cookies(site, route, asking)?;
        Ok(Self {
            credentials: credentials.with(findings.credentials()),
            is_selecting: route.rule.has_ttl() && findings.are_selecting(),
            ..Self::anonymous()
        })
    }

    /// Of a resource that is for everyone only what stands in the query counts: the rest is
    /// [taken off](make_anonymous).
    fn anyone(site: &Site, route: &Route, asking: &Asking<'_>) -> Result<Self, Reason> {
        let findings = unambiguous_cookies(site, route, asking)?;
        Ok(Self {
            credentials: in_query(&site.credentials, &route.query, asking.query),
            is_selecting: route.rule.has_ttl() && findings.are_selecting(),
            ..Self::anonymous()
        })
    }

    /// One whose identity is verified, and who carries no second credential.
    fn verified(
        (site, route): (&Site, &Route),
        partition: &Partition,
        asking: &Asking<'_>,
    ) -> Result<Self, Reason> {
        let member = site.users.identify(partition, (asking.headers, asking.peer), asking.now)?;
        let (rules, separated) = (&site.credentials, &*route.vary.headers);
        let is_read = |name: &HeaderName| site.users.reads(name);
        let in_fields = rules.in_fields(asking.headers, asking.presence, separated, is_read);
        let findings = unambiguous_cookies(site, route, asking)?;
        let credentials = in_query(rules, &route.query, asking.query)
            .with(in_fields)
            .with(findings.credentials_beside_token());
        if credentials.has(SECOND) {
            return Err(Reason::SecondCredential);
        }
        let is_own = *partition == Partition::User;
        let mut part = if is_own { of_identity(&member.part) } else { of_several(&member.part) };
        if is_own && credentials.has(Credentials::UNKNOWN_COOKIE) {
            let is_unknown = |kind| kind == Some(CookieKind::Unknown);
            let cookies = rules.cookies_that(asking.headers, &route.vary.cookies, is_unknown);
            part.extend_from_slice(&site.users.digest(&cookies.join(&b';')));
        }
        Ok(Self {
            credentials: if is_own {
                credentials.without(Credentials::UNKNOWN_COOKIE)
            } else {
                credentials
            },
            member: Some(member),
            partition: part,
            is_selecting: findings.are_selecting() && (is_own || route.rule.has_ttl()),
            ..Self::anonymous()
        })
    }

    /// One who is known by exact credentials: all fields and cookies that may say who asks, harmless ones
    /// aside, and those of the query.
    fn exact(site: &Site, route: &Route, asking: &Asking<'_>) -> Result<Self, Reason> {
        let (rules, separated) = (&site.credentials, &*route.vary.headers);
        let in_fields = rules.in_fields(asking.headers, asking.presence, separated, |_| false);
        let findings = unambiguous_cookies(site, route, asking)?;
        let credentials = in_query(rules, &route.query, asking.query)
            .with(in_fields)
            .with(findings.credentials());
        if !credentials.has(SECOND.with(Credentials::AUTHORIZATION)) {
            return Err(Reason::NoIdentity);
        }
        let part = site.digests.key.digest(&exact_credentials(site, route, asking));
        let member = Member { part, ..login(site, asking) };
        Ok(Self {
            credentials: credentials.only(Credentials::SIGNATURE.with(Credentials::PARAMETER)),
            partition: of_identity(&part),
            member: Some(Arc::new(member)),
            reach: site.digests.reach,
            is_selecting: false,
        })
    }

    /// Nobody in particular.
    fn anonymous() -> Self {
        Self {
            credentials: Credentials::NONE,
            member: None,
            partition: Part::new(),
            reach: Reach::Fleet,
            is_selecting: false,
        }
    }

    /// The key of a target that this one asks for: the cookies that choose what is shown are part of it
    /// where they count.
    pub fn key<'a>(
        &'a self,
        (site, route): (&Site, &Route),
        headers: &HeaderMap,
        mut target: OriginTarget<'a>,
    ) -> CacheKey {
        if route.rule.sensitive {
            target.partition = Cow::Owned(sensitive::partition(site, &self.partition).to_vec());
        } else if !self.partition.is_empty() && !Bug::KeyWithoutPartition.is_planted() {
            target.partition = Cow::Borrowed(&self.partition);
        }
        if self.reach == Reach::Node || route.rule.sensitive {
            target.reach = Reach::Node;
        }
        let key = target.key();
        if !self.is_selecting {
            return key;
        }
        let cookies = site.credentials.selecting_cookies(headers, &route.vary.cookies);
        key.selected_by(|out| out.extend_from_slice(&cookies.join(&b';')))
    }
}

/// Credentials of which none may stand beside the one that an identity is made of.
const SECOND: Credentials = Credentials::AUTHORIZATION
    .with(Credentials::FIELD)
    .with(Credentials::SESSION_COOKIE)
    .with(Credentials::PARAMETER);

/// All that says who asks on a route: its credentials, and every cookie that is not harmless.
fn exact_credentials(site: &Site, route: &Route, asking: &Asking<'_>) -> Vec<u8> {
    let (rules, headers) = (&site.credentials, asking.headers);
    let mut pieces = credential_fields(rules, headers, &route.vary.headers);
    let counts = |kind: Option<CookieKind>| kind.is_some_and(|kind| kind != CookieKind::Harmless);
    let cookies = rules.cookies_that(headers, &route.vary.cookies, counts);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    pieces.extend(credential_parameters(rules, asking.query));
    written(pieces)
}

/// A member by the credentials that a login gives out, on whatever route: `Authorization`, fields and session
/// cookies. What is stored under them belongs to them, and a logout with them ends it.
fn login(site: &Site, asking: &Asking<'_>) -> Member {
    login_of(site, login_pieces(site, asking))
}

/// The credentials that a login gives out; if there are none, the keys and tokens of the query.
pub fn login_pieces<'a>(site: &Site, asking: &Asking<'a>) -> Pieces<'a> {
    let (rules, headers) = (&site.credentials, asking.headers);
    let mut pieces = credential_fields(rules, headers, &[]);
    let is_session = |kind| matches!(kind, Some(CookieKind::Session | CookieKind::Token));
    let cookies = rules.cookies_that(headers, &[], is_session);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    if pieces.is_empty() {
        pieces.extend(credential_parameters(rules, asking.query));
    }
    pieces
}

/// A member by these credentials.
pub fn login_of(site: &Site, pieces: Pieces<'_>) -> Member {
    let digest = site.digests.key.digest(&written(pieces));
    Member {
        part: digest,
        owner: Some(digest::hex(digest).into()),
        user: None,
        issuer: Box::default(),
        credential: u128::from_be_bytes(digest),
        expires: None,
    }
}

/// Names and values that say who asks.
pub type Pieces<'a> = Vec<(&'a [u8], &'a [u8])>;

fn credential_fields<'a>(
    rules: &CredentialRules,
    headers: &'a HeaderMap,
    separated: &[HeaderName],
) -> Pieces<'a> {
    let fields = headers.iter().filter(|(name, _)| {
        **name == header::AUTHORIZATION || rules.is_credential(name, separated)
    });
    fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect()
}

fn credential_parameters<'a>(
    rules: &CredentialRules,
    query: Option<&'a str>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let query = query.unwrap_or_default();
    let pairs: Vec<&str> = query.split('&').collect();
    let pair = move |place: usize| Some((&b"query"[..], pairs.get(place)?.as_bytes()));
    rules.credential_parameters(query).filter_map(move |secret| pair(secret.place))
}

/// Pieces in one order, each after its length, so that no two lists are written alike. The lines of one field
/// keep theirs: servers take the first or the last.
fn written(mut pieces: Pieces<'_>) -> Vec<u8> {
    pieces.sort_by_key(|(name, _)| *name);
    let mut bytes = Vec::with_capacity(256);
    for piece in pieces.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The user on whose behalf a request changes something, whatever its route keeps apart.
pub fn writer(site: &Site, asking: &Asking<'_>) -> Option<Arc<Member>> {
    if site.users.are_verified() {
        let request = (asking.headers, asking.peer);
        return site.users.identify(&Partition::User, request, asking.now).ok();
    }
    let has_any = asking.presence.has(WITH_LOGIN) || !site.credentials.fields.is_empty();
    has_any.then(|| Arc::new(login(site, asking)))
}

/// The holder of the credentials that a request carries, whatever its route keeps apart.
pub fn holder(site: &Site, asking: &Asking<'_>) -> Option<Arc<Member>> {
    let request = (asking.headers, asking.peer);
    writer(site, asking).or_else(|| site.users.identify_loosely(request, asking.now))
}

/// Where credentials that a login gives out may be.
const WITH_LOGIN: Presence =
    Presence::AUTHORIZATION.with(Presence::IDENTITY).with(Presence::COOKIE);

/// By whom purges select what a request changes on a route: the owner of the partition that it takes part in.
/// None if the route does not tell users apart, or if the user is unknown: then the write is for all.
pub fn owner(site: &Site, route: &Route, asking: &Asking<'_>) -> Option<Arc<str>> {
    if !matches!(route.rule.partition, Partition::User | Partition::Claims(_)) {
        return None;
    }
    Identity::of(site, route, asking).ok()?.member?.owner.clone()
}

/// Takes off a request what says who asks, if its route is for everyone: its credential fields, and all
/// cookies but those that choose what is shown. Credentials in the query stay; they are part of the key.
pub fn make_anonymous(site: &Site, route: &Route, headers: &mut HeaderMap, presence: Presence) {
    if route.rule.partition != Partition::Everyone {
        return;
    }
    let rules = &site.credentials;
    let may_have_fields = presence.has(Presence::AUTHORIZATION.with(Presence::IDENTITY));
    if may_have_fields || !rules.fields.is_empty() {
        let is_credential = |name: &&HeaderName| {
            **name == header::AUTHORIZATION || rules.is_credential(name, &route.vary.headers)
        };
        let credentials: Vec<HeaderName> = headers.keys().filter(is_credential).cloned().collect();
        for name in credentials {
            headers.remove(name);
        }
    }
    if presence.has(Presence::COOKIE) {
        keep_selecting_cookies(rules, route, headers);
    }
}

/// Takes off an answer what is for one client alone, if its route is for everyone.
pub fn make_answer_anonymous(route: &Route, headers: &mut HeaderMap) {
    if route.rule.partition == Partition::Everyone && !Bug::CookieForEveryone.is_planted() {
        headers.remove(header::SET_COOKIE);
        headers.remove(CLEAR_SITE_DATA);
    }
}

/// Whether the partition of a route is made of what stands in a request field, so that a `Vary` on it is
/// satisfied by the partition.
pub fn is_partitioned_by(site: &Site, route: &Route, field: &HeaderName) -> bool {
    let are_verified = site.users.are_verified();
    let is_read = || {
        if are_verified {
            return site.users.reads(field);
        }
        *field == header::AUTHORIZATION
            || site.credentials.is_credential(field, &route.vary.headers)
    };
    match &route.rule.partition {
        Partition::None | Partition::Everyone => false,
        // All cookies that count are in the key, or the request passes.
        Partition::User => *field == header::COOKIE || is_read(),
        Partition::Authenticated | Partition::Claims(_) => is_read(),
    }
}

fn keep_selecting_cookies(rules: &CredentialRules, route: &Route, headers: &mut HeaderMap) {
    let is_kept = |kind: Option<CookieKind>| matches!(kind, None | Some(CookieKind::Selecting));
    let kept = rules.cookies_that(headers, &route.vary.cookies, is_kept).join(&b"; "[..]);
    match HeaderValue::from_bytes(&kept) {
        Ok(value) if !kept.is_empty() => headers.insert(header::COOKIE, value),
        _ => headers.remove(header::COOKIE),
    };
}

/// What the cookies of a request come to. Refuses those that servers may read differently.
fn unambiguous_cookies(
    site: &Site,
    route: &Route,
    asking: &Asking<'_>,
) -> Result<CookieFindings, Reason> {
    if !asking.presence.has(Presence::COOKIE) {
        return Ok(CookieFindings::default());
    }
    let findings = cookies::read(site, route, asking.headers);
    let counts = route.rule.has_ttl() || route.rule.partition.needs_identity();
    if findings.are_ambiguous(counts) { Err(Reason::AmbiguousCookie) } else { Ok(findings) }
}

/// What a query carries. A credential that reaches the origin and is not in the key separates nothing by
/// itself: it counts as one in a field.
fn in_query(rules: &CredentialRules, rule: &QueryRule, query: Option<&str>) -> Credentials {
    let found = rules.in_query(query);
    if !found.has(Credentials::PARAMETER) || rule.forwarding == Forwarding::Kept {
        return found;
    }
    let count = |query: &str| rules.credential_parameters(query).count();
    let kept = query.and_then(|query| rule.kept(query));
    let are_keyed = kept.as_deref().map(count) == query.map(count);
    if are_keyed { found } else { found.with(Credentials::FIELD) }
}

/// The query with a digest in place of each credential; `None` if it has none. Without a key there is no
/// digest either: that is the form of all of them.
pub fn masked(query: &str, rules: &CredentialRules, key: Option<&DigestKey>) -> Option<String> {
    let mut secrets = rules.credential_parameters(query).peekable();
    secrets.peek()?;
    let mut masked = String::with_capacity(query.len() + 32);
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            masked.push('&');
        }
        let Some(secret) = secrets.next_if(|secret| secret.place == place) else {
            masked.push_str(pair);
            continue;
        };
        masked.push_str(secret.name);
        masked.push('=');
        masked.push(purge_url::MASK);
        if let Some(key) = key {
            masked.push_str(&digest::hex(key.digest(pair.as_bytes())));
        }
    }
    Some(masked)
}

/// The query of a target in the form by which purges select it: as far as its route keeps it, and without
/// credentials.
pub fn purge_query<'a>(site: &Site, route: &Route, query: Option<&'a str>) -> Option<Cow<'a, str>> {
    let kept = route.query.kept(query?)?;
    Some(masked(&kept, &site.credentials, None).map_or(kept, Cow::Owned))
}

/// The rules by which cookies choose among the responses of a route, if they do.
pub fn selecting_rules<'a>(site: &'a Site, route: &Route) -> Option<&'a CredentialRules> {
    route.rule.has_ttl().then_some(&site.credentials)
}

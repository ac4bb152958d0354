//! Identifies the requester by credentials and partition member. This is done once per request.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{config_snapshot::ConfigSnapshot, cookies, sensitive};
use crate::{
    field::{Timestamp, presence::FieldPresence},
    key::{
        CacheKey, DigestKey, OriginTarget, StoragePlacement, digest,
        partition::{PartitionKey, of_identity, of_several},
        uri::{QueryForwarding, QueryRule, purge_url},
    },
    policy::{
        CredentialRules, Credentials, Partition, Reason,
        credentials::{CookieFindings, CookieKind},
    },
    purge::planted::PlantedBug,
    route::Route,
    user::PartitionMember,
};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// The parts of a request that may identify the requester.
#[derive(Clone, Copy)]
pub(super) struct IdentityInputs<'a> {
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Which header fields are present.
    pub presence: FieldPresence,
    /// The address of the connection's peer.
    pub peer: Option<IpAddr>,
    /// When the request arrived, by the wall clock.
    pub now: Timestamp,
}

impl<'a> IdentityInputs<'a> {
    /// Returns the inputs of a request from this peer that arrived at `now`.
    pub(super) fn of(request: &'a Parts, peer: Option<IpAddr>, now: Timestamp) -> Self {
        let (query, headers) = (request.uri.query(), &request.headers);
        Self { query, headers, presence: FieldPresence::of(headers), peer, now }
    }
}

/// The requester's credentials and partition, to the extent that the route needs them.
#[derive(Debug, Clone)]
pub(super) struct RequestIdentity {
    /// Credentials that are not part of the partition, but restrict caching.
    pub credentials: Credentials,
    /// The requesting member of the partition; `None` if the route has no members.
    pub member: Option<Arc<PartitionMember>>,
    partition: PartitionKey,
    storage_placement: StoragePlacement,
    is_selecting: bool,
}

impl RequestIdentity {
    /// Identifies the requester, or returns why the cache is bypassed: the cookies are ambiguous,
    /// or the request lacks an identity that the route needs.
    ///
    /// Costs nothing for requests without credentials on routes without a partition.
    pub(super) fn of(
        config: &ConfigSnapshot,
        route: &Route,
        inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        match &route.rule.partition {
            Partition::None => Self::unpartitioned(config, route, inputs),
            Partition::Everyone => Self::anyone(config, route, inputs),
            partition if config.users.is_configured() => {
                Self::verified((config, route), partition, inputs)
            }
            Partition::User => Self::exact(config, route, inputs),
            Partition::Authenticated | Partition::Claims(_) => Err(Reason::NoIdentity),
        }
    }

    fn unpartitioned(
        config: &ConfigSnapshot,
        route: &Route,
        inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let rules = &config.credentials;
        let (headers, presence) = (inputs.headers, inputs.presence);
        let in_fields =
            rules.credentials_in_fields(headers, presence, &route.vary.headers, |_| false);
        let credentials = in_query(rules, &route.query, inputs.query).with(in_fields);
        let findings = unambiguous_cookies(config, route, inputs)?;
        Ok(Self {
            credentials: credentials.with(findings.credentials()),
            is_selecting: route.rule.has_ttl() && findings.has_selecting(),
            ..Self::anonymous()
        })
    }

    /// Identifies a requester of a public resource by the credentials in the query. All other
    /// credentials are [removed](make_anonymous).
    fn anyone(
        config: &ConfigSnapshot,
        route: &Route,
        inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let findings = unambiguous_cookies(config, route, inputs)?;
        Ok(Self {
            credentials: in_query(&config.credentials, &route.query, inputs.query),
            is_selecting: route.rule.has_ttl() && findings.has_selecting(),
            ..Self::anonymous()
        })
    }

    /// Identifies a requester who has a verified identity and no second credential.
    fn verified(
        (config, route): (&ConfigSnapshot, &Route),
        partition: &Partition,
        inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let member = config.users.identify(partition, (inputs.headers, inputs.peer), inputs.now)?;
        let (rules, separated) = (&config.credentials, &*route.vary.headers);
        let is_read = |name: &HeaderName| config.users.uses_field(name);
        let in_fields =
            rules.credentials_in_fields(inputs.headers, inputs.presence, separated, is_read);
        let findings = unambiguous_cookies(config, route, inputs)?;
        let credentials = in_query(rules, &route.query, inputs.query)
            .with(in_fields)
            .with(findings.credentials_without_token());
        if credentials.has(SECOND) {
            return Err(Reason::SecondCredential);
        }
        let is_own = *partition == Partition::User;
        let mut part = if is_own {
            of_identity(&member.partition_digest)
        } else {
            of_several(&member.partition_digest)
        };
        if is_own && credentials.has(Credentials::UNKNOWN_COOKIE) {
            let is_unknown = |kind| kind == Some(CookieKind::Unknown);
            let cookies = rules.cookies_of_kind(inputs.headers, &route.vary.cookies, is_unknown);
            part.extend_from_slice(&config.users.digest(&cookies.join(&b';')));
        }
        Ok(Self {
            credentials: if is_own {
                credentials.without(Credentials::UNKNOWN_COOKIE)
            } else {
                credentials
            },
            member: Some(member),
            partition: part,
            is_selecting: findings.has_selecting() && (is_own || route.rule.has_ttl()),
            ..Self::anonymous()
        })
    }

    /// Identifies a requester by exact credentials: fields, query parameters, and cookies that are
    /// not harmless.
    fn exact(
        config: &ConfigSnapshot,
        route: &Route,
        inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let (rules, separated) = (&config.credentials, &*route.vary.headers);
        let in_fields =
            rules.credentials_in_fields(inputs.headers, inputs.presence, separated, |_| false);
        let findings = unambiguous_cookies(config, route, inputs)?;
        let credentials = in_query(rules, &route.query, inputs.query)
            .with(in_fields)
            .with(findings.credentials());
        if !credentials.has(SECOND.with(Credentials::AUTHORIZATION)) {
            return Err(Reason::NoIdentity);
        }
        let part = config.digests.key.digest(&exact_credentials(config, route, inputs));
        let member = PartitionMember { partition_digest: part, ..login_member(config, inputs) };
        Ok(Self {
            credentials: credentials.only(Credentials::SIGNATURE.with(Credentials::PARAMETER)),
            partition: of_identity(&part),
            member: Some(Arc::new(member)),
            storage_placement: config.digests.storage_placement,
            is_selecting: false,
        })
    }

    /// Returns an anonymous requester.
    fn anonymous() -> Self {
        Self {
            credentials: Credentials::NONE,
            member: None,
            partition: PartitionKey::new(),
            storage_placement: StoragePlacement::Fleet,
            is_selecting: false,
        }
    }

    /// Returns the key of a target for this requester. The key includes the cookies that select the
    /// content.
    pub(super) fn key<'a>(
        &'a self,
        (config, route): (&ConfigSnapshot, &Route),
        headers: &HeaderMap,
        mut target: OriginTarget<'a>,
    ) -> CacheKey {
        if route.rule.sensitive {
            target.partition = Cow::Owned(sensitive::partition(config, &self.partition).to_vec());
        } else if !self.partition.is_empty() && !PlantedBug::KeyWithoutPartition.is_planted() {
            target.partition = Cow::Borrowed(&self.partition);
        }
        if self.storage_placement == StoragePlacement::Node || route.rule.sensitive {
            target.storage_placement = StoragePlacement::Node;
        }
        let key = target.key();
        if !self.is_selecting {
            return key;
        }
        let cookies = config.credentials.selecting_cookies(headers, &route.vary.cookies);
        key.with_selecting_cookies(|out| out.extend_from_slice(&cookies.join(&b';')))
    }
}

/// The kinds of credentials that must not accompany a verified identity.
const SECOND: Credentials = Credentials::AUTHORIZATION
    .with(Credentials::FIELD)
    .with(Credentials::SESSION_COOKIE)
    .with(Credentials::PARAMETER);

/// Encodes everything that identifies the requester on a route: credentials, and all cookies that
/// are not harmless.
fn exact_credentials(
    config: &ConfigSnapshot,
    route: &Route,
    inputs: &IdentityInputs<'_>,
) -> Vec<u8> {
    let (rules, headers) = (&config.credentials, inputs.headers);
    let mut pieces = credential_fields(rules, headers, &route.vary.headers);
    let counts = |kind: Option<CookieKind>| kind.is_some_and(|kind| kind != CookieKind::Harmless);
    let cookies = rules.cookies_of_kind(headers, &route.vary.cookies, counts);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    pieces.extend(credential_parameters(rules, inputs.query));
    encode_pairs(pieces)
}

/// Returns the member that the request's [`login_credentials`] identify on any route. A logout with
/// these credentials invalidates what is stored for the member.
fn login_member(config: &ConfigSnapshot, inputs: &IdentityInputs<'_>) -> PartitionMember {
    member_of_login(config, login_credentials(config, inputs))
}

/// Returns the request's login credentials: `Authorization`, credential fields, and session and
/// token cookies. If there are none, returns the keys and tokens in the query.
pub(super) fn login_credentials<'a>(
    config: &ConfigSnapshot,
    inputs: &IdentityInputs<'a>,
) -> CredentialPairs<'a> {
    let (rules, headers) = (&config.credentials, inputs.headers);
    let mut pieces = credential_fields(rules, headers, &[]);
    let is_session = |kind| matches!(kind, Some(CookieKind::Session | CookieKind::Token));
    let cookies = rules.cookies_of_kind(headers, &[], is_session);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    if pieces.is_empty() {
        pieces.extend(credential_parameters(rules, inputs.query));
    }
    pieces
}

/// Returns the member identified by these credentials.
pub(super) fn member_of_login(
    config: &ConfigSnapshot,
    pieces: CredentialPairs<'_>,
) -> PartitionMember {
    let digest = config.digests.key.digest(&encode_pairs(pieces));
    PartitionMember {
        partition_digest: digest,
        owner: Some(digest::hex(digest).into()),
        user: None,
        issuer: Box::default(),
        credential: u128::from_be_bytes(digest),
        expires: None,
    }
}

/// Names and values that identify a requester.
pub(super) type CredentialPairs<'a> = Vec<(&'a [u8], &'a [u8])>;

fn credential_fields<'a>(
    rules: &CredentialRules,
    headers: &'a HeaderMap,
    separated: &[HeaderName],
) -> CredentialPairs<'a> {
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
    rules.credential_parameters(query).filter_map(move |secret| pair(secret.position))
}

/// Encodes the pairs in a canonical order, each name and value after its length, so that no two
/// lists collide. Lines of one field keep their order, because servers take the first or the last.
pub(super) fn encode_pairs(mut pieces: CredentialPairs<'_>) -> Vec<u8> {
    pieces.sort_by_key(|(name, _)| *name);
    let mut bytes = Vec::with_capacity(256);
    for piece in pieces.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// Returns the user for whom a request writes, regardless of the route's partition. `None` for an
/// anonymous request.
pub(super) fn writer(
    config: &ConfigSnapshot,
    inputs: &IdentityInputs<'_>,
) -> Option<Arc<PartitionMember>> {
    if config.users.is_configured() {
        let request = (inputs.headers, inputs.peer);
        return config.users.identify(&Partition::User, request, inputs.now).ok();
    }
    may_be_present(config, inputs.presence).then(|| Arc::new(login_member(config, inputs)))
}

/// Returns the member whose credentials a request has, regardless of the route's partition.
pub(super) fn holder(
    config: &ConfigSnapshot,
    inputs: &IdentityInputs<'_>,
) -> Option<Arc<PartitionMember>> {
    let request = (inputs.headers, inputs.peer);
    writer(config, inputs).or_else(|| config.users.identify_in_any_partition(request, inputs.now))
}

/// Header fields that may contain login credentials.
const WITH_LOGIN: FieldPresence =
    FieldPresence::AUTHORIZATION.with(FieldPresence::IDENTITY).with(FieldPresence::COOKIE);

/// Returns whether a request with these fields may have credentials that identify its requester.
pub(super) fn may_be_present(config: &ConfigSnapshot, presence: FieldPresence) -> bool {
    presence.has(WITH_LOGIN) || !config.credentials.fields.is_empty()
}

/// Returns the owner whose responses a write on this route invalidates. `None` stands for all
/// users, because the route does not separate users or the user is unknown.
pub(super) fn owner(
    config: &ConfigSnapshot,
    route: &Route,
    inputs: &IdentityInputs<'_>,
) -> Option<Arc<str>> {
    if !matches!(route.rule.partition, Partition::User | Partition::Claims(_)) {
        return None;
    }
    RequestIdentity::of(config, route, inputs).ok()?.member?.owner.clone()
}

/// Removes credentials from a request if its route is public: credential fields, and all cookies
/// except selecting ones. Credentials in the query stay, since they are part of the key.
pub(super) fn make_anonymous(
    config: &ConfigSnapshot,
    route: &Route,
    headers: &mut HeaderMap,
    presence: FieldPresence,
) {
    if route.rule.partition != Partition::Everyone {
        return;
    }
    let rules = &config.credentials;
    let may_have_fields = presence.has(FieldPresence::AUTHORIZATION.with(FieldPresence::IDENTITY));
    if may_have_fields || !rules.fields.is_empty() {
        let is_credential = |name: &&HeaderName| {
            **name == header::AUTHORIZATION || rules.is_credential(name, &route.vary.headers)
        };
        let credentials: Vec<HeaderName> = headers.keys().filter(is_credential).cloned().collect();
        for name in credentials {
            headers.remove(name);
        }
    }
    if presence.has(FieldPresence::COOKIE) {
        keep_selecting_cookies(rules, route, headers);
    }
}

/// Removes fields meant for one client from a response, if its route is public.
pub(super) fn make_response_anonymous(route: &Route, headers: &mut HeaderMap) {
    if route.rule.partition == Partition::Everyone && !PlantedBug::CookieForEveryone.is_planted() {
        headers.remove(header::SET_COOKIE);
        headers.remove(CLEAR_SITE_DATA);
    }
}

/// Returns whether the route's partition already separates responses by this field, so that a
/// `Vary` on the field needs no variants.
pub(super) fn is_partitioned_by(
    config: &ConfigSnapshot,
    route: &Route,
    field: &HeaderName,
) -> bool {
    let are_verified = config.users.is_configured();
    let is_read = || {
        if are_verified {
            return config.users.uses_field(field);
        }
        *field == header::AUTHORIZATION
            || config.credentials.is_credential(field, &route.vary.headers)
    };
    match &route.rule.partition {
        Partition::None | Partition::Everyone => false,
        // All relevant cookies are in the key; otherwise the request passes.
        Partition::User => *field == header::COOKIE || is_read(),
        Partition::Authenticated | Partition::Claims(_) => is_read(),
    }
}

fn keep_selecting_cookies(rules: &CredentialRules, route: &Route, headers: &mut HeaderMap) {
    let is_kept = |kind: Option<CookieKind>| matches!(kind, None | Some(CookieKind::Selecting));
    let kept = rules.cookies_of_kind(headers, &route.vary.cookies, is_kept).join(&b"; "[..]);
    match HeaderValue::from_bytes(&kept) {
        Ok(value) if !kept.is_empty() => headers.insert(header::COOKIE, value),
        _ => headers.remove(header::COOKIE),
    };
}

/// Returns the findings about a request's cookies. Fails if servers may parse the cookies
/// differently and this matters on the route.
fn unambiguous_cookies(
    config: &ConfigSnapshot,
    route: &Route,
    inputs: &IdentityInputs<'_>,
) -> Result<CookieFindings, Reason> {
    if !inputs.presence.has(FieldPresence::COOKIE) {
        return Ok(CookieFindings::default());
    }
    let findings = cookies::classify(config, route, inputs.headers);
    let counts = route.rule.has_ttl() || route.rule.partition.needs_identity();
    if findings.are_ambiguous(counts) { Err(Reason::AmbiguousCookie) } else { Ok(findings) }
}

/// Returns the kinds of credentials in a query. A credential that reaches the origin but is not in
/// the key counts like a credential in a header field.
fn in_query(rules: &CredentialRules, rule: &QueryRule, query: Option<&str>) -> Credentials {
    let found = rules.credentials_in_query(query);
    if !found.has(Credentials::PARAMETER) || rule.forwarding == QueryForwarding::Kept {
        return found;
    }
    let count = |query: &str| rules.credential_parameters(query).count();
    let kept = query.and_then(|query| rule.kept(query));
    let are_keyed = kept.as_deref().map(count) == query.map(count);
    if are_keyed { found } else { found.with(Credentials::FIELD) }
}

/// Replaces each credential in a query with a digest, or with a fixed mark if there is no `key`.
/// Returns `None` if the query has no credentials.
pub(super) fn mask_credentials(
    query: &str,
    rules: &CredentialRules,
    key: Option<&DigestKey>,
) -> Option<String> {
    let mut secrets = rules.credential_parameters(query).peekable();
    secrets.peek()?;
    let mut masked = String::with_capacity(query.len() + 32);
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            masked.push('&');
        }
        let Some(secret) = secrets.next_if(|secret| secret.position == place) else {
            masked.push_str(pair);
            continue;
        };
        masked.push_str(secret.name);
        masked.push('=');
        masked.push(purge_url::CREDENTIAL_MARK);
        if let Some(key) = key {
            masked.push_str(&digest::hex(key.digest(pair.as_bytes())));
        }
    }
    Some(masked)
}

/// Returns the query of a target in the form that purges match, with the parameters that the route
/// keeps and without credentials.
pub(super) fn purge_query<'a>(
    config: &ConfigSnapshot,
    route: &Route,
    query: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    let kept = route.query.kept(query?)?;
    Some(mask_credentials(&kept, &config.credentials, None).map_or(kept, Cow::Owned))
}

/// Returns the rules that classify cookies as selecting; `None` if the route does not use them.
pub(super) fn selecting_rules<'a>(
    config: &'a ConfigSnapshot,
    route: &Route,
) -> Option<&'a CredentialRules> {
    route.rule.has_ttl().then_some(&config.credentials)
}

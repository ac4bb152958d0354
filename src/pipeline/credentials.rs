//! What a request says about who asks: found once, when it is received.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{config_snapshot::ConfigSnapshot, cookies, sensitive};
use crate::{
    field::{Timestamp, presence::FieldPresence},
    key::{
        CacheKey, DigestKey, OriginTarget, StorageScope, digest,
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

/// A request, as far as it says who asks.
#[derive(Clone, Copy)]
pub(super) struct IdentityInputs<'a> {
    /// The query.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// Which of them there are.
    pub presence: FieldPresence,
    /// The address of the connection's peer.
    pub peer: Option<IpAddr>,
    /// When the request came, by the system's clock.
    pub now: Timestamp,
}

impl<'a> IdentityInputs<'a> {
    /// A request from this peer that came at `now`.
    pub(super) fn of(request: &'a Parts, peer: Option<IpAddr>, now: Timestamp) -> Self {
        let (query, headers) = (request.uri.query(), &request.headers);
        Self { query, headers, presence: FieldPresence::of(headers), peer, now }
    }
}

/// Who asks, as far as the partition of a route needs it.
#[derive(Debug, Clone)]
pub(super) struct RequestIdentity {
    /// The credentials that still count, beside those that the partition is made of.
    pub credentials: Credentials,
    /// The member of the partition that asks; none if the route does not tell members apart.
    pub member: Option<Arc<PartitionMember>>,
    partition: PartitionKey,
    storage_scope: StorageScope,
    is_selecting: bool,
}

impl RequestIdentity {
    /// Finds out who asks, or why the request takes no part in the cache: its cookies are ambiguous, or its
    /// route needs an identity that it does not prove.
    ///
    /// Costs nothing for requests without credentials on routes without a partition.
    pub(super) fn of(
        config: &ConfigSnapshot,
        route: &Route,
        identity_inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        match &route.rule.partition {
            Partition::None => Self::unpartitioned(config, route, identity_inputs),
            Partition::Everyone => Self::anyone(config, route, identity_inputs),
            partition if config.users.is_configured() => {
                Self::verified((config, route), partition, identity_inputs)
            }
            Partition::User => Self::exact(config, route, identity_inputs),
            Partition::Authenticated | Partition::Claims(_) => Err(Reason::NoIdentity),
        }
    }

    fn unpartitioned(
        config: &ConfigSnapshot,
        route: &Route,
        identity_inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let rules = &config.credentials;
        let (headers, presence) = (identity_inputs.headers, identity_inputs.presence);
        let in_fields =
            rules.credentials_in_fields(headers, presence, &route.vary.headers, |_| false);
        let credentials = in_query(rules, &route.query, identity_inputs.query).with(in_fields);
        let findings = unambiguous_cookies(config, route, identity_inputs)?;
        Ok(Self {
            credentials: credentials.with(findings.credentials()),
            is_selecting: route.rule.has_ttl() && findings.has_selecting(),
            ..Self::anonymous()
        })
    }

    /// Of a resource that is for everyone only what stands in the query counts: the rest is
    /// [taken off](make_anonymous).
    fn anyone(
        config: &ConfigSnapshot,
        route: &Route,
        identity_inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let findings = unambiguous_cookies(config, route, identity_inputs)?;
        Ok(Self {
            credentials: in_query(&config.credentials, &route.query, identity_inputs.query),
            is_selecting: route.rule.has_ttl() && findings.has_selecting(),
            ..Self::anonymous()
        })
    }

    /// One whose identity is verified, and who carries no second credential.
    fn verified(
        (config, route): (&ConfigSnapshot, &Route),
        partition: &Partition,
        identity_inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let member = config.users.identify(
            partition,
            (identity_inputs.headers, identity_inputs.peer),
            identity_inputs.now,
        )?;
        let (rules, separated) = (&config.credentials, &*route.vary.headers);
        let is_read = |name: &HeaderName| config.users.uses_field(name);
        let in_fields = rules.credentials_in_fields(
            identity_inputs.headers,
            identity_inputs.presence,
            separated,
            is_read,
        );
        let findings = unambiguous_cookies(config, route, identity_inputs)?;
        let credentials = in_query(rules, &route.query, identity_inputs.query)
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
            let cookies =
                rules.cookies_of_kind(identity_inputs.headers, &route.vary.cookies, is_unknown);
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

    /// One who is known by exact credentials: all fields and cookies that may say who asks, harmless ones
    /// aside, and those of the query.
    fn exact(
        config: &ConfigSnapshot,
        route: &Route,
        identity_inputs: &IdentityInputs<'_>,
    ) -> Result<Self, Reason> {
        let (rules, separated) = (&config.credentials, &*route.vary.headers);
        let in_fields = rules.credentials_in_fields(
            identity_inputs.headers,
            identity_inputs.presence,
            separated,
            |_| false,
        );
        let findings = unambiguous_cookies(config, route, identity_inputs)?;
        let credentials = in_query(rules, &route.query, identity_inputs.query)
            .with(in_fields)
            .with(findings.credentials());
        if !credentials.has(SECOND.with(Credentials::AUTHORIZATION)) {
            return Err(Reason::NoIdentity);
        }
        let part = config.digests.key.digest(&exact_credentials(config, route, identity_inputs));
        let member =
            PartitionMember { partition_digest: part, ..login_member(config, identity_inputs) };
        Ok(Self {
            credentials: credentials.only(Credentials::SIGNATURE.with(Credentials::PARAMETER)),
            partition: of_identity(&part),
            member: Some(Arc::new(member)),
            storage_scope: config.digests.storage_scope,
            is_selecting: false,
        })
    }

    /// Nobody in particular.
    fn anonymous() -> Self {
        Self {
            credentials: Credentials::NONE,
            member: None,
            partition: PartitionKey::new(),
            storage_scope: StorageScope::Fleet,
            is_selecting: false,
        }
    }

    /// The key of a target that this one asks for: the cookies that choose what is shown are part of it
    /// where they count.
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
        if self.storage_scope == StorageScope::Node || route.rule.sensitive {
            target.storage_scope = StorageScope::Node;
        }
        let key = target.key();
        if !self.is_selecting {
            return key;
        }
        let cookies = config.credentials.selecting_cookies(headers, &route.vary.cookies);
        key.with_selecting_cookies(|out| out.extend_from_slice(&cookies.join(&b';')))
    }
}

/// Credentials of which none may stand beside the one that an identity is made of.
const SECOND: Credentials = Credentials::AUTHORIZATION
    .with(Credentials::FIELD)
    .with(Credentials::SESSION_COOKIE)
    .with(Credentials::PARAMETER);

/// All that says who asks on a route: its credentials, and every cookie that is not harmless.
fn exact_credentials(
    config: &ConfigSnapshot,
    route: &Route,
    identity_inputs: &IdentityInputs<'_>,
) -> Vec<u8> {
    let (rules, headers) = (&config.credentials, identity_inputs.headers);
    let mut pieces = credential_fields(rules, headers, &route.vary.headers);
    let counts = |kind: Option<CookieKind>| kind.is_some_and(|kind| kind != CookieKind::Harmless);
    let cookies = rules.cookies_of_kind(headers, &route.vary.cookies, counts);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    pieces.extend(credential_parameters(rules, identity_inputs.query));
    encode_pairs(pieces)
}

/// A member by the credentials that a login gives out, on whatever route: `Authorization`, fields and session
/// cookies. What is stored under them belongs to them, and a logout with them ends it.
fn login_member(config: &ConfigSnapshot, identity_inputs: &IdentityInputs<'_>) -> PartitionMember {
    member_of_login(config, login_credentials(config, identity_inputs))
}

/// The credentials that a login gives out; if there are none, the keys and tokens of the query.
pub(super) fn login_credentials<'a>(
    config: &ConfigSnapshot,
    identity_inputs: &IdentityInputs<'a>,
) -> CredentialPairs<'a> {
    let (rules, headers) = (&config.credentials, identity_inputs.headers);
    let mut pieces = credential_fields(rules, headers, &[]);
    let is_session = |kind| matches!(kind, Some(CookieKind::Session | CookieKind::Token));
    let cookies = rules.cookies_of_kind(headers, &[], is_session);
    pieces.extend(cookies.iter().map(|pair| (&b"cookie"[..], *pair)));
    if pieces.is_empty() {
        pieces.extend(credential_parameters(rules, identity_inputs.query));
    }
    pieces
}

/// A member by these credentials.
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

/// Names and values that say who asks.
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

/// Pieces in one order, each after its length, so that no two lists are written alike. The lines of one field
/// keep theirs: servers take the first or the last.
fn encode_pairs(mut pieces: CredentialPairs<'_>) -> Vec<u8> {
    pieces.sort_by_key(|(name, _)| *name);
    let mut bytes = Vec::with_capacity(256);
    for piece in pieces.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        bytes.extend_from_slice(piece);
    }
    bytes
}

/// The user on whose behalf a request changes something, whatever its route keeps apart.
pub(super) fn writer(
    config: &ConfigSnapshot,
    identity_inputs: &IdentityInputs<'_>,
) -> Option<Arc<PartitionMember>> {
    if config.users.is_configured() {
        let request = (identity_inputs.headers, identity_inputs.peer);
        return config.users.identify(&Partition::User, request, identity_inputs.now).ok();
    }
    let has_any = identity_inputs.presence.has(WITH_LOGIN) || !config.credentials.fields.is_empty();
    has_any.then(|| Arc::new(login_member(config, identity_inputs)))
}

/// The holder of the credentials that a request carries, whatever its route keeps apart.
pub(super) fn holder(
    config: &ConfigSnapshot,
    identity_inputs: &IdentityInputs<'_>,
) -> Option<Arc<PartitionMember>> {
    let request = (identity_inputs.headers, identity_inputs.peer);
    writer(config, identity_inputs)
        .or_else(|| config.users.identify_in_any_partition(request, identity_inputs.now))
}

/// Where credentials that a login gives out may be.
const WITH_LOGIN: FieldPresence =
    FieldPresence::AUTHORIZATION.with(FieldPresence::IDENTITY).with(FieldPresence::COOKIE);

/// By whom purges select what a request changes on a route: the owner of the partition that it takes part in.
/// None if the route does not tell users apart, or if the user is unknown: then the write is for all.
pub(super) fn owner(
    config: &ConfigSnapshot,
    route: &Route,
    identity_inputs: &IdentityInputs<'_>,
) -> Option<Arc<str>> {
    if !matches!(route.rule.partition, Partition::User | Partition::Claims(_)) {
        return None;
    }
    RequestIdentity::of(config, route, identity_inputs).ok()?.member?.owner.clone()
}

/// Takes off a request what says who asks, if its route is for everyone: its credential fields, and all
/// cookies but those that choose what is shown. Credentials in the query stay; they are part of the key.
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

/// Takes off an answer what is for one client alone, if its route is for everyone.
pub(super) fn make_response_anonymous(route: &Route, headers: &mut HeaderMap) {
    if route.rule.partition == Partition::Everyone && !PlantedBug::CookieForEveryone.is_planted() {
        headers.remove(header::SET_COOKIE);
        headers.remove(CLEAR_SITE_DATA);
    }
}

/// Whether the partition of a route is made of what stands in a request field, so that a `Vary` on it is
/// satisfied by the partition.
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
        // All cookies that count are in the key, or the request passes.
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

/// What the cookies of a request come to. Refuses those that servers may read differently.
fn unambiguous_cookies(
    config: &ConfigSnapshot,
    route: &Route,
    identity_inputs: &IdentityInputs<'_>,
) -> Result<CookieFindings, Reason> {
    if !identity_inputs.presence.has(FieldPresence::COOKIE) {
        return Ok(CookieFindings::default());
    }
    let findings = cookies::classify(config, route, identity_inputs.headers);
    let counts = route.rule.has_ttl() || route.rule.partition.needs_identity();
    if findings.are_ambiguous(counts) { Err(Reason::AmbiguousCookie) } else { Ok(findings) }
}

/// What a query carries. A credential that reaches the origin and is not in the key separates nothing by
/// itself: it counts as one in a field.
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

/// The query with a digest in place of each credential; `None` if it has none. Without a key there is no
/// digest either: that is the form of all of them.
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

/// The query of a target in the form by which purges select it: as far as its route keeps it, and without
/// credentials.
pub(super) fn purge_query<'a>(
    config: &ConfigSnapshot,
    route: &Route,
    query: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    let kept = route.query.kept(query?)?;
    Some(mask_credentials(&kept, &config.credentials, None).map_or(kept, Cow::Owned))
}

/// The rules by which cookies choose among the responses of a route, if they do.
pub(super) fn selecting_rules<'a>(
    config: &'a ConfigSnapshot,
    route: &Route,
) -> Option<&'a CredentialRules> {
    route.rule.has_ttl().then_some(&config.credentials)
}

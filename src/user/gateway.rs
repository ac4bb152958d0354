//! Users that a trusted gateway names in a request field.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::{
    claim_value::is_user_name,
    credential_cache::{CredentialCache, VerifiedIdentity},
    error::IdentityError,
    member::{self, PartitionMember},
    settings::GatewayRules,
    token_verifier::{PartitionInputs, single_value},
};
use crate::{
    field::{
        forwarding::ForwardingKind,
        name::{PatternSet, WordSet, is_same},
    },
    policy::Partition,
};

/// Fields in which gateways name users, in addition to `X-Forwarded-User` and similar fields.
///
/// The fields belong to oauth2-proxy, Authelia, authentik, Pomerium, Vouch, identity-aware cloud
/// proxies, Kong and Kubernetes.
static FIELDS: PatternSet = PatternSet::new(&[
    "cf-access-*",
    "remote-email",
    "remote-groups",
    "remote-name",
    "remote-user",
    "x-amzn-oidc-*",
    "x-auth-request-*",
    "x-authelia-*",
    "x-authenticated-*",
    "x-authentik-*",
    "x-consumer-*",
    "x-credential-*",
    "x-goog-authenticated-user-*",
    "x-goog-iap-*",
    "x-ms-client-principal*",
    "x-ms-token-*",
    "x-pomerium-*",
    "x-remote-*",
    "x-vouch-*",
    "x-webauth-*",
]);

/// Words in names of fields that carry permissions rather than an identity.
static RIGHTS: WordSet = WordSet::new(&[
    "entitlements",
    "group",
    "groups",
    "permission",
    "permissions",
    "role",
    "roles",
    "scope",
    "scopes",
]);

/// The trusted gateway and its fields.
pub(super) struct Gateway {
    rules: GatewayRules,
    cache: CredentialCache,
}

/// The effect of a gateway field on an identity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NarrowingKind {
    /// The field narrows the user's permissions.
    Rights,
    /// The field identifies the user.
    User,
}

/// Names and values of fields, in order.
type GatewayFields<'a> = SmallVec<[(&'a [u8], &'a [u8]); 4]>;

impl Gateway {
    pub(super) fn new(rules: GatewayRules) -> Self {
        Self { rules, cache: CredentialCache::new() }
    }

    /// Returns whether this peer is a trusted gateway.
    pub(super) fn is_trusted(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| {
            let peer = peer.to_canonical();
            self.rules.from.iter().any(|network| network.contains(&peer))
        })
    }

    /// Returns whether identities depend on this field.
    pub(super) fn uses_field(&self, field: &HeaderName) -> bool {
        *field == self.rules.name || self.narrowing(field).is_some()
    }

    fn narrowing(&self, field: &HeaderName) -> Option<NarrowingKind> {
        let name = field.as_str();
        if self.rules.narrows.contains(field) {
            return Some(NarrowingKind::Rights);
        }
        let is_known = ForwardingKind::of(name) == Some(ForwardingKind::Identity)
            || FIELDS.match_name(name.as_bytes());
        let has_word = || name.as_bytes().split(|byte| *byte == b'-').any(|word| RIGHTS.has(word));
        is_known.then(|| if has_word() { NarrowingKind::Rights } else { NarrowingKind::User })
    }

    /// Returns whether a field is removed from requests from this peer: either only a gateway may
    /// set the field, or an origin may mistake its name for that of a gateway field.
    pub(super) fn is_spoofed(&self, field: &HeaderName, peer: Option<IpAddr>) -> bool {
        let own = [&self.rules.name].into_iter().chain(&self.rules.narrows);
        let mut own = own.filter(|own| is_same(own.as_str().as_bytes(), field.as_str().as_bytes()));
        own.next().is_some_and(|own| own != field || !self.is_trusted(peer))
    }

    /// Returns the identity of a request. Computes digests only if the identity is not cached.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        context: PartitionInputs<'_>,
    ) -> Result<Arc<VerifiedIdentity>, IdentityError> {
        if !self.is_trusted(peer) {
            return Err(IdentityError::NoUser);
        }
        let value = single_value(headers, &self.rules.name).map_err(|_| IdentityError::NoUser)?;
        let user = str::from_utf8(value.as_bytes()).map_err(|_| IdentityError::NoUser)?;
        let fields = self.fields(headers, |_| true);
        let credentials = encode(user, &fields);
        if let Some(verified) = self.cache.get(&credentials) {
            return Ok(verified);
        }
        if !is_user_name(user) {
            return Err(IdentityError::NoUser);
        }
        let identity = GatewayIdentity {
            user,
            narrowing: encode("", &fields),
            rights: encode("", &self.fields(headers, |narrows| narrows == NarrowingKind::Rights)),
            credential: member::digest(context.digests, [member::CREDENTIAL, &*credentials]),
        };
        let members =
            context.partitions.iter().map(|partition| identity.member(partition, context));
        let verified = Arc::new(VerifiedIdentity::new(None, None, members.collect()));
        self.cache.insert(&credentials, Arc::clone(&verified));
        Ok(verified)
    }

    fn fields<'a>(
        &self,
        headers: &'a HeaderMap,
        counts: impl Fn(NarrowingKind) -> bool,
    ) -> GatewayFields<'a> {
        let counts = |name: &HeaderName| {
            *name != self.rules.name && self.narrowing(name).is_some_and(&counts)
        };
        let fields = headers.iter().filter(|(name, _)| counts(name));
        let mut fields: GatewayFields<'_> =
            fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        // The lines of one field keep their order.
        fields.sort_by_key(|(name, _)| *name);
        fields
    }
}

/// Encodes a user and fields, each text with its length.
fn encode(user: &str, fields: &GatewayFields<'_>) -> SmallVec<[u8; 256]> {
    let mut bytes = SmallVec::new();
    let texts = fields.iter().flat_map(|(name, value)| [*name, *value]);
    for text in [user.as_bytes()].into_iter().chain(texts) {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// A user that a gateway names, and the fields that narrow the user's permissions.
struct GatewayIdentity<'a> {
    user: &'a str,
    narrowing: SmallVec<[u8; 256]>,
    rights: SmallVec<[u8; 256]>,
    credential: [u8; 16],
}

impl GatewayIdentity<'_> {
    fn member(
        &self,
        partition: &Partition,
        context: PartitionInputs<'_>,
    ) -> Result<Arc<PartitionMember>, IdentityError> {
        let user = self.user.as_bytes();
        let part = match partition {
            Partition::User => member::digest(
                context.digests,
                [member::USER, b"", b"gateway", user, &self.narrowing],
            ),
            Partition::Authenticated => member::digest(
                context.digests,
                [member::AUTHENTICATED, b"", b"gateway", &self.rights],
            ),
            Partition::None | Partition::Everyone | Partition::Claims(_) => {
                return Err(IdentityError::NoClaim);
            }
        };
        let is_user = *partition == Partition::User;
        Ok(Arc::new(PartitionMember {
            partition_digest: part,
            owner: is_user.then(|| member::owner(context.digests, member::USER, [b"", user])),
            user: Some(self.user.into()),
            issuer: Box::default(),
            credential: u128::from_be_bytes(self.credential),
            expires: None,
        }))
    }
}

//! Identities of clients, verified by tokens or named by a trusted gateway.

mod claim_value;
mod credential_cache;
mod error;
mod gateway;
mod jwks;
pub(crate) mod jwt;
mod keys;
mod member;
mod narrow;
mod owners;
mod settings;
mod token_verifier;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use crate::{
    field::Timestamp,
    key::DigestKey,
    policy::{Partition, Reason},
};
use credential_cache::VerifiedIdentity;
use gateway::Gateway;
use token_verifier::{PartitionInputs, TokenVerifier};

pub(crate) use crate::origin::document_url::DocumentUrl;
pub(crate) use error::IdentityError;
pub use keys::TokenKeys;
pub use member::PartitionMember;
pub(crate) use narrow::DEFAULT_CLAIMS as DEFAULT_NARROWING_CLAIMS;
pub(crate) use settings::GatewayRules;
pub use {
    settings::IdentitySource, settings::KeySource, settings::TokenLocation, settings::TokenRules,
};

/// Returns the verified user of a request with these fields from this peer.
pub(crate) type IdentifyFn =
    dyn Fn(&HeaderMap, Option<IpAddr>) -> Result<Arc<PartitionMember>, Reason> + Send + Sync;

/// Authenticates requests by the rules of one configuration.
pub struct Authenticator {
    digests: DigestKey,
    partitions: Box<[Partition]>,
    verifier: Verifier,
    recheck: Duration,
}

/// How requests are authenticated.
enum Verifier {
    None,
    Token(Box<TokenVerifier>),
    Gateway(Box<Gateway>),
}

impl Authenticator {
    /// Creates an authenticator without a source of identities; [`Self::with_source`] sets one.
    /// `digests` is the key of all digests.
    pub fn new(digests: DigestKey) -> Self {
        let recheck = IdentitySource::None.default_recheck();
        Self { digests, partitions: Box::default(), verifier: Verifier::None, recheck }
    }

    /// Sets the source of identities, and the partitions for which members are computed. Tokens are
    /// verified with these keys.
    #[must_use]
    pub fn with_source(
        self,
        identity_source: IdentitySource,
        keys: Option<Arc<TokenKeys>>,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Self {
        let mut known = vec![Partition::User];
        for partition in partitions.into_iter().filter(Partition::needs_identity) {
            if !known.contains(&partition) {
                known.push(partition);
            }
        }
        let recheck = identity_source.default_recheck();
        let verifier = match (identity_source, keys) {
            (IdentitySource::Gateway(rules), _) => Verifier::Gateway(Box::new(Gateway::new(rules))),
            (IdentitySource::Token(rules), Some(keys)) => {
                Verifier::Token(Box::new(TokenVerifier::new(*rules, keys)))
            }
            (IdentitySource::None | IdentitySource::Token(_), _) => Verifier::None,
        };
        Self { partitions: known.into(), verifier, recheck, ..self }
    }

    /// Sets how long credentials count as accepted by the origin. The default is 5 minutes for
    /// tokens and one minute otherwise.
    #[must_use]
    pub fn with_recheck(self, recheck: Option<Duration>) -> Self {
        Self { recheck: recheck.unwrap_or(self.recheck), ..self }
    }

    /// Returns whether requests are authenticated by tokens or a gateway. Otherwise users are known
    /// by their exact credentials only.
    pub fn is_configured(&self) -> bool {
        !matches!(self.verifier, Verifier::None)
    }

    /// Returns the client of a request as a member of `partition`, or the reason why it is not a
    /// member. Some route must use the partition, unless it is [`Partition::User`].
    pub fn identify(
        &self,
        partition: &Partition,
        request: (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Result<Arc<PartitionMember>, Reason> {
        self.identify_with_cause(partition, request, now).map_err(IdentityError::reason)
    }

    /// Like [`Self::identify`], but returns the full cause if the client is not a member.
    pub fn identify_with_cause(
        &self,
        partition: &Partition,
        (headers, peer): (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Result<Arc<PartitionMember>, IdentityError> {
        let verified = self.authenticate(headers, peer, now)?;
        let index = self.partitions.iter().position(|known| known == partition);
        match index.and_then(|index| verified.members.get(index)) {
            Some(Ok(member)) => Ok(Arc::clone(member)),
            Some(Err(error)) => Err(*error),
            None => Err(IdentityError::NoClaim),
        }
    }

    /// Returns the client of a request as a member of the first partition for which its claims
    /// suffice. The digest of the credential is the same in all partitions.
    pub fn identify_in_any_partition(
        &self,
        (headers, peer): (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Option<Arc<PartitionMember>> {
        let verified = self.authenticate(headers, peer, now).ok()?;
        verified.members.iter().flatten().next().cloned()
    }

    fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Arc<VerifiedIdentity>, IdentityError> {
        let context = PartitionInputs { digests: &self.digests, partitions: &self.partitions };
        match &self.verifier {
            Verifier::None => Err(IdentityError::NoToken),
            Verifier::Token(tokens) => tokens.authenticate(headers, context, now),
            Verifier::Gateway(gateway) => gateway.authenticate(headers, peer, context),
        }
    }

    /// Returns whether identities depend on this field: it carries the token, or the gateway sets
    /// it. If the field is `Cookie`, only the cookie [`Self::cookie`] counts.
    pub fn uses_field(&self, field: &HeaderName) -> bool {
        match &self.verifier {
            Verifier::None => false,
            Verifier::Gateway(gateway) => gateway.uses_field(field),
            Verifier::Token(tokens) => match tokens.location() {
                TokenLocation::Field(name) => name == field,
                TokenLocation::Cookie(_) => *field == header::COOKIE,
            },
        }
    }

    /// Returns the claim that identifies users; `None` if tokens are not used.
    pub fn claim(&self) -> Option<&str> {
        match &self.verifier {
            Verifier::Token(tokens) => Some(tokens.claim()),
            Verifier::None | Verifier::Gateway(_) => None,
        }
    }

    /// Returns the cookie that carries the token; `None` if no cookie does.
    pub fn cookie(&self) -> Option<&str> {
        match &self.verifier {
            Verifier::Token(tokens) => tokens.location().cookie(),
            Verifier::None | Verifier::Gateway(_) => None,
        }
    }

    /// Returns whether a logout ends the identity. Returns true for tokens and sessions, false if a
    /// gateway identifies users.
    pub fn end_at_logout(&self) -> bool {
        !matches!(self.verifier, Verifier::Gateway(_))
    }

    /// Returns whether this peer is a trusted gateway.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        matches!(&self.verifier, Verifier::Gateway(gateway) if gateway.is_trusted(peer))
    }

    /// Removes gateway fields, unless this peer is a gateway. Also removes fields that an origin
    /// may mistake for gateway fields (`X_User_Id`). Costs nothing without a gateway.
    pub fn remove_spoofed_fields(&self, headers: &mut HeaderMap, peer: Option<IpAddr>) {
        let Verifier::Gateway(gateway) = &self.verifier else { return };
        let unwanted: SmallVec<[HeaderName; 4]> =
            headers.keys().filter(|name| gateway.is_spoofed(name, peer)).cloned().collect();
        for name in unwanted {
            headers.remove(name);
        }
    }

    /// Returns whether [`Self::remove_spoofed_fields`] removes this field from requests from this
    /// peer.
    pub fn is_spoofed(&self, field: &HeaderName, peer: Option<IpAddr>) -> bool {
        matches!(&self.verifier, Verifier::Gateway(gateway) if gateway.is_spoofed(field, peer))
    }

    /// Returns how long credentials count as accepted after the origin accepted them.
    pub fn recheck(&self) -> Duration {
        self.recheck
    }

    /// Returns a keyed digest of `bytes`, which is the same on all nodes of a fleet.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 16] {
        self.digests.digest(bytes)
    }

    /// Returns the owner by which purges select a user's responses. It depends on issuer and claim
    /// only, or on the claim alone if the configuration names no issuer.
    pub fn owner(&self, issuer: &str, claim: &str) -> Arc<str> {
        let issuer = if self.issuers().is_empty() { "" } else { issuer };
        member::owner(&self.digests, member::USER, [issuer.as_bytes(), claim.as_bytes()])
    }
}

#[cfg(test)]
mod tests;

//! Who asks: identities that requests prove, by verified tokens or the field of a trusted gateway.

mod gateway;
mod jwks;
mod keys;
mod member;
mod narrow;
mod owners;
mod refusal;
mod remembered;
mod scalar;
mod settings;
pub mod token;
mod tokens;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use crate::{
    field::Timestamp,
    key::DigestKey,
    policy::{Partition, Reason},
};
use gateway::Gateway;
use remembered::Verified;
use tokens::{Roles, Tokens};

pub use crate::origin::source::Source;
pub use keys::Keys;
pub use member::Member;
pub use narrow::USUAL as USUAL_NARROWING;
pub use refusal::Refusal;
pub use settings::{Carrier, GatewayRules, KeySource, Proof, TokenRules};

/// Returns the user whom a request with these fields, from this peer, proves to be from.
pub type Identify = dyn Fn(&HeaderMap, Option<IpAddr>) -> Result<Arc<Member>, Reason> + Send + Sync;

/// The identities of one configuration.
pub struct Users {
    digests: DigestKey,
    partitions: Box<[Partition]>,
    proven: Proven,
    recheck: Duration,
}

/// By what identities are proven.
enum Proven {
    Nothing,
    Token(Box<Tokens>),
    Gateway(Box<Gateway>),
}

impl Users {
    /// Identities whose digests are made with this key. Nothing proves any until [`Self::proven_by`] says so.
    pub fn new(digests: DigestKey) -> Self {
        let recheck = Proof::None.usual_recheck();
        Self { digests, partitions: Box::default(), proven: Proven::Nothing, recheck }
    }

    /// Identities that are proven like this, as members of the partitions that routes use. Tokens are verified
    /// with these keys.
    #[must_use]
    pub fn proven_by(
        self,
        proof: Proof,
        keys: Option<Arc<Keys>>,
        partitions: impl IntoIterator<Item = Partition>,
    ) -> Self {
        let mut known = vec![Partition::User];
        for partition in partitions.into_iter().filter(Partition::needs_identity) {
            if !known.contains(&partition) {
                known.push(partition);
            }
        }
        let recheck = proof.usual_recheck();
        let proven = match (proof, keys) {
            (Proof::Gateway(rules), _) => Proven::Gateway(Box::new(Gateway::new(rules))),
            (Proof::Token(rules), Some(keys)) => Proven::Token(Box::new(Tokens::new(*rules, keys))),
            (Proof::None | Proof::Token(_), _) => Proven::Nothing,
        };
        Self { partitions: known.into(), proven, recheck, ..self }
    }

    /// Identities whose credentials count as accepted for this long; if it is left out, 5 minutes for tokens and
    /// one minute for all others.
    #[must_use]
    pub fn rechecked_after(self, recheck: Option<Duration>) -> Self {
        Self { recheck: recheck.unwrap_or(self.recheck), ..self }
    }

    /// Whether requests prove who they are: by tokens, or through a gateway. Otherwise their exact
    /// credentials are all that is known.
    pub fn are_verified(&self) -> bool {
        !matches!(self.proven, Proven::Nothing)
    }

    /// Returns who asks, as a member of this partition, or why the request takes part in none.
    ///
    /// `partition` is one of those that routes use, or [`Partition::User`].
    pub fn identify(
        &self,
        partition: &Partition,
        request: (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Result<Arc<Member>, Reason> {
        self.examine(partition, request, now).map_err(Refusal::reason)
    }

    /// The same, with the cause in full.
    pub fn examine(
        &self,
        partition: &Partition,
        (headers, peer): (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Result<Arc<Member>, Refusal> {
        let verified = self.verified(headers, peer, now)?;
        let place = self.partitions.iter().position(|known| known == partition);
        match place.and_then(|place| verified.members.get(place)) {
            Some(Ok(member)) => Ok(Arc::clone(member)),
            Some(Err(refusal)) => Err(*refusal),
            None => Err(Refusal::NoClaim),
        }
    }

    /// Returns who asks, as a member of any partition that its claims suffice for: what a token is known by is
    /// the same in all of them.
    pub fn identify_loosely(
        &self,
        (headers, peer): (&HeaderMap, Option<IpAddr>),
        now: Timestamp,
    ) -> Option<Arc<Member>> {
        let verified = self.verified(headers, peer, now).ok()?;
        verified.members.iter().flatten().next().cloned()
    }

    fn verified(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Arc<Verified>, Refusal> {
        let roles = Roles { digests: &self.digests, partitions: &self.partitions };
        match &self.proven {
            Proven::Nothing => Err(Refusal::NoToken),
            Proven::Token(tokens) => tokens.verified(headers, roles, now),
            Proven::Gateway(gateway) => gateway.verified(headers, peer, roles),
        }
    }

    /// Whether identities are made of this field: of its token, or of what a gateway says in it. Of `Cookie`
    /// only the one cookie counts that [`Self::cookie`] names.
    pub fn reads(&self, field: &HeaderName) -> bool {
        match &self.proven {
            Proven::Nothing => false,
            Proven::Gateway(gateway) => gateway.reads(field),
            Proven::Token(tokens) => match tokens.carrier() {
                Carrier::Field(name) => name == field,
                Carrier::Cookie(_) => *field == header::COOKIE,
            },
        }
    }

    /// The claim that tells users apart, if tokens prove who they are.
    pub fn claim(&self) -> Option<&str> {
        match &self.proven {
            Proven::Token(tokens) => Some(tokens.claim()),
            Proven::Nothing | Proven::Gateway(_) => None,
        }
    }

    /// The cookie that identities are made of, if they are made of one.
    pub fn cookie(&self) -> Option<&str> {
        match &self.proven {
            Proven::Token(tokens) => tokens.carrier().cookie(),
            Proven::Nothing | Proven::Gateway(_) => None,
        }
    }

    /// Whether identities end with a logout: a token or a session does, what a gateway says does not.
    pub fn end_with_logout(&self) -> bool {
        !matches!(self.proven, Proven::Gateway(_))
    }

    /// Whether what this peer says about its users counts.
    pub fn believes(&self, peer: Option<IpAddr>) -> bool {
        matches!(&self.proven, Proven::Gateway(gateway) if gateway.is(peer))
    }

    /// Removes the fields that only a gateway may set, unless this peer is one, and those that an origin may
    /// take for them (`X_User_Id`). Costs nothing without a gateway.
    pub fn settle_fields(&self, headers: &mut HeaderMap, peer: Option<IpAddr>) {
        let Proven::Gateway(gateway) = &self.proven else { return };
        let unwanted: SmallVec<[HeaderName; 4]> =
            headers.keys().filter(|name| gateway.removes(name, peer)).cloned().collect();
        for name in unwanted {
            headers.remove(name);
        }
    }

    /// Returns whether [`Self::settle_fields`] removes this field from requests of this peer.
    pub fn removes(&self, field: &HeaderName, peer: Option<IpAddr>) -> bool {
        matches!(&self.proven, Proven::Gateway(gateway) if gateway.removes(field, peer))
    }

    /// How long credentials count as accepted after the origin last accepted them.
    pub fn recheck(&self) -> Duration {
        self.recheck
    }

    /// A keyed digest of what else keeps users apart, the same on all nodes of a fleet.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 16] {
        self.digests.digest(bytes)
    }

    /// The owner by which purges select what belongs to a user, by issuer and claim alone; by the claim alone
    /// where the configuration names no issuer.
    pub fn owner(&self, issuer: &str, claim: &str) -> Arc<str> {
        let issuer = if self.issuers().is_empty() { "" } else { issuer };
        member::owner(&self.digests, member::USER, [issuer.as_bytes(), claim.as_bytes()])
    }
}

#[cfg(test)]
mod tests;

//! Who asks: identities that requests prove, by verified tokens or the field of a trusted gateway.

mod member;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};

use crate::{
    field::Timestamp,
    key::DigestKey,
    policy::{Partition, Reason},
};

pub use member::Member;

/// How long credentials other than tokens count as accepted.
const RECHECK: Duration = Duration::from_mins(1);

/// The identities of one configuration.
pub struct Users {
    digests: DigestKey,
}

impl Users {
    /// Identities whose digests are made with this key.
    pub fn new(digests: DigestKey) -> Self {
        Self { digests }
    }

    /// Whether requests prove who they are: by tokens, or through a gateway. Otherwise their exact
    /// credentials are all that is known.
    pub fn are_verified(&self) -> bool {
        false
    }

    /// Returns who asks, as a member of this partition, or why the request takes part in none.
    pub fn identify(
        &self,
        _partition: &Partition,
        _request: (&HeaderMap, Option<IpAddr>),
        _now: Timestamp,
    ) -> Result<Arc<Member>, Reason> {
        Err(Reason::NoIdentity)
    }

    /// A keyed digest of what else keeps users apart, the same on all nodes of a fleet.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 16] {
        self.digests.digest(bytes)
    }

    /// How long credentials count as accepted after the origin last accepted them.
    pub fn recheck(&self) -> Duration {
        RECHECK
    }

    /// Whether identities are made of this field: of its token, or of what a gateway says in it.
    pub fn reads(&self, _field: &HeaderName) -> bool {
        false
    }

    /// The owner by which purges select what belongs to a user, by issuer and claim alone.
    pub fn owner(&self, issuer: &str, claim: &str) -> Arc<str> {
        member::owner(&self.digests, "user", &[issuer, claim])
    }
}

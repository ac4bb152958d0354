//! Identifies users for Larder's own endpoints, which belong to no route.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;

use super::{
    accepted_credentials::AcceptanceKey, config_snapshot::ConfigSnapshot, state::Pipeline,
};
use crate::{
    policy::{Partition, Reason},
    user::PartitionMember,
};

impl<S> Pipeline<S> {
    /// Returns the user whose identity a request proves, or why it proves no identity.
    ///
    /// A credential that a logout or a `401` has ended counts again once the origin has accepted it
    /// on a route that separates users.
    pub(crate) fn identify(
        &self,
        request: (&HeaderMap, Option<IpAddr>),
    ) -> Result<Arc<PartitionMember>, Reason> {
        self.config.with(|config| {
            if !config.users.is_configured() {
                return Err(Reason::NoIdentity);
            }
            let member = config.users.identify(&Partition::User, request, self.clock.now())?;
            let name = member.credential_name();
            let is_ended = self.log.applied_purges().is_revoked(&name)
                && !self.is_accepted_since(config, &member);
            if is_ended { Err(Reason::Recheck) } else { Ok(member) }
        })
    }

    /// Returns whether the origin has accepted the credential since its last logout or `401`.
    fn is_accepted_since(&self, config: &ConfigSnapshot, member: &PartitionMember) -> bool {
        let routes = config.routes.each();
        let mut own = routes.filter(|route| route.rule.partition == Partition::User);
        let at = (Instant::now(), self.clock.steady());
        own.any(|route| {
            let scope = (member, AcceptanceKey::of(member, &route.name));
            self.accepted.is_accepted(scope, self.log.applied_purges(), at, Duration::MAX)
        })
    }
}

//! Who asks for what is Larder's own: the identity of a request without a route.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;

use super::{
    Pipeline,
    accepted::{self, Place},
    site::Site,
};
use crate::{
    policy::{Partition, Reason},
    user::Member,
};

impl<S> Pipeline<S> {
    /// Returns the user whom a request proves to be from, or why it proves none.
    ///
    /// A credential that a logout or a `401` has ended counts again only once the origin has accepted it
    /// since, on a route that keeps users apart.
    pub fn identify(&self, request: (&HeaderMap, Option<IpAddr>)) -> Result<Arc<Member>, Reason> {
        self.site.with(|site| {
            if !site.users.are_verified() {
                return Err(Reason::NoIdentity);
            }
            let member = site.users.identify(&Partition::User, request, self.clock.now())?;
            let name = accepted::credential(&member);
            let is_ended =
                self.log.fences().is_refused(&name) && !self.is_accepted_since(site, &member);
            if is_ended { Err(Reason::Recheck) } else { Ok(member) }
        })
    }

    /// Whether the origin has accepted the member's credential after all that ended it.
    fn is_accepted_since(&self, site: &Site, member: &Member) -> bool {
        let routes = site.routes.routes().iter().chain([site.routes.unmatched()]);
        let mut own = routes.filter(|route| route.rule.partition == Partition::User);
        let at = (Instant::now(), self.clock.steady());
        own.any(|route| {
            let place = (member, Place::of(member, &route.name));
            self.accepted.is_accepted(place, self.log.fences(), at, Duration::MAX)
        })
    }
}

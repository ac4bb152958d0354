//! The credentials of a kept request, which must not be repeated after a logout.

use std::{sync::Arc, time::Instant};

use crate::{
    fence::{FenceStamp, PurgeVerdict, ResponseAttributes},
    pipeline::{
        config_snapshot::ConfigSnapshot,
        credentials::{self, IdentityInputs},
        receive::LookupRequest,
    },
    purge::{AppliedPurges, IncompleteResponse, RevocableVerdict},
    user::PartitionMember,
};

/// The credentials of a request, as of the time when it arrived.
pub(in crate::pipeline) struct HeldCredentials {
    /// The member that the credentials identify; `None` if no logout can end the credentials.
    holder: Option<Arc<PartitionMember>>,
    stamp: FenceStamp,
    /// The verdict that the credentials were valid when the request arrived.
    counted: RevocableVerdict,
}

impl HeldCredentials {
    /// Keeps the credentials of a request. `stamp` is the current stamp of the purge log.
    pub(in crate::pipeline) fn of(
        config: &ConfigSnapshot,
        lookup: &LookupRequest,
        inputs: &IdentityInputs<'_>,
        stamp: FenceStamp,
    ) -> Self {
        let member = lookup.member.clone();
        let holder = member.or_else(|| credentials::holder(config, inputs));
        Self { holder, stamp, counted: RevocableVerdict::new(stamp) }
    }

    /// Returns whether no logout and no refusal by the origin, on any node, has ended the
    /// credentials since the request arrived. Returns `false` while this node does not follow the
    /// purge log.
    pub(super) fn still_count(&self, applied_purges: &AppliedPurges) -> bool {
        let Some(holder) = &self.holder else { return true };
        let (now, name) = (Instant::now(), || holder.credential_name());
        // The logout of a gateway's user ends no credential, and purges what the user owns.
        let user = holder.owner.as_deref();
        let attributes = ResponseAttributes { user, ..ResponseAttributes::default() };
        let owned = IncompleteResponse { url: b"", attributes, tags: None };
        applied_purges.still_holds(&self.counted, now, name)
            && applied_purges.judge_fetched(&self.stamp, &owned, &[]) == PurgeVerdict::Alive
    }
}

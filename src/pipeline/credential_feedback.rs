//! Records on this node what origin responses say about credentials. Publishes changes to the
//! fleet.

use std::{sync::Arc, time::Instant};

use http::StatusCode;

use super::{
    accepted_credentials::{AcceptanceKey, fleet},
    config_snapshot::ConfigSnapshot,
    credential_verdict::CredentialVerdict,
    credentials::{self, IdentityInputs},
    fetch::OriginFetch,
    fetch_times::FetchTimes,
    invalidate,
    miss_plan::MissPlan,
    receive::LookupRequest,
    request_context::RequestContext,
    state::Pipeline,
};
use crate::{
    fence::{FenceStamp, PurgeSource, Selector},
    field::Timestamp,
    key::{CacheKey, StoragePlacement},
    policy::Partition,
    purge::LogEvent,
    store::Store,
    user::PartitionMember,
};

/// The credentials, route and target that a verdict is about.
struct CredentialUse<'a> {
    config: &'a ConfigSnapshot,
    member: &'a PartitionMember,
    route: &'a str,
    target: &'a CacheKey,
    /// Whether a response is stored for the target.
    is_stored: bool,
}

/// The fence stamp and the monotonic time of an origin request.
type RequestedAt = (FenceStamp, Timestamp);

/// When the response arrived, by the wall clock and by the monotonic clock.
type RespondedAt = (Timestamp, Timestamp);

impl<S: Store> OriginFetch<S> {
    /// Applies the verdict on the request's credentials, and ends their recheck.
    pub(super) async fn apply_credential_verdict(
        &mut self,
        verdict: CredentialVerdict,
        times: FetchTimes,
    ) {
        let (pipeline, config) = (&self.context.pipeline, &self.context.config);
        if let Some(member) = self.context.member.as_deref() {
            let used = CredentialUse {
                config,
                member,
                route: config.route_name(self.context.route),
                target: &self.context.target,
                is_stored: self.stored.is_some(),
            };
            let requested = (self.context.stamp, self.context.requested_at);
            let responded = (times.received_at, times.received_steady);
            record_verdict(pipeline, &used, verdict, (requested, responded)).await;
        } else if self.context.rule().partition == Partition::None {
            let peer = self.context.ingress_peer.address();
            let inputs = IdentityInputs::of(&self.context.request, peer, times.received_at);
            record_refusal_without_member(pipeline, (config, &inputs), verdict).await;
        }
        if let Some(recheck) = &mut self.recheck {
            recheck.end();
        }
    }

    /// Returns whether a response is about the credentials only: a `401`, or a denial during a
    /// recheck. Such a response says nothing about other members of the partition.
    pub(super) fn is_refusal(&self, status: StatusCode) -> bool {
        let is_shared = self.context.rule().partition != Partition::User;
        self.context.member.is_some()
            && match CredentialVerdict::of(status) {
                CredentialVerdict::Refused => true,
                CredentialVerdict::Denied => is_shared && self.recheck.is_some(),
                CredentialVerdict::Accepted | CredentialVerdict::None => false,
            }
    }
}

impl<S: Store> RequestContext<S> {
    /// Applies the verdict of a response to a safe request that was passed to the origin.
    pub(super) async fn apply_credential_verdict(
        &self,
        lookup: Option<(&LookupRequest, &MissPlan)>,
        status: StatusCode,
        requested: RequestedAt,
    ) {
        let Self { pipeline, config, route, .. } = self;
        let verdict = CredentialVerdict::of(status);
        let Some((lookup, plan, member)) =
            lookup.and_then(|(lookup, plan)| Some((lookup, plan, lookup.member.as_deref()?)))
        else {
            // Credentials that were removed from the request cannot have been refused.
            if lookup.is_none() || self.rule().partition == Partition::None {
                let inputs = self.identity_inputs();
                record_refusal_without_member(pipeline, (config, &inputs), verdict).await;
            }
            return;
        };
        let used = CredentialUse {
            config,
            member,
            route: config.route_name(*route),
            target: &lookup.target,
            is_stored: plan.stored.is_some(),
        };
        let responded = (pipeline.clock.now(), pipeline.clock.steady());
        record_verdict(pipeline, &used, verdict, (requested, responded)).await;
    }
}

/// Records a verdict on a member's credentials and publishes it to the fleet. After a refusal,
/// waits for the purge log, as a write does.
async fn record_verdict<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    used: &CredentialUse<'_>,
    verdict: CredentialVerdict,
    (requested, responded): (RequestedAt, RespondedAt),
) {
    let CredentialUse { config, member, route, target, is_stored } = *used;
    let (accepted, scope) = (&pipeline.accepted, AcceptanceKey::of(member, route));
    match verdict {
        CredentialVerdict::Accepted => {
            let (recheck, (stamp, requested_at)) = (config.users.recheck(), requested);
            let since = accepted.accept(scope, stamp, requested_at);
            // Other nodes remember an acceptance for a while, so it is not announced each time.
            let is_news = since.is_some_and(|since| since > recheck / 2);
            if is_news && target.storage_placement() == StoragePlacement::Fleet {
                fleet::announce(&pipeline.store, (member, scope), requested, recheck);
            }
            accepted.lift_denial(member, target, requested_at);
        }
        CredentialVerdict::Refused => {
            accepted.forget(scope);
            Box::pin(publish_refusal(pipeline, config, member)).await;
        }
        CredentialVerdict::Denied => {
            // Another node may store a response to another member at any time. Clients can invent
            // credentials that no issuer signed, and must not be able to fill the log.
            let may_publish = config.users.is_configured()
                || (is_stored && Box::pin(is_accepted_anywhere(pipeline, used)).await);
            if let Some(denial) = accepted.deny(member, target, responded, may_publish) {
                Box::pin(publish_rate_limited(pipeline, denial)).await;
            }
        }
        CredentialVerdict::None => {}
    }
}

/// Returns whether the origin recently accepted a member's credentials in a request through this
/// node, or in a request on the same route through another node.
async fn is_accepted_anywhere<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    used: &CredentialUse<'_>,
) -> bool {
    let CredentialUse { config, member, route, target, .. } = *used;
    let (accepted, scope) = (&*pipeline.accepted, AcceptanceKey::of(member, route));
    let applied_purges = pipeline.log.applied_purges();
    let now = (Instant::now(), pipeline.clock.steady());
    accepted.knows(member)
        || (target.storage_placement() == StoragePlacement::Fleet
            && fleet::adopt(
                (accepted, &pipeline.store),
                scope,
                applied_purges,
                now,
                config.users.recheck(),
            )
            .await)
}

/// Publishes a refusal on a route without members. The refusal ends the acceptance of the
/// credentials on routes with members.
async fn record_refusal_without_member<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    (config, inputs): (&ConfigSnapshot, &IdentityInputs<'_>),
    verdict: CredentialVerdict,
) {
    if verdict == CredentialVerdict::Refused
        && let Some(holder) = credentials::holder(config, inputs)
    {
        Box::pin(publish_refusal(pipeline, config, &holder)).await;
    }
}

/// Publishes that the origin refused a member's credentials, on any route.
///
/// If the credentials were accepted since the previous refusal, publishes at once. Otherwise
/// publishes with a rate limit, and only if clients cannot forge such credentials.
async fn publish_refusal<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    config: &ConfigSnapshot,
    member: &PartitionMember,
) {
    let name = member.credential_name();
    if pipeline.accepted.refuse(member) {
        let selectors = vec![Selector::Credential(name.into())];
        let _at_least_here = invalidate::append(pipeline, selectors, PurgeSource::Refusal).await;
    } else if config.users.is_configured() {
        publish_rate_limited(pipeline, name).await;
    }
}

/// Publishes a refusal with a rate limit. Drops no refusal, because another node may have accepted
/// the credential meanwhile.
async fn publish_rate_limited<S: Store>(pipeline: &Arc<Pipeline<S>>, name: String) {
    let used = (None, vec![Selector::Credential(name.into())]);
    let _now_or_soon = invalidate::purge_rate_limited(pipeline, used, PurgeSource::Refusal).await;
}

/// Applies denials that other nodes publish, as long as the purge log exists.
pub(crate) async fn follow_denials<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.subscribe();
    loop {
        let LogEvent::Record { record, .. } = records.next().await else { continue };
        for selector in &record.purge.selectors {
            if let Selector::Credential(name) = selector {
                let now = (pipeline.clock.now(), pipeline.clock.steady());
                pipeline.accepted.apply_denial(name, now);
            }
        }
    }
}

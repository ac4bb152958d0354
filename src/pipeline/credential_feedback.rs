//! What the origin's answers say about the credentials that they were asked with: noted on this node, and told
//! to the fleet where it ends something.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Pipeline,
    accepted_credentials::{self, CredentialScope, fleet},
    config_snapshot::ConfigSnapshot,
    credentials::{self, IdentityInputs},
    fetch::{FetchTimes, OriginFetch},
    invalidate,
    receive::Lookup,
    request_context::{MissPlan, RequestContext},
};
use crate::{
    fence::{FenceStamp, PurgeSource, Selector},
    field::Timestamp,
    key::{CacheKey, StorageScope},
    policy::Partition,
    purge::LogEvent,
    store::Store,
    user::PartitionMember,
};

/// What an answer says about the credentials that it was asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialVerdict {
    /// The origin accepts them.
    Accepted,
    /// It refuses them.
    Refused,
    /// It refuses them this target.
    Denied,
    /// Nothing.
    None,
}

impl CredentialVerdict {
    /// What a response with this status to a safe request says.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Refused,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Denied,
            status if status.is_success() => Self::Accepted,
            _ => Self::None,
        }
    }
}

/// What an answer is about.
struct CredentialUse<'a> {
    config: &'a ConfigSnapshot,
    /// The member that asked.
    member: &'a PartitionMember,
    /// The name of the route.
    route: &'a str,
    target: &'a CacheKey,
    /// Whether anything is stored for the target.
    is_stored: bool,
}

/// When the origin was asked: under which stamp, and at what time by the node's own clock.
type RequestedAt = (FenceStamp, Timestamp);

/// When it answered, by the system's clock and by the node's own.
type RespondedAt = (Timestamp, Timestamp);

impl<S: Store> OriginFetch<S> {
    /// Heeds what an answer says about the credentials that it was asked with. Those who wait for that go on.
    pub(super) async fn apply_credential_verdict(
        &mut self,
        verdict: CredentialVerdict,
        times: FetchTimes,
    ) {
        let (pipeline, config) = (&self.pipeline, &self.config);
        if let Some(member) = self.member.as_deref() {
            let used = CredentialUse {
                config,
                member,
                route: config.route_name(self.route),
                target: &self.target,
                is_stored: self.stored.is_some(),
            };
            let answered = (times.received_at, times.received_steady);
            record_verdict(pipeline, &used, verdict, ((self.stamp, self.requested_at), answered))
                .await;
        } else if config.route(self.route).rule.partition == Partition::None {
            let peer = self.ingress_peer.0.map(|peer| peer.ip().to_canonical());
            let identity_inputs = IdentityInputs::of(&self.request, peer, times.received_at);
            record_refusal_without_member(pipeline, (config, &identity_inputs), verdict).await;
        }
        if let Some(recheck) = &mut self.recheck {
            recheck.end();
        }
    }

    /// Whether a response is about the credentials that were sent, and says nothing to other members of the
    /// partition: a 401, or a denial to one that asked for the sake of its own credentials.
    pub(super) fn is_refusal(&self, status: StatusCode) -> bool {
        let is_shared = self.config.route(self.route).rule.partition != Partition::User;
        self.member.is_some()
            && match CredentialVerdict::of(status) {
                CredentialVerdict::Refused => true,
                CredentialVerdict::Denied => is_shared && self.recheck.is_some(),
                CredentialVerdict::Accepted | CredentialVerdict::None => false,
            }
    }
}

impl<S: Store> RequestContext<S> {
    /// Heeds what the origin says to a safe request that it answered as it is: of what the cache could have
    /// answered, or else of what it has no part in.
    pub(super) async fn apply_credential_verdict(
        &self,
        lookup: Option<(&Lookup, &MissPlan)>,
        status: StatusCode,
        asked: RequestedAt,
    ) {
        let Self { pipeline, config, route, .. } = self;
        let verdict = CredentialVerdict::of(status);
        let Some((lookup, plan)) = lookup else {
            return record_refusal_without_member(
                pipeline,
                (config, &self.identity_inputs()),
                verdict,
            )
            .await;
        };
        let Some(member) = lookup.member.as_deref() else {
            // What was taken off was not refused.
            if self.rule().partition == Partition::None {
                record_refusal_without_member(pipeline, (config, &self.identity_inputs()), verdict)
                    .await;
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
        let answered = (pipeline.clock.now(), pipeline.clock.steady());
        record_verdict(pipeline, &used, verdict, (asked, answered)).await;
    }
}

/// Notes what an answer says about a member's credentials, and has the fleet know of it. Waits for the purge
/// log as a write does, if there is a refusal.
async fn record_verdict<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    used: &CredentialUse<'_>,
    verdict: CredentialVerdict,
    (asked, answered): (RequestedAt, RespondedAt),
) {
    let CredentialUse { config, member, route, target, is_stored } = *used;
    let (accepted, scope) = (&pipeline.accepted, CredentialScope::of(member, route));
    match verdict {
        CredentialVerdict::Accepted => {
            let (recheck, (stamp, requested_at)) = (config.users.recheck(), asked);
            let since = accepted.accept(scope, stamp, requested_at);
            // Not each time: what other nodes know lasts for a while.
            let is_news = since.is_some_and(|since| since > recheck / 2);
            if is_news && target.storage_scope() == StorageScope::Fleet {
                fleet::announce(&pipeline.store, (member, scope), asked, recheck);
            }
            accepted.lift_denial(member, target, requested_at);
        }
        CredentialVerdict::Refused => {
            accepted.forget(scope);
            Box::pin(publish_refusal(pipeline, config, member)).await;
        }
        CredentialVerdict::Denied => {
            let denial = accepted.deny(member, target, answered);
            if is_stored {
                Box::pin(publish_rate_limited(pipeline, denial)).await;
            }
        }
        CredentialVerdict::None => {}
    }
}

/// The same of a request whose route has no members: a refusal ends its credentials on those that have.
async fn record_refusal_without_member<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    (config, identity_inputs): (&ConfigSnapshot, &IdentityInputs<'_>),
    verdict: CredentialVerdict,
) {
    if verdict == CredentialVerdict::Refused
        && let Some(holder) = credentials::holder(config, identity_inputs)
    {
        Box::pin(publish_refusal(pipeline, config, &holder)).await;
    }
}

/// Has the fleet know that the origin refused a member's credentials, on whatever route: at once if they were
/// accepted since the refusal before, else soon, if strangers cannot make up any like them.
async fn publish_refusal<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    config: &ConfigSnapshot,
    member: &PartitionMember,
) {
    let name = accepted_credentials::credential_name(member);
    if pipeline.accepted.refuse(member) {
        let selectors = vec![Selector::Credential(name.into())];
        let _at_least_here = invalidate::append(pipeline, selectors, PurgeSource::Refusal).await;
    } else if config.users.is_configured() {
        publish_rate_limited(pipeline, name).await;
    }
}

/// Has all nodes know of a refusal. None is dropped, since another node may have seen the credential accepted
/// since the one before.
async fn publish_rate_limited<S: Store>(pipeline: &Arc<Pipeline<S>>, name: String) {
    let used = (None, vec![Selector::Credential(name.into())]);
    let _now_or_soon = invalidate::purge_rate_limited(pipeline, used, PurgeSource::Refusal).await;
}

/// Notes what nodes say about targets that the origin denied to credentials, for as long as the purge log is
/// there.
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

//! Acceptances that the nodes of a fleet share: what the origin said to one, the others need not ask.
//!
//! One is written like a response without content: under its own key, with the stamp of the question to the
//! origin, an end after `recheck`, and the tag of the credential. So it is judged as stored responses are,
//! and a refusal or a logout ends it on every node.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use super::{AcceptedCredentials, CredentialScope, credential_name};
use crate::{
    entry::{CompleteBody, Entry, ResponseDraft, StoredResponse},
    fence::{FenceStamp, OwnedResponseAttributes, PurgeVerdict, credential_tag},
    field::Timestamp,
    key::CacheKey,
    policy::{Freshness, freshness::Constraints},
    purge::AppliedPurges,
    store::Store,
    user::PartitionMember,
};

/// Begins the keys of acceptances. No target has such a key: methods are no longer than seven letters.
const KEY: &[u8] = b"\x08accepted";

fn key(scope: CredentialScope) -> CacheKey {
    CacheKey::from_text(&[KEY, &scope.bytes()].concat())
}

/// Has the other nodes know that the origin accepted a member's credentials, when it was asked under this
/// stamp at that time, by the node's own clock.
pub(crate) fn announce<S: Store>(
    store: &S,
    (member, scope): (&PartitionMember, CredentialScope),
    (stamp, requested_at): (FenceStamp, Timestamp),
    recheck: Duration,
) {
    let key = key(scope);
    store.put_shared(&key, || {
        let response = acceptance_response((key.clone(), member), (stamp, requested_at), recheck);
        response.map(|response| Entry::Response(response.into()))
    });
}

/// An acceptance in the form of a stored response.
fn acceptance_response(
    (key, member): (CacheKey, &PartitionMember),
    (stamp, requested_at): (FenceStamp, Timestamp),
    recheck: Duration,
) -> Option<StoredResponse> {
    let freshness = Freshness {
        received_at: requested_at,
        initial_age: Duration::ZERO,
        lifetime: recheck,
        stale_while_revalidate: None,
        stale_if_error: None,
        usable_for: Some(recheck),
        constraints: Constraints::default(),
    };
    let draft = ResponseDraft {
        key,
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        freshness,
        tags: vec![credential_tag(&credential_name(member))],
        attributes: OwnedResponseAttributes::default(),
        stamp,
        requested_at,
    };
    draft.complete(&CompleteBody::none())
}

/// Takes over what another node announced of a member's credentials. Returns whether they count as accepted
/// for a request that came at `started`, which is `now` by the node's own clock. Costs one question to Redis.
pub(crate) async fn adopt<S: Store>(
    (accepted, store): (&AcceptedCredentials, &S),
    scope: CredentialScope,
    applied_purges: &AppliedPurges,
    (started, now): (Instant, Timestamp),
    recheck: Duration,
) -> bool {
    let Some(Entry::Response(response)) = store.get_shared(&key(scope)).await else { return false };
    let is_recent =
        !response.freshness.has_ended(now) && now.saturating_since(response.requested_at) < recheck;
    if !is_recent || applied_purges.judge(&response, started) != PurgeVerdict::Alive {
        return false;
    }
    let stamp = FenceStamp {
        fence: response.fence(),
        version: response.checked_version(),
        began: response.requested_at_monotonic(),
    };
    accepted.accept(scope, stamp, response.requested_at);
    true
}

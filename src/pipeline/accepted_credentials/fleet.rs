//! Shares acceptances of credentials among the nodes of a fleet, so that one recheck serves all
//! nodes.
//!
//! An acceptance is stored in Redis like a response without content, under its own key. It carries
//! the fence stamp of the origin request, expires after `recheck`, and has the tag of the
//! credential. Purges therefore apply to it as to stored responses: a refusal or a logout ends it
//! on every node.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use super::{AcceptanceKey, AcceptedCredentials};
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

/// Prefix of the keys of acceptances. No target's key has this prefix, because methods have at most
/// seven letters.
const KEY: &[u8] = b"\x08accepted";

fn key(scope: AcceptanceKey) -> CacheKey {
    CacheKey::from_text(&[KEY, &scope.bytes()].concat())
}

/// Announces to other nodes that the origin accepted a member's credentials.
///
/// `stamp` is the fence stamp of the origin request, and `requested_at` its time by the monotonic
/// clock.
pub(crate) fn announce<S: Store>(
    store: &S,
    (member, scope): (&PartitionMember, AcceptanceKey),
    (stamp, requested_at): (FenceStamp, Timestamp),
    recheck: Duration,
) {
    let key = key(scope);
    store.put_shared(&key, || {
        let response = acceptance_response((key.clone(), member), (stamp, requested_at), recheck);
        response.map(|response| Entry::Response(response.into()))
    });
}

/// Returns an acceptance in the form of a stored response.
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
        tags: vec![credential_tag(&member.credential_name())],
        attributes: OwnedResponseAttributes::default(),
        stamp,
        requested_at,
    };
    draft.complete(&CompleteBody::none())
}

/// Records an acceptance that another node announced.
///
/// Returns whether the credentials count as accepted for a request that arrived at `started`, which
/// is `now` by the monotonic clock. Costs one read from Redis.
pub(crate) async fn adopt<S: Store>(
    (accepted, store): (&AcceptedCredentials, &S),
    scope: AcceptanceKey,
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

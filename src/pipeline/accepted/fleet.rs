//! Acceptances that the nodes of a fleet share: what the origin said to one, the others need not ask.
//!
//! One is written like a response without content: under its own key, with the stamp of the question to the
//! origin, an end after `recheck`, and the tag of the credential. So it is judged as stored responses are,
//! and a refusal or a logout ends it on every node.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use super::{Accepted, Place, credential};
use crate::{
    entry::{CompleteBody, Draft, Entry, StoredResponse},
    fence::{OwnFacets, Stamp, Verdict, credential_tag},
    field::Timestamp,
    key::CacheKey,
    policy::{Freshness, freshness::Constraints},
    purge::Fences,
    store::Store,
    user::Member,
};

/// Begins the keys of acceptances. No target has such a key: methods are no longer than seven letters.
const KEY: &[u8] = b"\x08accepted";

fn key(place: Place) -> CacheKey {
    CacheKey::from_text(&[KEY, &place.bytes()].concat())
}

/// Has the other nodes know that the origin accepted a member's credentials, when it was asked under this
/// stamp at that time, by the node's own clock.
pub fn announce<S: Store>(
    store: &S,
    (member, place): (&Member, Place),
    (stamp, asked_at): (Stamp, Timestamp),
    recheck: Duration,
) {
    let key = key(place);
    store.announce(&key, || {
        let noted = noted((key.clone(), member), (stamp, asked_at), recheck);
        noted.map(|noted| Entry::Response(noted.into()))
    });
}

/// An acceptance in the form of a stored response.
fn noted(
    (key, member): (CacheKey, &Member),
    (stamp, asked_at): (Stamp, Timestamp),
    recheck: Duration,
) -> Option<StoredResponse> {
    let freshness = Freshness {
        received_at: asked_at,
        initial_age: Duration::ZERO,
        lifetime: recheck,
        stale_while_revalidate: None,
        stale_if_error: None,
        usable_for: Some(recheck),
        constraints: Constraints::default(),
    };
    let draft = Draft {
        key,
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        freshness,
        tags: vec![credential_tag(&credential(member))],
        facets: OwnFacets::default(),
        stamp,
        asked_at,
    };
    draft.complete(&CompleteBody::none())
}

/// Takes over what another node announced of a member's credentials. Returns whether they count as accepted
/// for a request that came at `started`, which is `now` by the node's own clock. Costs one question to Redis.
pub async fn take_over<S: Store>(
    (accepted, store): (&Accepted, &S),
    place: Place,
    fences: &Fences,
    (started, now): (Instant, Timestamp),
    recheck: Duration,
) -> bool {
    let Some(Entry::Response(noted)) = store.announced(&key(place)).await else { return false };
    let is_recent = !noted.freshness.is_over(now) && now.saturating_since(noted.asked_at) < recheck;
    if !is_recent || fences.judge(&noted, started) != Verdict::Alive {
        return false;
    }
    let stamp = Stamp { fence: noted.fence(), version: noted.checked(), began: noted.began() };
    accepted.accept(place, stamp, noted.asked_at);
    true
}

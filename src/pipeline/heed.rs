//! What the origin's answers say about the credentials that they were asked with: noted on this node, and told
//! to the fleet where it ends something.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Pipeline,
    accepted::{self, Place, fleet},
    credentials::{self, Asking},
    fetch::{Ask, Exchange},
    inquiry::{Inquiry, Need},
    invalidate,
    receive::Lookup,
    site::Site,
};
use crate::{
    fence::{Selector, Source, Stamp},
    field::Timestamp,
    key::{CacheKey, Reach},
    policy::Partition,
    purge::Heard,
    store::Store,
    user::Member,
};

/// What an answer says about the credentials that it was asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The origin accepts them.
    Accepted,
    /// It refuses them.
    Refused,
    /// It refuses them this target.
    Denied,
    /// Nothing.
    None,
}

impl Word {
    /// What a response with this status to a safe request says.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Refused,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Self::Denied,
            status if status.is_success() => Self::Accepted,
            _ => Self::None,
        }
    }
}

/// What an answer is about.
struct Subject<'a> {
    site: &'a Site,
    /// The member that asked.
    member: &'a Member,
    /// The name of the route.
    route: &'a str,
    target: &'a CacheKey,
    /// Whether anything is stored for the target.
    is_stored: bool,
}

/// When the origin was asked: under which stamp, and at what time by the node's own clock.
type Asked = (Stamp, Timestamp);

/// When it answered, by the system's clock and by the node's own.
type Answered = (Timestamp, Timestamp);

impl<S: Store> Ask<S> {
    /// Heeds what an answer says about the credentials that it was asked with. Those who wait for that go on.
    pub(super) async fn heed(&mut self, word: Word, exchange: Exchange) {
        let (pipeline, site) = (&self.pipeline, &self.site);
        if let Some(member) = self.member.as_deref() {
            let subject = Subject {
                site,
                member,
                route: site.route_name(self.route),
                target: &self.target,
                is_stored: self.stored.is_some(),
            };
            let answered = (exchange.answered, exchange.received);
            heed(pipeline, &subject, word, ((self.stamp, self.asked_at), answered)).await;
        } else if site.route(self.route).rule.partition == Partition::None {
            let peer = self.way.0.map(|peer| peer.ip().to_canonical());
            let asking = Asking::of(&self.request, peer, exchange.answered);
            heed_bare(pipeline, (site, &asking), word).await;
        }
        if let Some(recheck) = &mut self.recheck {
            recheck.end();
        }
    }

    /// Whether a response is about the credentials that were sent, and says nothing to other members of the
    /// partition: a 401, or a denial to one that asked for the sake of its own credentials.
    pub(super) fn is_refusal(&self, status: StatusCode) -> bool {
        let is_shared = self.site.route(self.route).rule.partition != Partition::User;
        self.member.is_some()
            && match Word::of(status) {
                Word::Refused => true,
                Word::Denied => is_shared && self.recheck.is_some(),
                Word::Accepted | Word::None => false,
            }
    }
}

impl<S: Store> Inquiry<S> {
    /// Heeds what the origin says to a safe request that it answered as it is: of what the cache could have
    /// answered, or else of what it has no part in.
    pub(super) async fn heed(
        &self,
        lookup: Option<(&Lookup, &Need)>,
        status: StatusCode,
        asked: Asked,
    ) {
        let Self { pipeline, site, route, .. } = self;
        let word = Word::of(status);
        let Some((lookup, need)) = lookup else {
            return heed_bare(pipeline, (site, &self.asking()), word).await;
        };
        let Some(member) = lookup.member.as_deref() else {
            // What was taken off was not refused.
            if self.rule().partition == Partition::None {
                heed_bare(pipeline, (site, &self.asking()), word).await;
            }
            return;
        };
        let subject = Subject {
            site,
            member,
            route: site.route_name(*route),
            target: &lookup.target,
            is_stored: need.stored.is_some(),
        };
        let answered = (pipeline.clock.now(), pipeline.clock.steady());
        heed(pipeline, &subject, word, (asked, answered)).await;
    }
}

/// Notes what an answer says about a member's credentials, and has the fleet know of it. Waits for the purge
/// log as a write does, if there is a refusal.
async fn heed<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    subject: &Subject<'_>,
    word: Word,
    (asked, answered): (Asked, Answered),
) {
    let Subject { site, member, route, target, is_stored } = *subject;
    let (accepted, place) = (&pipeline.accepted, Place::of(member, route));
    match word {
        Word::Accepted => {
            let (recheck, (stamp, asked_at)) = (site.users.recheck(), asked);
            let since = accepted.accept(place, stamp, asked_at);
            // Not each time: what other nodes know lasts for a while.
            let is_news = since.is_some_and(|since| since > recheck / 2);
            if is_news && target.reach() == Reach::Fleet {
                fleet::announce(&pipeline.store, (member, place), asked, recheck);
            }
            accepted.allow(member, target, asked_at);
        }
        Word::Refused => {
            accepted.forget(place);
            Box::pin(heed_refusal(pipeline, site, member)).await;
        }
        Word::Denied => {
            let denial = accepted.deny(member, target, answered);
            if is_stored {
                Box::pin(tell_fleet(pipeline, denial)).await;
            }
        }
        Word::None => {}
    }
}

/// The same of a request whose route has no members: a refusal ends its credentials on those that have.
async fn heed_bare<S: Store>(
    pipeline: &Arc<Pipeline<S>>,
    (site, asking): (&Site, &Asking<'_>),
    word: Word,
) {
    if word == Word::Refused
        && let Some(holder) = credentials::holder(site, asking)
    {
        Box::pin(heed_refusal(pipeline, site, &holder)).await;
    }
}

/// Has the fleet know that the origin refused a member's credentials, on whatever route: at once if they were
/// accepted since the refusal before, else soon, if strangers cannot make up any like them.
async fn heed_refusal<S: Store>(pipeline: &Arc<Pipeline<S>>, site: &Site, member: &Member) {
    let name = accepted::credential(member);
    if pipeline.accepted.refuse(member) {
        let selectors = vec![Selector::Credential(name.into())];
        let _at_least_here = invalidate::append(pipeline, selectors, Source::Refusal).await;
    } else if site.users.are_verified() {
        tell_fleet(pipeline, name).await;
    }
}

/// Has all nodes know of a refusal. None is dropped, since another node may have seen the credential accepted
/// since the one before.
async fn tell_fleet<S: Store>(pipeline: &Arc<Pipeline<S>>, name: String) {
    let subject = (None, vec![Selector::Credential(name.into())]);
    let _now_or_soon = invalidate::purge_in_turn(pipeline, subject, Source::Refusal).await;
}

/// Notes what nodes say about targets that the origin denied to credentials, for as long as the purge log is
/// there.
pub async fn follow_denials<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.records();
    loop {
        let Heard::Record { record, .. } = records.next().await else { continue };
        for selector in &record.purge.selectors {
            if let Selector::Credential(name) = selector {
                let now = (pipeline.clock.now(), pipeline.clock.steady());
                pipeline.accepted.deny_named(name, now);
            }
        }
    }
}

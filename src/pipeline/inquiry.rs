//! One request and what it takes to answer it: what is stored for it, who fetches the same, and the
//! question that goes to the origin.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Method, Request, Uri, header, request::Parts};
use tokio::time::timeout;

use super::{
    Pipeline, Site,
    accepted::{Place, Recheck, Turn, fleet},
    collapse::{Role, Takeoff},
    credentials::Asking,
    fetch::{Ask, Audience, Drained},
    fill::FillReader,
    finish::Received,
    landing::{Again, Arriving, Failure, Landing, Settled},
    lookup::{self, Asked, Found, SoftPurge, Stored, Tier},
    popular::{self, Way},
    receive::{Ingress, Lookup},
    uncacheable::{Asker, Known},
};
use crate::{
    entry::StoredResponse,
    field::{Timestamp, presence::Presence},
    forward::{self, Source},
    key::{
        CacheKey, OriginTarget, Reach,
        target::{Readings, normal_path},
    },
    origin::RequestBody,
    planted::{self, Bug},
    policy::{
        Credentials, Forward, Freshness, Reason, RequestDirectives, ResponseDirectives, Reuse,
        Rule, failure::kept_from, invalidation, reuse, stale, stale::Outage,
    },
    server::Connection,
    store::Store,
    user::Member,
};

/// How often a request joins a fetch that turns out to bring another variant.
const JOINS: usize = 3;

/// How long a request waits for what the origin says to another one with the same credentials.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that the store may answer, or the origin.
pub struct Inquiry<S> {
    /// Where it is answered.
    pub pipeline: Arc<Pipeline<S>>,
    /// The configuration in force when it came.
    pub site: Arc<Site>,
    /// The route's index.
    pub route: usize,
    /// When it came.
    pub received: Received,
    /// By which connection.
    pub connection: Arc<Connection>,
    /// Its head.
    pub request: Arc<Parts>,
    /// Which fields that has.
    pub presence: Presence,
}

/// What a stored response is good for.
pub enum Weighed {
    /// It may be used.
    Fresh(Stored),
    /// It may be used although it is stale, for this reason.
    Stale(Stored, Reason),
    /// The origin has to be asked.
    Needed(Need),
}

impl Weighed {
    /// Whether the fleet's store may have something better. What fails this node's fetches may not fail those of
    /// others.
    fn may_be_bettered(&self) -> bool {
        match self {
            Self::Fresh(_) => false,
            Self::Stale(_, reason) => is_bridge(*reason),
            Self::Needed(need) => need.known != Some(Known::Unstored),
        }
    }

    /// The same for credentials that the origin has not accepted lately: they go there first.
    fn rechecked(self, recheck: Recheck) -> Self {
        let need = match self {
            Self::Fresh(stored) | Self::Stale(stored, _) => Need::of_recheck(stored),
            Self::Needed(need) => need,
        };
        Self::Needed(Need { recheck: Some(recheck), ..need })
    }
}

/// What became of waiting with others.
pub enum Joined {
    /// Nobody asks yet: this request does, for all.
    Leading(Need, Takeoff),
    /// Another request's response answers this one too.
    Reading(Arc<Arriving>, FillReader),
    /// What is stored may be used after all.
    Settled(Settled),
    /// The origin failed the one who asked it.
    Failed(Failure),
    /// What came is for somebody else alone.
    Nothing(Need),
}

/// Why the origin has to be asked, and about what.
pub struct Need {
    /// The key under which others who need the same wait.
    pub key: CacheKey,
    /// What may be revalidated.
    pub stored: Option<Stored>,
    /// What `Cache-Status` says.
    pub forward: Forward,
    /// The detail.
    pub reason: Reason,
    /// What could lately not be done with responses under the key.
    pub known: Option<Known>,
    /// The turn of credentials that the origin has not accepted lately.
    pub recheck: Option<Recheck>,
    /// Whether those who wait for the fetch may try once more if it fails.
    pub again: Again,
}

impl Need {
    /// Whether this request may wait for, or lead, a fetch that answers others too.
    pub fn may_be_shared(&self, lookup: &Lookup, rule: &Rule) -> bool {
        let directives = &lookup.directives;
        !lookup.credentials.ask_alone(rule)
            && !directives.no_cache
            && !directives.no_store
            && self.known.is_none()
            && self.recheck.is_none()
    }

    /// The cache is bypassed: whatever is stored under this key, the origin is asked.
    pub fn of_bypass(key: CacheKey) -> Self {
        let (forward, reason) = (Forward::Bypass, Reason::RuleBypass);
        Self { key, stored: None, forward, reason, known: None, recheck: None, again: Again::Once }
    }

    /// A stored response has to be renewed.
    pub fn of_stale(stored: Stored, reason: Reason) -> Self {
        let (key, forward) = (stored.key.clone(), Forward::Stale);
        Self {
            key,
            stored: Some(stored),
            forward,
            reason,
            known: None,
            recheck: None,
            again: Again::Once,
        }
    }

    /// The origin is asked about the credentials first, and about what is stored.
    fn of_recheck(stored: Stored) -> Self {
        Self { forward: Forward::Request, ..Self::of_stale(stored, Reason::Recheck) }
    }
}

impl<S> Inquiry<S> {
    /// The same, for a task that outlives its client.
    pub fn share(&self) -> Self {
        Self {
            pipeline: Arc::clone(&self.pipeline),
            site: Arc::clone(&self.site),
            route: self.route,
            received: self.received,
            connection: Arc::clone(&self.connection),
            request: Arc::clone(&self.request),
            presence: self.presence,
        }
    }

    /// The request, as far as it says who asks.
    pub fn asking(&self) -> Asking<'_> {
        Asking {
            query: self.request.uri.query(),
            headers: &self.request.headers,
            presence: self.presence,
            peer: self.connection.peer.map(|peer| peer.ip().to_canonical()),
            now: self.received.at,
        }
    }

    /// Whether it may change what is stored.
    pub fn is_unsafe(&self) -> bool {
        let method = &self.request.method;
        invalidation::is_unsafe(method, self.presence)
            || self.site.route(self.route).is_logout(method)
    }
}

impl<S: Store> Inquiry<S> {
    /// What is stored for it, and what that is good for. Credentials that the origin has not accepted lately
    /// go there first, whatever is stored.
    pub async fn look_up(&self, lookup: &Lookup) -> Weighed {
        let Some(member) = lookup.member.as_deref() else { return self.weighed(lookup).await };
        let Some(recheck) = self.recheck(member, lookup).await else {
            return self.weighed(lookup).await;
        };
        self.weighed(lookup).await.rechecked(recheck)
    }

    /// What [`Self::look_up`] would come to now. Takes no turn from another request, and waits for none.
    pub async fn would_look_up(&self, lookup: &Lookup) -> Weighed {
        let weighed = self.weighed(lookup).await;
        let Some(member) = lookup.member.as_deref() else { return weighed };
        if self.is_accepted(member, lookup) {
            return weighed;
        }
        weighed.rechecked(Recheck::alone())
    }

    /// Whether a member's credentials have to be rechecked by this request; waits if another one does, but not
    /// for long: the other may ask for what takes a minute, or never ends.
    async fn recheck(&self, member: &Member, lookup: &Lookup) -> Option<Recheck> {
        let accepted = &self.pipeline.accepted;
        if accepted.is_denied(member, &lookup.target, self.received.steady) {
            return Some(Recheck::alone());
        }
        let place = Place::of(member, self.site.route_name(self.route));
        let mut has_waited = false;
        while !self.is_accepted(member, lookup) {
            match accepted.turn(place) {
                Turn::First(turn) => {
                    let is_shared = lookup.target.reach() == Reach::Fleet;
                    if is_shared && self.is_accepted_elsewhere(place).await {
                        break;
                    }
                    return Some(Recheck::first(turn));
                }
                Turn::Wait(mut first) if !has_waited => {
                    let _ended_or_late = timeout(PATIENCE, first.changed()).await;
                    has_waited = true;
                }
                Turn::Wait(_) => return Some(Recheck::alone()),
            }
        }
        None
    }

    fn is_accepted(&self, member: &Member, lookup: &Lookup) -> bool {
        let (site, received) = (&self.site, self.received);
        self.pipeline.is_accepted(site, site.route_name(self.route), (member, lookup), received)
    }

    /// Whether another node knows that the origin accepts these credentials.
    async fn is_accepted_elsewhere(&self, place: Place) -> bool {
        let (pipeline, received) = (&self.pipeline, self.received);
        let known = (&*pipeline.accepted, &pipeline.store);
        let (fences, recheck) = (pipeline.log.fences(), self.site.users.recheck());
        let at = (received.started, received.steady);
        fleet::take_over(known, place, fences, at, recheck).await
    }

    /// What is stored for it, and what that is good for. The shared tier is asked if what is at hand does not
    /// do, or only stands in for an origin that fails, unless it is known that nothing can be stored.
    async fn weighed(&self, lookup: &Lookup) -> Weighed {
        let near = self.find(Tier::Near, lookup).await;
        let weighed = self.weigh(lookup, near);
        if !weighed.may_be_bettered() {
            return weighed;
        }
        // Boxed: if nothing is far, no request should carry it.
        let far = Box::pin(self.find(Tier::Far, lookup)).await;
        self.weigh(lookup, far)
    }

    /// What the stored response is good for, if there is one.
    fn weigh(&self, lookup: &Lookup, found: Found) -> Weighed {
        let stored = match found {
            Found::Stored(stored) => stored,
            Found::Absent { key, forward, reason } => {
                return Weighed::Needed(self.need(lookup, (key, None), forward, reason));
            }
        };
        let key = stored.key.clone();
        let rule = &self.site.route(self.route).rule;
        let reuse = may_answer(&stored.response, lookup, rule, self.received.steady);
        let reuse = match stored.purged {
            SoftPurge::No => reuse,
            SoftPurge::Yes => reuse.after_soft_purge(&stored.response.freshness),
            SoftPurge::Outdated => reuse.of_previous_version(&stored.response.freshness),
        };
        match reuse {
            Reuse::Fresh => Weighed::Fresh(stored),
            Reuse::StaleWhileRevalidate => Weighed::Stale(stored, Reason::StaleWhileRevalidate),
            Reuse::SoftPurged => Weighed::Stale(stored, Reason::SoftPurged),
            Reuse::PreviousVersion => Weighed::Stale(stored, Reason::PreviousVersion),
            Reuse::StaleByRequest => Weighed::Stale(stored, Reason::RequestMaxStale),
            Reuse::Revalidate(reason) => {
                if let Some(why) = self.bridged(lookup, &stored, reason) {
                    return Weighed::Stale(stored, why);
                }
                let forward = forward_of(reason);
                Weighed::Needed(self.need(lookup, (key, Some(stored)), forward, reason))
            }
            Reuse::Unusable(reason) => {
                Weighed::Needed(self.need(lookup, (key, None), Forward::Request, reason))
            }
        }
    }

    fn need(
        &self,
        lookup: &Lookup,
        (key, stored): (CacheKey, Option<Stored>),
        forward: Forward,
        reason: Reason,
    ) -> Need {
        let asker = Asker::of(lookup.credentials, self.rule());
        let known = self.pipeline.uncacheable.known((&key, asker), self.received.steady);
        Need { key, stored, forward, reason, known, recheck: None, again: Again::Once }
    }

    /// Why a stale response is served without asking: the origin has said when it wants to be asked again, or
    /// fetches for it failed a moment ago. A client that insists on validation gets it.
    fn bridged(&self, lookup: &Lookup, stored: &Stored, reason: Reason) -> Option<Reason> {
        if forward_of(reason) == Forward::Request {
            return None;
        }
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let outage = pipeline
            .outages
            .of(&stored.key, now)
            .or_else(|| pipeline.backoff.is_wanted(&stored.key, now).then_some(Outage::Error))?;
        let known = (stored.response.status, &stored.response.freshness);
        stale::bridge(known, outage, &lookup.directives, self.rule(), now)
    }

    /// Waits with whoever asks for the same, or takes the lead. After a failure one of those who wait leads
    /// once more, if that is of use.
    pub async fn together(&self, lookup: &Lookup, mut need: Need) -> Joined {
        let mut again = Again::Once;
        for left in (0..JOINS).rev() {
            let waiting = match self.join(lookup, &need.key) {
                Role::Leader(flight) => return Joined::Leading(Need { again, ..need }, flight),
                Role::Follower(waiting) => waiting,
            };
            if let Some(metrics) = self.site.metrics.get(self.route) {
                metrics.collapsed.inc();
            }
            match waiting.landed().await {
                Some(Landing::Settled(settled)) if settled.stands_under(&need.key) => {
                    let freshness = settled.response.freshness;
                    let is_other = settled.comes_second(&self.request.headers);
                    return if is_other || self.is_withheld(&freshness, lookup) {
                        Joined::Nothing(need)
                    } else {
                        self.settled(lookup, settled)
                    };
                }
                Some(Landing::Failed(failure)) => {
                    let may_try = failure.again == Again::Once && again == Again::Once && left > 0;
                    match self.after_failure(lookup, &need, failure) {
                        Joined::Failed(_) | Joined::Reading(..) if may_try => again = Again::No,
                        joined => return joined,
                    }
                }
                Some(Landing::Arriving(arriving)) if self.is_answered_by(&arriving) => {
                    return match arriving.fill.reader() {
                        Some(reader) if !self.is_withheld(&arriving.freshness, lookup) => {
                            Joined::Reading(arriving, reader)
                        }
                        _ => Joined::Nothing(need),
                    };
                }
                // It turned out to be a variant, and another one perhaps; now the own variant's key is
                // known.
                Some(Landing::Arriving(_) | Landing::Settled(_)) => {
                    match self.look_up(lookup).await {
                        Weighed::Fresh(stored) => {
                            return Joined::Settled(Settled::found(&stored));
                        }
                        Weighed::Stale(stored, reason) if is_bridge(reason) => {
                            let settled = Settled::bridging(&stored.response, reason, None);
                            return Joined::Settled(settled);
                        }
                        Weighed::Stale(stored, reason) => need = Need::of_stale(stored, reason),
                        Weighed::Needed(own) => need = own,
                    }
                }
                Some(Landing::Alone) | None => return Joined::Nothing(need),
            }
        }
        Joined::Nothing(need)
    }

    /// What another request's fetch settled. If that bridges a failure because its own request allowed it,
    /// this one gets the failure.
    fn settled(&self, lookup: &Lookup, settled: Settled) -> Joined {
        let (now, stored) = (self.pipeline.clock.steady(), &settled.response);
        let outage = match settled.reason {
            Some(Reason::StaleIfError) => Outage::Error,
            Some(Reason::StaleIfDisconnected) => Outage::Disconnected,
            _ => return Joined::Settled(settled),
        };
        let known = (stored.status, &stored.freshness);
        match stale::bridge(known, outage, &lookup.directives, self.rule(), now) {
            Some(_) => Joined::Settled(settled),
            None => Joined::Failed(Failure::bridged(&settled)),
        }
    }

    /// What this request gets after another one's fetch for it failed: what is stored, if that may stand in;
    /// else the error response, as far as it is for others too; else word of the failure.
    fn after_failure(&self, lookup: &Lookup, need: &Need, failure: Failure) -> Joined {
        let (outage, now) = (failure.outage, self.pipeline.clock.steady());
        let (asked, failed) =
            ((&lookup.directives, self.rule()), (outage, failure.origin_status()));
        if let Some(settled) = self.pipeline.bridge(need.stored.as_ref(), asked, failed, now) {
            return Joined::Settled(settled);
        }
        let response = failure.response.as_ref().filter(|it| self.may_have_error(lookup, it));
        match response.and_then(|it| Some((Arc::clone(it), it.fill.reader()?))) {
            Some((response, reader)) => Joined::Reading(response, reader),
            None => Joined::Failed(failure),
        }
    }

    fn may_have_error(&self, lookup: &Lookup, response: &Arriving) -> bool {
        let directives = ResponseDirectives::parse(&response.headers);
        self.is_answered_by(response) && kept_from(lookup.credentials, &directives).is_none()
    }

    async fn find(&self, tier: Tier, lookup: &Lookup) -> Found {
        let asked = Asked {
            vary: &self.site.route(self.route).vary,
            headers: &self.request.headers,
            presence: lookup.presence,
            fences: self.pipeline.log.fences(),
            started: self.received.started,
            version: &self.site.version,
        };
        lookup::find((&self.pipeline.store, tier), &lookup.target, &asked).await
    }

    fn join(&self, lookup: &Lookup, key: &CacheKey) -> Role {
        let facets = self.site.facets(self.route, lookup.member.as_deref());
        let fences = self.pipeline.log.fences();
        let shared = Bug::CollapseWithoutPartition.is_planted().then(|| anyones(key)).flatten();
        let key = shared.as_ref().unwrap_or(key);
        self.pipeline.flights.join(key, &facets, fences, self.received.started)
    }

    /// Whether this request may not have what another fetched, or its token has ended while it waited.
    fn is_withheld(&self, freshness: &Freshness, lookup: &Lookup) -> bool {
        let has_ended = lookup.member.as_deref().is_some_and(|member| {
            member.expires.is_some_and(|end| end <= self.pipeline.clock.now())
        });
        has_ended || freshness.withheld_from(lookup.credentials).is_some()
    }

    fn is_answered_by(&self, arriving: &Arriving) -> bool {
        arriving.answers(&self.site.route(self.route).vary, &self.request.headers)
    }

    /// The rule of its route.
    pub fn rule(&self) -> &Rule {
        &self.site.route(self.route).rule
    }

    /// Renews a stored response in the background, unless somebody does already, the origin wants to be left
    /// alone, or it fails and it is not yet time for another probe. It is Larder's own request: what the client's directives say does not concern it.
    pub fn refresh(&self, lookup: &Lookup, stored: &Stored, reason: Reason) {
        let (pipeline, now) = (&self.pipeline, self.received.steady);
        let backoff = &pipeline.backoff;
        if backoff.is_wanted(&stored.key, now)
            || backoff.is_postponed(&stored.key, now)
            || !pipeline.outages.admits(&stored.key, now)
        {
            return;
        }
        let Role::Leader(flight) = self.join(lookup, &stored.key) else { return };
        let need = Need::of_stale(stored.clone(), reason);
        let request = if lookup.presence.has(Presence::DIRECTIVES) {
            without_directives(&self.request)
        } else {
            Arc::clone(&self.request)
        };
        let request =
            if Bug::RefreshForAnother.is_planted() { mixed_up(&request) } else { request };
        let mut question = self.ask(lookup, need, (&request, RequestDirectives::default()));
        question.audience = Audience::None;
        let (pipeline, key) = (Arc::clone(&self.pipeline), stored.key.clone());
        tokio::spawn(async move {
            // What is left unread is stored only if it fits into memory as a whole.
            if question.run(Some(flight)).await.drained().await == Drained::NotKept {
                pipeline.backoff.postpone(&key, pipeline.clock.steady());
            }
        });
    }

    /// Notes a hit that did not stand in memory before: each of them where there is one, else few.
    pub fn note_far_hit(&self, stored: &Stored, credentials: Credentials) {
        const FEW: usize = 16;
        let Stored { key, response, .. } = stored;
        let is_at_hand = self.pipeline.store.peek(key).is_some();
        if is_at_hand || response.id.number().is_multiple_of(FEW) {
            let asked = popular::Again {
                request: &self.request,
                way: self.way(),
                credentials,
                site: &self.site,
                route: self.route,
            };
            self.pipeline.note_popular(&asked, (key, response));
        }
    }

    /// Notes how this client asked, for what is fetched ahead of others like it.
    pub fn note_client(&self) {
        let Self { pipeline, site, connection, request, .. } = self;
        let ingress = Ingress::of(site, &request.headers, connection);
        pipeline.recent_clients.note(&ingress.host, connection, &request.headers);
    }

    fn way(&self) -> Way {
        (self.connection.peer, self.connection.secure)
    }

    /// The same where no client waits for the answer.
    pub fn question_of_larder(&self, lookup: &Lookup, need: Need) -> Box<Ask<S>> {
        let mut question = self.question(lookup, need);
        question.audience = Audience::None;
        question
    }

    /// What the origin is asked.
    pub fn question(&self, lookup: &Lookup, need: Need) -> Box<Ask<S>> {
        self.ask(lookup, need, (&self.request, lookup.directives))
    }

    fn ask(
        &self,
        lookup: &Lookup,
        need: Need,
        (request, directives): (&Arc<Parts>, RequestDirectives),
    ) -> Box<Ask<S>> {
        let target = lookup.target.origin_target();
        let url = target.as_ref().map(OriginTarget::purge_url).unwrap_or_default();
        Box::new(Ask {
            pipeline: Arc::clone(&self.pipeline),
            site: Arc::clone(&self.site),
            route: self.route,
            onward: self.onward_of(request, target),
            readings: Readings::of(request.uri.path()).into_owned(),
            url,
            credentials: lookup.credentials,
            member: lookup.member.clone(),
            recheck: need.recheck,
            directives,
            request: as_get(request),
            stamp: self.pipeline.log.fences().stamp(),
            asked_at: self.pipeline.clock.steady(),
            target: lookup.target.clone(),
            key: need.key,
            stored: need.stored,
            way: self.way(),
            interim: Some(self.connection.interim.clone()),
            again: need.again,
            audience: Audience::Client,
        })
    }

    /// The request as the origin is to see it, without a body: what the key asks for, or what came if the
    /// cache has no part in it.
    pub fn onward(&self, key: Option<&CacheKey>) -> Request<RequestBody> {
        self.onward_of(&self.request, key.and_then(CacheKey::origin_target))
    }

    fn onward_of(&self, request: &Parts, target: Option<OriginTarget<'_>>) -> Request<RequestBody> {
        let Parts { method, uri, headers, version, .. } = request;
        let as_sent = || {
            let ingress = Ingress::of(&self.site, headers, &self.connection);
            ingress.into_target(&self.site, method, uri)
        };
        let target = target.unwrap_or_else(as_sent);
        let source = Source {
            peer: self.connection.peer.map(|peer| peer.ip()),
            version: *version,
            is_trusted: self.site.trusts(&self.connection),
            is_gateway: self.site.is_gateway(&self.connection),
            known: Some(&self.connection.introduction),
        };
        let mut onward = Request::new(RequestBody::Empty);
        *onward.method_mut() = target.method.clone();
        *onward.uri_mut() = uri_of(&target, uri);
        *onward.headers_mut() =
            forward::request::headers(headers, &target, &source, &self.site.identity);
        onward
    }
}

/// The request that is sent where the cache asks: a `GET`, whatever its client asked.
fn as_get(request: &Arc<Parts>) -> Arc<Parts> {
    if request.method == Method::GET {
        return Arc::clone(request);
    }
    let mut request = Parts::clone(request);
    request.method = Method::GET;
    Arc::new(request)
}

/// The key of the same target for anyone: a planted bug.
#[cold]
fn anyones(key: &CacheKey) -> Option<CacheKey> {
    let target = key.origin_target()?;
    Some(OriginTarget { partition: Cow::Borrowed(&[]), ..target }.key())
}

/// The same request with the credentials of another one: a planted bug.
#[cold]
pub fn mixed_up(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    if let Some(credentials) = request.headers.get_mut(header::AUTHORIZATION) {
        planted::mix_up(credentials);
    }
    Arc::new(request)
}

fn without_directives(request: &Parts) -> Arc<Parts> {
    let mut request = request.clone();
    request.headers.remove(header::CACHE_CONTROL);
    request.headers.remove(header::PRAGMA);
    Arc::new(request)
}

/// The target as it is sent. Parameters that are left out leave a valid one.
fn uri_of(target: &OriginTarget<'_>, sent: &Uri) -> Uri {
    if Bug::NormalisedTarget.is_planted() {
        return Uri::try_from(&*normal_path(sent.path())).unwrap_or_default();
    }
    if *target.path == *sent.path() && target.query_to_send() == sent.query() {
        return sent.clone();
    }
    Uri::try_from(&*target.path_and_query()).unwrap_or_else(|_| sent.clone())
}

fn forward_of(reason: Reason) -> Forward {
    match reason {
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh => {
            Forward::Request
        }
        _ => Forward::Stale,
    }
}

/// Whether a stale response stands in for an origin that fails.
fn is_bridge(reason: Reason) -> bool {
    matches!(reason, Reason::StaleIfError | Reason::StaleIfDisconnected)
}

/// What a stored response is good for, purges aside.
pub fn may_answer(stored: &StoredResponse, lookup: &Lookup, rule: &Rule, now: Timestamp) -> Reuse {
    reuse(&stored.freshness, &lookup.directives, lookup.credentials, rule, now)
}

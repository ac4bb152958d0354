//! The life of a request, and the only place with transitions between its steps.
//!
//! ```text
//! receive ──► Refuse ─────────────────────────────────────────────► problem document
//!    ├──────► Pass ───────► pass: origin, as sent ────────────────► deliver ─► finish
//!    │                      └─ unsafe ─► write: a task of its own, purge ─► deliver
//!    ├──────► Refresh ────► fetch ─► admit ───────────────────────► deliver ─► finish
//!    └──────► Lookup ─► lookup ─► Fresh ──────────────────────────► deliver ─► finish
//!                          ├────► Stale, may be used ─► refresh in the background, deliver now
//!                          └────► Stale or Absent ─► collapse
//!                                                      ├─ leader ──► fetch ─► admit ─► deliver
//!                                                      ├─ follower ► the leader's landing ─► deliver
//!                                                      └─ alone ───► fetch ─► admit ─► deliver
//! ```
//!
//! Every step decides by pure functions of `policy`, `key` and `route`; only `fetch`, `pass` and
//! `admit` wait for the outside.

mod accepted;
mod admit;
mod answer;
mod backoff;
mod body;
mod clock;
mod collapse;
mod cookies;
mod credentials;
mod current;
mod deliver;
pub mod explain;
mod failed;
mod failure;
mod fetch;
mod fill;
mod finish;
mod heads;
mod heed;
mod identify;
mod inquiry;
mod invalidate;
mod landing;
mod last_hop;
mod logout;
mod lookup;
#[cfg(all(test, feature = "models"))]
mod models;
mod outages;
mod part;
mod pass;
mod payload;
mod popular;
mod purge_rate;
mod receive;
mod recent_clients;
mod sensitive;
mod site;
mod uncacheable;
mod verdict;
mod warmer;
mod write;
mod write_through;
mod writes;

use std::{
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Method, Request, Response, request::Parts};
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

pub use body::Body;
pub use clock::Clock;
pub use finish::OwnAnswer;
pub use heed::follow_denials;
pub use site::{OriginHost, ServedHosts, ServerTiming, Site, SiteId};
pub use warmer::{Warmer, warm_purged};

use crate::{
    entry::StoredResponse,
    fence::Selector,
    field::presence::Presence,
    forward::request_id,
    key::target::{Readings, Target, host, purge_url},
    origin::Load,
    parsing::Parsing,
    policy::{
        CacheResult, Credentials, Forward, Reason, RequestHead, Reuse,
        validation::{self, RangeOutcome},
    },
    purge::Log,
    server::{Connection, Handler, Incoming},
    store::Store,
    telemetry::Metrics,
    user::Member,
    warm::{self, Queue},
};
use accepted::{Accepted, Place};
use backoff::Backoff;
use collapse::{Flights, Takeoff};
use current::Current;
use deliver::Told;
use fill::FillBudget;
use finish::{Finish, Received};
use inquiry::{Inquiry, Joined, Need, Weighed, may_answer};
use lookup::Asked;
use outages::Outages;
use popular::Popular;
use receive::{Lookup, Verdict};
use recent_clients::RecentClients;
use uncacheable::Uncacheable;
use writes::Writes;

/// Bytes that bodies on their way to the store may take beside what is stored.
const FILLING: u64 = 16 << 20;

/// What answers requests on the public listener.
pub struct Pipeline<S> {
    site: Current,
    store: S,
    log: Arc<Log>,
    flights: Flights,
    accepted: Arc<Accepted>,
    uncacheable: Uncacheable,
    backoff: Backoff,
    outages: Outages,
    filling: Arc<FillBudget>,
    parsing: Parsing,
    clock: Clock,
    metrics: Arc<Metrics>,
    recent_clients: RecentClients,
    popular: Popular,
    warm: Queue,
    writes: Arc<Writes>,
}

/// A request that needs more than a fresh stored response: all that its steps share.
struct Context<S> {
    inquiry: Inquiry<S>,
    upgrade: Option<OnUpgrade>,
    finish: Box<Finish>,
}

impl<S: Store> Pipeline<S> {
    /// A pipeline over this store.
    pub fn new(
        site: Site,
        store: S,
        log: Arc<Log>,
        clock: Clock,
        (metrics, parsing): (Arc<Metrics>, Parsing),
    ) -> Arc<Self> {
        let warm = Queue::new(warm::Budget::default(), Arc::clone(&metrics));
        Arc::new(Self {
            site: Current::new(site),
            store,
            log,
            flights: Flights::new(),
            accepted: Accepted::new(),
            uncacheable: Uncacheable::new(),
            backoff: Backoff::new(),
            outages: Outages::new(),
            filling: FillBudget::new(FILLING),
            parsing,
            clock,
            metrics,
            recent_clients: RecentClients::default(),
            popular: Popular::default(),
            warm,
            writes: Writes::new(),
        })
    }

    /// Puts another configuration in force. Requests under way end under the old one; the cache stays.
    pub fn replace(&self, site: Site) {
        self.site.replace(site);
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// What selects a target in purges, under the route that governs a `GET` of it: its URL in normal form,
    /// or what stands for that if the route is sensitive.
    pub fn url(&self, target: &Target<'_>) -> Selector {
        self.site.with(|site| {
            let host = host::canonical(target.host, target.scheme);
            let path = Readings::of(target.path);
            let route = site.routes.select_loosest(&Method::GET, &host, &path).route;
            let query = credentials::purge_query(site, route, target.query);
            sensitive::asked_for(site, route, purge_url::of(&host, &path, query.as_deref()))
        })
    }

    /// Returns the owners of what belongs to a user, by issuer and claim.
    pub fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        self.site.with(|site| site.users.owners(issuer, claim))
    }

    /// The purge log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// What is to be fetched before anybody asks.
    pub fn warm(&self) -> &Queue {
        &self.warm
    }

    /// Waits until no write is under way, at most for `deadline`. Those that are left are then cut, and
    /// purge as writes whose outcome is unknown.
    pub async fn writes_finished(&self, deadline: Duration) {
        self.writes.finished(deadline).await;
    }

    /// How busy the connections to the origin are.
    pub fn origin_load(&self) -> Load {
        self.site.with(|site| site.origin.load())
    }

    /// Bytes of bodies on their way to the store.
    pub fn filling_bytes(&self) -> u64 {
        self.filling.used()
    }
}

/// What became of a request so far, without anything that had to be waited for.
enum Planned {
    /// It is answered.
    Hit(Response<Body>),
    /// It needs more.
    Further(Arc<Site>, usize, Verdict),
}

impl<S: Store> Handler for Pipeline<S> {
    type Body = Body;

    fn handle(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Body>> + Send {
        let received = Received::now(&self.clock);
        let mut presence = Presence::default();
        let planned = self.site.with(|site| {
            presence = receive::settle_fields(site, request.headers_mut(), connection);
            let came = (&**connection, received.at);
            let (route, verdict) = receive::plan(site, &request, presence, came);
            if let Verdict::Lookup(_) | Verdict::Refresh(_) = &verdict {
                let headers = request.headers_mut();
                credentials::make_anonymous(site, site.route(route), headers, presence);
            }
            match &verdict {
                Verdict::Lookup(lookup) => {
                    match self.fresh_at_hand(site, route, &request, lookup, received) {
                        Some(stored) => {
                            let stored = (lookup.presence, &*stored);
                            Planned::Hit(deliver::hit(site, route, received, &request, stored))
                        }
                        None => Planned::Further(Arc::clone(site), route, verdict),
                    }
                }
                _ => Planned::Further(Arc::clone(site), route, verdict),
            }
        });
        let (site, route, verdict) = match planned {
            Planned::Hit(hit) => return Either::Left(ready(hit)),
            Planned::Further(site, route, verdict) => (site, route, verdict),
        };
        request_id::ensure_request_id(request.headers_mut());
        let finish = Finish::begin(Arc::clone(&site), route, received, &request);
        let (mut request, body) = request.into_parts();
        let upgrade = request.extensions.remove::<OnUpgrade>();
        let request = Arc::new(request);
        let (pipeline, connection) = (Arc::clone(self), Arc::clone(connection));
        let finish = Box::new(finish);
        let inquiry = Inquiry { pipeline, site, route, received, connection, request, presence };
        let context = Context { inquiry, upgrade, finish };
        Either::Right(context.take(verdict, body))
    }
}

impl<S: Store> Pipeline<S> {
    /// The fresh stored response to a request, if it can be had without waiting.
    fn fresh_at_hand<B>(
        &self,
        site: &Site,
        route: usize,
        request: &Request<B>,
        lookup: &Lookup,
        received: Received,
    ) -> Option<Arc<StoredResponse>> {
        let route = site.route(route);
        let (vary, headers, fences) = (&route.vary, request.headers(), self.log.fences());
        if let Some(member) = lookup.member.as_deref()
            && !self.is_accepted(site, &route.name, (member, lookup), received)
        {
            return None;
        }
        let (started, version) = (received.started, &*site.version);
        let presence = lookup.presence;
        let asked = Asked { vary, headers, presence, fences, started, version };
        let stored = lookup::at_hand(&self.store, &lookup.target, &asked)?;
        let is_fresh = may_answer(&stored, lookup, &route.rule, received.steady) == Reuse::Fresh;
        is_fresh.then(|| {
            stored.note_asked();
            stored
        })
    }
}

impl<S> Pipeline<S> {
    /// Whether the origin has lately accepted a member's credentials, and has not denied them the target.
    fn is_accepted(
        &self,
        site: &Site,
        route: &str,
        (member, lookup): (&Member, &Lookup),
        received: Received,
    ) -> bool {
        let (place, at) = (Place::of(member, route), (received.started, received.steady));
        let (fences, recheck) = (self.log.fences(), site.users.recheck());
        !self.accepted.is_denied(member, &lookup.target, received.steady)
            && self.accepted.is_accepted((member, place), fences, at, recheck)
    }
}

impl<S: Store> Context<S> {
    /// Each way in a box of its own: a request in flight carries, and moves, no more than its own takes.
    fn take(self, verdict: Verdict, body: Incoming) -> BoxFuture<'static, Response<Body>> {
        match verdict {
            Verdict::Lookup(lookup) => self.consult(lookup, body).boxed(),
            Verdict::Pass(reason) => self.pass(body, pass::told(reason), None).boxed(),
            Verdict::Refresh(lookup) => self.refetch(lookup).boxed(),
            Verdict::Misdirected => {
                let reason = Some(Reason::Misdirected);
                let told = Told::forwarded(CacheResult::Bypass, Forward::Bypass, reason);
                ready(self.answer_problem(failure::misdirected(), told)).boxed()
            }
            Verdict::Loop => {
                let told =
                    Told::forwarded(CacheResult::Bypass, Forward::Bypass, Some(Reason::Loop));
                ready(self.answer_problem(failure::of_loop(), told)).boxed()
            }
        }
    }

    /// Asks the origin, whatever is stored, and stores what it answers.
    async fn refetch(self, lookup: Lookup) -> Response<Body> {
        let told = pass::told(Reason::RuleBypass);
        let need = Need::of_bypass(lookup.target.clone());
        let fetched = self.inquiry.question(&lookup, need).run(None).boxed().await;
        self.answer(fetched, told)
    }

    async fn consult(self, lookup: Lookup, body: Incoming) -> Response<Body> {
        match self.inquiry.look_up(&lookup).await {
            Weighed::Fresh(stored) => {
                self.inquiry.note_far_hit(&stored, lookup.credentials);
                self.answer_stored(&stored.response, Told::hit(CacheResult::Hit, None))
            }
            Weighed::Stale(stored, reason) => {
                if reason != Reason::RequestMaxStale {
                    self.inquiry.refresh(&lookup, &stored, reason);
                }
                let told = Told::hit(CacheResult::Stale, Some(reason));
                self.answer_stored(&stored.response, told)
            }
            Weighed::Needed(need) => self.ask(lookup, need, body).await,
        }
    }

    /// The origin is needed: alone, or together with everyone who needs the same.
    async fn ask(self, lookup: Lookup, need: Need, body: Incoming) -> Response<Body> {
        let told = Told::forwarded(CacheResult::Miss, need.forward, Some(need.reason));
        if lookup.directives.only_if_cached {
            let told = Told { reason: Some(Reason::OnlyIfCached), ..told };
            return self.answer_problem(failure::only_if_cached(), told);
        }
        let is_for_origin =
            |stored: &lookup::Stored| self.is_range_for_origin(&lookup, &stored.response);
        if need.stored.as_ref().is_none_or(is_for_origin)
            && let Some(told) = self.passes(&lookup, &need, told)
        {
            return self.pass(body, told, Some((&lookup, &need))).boxed().await;
        }
        if !need.may_be_shared(&lookup, self.inquiry.rule()) {
            let fetched = self.inquiry.question(&lookup, need).run(None).boxed().await;
            return self.answer(fetched, told);
        }
        match self.inquiry.together(&lookup, need).boxed().await {
            Joined::Leading(need, flight) => self.lead(&lookup, need, flight, told).boxed().await,
            Joined::Reading(arriving, reader) => {
                let (headers, told) = (arriving.headers.clone(), told.collapsed());
                self.answer_arriving(&arriving, headers, reader, told)
            }
            Joined::Settled(settled) => self.answer_settled(&settled, told.collapsed()),
            Joined::Failed(failure) => self.answer_failed(&failure, told.collapsed()),
            Joined::Nothing(need) => {
                let fetched = self.inquiry.question(&lookup, need).run(None).boxed().await;
                self.answer(fetched, told)
            }
        }
    }

    /// What is told of a request that the origin is to answer as it is, where nothing is stored.
    ///
    /// Where something is, a `HEAD` and a `Range` validate it as a `GET` does, and are answered from it.
    fn passes(&self, lookup: &Lookup, need: &Need, told: Told) -> Option<Told> {
        let is_shared = need.may_be_shared(lookup, self.inquiry.rule());
        let method = &self.inquiry.request.method;
        let reason = passed_on(method, lookup, (is_shared, need.reason))?;
        Some(Told { reason: Some(reason), ..told })
    }

    /// Whether a request asks for a range of what is stored that only the origin can say something about:
    /// one of a `HEAD`, for which ranges are not defined (RFC 9110 §14.2), or one that lies behind the end.
    fn is_range_for_origin(&self, lookup: &Lookup, stored: &StoredResponse) -> bool {
        let Parts { method, headers, .. } = &*self.inquiry.request;
        lookup.presence.has(Presence::RANGE)
            && (*method == Method::HEAD || {
                let (fields, length) = (stored.fields().unpack(0), stored.body_length());
                let range = validation::evaluate_range(headers, stored.status, &fields, length);
                range == RangeOutcome::Unsatisfiable
            })
    }

    async fn lead(
        self,
        lookup: &Lookup,
        need: Need,
        flight: Takeoff,
        told: Told,
    ) -> Response<Body> {
        let question = self.inquiry.question(lookup, need);
        let (sender, fetched) = oneshot::channel();
        // A task of its own: the leader's client may go away, those who wait stay.
        tokio::spawn(async move { sender.send(question.run(Some(flight)).await) });
        match fetched.await {
            Ok(fetched) => self.answer(fetched, told),
            Err(_) => self.answer_problem(failure::of_larder(), told),
        }
    }
}

/// Whether the origin answers a request as it is if nothing is stored, and what `Cache-Status` says then:
/// `reason`, or a reason of its own. What comes for a request that shares no fetch is for its client alone:
/// the origin may judge the client's condition.
fn passed_on(
    method: &Method,
    lookup: &Lookup,
    (is_shared, reason): (bool, Reason),
) -> Option<Reason> {
    if *method == Method::HEAD {
        return Some(reason);
    }
    if lookup.presence.has(Presence::RANGE) {
        return Some(Reason::Range);
    }
    (lookup.presence.has(Presence::CONDITION) && !is_shared).then_some(reason)
}

/// A request as the policy sees it.
fn request_head(request: &Parts, credentials: Credentials) -> RequestHead<'_> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = finish::asked_host(&request.headers);
    let (method, headers) = (&request.method, &request.headers);
    RequestHead { method, authority, target, headers, credentials }
}

//! The life of a request, and the only place with transitions between its steps.
//!
//! ```text
//! receive ──► Refuse ─────────────────────────────────────────────► problem document
//!    ├──────► Pass ───────► pass: origin, untouched ──────────────► deliver ─► finish
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

mod admit;
mod body;
mod clock;
mod collapse;
mod current;
mod deliver;
mod failure;
mod fetch;
mod fill;
mod finish;
mod heads;
mod invalidate;
mod landing;
mod lookup;
mod pass;
mod receive;
mod site;
mod uncacheable;

use std::{
    future::{Future, ready},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::Either};
use http::{HeaderMap, Method, Request, Response, header, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::sync::oneshot;

pub use body::Body;
pub use clock::Clock;
pub use site::{ServerTiming, Site, SiteId};

use crate::{
    entry::StoredResponse,
    field::{Timestamp, hop, presence::Presence},
    key::CacheKey,
    origin::{
        OriginError, ResponseBody,
        rewrite::{self, Source},
    },
    policy::{
        CacheResult, Credentials, Forward, Reason, RequestHead, Reuse, Rule,
        cache_status::Stored as Stores, reuse,
    },
    problem::Problem,
    server::{Connection, Handler},
    store::Store,
    telemetry::Metrics,
};
use collapse::{Flights, Role, Takeoff};
use current::Current;
use deliver::{Asker, Told};
use fetch::{Ask, Fetched};
use fill::{Budget, FillReader};
use finish::{Finish, Received};
use landing::{Arriving, Landing, Settled};
use lookup::{Found, Stored};
use receive::{Lookup, Verdict};
use uncacheable::Uncacheable;

/// How often a request joins a fetch that turns out to bring another variant.
const JOINS: usize = 3;

/// Bytes that bodies on their way to the store may take beside what is stored.
const FILLING: u64 = 16 << 20;

/// What answers requests on the public listener.
pub struct Pipeline<S> {
    site: Current,
    store: S,
    flights: Flights,
    uncacheable: Uncacheable,
    filling: Arc<Budget>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A request that needs more than a fresh stored response: all that its steps share.
struct Context<S> {
    pipeline: Arc<Pipeline<S>>,
    site: Arc<Site>,
    route: usize,
    received: Received,
    connection: Arc<Connection>,
    request: Arc<Parts>,
    upgrade: Option<OnUpgrade>,
    finish: Box<Finish>,
}

impl<S: Store> Pipeline<S> {
    /// A pipeline over this store.
    pub fn new(site: Site, store: S, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            site: Current::new(site),
            store,
            flights: Flights::new(),
            uncacheable: Uncacheable::new(),
            filling: Budget::new(FILLING),
            clock,
            metrics,
        })
    }

    /// Puts another configuration in force. Requests under way end under the old one; the cache stays.
    pub fn replace(&self, site: Site) {
        self.site.replace(site);
    }

    /// Writes out what the access log still holds, within this time. Blocks.
    pub fn flush_log(&self, at_most: Duration) {
        if let Some(log) = self.site.with(|site| site.access_log.clone()) {
            log.flush(at_most);
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Bytes of bodies on their way to the store.
    pub fn filling_bytes(&self) -> u64 {
        self.filling.used()
    }
}

impl<S: Store> Handler for Pipeline<S> {
    type Body = Body;

    fn handle(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<Body>> + Send {
        let received = Received { at: self.clock.now(), started: Instant::now() };
        let mut presence = Presence::of(request.headers());
        if presence.has(Presence::CONNECTION) {
            hop::remove_listed(request.headers_mut());
            presence = Presence::of(request.headers());
        }
        let planned = self.site.with(|site| {
            let (route, verdict) = receive::plan(site, &request, presence, connection);
            match &verdict {
                Verdict::Lookup(lookup) => {
                    match self.fresh_at_hand(site, route, &request, lookup, received.at) {
                        Some(stored) => {
                            let stored = (lookup.presence, &*stored);
                            Ok(deliver::hit(site, route, received, &request, stored))
                        }
                        None => Err((Arc::clone(site), route, verdict)),
                    }
                }
                Verdict::Pass(_) | Verdict::Loop => Err((Arc::clone(site), route, verdict)),
            }
        });
        let (site, route, verdict) = match planned {
            Ok(hit) => return Either::Left(ready(hit)),
            Err(planned) => planned,
        };
        rewrite::ensure_request_id(request.headers_mut());
        let finish = Finish::begin(Arc::clone(&site), route, received, &request);
        let (mut request, body) = request.into_parts();
        let upgrade = request.extensions.remove::<OnUpgrade>();
        let request = Arc::new(request);
        let (pipeline, connection) = (Arc::clone(self), Arc::clone(connection));
        let finish = Box::new(finish);
        let context =
            Context { pipeline, site, route, received, connection, request, upgrade, finish };
        Either::Right(context.take(verdict, body).boxed())
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
        now: Timestamp,
    ) -> Option<Arc<StoredResponse>> {
        let route = site.route(route);
        let stored = lookup::at_hand(&self.store, &lookup.target, &route.vary, request.headers())?;
        (may_answer(&stored, lookup, &route.rule, now) == Reuse::Fresh).then_some(stored)
    }
}

impl<S: Store> Context<S> {
    async fn take(self, verdict: Verdict, body: Incoming) -> Response<Body> {
        let lookup = match verdict {
            Verdict::Lookup(lookup) => lookup,
            Verdict::Pass(reason) => return self.pass(body, pass::told(reason)).await,
            Verdict::Loop => {
                let told =
                    Told::forwarded(CacheResult::Bypass, Forward::Bypass, Some(Reason::Loop));
                return self.answer_problem(failure::of_loop(), told);
            }
        };
        let found = self.find(&lookup).await;
        match self.weigh(&lookup, found) {
            Weighed::Fresh(stored) => {
                self.answer_stored(&stored.response, Told::hit(CacheResult::Hit, None))
            }
            Weighed::Stale(stored, reason) => {
                if reason == Reason::StaleWhileRevalidate {
                    self.refresh(&lookup, &stored);
                }
                let told = Told::hit(CacheResult::Stale, Some(reason));
                self.answer_stored(&stored.response, told)
            }
            Weighed::Needed(need) => self.ask(lookup, need, body).await,
        }
    }

    /// What the stored response is good for, if there is one.
    fn weigh(&self, lookup: &Lookup, found: Found) -> Weighed {
        let stored = match found {
            Found::Stored(stored) => stored,
            Found::Absent { key, forward } => {
                let reason = match forward {
                    Forward::VaryMiss => Reason::VaryMismatch,
                    _ => Reason::Cold,
                };
                return Weighed::Needed(Need { key, stored: None, forward, reason });
            }
        };
        let key = stored.key.clone();
        let rule = &self.site.route(self.route).rule;
        match may_answer(&stored.response, lookup, rule, self.received.at) {
            Reuse::Fresh => Weighed::Fresh(stored),
            Reuse::StaleWhileRevalidate => Weighed::Stale(stored, Reason::StaleWhileRevalidate),
            Reuse::StaleByRequest => Weighed::Stale(stored, Reason::RequestMaxStale),
            Reuse::Revalidate(reason) => {
                let forward = forward_of(reason);
                Weighed::Needed(Need { key, stored: Some(stored), forward, reason })
            }
            Reuse::Unusable(reason) => {
                Weighed::Needed(Need { key, stored: None, forward: Forward::Request, reason })
            }
        }
    }

    /// The origin is needed: alone, or together with everyone who needs the same.
    async fn ask(self, lookup: Lookup, need: Need, body: Incoming) -> Response<Body> {
        let told = Told::forwarded(CacheResult::Miss, need.forward, Some(need.reason));
        if lookup.directives.only_if_cached {
            let told = Told { reason: Some(Reason::OnlyIfCached), ..told };
            return self.answer_problem(failure::only_if_cached(), told);
        }
        if self.request.method == Method::HEAD {
            return self.pass(body, told).await;
        }
        if self.request.headers.contains_key(header::RANGE) {
            let told = Told { reason: Some(Reason::Range), ..told };
            return self.pass(body, told).await;
        }
        if !self.may_share(&lookup, &need) {
            if need.stored.is_none() && lookup.presence.has(Presence::CONDITION) {
                // What comes is for this client alone: the origin may judge the client's condition.
                return self.pass(body, told).await;
            }
            let fetched = self.question(&lookup, need).run(None).await;
            return self.answer(fetched, told);
        }
        match self.together(&lookup, need).await {
            Joined::Leading(need, flight) => self.lead(&lookup, need, flight, told).await,
            Joined::Reading(arriving, reader) => {
                let (headers, told) = (arriving.headers.clone(), told.collapsed());
                self.answer_arriving(&arriving, headers, reader, told)
            }
            Joined::Settled(settled) => self.answer_settled(&settled, told.collapsed()),
            Joined::Failed(error) => self.answer_failure(&error, told.collapsed()),
            Joined::Nothing(need) => {
                let fetched = self.question(&lookup, need).run(None).await;
                self.answer(fetched, told)
            }
        }
    }

    /// Whether this request may wait for, or lead, a fetch that answers others too.
    fn may_share(&self, lookup: &Lookup, need: &Need) -> bool {
        let directives = &lookup.directives;
        lookup.credentials == Credentials::Absent
            && !directives.no_cache
            && !directives.no_store
            && !self.pipeline.uncacheable.holds(&need.key, self.received.at)
    }

    /// Waits with whoever asks for the same, or takes the lead.
    async fn together(&self, lookup: &Lookup, mut need: Need) -> Joined {
        for _ in 0..JOINS {
            let waiting = match self.pipeline.flights.join(&need.key) {
                Role::Leader(flight) => return Joined::Leading(need, flight),
                Role::Follower(waiting) => waiting,
            };
            if let Some(metrics) = self.site.metrics.get(self.route) {
                metrics.collapsed.inc();
            }
            match waiting.landed().await {
                Some(Landing::Settled(settled)) => return Joined::Settled(settled),
                Some(Landing::Failed(error)) => return Joined::Failed(error),
                Some(Landing::Arriving(arriving)) if self.is_answered_by(&arriving) => {
                    return match arriving.fill.reader() {
                        Some(reader) => Joined::Reading(arriving, reader),
                        None => Joined::Nothing(need),
                    };
                }
                // It turned out to be another variant; now the own variant's key is known.
                Some(Landing::Arriving(_)) => match self.find(lookup).await {
                    Found::Absent { key, .. } => need.key = key,
                    Found::Stored(stored) => return Joined::Settled(Settled::found(&stored)),
                },
                Some(Landing::Alone) | None => return Joined::Nothing(need),
            }
        }
        Joined::Nothing(need)
    }

    async fn find(&self, lookup: &Lookup) -> Found {
        let vary = &self.site.route(self.route).vary;
        lookup::find(&self.pipeline.store, &lookup.target, vary, &self.request.headers).await
    }

    fn is_answered_by(&self, arriving: &Arriving) -> bool {
        arriving.answers(&self.site.route(self.route).vary, &self.request.headers)
    }

    async fn lead(
        self,
        lookup: &Lookup,
        need: Need,
        flight: Takeoff,
        told: Told,
    ) -> Response<Body> {
        let question = self.question(lookup, need);
        let (sender, fetched) = oneshot::channel();
        // A task of its own: the leader's client may go away, those who wait stay.
        tokio::spawn(async move { sender.send(question.run(Some(flight)).await) });
        match fetched.await {
            Ok(fetched) => self.answer(fetched, told),
            Err(_) => self.answer_problem(failure::of_larder(), told),
        }
    }

    /// Renews a stored response in the background, unless somebody does already.
    fn refresh(&self, lookup: &Lookup, stored: &Stored) {
        let Role::Leader(flight) = self.pipeline.flights.join(&stored.key) else { return };
        let need = Need {
            key: stored.key.clone(),
            stored: Some(stored.clone()),
            forward: Forward::Stale,
            reason: Reason::StaleWhileRevalidate,
        };
        let question = self.question(lookup, need);
        tokio::spawn(async move { question.run(Some(flight)).await });
    }

    fn question(&self, lookup: &Lookup, need: Need) -> Ask<S> {
        Ask {
            pipeline: Arc::clone(&self.pipeline),
            site: Arc::clone(&self.site),
            route: self.route,
            forwarded: self.forwarded_headers(),
            directives: lookup.directives,
            request: Arc::clone(&self.request),
            invalidations: self.pipeline.flights.invalidations(lookup.target.digest()),
            target: lookup.target.clone(),
            key: need.key,
            stored: need.stored,
            interim: Some(self.connection.interim.clone()),
        }
    }

    fn answer(self, fetched: Fetched, told: Told) -> Response<Body> {
        match fetched {
            Fetched::Arriving { arriving, headers, reader } => {
                self.answer_arriving(&arriving, headers, reader, told)
            }
            Fetched::Settled(settled) => self.answer_settled(&settled, told),
            Fetched::Failed(error) => self.answer_failure(&error, told),
            Fetched::Alone(response, reason) => {
                let origin_status = Some(response.status());
                let told = Told { origin_status, reason: Some(reason), ..told };
                self.answer_passing(response, told)
            }
        }
    }

    fn answer_arriving(
        self,
        arriving: &Arriving,
        headers: HeaderMap,
        reader: FillReader,
        told: Told,
    ) -> Response<Body> {
        let origin_status = Some(arriving.status);
        let told = Told { result: arriving.result, origin_status, stored: Stores::Yes, ..told };
        self.deliver(|asker, finish| asker.arriving(arriving, headers, reader, told, finish))
    }

    fn answer_settled(self, settled: &Settled, told: Told) -> Response<Body> {
        let reason = settled.reason.or(told.reason);
        let origin_status = settled.origin_status;
        let told = Told { result: settled.result, origin_status, reason, ..told };
        self.answer_stored(&settled.response, told)
    }

    fn answer_stored(self, response: &StoredResponse, told: Told) -> Response<Body> {
        self.deliver(|asker, finish| asker.stored(response, told, finish))
    }

    fn deliver(
        self,
        answer: impl FnOnce(&Asker<'_>, Box<Finish>) -> Response<Body>,
    ) -> Response<Body> {
        let Self { site, route, received, request, finish, .. } = self;
        let (method, headers) = (&request.method, &request.headers);
        answer(&Asker { site: &site, route, received, method, headers }, finish)
    }

    /// The request's fields as the origin is to see them.
    fn forwarded_headers(&self) -> HeaderMap {
        let mut headers = self.request.headers.clone();
        let source = Source {
            peer: self.connection.peer.map(|peer| peer.ip()),
            secure: self.connection.secure,
            version: self.request.version,
            trusted: &self.site.trusted_proxies,
        };
        rewrite::request_headers(&mut headers, &source, &self.site.identity);
        headers
    }

    fn answer_passing(self, response: Response<ResponseBody>, told: Told) -> Response<Body> {
        self.deliver(|asker, finish| asker.passing(response, told, finish))
    }

    fn answer_failure(self, error: &OriginError, told: Told) -> Response<Body> {
        let told = Told { reason: Some(Reason::OriginError), ..told };
        self.answer_problem(failure::of_origin(error), told)
    }

    fn answer_problem(self, problem: Problem, told: Told) -> Response<Body> {
        self.deliver(|asker, finish| asker.problem(problem, told, finish))
    }
}

/// A request as the policy sees it.
fn request_head(request: &Parts) -> RequestHead<'_> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = finish::host(&request.headers);
    RequestHead { method: &request.method, authority, target, headers: &request.headers }
}

/// What a stored response is good for.
enum Weighed {
    /// It may be used.
    Fresh(Stored),
    /// It may be used although it is stale, for this reason.
    Stale(Stored, Reason),
    /// The origin has to be asked.
    Needed(Need),
}

/// What became of waiting with others.
enum Joined {
    /// Nobody asks yet: this request does, for all.
    Leading(Need, Takeoff),
    /// Another request's response answers this one too.
    Reading(Arc<Arriving>, FillReader),
    /// What is stored may be used after all.
    Settled(Settled),
    /// The origin gave no answer.
    Failed(Arc<OriginError>),
    /// What came is for somebody else alone.
    Nothing(Need),
}

/// Why the origin has to be asked, and about what.
struct Need {
    /// The key under which others who need the same wait.
    key: CacheKey,
    /// What may be revalidated.
    stored: Option<Stored>,
    forward: Forward,
    reason: Reason,
}

fn forward_of(reason: Reason) -> Forward {
    match reason {
        Reason::RequestNoCache | Reason::RequestMaxAge | Reason::RequestMinFresh => {
            Forward::Request
        }
        _ => Forward::Stale,
    }
}

fn may_answer(stored: &StoredResponse, lookup: &Lookup, rule: &Rule, now: Timestamp) -> Reuse {
    reuse(&stored.freshness, &lookup.directives, lookup.credentials, rule, now)
}

//! Asking the origin on behalf of the cache: conditionally where something is stored, and with a
//! verdict on what came back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request::Parts};

use super::{
    Pipeline, Site,
    accepted::Recheck,
    admit::{self, Admission, Admitted, Arrival},
    collapse::Takeoff,
    credentials,
    failed::{Refused, outage_of},
    fill::{self, NotKept, Share},
    heed::Word,
    landing::{Again, Failure, Landing, Settled},
    lookup::{self, Asked, Found, SoftPurge, Stored, Tier},
    payload,
    popular::{self, Way},
    request_head,
    uncacheable::{Asker, Known},
    verdict::Judge,
};
use crate::{
    entry::{Entry, StoredResponse},
    fence::{OwnFacets, Stamp, Verdict},
    field::{Timestamp, presence::Presence},
    forward::response,
    key::{CacheKey, target::Readings, vary::Vary},
    origin::{RequestBody, ResponseBody, Unanswered},
    planted::Bug,
    policy::{
        CacheResult, Credentials, Partition, Reason, RequestDirectives, RequestHead,
        ResponseDirectives, Reuse, Rule,
        cache_status::Collapsed,
        failure::is_transient,
        reuse, stale,
        stale::Outage,
        stored_fields, tag,
        validation::{self, Conditionality, EtagOrigin},
    },
    purge::Expected,
    server::Interim,
    store::{Claim, Landed, OriginFailure, Store},
    user::Member,
};

/// How long the response to a request that no client waits for waits for memory to be stored.
const ROOM: Duration = Duration::from_secs(10);

/// How often this node lines up behind another that then brings nothing.
const CLAIMS: usize = 3;

/// One question to the origin whose answer the cache may keep. Kept boxed: it goes through many hands.
pub struct Ask<S> {
    /// Whose question it is.
    pub pipeline: Arc<Pipeline<S>>,
    /// The configuration in force when it was asked.
    pub site: Arc<Site>,
    /// The route's index.
    pub route: usize,
    /// The request as it is sent: the client's, as a `GET`.
    pub request: Arc<Parts>,
    /// The same as the origin is to see it; taken when it is sent.
    pub onward: Request<RequestBody>,
    /// The readings of its path.
    pub readings: Readings<'static>,
    /// Its URL in the form by which purges select it.
    pub url: Box<str>,
    /// Its own `Cache-Control`.
    pub directives: RequestDirectives,
    /// What it says about who asks.
    pub credentials: Credentials,
    /// The member of the route's partition that asks, if the route keeps them apart.
    pub member: Option<Arc<Member>>,
    /// Its turn, if the origin is to say whether it accepts the credentials; ends with its answer.
    pub recheck: Option<Recheck>,
    /// The key of its target.
    pub target: CacheKey,
    /// What had been purged before the origin was asked.
    pub stamp: Stamp,
    /// When that was, by the node's own clock.
    pub asked_at: Timestamp,
    /// The key under which others wait: the target's, or that of the variant asked for.
    pub key: CacheKey,
    /// What is stored, if anything: asked about conditionally, and a way out if the origin fails.
    pub stored: Option<Stored>,
    /// By which way it came.
    pub way: Way,
    /// Where interim responses go.
    pub interim: Option<Interim>,
    /// Whether those who wait may try once more if it fails.
    pub again: Again,
    /// Who waits for the answer.
    pub audience: Audience,
}

/// Who waits for the answer of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A client.
    Client,
    /// No one: it is a refresh in the background, or a warm-up.
    None,
}

/// What came of a question.
pub enum Fetched {
    /// A response that is being stored.
    Arriving(Arrival),
    /// What is stored may be used after all.
    Settled(Settled),
    /// A response for the asker alone.
    Alone(Response<ResponseBody>, Reason),
    /// No response that this asker may have.
    Failed(Failure),
}

/// What became of a response that no client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All of it was read, if there was anything to read.
    Whole,
    /// It is not kept for the store.
    NotKept,
    /// It broke off.
    BrokenOff,
}

impl Fetched {
    /// Reads a response that no client waits for, as long as it is kept for the store.
    pub async fn drained(self) -> Drained {
        match self {
            Self::Arriving(arrival) => arrival.reader.drained().await,
            Self::Alone(_, Reason::FillBudget) => Drained::NotKept,
            Self::Alone(..) | Self::Settled(_) | Self::Failed(_) => Drained::Whole,
        }
    }
}

impl<S: Store> Ask<S> {
    /// Asks, and tells those who wait on `flight`. The body of what is stored goes on arriving in a
    /// task of its own, whoever reads it.
    pub async fn run(mut self: Box<Self>, flight: Option<Takeoff>) -> Fetched {
        if let Some(flight) = &flight {
            match Box::pin(self.agree(flight)).await {
                Agreed::Ask => {}
                Agreed::Settled(settled) => return settle(settled, Some(flight)),
                Agreed::Failed(failure) => {
                    return self.failed_elsewhere(Failure::elsewhere(failure), flight);
                }
            }
            self.stamp = self.pipeline.log.fences().stamp();
            self.asked_at = self.pipeline.clock.steady();
        }
        // Purged since it was found, it must not come back as current under a fence from after its purge.
        if self.stored.as_ref().is_some_and(|stored| self.pipeline.is_gone(&stored.response)) {
            self.stored = None;
        }
        let began = Instant::now();
        let sent = self.ask_origin().await;
        let took = began.elapsed();
        self.note_outage(&sent, took);
        if Bug::LateFence.is_planted() {
            self.stamp = self.pipeline.log.fences().stamp();
        }
        match sent {
            Ok(answer) => self.answered(answer, took, flight).await,
            Err(unanswered) => self.failed(unanswered, flight.as_ref()),
        }
    }

    /// Agrees with the other nodes who asks. Gives what another node has fetched, if that answers this
    /// question too; otherwise this node asks. After a failure one node at a time tries again, once.
    async fn agree(&mut self, flight: &Takeoff) -> Agreed {
        for _ in 0..CLAIMS {
            let landed = match self.pipeline.store.claim(&self.key).await {
                Claim::Alone => return Agreed::Ask,
                Claim::Lead(lease) => {
                    flight.hold(lease);
                    // Another node may have landed between the look into the store and the claim.
                    Landed::Stored
                }
                Claim::Follow(following) => following.landed().await,
            };
            match landed {
                Landed::Stored => match self.fetched_elsewhere().await {
                    Elsewhere::Settled(settled) => return Agreed::Settled(settled),
                    // What was fetched is another variant. Who asks for this one agrees anew.
                    Elsewhere::Nothing(key) if key != self.key && self.stored.is_none() => {
                        flight.stored();
                        self.key = key;
                    }
                    Elsewhere::Nothing(_) => return Agreed::Ask,
                },
                Landed::Alone => {
                    self.send_off(Known::Unshared, self.pipeline.clock.steady(), Some(flight));
                    return Agreed::Ask;
                }
                Landed::Failed(failure) if !self.tries_after(failure) => {
                    return Agreed::Failed(failure);
                }
                Landed::Failed(_) | Landed::Nothing => {}
            }
        }
        Agreed::Ask
    }

    /// Whether this node tries after another one failed: it may reach the origin on another way.
    fn tries_after(&mut self, failure: OriginFailure) -> bool {
        let is_first = std::mem::replace(&mut self.again, Again::No) == Again::Once;
        is_first && failure.retry_after.is_none()
    }

    /// What stands in the shared tier now, if it answers this request without the origin.
    async fn fetched_elsewhere(&self) -> Elsewhere {
        let asked = Asked {
            vary: &self.site.route(self.route).vary,
            headers: &self.request.headers,
            presence: Presence::of(&self.request.headers),
            fences: self.pipeline.log.fences(),
            started: Instant::now(),
            version: &self.site.version,
        };
        let store = (&self.pipeline.store, Tier::Far);
        let stored = match lookup::find(store, &self.target, &asked).await {
            Found::Stored(stored) => stored,
            Found::Absent { key, .. } => return Elsewhere::Nothing(key),
        };
        let (freshness, now) = (&stored.response.freshness, self.pipeline.clock.steady());
        let reuse = reuse(freshness, &self.directives, self.credentials, self.rule(), now);
        if stored.purged == SoftPurge::No && reuse == Reuse::Fresh {
            self.note_popular(&stored.key, &stored.response);
            Elsewhere::Settled(Settled::fetched_elsewhere(&stored, self.fetched()))
        } else {
            Elsewhere::Nothing(stored.key)
        }
    }

    /// What a response that comes now is, seen from what is stored.
    pub fn fetched(&self) -> CacheResult {
        if self.stored.is_some() { CacheResult::Expired } else { CacheResult::Miss }
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.site.route(self.route).rule
    }

    fn head(&self) -> RequestHead<'_> {
        request_head(&self.request, self.credentials)
    }

    /// Asks conditionally where something is stored, and once more without a condition where the answer
    /// turns out to be about another representation than the stored one (RFC 9111 §4.3.4), or to depend on
    /// more than it.
    async fn ask_origin(&mut self) -> Result<Answer, Unanswered> {
        let (onward, _no_body) = std::mem::take(&mut self.onward).into_parts();
        let (uri, mut headers) = (onward.uri, onward.headers);
        if self.site.route(self.route).reads_bodies() {
            payload::narrow_codings(&mut headers);
        }
        validation::make_unconditional(&mut headers);
        let Some((fields, etag)) = self.validators() else { return self.send(uri, headers).await };
        let mut conditional = headers.clone();
        match validation::make_conditional(&mut conditional, &fields, etag) {
            Conditionality::Unconditional => self.send(uri, headers).await,
            Conditionality::Conditional => {
                let answer = self.send(uri.clone(), conditional).await?;
                match answer.is_not_modified() {
                    true if !self.is_about(&fields, answer.response.headers()) => {
                        self.send(uri, headers).await
                    }
                    is_validation => Ok(Answer { is_validation, ..answer }),
                }
            }
        }
    }

    /// Whether a 304 is about what is stored, for all that it answers: the same representation, selected by no
    /// more fields than are known to select it.
    fn is_about(&self, stored: &HeaderMap, update: &HeaderMap) -> bool {
        if self.judge().varies_by_credentials(update) {
            return false;
        }
        let (site, route) = (&self.site, self.site.route(self.route));
        let known = admit::selecting_set(site, route, stored);
        let named = match Vary::parse(update) {
            Vary::By(set) => Vary::By(admit::unsatisfied(site, route, set)),
            Vary::Anything => Vary::Anything,
        };
        validation::confirms(stored, update) && named.is_within(&known)
    }

    /// The fields of what may be validated, and whose tag they hold. What is of another version may not: a
    /// new version begins with new representations.
    fn validators(&self) -> Option<(HeaderMap, EtagOrigin)> {
        let stored = self.stored.as_ref().filter(|it| it.purged != SoftPurge::Outdated)?;
        Some((stored.response.fields().unpack(0), stored.response.etag))
    }

    async fn send(&self, uri: Uri, headers: HeaderMap) -> Result<Answer, Unanswered> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let asked = self.pipeline.clock.now();
        let sent = send(&self.pipeline, &self.site, request, self.interim.as_ref()).await;
        let (mut response, answered) = sent?;
        let route = self.site.route(self.route);
        credentials::make_answer_anonymous(route, response.headers_mut());
        let exchange = Exchange { asked, answered, received: self.pipeline.clock.steady() };
        Ok(Answer { response, exchange, is_validation: false })
    }

    async fn answered(
        mut self: Box<Self>,
        answer: Answer,
        took: Duration,
        flight: Option<Takeoff>,
    ) -> Fetched {
        let is_failure = answer.is_failure();
        let word = answer.word();
        if self.member.is_some() || word == Word::Refused {
            Box::pin(self.heed(word, answer.exchange)).await;
        }
        let Answer { response, exchange, is_validation } = answer;
        if let Some(stored) = self.stored.as_ref().filter(|_| is_validation) {
            let freshened = self.freshen(stored, response.headers(), exchange);
            let settled = Box::pin(freshened).await;
            if !settled.response.freshness.answers_unasked(exchange.received) {
                self.send_off(Known::Unshared, exchange.received, flight.as_ref());
                return Fetched::Settled(settled);
            }
            return settle(settled, flight.as_ref());
        }
        if is_failure {
            if self.speaks_for_all() {
                self.pipeline.backoff.note(&self.key, response.headers(), exchange);
            }
            let failed = (Outage::Error, Some(response.status()));
            if let Some(settled) = self.stale_instead(failed, exchange.received) {
                return settle(settled, flight.as_ref());
            }
        }
        let verdict = self.verdict(&response, exchange);
        let is_fresh = |it: &Admission| it.freshness.answers_unasked(exchange.received);
        if let Some(flight) = &flight
            && is_transient(response.status())
            && !verdict.as_ref().is_ok_and(is_fresh)
        {
            let sharing = self.judge().sharing((response.status(), response.headers()), exchange);
            let reason = verdict.err().unwrap_or(Reason::ZeroTtl);
            return self.share(Refused { response, exchange, reason }, (sharing, took), flight);
        }
        let verdict = match verdict {
            Ok(admission) => Box::pin(self.with_room(admission, &response)).await,
            Err(reason) => Err(reason),
        };
        match verdict {
            Ok(admitted) => {
                let arrival = admit::admit(*self, response, admitted, flight);
                Fetched::Arriving(Box::pin(arrival).await)
            }
            Err(reason) => {
                let came = (response, exchange.received);
                self.alone(came, reason, flight.as_ref()).await
            }
        }
    }

    /// What a response to this question is known by.
    pub fn facets(&self) -> OwnFacets {
        self.site.facets(self.route, self.member.as_deref())
    }

    /// The user whose own the response is, for its tags.
    pub fn user(&self) -> Option<&str> {
        let is_own = self.rule().partition == Partition::User;
        self.member.as_deref().filter(|_| is_own)?.user.as_deref()
    }

    /// Whether a response is stored, and how.
    pub fn verdict(
        &self,
        response: &Response<ResponseBody>,
        exchange: Exchange,
    ) -> Result<Admission, Reason> {
        let limit = self.limit() as u64;
        let expected = http_body::Body::size_hint(response.body()).exact();
        let directives = ResponseDirectives::parse(response.headers());
        let head = (response.status(), response.headers());
        let verdict = self.judge().verdict(head, directives, (expected, limit), exchange);
        verdict.map_err(|(reason, cause)| {
            if let Some(cause) = cause {
                self.count_unreadable(cause);
            }
            reason
        })
    }

    /// What is to be stored, with memory for it.
    async fn with_room(
        &self,
        admission: Admission,
        response: &Response<ResponseBody>,
    ) -> Result<Admitted, Reason> {
        let room = match self.audience {
            Audience::Client => return self.with_room_now(admission, response),
            Audience::None => {
                let expected = http_body::Body::size_hint(response.body()).exact();
                self.pipeline.filling.reserve_within(expected, ROOM).await
            }
        };
        self.counted(admission, room)
    }

    /// The same without waiting for memory.
    pub fn with_room_now(
        &self,
        admission: Admission,
        response: &Response<ResponseBody>,
    ) -> Result<Admitted, Reason> {
        let expected = http_body::Body::size_hint(response.body()).exact();
        let is_large = expected.is_some_and(|bytes| bytes > fill::SMALL as u64);
        if is_large && self.pipeline.store.is_crowded() {
            return self.counted(admission, None);
        }
        self.counted(admission, self.pipeline.filling.reserve(expected))
    }

    fn counted(&self, admission: Admission, room: Option<Share>) -> Result<Admitted, Reason> {
        if let Some(share) = room {
            return Ok((admission, share));
        }
        let counter = &self.pipeline.metrics.bodies_not_kept;
        counter.with_label_values(&[NotKept::Budget.as_str()]).inc();
        Err(Reason::FillBudget)
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            site: &self.site,
            route: self.site.route(self.route),
            request: self.head(),
            directives: &self.directives,
            query: self.request.uri.query().unwrap_or_default(),
            member: self.member.as_deref(),
        }
    }

    /// The largest body that is kept for the store.
    pub fn limit(&self) -> usize {
        let configured = usize::try_from(self.site.max_object).unwrap_or(usize::MAX);
        configured.min(self.pipeline.store.max_entry_size())
    }

    /// The origin says that what is stored still stands (RFC 9111 §4.3.4).
    async fn freshen(&self, stored: &Stored, fields: &HeaderMap, exchange: Exchange) -> Settled {
        let result = CacheResult::Revalidated;
        let origin_status = Some(StatusCode::NOT_MODIFIED);
        let old = &stored.response;
        let headers = validation::freshen(&old.fields().unpack(0), fields, exchange.answered);
        let directives = ResponseDirectives::parse(&headers);
        let verdict = self.judge().storable((old.status, &headers), &directives, exchange);
        let lies_in_request = verdict.is_err_and(Reason::lies_in_request);
        let refreshed = verdict.ok().and_then(|freshness| {
            let mut headers = stored_fields(&headers, &directives);
            let tags = tag::take(&mut headers, &self.host());
            let facets = self.facets();
            old.freshened(headers, freshness, tags, (self.stamp, self.asked_at, facets))
        });
        let response = if let Some(response) = refreshed {
            let response = Arc::new(response);
            self.note_popular(&stored.key, &response);
            let entry = Entry::Response(Arc::clone(&response));
            self.pipeline.store.put(&stored.key, entry).await;
            response
        } else {
            if !lies_in_request {
                self.end(stored).await;
            }
            Arc::clone(old)
        };
        let collapsed = Collapsed::No;
        Settled { response, result, reason: None, origin_status, collapsed }
    }

    /// Notes that this was asked for, and is going to be stored.
    pub fn note_popular(&self, key: &CacheKey, response: &Arc<StoredResponse>) {
        let (request, way, credentials) = (&*self.request, self.way, self.credentials);
        let asked =
            popular::Again { request, way, credentials, site: &self.site, route: self.route };
        self.pipeline.note_popular(&asked, (key, response));
    }

    /// The host that the client asked for, in canonical form.
    pub fn host(&self) -> Box<str> {
        let target = self.target.origin_target();
        target.map(|target| target.asked_host.into()).unwrap_or_default()
    }

    /// Whether no purge since the origin was asked selects a response with these tags.
    pub fn is_alive(&self, tags: &[String]) -> bool {
        let (fences, url) = (self.pipeline.log.fences(), self.url.as_bytes());
        let facets = self.facets();
        let expected = Expected { url, facets: facets.as_facets(), tags: Some(tags) };
        fences.outlives(&self.stamp, &expected, tags) != Verdict::Dead
    }

    /// Removes what was stored, as the origin has said of the resource that it is no more, unless this
    /// request is not one to say so, or something that was asked for later has taken its place.
    async fn end(&self, stored: &Stored) {
        if !self.speaks_for_all() {
            return;
        }
        let store = &self.pipeline.store;
        let known = match store.peek(&stored.key) {
            None => store.get(&stored.key).await,
            known => known,
        };
        let is_newer = |known: &StoredResponse| known.asked_at > self.asked_at;
        if !matches!(known, Some(Entry::Response(known)) if is_newer(&known)) {
            store.remove(&stored.key).await;
        }
    }

    /// Whether the request might have led a fetch for all who want the same. Only what is answered to such
    /// a one may take away what they use, or hold up its renewal: a rate limit may be for one client.
    pub(super) fn speaks_for_all(&self) -> bool {
        self.asker() == Asker::Anyone && !self.directives.no_store
    }

    fn asker(&self) -> Asker {
        Asker::of(self.credentials, self.rule())
    }

    async fn alone(
        self: Box<Self>,
        (response, now): (Response<ResponseBody>, Timestamp),
        reason: Reason,
        flight: Option<&Takeoff>,
    ) -> Fetched {
        let status = response.status();
        let is_about_resource = validation::is_about_resource(status) && !self.is_refusal(status);
        if is_about_resource && !reason.lies_in_request() {
            match &self.stored {
                Some(stored) if stale::takes_back(status) => {
                    Box::pin(self.take_back(stored, now)).await;
                }
                Some(stored) => Box::pin(self.end(stored)).await,
                None => {}
            }
            self.send_off(Known::Unstored, now, flight);
        } else if let Some(flight) = flight {
            // This says nothing about the target: it stays stored, and worth waiting for.
            flight.give_up();
            flight.land(Landing::Alone);
        }
        Fetched::Alone(response, reason)
    }

    /// Has every node that still has the stored response, and asks the fleet's store before it uses it
    /// stale, know that the origin took it back. Costs one write, the first time.
    async fn take_back(&self, stored: &Stored, now: Timestamp) {
        let (store, response) = (&self.pipeline.store, &stored.response);
        if !self.speaks_for_all() || stale::is_taken_back(&response.freshness) {
            return;
        }
        let freshness = stale::taken_back(&response.freshness, now);
        let gone = Arc::new(response.reassessed(freshness, self.stamp, self.asked_at));
        store.put(&stored.key, Entry::Response(gone)).await;
    }

    /// Sends those who wait off to ask for themselves, and those who come next at once.
    pub fn send_off(&self, known: Known, now: Timestamp, flight: Option<&Takeoff>) {
        if !self.directives.no_store {
            self.pipeline.uncacheable.remember((&self.key, self.asker()), known, now);
        }
        if let Some(flight) = flight {
            if self.asker() == Asker::Identified {
                flight.give_up();
            }
            flight.land(Landing::Alone);
        }
    }
}

/// What the nodes agreed on.
enum Agreed {
    /// This node asks the origin.
    Ask,
    /// Another node has asked, and this is what it got.
    Settled(Settled),
    /// Other nodes have asked, and the origin failed.
    Failed(OriginFailure),
}

/// What another node has fetched.
enum Elsewhere {
    /// It answers this question.
    Settled(Settled),
    /// Nothing that does. This key is what is missing.
    Nothing(CacheKey),
}

impl<S> Pipeline<S> {
    /// Whether a stored response must not be used any more.
    pub(super) fn is_gone(&self, stored: &StoredResponse) -> bool {
        self.log.fences().judge(stored, Instant::now()) == Verdict::Dead
    }
}

/// What the origin answered.
pub struct Answer {
    response: Response<ResponseBody>,
    exchange: Exchange,
    /// Whether it says that what is stored still stands.
    is_validation: bool,
}

impl Answer {
    /// What it says about credentials: a 304 comes in the place of a 2xx (RFC 9110 §13.2.1).
    fn word(&self) -> Word {
        if self.is_validation { Word::Accepted } else { Word::of(self.response.status()) }
    }

    fn is_not_modified(&self) -> bool {
        self.response.status() == StatusCode::NOT_MODIFIED
    }

    /// Whether a stale response may take its place: an error, or a 304 to a request without a
    /// condition.
    pub fn is_failure(&self) -> bool {
        stale::is_error(self.response.status()) || (self.is_not_modified() && !self.is_validation)
    }
}

/// When the origin was asked, and when it had answered, by the system's clock.
#[derive(Clone, Copy)]
pub struct Exchange {
    /// When it was asked.
    pub asked: Timestamp,
    /// When its head had come.
    pub answered: Timestamp,
    /// The same by the node's own clock, by which what is stored grows older.
    pub received: Timestamp,
}

/// Lands what is stored, and may be used after all.
pub fn settle(settled: Settled, flight: Option<&Takeoff>) -> Fetched {
    if let Some(flight) = flight {
        flight.land(Landing::Settled(settled.clone()));
    }
    Fetched::Settled(settled)
}

/// A response, and when its head had come.
pub type Sent = (Response<ResponseBody>, Timestamp);

/// Sends a request to the origin, counts how that went, and makes the response's head Larder's own:
/// nothing of the origin's connection is left in it.
pub async fn send<S>(
    pipeline: &Pipeline<S>,
    site: &Site,
    request: Request<RequestBody>,
    interim: Option<&Interim>,
) -> Result<Sent, Unanswered> {
    let started = Instant::now();
    let metrics = &pipeline.metrics;
    match site.origin.send(request, interim).await {
        Ok(mut response) => {
            let (status, version, now) =
                (response.status(), response.version(), pipeline.clock.now());
            let headers = response.headers_mut();
            response::headers(status, headers, version, &site.identity, now);
            // Larder's own towards its clients, whatever the origin's is (RFC 9110 §2.5).
            *response.version_mut() = Version::HTTP_11;
            metrics.origin_answered(response.status(), started.elapsed());
            pipeline.outages.origin_answered();
            Ok((response, now))
        }
        Err(unanswered) => {
            let error = &unanswered.error;
            tracing::warn!(error = error as &dyn std::error::Error, "the origin gave no response");
            metrics.origin_errors.with_label_values(&[error.kind()]).inc();
            if error.is_unreachable() {
                let failure = (outage_of(&unanswered), started.elapsed());
                pipeline.outages.note_origin(failure, pipeline.clock.steady());
            }
            Err(unanswered)
        }
    }
}

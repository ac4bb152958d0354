//! Asking the origin on behalf of the cache: conditionally where something is stored, and with a
//! verdict on what came back.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, Method, Request, Response, StatusCode, request::Parts};

use super::{
    Pipeline, Site, admit,
    collapse::Takeoff,
    fill::FillReader,
    landing::{Arriving, Landing, Settled},
    lookup::Stored,
    request_head,
};
use crate::{
    entry::{Entry, StoredResponse},
    field::Timestamp,
    key::CacheKey,
    origin::{OriginError, RequestBody, ResponseBody, rewrite},
    policy::{
        CacheResult, Freshness, Reason, RequestDirectives, RequestHead, ResponseDirectives,
        ResponseHead, Rule, stale, storable, stored_fields, tag, validation,
    },
    server::Interim,
    store::Store,
};

/// One question to the origin whose answer the cache may keep.
pub struct Ask<S> {
    /// Whose question it is.
    pub pipeline: Arc<Pipeline<S>>,
    /// The configuration in force when it was asked.
    pub site: Arc<Site>,
    /// The route's index.
    pub route: usize,
    /// The client's request.
    pub request: Arc<Parts>,
    /// Its fields as the origin is to see them.
    pub forwarded: HeaderMap,
    /// Its own `Cache-Control`.
    pub directives: RequestDirectives,
    /// The key of its target.
    pub target: CacheKey,
    /// How often that had been invalidated when the origin was asked.
    pub invalidations: u32,
    /// The key under which others wait: the target's, or that of the variant asked for.
    pub key: CacheKey,
    /// What is stored, if anything: asked about conditionally, and a way out if the origin fails.
    pub stored: Option<Stored>,
    /// Where interim responses go.
    pub interim: Option<Interim>,
}

/// What came of a question.
pub enum Fetched {
    /// A response that is being stored, for the one who asked.
    Arriving {
        /// As all see it.
        arriving: Arc<Arriving>,
        /// The whole header section, with what belongs to the asker alone.
        headers: HeaderMap,
        /// Its body from the first byte.
        reader: FillReader,
    },
    /// What is stored may be used after all.
    Settled(Settled),
    /// A response for the asker alone.
    Alone(Response<ResponseBody>, Reason),
    /// No response.
    Failed(Arc<OriginError>),
}

impl<S: Store> Ask<S> {
    /// Asks, and tells those who wait on `flight`. The body of what is stored goes on arriving in a
    /// task of its own, whoever reads it.
    pub async fn run(mut self, flight: Option<Takeoff>) -> Fetched {
        let asked = self.pipeline.clock.now();
        match self.send().await {
            Ok(response) => self.answered(response, asked, flight).await,
            Err(error) => self.failed(error, flight.as_ref()),
        }
    }

    fn rule(&self) -> &Rule {
        &self.site.route(self.route).rule
    }

    fn head(&self) -> RequestHead<'_> {
        request_head(&self.request)
    }

    async fn send(&mut self) -> Result<Response<ResponseBody>, OriginError> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.request.uri.clone();
        *request.headers_mut() = std::mem::take(&mut self.forwarded);
        match &self.stored {
            None => validation::make_unconditional(request.headers_mut()),
            Some(stored) => {
                let fields = stored.response.fields().unpack(0);
                let etag = stored.response.etag;
                validation::make_conditional(request.headers_mut(), &fields, etag);
            }
        }
        send(&self.pipeline, &self.site, request, self.interim.as_ref()).await
    }

    async fn answered(
        self,
        response: Response<ResponseBody>,
        asked: Timestamp,
        flight: Option<Takeoff>,
    ) -> Fetched {
        let exchange = Exchange { asked, answered: self.pipeline.clock.now() };
        if let Some(stored) = &self.stored {
            if response.status() == StatusCode::NOT_MODIFIED {
                let settled = self.freshen(stored, response.headers(), exchange).await;
                if !settled.response.freshness.answers_unasked(exchange.answered) {
                    self.send_off(flight.as_ref());
                    return Fetched::Settled(settled);
                }
                return settle(settled, flight.as_ref());
            }
            let status = Some(response.status());
            if stale::is_error(response.status())
                && let Some(settled) = self.stale_instead(status, exchange.answered)
            {
                return settle(settled, flight.as_ref());
            }
        }
        match self.verdict(&response, exchange) {
            Ok(freshness) => admit::admit(self, response, freshness, flight).await,
            Err(reason) => self.alone(response, reason, flight.as_ref()).await,
        }
    }

    fn verdict(
        &self,
        response: &Response<ResponseBody>,
        exchange: Exchange,
    ) -> Result<Freshness, Reason> {
        let limit = self.limit();
        let expected = http_body::Body::size_hint(response.body()).exact();
        let head = exchange.head(response.status(), response.headers());
        let freshness = storable(&self.head(), &head, self.rule())?;
        if expected.is_some_and(|length| length > limit as u64) {
            return Err(Reason::TooLarge);
        }
        Ok(freshness)
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
        let verdict = storable(&self.head(), &exchange.head(old.status, &headers), self.rule());
        let refreshed = verdict.ok().and_then(|freshness| {
            let mut headers = stored_fields(&headers, &ResponseDirectives::parse(&headers));
            let tags = tag::take(&mut headers);
            old.freshened(headers, freshness, tags)
        });
        let response = if let Some(response) = refreshed {
            let response = Arc::new(response);
            self.keep(&stored.key, Arc::clone(&response)).await;
            response
        } else {
            self.pipeline.store.remove(stored.key.digest()).await;
            Arc::clone(old)
        };
        Settled { response, result, reason: None, origin_status }
    }

    /// Stores a response, unless its target was invalidated since the origin was asked.
    pub async fn keep(&self, key: &CacheKey, response: Arc<StoredResponse>) {
        if !self.is_current() {
            return;
        }
        self.pipeline.store.put(key, Entry::Response(response)).await;
        if !self.is_current() {
            // The invalidation may have removed what stood there before.
            self.pipeline.store.remove(key.digest()).await;
        }
    }

    /// Whether nothing has invalidated the target since the origin was asked.
    pub fn is_current(&self) -> bool {
        self.pipeline.flights.invalidations(self.target.digest()) == self.invalidations
    }

    fn failed(self, error: OriginError, flight: Option<&Takeoff>) -> Fetched {
        if let Some(settled) = self.stale_instead(None, self.pipeline.clock.now()) {
            return settle(settled, flight);
        }
        let error = Arc::new(error);
        if let Some(flight) = flight {
            flight.land(Landing::Failed(Arc::clone(&error)));
        }
        Fetched::Failed(error)
    }

    /// What is stored, where it may stand in for an origin that fails (RFC 5861 §4).
    fn stale_instead(&self, origin_status: Option<StatusCode>, now: Timestamp) -> Option<Settled> {
        let stored = self.stored.as_ref()?;
        let freshness = &stored.response.freshness;
        let allowed = stale::is_allowed_if_error(freshness, &self.directives, self.rule(), now);
        allowed.then(|| Settled {
            response: Arc::clone(&stored.response),
            result: CacheResult::Stale,
            reason: Some(Reason::StaleIfError),
            origin_status,
        })
    }

    async fn alone(
        self,
        response: Response<ResponseBody>,
        reason: Reason,
        flight: Option<&Takeoff>,
    ) -> Fetched {
        if response.status().is_server_error() || reason.lies_in_request() {
            // This says nothing about the target: it stays stored, and worth waiting for.
            flight.inspect(|flight| flight.land(Landing::Alone));
        } else {
            if self.stored.is_some() {
                self.pipeline.store.remove(self.key.digest()).await;
            }
            self.send_off(flight);
        }
        Fetched::Alone(response, reason)
    }

    /// Sends those who wait off to ask for themselves, and those who come next at once.
    pub fn send_off(&self, flight: Option<&Takeoff>) {
        self.pipeline.uncacheable.remember(&self.key, self.pipeline.clock.now());
        flight.inspect(|flight| flight.land(Landing::Alone));
    }
}

/// When the origin was asked, and when it had answered.
#[derive(Clone, Copy)]
struct Exchange {
    asked: Timestamp,
    answered: Timestamp,
}

impl Exchange {
    fn head(self, status: StatusCode, headers: &HeaderMap) -> ResponseHead<'_> {
        let Self { asked: requested_at, answered: received_at } = self;
        ResponseHead { status, headers, requested_at, received_at }
    }
}

fn settle(settled: Settled, flight: Option<&Takeoff>) -> Fetched {
    if let Some(flight) = flight {
        flight.land(Landing::Settled(settled.clone()));
    }
    Fetched::Settled(settled)
}

/// Sends a request to the origin, counts how that went, and makes the response's head Larder's own:
/// nothing of the origin's connection is left in it.
pub async fn send<S>(
    pipeline: &Pipeline<S>,
    site: &Site,
    request: Request<RequestBody>,
    interim: Option<&Interim>,
) -> Result<Response<ResponseBody>, OriginError> {
    let started = Instant::now();
    let mut result = site.origin.send(request, interim).await;
    let metrics = &pipeline.metrics;
    match &mut result {
        Ok(response) => {
            let (status, version, now) =
                (response.status(), response.version(), pipeline.clock.now());
            let headers = response.headers_mut();
            rewrite::response_headers(status, headers, version, &site.identity, now);
            metrics.origin_answered(response.status(), started.elapsed());
        }
        Err(error) => {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "the origin gave no response"
            );
            metrics.origin_errors.with_label_values(&[error.kind()]).inc();
        }
    }
    result
}

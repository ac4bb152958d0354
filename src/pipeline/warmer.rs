//! Warming: fetches responses before clients request them, by the same steps as for a client.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header, request::Parts};
use http_body_util::Empty;
use ipnet::IpNet;
use quick_cache::sync::Cache;

use super::{
    admit::TeedResponse,
    clock::ReceivedAt,
    content::RequestContent,
    credentials,
    fetch::FetchOutcome,
    ingress::is_target_field,
    join_flight::FlightOutcome,
    lookup::MemoryState,
    miss_plan::{LookupOutcome, MissPlan},
    receive::{self, LookupRequest, RequestAction},
    received_request::ReceivedRequest,
    recent_clients::scheme_of,
    refresh::with_other_credentials,
    request_context::{RequestContext, RequestSafety},
    state::Pipeline,
    tee::DrainOutcome,
};
use crate::{
    field::{Timestamp, presence::FieldPresence},
    policy::{CacheResult, Reason, cache_status::StoredStatus},
    purge::LogEvent,
    purge::planted::PlantedBug,
    server::Connection,
    store::Store,
    warm::{
        ClientProfile, WarmClients, WarmContent, WarmFetcher, WarmHost, WarmOutcome, WarmRequest,
    },
};

/// Sends the requests in the warm-up queue through a pipeline.
pub(crate) struct Warmer<S> {
    pipeline: Arc<Pipeline<S>>,
    /// Targets of requests with credentials whose responses were not stored, by key digest, with
    /// the time and the reason of the last attempt.
    not_stored: Cache<u128, (Timestamp, &'static str)>,
}

/// Maximum number of targets that are remembered because their responses were not stored.
const NOT_STORED_CAPACITY: usize = 4096;

/// How long a target whose response was not stored is remembered.
const NOT_STORED_RETENTION: Duration = Duration::from_mins(5);

/// Maximum number of warm-up requests for one target.
const MAX_REQUESTS: usize = 32;

impl<S: Store> Warmer<S> {
    /// Creates a warmer that fetches through this pipeline.
    pub(crate) fn new(pipeline: Arc<Pipeline<S>>) -> Self {
        Self { pipeline, not_stored: Cache::new(NOT_STORED_CAPACITY) }
    }

    /// Returns the requests for a target: one for each recent client or, if there are none, for
    /// each client group of its host. Returns none if no host is known.
    fn requests_of_recent(
        &self,
        (host, headers): (Option<&WarmHost>, &HeaderMap),
        target: &str,
    ) -> Vec<WarmRequest> {
        let of_host = self.pipeline.recent_clients.of(host);
        let Some(name) = of_host.first().map(|client| client.host.clone()) else {
            return Vec::new();
        };
        let mut of_target = self.pipeline.recent_targets.clients_of(&name, target);
        let scheme = host.and_then(|host| host.scheme);
        of_target.retain(|client| scheme.is_none_or(|scheme| scheme_of(client) == scheme));
        let clients = if of_target.is_empty() { of_host } else { of_target };
        let mut requests: Vec<ClientProfile> = Vec::new();
        for client in clients.iter().flat_map(|client| replaced(client, headers)) {
            let is_known = |known: &ClientProfile| {
                known.headers == client.headers
                    && known.connection.secure == client.connection.secure
            };
            if requests.len() < MAX_REQUESTS && !requests.iter().any(is_known) {
                requests.push(client);
            }
        }
        self.place_behind_proxy(&mut requests);
        let request = |client| WarmRequest {
            client: WarmClients::One(client),
            target: target.into(),
            content: None,
            report: None,
        };
        requests.into_iter().map(request).collect()
    }

    /// Gives clients with forwarding fields the address of a trusted proxy, because only its
    /// forwarding fields are trusted.
    fn place_behind_proxy(&self, clients: &mut [ClientProfile]) {
        let proxy =
            self.pipeline.config.with(|config| config.trusted_proxies.first().map(IpNet::addr));
        let Some(peer) = proxy.map(|address| SocketAddr::new(address, 0)) else { return };
        for client in clients {
            if client.connection.peer.is_none() && client.headers.keys().any(is_target_field) {
                let secure = client.connection.secure;
                let connection = Connection { peer: Some(peer), secure, ..Connection::default() };
                client.connection = Arc::new(connection);
            }
        }
    }

    /// Fetches a target as recent clients requested it. The first request is sent now. The other
    /// requests are queued, since the first response shows whether their responses can differ.
    async fn fetch_as_recent(
        &self,
        client: (Option<&WarmHost>, &HeaderMap),
        target: &str,
    ) -> WarmOutcome {
        let mut requests = self.requests_of_recent(client, target).into_iter();
        let Some(first) = requests.next() else {
            tracing::warn!(
                target,
                "warm-up skipped: no host is known; set `public_host`, or `host` of the schedule or poll"
            );
            return WarmOutcome::Skipped("no-host");
        };
        let outcome = match first.client {
            WarmClients::One(client) => self.fetch_as(client, (&first.target, None)).await,
            WarmClients::Recent { .. } => return WarmOutcome::Skipped("no-host"),
        };
        for request in requests {
            let _known_or_dropped = self.pipeline.warm_queue.push(request);
        }
        outcome
    }

    /// Plans a warm-up request, or returns why it is skipped.
    fn context(
        &self,
        client: ClientProfile,
        (target, content): (&str, Option<WarmContent>),
    ) -> Result<(RequestContext<S>, LookupRequest), WarmOutcome> {
        let received = ReceivedAt::now(&self.pipeline.clock);
        let ClientProfile { connection, host, headers } = client;
        let request = request(&host, headers, target).ok_or(WarmOutcome::Skipped("target"))?;
        let (mut request, _body) = request.into_parts();
        let content = content.map(|content| RequestContent::of_warm(content, &mut request));
        self.planned((request, content), connection, received)
    }

    fn planned(
        &self,
        (mut request, content): (Parts, Option<Arc<RequestContent>>),
        connection: Arc<Connection>,
        received: ReceivedAt,
    ) -> Result<(RequestContext<S>, LookupRequest), WarmOutcome> {
        let presence = FieldPresence::of(&request.headers);
        let (config, route, action) = self.pipeline.config.with(|config| {
            let arrival = (&*connection, received.at);
            let head = ReceivedRequest::of_parts(&request, content.as_ref());
            let (route, action) = receive::plan(config, &head, presence, arrival);
            let headers = &mut request.headers;
            credentials::make_anonymous(config, config.route(route), headers, presence);
            (Arc::clone(config), route, action)
        });
        let reason = action.bypass_reason().map_or("", Reason::as_str);
        let RequestAction::Lookup(lookup) = action else {
            return Err(WarmOutcome::Skipped(reason));
        };
        if config.route(route).rule.sensitive {
            return Err(WarmOutcome::Skipped("sensitive"));
        }
        let is_mixed_up = PlantedBug::WarmForAnother.is_planted();
        let request =
            if is_mixed_up { with_other_credentials(&request) } else { Arc::new(request) };
        let (request, arrival) = ((request, presence), (connection, received));
        let planned = RequestContext::new(&self.pipeline, (&config, route), request, arrival);
        Ok((planned.with_safety(RequestSafety::Read), lookup))
    }

    async fn fetch_as(
        &self,
        client: ClientProfile,
        target: (&str, Option<WarmContent>),
    ) -> WarmOutcome {
        let (context, lookup) = match self.context(client, target) {
            Ok(planned) => planned,
            Err(outcome) => return outcome,
        };
        let plan = match context.look_up(&lookup, MemoryState::Unknown).await {
            LookupOutcome::Fresh(_) => return WarmOutcome::Fresh,
            LookupOutcome::Stale(stored, reason) => MissPlan::of_stale(stored, reason),
            LookupOutcome::Miss(plan) => plan,
        };
        if !lookup.credentials.need_own_fetch(context.rule()) {
            return outcome(fetch_missing(&context, &lookup, plan).await).await;
        }
        // Each login warms the same targets, so targets with unstored responses are not repeated.
        let (key, now) = (lookup.target.digest(), self.pipeline.clock.steady());
        if let Some(reason) = self.why_not_stored(key, now) {
            return WarmOutcome::Skipped(reason);
        }
        let outcome = outcome(fetch_missing(&context, &lookup, plan).await).await;
        if let WarmOutcome::Skipped(reason) = outcome {
            self.not_stored.insert(key, (now, reason));
        }
        outcome
    }

    fn why_not_stored(&self, key: u128, now: Timestamp) -> Option<&'static str> {
        let (seen, reason) = self.not_stored.get(&key)?;
        (now.saturating_since(seen) < NOT_STORED_RETENTION).then_some(reason)
    }
}

/// Builds the request as a client would send it. Returns `None` if it is invalid.
fn request(host: &str, headers: HeaderMap, target: &str) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::builder().uri(target).body(Empty::new()).ok()?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).ok()?);
    Some(request)
}

/// Returns copies of the client with these fields replaced, one for each combination of values.
fn replaced(client: &ClientProfile, headers: &HeaderMap) -> Vec<ClientProfile> {
    let mut clients = vec![client.clone()];
    for name in headers.keys() {
        let values = headers.get_all(name);
        let with = |client: &ClientProfile, value: &HeaderValue| {
            let mut client = client.clone();
            client.headers.insert(name.clone(), value.clone());
            client
        };
        clients = clients
            .iter()
            .flat_map(|client| values.iter().map(|value| with(client, value)))
            .take(MAX_REQUESTS)
            .collect();
    }
    clients
}

/// Warms the responses that purges with `warm` select, as long as the purge log exists. Must run
/// only once.
pub(crate) async fn warm_purged<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.subscribe();
    loop {
        if let LogEvent::Record { record, .. } = records.next().await
            && record.purge.warm
        {
            for request in pipeline.recent_targets.selected_by(&record.purge) {
                let _known_or_dropped = pipeline.warm_queue.push(request);
            }
        }
    }
}

impl<S: Store> WarmFetcher for Warmer<S> {
    async fn fetch(&self, wanted: WarmRequest) -> WarmOutcome {
        match wanted.client {
            WarmClients::One(client) => {
                self.fetch_as(client, (&wanted.target, wanted.content)).await
            }
            WarmClients::Recent { host, headers } => {
                self.fetch_as_recent((host.as_ref(), &headers), &wanted.target).await
            }
        }
    }
}

/// Returns the outcome of a fetch, once its body has ended.
async fn outcome(fetched: FetchOutcome) -> WarmOutcome {
    match fetched {
        FetchOutcome::Streaming(TeedResponse { streaming, .. }) if streaming.refusal.is_some() => {
            WarmOutcome::Failed(streaming.refusal.map_or("origin", Reason::as_str))
        }
        FetchOutcome::Streaming(TeedResponse { streaming, reader, .. }) => {
            match reader.drain().await {
                DrainOutcome::Complete if streaming.stored == StoredStatus::No => {
                    WarmOutcome::Skipped("content")
                }
                DrainOutcome::Complete => WarmOutcome::Stored,
                DrainOutcome::NotKept => WarmOutcome::Skipped("not-kept"),
                DrainOutcome::Truncated => WarmOutcome::Failed("broken-off"),
            }
        }
        FetchOutcome::Reused(reused) if reused.result == CacheResult::Stale => {
            WarmOutcome::Failed(Reason::StaleIfError.as_str())
        }
        FetchOutcome::Reused(_) => WarmOutcome::Stored,
        FetchOutcome::NotShared(response, reason) if is_error(response.status()) => {
            WarmOutcome::Failed(reason.as_str())
        }
        FetchOutcome::NotShared(_, reason) => WarmOutcome::Skipped(reason.as_str()),
        FetchOutcome::Failed(_) => WarmOutcome::Failed("origin"),
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Fetches the response, or joins a flight in progress.
async fn fetch_missing<S: Store>(
    context: &RequestContext<S>,
    lookup: &LookupRequest,
    plan: MissPlan,
) -> FetchOutcome {
    if !plan.may_be_shared(lookup, context.rule()) {
        return context.background_fetch(lookup, plan).run(None).await;
    }
    match context.join_flight(lookup, plan).await {
        FlightOutcome::Leader(plan, flight) => {
            context.background_fetch(lookup, plan).run(Some(flight)).await
        }
        FlightOutcome::NotShared(plan) => context.background_fetch(lookup, plan).run(None).await,
        FlightOutcome::Shared(outcome) => outcome,
    }
}

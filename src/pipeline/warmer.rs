//! Fetching ahead of clients, by the same steps as for a client and with nobody to answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use ipnet::IpNet;
use quick_cache::sync::Cache;

use super::{
    Pipeline,
    admit::TeedResponse,
    credentials,
    fetch::{DrainOutcome, FetchOutcome},
    finish::ReceivedAt,
    receive::{self, Lookup, RequestAction},
    recent_clients::scheme_of,
    request_context::{
        FlightOutcome, LookupOutcome, MissPlan, RequestContext, with_other_credentials,
    },
};
use crate::{
    field::{Timestamp, forwarding::ForwardingKind, presence::FieldPresence},
    forward::request_id,
    policy::{CacheResult, Reason, cache_status::StoreDecision},
    purge::LogEvent,
    purge::planted::PlantedBug,
    server::Connection,
    store::Store,
    warm::{ClientProfile, WarmClient, WarmFetcher, WarmHost, WarmOutcome, WarmRequest},
};

/// Whether a field says of a request what target its client asked for: it is part of the key. Those of
/// strangers are gone by now.
pub(super) fn is_target_field(name: &HeaderName) -> bool {
    ForwardingKind::of(name.as_str()) == Some(ForwardingKind::Target)
}

/// Fetches through a pipeline what no client has asked for yet.
pub(crate) struct Warmer<S> {
    pipeline: Arc<Pipeline<S>>,
    /// Targets whose responses to requests with credentials were not stored, by the digests of their keys: when
    /// that was seen, and why.
    not_stored: Cache<u128, (Timestamp, &'static str)>,
}

/// Targets remembered whose responses were not stored.
const NOT_STORED_CAPACITY: usize = 4096;

/// How long that is remembered.
const NOT_STORED_RETENTION: Duration = Duration::from_mins(5);

/// Requests that one target makes at most.
const MAX_REQUESTS: usize = 32;

impl<S: Store> Warmer<S> {
    /// Fetches through this pipeline.
    pub(crate) fn new(pipeline: Arc<Pipeline<S>>) -> Self {
        Self { pipeline, not_stored: Cache::new(NOT_STORED_CAPACITY) }
    }

    /// The requests for a target, one for each client that lately asked for it or, if there were none, for
    /// each kind of client of its host. None if no host is known.
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
            client: WarmClient::One(client),
            target: target.into(),
            report: None,
        };
        requests.into_iter().map(request).collect()
    }

    /// Fields about the target count if they come from a trusted proxy: a client that has them and no address
    /// of its own comes from one.
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

    /// Fetches a target as clients lately asked for it: the first of the requests now, and the others in
    /// their turn, since what comes shows whether they ask for the same.
    async fn fetch_as_recent(
        &self,
        asked: (Option<&WarmHost>, &HeaderMap),
        target: &str,
    ) -> WarmOutcome {
        let mut requests = self.requests_of_recent(asked, target).into_iter();
        let Some(first) = requests.next() else {
            tracing::warn!(
                target,
                "warm-up skipped: no host is known; set `public_host`, or `host` of the schedule or poll"
            );
            return WarmOutcome::Skipped("no-host");
        };
        let outcome = match first.client {
            WarmClient::One(client) => self.fetch_as(client, &first.target).await,
            WarmClient::Recent { .. } => return WarmOutcome::Skipped("no-host"),
        };
        for request in requests {
            let _known_or_dropped = self.pipeline.warm_queue.push(request);
        }
        outcome
    }

    /// The request on its way through the pipeline, or why it does not get there.
    fn context(
        &self,
        client: ClientProfile,
        target: &str,
    ) -> Result<(RequestContext<S>, Lookup), WarmOutcome> {
        let received = ReceivedAt::now(&self.pipeline.clock);
        let ClientProfile { connection, host, headers } = client;
        let request = request(&host, headers, target).ok_or(WarmOutcome::Skipped("target"))?;
        self.planned(request, connection, received)
    }

    fn planned(
        &self,
        mut request: Request<Empty<Bytes>>,
        connection: Arc<Connection>,
        received: ReceivedAt,
    ) -> Result<(RequestContext<S>, Lookup), WarmOutcome> {
        let presence = FieldPresence::of(request.headers());
        let (config, route, action) = self.pipeline.config.with(|config| {
            let came = (&*connection, received.at);
            let (route, action) = receive::plan(config, &request, presence, came);
            let headers = request.headers_mut();
            credentials::make_anonymous(config, config.route(route), headers, presence);
            (Arc::clone(config), route, action)
        });
        let lookup = match action {
            RequestAction::Lookup(lookup) => lookup,
            RequestAction::Pass(reason) => return Err(WarmOutcome::Skipped(reason.as_str())),
            RequestAction::Refresh(_) => {
                return Err(WarmOutcome::Skipped(Reason::RuleBypass.as_str()));
            }
            RequestAction::Loop => return Err(WarmOutcome::Skipped(Reason::Loop.as_str())),
            RequestAction::Misdirected => {
                return Err(WarmOutcome::Skipped(Reason::Misdirected.as_str()));
            }
        };
        if config.route(route).rule.sensitive {
            return Err(WarmOutcome::Skipped("sensitive"));
        }
        let (request, _body) = request.into_parts();
        let is_mixed_up = PlantedBug::WarmForAnother.is_planted();
        let request =
            if is_mixed_up { with_other_credentials(&request) } else { Arc::new(request) };
        let pipeline = Arc::clone(&self.pipeline);
        Ok((
            RequestContext { pipeline, config, route, received, connection, request, presence },
            lookup,
        ))
    }

    async fn fetch_as(&self, client: ClientProfile, target: &str) -> WarmOutcome {
        let (context, lookup) = match self.context(client, target) {
            Ok(asked) => asked,
            Err(outcome) => return outcome,
        };
        let plan = match context.look_up(&lookup).await {
            LookupOutcome::Fresh(_) => return WarmOutcome::Fresh,
            LookupOutcome::Stale(stored, reason) => MissPlan::of_stale(stored, reason),
            LookupOutcome::Miss(plan) => plan,
        };
        if !lookup.credentials.need_own_fetch(context.rule()) {
            return outcome(fetch_missing(&context, &lookup, plan).await).await;
        }
        // Each login has the same fetched: the origin is not asked again for what cannot be shared.
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

/// The request as a client would send it; none if it cannot be sent.
fn request(host: &str, headers: HeaderMap, target: &str) -> Option<Request<Empty<Bytes>>> {
    let mut request = Request::builder().uri(target).body(Empty::new()).ok()?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).ok()?);
    request_id::ensure_request_id(request.headers_mut());
    Some(request)
}

/// A client with these fields in place of its own, once for each combination of their values.
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

/// Has what is purged fetched again, where that is asked for and clients lately wanted it, for as long as
/// the log is there. One such run is enough.
pub(crate) async fn warm_purged<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.subscribe();
    loop {
        if let LogEvent::Record { record, .. } = records.next().await
            && record.purge.warm
        {
            pipeline.warm_again(&record.purge);
        }
    }
}

impl<S: Store> WarmFetcher for Warmer<S> {
    async fn fetch(&self, wanted: WarmRequest) -> WarmOutcome {
        match wanted.client {
            WarmClient::One(client) => self.fetch_as(client, &wanted.target).await,
            WarmClient::Recent { host, headers } => {
                self.fetch_as_recent((host.as_ref(), &headers), &wanted.target).await
            }
        }
    }
}

/// What came of a fetch, once its body has ended.
async fn outcome(fetched: FetchOutcome) -> WarmOutcome {
    match fetched {
        FetchOutcome::Streaming(TeedResponse { streaming, .. }) if streaming.refusal.is_some() => {
            WarmOutcome::Failed(streaming.refusal.map_or("origin", Reason::as_str))
        }
        FetchOutcome::Streaming(TeedResponse { streaming, reader, .. }) => {
            match reader.drain().await {
                DrainOutcome::Complete if streaming.stored == StoreDecision::No => {
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

/// Asks the origin, unless somebody does already.
async fn fetch_missing<S: Store>(
    context: &RequestContext<S>,
    lookup: &Lookup,
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
        FlightOutcome::Streaming(streaming, reader) => {
            FetchOutcome::Streaming(TeedResponse { headers: HeaderMap::new(), streaming, reader })
        }
        FlightOutcome::Reused(reused) => FetchOutcome::Reused(reused),
        FlightOutcome::Failed(failure) => FetchOutcome::Failed(failure),
    }
}

//! Fetching ahead of clients, by the same steps as for a client and with nobody to answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use ipnet::IpNet;
use quick_cache::sync::Cache;

use super::{
    Pipeline,
    admit::Arrival,
    credentials,
    fetch::{Drained, Fetched},
    finish::Received,
    inquiry::{Inquiry, Joined, Need, Weighed, mixed_up},
    receive::{self, Lookup, Verdict},
    recent_clients::scheme_of,
};
use crate::{
    field::{Timestamp, forwarding::Forwarding, presence::Presence},
    forward::request_id,
    planted::Bug,
    policy::{CacheResult, Reason, cache_status::Stored},
    purge::Heard,
    server::Connection,
    store::Store,
    warm::{Client, Fetch, OneClient, Outcome, WarmHost, WarmRequest},
};

/// Whether a field says of a request what target its client asked for: it is part of the key. Those of
/// strangers are gone by now.
pub(super) fn is_told(name: &HeaderName) -> bool {
    Forwarding::of(name.as_str()) == Some(Forwarding::Target)
}

/// Fetches through a pipeline what no client has asked for yet.
pub struct Warmer<S> {
    pipeline: Arc<Pipeline<S>>,
    /// Targets whose responses to requests with credentials were not stored, by the digests of their keys: when
    /// that was seen, and why.
    not_stored: Cache<u128, (Timestamp, &'static str)>,
}

/// Targets remembered whose responses were not stored.
const NOT_STORED: usize = 4096;

/// How long that is remembered.
const MEMORY: Duration = Duration::from_mins(5);

/// Requests that one target makes at most.
const REQUESTS: usize = 32;

impl<S: Store> Warmer<S> {
    /// Fetches through this pipeline.
    pub fn new(pipeline: Arc<Pipeline<S>>) -> Self {
        Self { pipeline, not_stored: Cache::new(NOT_STORED) }
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
        let mut of_target = self.pipeline.popular.clients_of(&name, target);
        let scheme = host.and_then(|host| host.scheme);
        of_target.retain(|client| scheme.is_none_or(|scheme| scheme_of(client) == scheme));
        let clients = if of_target.is_empty() { of_host } else { of_target };
        let mut requests: Vec<OneClient> = Vec::new();
        for client in clients.iter().flat_map(|client| replaced(client, headers)) {
            let is_known = |known: &OneClient| {
                known.headers == client.headers
                    && known.connection.secure == client.connection.secure
            };
            if requests.len() < REQUESTS && !requests.iter().any(is_known) {
                requests.push(client);
            }
        }
        self.place_behind_proxy(&mut requests);
        let request = |client| WarmRequest {
            client: Client::One(client),
            target: target.into(),
            report: None,
        };
        requests.into_iter().map(request).collect()
    }

    /// Fields about the target count if they come from a trusted proxy: a client that has them and no address
    /// of its own comes from one.
    fn place_behind_proxy(&self, clients: &mut [OneClient]) {
        let proxy = self.pipeline.site.with(|site| site.trusted_proxies.first().map(IpNet::addr));
        let Some(peer) = proxy.map(|address| SocketAddr::new(address, 0)) else { return };
        for client in clients {
            if client.connection.peer.is_none() && client.headers.keys().any(is_told) {
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
    ) -> Outcome {
        let mut requests = self.requests_of_recent(asked, target).into_iter();
        let Some(first) = requests.next() else {
            tracing::warn!(
                target,
                "warm-up skipped: no host is known; set `public_host`, or `host` of the schedule or poll"
            );
            return Outcome::Skipped("no-host");
        };
        let outcome = match first.client {
            Client::One(client) => self.fetch_as(client, &first.target).await,
            Client::Recent { .. } => return Outcome::Skipped("no-host"),
        };
        for request in requests {
            let _known_or_dropped = self.pipeline.warm.push(request);
        }
        outcome
    }

    /// The request on its way through the pipeline, or why it does not get there.
    fn inquiry(&self, client: OneClient, target: &str) -> Result<(Inquiry<S>, Lookup), Outcome> {
        let received = Received::now(&self.pipeline.clock);
        let OneClient { connection, host, headers } = client;
        let request = request(&host, headers, target).ok_or(Outcome::Skipped("target"))?;
        self.planned(request, connection, received)
    }

    fn planned(
        &self,
        mut request: Request<Empty<Bytes>>,
        connection: Arc<Connection>,
        received: Received,
    ) -> Result<(Inquiry<S>, Lookup), Outcome> {
        let presence = Presence::of(request.headers());
        let (site, route, verdict) = self.pipeline.site.with(|site| {
            let came = (&*connection, received.at);
            let (route, verdict) = receive::plan(site, &request, presence, came);
            let headers = request.headers_mut();
            credentials::make_anonymous(site, site.route(route), headers, presence);
            (Arc::clone(site), route, verdict)
        });
        let lookup = match verdict {
            Verdict::Lookup(lookup) => lookup,
            Verdict::Pass(reason) => return Err(Outcome::Skipped(reason.as_str())),
            Verdict::Refresh(_) => return Err(Outcome::Skipped(Reason::RuleBypass.as_str())),
            Verdict::Loop => return Err(Outcome::Skipped(Reason::Loop.as_str())),
            Verdict::Misdirected => return Err(Outcome::Skipped(Reason::Misdirected.as_str())),
        };
        if site.route(route).rule.sensitive {
            return Err(Outcome::Skipped("sensitive"));
        }
        let (request, _body) = request.into_parts();
        let is_mixed_up = Bug::WarmForAnother.is_planted();
        let request = if is_mixed_up { mixed_up(&request) } else { Arc::new(request) };
        let pipeline = Arc::clone(&self.pipeline);
        Ok((Inquiry { pipeline, site, route, received, connection, request, presence }, lookup))
    }

    async fn fetch_as(&self, client: OneClient, target: &str) -> Outcome {
        let (inquiry, lookup) = match self.inquiry(client, target) {
            Ok(asked) => asked,
            Err(outcome) => return outcome,
        };
        let need = match inquiry.look_up(&lookup).await {
            Weighed::Fresh(_) => return Outcome::Fresh,
            Weighed::Stale(stored, reason) => Need::of_stale(stored, reason),
            Weighed::Needed(need) => need,
        };
        if !lookup.credentials.ask_alone(inquiry.rule()) {
            return outcome(ask(&inquiry, &lookup, need).await).await;
        }
        // Each login has the same fetched: the origin is not asked again for what cannot be shared.
        let (key, now) = (lookup.target.digest(), self.pipeline.clock.steady());
        if let Some(reason) = self.why_not_stored(key, now) {
            return Outcome::Skipped(reason);
        }
        let outcome = outcome(ask(&inquiry, &lookup, need).await).await;
        if let Outcome::Skipped(reason) = outcome {
            self.not_stored.insert(key, (now, reason));
        }
        outcome
    }

    fn why_not_stored(&self, key: u128, now: Timestamp) -> Option<&'static str> {
        let (seen, reason) = self.not_stored.get(&key)?;
        (now.saturating_since(seen) < MEMORY).then_some(reason)
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
fn replaced(client: &OneClient, headers: &HeaderMap) -> Vec<OneClient> {
    let mut clients = vec![client.clone()];
    for name in headers.keys() {
        let values = headers.get_all(name);
        let with = |client: &OneClient, value: &HeaderValue| {
            let mut client = client.clone();
            client.headers.insert(name.clone(), value.clone());
            client
        };
        clients = clients
            .iter()
            .flat_map(|client| values.iter().map(|value| with(client, value)))
            .take(REQUESTS)
            .collect();
    }
    clients
}

/// Has what is purged fetched again, where that is asked for and clients lately wanted it, for as long as
/// the log is there. One such run is enough.
pub async fn warm_purged<S: Store>(pipeline: Arc<Pipeline<S>>) {
    let mut records = pipeline.log.records();
    loop {
        if let Heard::Record { record, .. } = records.next().await
            && record.purge.warm
        {
            pipeline.warm_again(&record.purge);
        }
    }
}

impl<S: Store> Fetch for Warmer<S> {
    async fn fetch(&self, wanted: WarmRequest) -> Outcome {
        match wanted.client {
            Client::One(client) => self.fetch_as(client, &wanted.target).await,
            Client::Recent { host, headers } => {
                self.fetch_as_recent((host.as_ref(), &headers), &wanted.target).await
            }
        }
    }
}

/// What came of a fetch, once its body has ended.
async fn outcome(fetched: Fetched) -> Outcome {
    match fetched {
        Fetched::Arriving(Arrival { arriving, .. }) if arriving.refusal.is_some() => {
            Outcome::Failed(arriving.refusal.map_or("origin", Reason::as_str))
        }
        Fetched::Arriving(Arrival { arriving, reader, .. }) => match reader.drained().await {
            Drained::Whole if arriving.stored == Stored::No => Outcome::Skipped("content"),
            Drained::Whole => Outcome::Stored,
            Drained::NotKept => Outcome::Skipped("not-kept"),
            Drained::BrokenOff => Outcome::Failed("broken-off"),
        },
        Fetched::Settled(settled) if settled.result == CacheResult::Stale => {
            Outcome::Failed(Reason::StaleIfError.as_str())
        }
        Fetched::Settled(_) => Outcome::Stored,
        Fetched::Alone(response, reason) if is_error(response.status()) => {
            Outcome::Failed(reason.as_str())
        }
        Fetched::Alone(_, reason) => Outcome::Skipped(reason.as_str()),
        Fetched::Failed(_) => Outcome::Failed("origin"),
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Asks the origin, unless somebody does already.
async fn ask<S: Store>(inquiry: &Inquiry<S>, lookup: &Lookup, need: Need) -> Fetched {
    if !need.may_be_shared(lookup, inquiry.rule()) {
        return inquiry.question_of_larder(lookup, need).run(None).await;
    }
    match inquiry.together(lookup, need).await {
        Joined::Leading(need, flight) => {
            inquiry.question_of_larder(lookup, need).run(Some(flight)).await
        }
        Joined::Nothing(need) => inquiry.question_of_larder(lookup, need).run(None).await,
        Joined::Reading(arriving, reader) => {
            Fetched::Arriving(Arrival { headers: HeaderMap::new(), arriving, reader })
        }
        Joined::Settled(settled) => Fetched::Settled(settled),
        Joined::Failed(failure) => Fetched::Failed(failure),
    }
}

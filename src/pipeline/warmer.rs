//! Fetching ahead of clients, by the same steps as for a client and with nobody to answer.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;

use super::{
    Pipeline,
    admit::Arrival,
    credentials,
    fetch::{Drained, Fetched},
    finish::Received,
    inquiry::{Inquiry, Joined, Need, Weighed, mixed_up},
    receive::{self, Lookup, Verdict},
};
use crate::{
    field::{forwarding::Forwarding, presence::Presence},
    forward::request_id,
    planted::Bug,
    policy::{CacheResult, Reason, cache_status::Stored},
    purge::Heard,
    server::Connection,
    store::Store,
    warm::{Fetch, Outcome, WarmRequest},
};

/// Whether a field says of a request what target its client asked for: it is part of the key. Those of
/// strangers are gone by now.
pub(super) fn is_told(name: &HeaderName) -> bool {
    Forwarding::of(name.as_str()) == Some(Forwarding::Target)
}

/// The way by which clients lately came, for what is fetched ahead of all of them.
#[derive(Default)]
pub struct Lately(ArcSwapOption<Way>);

/// A connection and the fields that say where a request was sent.
struct Way {
    connection: Arc<Connection>,
    headers: HeaderMap,
}

/// Fetches through a pipeline what no client has asked for yet.
pub struct Warmer<S>(Arc<Pipeline<S>>);

impl Lately {
    /// Remembers by which way a request came.
    pub fn note(&self, connection: &Connection, headers: &HeaderMap) {
        let (peer, secure) = (connection.peer, connection.secure);
        let kept = headers.iter().filter(|(name, _)| **name == header::HOST || is_told(name));
        let headers: HeaderMap = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        let is_known = self.0.load().as_ref().is_some_and(|way| {
            way.connection.secure == secure && way.connection.peer == peer && way.headers == headers
        });
        if !is_known {
            let connection = Arc::new(Connection { peer, secure, ..Connection::default() });
            self.0.store(Some(Arc::new(Way { connection, headers })));
        }
    }
}

impl<S: Store> Warmer<S> {
    /// Fetches through this pipeline.
    pub fn new(pipeline: Arc<Pipeline<S>>) -> Self {
        Self(pipeline)
    }

    /// The request as a client would send it, and by which connection; none where no client has come yet
    /// and nobody says how they will.
    fn request(&self, wanted: WarmRequest) -> Option<(Request<Empty<Bytes>>, Arc<Connection>)> {
        let (connection, mut headers) = if let Some(connection) = wanted.connection {
            (connection, HeaderMap::new())
        } else {
            let way = self.0.lately.0.load_full()?;
            (Arc::clone(&way.connection), way.headers.clone())
        };
        if let Some(host) = wanted.host {
            headers.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
        }
        headers.extend(wanted.headers);
        let mut request = Request::builder().uri(&*wanted.target).body(Empty::new()).ok()?;
        *request.headers_mut() = headers;
        request_id::ensure_request_id(request.headers_mut());
        Some((request, connection))
    }

    /// The request on its way through the pipeline, or why it does not get there.
    fn inquiry(&self, wanted: WarmRequest) -> Result<(Inquiry<S>, Lookup), Outcome> {
        let received = Received::now(&self.0.clock);
        let asked = self.request(wanted).ok_or(Outcome::Skipped("no-client"))?;
        let (mut request, connection) = asked;
        let presence = Presence::of(request.headers());
        let (site, route, verdict) = self.0.site.with(|site| {
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
        let pipeline = Arc::clone(&self.0);
        Ok((Inquiry { pipeline, site, route, received, connection, request, presence }, lookup))
    }
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
        let (inquiry, lookup) = match self.inquiry(wanted) {
            Ok(asked) => asked,
            Err(outcome) => return outcome,
        };
        let need = match inquiry.look_up(&lookup).await {
            Weighed::Fresh(_) => return Outcome::Fresh,
            Weighed::Stale(stored, reason) => Need::of_stale(stored, reason),
            Weighed::Needed(need) => need,
        };
        outcome(ask(&inquiry, &lookup, need).await).await
    }
}

/// What came of a fetch, once its body has ended.
async fn outcome(fetched: Fetched) -> Outcome {
    match fetched {
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
        Joined::Failed(error) => Fetched::Failed(error),
    }
}

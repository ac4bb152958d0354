//! Routes requests on the public listener to Larder's own endpoints or to the pipeline.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt, future::Either};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    access_record::{AccessRecord, AccessReporter, StreamingBody},
    body::{BodyBudget, BodyReadError, BufferedBody, EndpointCaller},
    clear::{self, UserClearRequest, UserClearThrottle},
    client,
    purge_method::{self, PURGE, PurgeAccess},
    purger::{Purger, json_response, receipt_response, unavailable_response},
    webhook::{self, Delivery, DeliveryAction, DeliveryError, HeaderProof, MappedPurges, Webhook},
};
use crate::{
    field::Timestamp,
    key::uri::{Scheme, TargetUri},
    parsing::ParseQueue,
    problem::Problem,
    purge::DedupOutcome,
    server::{
        Connection, Declined, Deferrer, Handler, ImmediateResponder, Incoming, PlainRequest,
        ResponseBatch,
    },
    user::IdentifyFn,
};

/// The path prefix of Larder's own endpoints on the public listener.
const ENDPOINT_PREFIX: &str = "/_larder/";

/// The maximum size of deliveries that are parsed on the connection's own thread, in bytes.
const INLINE_BYTES: usize = 4 << 10;

/// The time limit for a large delivery to be queued and parsed.
const PARSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handles webhooks and `PURGE`, and passes all other requests unchanged to `H`.
///
/// All other requests cost a check of the method and of the second byte of the path.
pub(crate) struct EndpointRouter<H> {
    handler: Arc<H>,
    endpoints: Arc<LarderEndpoints>,
    extra: ExtraEndpoints,
    on_response: Arc<dyn Fn(&AccessRecord) + Send + Sync>,
}

/// A function that responds to requests for additional endpoints. Receives the request and the
/// addresses of peer and client, if known. Returns `None` for other paths.
pub(crate) type ExtraEndpoints = Box<
    dyn Fn(&Request<Incoming>, [Option<IpAddr>; 2]) -> Option<Response<StreamingBody>>
        + Send
        + Sync,
>;

/// The router's settings, replaced as a whole on reload.
#[derive(Default)]
pub(crate) struct Settings {
    pub webhooks: Vec<Arc<Webhook>>,
    /// The clients that may send `PURGE`.
    pub purge_access: PurgeAccess,
    /// The other origins whose pages may send clear requests. `None` disables clearing.
    pub clear_origins: Option<Box<[HeaderValue]>>,
}

/// Responds to webhooks and `PURGE`: the part of the router that does not depend on `H`.
struct LarderEndpoints {
    purger: Arc<Purger>,
    settings: ArcSwap<Settings>,
    body_budget: BodyBudget,
    clear_throttle: UserClearThrottle,
    identify: Box<IdentifyFn>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    parsing: ParseQueue,
}

/// The services that a router uses.
pub(crate) struct RouterDependencies {
    pub purger: Arc<Purger>,
    /// Additional endpoints, which are tried first.
    pub extra: ExtraEndpoints,
    /// A function that identifies the user of a request.
    pub identify: Box<IdentifyFn>,
    /// The clock for checking signatures.
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The queue for parsing large documents.
    pub parsing: ParseQueue,
    /// A function that is called after each response to a request to Larder's own endpoints.
    pub on_response: Box<dyn Fn(&AccessRecord) + Send + Sync>,
}

impl<H> EndpointRouter<H> {
    /// Creates a router in front of `handler`. The endpoints in `parts.extra` are tried first.
    pub(crate) fn new(handler: Arc<H>, settings: Settings, parts: RouterDependencies) -> Arc<Self> {
        let RouterDependencies { purger, extra, identify, now, parsing, on_response } = parts;
        let (settings, body_budget) = (ArcSwap::from_pointee(settings), BodyBudget::default());
        let clear_throttle = UserClearThrottle::default();
        let endpoints = LarderEndpoints {
            purger,
            settings,
            body_budget,
            clear_throttle,
            identify,
            now,
            parsing,
        };
        Arc::new(Self {
            handler,
            endpoints: Arc::new(endpoints),
            extra,
            on_response: on_response.into(),
        })
    }

    /// Replaces the settings for subsequent requests.
    pub(crate) fn replace(&self, settings: Settings) {
        self.endpoints.settings.store(Arc::new(settings));
    }
}

impl<H> Handler for EndpointRouter<H>
where
    H: Handler<Body: From<Bytes> + From<StreamingBody>>,
{
    type Body = H::Body;

    fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<H::Body>> + Send {
        if !self.endpoints.is_endpoint(request.method(), request.uri().path()) {
            return Either::Left(self.handler.handle(request, connection));
        }
        let reporter = AccessReporter::begin(&request, Arc::clone(&self.on_response));
        let addresses = self.endpoints.addresses(request.headers(), connection);
        if let Some(response) = (self.extra)(&request, addresses) {
            let response = reporter.finish_with_body(response).map(H::Body::from);
            return Either::Right(std::future::ready(response).boxed());
        }
        let (endpoints, connection) = (Arc::clone(&self.endpoints), Arc::clone(connection));
        let response = async move {
            let response = endpoints.respond(request, &connection).await;
            reporter.finish(response).map(H::Body::from)
        };
        Either::Right(response.boxed())
    }

    fn immediate_responder(
        self: &Arc<Self>,
        fields: HeaderMap,
        connection: &Arc<Connection>,
        deferrer: &Arc<dyn Deferrer<H::Body>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        let responder = self.handler.immediate_responder(fields, connection, deferrer)?;
        Some(PassedResponder { endpoints: Arc::clone(&self.endpoints), responder })
    }
}

/// Declines requests for Larder's own endpoints, and passes other requests to `responder`.
struct PassedResponder<R> {
    endpoints: Arc<LarderEndpoints>,
    responder: R,
}

impl<R: ImmediateResponder> ImmediateResponder for PassedResponder<R> {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        if self.endpoints.is_endpoint(request.method, request.path) {
            return Err(Declined::Request);
        }
        self.responder.respond(request, batch)
    }

    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        self.responder.replace_value(name, value)
    }
}

impl LarderEndpoints {
    /// Returns true if the request is for one of Larder's own endpoints.
    #[inline]
    fn is_endpoint(&self, method: &Method, path: &str) -> bool {
        (path.as_bytes().get(1) == Some(&b'_') && path.starts_with(ENDPOINT_PREFIX))
            || (method.as_str() == PURGE && self.settings.load().purge_access.is_enabled())
    }

    /// Returns the addresses of the peer and of the client; `None` if unknown or uncertain.
    fn addresses(&self, headers: &HeaderMap, connection: &Connection) -> [Option<IpAddr>; 2] {
        let peer = connection.peer.map(|peer| peer.ip().to_canonical());
        let settings = self.settings.load();
        [peer, client::address(peer, headers, &settings.purge_access.trusted_proxies)]
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Bytes> {
        if request.method().as_str() == PURGE {
            return self.purge(&request, connection).await;
        }
        if let Some(name) =
            request.uri().path().strip_prefix(webhook::PATH_PREFIX).map(str::to_owned)
        {
            return self.webhook(&name, request, connection).await;
        }
        if request.uri().path() == clear::PATH {
            return self.clear(request, connection).await;
        }
        let detail =
            "Larder has no endpoint at this path. Webhooks are at `/_larder/webhooks/{name}`.";
        Problem::new(StatusCode::NOT_FOUND, "No such endpoint", detail).into_response()
    }

    async fn purge<B>(&self, request: &Request<B>, connection: &Connection) -> Response<Bytes> {
        let settings = self.settings.load_full();
        let (uri, headers) = (request.uri(), request.headers());
        let peer = connection.peer.map(|peer| peer.ip());
        if let Err(response) = settings.purge_access.authorize(peer, headers) {
            return *response;
        }
        let scheme = if connection.secure { Scheme::Https } else { Scheme::Http };
        let target =
            TargetUri { scheme, host: host(headers), path: uri.path(), query: uri.query() };
        match purge_method::plan(&target, headers, self.purger.normalizer()) {
            Ok(purge) => self.purger.purge_and_respond(purge, None).await,
            Err(problem) => problem.into_response(),
        }
    }

    async fn clear(&self, request: Request<Incoming>, connection: &Connection) -> Response<Bytes> {
        let settings = self.settings.load_full();
        let Some(origins) = &settings.clear_origins else {
            let detail = "Users cannot be identified: the configuration has neither `jwt` nor `header` in `[user]`.";
            return Problem::new(StatusCode::NOT_FOUND, "No such endpoint", detail).into_response();
        };
        let (head, _body) = request.into_parts();
        let user = (self.identify)(&head.headers, connection.peer.map(|peer| peer.ip()));
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        let request = UserClearRequest { method, uri, headers, origins };
        request.respond(user, (&self.clear_throttle, &self.purger)).await
    }

    async fn webhook(
        &self,
        name: &str,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> Response<Bytes> {
        let settings = self.settings.load_full();
        let Some(webhook) = settings.webhooks.iter().find(|webhook| *webhook.name == *name) else {
            self.count("unknown", "unknown");
            let detail = "No `[[webhook]]` in the configuration has this name.";
            return Problem::new(StatusCode::NOT_FOUND, "No such webhook", detail).into_response();
        };
        if request.method() != Method::POST {
            self.count(name, "unknown");
            return wrong_method();
        }
        let (head, body) = request.into_parts();
        let proof = webhook.scheme.verify_fields(&head.headers, (self.now)());
        let [_peer, client] = self.addresses(&head.headers, connection);
        let sender = match proof {
            Ok(HeaderProof::Complete) => EndpointCaller::Authenticated,
            Ok(HeaderProof::NeedsBody) => EndpointCaller::Unauthenticated(name, client),
            Err(error) => return self.refuse(name, &DeliveryError::Unverified(error)),
        };
        let body = match self.body_budget.read(body, connection.body.idle_timeout, sender).await {
            Ok(body) => body,
            Err(error) => {
                self.count(name, result_label(error));
                return error.problem().into_response();
            }
        };
        match self.plan(webhook.clone(), head.headers, body).await {
            Ok(DeliveryAction::Purge { mapped, id }) => {
                self.deliver(name, mapped, id.as_deref()).await
            }
            Ok(DeliveryAction::Challenge(challenge)) => {
                self.count(name, "challenge");
                json_response(StatusCode::OK, &serde_json::json!({ "challenge": challenge }))
            }
            Err(error) => self.refuse(name, &error),
        }
    }

    fn refuse(&self, name: &str, error: &DeliveryError) -> Response<Bytes> {
        self.count(name, error.as_str());
        error.problem().into_response()
    }

    /// Returns the action that a delivery requires.
    ///
    /// Large deliveries are parsed on another thread, because JSON paths are evaluated over the
    /// whole payload.
    async fn plan(
        &self,
        webhook: Arc<Webhook>,
        headers: HeaderMap,
        body: BufferedBody,
    ) -> Result<DeliveryAction, DeliveryError> {
        let (now, purger) = ((self.now)(), Arc::clone(&self.purger));
        let is_small = body.len() <= INLINE_BYTES;
        let plan = move || {
            let delivery = Delivery { headers: &headers, body: &body, now };
            webhook.plan(&delivery, purger.owners())
        };
        if is_small {
            return plan();
        }
        let planned = tokio::time::timeout(PARSE_TIMEOUT, self.parsing.run(plan)).await;
        planned.ok().flatten().unwrap_or(Err(DeliveryError::Busy))
    }

    /// Runs the purges of a delivery, and builds the response.
    ///
    /// If a purge fails, the id is not recorded, so that the sender can repeat the delivery.
    async fn deliver(&self, name: &str, mapped: MappedPurges, id: Option<&str>) -> Response<Bytes> {
        let unfilled = u64::try_from(mapped.unfilled).unwrap_or(u64::MAX);
        let metrics = &self.purger.metrics().purging;
        metrics.unfilled.with_label_values(&[name]).inc_by(unfilled);
        let mut last = None;
        for purge in mapped.purges {
            let Ok(once) = self.purger.purge_with_id(purge, id).await else {
                self.count(name, "unavailable");
                return unavailable_response();
            };
            last = Some(match last {
                Some(before) => merge(before, once),
                None => once,
            });
        }
        if let Some(once) = last {
            self.count(
                name,
                if matches!(once, DedupOutcome::Appended(_)) { "purged" } else { "duplicate" },
            );
            return receipt_response(once);
        }
        let (result, why) = match mapped.rules {
            0 => ("ignored", "no rule matches this event"),
            _ => ("empty", "the payload has no value for any tag"),
        };
        self.count(name, result);
        // The status is a success, so that the sender does not deliver the event again.
        json_response(StatusCode::ACCEPTED, &serde_json::json!({ "ignored": why }))
    }

    fn count(&self, webhook: &str, result: &str) {
        let deliveries = &self.purger.metrics().purging.deliveries;
        deliveries.with_label_values(&[webhook, result]).inc();
    }
}

/// Returns the value of `Host`. The server has rejected requests with several `Host` fields.
fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn wrong_method() -> Response<Bytes> {
    let detail = "Use POST to deliver webhooks.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// Merges the outcomes of two purges of a delivery. The result is a duplicate if both are.
fn merge(before: DedupOutcome, once: DedupOutcome) -> DedupOutcome {
    match (&before, &once) {
        (DedupOutcome::Appended(_), DedupOutcome::Duplicate(_)) => before,
        _ => once,
    }
}

const fn result_label(error: BodyReadError) -> &'static str {
    match error {
        BodyReadError::TooLarge => "too-large",
        BodyReadError::TimedOut | BodyReadError::Incomplete => "malformed",
        BodyReadError::OverBudget => "unavailable",
    }
}

//! What stands before the pipeline on the public listener and answers what is Larder's own.

use std::{convert::Infallible, future::Future, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt, future::Either};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;

use super::{
    body::{Held, Intake, Sender, Unread},
    clear::{self, Asked, Clearing},
    client,
    method::{self, PURGE, Purgers},
    purger::{Purger, json, receipted, unavailable},
    report::{Answered, Report},
    webhook::{Delivery, Mapped, Plan, Proof, Refused, Webhook},
};
use crate::{
    field::Timestamp,
    key::target::{Scheme, Target},
    parsing::Parsing,
    problem::Problem,
    purge::Once,
    server::{Connection, Handler, Incoming},
    user::Identify,
};

/// Where everything of Larder's own begins on the public listener.
const OWN: &str = "/_larder/";

pub(super) const WEBHOOKS: &str = "/_larder/webhooks/";

/// Up to this many bytes of a delivery are read by the way.
const SHORT: usize = 4 << 10;

/// How long a delivery may wait to be read, and be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers webhooks and `PURGE`, and hands every other request to `H` as it came. That costs a look at
/// the method and at the second byte of the path.
pub struct Front<H> {
    handler: Arc<H>,
    desk: Arc<Desk>,
    further: Further,
    answered: Arc<dyn Fn(&Answered) + Send + Sync>,
}

/// What else is Larder's own: answers where the path is its. It is told the peer's address and the client's,
/// as far as they are known.
pub type Further =
    Box<dyn Fn(&Request<Incoming>, [Option<IpAddr>; 2]) -> Option<Response<Made>> + Send + Sync>;

/// A body that is made as it goes.
pub type Made = UnsyncBoxBody<Bytes, Infallible>;

/// What the configuration makes of it; replaced as a whole on reload.
#[derive(Default)]
pub struct Settings {
    /// The webhooks.
    pub webhooks: Vec<Arc<Webhook>>,
    /// Who may send `PURGE`.
    pub purgers: Purgers,
    /// Whether users may clear what is stored of their own, and pages of which other origins for them.
    pub clearing: Option<Box<[HeaderValue]>>,
}

/// What answers, apart from what it stands before.
struct Desk {
    purger: Arc<Purger>,
    settings: ArcSwap<Settings>,
    intake: Intake,
    clearing: Clearing,
    identify: Box<Identify>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    parsing: Parsing,
}

/// What a front asks besides its settings.
pub struct FrontParts {
    /// Purges what is asked for.
    pub purger: Arc<Purger>,
    /// What else is Larder's own.
    pub further: Further,
    /// Which user a request is from.
    pub identify: Box<Identify>,
    /// The clock that signatures are held against.
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The turn to read long documents.
    pub parsing: Parsing,
    /// Called with each request that was answered here, once its response has ended.
    pub answered: Box<dyn Fn(&Answered) + Send + Sync>,
}

impl<H> Front<H> {
    /// A front before `handler`, which asks `further` about every request for Larder itself first.
    pub fn new(handler: Arc<H>, settings: Settings, parts: FrontParts) -> Arc<Self> {
        let FrontParts { purger, further, identify, now, parsing, answered } = parts;
        let (settings, intake) = (ArcSwap::from_pointee(settings), Intake::default());
        let clearing = Clearing::default();
        let desk = Desk { purger, settings, intake, clearing, identify, now, parsing };
        Arc::new(Self { handler, desk: Arc::new(desk), further, answered: answered.into() })
    }

    /// Puts other settings in force for the requests that come from now on.
    pub fn replace(&self, settings: Settings) {
        self.desk.settings.store(Arc::new(settings));
    }
}

impl<H> Handler for Front<H>
where
    H: Handler<Body: From<Bytes> + From<Made>>,
{
    type Body = H::Body;

    fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> impl Future<Output = Response<H::Body>> + Send {
        if !self.desk.claims(request.method(), request.uri()) {
            return Either::Left(self.handler.handle(request, connection));
        }
        let report = Report::begin(&request, Arc::clone(&self.answered));
        let addresses = self.desk.addresses(request.headers(), connection);
        if let Some(answer) = (self.further)(&request, addresses) {
            let answer = report.carried_by(answer).map(H::Body::from);
            return Either::Right(std::future::ready(answer).boxed());
        }
        let (desk, connection) = (Arc::clone(&self.desk), Arc::clone(connection));
        let answer = async move {
            let answer = desk.answer(request, &connection).await;
            report.ended(answer).map(H::Body::from)
        };
        Either::Right(answer.boxed())
    }
}

impl Desk {
    /// Whether a request is for Larder itself.
    #[inline]
    fn claims(&self, method: &Method, uri: &Uri) -> bool {
        let path = uri.path();
        (path.as_bytes().get(1) == Some(&b'_') && path.starts_with(OWN))
            || (method.as_str() == PURGE && self.settings.load().purgers.any())
    }

    /// The addresses of the peer and of the client.
    fn addresses(&self, headers: &HeaderMap, connection: &Connection) -> [Option<IpAddr>; 2] {
        let peer = connection.peer.map(|peer| peer.ip().to_canonical());
        let settings = self.settings.load();
        [peer, client::address(peer, headers, &settings.purgers.trusted)]
    }

    async fn answer(&self, request: Request<Incoming>, connection: &Connection) -> Response<Bytes> {
        if request.method().as_str() == PURGE {
            return self.purge(&request, connection).await;
        }
        if let Some(name) = request.uri().path().strip_prefix(WEBHOOKS).map(str::to_owned) {
            return self.webhook(&name, request, connection).await;
        }
        if request.uri().path() == clear::PATH {
            return self.clear(request, connection).await;
        }
        let detail = "Larder has nothing at this path. Webhooks are at `/_larder/webhooks/{name}`.";
        Problem::new(StatusCode::NOT_FOUND, "Nothing here", detail).into_response()
    }

    async fn purge<B>(&self, request: &Request<B>, connection: &Connection) -> Response<Bytes> {
        let settings = self.settings.load_full();
        let (uri, headers) = (request.uri(), request.headers());
        let peer = connection.peer.map(|peer| peer.ip());
        if let Err(refused) = settings.purgers.permit(peer, headers) {
            return *refused;
        }
        let scheme = if connection.secure { Scheme::Https } else { Scheme::Http };
        let target = Target { scheme, host: host(headers), path: uri.path(), query: uri.query() };
        match method::plan(&target, headers, self.purger.normal()) {
            Ok(purge) => self.purger.answer(purge, None).await,
            Err(problem) => problem.into_response(),
        }
    }

    async fn clear(&self, request: Request<Incoming>, connection: &Connection) -> Response<Bytes> {
        let settings = self.settings.load_full();
        let Some(origins) = &settings.clearing else {
            let detail =
                "Users are not known here: the configuration has no `jwt` or `header` in `[user]`.";
            return Problem::new(StatusCode::NOT_FOUND, "Nothing here", detail).into_response();
        };
        let (head, _body) = request.into_parts();
        let user = (self.identify)(&head.headers, connection.peer.map(|peer| peer.ip()));
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        let asked = Asked { method, uri, headers, origins };
        asked.answer(user, (&self.clearing, &self.purger)).await
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
            let detail = "No `[[webhook]]` of the configuration has this name.";
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
            Ok(Proof::Complete) => Sender::Proven,
            Ok(Proof::InBody) => Sender::Unproven(name, client),
            Err(unproven) => return self.refuse(name, &Refused::Unproven(unproven)),
        };
        let body = match self.intake.read(body, connection.body.silence, sender).await {
            Ok(body) => body,
            Err(unread) => {
                self.count(name, result_of(unread));
                return unread.problem().into_response();
            }
        };
        match self.plan(webhook.clone(), head.headers, body).await {
            Ok(Plan::Purge { mapped, id }) => self.deliver(name, mapped, id.as_deref()).await,
            Ok(Plan::Answer(challenge)) => {
                self.count(name, "challenge");
                json(StatusCode::OK, &serde_json::json!({ "challenge": challenge }))
            }
            Err(refused) => self.refuse(name, &refused),
        }
    }

    fn refuse(&self, name: &str, refused: &Refused) -> Response<Bytes> {
        self.count(name, refused.as_str());
        refused.problem().into_response()
    }

    /// What a delivery comes to. One that is not short is read on another thread: paths of the configuration
    /// are evaluated over all of it.
    async fn plan(
        &self,
        webhook: Arc<Webhook>,
        headers: HeaderMap,
        body: Held,
    ) -> Result<Plan, Refused> {
        let (now, purger) = ((self.now)(), Arc::clone(&self.purger));
        let is_short = body.len() <= SHORT;
        let plan = move || {
            let delivery = Delivery { headers: &headers, body: &body, now };
            webhook.plan(&delivery, purger.owners())
        };
        if is_short {
            return plan();
        }
        let planned = tokio::time::timeout(PATIENCE, self.parsing.run(plan)).await;
        planned.ok().flatten().unwrap_or(Err(Refused::Busy))
    }

    /// Purges what a delivery came to, and answers it. What was not purged is not remembered: the
    /// sender is to send it again.
    async fn deliver(&self, name: &str, mapped: Mapped, id: Option<&str>) -> Response<Bytes> {
        let unfilled = u64::try_from(mapped.unfilled).unwrap_or(u64::MAX);
        let metrics = &self.purger.metrics().purging;
        metrics.unfilled.with_label_values(&[name]).inc_by(unfilled);
        let mut last = None;
        for purge in mapped.purges {
            let Ok(once) = self.purger.purge_for_sender(purge, id).await else {
                self.count(name, "unavailable");
                return unavailable();
            };
            last = Some(match last {
                Some(before) => later(before, once),
                None => once,
            });
        }
        if let Some(once) = last {
            self.count(name, if matches!(once, Once::First(_)) { "purged" } else { "duplicate" });
            return receipted(once);
        }
        let (result, why) = match mapped.rules {
            0 => ("ignored", "no rule is for this event"),
            _ => ("empty", "the payload has no value for any tag"),
        };
        self.count(name, result);
        // A success, so that nobody sends it again.
        json(StatusCode::ACCEPTED, &serde_json::json!({ "ignored": why }))
    }

    fn count(&self, webhook: &str, result: &str) {
        let deliveries = &self.purger.metrics().purging.deliveries;
        deliveries.with_label_values(&[webhook, result]).inc();
    }
}

/// The host that a request names; the server has made sure that there is one at most.
fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn wrong_method() -> Response<Bytes> {
    let detail = "Webhooks are delivered with POST.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// What two purges of one delivery come to: a repetition only where both are.
fn later(before: Once, once: Once) -> Once {
    match (&before, &once) {
        (Once::First(_), Once::Again(_)) => before,
        _ => once,
    }
}

const fn result_of(unread: Unread) -> &'static str {
    match unread {
        Unread::TooLarge => "too-large",
        Unread::Slow | Unread::Incomplete => "malformed",
        Unread::Busy => "unavailable",
    }
}

//! Responds to plain requests without hyper: immediately, if a fresh response is in memory.
//! Otherwise the connection waits for the response, if it can.
//!
//! Each decision is made by the same functions as in `Pipeline::handle`. A request is declined
//! before it has an effect.

use std::{borrow::Cow, cell::Cell, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts,
    uri::PathAndQuery,
};

use super::{
    body::DeliveredBody,
    client_request::FirstPlan,
    clock::ReceivedAt,
    config_snapshot::{ConfigSnapshot, SnapshotId},
    content::{ContentFields, RequestContent},
    credentials, encoded_hit,
    ingress::{self, Ingress},
    lookup::MemoryState,
    plan_content,
    receive::{self, LookupRequest, RequestAction},
    received_request::{ContentState, ReceivedRequest},
    state::Pipeline,
};
use crate::{
    entry::ResponseId,
    field::presence::FieldPresence,
    policy::Partition,
    server::{
        AttemptBackoff, Connection, Declined, Deferrer, ImmediateResponder, Incoming, PlainRequest,
        ResponseBatch,
    },
    store::Store,
};

/// Maximum number of fields of a head that a connection keeps, at about 120 bytes each.
const MAX_KEPT_FIELDS: usize = 24;

/// Maximum length of a target whose plan a connection keeps, in bytes.
const MAX_KEPT_TARGET: usize = 1024;

/// Responds to requests on one connection that have the same header fields.
#[repr(C)] // What each request reads comes first, in few cache lines.
pub(super) struct PlainResponder<S> {
    pipeline: Arc<Pipeline<S>>,
    fields: RequestFields,
    deferrer: Arc<dyn Deferrer<DeliveredBody>>,
}

/// A request to which a response takes time, with its plan.
struct DeferredRequest {
    plan: FirstPlan,
    request: Arc<Parts>,
    presence: FieldPresence,
    received: ReceivedAt,
}

/// The header fields of the requests, and the properties computed from them once.
#[repr(C)] // What a repeated request reads comes first.
struct RequestFields {
    /// The configuration under which the fields were sanitised.
    config: SnapshotId,
    last: LastTarget,
    presence: FieldPresence,
    /// A stored response whose tag `If-None-Match` lists.
    listed: Cell<Option<ResponseId>>,
    headers: HeaderMap,
    connection: Arc<Connection>,
    ingress: Ingress<'static>,
    /// The properties of the content, read from the fields; `None` until a request has content.
    content: Option<ContentFields>,
}

/// The target of the last noted request without content. A client that polls repeats it.
#[derive(Default)]
struct LastTarget {
    method: Method,
    /// Path and query; empty if there is none.
    target: String,
    /// The plan for requests with this target; `None` until a request repeats it.
    planned: Option<Box<PlannedLookup>>,
    /// Notes fewer targets if no requests repeat them, because that costs time.
    backoff: AttemptBackoff,
}

/// The plan of a request that the cache may answer.
struct PlannedLookup {
    /// The index of the route.
    route: usize,
    lookup: LookupRequest,
    /// The head of the request, once the response to a repeated request took time.
    head: Option<Arc<Parts>>,
}

/// The plan for a request: one that the connection has kept, or a new one.
enum Plan {
    Kept(Box<PlannedLookup>),
    New(PlannedLookup),
}

impl<S: Store> PlainResponder<S> {
    /// Creates a responder for requests with these fields, as received.
    pub(super) fn new(
        pipeline: &Arc<Pipeline<S>>,
        mut headers: HeaderMap,
        connection: &Arc<Connection>,
        deferrer: &Arc<dyn Deferrer<DeliveredBody>>,
    ) -> Self {
        let (config, presence, ingress) = pipeline.config.with(|config| {
            let presence = receive::sanitize_fields(config, &mut headers, connection);
            let ingress = Ingress::of(config, &headers, connection).into_owned();
            (config.id, presence, ingress)
        });
        let (pipeline, connection) = (Arc::clone(pipeline), Arc::clone(connection));
        let fields = RequestFields {
            config,
            last: LastTarget::default(),
            presence,
            listed: Cell::default(),
            headers,
            connection,
            ingress,
            content: None,
        };
        Self { pipeline, fields, deferrer: Arc::clone(deferrer) }
    }
}

impl RequestFields {
    /// Responds from memory, or returns the request whose response takes time.
    fn respond(
        &mut self,
        (pipeline, config): (&Arc<Pipeline<impl Store>>, &Arc<ConfigSnapshot>),
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<Option<Box<DeferredRequest>>, Declined> {
        if config.id != self.config {
            return Err(Declined::Outdated);
        }
        let received = ReceivedAt::now(&pipeline.clock);
        let content = match request.content {
            Some(sent) => Some(self.read_content(config, request, sent, received)?),
            None => None,
        };
        let content = content.as_ref().map_or(ContentState::Absent, ContentState::Read);
        let is_repeated = request.content.is_none() && self.last.is_of(request);
        let kept = if is_repeated { self.last.planned.take() } else { None };
        let mut plan = match kept.filter(|kept| self.is_current(config, kept, received)) {
            Some(kept) => Plan::Kept(kept),
            None => match self.plan(config, (request, content), received)? {
                (route, RequestAction::Lookup(lookup)) => {
                    Plan::New(PlannedLookup { route, lookup, head: None })
                }
                (route, action) => {
                    let keyed = matches!(action, RequestAction::Refresh(_)).then_some(route);
                    let head = Arc::new(self.head(request, (config, keyed), batch)?);
                    let plan = (route, action, MemoryState::Unknown);
                    return Ok(Some(self.deferred(config, plan, head, received)));
                }
            },
        };
        let planned = plan.planned();
        let (index, route) = (planned.route, config.route(planned.route));
        let mut headers = Cow::Borrowed(&self.headers);
        if route.rule.partition == Partition::Everyone
            && credentials::may_be_present(config, self.presence)
        {
            credentials::make_anonymous(config, route, headers.to_mut(), self.presence);
        }
        let head = ReceivedRequest { headers: &headers, ..self.received(request, content) };
        let (place, lookup) = ((pipeline, &**config, index), &planned.lookup);
        let hit =
            pipeline.respond_from_memory((config, index), &headers, lookup, received, |_, form| {
                let form = (lookup.presence, form);
                encoded_hit::append(place, received, &head, form, &self.listed, batch)
            });
        let responded = match hit {
            Ok(appended) => appended.map(|()| None),
            Err(memory) => {
                let head = self.head_of(planned, is_repeated, (config, request), batch);
                head.map(|head| {
                    let plan = (index, RequestAction::Lookup(planned.lookup.clone()), memory);
                    Some(self.deferred(config, plan, head, received))
                })
            }
        };
        // How a GraphQL query is read depends on the documents that are known by then.
        if request.content.is_none() && route.graphql.is_none() {
            self.last.settle(request, plan, is_repeated);
        }
        responded
    }

    /// Returns the index of the route of a request, and the action. Declines a request whose hit is
    /// audited.
    fn plan(
        &self,
        config: &ConfigSnapshot,
        (request, content): (&PlainRequest<'_>, ContentState<'_>),
        received: ReceivedAt,
    ) -> Result<(usize, RequestAction), Declined> {
        let (head, arrival) = (self.received(request, content), (&*self.connection, received.at));
        let (route, action) =
            receive::plan_from(&self.ingress, config, &head, self.presence, arrival);
        match action {
            RequestAction::Lookup(_) if config.route(route).verification.audit().is_some() => {
                Err(Declined::Request)
            }
            action => Ok((route, action)),
        }
    }

    /// Returns whether a plan for requests with these fields still holds. Nothing but the identity
    /// depends on the time: a token expires, and its key may be withdrawn.
    fn is_current(
        &self,
        config: &ConfigSnapshot,
        planned: &PlannedLookup,
        received: ReceivedAt,
    ) -> bool {
        let Some(member) = &planned.lookup.member else { return true };
        if !config.users.is_configured() {
            return true;
        }
        let partition = &config.route(planned.route).rule.partition;
        let peer = self.connection.peer.map(|peer| peer.ip().to_canonical());
        let identified = config.users.identify(partition, (&self.headers, peer), received.at);
        identified.is_ok_and(|identified| Arc::ptr_eq(&identified, member))
    }

    /// Like [`Self::head`], for a planned request. The plan keeps the head of a repeated request.
    fn head_of(
        &self,
        planned: &mut PlannedLookup,
        is_repeated: bool,
        (config, request): (&ConfigSnapshot, &PlainRequest<'_>),
        batch: &ResponseBatch,
    ) -> Result<Arc<Parts>, Declined> {
        if let Some(head) = &planned.head
            && batch.may_defer()
        {
            return Ok(Arc::clone(head));
        }
        let head = Arc::new(self.head(request, (config, Some(planned.route)), batch)?);
        if is_repeated && head.headers.len() <= MAX_KEPT_FIELDS {
            planned.head = Some(Arc::clone(&head));
        }
        Ok(head)
    }

    /// Returns the head of a request whose response takes time. `keyed` is the route under whose keys
    /// the response may be stored; if it is public, the head has no credentials. Declines the request if its response may not be deferred.
    fn head(
        &self,
        request: &PlainRequest<'_>,
        (config, keyed): (&ConfigSnapshot, Option<usize>),
        batch: &ResponseBatch,
    ) -> Result<Parts, Declined> {
        if !batch.may_defer() || request.content.is_some() {
            return Err(Declined::Request);
        }
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = request.method.clone();
        head.uri = uri(request).ok_or(Declined::Request)?;
        head.headers = self.headers.clone();
        if let Some(route) = keyed {
            let route = config.route(route);
            credentials::make_anonymous(config, route, &mut head.headers, self.presence);
        }
        Ok(head)
    }

    fn deferred(
        &self,
        config: &Arc<ConfigSnapshot>,
        (route, action, memory): (usize, RequestAction, MemoryState),
        request: Arc<Parts>,
        received: ReceivedAt,
    ) -> Box<DeferredRequest> {
        let plan = FirstPlan { config: Arc::clone(config), route, action, memory };
        Box::new(DeferredRequest { plan, request, presence: self.presence, received })
    }

    /// Replaces a value of the fields as received. A field that [`receive::sanitize_fields`] has
    /// removed stays removed, since it looks at no values except those of `Connection`. Returns
    /// `false` if there are several fields with this name, or if the ingress depends on the field.
    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        if self.headers.get_all(name).iter().nth(1).is_some() {
            return false;
        }
        self.last.forget();
        if let Some(known) = self.headers.get_mut(name) {
            if ingress::is_target_field(name) {
                return false;
            }
            *known = value;
            self.content = None;
            self.listed.set(None);
        }
        true
    }

    /// Returns the content in the form that the key contains, and updates the header fields that
    /// describe the content. Declines requests whose content is not part of the key.
    fn read_content(
        &mut self,
        config: &ConfigSnapshot,
        request: &PlainRequest<'_>,
        sent: &[u8],
        received: ReceivedAt,
    ) -> Result<Arc<RequestContent>, Declined> {
        let length = sent.len() as u64;
        if length > self.connection.body.bytes {
            return Err(Declined::Request);
        }
        self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let head = self.received(request, ContentState::Unread(length));
        let arrival = (&*self.connection, received.at);
        let planned = receive::plan_from(&self.ingress, config, &head, self.presence, arrival);
        let (route, RequestAction::ReadContent(form)) = planned else {
            return Err(Declined::Request);
        };
        let fields = self.content.get_or_insert_with(|| ContentFields::of(&self.headers));
        let head = (request.method, request.query, &mut self.headers);
        let sent = (Bytes::copy_from_slice(sent), None);
        Ok(plan_content::interpret(config, (route, form), head, fields, sent))
    }

    fn received<'a>(
        &'a self,
        request: &PlainRequest<'a>,
        content: ContentState<'a>,
    ) -> ReceivedRequest<'a> {
        let PlainRequest { method, path, query, .. } = *request;
        let (version, headers) = (Version::HTTP_11, &self.headers);
        ReceivedRequest { method, path, query, version, headers, content }
    }
}

impl Plan {
    fn planned(&mut self) -> &mut PlannedLookup {
        match self {
            Self::Kept(planned) => planned,
            Self::New(planned) => planned,
        }
    }
}

impl LastTarget {
    /// Returns whether a request has this method and target.
    fn is_of(&self, request: &PlainRequest<'_>) -> bool {
        let is_same = match (self.target.strip_prefix(request.path), request.query) {
            (Some(rest), Some(query)) => rest.strip_prefix('?') == Some(query),
            (Some(rest), None) => rest.is_empty(),
            (None, _) => false,
        };
        is_same && self.method == *request.method
    }

    /// Notes the target of a request, unless the requests of this connection do not repeat. Its plan
    /// is kept once a request repeats it.
    fn note(&mut self, request: &PlainRequest<'_>) {
        if self.backoff.skips() {
            return;
        }
        self.backoff.note_failure();
        self.forget();
        if request.path.len() + request.query.map_or(0, str::len) > MAX_KEPT_TARGET {
            return;
        }
        self.method = request.method.clone();
        self.target.push_str(request.path);
        if let Some(query) = request.query {
            self.target.push('?');
            self.target.push_str(query);
        }
    }

    /// Keeps the plan of a request that repeats the target. Notes the target of any other request.
    fn settle(&mut self, request: &PlainRequest<'_>, plan: Plan, is_repeated: bool) {
        match plan {
            Plan::Kept(kept) => self.planned = Some(kept),
            Plan::New(planned) if is_repeated => self.keep(planned),
            Plan::New(_) => self.note(request),
        }
    }

    /// Keeps the plan of a request that repeats the target.
    fn keep(&mut self, planned: PlannedLookup) {
        self.planned = Some(Box::new(planned));
        self.backoff.note_success();
    }

    /// Forgets the target: with other fields, its plan may be another.
    fn forget(&mut self) {
        self.target.clear();
        self.planned = None;
    }
}

impl<S: Store> ImmediateResponder for PlainResponder<S> {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        let Self { pipeline, deferrer, fields } = self;
        let responded =
            pipeline.config.with(|config| fields.respond((pipeline, config), request, batch));
        if let Some(deferred) = responded? {
            let DeferredRequest { plan, request: sent, presence, received } = *deferred;
            let arrival = (Arc::clone(&fields.connection), received);
            let body = (Incoming::empty(), None);
            let response = pipeline.respond_later(plan, (sent, presence), body, arrival);
            deferrer.defer(request.method, response);
        }
        Ok(())
    }

    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        self.fields.replace_value(name, value)
    }
}

/// Returns the target of a request in origin form.
fn uri(request: &PlainRequest<'_>) -> Option<Uri> {
    let target: Bytes = match request.query {
        None => Bytes::copy_from_slice(request.path.as_bytes()),
        Some(query) => [request.path, "?", query].concat().into(),
    };
    PathAndQuery::from_maybe_shared(target).ok().map(Uri::from)
}

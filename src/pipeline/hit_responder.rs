//! Responds immediately to a plain request, without hyper, if a fresh response is in memory.
//!
//! Each decision is made by the same functions as in `Pipeline::handle`. Any request other than a
//! plain hit is declined before it has an effect.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{
    clock::ReceivedAt,
    config_snapshot::{ConfigSnapshot, SnapshotId},
    content::{ContentFields, RequestContent},
    credentials, encoded_hit,
    ingress::{self, Ingress},
    plan_content,
    receive::{self, RequestAction},
    received_request::{ContentState, ReceivedRequest},
    state::Pipeline,
};
use crate::{
    field::presence::FieldPresence,
    policy::Partition,
    server::{Connection, Declined, ImmediateResponder, PlainRequest, ResponseBatch},
    store::Store,
};

/// Responds to requests on one connection that have the same header fields.
pub(super) struct HitResponder<S> {
    pipeline: Arc<Pipeline<S>>,
    fields: RequestFields,
}

/// The header fields of the requests, and the properties computed from them once.
struct RequestFields {
    connection: Arc<Connection>,
    /// The configuration under which the fields were sanitised.
    config: SnapshotId,
    headers: HeaderMap,
    presence: FieldPresence,
    ingress: Ingress<'static>,
    /// The properties of the content, read from the fields; `None` until a request has content.
    content: Option<ContentFields>,
}

impl<S: Store> HitResponder<S> {
    /// Creates a responder for requests with these fields, as received.
    pub(super) fn new(
        pipeline: &Arc<Pipeline<S>>,
        mut headers: HeaderMap,
        connection: &Arc<Connection>,
    ) -> Self {
        let (config, presence, ingress) = pipeline.config.with(|config| {
            let presence = receive::sanitize_fields(config, &mut headers, connection);
            let ingress = Ingress::of(config, &headers, connection).into_owned();
            (config.id, presence, ingress)
        });
        let (pipeline, connection) = (Arc::clone(pipeline), Arc::clone(connection));
        let fields =
            RequestFields { connection, config, headers, presence, ingress, content: None };
        Self { pipeline, fields }
    }
}

impl RequestFields {
    fn respond(
        &mut self,
        (pipeline, config): (&Arc<Pipeline<impl Store>>, &ConfigSnapshot),
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        if config.id != self.config {
            return Err(Declined::Outdated);
        }
        let received = ReceivedAt::now(&pipeline.clock);
        let content = match request.content {
            Some(sent) => Some(self.read_content(config, request, sent, received)?),
            None => None,
        };
        let content = content.as_ref().map_or(ContentState::Absent, ContentState::Read);
        let mut head = self.received(request, content);
        let arrival = (&*self.connection, received.at);
        let (index, action) =
            receive::plan_from(&self.ingress, config, &head, self.presence, arrival);
        let route = config.route(index);
        let RequestAction::Lookup(lookup) = action else { return Err(Declined::Request) };
        if route.verification.audit().is_some() {
            return Err(Declined::Request);
        }
        let mut headers = Cow::Borrowed(&self.headers);
        if route.rule.partition == Partition::Everyone
            && credentials::may_be_present(config, self.presence)
        {
            credentials::make_anonymous(config, route, headers.to_mut(), self.presence);
        }
        head.headers = &headers;
        let place = (pipeline, config, index);
        pipeline
            .respond_from_memory((config, index), &headers, &lookup, received, |_, form| {
                encoded_hit::append(place, received, &head, (lookup.presence, form), batch)
            })
            .unwrap_or(Err(Declined::Request))
    }

    /// Replaces a value of the fields as received. A field that [`receive::sanitize_fields`] has
    /// removed stays removed, since it looks at no values except those of `Connection`. Returns
    /// `false` if there are several fields with this name, or if the ingress depends on the field.
    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        if self.headers.get_all(name).iter().nth(1).is_some() {
            return false;
        }
        if let Some(known) = self.headers.get_mut(name) {
            if ingress::is_target_field(name) {
                return false;
            }
            *known = value;
            self.content = None;
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

impl<S: Store> ImmediateResponder for HitResponder<S> {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        let Self { pipeline, fields } = self;
        pipeline.config.with(|config| fields.respond((pipeline, config), request, batch))
    }

    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        self.fields.replace_value(name, value)
    }
}

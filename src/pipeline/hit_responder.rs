//! Responds immediately to hits: requests that repeat one header section and find a fresh response
//! in memory.
//!
//! Each decision is made by the same functions as in `Pipeline::handle`. Any request other than a
//! plain hit is declined before it has an effect.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, Version};

use super::{
    clock::ReceivedAt,
    config_snapshot::{ConfigSnapshot, SnapshotId},
    credentials, encoded_hit,
    receive::{self, RequestAction},
    received_request::{ContentState, ReceivedRequest},
    representation::{self, FormChoice, FormRequest},
    state::Pipeline,
};
use crate::{
    field::presence::FieldPresence,
    policy::Partition,
    server::{Connection, Declined, ImmediateResponder, PlainRequest, ResponseBatch},
    store::Store,
};

/// Responds to the requests of one connection that have these header fields.
pub(super) struct HitResponder<S> {
    pipeline: Arc<Pipeline<S>>,
    connection: Arc<Connection>,
    /// The configuration under which the fields were sanitised.
    config: SnapshotId,
    headers: HeaderMap,
    presence: FieldPresence,
}

impl<S: Store> HitResponder<S> {
    /// Creates a responder for requests with these fields, as received.
    pub(super) fn new(
        pipeline: &Arc<Pipeline<S>>,
        mut headers: HeaderMap,
        connection: &Arc<Connection>,
    ) -> Self {
        let (config, presence) = pipeline
            .config
            .with(|config| (config.id, receive::sanitize_fields(config, &mut headers, connection)));
        let (pipeline, connection) = (Arc::clone(pipeline), Arc::clone(connection));
        Self { pipeline, connection, config, headers, presence }
    }

    fn respond_under(
        &self,
        config: &ConfigSnapshot,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        if config.id != self.config {
            return Err(Declined::Outdated);
        }
        let received = ReceivedAt::now(&self.pipeline.clock);
        let mut head = ReceivedRequest {
            method: request.method,
            path: request.path,
            query: request.query,
            version: Version::HTTP_11,
            headers: &self.headers,
            content: ContentState::Absent,
        };
        let arrival = (&*self.connection, received.at);
        let (index, action) = receive::plan(config, &head, self.presence, arrival);
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
        let stored = self
            .pipeline
            .fresh_in_memory(config, index, &headers, &lookup, received)
            .map_err(|_| Declined::Request)?;
        let FormChoice::Ready(form) = representation::choose(
            route,
            FormRequest::of(route, &headers, lookup.presence),
            &stored,
        ) else {
            return Err(Declined::Request);
        };
        encoded_hit::append((config, index), received, &head, (lookup.presence, form), batch)
    }
}

impl<S: Store> ImmediateResponder for HitResponder<S> {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        self.pipeline.config.with(|config| self.respond_under(config, request, batch))
    }
}

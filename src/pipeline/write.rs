//! Writes: unsafe requests, which run to completion in their own tasks.
//!
//! The effect of a write does not depend on its client. Once the request's body is complete, the
//! write continues even if the client has disconnected, and purges what it has changed (RFC 9111
//! §4.4). A truncated body cancels the request. If there is no final response and part of the
//! request was sent, the outcome is unknown, and the write purges as if it had succeeded.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use http::Response;
use tokio::sync::oneshot;

use super::{
    body::DeliveredBody,
    client_request::ClientRequest,
    deliver::CacheDecision,
    graphql_write::MutationEffect,
    ingress::{Ingress, request_head},
    invalidate,
    pass::{Upgrade, join_upgrade},
    payload, problems,
    purge_rate::PurgeSlot,
    request_context::RequestContext,
    send::send,
    write_through::{WriteStart, WriteThroughResponse},
    write_tracker::WriteGuard,
};
use crate::{
    fence::{PurgeSource, Selector},
    field::hop::LARDER_WARM,
    origin::{
        OriginError, OriginRequest, RequestBody, RequestDelivery, ResponseBody, SendFailure,
        UploadProgress,
    },
    policy::{Credentials, invalidation::UnsafeRequestOutcome},
    store::Store,
};

/// The result of a write, as its client receives it.
enum WriteResult {
    /// A response only for its client.
    Passed(Response<ResponseBody>),
    /// A response that is also being stored.
    Stored(WriteThroughResponse),
    /// The origin gave no response.
    Failed(OriginError),
}

/// A write in progress.
struct WriteTask<S> {
    context: RequestContext<S>,
    start: WriteStart,
    /// The progress of the request's body; `None` if the request has no body.
    upload: Option<Arc<UploadProgress>>,
    _running: WriteGuard,
}

impl<S: Store> ClientRequest<S> {
    /// Forwards an unsafe request to the origin and returns its response.
    pub(super) async fn write(
        mut self,
        body: RequestBody,
        mut decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let upgrade = self.upgrade.take();
        match self.context.start_write(body).await {
            Ok(WriteResult::Passed(mut response)) => {
                decision.origin_status = Some(response.status());
                let tunnels = &self.context.connection.tunnels;
                if join_upgrade(upgrade, &mut response, tunnels) == Upgrade::Refused {
                    return self.respond_problem(problems::too_many_tunnels(), decision);
                }
                self.respond_passed(response, decision)
            }
            Ok(WriteResult::Stored(stored)) => {
                decision.origin_status = Some(stored.status);
                self.respond_written(stored, decision)
            }
            Ok(WriteResult::Failed(error)) => self.respond_origin_error(&error, decision),
            Err(_) => self.respond_problem(problems::internal_error(), decision),
        }
    }
}

impl<S: Store> RequestContext<S> {
    fn start_write(&self, body: RequestBody) -> oneshot::Receiver<WriteResult> {
        let mut request = self.forwarded(body, None);
        if self.config.route(self.route).graphql.is_some() {
            request.fields.change(payload::narrow_codings);
        }
        let write = WriteTask {
            start: self.begin_write(),
            upload: request.body.upload().cloned(),
            _running: self.pipeline.writes.begin(),
            context: self.share(),
        };
        let (sender, written) = oneshot::channel();
        tokio::spawn(write.run(request, sender));
        written
    }

    /// Returns what this request invalidates with this outcome.
    fn invalidated_by(
        &self,
        outcome: &UnsafeRequestOutcome<'_>,
        effect: Option<&MutationEffect>,
    ) -> Vec<Selector> {
        let Self { config, request, connection, .. } = self;
        let ingress = Ingress::of(config, &request.headers, connection);
        let head = request_head(request, Credentials::NONE);
        let request = (&head, &self.identity_inputs());
        invalidate::selectors(config, &ingress, request, (outcome, effect))
    }
}

impl<S: Store> WriteTask<S> {
    /// Runs the write. After a panic the outcome counts as unknown, and the client gets a response.
    async fn run(self, request: OriginRequest, sender: oneshot::Sender<WriteResult>) {
        let carried = AssertUnwindSafe(self.forward(request, sender)).catch_unwind().await;
        if carried.is_err() {
            self.purge_unknown().await;
        }
    }

    async fn forward(&self, mut request: OriginRequest, mut sender: oneshot::Sender<WriteResult>) {
        let RequestContext { pipeline, config, connection, .. } = &self.context;
        let sent = tokio::select! {
            biased;
            sent = send(pipeline, config, &mut request, Some(&connection.interim)) => sent,
            () = self.abandoned(&mut sender) => {
                let delivery = self.upload.as_ref().map(|upload| upload.delivery());
                return self.on_no_response(delivery.unwrap_or(RequestDelivery::Possible)).await;
            }
        };
        let written = match sent {
            Ok((response, _)) => self.on_response(response).await,
            Err(SendFailure { error, delivery, .. }) => {
                self.on_no_response(delivery).await;
                WriteResult::Failed(error)
            }
        };
        let _client_is_gone = sender.send(written);
    }

    /// Completes when the write is to be cancelled: the node stops, or the client has disconnected
    /// and too many such writes continue.
    async fn abandoned(&self, sender: &mut oneshot::Sender<WriteResult>) {
        let writes = &self.context.pipeline.writes;
        let orphaned = async {
            sender.closed().await;
            if let Some(_place) = writes.keep_orphan() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = writes.cancelled() => {}
            () = orphaned => {}
        }
    }

    /// Purges what the response invalidates, and stores the response if allowed.
    async fn on_response(&self, mut response: Response<ResponseBody>) -> WriteResult {
        let status = response.status();
        let candidate = self.context.candidate(&self.start, &mut response);
        let effect = Box::pin(self.context.mutation_effect(&mut response)).await;
        let outcome = UnsafeRequestOutcome::Answered(status, response.headers());
        let selectors = self.context.invalidated_by(&outcome, effect.as_ref());
        let purged = invalidate::purge(&self.context.pipeline, selectors).await;
        // After the purge, which would otherwise select the warmed responses too.
        let warmed = Box::pin(self.context.warm(status)).await;
        if let Some(candidate) = candidate.and_then(|candidate| candidate.confirmed_by(&purged)) {
            return WriteResult::Stored(candidate.admit(response).await);
        }
        if let Some(summary) = warmed {
            response.headers_mut().insert(LARDER_WARM, summary);
        }
        WriteResult::Passed(response)
    }

    async fn on_no_response(&self, delivery: RequestDelivery) {
        if delivery == RequestDelivery::Possible {
            self.purge_unknown().await;
        }
    }

    /// Purges as if the write had succeeded. Further purges of this kind for the same client and
    /// target within a second are merged into one at its end.
    async fn purge_unknown(&self) {
        if self.context.safety.is_found_to_read(self.context.presence) {
            return;
        }
        let pipeline = &self.context.pipeline;
        let client = self.context.connection.peer.map(|peer| peer.ip().to_canonical());
        let subject = (client, self.context.invalidated_by(&UnsafeRequestOutcome::Unknown, None));
        if subject.1.is_empty() {
            return;
        }
        if invalidate::purge_rate_limited(pipeline, subject, PurgeSource::Write).await
            != PurgeSlot::Now
        {
            invalidate::count_merged(pipeline);
        }
    }
}

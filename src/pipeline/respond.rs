//! Responding: turns outcomes into responses for the client.

use std::{future::ready, sync::Arc};

use futures_util::future::Either;
use http::{HeaderMap, Response};

use super::{
    admit::TeedResponse,
    body::DeliveredBody,
    client_request::ClientRequest,
    deliver::{CacheDecision, Responder},
    encodings::CodedForm,
    fetch::FetchOutcome,
    finish::RequestAccounting,
    flight_result::{FailureCause, FetchFailure, ReusedResponse, StreamingResponse},
    last_hop,
    observed_body::BodyObserver,
    pass, persisted_query, problems,
    representation::Representation,
    request_context::RequestContext,
    tee::TeeReader,
    write_through::WriteThroughResponse,
};
use crate::{
    entry::StoredResponse,
    field::presence::FieldPresence,
    graphql::UnpersistedRequest,
    origin::{OriginError, ResponseBody},
    policy::{
        CacheResult, Reason,
        cache_status::{Collapsed, StoredStatus as Kept},
    },
    problem::Problem,
    store::Store,
};

impl<S: Store> ClientRequest<S> {
    /// Responds with the outcome of a fetch.
    pub(super) fn respond(
        self,
        fetched: FetchOutcome,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        if is_stored_success(&fetched) {
            self.context.note_client();
        }
        self.respond_shared(fetched, decision)
    }

    /// Responds with the outcome of a fetch, possibly made by another request.
    pub(super) fn respond_shared(
        self,
        outcome: FetchOutcome,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        let response = match outcome {
            FetchOutcome::Streaming(TeedResponse { streaming, headers, reader }) => {
                self.respond_streaming(&streaming, headers, reader, decision)
            }
            FetchOutcome::Reused(reused) => {
                return Either::Left(self.respond_reused(reused, decision));
            }
            FetchOutcome::Failed(failure) => self.respond_fetch_failure(&failure, decision),
            FetchOutcome::NotShared(response, reason) => {
                let origin_status = Some(response.status());
                let decision = CacheDecision { origin_status, reason: Some(reason), ..decision };
                self.respond_passed(response, decision)
            }
        };
        Either::Right(ready(response))
    }

    /// Responds with a streaming response.
    fn respond_streaming(
        self,
        streaming: &StreamingResponse,
        headers: HeaderMap,
        reader: TeeReader,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let origin_status = Some(streaming.status);
        let stored = streaming.stored;
        let result = match decision.result {
            CacheResult::Bypass => CacheResult::Bypass,
            _ => streaming.result,
        };
        let reason = streaming.refusal.or(decision.reason);
        let decision = CacheDecision { result, origin_status, stored, reason, ..decision };
        self.deliver(|responder, accounting| {
            responder.streaming(streaming, headers, reader, decision, accounting)
        })
    }

    /// Responds to a write with a response that is being stored.
    pub(super) fn respond_written(
        self,
        stored: WriteThroughResponse,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let WriteThroughResponse { status, headers, reader, freshness, kept } = stored;
        let ttl = freshness.ttl(self.context.received.steady);
        let decision = CacheDecision { stored: kept, ..decision };
        self.deliver(|responder, accounting| {
            responder.written((status, headers), (reader, ttl), decision, accounting)
        })
    }

    /// Responds with the stored response that a fetch revalidated, or that is served stale.
    fn respond_reused(
        self,
        reused: ReusedResponse,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        let reason = reused.reason.or(decision.reason);
        let ReusedResponse { result, origin_status, .. } = reused;
        let decision =
            if reused.collapsed == Collapsed::Yes { decision.collapsed() } else { decision };
        let decision = CacheDecision { result, origin_status, reason, ..decision };
        self.respond_stored(reused.response, decision)
    }

    /// Responds with a fresh stored response from memory.
    pub(super) async fn respond_fresh(
        self,
        presence: FieldPresence,
        stored: &Arc<StoredResponse>,
    ) -> Response<DeliveredBody> {
        let decision = CacheDecision::hit(CacheResult::Hit, None);
        let coded = self.coded_form(stored).await;
        let form = Representation { stored, coded: coded.as_deref() };
        self.deliver(|responder, accounting| {
            responder.fresh((presence, form), decision, accounting)
        })
    }

    /// Responds with a stored response. Encodes it if the route and the request allow.
    pub(super) fn respond_stored(
        self,
        stored: Arc<StoredResponse>,
        decision: CacheDecision,
    ) -> impl Future<Output = Response<DeliveredBody>> + Send {
        if self.encodes() {
            // Boxed, so that other responses do not carry this future.
            return Either::Left(Box::pin(async move {
                let coded = self.coded_form(&stored).await;
                self.deliver_stored(&stored, &coded, decision)
            }));
        }
        Either::Right(ready(self.deliver_stored(&stored, &None, decision)))
    }

    fn deliver_stored(
        self,
        stored: &Arc<StoredResponse>,
        coded: &CodedForm,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let form = Representation { stored, coded: coded.as_deref() };
        self.deliver(|responder, accounting| responder.stored(form, decision, accounting))
    }

    fn encodes(&self) -> bool {
        self.context.config.route(self.context.route).encodes()
    }

    async fn coded_form(&self, stored: &Arc<StoredResponse>) -> CodedForm {
        if self.encodes() { self.context.coded_form(stored).await } else { None }
    }

    fn deliver(
        self,
        build: impl FnOnce(&Responder<'_>, Box<RequestAccounting>) -> Response<DeliveredBody>,
    ) -> Response<DeliveredBody> {
        let Self {
            context: RequestContext { config, route, received, request, .. },
            accounting,
            ..
        } = self;
        let (method, headers) = (&request.method, &request.headers);
        build(&Responder { config: &config, route, received, method, headers }, accounting)
    }

    /// Responds with the origin's own response.
    pub(super) fn respond_passed(
        self,
        response: Response<ResponseBody>,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        self.deliver(|responder, accounting| responder.passed(response, decision, accounting))
    }

    /// Responds with the origin's own response, and reports the end of its body.
    pub(super) fn respond_observed(
        self,
        response: Response<ResponseBody>,
        observer: BodyObserver,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        self.deliver(|responder, accounting| {
            responder.observed(response, observer, decision, accounting)
        })
    }

    /// Responds after a shared fetch failed.
    fn respond_fetch_failure(
        self,
        failure: &FetchFailure,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        match &failure.cause {
            FailureCause::Error(error) => self.respond_origin_error(error, decision),
            FailureCause::Response { status, retry_after, reason } => {
                let decision = CacheDecision {
                    origin_status: Some(*status),
                    reason: Some(*reason),
                    ..decision.collapsed()
                };
                self.respond_problem(problems::shared_origin_error(*status, *retry_after), decision)
            }
        }
    }

    /// Responds with a problem document if the origin did not respond.
    pub(super) fn respond_origin_error(
        self,
        error: &OriginError,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        let decision = CacheDecision { reason: Some(Reason::OriginError), ..decision };
        self.respond_problem(problems::origin_error(error), decision)
    }

    /// Responds to a request that must not be forwarded: with an empty body or, for `TRACE`, with
    /// the request itself.
    pub(super) fn respond_last_hop(self, decision: CacheDecision) -> Response<DeliveredBody> {
        let response = last_hop::response(&self.context.request);
        self.deliver(|responder, accounting| responder.local(response, decision, accounting))
    }

    /// Responds to a GraphQL request that names its document by a hash: asks for the document.
    pub(super) fn ask_for_document(self, asked: UnpersistedRequest) -> Response<DeliveredBody> {
        let response = persisted_query::response(asked, &self.context.request.headers);
        let decision = pass::decision(Reason::GraphqlUnknownDocument);
        self.deliver(|responder, accounting| responder.local(response, decision, accounting))
    }

    pub(super) fn respond_problem(
        self,
        problem: Problem,
        decision: CacheDecision,
    ) -> Response<DeliveredBody> {
        self.deliver(|responder, accounting| responder.problem(problem, decision, accounting))
    }
}

/// Returns whether the outcome is a successful response that is stored. If the origin checks hosts,
/// a request for a host that does not exist never has such an outcome.
fn is_stored_success(fetched: &FetchOutcome) -> bool {
    match fetched {
        FetchOutcome::Streaming(TeedResponse { streaming, .. }) => {
            streaming.stored == Kept::Yes && streaming.status.is_success()
        }
        FetchOutcome::Reused(reused) => {
            reused.result != CacheResult::Stale && reused.response.status.is_success()
        }
        FetchOutcome::NotShared(..) | FetchOutcome::Failed(_) => false,
    }
}

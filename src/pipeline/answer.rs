//! Answering: from what a request came to, to the response its client gets.

use http::{HeaderMap, Response};

use super::{
    Context,
    admit::Arrival,
    body::Body,
    deliver::{Asker, Told},
    failure,
    fetch::Fetched,
    fill::FillReader,
    finish::Finish,
    inquiry::Inquiry,
    landing::{Arriving, Cause, Failure, Settled},
    last_hop,
    write_through::Stored,
};
use crate::{
    entry::StoredResponse,
    origin::{OriginError, ResponseBody},
    policy::{
        CacheResult, Reason,
        cache_status::{Collapsed, Stored as Kept},
    },
    problem::Problem,
    store::Store,
};

impl<S: Store> Context<S> {
    /// Answers with what a fetch brought.
    pub(super) fn answer(self, fetched: Fetched, told: Told) -> Response<Body> {
        if is_stored_success(&fetched) {
            self.inquiry.note_client();
        }
        match fetched {
            Fetched::Arriving(Arrival { arriving, headers, reader }) => {
                self.answer_arriving(&arriving, headers, reader, told)
            }
            Fetched::Settled(settled) => self.answer_settled(&settled, told),
            Fetched::Failed(failure) => self.answer_failed(&failure, told),
            Fetched::Alone(response, reason) => {
                let origin_status = Some(response.status());
                let told = Told { origin_status, reason: Some(reason), ..told };
                self.answer_passing(response, told)
            }
        }
    }

    /// Answers with a response that is still arriving.
    pub(super) fn answer_arriving(
        self,
        arriving: &Arriving,
        headers: HeaderMap,
        reader: FillReader,
        told: Told,
    ) -> Response<Body> {
        let origin_status = Some(arriving.status);
        let stored = arriving.stored;
        let result = match told.result {
            CacheResult::Bypass => CacheResult::Bypass,
            _ => arriving.result,
        };
        let reason = arriving.refusal.or(told.reason);
        let told = Told { result, origin_status, stored, reason, ..told };
        self.deliver(|asker, finish| asker.arriving(arriving, headers, reader, told, finish))
    }

    /// Answers a write with what the origin sent, which is being stored.
    pub(super) fn answer_written(self, stored: Stored, told: Told) -> Response<Body> {
        let Stored { status, headers, reader, freshness, kept } = stored;
        let ttl = freshness.ttl(self.inquiry.received.steady);
        let told = Told { stored: kept, ..told };
        self.deliver(|asker, finish| asker.written((status, headers), (reader, ttl), told, finish))
    }

    /// Answers with what a fetch allowed to use.
    pub(super) fn answer_settled(self, settled: &Settled, told: Told) -> Response<Body> {
        let reason = settled.reason.or(told.reason);
        let Settled { result, origin_status, .. } = *settled;
        let told = if settled.collapsed == Collapsed::Yes { told.collapsed() } else { told };
        let told = Told { result, origin_status, reason, ..told };
        self.answer_stored(&settled.response, told)
    }

    /// Answers with a stored response.
    pub(super) fn answer_stored(self, response: &StoredResponse, told: Told) -> Response<Body> {
        self.deliver(|asker, finish| asker.stored(response, told, finish))
    }

    fn deliver(
        self,
        answer: impl FnOnce(&Asker<'_>, Box<Finish>) -> Response<Body>,
    ) -> Response<Body> {
        let Self { inquiry: Inquiry { site, route, received, request, .. }, finish, .. } = self;
        let (method, headers) = (&request.method, &request.headers);
        answer(&Asker { site: &site, route, received, method, headers }, finish)
    }

    /// Answers with the origin's own response.
    pub(super) fn answer_passing(
        self,
        response: Response<ResponseBody>,
        told: Told,
    ) -> Response<Body> {
        self.deliver(|asker, finish| asker.passing(response, told, finish))
    }

    /// Answers for an origin that failed another request for the same.
    pub(super) fn answer_failed(self, failure: &Failure, told: Told) -> Response<Body> {
        match &failure.cause {
            Cause::Error(error) => self.answer_failure(error, told),
            Cause::Response { status, retry_after, reason } => {
                let told = Told {
                    origin_status: Some(*status),
                    reason: Some(*reason),
                    ..told.collapsed()
                };
                self.answer_problem(failure::of_status(*status, *retry_after), told)
            }
        }
    }

    /// Answers for an origin that gave no answer.
    pub(super) fn answer_failure(self, error: &OriginError, told: Told) -> Response<Body> {
        let told = Told { reason: Some(Reason::OriginError), ..told };
        self.answer_problem(failure::of_origin(error), told)
    }

    /// Answers a request that must go no further: with nothing, or `TRACE` with the request itself.
    pub(super) fn answer_last_hop(self, told: Told) -> Response<Body> {
        let response = last_hop::response(&self.inquiry.request);
        self.deliver(|asker, finish| asker.own(response, told, finish))
    }

    /// Answers with a problem document.
    pub(super) fn answer_problem(self, problem: Problem, told: Told) -> Response<Body> {
        self.deliver(|asker, finish| asker.problem(problem, told, finish))
    }
}

/// Whether the origin answered with a success that is stored. A host that strangers made up has none, as far
/// as origins mind hosts.
fn is_stored_success(fetched: &Fetched) -> bool {
    match fetched {
        Fetched::Arriving(Arrival { arriving, .. }) => {
            arriving.stored == Kept::Yes && arriving.status.is_success()
        }
        Fetched::Settled(settled) => {
            settled.result != CacheResult::Stale && settled.response.status.is_success()
        }
        Fetched::Alone(..) | Fetched::Failed(_) => false,
    }
}

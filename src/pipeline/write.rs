//! Unsafe requests: carried to their end in a task of their own, whatever their client does.
//!
//! What such a request changes does not depend on who waits for its answer. So it goes on once its body has
//! come whole, and what it invalidates is purged (RFC 9111 §4.4), although its client is gone. A body that
//! breaks off breaks the request off, too. Where no final response comes and some of the request was sent,
//! its outcome is unknown, and it purges as a success does.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use http::{Request, Response};
use tokio::sync::oneshot;

use super::{
    Context,
    body::Body,
    deliver::Told,
    failure, fetch,
    inquiry::Inquiry,
    invalidate,
    pass::{Upgrade, join_upgrade},
    purge_rate::PurgeTurn,
    receive::Ingress,
    request_head,
    write_through::{Sending, Stored},
    writes::Running,
};
use crate::{
    fence::{Selector, Source},
    field::hop::LARDER_WARM,
    origin::{Delivery, OriginError, RequestBody, ResponseBody, Unanswered, Upload},
    policy::{Credentials, invalidation::Outcome},
    server::Incoming,
    store::Store,
};

/// What came of a write.
enum Written {
    /// A response for its client alone.
    Passing(Response<ResponseBody>),
    /// A response that is stored as well.
    Stored(Stored),
    /// No response.
    Failed(OriginError),
}

/// A write under way.
struct Write<S> {
    inquiry: Inquiry<S>,
    sending: Sending,
    /// How its body comes; none if it has no body.
    upload: Option<Arc<Upload>>,
    _running: Running,
}

impl<S: Store> Context<S> {
    /// Carries an unsafe request to the origin, and its response back.
    pub(super) async fn write(mut self, body: Incoming, mut told: Told) -> Response<Body> {
        let upgrade = self.upgrade.take();
        match self.inquiry.start_write(body).await {
            Ok(Written::Passing(mut response)) => {
                told.origin_status = Some(response.status());
                let tunnels = &self.inquiry.connection.tunnels;
                if join_upgrade(upgrade, &mut response, tunnels) == Upgrade::Refused {
                    return self.answer_problem(failure::too_many_tunnels(), told);
                }
                self.answer_passing(response, told)
            }
            Ok(Written::Stored(stored)) => {
                told.origin_status = Some(stored.status);
                self.answer_written(stored, told)
            }
            Ok(Written::Failed(error)) => self.answer_failure(&error, told),
            Err(_) => self.answer_problem(failure::of_larder(), told),
        }
    }
}

impl<S: Store> Inquiry<S> {
    fn start_write(&self, body: Incoming) -> oneshot::Receiver<Written> {
        let request = self.forwarded(body, None);
        let write = Write {
            sending: self.begin_sending(),
            upload: request.body().upload().cloned(),
            _running: self.pipeline.writes.begin(),
            inquiry: self.share(),
        };
        let (answer, written) = oneshot::channel();
        tokio::spawn(write.run(request, answer));
        written
    }

    /// What an outcome of this request makes invalid.
    fn invalidated_by(&self, outcome: &Outcome<'_>) -> Vec<Selector> {
        let Self { site, request, connection, .. } = self;
        let ingress = Ingress::of(site, &request.headers, connection);
        let head = request_head(request, Credentials::NONE);
        invalidate::selectors(site, &ingress, (&head, &self.asking()), outcome)
    }
}

impl<S: Store> Write<S> {
    /// A panic leaves the outcome unknown, and the client with an answer.
    async fn run(self, request: Request<RequestBody>, answer: oneshot::Sender<Written>) {
        let carried = AssertUnwindSafe(self.carry(request, answer)).catch_unwind().await;
        if carried.is_err() {
            self.purge_unknown().await;
        }
    }

    async fn carry(&self, request: Request<RequestBody>, mut answer: oneshot::Sender<Written>) {
        let Inquiry { pipeline, site, connection, .. } = &self.inquiry;
        let sent = tokio::select! {
            biased;
            sent = fetch::send(pipeline, site, request, Some(&connection.interim)) => sent,
            () = self.given_up(&mut answer) => {
                let delivery = self.upload.as_ref().map(|upload| upload.delivery());
                return self.unanswered(delivery.unwrap_or(Delivery::Possible)).await;
            }
        };
        let written = match sent {
            Ok((response, _)) => self.answered(response).await,
            Err(Unanswered { error, delivery, .. }) => {
                self.unanswered(delivery).await;
                Written::Failed(error)
            }
        };
        let _client_is_gone = answer.send(written);
    }

    /// Ready when the outcome is not waited for any longer: the node stops, or the client is gone while too
    /// many such writes go on.
    async fn given_up(&self, answer: &mut oneshot::Sender<Written>) {
        let writes = &self.inquiry.pipeline.writes;
        let orphaned = async {
            answer.closed().await;
            if let Some(_place) = writes.adopt() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = writes.cut() => {}
            () = orphaned => {}
        }
    }

    /// Purges what a response says has changed, and stores the response where it may be.
    async fn answered(&self, mut response: Response<ResponseBody>) -> Written {
        let status = response.status();
        let candidate = self.inquiry.candidate(&self.sending, &mut response);
        let outcome = Outcome::Answered(status, response.headers());
        let selectors = self.inquiry.invalidated_by(&outcome);
        let purged = invalidate::purge(&self.inquiry.pipeline, selectors).await;
        // Not before: what is fetched ahead would be selected, too.
        let warmed = Box::pin(self.inquiry.warm(status)).await;
        if let Some(candidate) = candidate.and_then(|candidate| candidate.after(&purged)) {
            return Written::Stored(candidate.admit(response).await);
        }
        if let Some(summary) = warmed {
            response.headers_mut().insert(LARDER_WARM, summary);
        }
        Written::Passing(response)
    }

    async fn unanswered(&self, delivery: Delivery) {
        if delivery == Delivery::Possible {
            self.purge_unknown().await;
        }
    }

    /// Purges as a success would; at the end of a second, where that was done for the same client and target
    /// within it.
    async fn purge_unknown(&self) {
        let pipeline = &self.inquiry.pipeline;
        let client = self.inquiry.connection.peer.map(|peer| peer.ip().to_canonical());
        let subject = (client, self.inquiry.invalidated_by(&Outcome::Unknown));
        if subject.1.is_empty() {
            return;
        }
        if invalidate::purge_in_turn(pipeline, subject, Source::Write).await != PurgeTurn::Now {
            invalidate::count_merged(pipeline);
        }
    }
}

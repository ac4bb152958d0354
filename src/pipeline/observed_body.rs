//! A body that streams to a client, with a copy for a reader that must not slow it down.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::tee::{BudgetShare, BudgetState};
use crate::{
    comparison::SkipReason,
    origin::{CompletionProof, ResponseBody, ResponseBodyError},
};

/// A response body that streams to its client. An observer gets a copy once the body has ended.
///
/// The copy shares memory with the client's data. It is dropped if it exceeds a limit or the
/// budget, which does not affect the client.
pub(crate) struct ObservedBody {
    body: ResponseBody,
    observer: Option<BodyObserver>,
}

/// Collects a copy of a body, and reports the end of the body.
pub(super) struct BodyObserver {
    /// The maximum length of the copy, in bytes.
    pub(super) limit: usize,
    /// The share of the memory budget that the copy takes.
    pub(super) share: BudgetShare,
    /// Called once, with the end of the body. Must not block.
    pub(super) on_end: Box<dyn FnOnce(ObservedEnd) + Send>,
    copy: BodyCopy,
}

#[derive(Default)]
struct BodyCopy {
    chunks: Vec<Bytes>,
    trailers: HeaderMap,
    length: usize,
    given_up: Option<SkipReason>,
}

/// The end of an observed body.
pub(super) struct ObservedEnd {
    /// The complete body, or why there is no copy.
    pub(super) content: Result<ObservedContent, SkipReason>,
    /// The number of bytes of the body that were read.
    pub(super) length: usize,
    /// The share of the memory budget that the copy takes, until dropped.
    _share: BudgetShare,
}

/// A complete body.
pub(super) struct ObservedContent {
    pub(super) chunks: Vec<Bytes>,
    pub(super) trailers: HeaderMap,
    pub(super) proof: CompletionProof,
}

impl BodyObserver {
    pub(super) fn new(
        limit: usize,
        share: BudgetShare,
        on_end: impl FnOnce(ObservedEnd) + Send + 'static,
    ) -> Self {
        Self { limit, share, on_end: Box::new(on_end), copy: BodyCopy::default() }
    }

    fn add(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.copy.length += data.len();
            if self.copy.given_up.is_none() {
                self.copy.chunks.push(data.clone());
                let state = self.share.resize(self.copy.length);
                if self.copy.length > self.limit {
                    self.give_up(SkipReason::TooLong);
                } else if state == BudgetState::Exceeded {
                    self.give_up(SkipReason::Busy);
                }
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.copy.trailers = trailers.clone();
        }
    }

    fn give_up(&mut self, reason: SkipReason) {
        self.copy.given_up = Some(reason);
        self.copy.chunks = Vec::new();
        self.share.resize(0);
    }

    fn end(self, proof: Option<CompletionProof>) {
        let Self { share, on_end, copy, .. } = self;
        let content = match (copy.given_up, proof) {
            (_, None) => Err(SkipReason::Interrupted),
            (Some(reason), _) => Err(reason),
            (None, Some(proof)) => {
                Ok(ObservedContent { chunks: copy.chunks, trailers: copy.trailers, proof })
            }
        };
        on_end(ObservedEnd { content, length: copy.length, _share: share });
    }
}

impl ObservedBody {
    /// Observes a body. An empty body is reported at once.
    pub(super) fn new(body: ResponseBody, observer: BodyObserver) -> Self {
        let mut this = Self { body, observer: Some(observer) };
        this.report_end();
        this
    }

    /// Reports the end if the body has ended, so that the observer is called before the client has
    /// read the body.
    fn report_end(&mut self) {
        if let Some(proof) = self.body.completion()
            && let Some(observer) = self.observer.take()
        {
            observer.end(Some(proof));
        }
    }
}

impl Body for ObservedBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Some(observer), Some(Ok(frame))) = (&mut this.observer, &frame) {
            observer.add(frame);
        }
        this.report_end();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            observer.end(self.body.completion());
        }
    }
}

//! Coded forms of stored responses. Each form is encoded once, for the first request that gets it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::header;

use super::{
    encodings::{CodedForm, EncodingLeader, EncodingRole},
    representation::{self, FormChoice, FormRequest},
    request_context::RequestContext,
    state::Pipeline,
};
use crate::{
    coding::{self, ContentCoding, coded_tag},
    entry::{CodedBody, ContentId, Entry, StoredResponse},
    key::CacheKey,
    store::Store,
    telemetry::EncodingResult,
};

/// Bodies up to this many bytes are encoded inline, in less than a millisecond.
const INLINE_BYTES: u64 = 16 << 10;

impl<S: Store> RequestContext<S> {
    /// Returns the coded form in which this request gets a stored response; `None` if it gets the
    /// response as it is stored.
    ///
    /// The first request for a form encodes it, and other requests wait briefly for the result.
    pub(super) async fn coded_form(&self, stored: &Arc<StoredResponse>) -> CodedForm {
        let route = self.config.route(self.route);
        let request = FormRequest::of(route, &self.request.headers, self.presence);
        match representation::choose(route, request, stored) {
            FormChoice::Ready(form) => stored.forms.get(form.coded?.coding).cloned(),
            FormChoice::Missing(coding) => Box::pin(self.pipeline.make_form(stored, coding)).await,
        }
    }
}

impl<S: Store> Pipeline<S> {
    async fn make_form(
        self: &Arc<Self>,
        stored: &Arc<StoredResponse>,
        coding: ContentCoding,
    ) -> CodedForm {
        let leader = match self.encodings.join(stored.forms.content(), coding) {
            EncodingRole::Leader(leader) => leader,
            EncodingRole::Follower(follower) => return follower.form().await,
            EncodingRole::Rejected => {
                self.metrics.encodings.count(coding.as_str(), EncodingResult::Rejected);
                return None;
            }
        };
        let key = CacheKey::from_text(stored.key_text());
        let encoding = Encoding { key, content: stored.forms.content(), coding };
        // Only a response in memory can keep its form, so no other response is encoded.
        let known = self.response_in_memory(&encoding)?;
        if let Some(form) = known.forms.get(coding) {
            leader.publish(form);
            return Some(Arc::clone(form));
        }
        if known.body_length() <= INLINE_BYTES {
            return self.keep_form(&encoding, encode(coding, &known), &leader);
        }
        let follower = leader.follower();
        tokio::spawn(Arc::clone(self).make_form_in_turn(encoding, leader));
        follower.form().await
    }

    /// Waits for a turn, then encodes a large body. Keeps no body in memory while it waits: a
    /// response that is evicted or replaced meanwhile is not encoded.
    async fn make_form_in_turn(self: Arc<Self>, encoding: Encoding, leader: EncodingLeader) {
        let Some(turn) = self.encodings.turns().next().await else { return };
        let Some(known) = self.response_in_memory(&encoding) else { return };
        let run = move || {
            let encoded = encode(encoding.coding, &known);
            drop((known, turn));
            (encoding, encoded)
        };
        if let Ok((encoding, encoded)) = tokio::task::spawn_blocking(run).await {
            self.keep_form(&encoding, encoded, &leader);
        }
    }

    /// Returns the response to encode, if it is still in memory.
    fn response_in_memory(&self, encoding: &Encoding) -> Option<Arc<StoredResponse>> {
        match self.store.peek(&encoding.key)? {
            Entry::Response(known) if known.forms.content() == encoding.content => Some(known),
            _ => None,
        }
    }

    /// Stores a form, and publishes it to all waiting requests.
    fn keep_form(
        &self,
        encoding: &Encoding,
        encoded: EncodedForm,
        leader: &EncodingLeader,
    ) -> CodedForm {
        let Encoding { key, content, coding } = encoding;
        let EncodedForm { form, took } = encoded;
        let result = if form.is_some() { EncodingResult::Made } else { EncodingResult::NotSmaller };
        self.metrics.encodings.count(coding.as_str(), result);
        self.metrics.encodings.seconds.inc_by(took.as_secs_f64());
        if let Some(form) = &form {
            self.store.add_form(key, *content, Arc::clone(form));
            leader.publish(form);
        } else if let Some(known) = self.response_in_memory(encoding) {
            known.forms.exclude(*coding);
        }
        form
    }
}

/// The form to make: the stored response, by its key and content, and the coding.
struct Encoding {
    key: CacheKey,
    content: ContentId,
    coding: ContentCoding,
}

/// The result of an encoding.
struct EncodedForm {
    /// The coded form; `None` if it is not smaller than the stored body.
    form: CodedForm,
    took: Duration,
}

/// Encodes the body of a response.
fn encode(coding: ContentCoding, stored: &StoredResponse) -> EncodedForm {
    let began = Instant::now();
    // A bug in an encoder must not make a response unavailable.
    let form = catch_unwind(AssertUnwindSafe(|| coded_body(coding, stored))).ok().flatten();
    EncodedForm { form: form.map(Arc::new), took: began.elapsed() }
}

fn coded_body(coding: ContentCoding, stored: &StoredResponse) -> Option<CodedBody> {
    let body = stored.body();
    let encoded = coding::encode(coding, &body)?;
    let has_tag = stored.fields().first(header::ETAG.as_str()).is_some();
    let tag_suffix = if has_tag {
        coded_tag::suffix(coding, &encoded)
    } else {
        coded_tag::suffix_without_tag(coding, &body, &encoded)
    };
    let bytes = Bytes::from(encoded.into_boxed_slice());
    Some(CodedBody { coding, bytes, tag_suffix: tag_suffix.into() })
}

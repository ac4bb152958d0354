//! Coded forms of stored responses: each is made once, by the first request for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::header;

use super::{
    encodings::{CodedForm, EncodingLeader, EncodingRole},
    representation::{self, FormChoice},
    request_context::RequestContext,
    state::Pipeline,
};
use crate::{
    coding::{self, ContentCoding, coded_tag},
    entry::{CodedBody, Entry, StoredResponse},
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
    /// The first request for a form makes it, and others wait a moment for it.
    pub(super) async fn coded_form(&self, stored: &Arc<StoredResponse>) -> CodedForm {
        let request = (&self.request.headers, self.presence);
        match representation::choose(self.config.route(self.route), request, stored) {
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
        // Forms live in memory only: those of a response that is not there would be made each time.
        let known = self.response_in_memory(&key, stored)?;
        if let Some(form) = known.forms.get(coding) {
            leader.publish(form);
            return Some(Arc::clone(form));
        }
        let encoding = Encoding { key, stored: Arc::clone(stored), coding };
        if stored.body_length() <= INLINE_BYTES {
            let encoded = encoding.run();
            return self.keep_form(&encoding, encoded, &leader);
        }
        let (follower, turns) = (leader.follower(), self.encodings.turns());
        let pipeline = Arc::clone(self);
        tokio::spawn(async move {
            let Some(turn) = turns.next().await else { return };
            let run = move || {
                let encoded = encoding.run();
                drop(turn);
                (encoding, encoded)
            };
            if let Ok((encoding, encoded)) = tokio::task::spawn_blocking(run).await {
                pipeline.keep_form(&encoding, encoded, &leader);
            }
        });
        follower.form().await
    }

    /// Returns the response in memory, if it has the same content.
    fn response_in_memory(
        &self,
        key: &CacheKey,
        stored: &StoredResponse,
    ) -> Option<Arc<StoredResponse>> {
        match self.store.peek(key)? {
            Entry::Response(known) if known.forms.content() == stored.forms.content() => {
                Some(known)
            }
            _ => None,
        }
    }

    /// Stores a form, and gives it to all that wait.
    fn keep_form(
        &self,
        encoding: &Encoding,
        encoded: EncodedForm,
        leader: &EncodingLeader,
    ) -> CodedForm {
        let Encoding { key, stored, coding } = encoding;
        let EncodedForm { form, took } = encoded;
        let result = if form.is_some() { EncodingResult::Made } else { EncodingResult::NotSmaller };
        self.metrics.encodings.count(coding.as_str(), result);
        self.metrics.encodings.seconds.inc_by(took.as_secs_f64());
        if let Some(form) = &form {
            self.store.add_form(key, stored.forms.content(), Arc::clone(form));
            leader.publish(form);
        } else {
            stored.forms.exclude(*coding);
            if let Some(known) = self.response_in_memory(key, stored) {
                known.forms.exclude(*coding);
            }
        }
        form
    }
}

/// A body to encode.
struct Encoding {
    key: CacheKey,
    stored: Arc<StoredResponse>,
    coding: ContentCoding,
}

/// The result of an encoding.
struct EncodedForm {
    /// The form, if it is smaller.
    form: CodedForm,
    took: Duration,
}

impl Encoding {
    fn run(&self) -> EncodedForm {
        let began = Instant::now();
        // A bug in an encoder must not make a response unavailable.
        let form = catch_unwind(AssertUnwindSafe(|| self.form())).ok().flatten();
        EncodedForm { form: form.map(Arc::new), took: began.elapsed() }
    }

    fn form(&self) -> Option<CodedBody> {
        let (coding, body) = (self.coding, self.stored.body());
        let encoded = coding::encode(coding, &body)?;
        let has_tag = self.stored.fields().first(header::ETAG.as_str()).is_some();
        let tag_suffix = if has_tag {
            coded_tag::suffix(coding, &encoded)
        } else {
            coded_tag::suffix_without_tag(coding, &body, &encoded)
        };
        let bytes = Bytes::from(encoded.into_boxed_slice());
        Some(CodedBody { coding, bytes, tag_suffix: tag_suffix.into() })
    }
}

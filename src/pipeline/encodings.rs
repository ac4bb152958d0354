//! Encodings in progress. Requests for the same coded form share one encoding.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout_at,
};

use crate::{
    coding::ContentCoding,
    entry::{CodedBody, ContentId},
};

/// How long requests wait for a coded form, counted from the first request for it. After this time
/// they get the response as stored. Sufficient for 1 MiB on an idle core.
const TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum number of encodings that are in progress or wait for their turn.
const MAX_ENCODINGS: usize = 64;

/// The encodings in progress, by content and coding.
pub(super) struct Encodings {
    listed: Listed,
    /// Large bodies are encoded one at a time, so that other requests can use the remaining cores.
    turns: Arc<Semaphore>,
}

type EncodingId = (ContentId, ContentCoding);

type Listed = Arc<Mutex<HashMap<EncodingId, EncodingFollower>>>;

/// The coded form of a stored response; `None` if the response is sent as stored.
pub(super) type CodedForm = Option<Arc<CodedBody>>;

/// The role of a request in an encoding.
pub(super) enum EncodingRole {
    /// The request encodes, on behalf of all requests that join.
    Leader(EncodingLeader),
    /// Another request is encoding; this one waits for the result.
    Follower(EncodingFollower),
    /// The request does not encode and does not wait, because there are too many encodings.
    Rejected,
}

/// The leader of an encoding. When it is dropped, waiting requests get the response as stored.
pub(super) struct EncodingLeader {
    id: EncodingId,
    listed: Listed,
    result: watch::Sender<CodedForm>,
}

/// A request that waits for an encoding.
#[derive(Clone)]
pub(super) struct EncodingFollower {
    began: Instant,
    result: watch::Receiver<CodedForm>,
}

impl Encodings {
    pub(super) fn new() -> Self {
        Self { listed: Listed::default(), turns: Arc::new(Semaphore::new(1)) }
    }

    /// Joins the encoding of this content, or leads a new one.
    pub(super) fn join(&self, content: ContentId, coding: ContentCoding) -> EncodingRole {
        let (id, mut listed) = ((content, coding), self.listed.lock());
        if let Some(follower) = listed.get(&id) {
            return EncodingRole::Follower(follower.clone());
        }
        if listed.len() >= MAX_ENCODINGS {
            return EncodingRole::Rejected;
        }
        let (sender, result) = watch::channel(None);
        listed.insert(id, EncodingFollower { began: Instant::now(), result });
        let listed = Arc::clone(&self.listed);
        EncodingRole::Leader(EncodingLeader { id, listed, result: sender })
    }

    /// Returns the queue in which large bodies wait to be encoded.
    pub(super) fn turns(&self) -> EncodingQueue {
        EncodingQueue(Arc::clone(&self.turns))
    }
}

/// The queue in which large bodies wait to be encoded.
pub(super) struct EncodingQueue(Arc<Semaphore>);

impl EncodingQueue {
    /// Waits for a turn, which lasts until the permit is dropped.
    pub(super) async fn next(self) -> Option<OwnedSemaphorePermit> {
        self.0.acquire_owned().await.ok()
    }
}

impl EncodingLeader {
    /// Publishes the form to all waiting requests.
    pub(super) fn publish(&self, form: &Arc<CodedBody>) {
        self.result.send_replace(Some(Arc::clone(form)));
    }

    /// Returns a follower of this encoding, so that the leader can wait as well.
    pub(super) fn follower(&self) -> EncodingFollower {
        EncodingFollower { began: Instant::now(), result: self.result.subscribe() }
    }
}

impl Drop for EncodingLeader {
    fn drop(&mut self) {
        self.listed.lock().remove(&self.id);
    }
}

impl EncodingFollower {
    /// Waits for the form. Returns `None` if the leader publishes no form, or not in time.
    pub(super) async fn form(mut self) -> CodedForm {
        let published = self.result.wait_for(Option::is_some);
        timeout_at((self.began + TIMEOUT).into(), published).await.ok()?.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;
    use crate::entry::BodyForms;

    fn body() -> Arc<CodedBody> {
        let bytes = Bytes::from_static(b"x");
        Arc::new(CodedBody { coding: ContentCoding::Gzip, bytes, tag_suffix: "--x".into() })
    }

    fn content() -> ContentId {
        BodyForms::of_new_content().content()
    }

    fn leader(role: EncodingRole) -> EncodingLeader {
        let EncodingRole::Leader(leader) = role else { panic!("another leads") };
        leader
    }

    fn follower(role: EncodingRole) -> EncodingFollower {
        let EncodingRole::Follower(follower) = role else { panic!("nothing to follow") };
        follower
    }

    #[tokio::test]
    async fn all_that_ask_for_a_form_get_the_leaders() {
        let (encodings, content) = (Encodings::new(), content());
        let first = leader(encodings.join(content, ContentCoding::Gzip));
        let waiting = follower(encodings.join(content, ContentCoding::Gzip));
        let _other_coding = leader(encodings.join(content, ContentCoding::Brotli));
        first.publish(&body());
        drop(first);
        assert_eq!(waiting.form().await.unwrap().bytes, "x");
        drop(leader(encodings.join(content, ContentCoding::Gzip)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_or_for_a_leader_that_is_gone() {
        let (encodings, content) = (Encodings::new(), content());
        let slow = leader(encodings.join(content, ContentCoding::Gzip));
        let early = follower(encodings.join(content, ContentCoding::Gzip));
        assert!(early.form().await.is_none());
        let late = follower(encodings.join(content, ContentCoding::Gzip));
        assert!(late.form().now_or_never().unwrap().is_none(), "the time is over");
        let unlucky = slow.follower();
        drop(slow);
        assert!(unlucky.form().now_or_never().unwrap().is_none());
    }

    #[test]
    fn the_number_of_encodings_is_bounded() {
        let encodings = Encodings::new();
        let join = || encodings.join(content(), ContentCoding::Gzip);
        let leaders: Vec<EncodingLeader> = (0..MAX_ENCODINGS).map(|_| leader(join())).collect();
        assert!(matches!(join(), EncodingRole::Rejected));
        drop(leaders);
        drop(leader(join()));
    }
}

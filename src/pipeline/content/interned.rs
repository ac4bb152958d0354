//! Interning of request content, so that waiting requests with equal content share one copy.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::request_content::RequestContent;
use crate::key::ContentDigest;

/// The content of waiting requests, by digest.
///
/// A thousand requests with the same content take the memory of one request.
#[derive(Debug, Default)]
pub(crate) struct InternedContent(Mutex<KnownContent>);

#[derive(Debug, Default)]
struct KnownContent {
    by_digest: HashMap<ContentDigest, Weak<RequestContent>>,
    /// Number of entries at which the entries of ended requests are removed.
    prune_at: usize,
}

/// Minimum number of entries at which the entries of ended requests are removed.
const MIN_PRUNED: usize = 64;

impl InternedContent {
    /// Returns equal content that another request holds, or else the given content.
    pub(crate) fn intern(&self, content: Arc<RequestContent>) -> Arc<RequestContent> {
        let mut known = self.0.lock();
        let other = known.by_digest.get(&content.digest).and_then(Weak::upgrade);
        if let Some(other) = other.filter(|other| other.is_same(&content)) {
            return other;
        }
        if known.by_digest.len() >= known.prune_at.max(MIN_PRUNED) {
            known.by_digest.retain(|_, content| content.strong_count() > 0);
            known.prune_at = 2 * known.by_digest.len();
        }
        known.by_digest.insert(content.digest, Arc::downgrade(&content));
        content
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::pipeline::content::{ContentBudget, rewrite::KeyedForm};

    fn content(method: &Method, text: &str) -> Arc<RequestContent> {
        let bytes = Bytes::from(text.to_owned());
        RequestContent::new((method, &HeaderMap::new()), (bytes, KeyedForm::Bytes), None)
    }

    #[test]
    fn equal_content_of_requests_in_progress_is_kept_once() {
        let interned = InternedContent::default();
        let first = interned.intern(content(&Method::POST, "a"));
        assert!(Arc::ptr_eq(&first, &interned.intern(content(&Method::POST, "a"))));
        let other = interned.intern(content(&Method::QUERY, "a"));
        assert_eq!(other.method, Method::QUERY);
        assert!(!Arc::ptr_eq(&first, &interned.intern(content(&Method::POST, "b"))));
        drop((first, other));
        assert_eq!(Arc::strong_count(&interned.intern(content(&Method::POST, "a"))), 1);
    }

    #[test]
    fn ended_requests_leave_nothing() {
        let interned = InternedContent::default();
        let kept: Vec<_> =
            (0..3).map(|it| interned.intern(content(&Method::POST, &it.to_string()))).collect();
        for number in 0..10_000 {
            interned.intern(content(&Method::POST, &format!("x{number}")));
        }
        assert!(interned.0.lock().by_digest.len() <= MIN_PRUNED);
        assert!(Arc::ptr_eq(&kept[0], &interned.intern(content(&Method::POST, "0"))));
    }

    #[test]
    fn a_copy_gives_its_share_of_the_memory_back() {
        let (interned, budget) = (InternedContent::default(), Arc::new(ContentBudget::default()));
        let large = "x".repeat(64 << 10);
        let mut kept = Vec::new();
        for _ in 0..1000 {
            let mut share = budget.share(Some([192, 0, 2, 1].into()));
            share.grow(large.len()).unwrap();
            let bytes = Bytes::from(large.clone());
            let headers = HeaderMap::new();
            let content = RequestContent::new(
                (&Method::POST, &headers),
                (bytes, KeyedForm::Bytes),
                Some(share),
            );
            kept.push(interned.intern(content));
        }
    }
}

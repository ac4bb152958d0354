//! The coded forms of a stored response's body.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::coding::ContentCoding;

/// A body in a content coding, made from a stored response.
///
/// Its header section is that of the response, except for `Content-Encoding`, `Content-Length` and
/// `ETag`.
#[derive(Debug)]
pub struct CodedBody {
    pub coding: ContentCoding,
    pub bytes: Bytes,
    /// The suffix that the response's `ETag` gets.
    pub tag_suffix: Box<str>,
}

/// Identifies the content of a stored response within this process.
///
/// It is the same before and after a response is freshened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(u64);

type Bodies = [Option<Arc<CodedBody>>; ContentCoding::ALL.len()];

/// The coded forms of a stored response's content that have been made so far.
///
/// An empty set takes 24 bytes.
#[derive(Debug)]
pub struct CodedForms {
    content: ContentId,
    bodies: Option<Box<Bodies>>,
    memo: AtomicU8,
}

/// The bit of `memo` that is set once `may_be_made` is decided. It follows the bits of the codings.
const IS_DECIDED: u8 = 1 << ContentCoding::ALL.len();

/// The bit of `memo` that is set if the response must not be encoded.
const IS_REFUSED: u8 = IS_DECIDED << 1;

impl CodedForms {
    /// Creates an empty set of forms for new content.
    pub fn of_new_content() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let content = ContentId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { content, bodies: None, memo: AtomicU8::new(0) }
    }

    /// Returns the forms with `body` added.
    #[must_use]
    pub fn with(&self, body: Arc<CodedBody>) -> Self {
        let mut forms = self.clone();
        let bodies = forms.bodies.get_or_insert_default();
        if let Some(place) = bodies.get_mut(body.coding.index()) {
            *place = Some(body);
        }
        forms
    }

    /// Returns an empty set of forms for the same content.
    #[must_use]
    pub fn without_bodies(&self) -> Self {
        Self { content: self.content, bodies: None, memo: AtomicU8::new(self.memo()) }
    }

    /// Returns these forms with those of `other` added; `None` if `other` has different content or
    /// adds nothing.
    #[must_use]
    pub fn merged_with(&self, other: &Self) -> Option<Self> {
        if self.content != other.content
            || other.memo() & !self.memo() == 0 && !other.has_more(self)
        {
            return None;
        }
        let mut merged = self.clone();
        for body in other.iter().filter(|body| self.get(body.coding).is_none()) {
            merged = merged.with(Arc::clone(body));
        }
        merged.memo.fetch_or(other.memo(), Ordering::Relaxed);
        Some(merged)
    }

    fn has_more(&self, than: &Self) -> bool {
        self.iter().any(|body| than.get(body.coding).is_none())
    }

    fn memo(&self) -> u8 {
        self.memo.load(Ordering::Relaxed)
    }

    pub fn content(&self) -> ContentId {
        self.content
    }

    /// Returns the body in a coding, if that form has been made.
    #[inline]
    pub fn get(&self, coding: ContentCoding) -> Option<&Arc<CodedBody>> {
        self.bodies.as_ref()?.get(coding.index())?.as_ref()
    }

    /// Returns all bodies that have been made.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CodedBody>> {
        self.bodies.iter().flat_map(|bodies| bodies.iter()).flatten()
    }

    /// Records that no form in this coding will be made.
    pub fn exclude(&self, coding: ContentCoding) {
        self.memo.fetch_or(1 << coding.index(), Ordering::Relaxed);
    }

    #[inline]
    pub fn is_excluded(&self, coding: ContentCoding) -> bool {
        self.memo() & (1 << coding.index()) != 0
    }

    /// Returns whether the response may be encoded. Calls `decide` only the first time.
    #[inline]
    pub fn may_be_made(&self, decide: impl FnOnce() -> bool) -> bool {
        let memo = self.memo();
        if memo & IS_DECIDED != 0 {
            return memo & IS_REFUSED == 0;
        }
        let may = decide();
        let refused = if may { 0 } else { IS_REFUSED };
        self.memo.fetch_or(IS_DECIDED | refused, Ordering::Relaxed);
        may
    }

    /// Returns whether a client is receiving one of the bodies.
    pub fn are_being_read(&self) -> bool {
        self.iter().any(|body| !body.bytes.is_unique())
    }
}

impl Clone for CodedForms {
    /// Returns a copy that shares the bodies.
    fn clone(&self) -> Self {
        let memo = AtomicU8::new(self.memo());
        Self { content: self.content, bodies: self.bodies.clone(), memo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_kept_by_coding_and_with_their_content() {
        let none = CodedForms::of_new_content();
        let body = |coding| {
            let bytes = Bytes::from_static(b"x");
            Arc::new(CodedBody { coding, bytes, tag_suffix: "--x".into() })
        };
        let two = none.with(body(ContentCoding::Gzip)).with(body(ContentCoding::Brotli));
        assert_eq!((none.iter().count(), two.iter().count()), (0, 2));
        assert_eq!(two.get(ContentCoding::Gzip).unwrap().coding, ContentCoding::Gzip);
        assert!(two.get(ContentCoding::Zstd).is_none());
        assert_eq!(two.content(), none.content());
        assert_ne!(two.content(), CodedForms::of_new_content().content());
        let merged = none.with(body(ContentCoding::Zstd)).merged_with(&two).unwrap();
        assert_eq!(merged.iter().count(), 3);
        assert!(merged.merged_with(&two).is_none());
        assert!(CodedForms::of_new_content().merged_with(&two).is_none(), "another content");
    }

    #[test]
    fn what_is_known_is_decided_once() {
        let forms = CodedForms::of_new_content();
        assert!(!forms.is_excluded(ContentCoding::Zstd));
        forms.exclude(ContentCoding::Zstd);
        assert!(forms.may_be_made(|| true));
        assert!(forms.may_be_made(|| unreachable!()));
        assert!(forms.clone().is_excluded(ContentCoding::Zstd));
        assert!(!forms.is_excluded(ContentCoding::Brotli));
        let refused = CodedForms::of_new_content();
        assert!(!refused.may_be_made(|| false) && !refused.may_be_made(|| true));
    }
}

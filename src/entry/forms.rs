//! The forms of a stored response's body: in content codings, and in files.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::{body_file::BodyFile, coding::ContentCoding};

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

/// The forms that have been made.
#[derive(Debug, Clone, Default)]
struct Bodies {
    coded: [Option<Arc<CodedBody>>; ContentCoding::ALL.len()],
    /// The body as stored, then the coded bodies.
    files: [Option<Arc<BodyFile>>; FILES],
}

/// The number of bodies that may have a file.
const FILES: usize = 1 + ContentCoding::ALL.len();

impl Bodies {
    /// Adds the forms of `other` that are missing here.
    fn fill_from(&mut self, other: &Self) {
        fill(&mut self.coded, &other.coded);
        fill(&mut self.files, &other.files);
    }

    /// Returns whether `other` has a form that is missing here.
    fn lacks_some_of(&self, other: &Self) -> bool {
        lacks(&self.coded, &other.coded) || lacks(&self.files, &other.files)
    }
}

fn fill<T>(forms: &mut [Option<Arc<T>>], others: &[Option<Arc<T>>]) {
    for (form, other) in forms.iter_mut().zip(others).filter(|(form, _)| form.is_none()) {
        form.clone_from(other);
    }
}

fn lacks<T>(forms: &[Option<Arc<T>>], others: &[Option<Arc<T>>]) -> bool {
    forms.iter().zip(others).any(|(form, other)| form.is_none() && other.is_some())
}

/// The forms of a stored response's content that have been made so far.
///
/// An empty set takes 24 bytes.
#[derive(Debug)]
pub struct BodyForms {
    content: ContentId,
    bodies: Option<Box<Bodies>>,
    memo: AtomicU8,
    files_memo: AtomicU8,
}

/// The bit of `memo` that is set once `may_be_made` is decided. It follows the bits of the codings.
const IS_DECIDED: u8 = 1 << ContentCoding::ALL.len();

/// The bit of `memo` that is set if the response must not be encoded.
const IS_REFUSED: u8 = IS_DECIDED << 1;

fn file_index(coding: Option<ContentCoding>) -> usize {
    coding.map_or(0, |coding| coding.index() + 1)
}

/// Returns the bits of `files_memo` for a body: it was hit, and its file is excluded.
fn file_bits(coding: Option<ContentCoding>) -> (u8, u8) {
    let hit = 1 << file_index(coding);
    (hit, hit << FILES)
}

impl BodyForms {
    /// Creates an empty set of forms for new content.
    pub fn of_new_content() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let content = ContentId(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { content, bodies: None, memo: AtomicU8::new(0), files_memo: AtomicU8::new(0) }
    }

    /// Returns the forms with `body` added.
    #[must_use]
    pub fn with(&self, body: Arc<CodedBody>) -> Self {
        let mut forms = self.clone();
        let bodies = forms.bodies.get_or_insert_default();
        if let Some(place) = bodies.coded.get_mut(body.coding.index()) {
            *place = Some(body);
        }
        forms
    }

    /// Returns the forms with a file of the body in this coding (`None`: as stored) added.
    #[must_use]
    pub fn with_file(&self, coding: Option<ContentCoding>, file: Arc<BodyFile>) -> Self {
        let mut forms = self.clone();
        let bodies = forms.bodies.get_or_insert_default();
        if let Some(place) = bodies.files.get_mut(file_index(coding)) {
            *place = Some(file);
        }
        forms
    }

    /// Returns an empty set of forms for the same content.
    #[must_use]
    pub fn without_bodies(&self) -> Self {
        let (memo, files_memo) = (AtomicU8::new(self.memo()), AtomicU8::new(0));
        Self { content: self.content, bodies: None, memo, files_memo }
    }

    /// Returns whether no form has been made.
    pub fn is_empty(&self) -> bool {
        self.bodies.is_none()
    }

    /// Returns these forms with those of `other` added; `None` if `other` has different content or
    /// adds nothing.
    #[must_use]
    pub fn merged_with(&self, other: &Self) -> Option<Self> {
        if self.content != other.content
            || other.memo() & !self.memo() == 0 && !self.lacks_some_of(other)
        {
            return None;
        }
        let mut merged = self.clone();
        if let Some(others) = &other.bodies {
            merged.bodies.get_or_insert_default().fill_from(others);
        }
        merged.memo.fetch_or(other.memo(), Ordering::Relaxed);
        Some(merged)
    }

    fn lacks_some_of(&self, other: &Self) -> bool {
        match (&self.bodies, &other.bodies) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(others)) => own.lacks_some_of(others),
        }
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
        self.bodies.as_ref()?.coded.get(coding.index())?.as_ref()
    }

    /// Returns the file of the body in a coding (`None`: as stored), if the file has been made.
    #[inline]
    pub fn file(&self, coding: Option<ContentCoding>) -> Option<&Arc<BodyFile>> {
        self.bodies.as_ref()?.files.get(file_index(coding))?.as_ref()
    }

    /// Returns all coded bodies that have been made.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CodedBody>> {
        self.bodies.iter().flat_map(|bodies| bodies.coded.iter()).flatten()
    }

    /// Returns all files that have been made.
    pub fn files(&self) -> impl Iterator<Item = &Arc<BodyFile>> {
        self.bodies.iter().flat_map(|bodies| bodies.files.iter()).flatten()
    }

    /// Records a hit on the body in a coding (`None`: as stored), which could be sent from a file.
    /// Returns whether the file is to be made: from the second hit, unless it is excluded.
    pub fn note_large_hit(&self, coding: Option<ContentCoding>) -> bool {
        let (hit, excluded) = file_bits(coding);
        let memo = self.files_memo.load(Ordering::Relaxed);
        if memo & hit == 0 {
            self.files_memo.fetch_or(hit, Ordering::Relaxed);
        }
        memo & (hit | excluded) == hit
    }

    /// Records that no file of the body in this coding (`None`: as stored) will be made.
    pub fn exclude_file(&self, coding: Option<ContentCoding>) {
        self.files_memo.fetch_or(file_bits(coding).1, Ordering::Relaxed);
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

impl Clone for BodyForms {
    /// Returns a copy that shares the bodies.
    fn clone(&self) -> Self {
        let memo = AtomicU8::new(self.memo());
        let files_memo = AtomicU8::new(self.files_memo.load(Ordering::Relaxed));
        Self { content: self.content, bodies: self.bodies.clone(), memo, files_memo }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_kept_by_coding_and_with_their_content() {
        let none = BodyForms::of_new_content();
        let body = |coding| {
            let bytes = Bytes::from_static(b"x");
            Arc::new(CodedBody { coding, bytes, tag_suffix: "--x".into() })
        };
        let two = none.with(body(ContentCoding::Gzip)).with(body(ContentCoding::Brotli));
        assert_eq!((none.iter().count(), two.iter().count()), (0, 2));
        assert_eq!(two.get(ContentCoding::Gzip).unwrap().coding, ContentCoding::Gzip);
        assert!(two.get(ContentCoding::Zstd).is_none());
        assert_eq!(two.content(), none.content());
        assert_ne!(two.content(), BodyForms::of_new_content().content());
        let merged = none.with(body(ContentCoding::Zstd)).merged_with(&two).unwrap();
        assert_eq!(merged.iter().count(), 3);
        assert!(merged.merged_with(&two).is_none());
        assert!(BodyForms::of_new_content().merged_with(&two).is_none(), "another content");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn files_are_kept_beside_the_bodies_they_contain() {
        let files = crate::body_file::BodyFiles::new(9, 1 << 20);
        let file = || Arc::new(files.turn(1).unwrap().create(b"x").unwrap());
        let (gzip, none) = (Some(ContentCoding::Gzip), BodyForms::of_new_content());
        let two = none.with_file(None, file()).with_file(gzip, file());
        assert_eq!((none.files().count(), two.files().count(), two.iter().count()), (0, 2, 0));
        assert!(none.is_empty() && !two.is_empty() && two.without_bodies().is_empty());
        assert!(two.file(None).is_some() && two.file(Some(ContentCoding::Zstd)).is_none());
        let other = none.with_file(Some(ContentCoding::Zstd), file()).with_file(None, file());
        let merged = two.merged_with(&other).unwrap();
        assert_eq!(merged.files().count(), 3);
        assert!(merged.merged_with(&two).is_none(), "nothing more");
        assert!(Arc::ptr_eq(merged.file(None).unwrap(), two.file(None).unwrap()));
        assert!(BodyForms::of_new_content().merged_with(&two).is_none(), "another content");
        drop((two, other, merged));
        assert_eq!(files.count(), 0);
    }

    #[test]
    fn a_file_is_due_from_the_second_hit_unless_it_is_excluded() {
        let (gzip, forms) = (Some(ContentCoding::Gzip), BodyForms::of_new_content());
        assert!(!forms.note_large_hit(None) && !forms.note_large_hit(gzip));
        assert!(forms.note_large_hit(None) && forms.clone().note_large_hit(None));
        forms.exclude_file(None);
        assert!(!forms.note_large_hit(None) && !forms.clone().note_large_hit(None));
        assert!(forms.note_large_hit(gzip), "another body");
        assert!(!forms.without_bodies().note_large_hit(None), "all begins again");
    }

    #[test]
    fn what_is_known_is_decided_once() {
        let forms = BodyForms::of_new_content();
        assert!(!forms.is_excluded(ContentCoding::Zstd));
        forms.exclude(ContentCoding::Zstd);
        assert!(forms.may_be_made(|| true));
        assert!(forms.may_be_made(|| unreachable!()));
        assert!(forms.clone().is_excluded(ContentCoding::Zstd));
        assert!(!forms.is_excluded(ContentCoding::Brotli));
        let refused = BodyForms::of_new_content();
        assert!(!refused.may_be_made(|| false) && !refused.may_be_made(|| true));
    }
}

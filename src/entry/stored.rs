//! An entry in a store: a response, or an index of variants that have keys of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use super::{
    BodyForms, PackedFields, VariantIndex,
    sections::{Section, SectionEnds},
};
use crate::{
    coding::{self, CodingRefusal},
    fence::{Fence, FenceStamp, OwnedResponseAttributes, PurgeCandidate, ResponseAttributes},
    field::Timestamp,
    key::{self, CacheKey, partition},
    origin::CompletionProof,
    policy::{Freshness, tag, validation::EtagOrigin},
};

/// The value under one key of a store.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The response to every request with this key.
    Response(Arc<StoredResponse>),
    /// An index of the target's variants, which are stored under their own keys because of `Vary`.
    Variants(Arc<VariantIndex>),
}

/// A complete stored response.
///
/// Key, URL, attributes, tags, header section, trailers and body share one exact-size allocation,
/// so that a hundred thousand small responses take little more memory than their bytes.
#[derive(Debug)]
pub struct StoredResponse {
    pub status: StatusCode,
    /// The data from which reuse is decided.
    pub freshness: Freshness,
    /// Whether the `ETag` is from the origin or from Larder.
    pub etag: EtagOrigin,
    /// An ID unique within this process.
    pub id: ResponseId,
    /// The time of the request to the origin, by this node's clock.
    ///
    /// Of two responses, the one requested later is newer.
    pub requested_at: Timestamp,
    pub has_content_coding: bool,
    pub is_for_one_identity: bool,
    /// The body in other codings and in files. These forms are never stored outside this process.
    pub forms: BodyForms,
    pub(super) fence: Fence,
    pub(super) requested_at_monotonic: u64,
    /// The version of the fence table at which the response was last found alive.
    pub(super) checked_version: AtomicU64,
    /// Whether the response was served since this flag was last cleared.
    pub(super) recently_used: AtomicBool,
    /// Whether the memory store has replaced or removed the response.
    pub(super) withdrawn: AtomicBool,
    pub(super) bytes: Bytes,
    pub(super) ends: SectionEnds,
}

/// Identifies a stored response within this process. A freshened response gets a new ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseId(u64);

impl ResponseId {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns a number whose remainder selects a slot. Consecutive IDs spread evenly.
    #[expect(clippy::cast_possible_truncation, reason = "any of its bits spread evenly")]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// A response about to be stored, without its body.
#[derive(Debug, Clone)]
pub(crate) struct ResponseDraft {
    /// The key under which the response will be stored.
    pub key: CacheKey,
    pub status: StatusCode,
    /// The header section to store, without hop-by-hop fields and `Set-Cookie`.
    pub headers: HeaderMap,
    /// The data from which reuse is decided.
    pub freshness: Freshness,
    pub tags: Vec<String>,
    /// Attributes, besides URL and tags, by which purges select the response.
    pub attributes: OwnedResponseAttributes,
    /// The stamp taken before the request to the origin.
    pub stamp: FenceStamp,
    /// The start of the origin request, by this node's clock.
    pub requested_at: Timestamp,
}

/// A completely received body. Only such bodies can be stored.
#[derive(Debug, Clone)]
pub(crate) struct CompleteBody {
    chunks: Vec<Bytes>,
    trailers: HeaderMap,
}

impl CompleteBody {
    /// Wraps the chunks and the storable trailers of a completely received body.
    ///
    /// Only the code that receives the end of a body can create a `CompletionProof`.
    pub(crate) fn new(chunks: Vec<Bytes>, trailers: HeaderMap, _proof: CompletionProof) -> Self {
        Self { chunks, trailers }
    }

    /// Returns an empty body, for Larder's own entries.
    pub(crate) fn none() -> Self {
        Self { chunks: Vec::new(), trailers: HeaderMap::new() }
    }

    /// Returns a body of these chunks, as if an origin had completed it.
    #[cfg(test)]
    pub(crate) fn for_test(chunks: impl Into<Vec<Bytes>>) -> Self {
        Self { chunks: chunks.into(), trailers: HeaderMap::new() }
    }

    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self { trailers, ..self }
    }

    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    pub(crate) fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

const SEPARATOR: u8 = b'\n';

impl ResponseDraft {
    /// Joins head and body into a stored response.
    ///
    /// Adds an `ETag` if the origin sent no validator, so that clients can still receive a `304`.
    /// Copies the body once, to an exact-size buffer: received chunks keep a whole read buffer
    /// alive. `None` if the parts exceed 4 GiB.
    pub(crate) fn complete(self, body: &CompleteBody) -> Option<StoredResponse> {
        self.join(&body.chunks, &body.trailers)
    }

    fn join(mut self, body: &[Bytes], trailers: &HeaderMap) -> Option<StoredResponse> {
        let etag = self.ensure_validator(body);
        let tags = self.tags.join("\n");
        let attributes = pack_attributes(self.attributes.as_attributes());
        let url = self.key.purge_url();
        // The key mostly contains the URL already.
        let is_in_key = key::requested_url(self.key.text()) == Some(url.as_bytes());
        let url = if is_in_key { "" } else { &*url };
        let body_length: usize = body.iter().map(Bytes::len).sum();
        let texts = [self.key.text(), url.as_bytes(), attributes.as_bytes(), tags.as_bytes()];
        let texts_length: usize = texts.iter().map(|text| text.len()).sum();
        let fields = PackedFields::packed_size(&self.headers) + PackedFields::packed_size(trailers);
        let mut bytes = Vec::with_capacity(texts_length + fields + body_length);
        let mut ends = SmallVec::<[u32; 6]>::new();
        for text in texts {
            bytes.extend_from_slice(text);
            ends.push(u32::try_from(bytes.len()).ok()?);
        }
        for fields in [&self.headers, trailers] {
            PackedFields::pack(fields, &mut bytes);
            ends.push(u32::try_from(bytes.len()).ok()?);
        }
        for chunk in body {
            bytes.extend_from_slice(chunk);
        }
        Some(StoredResponse {
            status: self.status,
            freshness: self.freshness,
            etag,
            id: ResponseId::next(),
            requested_at: self.requested_at,
            has_content_coding: self.headers.contains_key(header::CONTENT_ENCODING),
            is_for_one_identity: partition::identity(self.key.text()).is_some(),
            fence: self.stamp.fence,
            requested_at_monotonic: self.stamp.began,
            checked_version: AtomicU64::new(self.stamp.version),
            recently_used: AtomicBool::new(false),
            withdrawn: AtomicBool::new(false),
            forms: BodyForms::of_new_content(),
            bytes: bytes.into_boxed_slice().into(),
            ends: SectionEnds(ends.into_inner().ok()?),
        })
    }

    fn ensure_validator(&mut self, body: &[Bytes]) -> EtagOrigin {
        let has_validator = self.headers.contains_key(header::ETAG)
            || self.headers.contains_key(header::LAST_MODIFIED);
        if has_validator || self.status != StatusCode::OK {
            return EtagOrigin::Origin;
        }
        if let Ok(value) = HeaderValue::from_bytes(&entity_tag(body)) {
            self.headers.insert(header::ETAG, value);
        }
        EtagOrigin::Larder
    }
}

/// Returns a strong entity tag: 128 bits of the body's SHA-256.
fn entity_tag(body: &[Bytes]) -> [u8; 34] {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for chunk in body {
        digest.update(chunk);
    }
    let half: [u8; 16] = digest.finish().as_ref().first_chunk().copied().unwrap_or_default();
    let mut tag = [b'"'; 34];
    let _always_fits = const_hex::encode_to_slice(half, tag.get_mut(1..33).unwrap_or_default());
    tag
}

impl StoredResponse {
    fn section(&self, section: Section) -> &[u8] {
        self.bytes.get(self.ends.range(section)).unwrap_or_default()
    }

    /// Returns the full text of the response's key. Unlike digests, texts cannot collide.
    pub fn key_text(&self) -> &[u8] {
        self.section(Section::Key)
    }

    /// Returns the URL that purges match: `host/path?query` with the path in its loosest reading.
    pub fn url(&self) -> &[u8] {
        match self.section(Section::Url) {
            [] => key::requested_url(self.key_text()).unwrap_or_default(),
            url => url,
        }
    }

    /// Returns the position of the last purge applied before the request to the origin.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Returns whether this response was requested later than another one under the same key.
    ///
    /// Within one purge log, the response with the later fence is newer; the clock only decides
    /// between equal fences. Returns false for responses of different logs.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let (own, others) = (self.fence, other.fence);
        own.log == others.log && (own.seq, self.requested_at) > (others.seq, other.requested_at)
    }

    /// Returns the time of the request to the origin, in milliseconds of the monotonic clock.
    ///
    /// Zero if another process made the request.
    pub fn requested_at_monotonic(&self) -> u64 {
        self.requested_at_monotonic
    }

    /// Returns the version of the fence table at which the response was last found alive; 0 if
    /// never.
    pub fn checked_version(&self) -> u64 {
        self.checked_version.load(Ordering::Relaxed)
    }

    /// Returns whether the response was found alive at exactly this version of the fence table.
    #[inline]
    pub fn is_checked_at(&self, version: u64) -> bool {
        self.checked_version() == version
    }

    /// Marks the response as alive at this version of the fence table.
    pub fn mark_checked(&self, version: u64) {
        self.checked_version.store(version, Ordering::Relaxed);
    }

    /// Marks the response as recently used.
    ///
    /// Writes only if it is not marked yet.
    #[inline]
    pub fn mark_used(&self) {
        if !self.is_recently_used() {
            self.recently_used.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the response was served since the last call to
    /// [`take_recently_used`](Self::take_recently_used).
    #[inline]
    pub fn is_recently_used(&self) -> bool {
        self.recently_used.load(Ordering::Relaxed)
    }

    /// Clears the mark of recent use, and returns whether it was set.
    pub fn take_recently_used(&self) -> bool {
        self.recently_used.swap(false, Ordering::Relaxed)
    }

    /// Marks the response as replaced or removed in the memory store.
    ///
    /// The mark stays if the same response is stored again: references to it are then looked up
    /// each time.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
    }

    /// Returns whether the memory store has replaced or removed the response.
    #[inline]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Acquire)
    }

    /// Returns the tags by which purges select the response.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        self.section(Section::Tags)
            .split(|byte| *byte == SEPARATOR)
            .filter(|tag| !tag.is_empty())
            .filter_map(|tag| std::str::from_utf8(tag).ok())
    }

    /// Returns the attributes, besides URL and tags, by which purges select the response.
    pub fn attributes(&self) -> ResponseAttributes<'_> {
        unpack_attributes(self.section(Section::Attributes))
    }

    /// Returns the view of this response that purges match.
    pub fn purge_candidate(&self) -> PurgeCandidate<'_, impl Iterator<Item = &str> + Clone> {
        PurgeCandidate { url: self.url(), tags: self.tags(), attributes: self.attributes() }
    }

    /// Returns the stored header section. Increments a reference count and copies nothing.
    pub fn fields(&self) -> PackedFields {
        PackedFields::from_block(self.bytes.slice(self.ends.range(Section::Fields)))
    }

    /// Returns a copy of the header section in its own allocation.
    pub fn detached_fields(&self) -> PackedFields {
        PackedFields::from_block(Bytes::copy_from_slice(self.section(Section::Fields)))
    }

    #[inline]
    pub fn has_trailers(&self) -> bool {
        !self.ends.range(Section::Trailers).is_empty()
    }

    /// Returns the trailer section, stored apart from the header section (RFC 9111 §3.1).
    pub fn trailers(&self) -> HeaderMap {
        let block = self.bytes.slice(self.ends.range(Section::Trailers));
        PackedFields::from_block(block).unpack(0)
    }

    /// Returns the body. Increments a reference count and copies nothing.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(self.ends.body()..)
    }

    /// Returns the bytes of the body without incrementing a reference count.
    pub fn body_bytes(&self) -> &[u8] {
        self.bytes.get(self.ends.body()..).unwrap_or_default()
    }

    /// Returns whether the response's memory is shared, for example while a client receives it.
    pub fn is_being_read(&self) -> bool {
        !self.bytes.is_unique() || self.forms.are_being_read()
    }

    /// Returns the length of the body in bytes.
    pub fn body_length(&self) -> u64 {
        (self.bytes.len() - self.ends.body()) as u64
    }

    /// Returns the heap size in bytes: key, URL, attributes, tags, fields, trailers and body.
    ///
    /// Does not count the forms of the body.
    pub fn heap_size(&self) -> usize {
        self.bytes.len()
    }

    /// Returns why the response is not encoded; `None` if it may be encoded.
    pub fn coding_refusal(&self) -> Option<CodingRefusal> {
        if self.has_trailers() {
            return Some(CodingRefusal::Trailers);
        }
        coding::refusal(self.status, self.fields().iter(), Some(self.body_length()))
    }

    /// Returns the same response with other forms of its body. Keeps the checked version and the mark
    /// of recent use.
    #[must_use]
    pub fn with_forms(&self, forms: BodyForms) -> Self {
        Self {
            checked_version: AtomicU64::new(self.checked_version()),
            recently_used: AtomicBool::new(self.is_recently_used()),
            withdrawn: AtomicBool::new(false),
            forms,
            bytes: self.bytes.clone(),
            ..*self
        }
    }

    /// Returns this response with the freshness, stamp and time of a later request. Shares its
    /// bytes.
    #[must_use]
    pub fn with_freshness(
        &self,
        freshness: Freshness,
        stamp: FenceStamp,
        requested_at: Timestamp,
    ) -> Self {
        let later = self.requested_at.saturating_add(Duration::from_millis(1));
        Self {
            requested_at: requested_at.max(later),
            status: self.status,
            freshness,
            etag: self.etag,
            id: ResponseId::next(),
            fence: stamp.fence,
            requested_at_monotonic: stamp.began,
            checked_version: AtomicU64::new(stamp.version),
            recently_used: AtomicBool::new(self.is_recently_used()),
            withdrawn: AtomicBool::new(false),
            forms: self.forms.clone(),
            bytes: self.bytes.clone(),
            ..*self
        }
    }

    /// Returns the same response, updated by a `304` (RFC 9111 §3.2).
    ///
    /// Adds the tags of the `304`. Returns `None` if there are more tags than a response may have,
    /// so that tags that change with each `304` do not accumulate.
    pub fn freshened(
        &self,
        headers: HeaderMap,
        freshness: Freshness,
        further: Vec<String>,
        (stamp, requested_at, attributes): (FenceStamp, Timestamp, OwnedResponseAttributes),
    ) -> Option<Self> {
        let mut tags: Vec<String> = self.tags().map(str::to_owned).collect();
        tags.extend(further.into_iter().filter(|tag| !self.tags().any(|known| known == tag)));
        if tags.len() > tag::MAX_COUNT {
            return None;
        }
        let draft = ResponseDraft {
            key: CacheKey::from_text(self.key_text()),
            status: self.status,
            headers,
            freshness,
            tags,
            attributes,
            stamp,
            requested_at,
        };
        let refreshed = draft.join(&[self.body()], &self.trailers())?;
        // A `304` may forbid transforming, or bring a digest of the body.
        if refreshed.coding_refusal().is_some() {
            return Some(Self { etag: self.etag, ..refreshed });
        }
        Some(Self { etag: self.etag, forms: self.forms.clone(), ..refreshed })
    }
}

impl Entry {
    /// Returns whether both entries are responses that share one allocation, because one was
    /// derived from the other without copying the body.
    pub fn shares_body_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Response(one), Self::Response(other)) => {
                one.bytes.as_ptr() == other.bytes.as_ptr()
            }
            _ => false,
        }
    }

    /// [Withdraws](StoredResponse::withdraw) the response, if the entry is one.
    pub fn withdraw(&self) {
        if let Self::Response(response) = self {
            response.withdraw();
        }
    }

    /// Returns the full text of the key under which the entry is stored.
    pub fn key_text(&self) -> &[u8] {
        match self {
            Self::Response(response) => response.key_text(),
            Self::Variants(variants) => &variants.target,
        }
    }

    /// Returns whether the entry has exactly this key, not another key with the same digest.
    pub fn matches_key(&self, key: &CacheKey) -> bool {
        self.key_text() == key.text()
    }

    /// Returns the identity that the entry is limited to; `None` if other identities may share it.
    pub fn identity(&self) -> Option<u128> {
        match self {
            Self::Response(response) if !response.is_for_one_identity => None,
            entry => partition::identity(entry.key_text()),
        }
    }

    /// Returns whether `known`, stored under the same key, must not be replaced by this entry.
    ///
    /// True if `known` was requested later. Also true if `known` is a current index of variants,
    /// which a response without `Vary` must not hide.
    pub fn is_superseded_by(&self, known: &Self) -> bool {
        match (self, known) {
            (Self::Response(new), Self::Response(known)) => known.is_newer_than(new),
            (Self::Response(new), Self::Variants(known)) => {
                known.current_selection(new.requested_at).is_some()
            }
            (Self::Variants(_), _) => false,
        }
    }

    /// Returns this entry with the forms of `known`, if `known` has the same content.
    ///
    /// A response that is freshened while a form is made keeps the form.
    #[must_use]
    pub fn keeping_forms_of(self, known: &Self) -> Self {
        match (&self, known) {
            (Self::Response(new), Self::Response(known)) => {
                match new.forms.merged_with(&known.forms) {
                    Some(forms) => Self::Response(Arc::new(new.with_forms(forms))),
                    None => self,
                }
            }
            _ => self,
        }
    }

    /// Returns this entry without the forms of its body, which can be made again.
    #[must_use]
    pub fn without_forms(self) -> Self {
        match self {
            Self::Response(response) if !response.forms.is_empty() => {
                Self::Response(Arc::new(response.with_forms(response.forms.without_bodies())))
            }
            entry => entry,
        }
    }

    /// Converts times to a clock that is ahead of this node's by `millis` milliseconds.
    #[must_use]
    pub fn with_clock_offset(mut self, millis: i64) -> Self {
        let moved = |at: &mut Timestamp| {
            *at = Timestamp::from_millis(at.millis().saturating_add_signed(millis));
        };
        match &mut self {
            Self::Response(response) => {
                if let Some(response) = Arc::get_mut(response) {
                    moved(&mut response.requested_at);
                    moved(&mut response.freshness.received_at);
                }
            }
            Self::Variants(variants) => {
                for selection in &mut Arc::make_mut(variants).selections {
                    moved(&mut selection.seen);
                }
            }
        }
        self
    }

    /// Returns the heap size in bytes, without the struct itself.
    pub fn heap_size(&self) -> usize {
        match self {
            Self::Response(response) => response.heap_size(),
            Self::Variants(variants) => variants.heap_size(),
        }
    }
}

/// Packs route, version and user into text, with a line break after each of the first two.
///
/// Names of routes and versions contain no line break; a user may be any text.
fn pack_attributes(attributes: ResponseAttributes<'_>) -> String {
    let [route, version, user] =
        [attributes.route, attributes.version, attributes.user].map(Option::unwrap_or_default);
    if route.len() + version.len() + user.len() == 0 {
        return String::new();
    }
    [route, version, user].join("\n")
}

/// Unpacks the text of [`pack_attributes`].
fn unpack_attributes(packed: &[u8]) -> ResponseAttributes<'_> {
    let mut parts = packed
        .splitn(3, |byte| *byte == SEPARATOR)
        .map(|part| std::str::from_utf8(part).ok().filter(|part| !part.is_empty()));
    let mut next = || parts.next().flatten();
    let (route, version, user) = (next(), next(), next());
    ResponseAttributes { user, route, version }
}

//! What a store holds under a key: a response, or the list of variants that stand in its place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{PackedFields, VariantIndex};
use crate::{
    fence::{Fence, FenceStamp, OwnedResponseAttributes, PurgeCandidate, ResponseAttributes},
    field::Timestamp,
    key::{self, CacheKey, partition},
    origin::CompletionProof,
    policy::{Freshness, tag, validation::EtagOrigin},
};

/// What stands under one key of a store.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The response to every request with this key.
    Response(Arc<StoredResponse>),
    /// The target's responses carry `Vary`: they stand under keys of their own.
    Variants(Arc<VariantIndex>),
}

/// A complete stored response.
///
/// Key, URL, attributes, tags, header section, trailers and body stand in one exact-size allocation, so that a
/// hundred thousand small responses cost little more than their bytes.
#[derive(Debug)]
pub struct StoredResponse {
    /// The status.
    pub status: StatusCode,
    /// All that deciding about reuse takes.
    pub freshness: Freshness,
    /// Whose validator the `ETag` is.
    pub etag: EtagOrigin,
    /// This response and no other.
    pub id: ResponseId,
    /// When the origin was asked for it, by this node's clock: of two, the one that was asked for later is
    /// newer.
    pub requested_at: Timestamp,
    /// Whether it has a content coding.
    pub has_content_coding: bool,
    /// Whether it is for one identity alone.
    pub is_for_one_identity: bool,
    pub(super) fence: Fence,
    pub(super) requested_at_monotonic: u64,
    /// The version of the node's fence table at which it was last found alive.
    pub(super) checked_version: AtomicU64,
    /// Whether it was answered with since that was looked at.
    pub(super) recently_used: AtomicBool,
    pub(super) bytes: Bytes,
    pub(super) key_end: u32,
    pub(super) url_end: u32,
    pub(super) attributes_end: u32,
    pub(super) tags_end: u32,
    pub(super) fields_end: u32,
    pub(super) trailers_end: u32,
}

/// Tells one stored response from every other of this process, its own freshened form included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseId(u64);

impl ResponseId {
    /// An identity not given out before.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A number that spreads evenly.
    #[expect(clippy::cast_possible_truncation, reason = "any of its bits spread evenly")]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// A response on its way into a store: all but its body.
#[derive(Debug, Clone)]
pub(crate) struct ResponseDraft {
    /// The key under which it will stand.
    pub key: CacheKey,
    /// The status.
    pub status: StatusCode,
    /// The header section to store; hop-by-hop fields and `Set-Cookie` are gone already.
    pub headers: HeaderMap,
    /// All that deciding about reuse takes.
    pub freshness: Freshness,
    /// Names by which it can be purged.
    pub tags: Vec<String>,
    /// What else it can be purged by.
    pub attributes: OwnedResponseAttributes,
    /// Taken before the origin was asked.
    pub stamp: FenceStamp,
    /// When that was, by this node's clock.
    pub requested_at: Timestamp,
}

/// A body of which all has come, in the pieces in which it came: the only one that is stored.
#[derive(Debug, Clone)]
pub(crate) struct CompleteBody {
    chunks: Vec<Bytes>,
    /// The trailer section behind it.
    trailers: HeaderMap,
}

impl CompleteBody {
    /// The body in these pieces, which its origin has been seen to end, and what of its trailers may be
    /// stored.
    pub(crate) fn new(chunks: Vec<Bytes>, trailers: HeaderMap, _proof: CompletionProof) -> Self {
        Self { chunks, trailers }
    }

    /// No body at all: of what Larder itself notes.
    pub(crate) fn none() -> Self {
        Self { chunks: Vec::new(), trailers: HeaderMap::new() }
    }

    /// A body that no origin has sent.
    #[cfg(test)]
    pub(crate) fn for_test(chunks: impl Into<Vec<Bytes>>) -> Self {
        Self { chunks: chunks.into(), trailers: HeaderMap::new() }
    }

    /// The same with these trailers.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self { trailers, ..self }
    }

    /// Its pieces, in order.
    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

const SEPARATOR: u8 = b'\n';

impl ResponseDraft {
    /// Joins head and body into a stored response, and makes an `ETag` where the origin sent no
    /// validator at all, so that clients can still be answered `304`.
    ///
    /// Copies the body once, to an exact-size buffer: what comes from a socket pins the whole read
    /// buffer it arrived in. Gives `None` where the parts exceed 4 GiB.
    pub(crate) fn complete(self, body: &CompleteBody) -> Option<StoredResponse> {
        self.join(&body.chunks, &body.trailers)
    }

    fn join(mut self, body: &[Bytes], trailers: &HeaderMap) -> Option<StoredResponse> {
        let etag = self.ensure_validator(body);
        let tags = self.tags.join("\n");
        let attributes = pack_attributes(self.attributes.as_attributes());
        let url = self.key.purge_url();
        // Mostly the key has it already.
        let is_in_key = key::requested_url(self.key.text()) == Some(url.as_bytes());
        let url = if is_in_key { "" } else { &url };
        let body_length: usize = body.iter().map(Bytes::len).sum();
        let names = url.len() + attributes.len() + tags.len();
        let fields = PackedFields::packed_size(&self.headers) + PackedFields::packed_size(trailers);
        let head = self.key.text().len() + names + fields;
        let mut bytes = Vec::with_capacity(head + body_length);
        bytes.extend_from_slice(self.key.text());
        let key_end = u32::try_from(bytes.len()).ok()?;
        bytes.extend_from_slice(url.as_bytes());
        let url_end = u32::try_from(bytes.len()).ok()?;
        bytes.extend_from_slice(attributes.as_bytes());
        let attributes_end = u32::try_from(bytes.len()).ok()?;
        bytes.extend_from_slice(tags.as_bytes());
        let tags_end = u32::try_from(bytes.len()).ok()?;
        PackedFields::pack(&self.headers, &mut bytes);
        let fields_end = u32::try_from(bytes.len()).ok()?;
        PackedFields::pack(trailers, &mut bytes);
        let trailers_end = u32::try_from(bytes.len()).ok()?;
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
            bytes: bytes.into_boxed_slice().into(),
            key_end,
            url_end,
            attributes_end,
            tags_end,
            fields_end,
            trailers_end,
        })
    }

    fn ensure_validator(&mut self, body: &[Bytes]) -> EtagOrigin {
        let has_validator = self.headers.contains_key(header::ETAG)
            || self.headers.contains_key(header::LAST_MODIFIED);
        if has_validator || self.status != StatusCode::OK {
            return EtagOrigin::Origin;
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(entity_tag(body))) {
            self.headers.insert(header::ETAG, value);
        }
        EtagOrigin::Larder
    }
}

/// A strong entity tag: 128 bits of the body's SHA-256.
fn entity_tag(body: &[Bytes]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for chunk in body {
        digest.update(chunk);
    }
    let digest = digest.finish();
    let digest = const_hex::encode(digest.as_ref().get(..16).unwrap_or_default());
    format!("\"{digest}\"")
}

impl StoredResponse {
    /// The full text of the key under which it was stored. Digests may collide, texts may not.
    pub fn key_text(&self) -> &[u8] {
        self.bytes.get(..index(self.key_end)).unwrap_or_default()
    }

    /// Its URL in the form by which purges select it: `host/path?query` in the loosest reading.
    pub fn url(&self) -> &[u8] {
        match self.bytes.get(index(self.key_end)..index(self.url_end)) {
            Some([]) | None => key::requested_url(self.key_text()).unwrap_or_default(),
            Some(url) => url,
        }
    }

    /// The last purge that was applied before the origin was asked for it.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Whether this one was asked for later than another response under the same key. In one purge log a
    /// later fence says so, whatever the clocks say; what another log knows cannot be compared.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let (own, others) = (self.fence, other.fence);
        own.log == others.log && (own.seq, self.requested_at) > (others.seq, other.requested_at)
    }

    /// When the origin was asked for it, in milliseconds of this process's steady clock; 0 where another
    /// process asked.
    pub fn requested_at_monotonic(&self) -> u64 {
        self.requested_at_monotonic
    }

    /// The version of the fence table at which it was last found alive; 0 if it never was.
    pub fn checked_version(&self) -> u64 {
        self.checked_version.load(Ordering::Relaxed)
    }

    /// Whether it was found alive at exactly this version of the fence table.
    #[inline]
    pub fn is_checked_at(&self, version: u64) -> bool {
        self.checked_version() == version
    }

    /// Notes that it is alive at this version of the fence table.
    pub fn mark_checked(&self, version: u64) {
        self.checked_version.store(version, Ordering::Relaxed);
    }

    /// Notes that it was answered with. The usual hit only reads.
    #[inline]
    pub fn mark_used(&self) {
        if !self.is_recently_used() {
            self.recently_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was answered with since [`take_recently_used`](Self::take_recently_used).
    #[inline]
    pub fn is_recently_used(&self) -> bool {
        self.recently_used.load(Ordering::Relaxed)
    }

    /// The same, and forgets it.
    pub fn take_recently_used(&self) -> bool {
        self.recently_used.swap(false, Ordering::Relaxed)
    }

    /// Names by which it can be purged.
    pub fn tags(&self) -> impl Iterator<Item = &str> + Clone {
        let tags =
            self.bytes.get(index(self.attributes_end)..index(self.tags_end)).unwrap_or_default();
        tags.split(|byte| *byte == SEPARATOR)
            .filter(|tag| !tag.is_empty())
            .filter_map(|tag| std::str::from_utf8(tag).ok())
    }

    /// What else it can be purged by.
    pub fn attributes(&self) -> ResponseAttributes<'_> {
        let packed = self.bytes.get(index(self.url_end)..index(self.attributes_end));
        unpack_attributes(packed.unwrap_or_default())
    }

    /// As purges see it.
    pub fn purge_candidate(&self) -> PurgeCandidate<'_, impl Iterator<Item = &str> + Clone> {
        PurgeCandidate { url: self.url(), tags: self.tags(), attributes: self.attributes() }
    }

    /// The stored header section. Costs one reference count, copies nothing.
    pub fn fields(&self) -> PackedFields {
        PackedFields::from_block(self.bytes.slice(index(self.tags_end)..index(self.fields_end)))
    }

    /// A copy of the header section that shares nothing with this response.
    pub fn detached_fields(&self) -> PackedFields {
        let block = self.bytes.get(index(self.tags_end)..index(self.fields_end));
        PackedFields::from_block(Bytes::copy_from_slice(block.unwrap_or_default()))
    }

    /// Whether there are trailers behind the body.
    #[inline]
    pub fn has_trailers(&self) -> bool {
        self.trailers_end > self.fields_end
    }

    /// The trailer section, stored apart from the header section (RFC 9111 §3.1).
    pub fn trailers(&self) -> HeaderMap {
        let block = self.bytes.slice(index(self.fields_end)..index(self.trailers_end));
        PackedFields::from_block(block).unpack(0)
    }

    /// The body. Costs one reference count, copies nothing.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(index(self.trailers_end)..)
    }

    /// Whether someone holds a part of its bytes, as a client does that is sent the body.
    pub fn is_being_read(&self) -> bool {
        !self.bytes.is_unique()
    }

    /// The length of the body in bytes.
    pub fn body_length(&self) -> u64 {
        (self.bytes.len() - index(self.trailers_end)) as u64
    }

    /// All bytes it keeps on the heap: key, URL, attributes, tags, fields, trailers and body.
    pub fn heap_size(&self) -> usize {
        self.bytes.len()
    }

    /// The same response with another freshness, as known since the origin was asked under this stamp.
    /// Shares its bytes.
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
            bytes: self.bytes.clone(),
            ..*self
        }
    }

    /// The same response under updated fields, freshness and attributes, as after a `304` (RFC 9111 §3.2),
    /// with further tags. None where those are more than a response may have, so that what the origin names
    /// anew with each `304` does not pile up.
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
        Some(Self { etag: self.etag, ..refreshed })
    }
}

impl Entry {
    /// The full text of the key under which it is stored.
    pub fn key_text(&self) -> &[u8] {
        match self {
            Self::Response(response) => response.key_text(),
            Self::Variants(variants) => &variants.target,
        }
    }

    /// Whether this is the entry of exactly this key, and not of one with the same digest.
    pub fn matches_key(&self, key: &CacheKey) -> bool {
        self.key_text() == key.text()
    }

    /// The identity that alone has it, if one does.
    pub fn identity(&self) -> Option<u128> {
        match self {
            Self::Response(response) if !response.is_for_one_identity => None,
            entry => partition::identity(entry.key_text()),
        }
    }

    /// Whether what is stored under the same key stays in the place of this one: it was asked for later,
    /// or it is an index of variants that a response without `Vary` must not hide.
    pub fn is_superseded_by(&self, known: &Self) -> bool {
        match (self, known) {
            (Self::Response(new), Self::Response(known)) => known.is_newer_than(new),
            (Self::Response(new), Self::Variants(known)) => {
                known.current_selection(new.requested_at).is_some()
            }
            (Self::Variants(_), _) => false,
        }
    }

    /// The same entry by a clock that is ahead of this node's by so many milliseconds.
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

    /// All bytes the entry keeps on the heap besides its struct.
    pub fn heap_size(&self) -> usize {
        match self {
            Self::Response(response) => response.heap_size(),
            Self::Variants(variants) => variants.heap_size(),
        }
    }
}

/// ResponseAttributes as text: route, version and user, a line break after each of the first two. The names of routes
/// and versions have none; what stands for a user may be any text.
fn pack_attributes(attributes: ResponseAttributes<'_>) -> String {
    let [route, version, user] =
        [attributes.route, attributes.version, attributes.user].map(Option::unwrap_or_default);
    if route.len() + version.len() + user.len() == 0 {
        return String::new();
    }
    format!("{route}\n{version}\n{user}")
}

/// What [`pack_attributes`] packs.
fn unpack_attributes(packed: &[u8]) -> ResponseAttributes<'_> {
    let mut parts = packed
        .splitn(3, |byte| *byte == SEPARATOR)
        .map(|part| std::str::from_utf8(part).ok().filter(|part| !part.is_empty()));
    let mut next = || parts.next().flatten();
    let (route, version, user) = (next(), next(), next());
    ResponseAttributes { user, route, version }
}

fn index(offset: u32) -> usize {
    offset as usize
}

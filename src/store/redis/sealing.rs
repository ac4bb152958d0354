//! Encryption of entries limited to some clients, if the operator configured a secret.

use std::borrow::Cow;

use bytes::Bytes;

use super::{chunks, inner::StoreInner};
use crate::{
    entry::{
        Entry,
        codec::{
            self, ChunkedResponse, DecodedHead, EncodeOptions, EncodedEntry,
            sealed::{self, SealedPart, SealingKeys, UnsealOutcome},
        },
    },
    key::partition,
    telemetry::StoreOperationOutcome,
};

/// Maximum size in bytes of content that is decompressed on the calling thread.
pub(super) const INLINE_DECODE_LIMIT: usize = 64 << 10;

/// The context for encrypting or decrypting a value: the digest of its key, and whether the value
/// has to be encrypted.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealContext {
    pub digest: u128,
    is_secret: bool,
}

impl SealContext {
    /// Returns the context for the entry with this key digest and key text.
    pub(super) fn new(digest: u128, key_text: &[u8]) -> Self {
        Self { digest, is_secret: partition::is_partitioned(key_text) }
    }

    /// Returns a context for decoding a value that is to be removed, whether encrypted or plain.
    pub(super) const fn unchecked(self) -> Self {
        Self { is_secret: false, ..self }
    }
}

impl StoreInner {
    /// Encodes an entry; `None` if it has to be encrypted and encryption fails.
    ///
    /// A large entry is compressed and encrypted on a blocking thread.
    pub(super) async fn encode(
        &self,
        context: SealContext,
        entry: &Entry,
        options: EncodeOptions,
    ) -> Option<EncodedEntry> {
        let sealing_keys = self.settings.sealing_keys.clone().filter(|_| context.is_secret);
        if entry.heap_size() as u64 <= u64::from(chunks::SIZE.get()) {
            return encode(sealing_keys.as_ref(), context.digest, entry, options);
        }
        let entry = entry.clone();
        let written = move || encode(sealing_keys.as_ref(), context.digest, &entry, options);
        tokio::task::spawn_blocking(written).await.ok().flatten()
    }

    /// Decodes the value at an entry's key, or returns the reason why decoding fails.
    ///
    /// Large content is decompressed on a blocking thread, even if its compressed form is small.
    pub(super) async fn read_head(
        &self,
        context: SealContext,
        head: &Bytes,
    ) -> Result<DecodedHead, StoreOperationOutcome> {
        let plain = match self.unseal_head(context, head)? {
            Cow::Owned(plain) => Bytes::from(plain),
            Cow::Borrowed(_) => head.clone(),
        };
        decode(plain, self.settings.max_entry).await.ok_or(StoreOperationOutcome::Damaged)
    }

    /// Decodes the value at an entry's key on the calling thread. Used for small values, or if no
    /// request waits.
    pub(super) fn read_head_inline(
        &self,
        context: SealContext,
        head: &[u8],
    ) -> Result<DecodedHead, StoreOperationOutcome> {
        let plain = self.unseal_head(context, head)?;
        codec::decode(&plain, self.settings.max_entry).ok_or(StoreOperationOutcome::Damaged)
    }

    /// Decrypts the value at an entry's key, if it is encrypted.
    ///
    /// Rejects a plain value that should be encrypted: it was written without the secret, by this
    /// fleet or by an attacker.
    fn unseal_head<'h>(
        &self,
        context: SealContext,
        head: &'h [u8],
    ) -> Result<Cow<'h, [u8]>, StoreOperationOutcome> {
        let sealing_keys = self.settings.sealing_keys.as_ref();
        match (sealed::is_sealed(head), sealing_keys) {
            (true, Some(sealing_keys)) => match sealing_keys.open_head(context.digest, head) {
                UnsealOutcome::Plain(plain) => Ok(Cow::Owned(plain)),
                UnsealOutcome::Damaged => Err(StoreOperationOutcome::Damaged),
                UnsealOutcome::Locked => Err(StoreOperationOutcome::Undecryptable),
            },
            (true, None) => Err(StoreOperationOutcome::Undecryptable),
            (false, Some(_)) if context.is_secret => Err(StoreOperationOutcome::Undecryptable),
            (false, _) => Ok(Cow::Borrowed(head)),
        }
    }

    /// Returns the secrets for the chunks of an entry, or `None` if the entry is not encrypted.
    pub(super) fn sealing_keys_for(&self, head: &[u8]) -> Option<SealingKeys> {
        self.settings.sealing_keys.clone().filter(|_| sealed::is_sealed(head))
    }
}

/// Decodes an entry, on a blocking thread if its content is large.
pub(super) async fn decode(plain: Bytes, limit: usize) -> Option<DecodedHead> {
    if codec::declared_length(&plain).is_none_or(|length| length <= INLINE_DECODE_LIMIT) {
        return codec::decode(&plain, limit);
    }
    tokio::task::spawn_blocking(move || codec::decode(&plain, limit)).await.ok().flatten()
}

/// Decrypts encrypted chunks of a response, and returns the entry; `None` if they are invalid.
///
/// The function is slow, since it verifies and decompresses megabytes.
pub(super) fn assemble(
    sealing_keys: Option<&SealingKeys>,
    digest: u128,
    chunked: ChunkedResponse,
    chunks: &[Bytes],
) -> Option<Entry> {
    let Some(sealing_keys) = sealing_keys else { return chunked.finish(chunks) };
    let part = |number| SealedPart::Chunk(chunked.body_id(), number);
    let opened = chunks.iter().zip(0..).map(|(it, n)| sealing_keys.open_chunk(digest, part(n), it));
    let opened: Vec<Bytes> = opened.collect::<Option<_>>()?;
    chunked.finish(&opened)
}

fn encode(
    sealing_keys: Option<&SealingKeys>,
    digest: u128,
    entry: &Entry,
    options: EncodeOptions,
) -> Option<EncodedEntry> {
    let written = codec::encode(entry, options);
    match sealing_keys {
        Some(sealing_keys) => sealing_keys.seal(digest, options.body_id, &written),
        None => Some(written),
    }
}

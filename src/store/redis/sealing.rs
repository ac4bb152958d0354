//! What is not for everyone stands in Redis encrypted, if the operator gave a secret for that.

use std::borrow::Cow;

use bytes::Bytes;

use super::{StoreInner, writer::CHUNK_SIZE};
use crate::{
    entry::{
        Entry,
        codec::{
            self, ChunkedResponse, DecodedEntry, EncodeOptions, EncodedEntry,
            sealed::{self, SealedPart, SealingKeys, UnsealOutcome},
        },
    },
    key::partition,
    telemetry::StoreOperationOutcome,
};

/// Content of up to this many bytes is unpacked by the way.
pub(super) const INLINE_DECODE_LIMIT: usize = 64 << 10;

/// Whose value it is: the digest of its key, and whether it must not be readable.
#[derive(Debug, Clone, Copy)]
pub(super) struct SealContext {
    pub digest: u128,
    is_secret: bool,
}

impl SealContext {
    /// The entry whose key has this digest and this text.
    pub(super) fn new(digest: u128, key_text: &[u8]) -> Self {
        Self { digest, is_secret: partition::is_partitioned(key_text) }
    }

    /// The same for what is only to be cleared away, encrypted or not.
    pub(super) const fn unchecked(self) -> Self {
        Self { is_secret: false, ..self }
    }
}

impl StoreInner {
    /// An entry as it is written. `None` if it has to be encrypted and cannot be.
    ///
    /// Compressing and encrypting take their time for a large one: then it is done on another thread.
    pub(super) async fn encode(
        &self,
        context: SealContext,
        entry: &Entry,
        options: EncodeOptions,
    ) -> Option<EncodedEntry> {
        let sealing_keys = self.settings.sealing_keys.clone().filter(|_| context.is_secret);
        if entry.heap_size() as u64 <= u64::from(CHUNK_SIZE.get()) {
            return encode(sealing_keys.as_ref(), context.digest, entry, options);
        }
        let entry = entry.clone();
        let written = move || encode(sealing_keys.as_ref(), context.digest, &entry, options);
        tokio::task::spawn_blocking(written).await.ok().flatten()
    }

    /// Reads what stands under the key of an entry, or says why that cannot be read.
    ///
    /// Unpacking takes its time for what is large, however small it is packed: then it is done on another
    /// thread.
    pub(super) async fn read_head(
        &self,
        context: SealContext,
        head: &Bytes,
    ) -> Result<DecodedEntry, StoreOperationOutcome> {
        let plain = match self.unseal_head(context, head)? {
            Cow::Owned(plain) => Bytes::from(plain),
            Cow::Borrowed(_) => head.clone(),
        };
        decode(plain, self.settings.max_entry).await.ok_or(StoreOperationOutcome::Damaged)
    }

    /// The same on this thread, for what is not large or where no request waits.
    pub(super) fn read_head_inline(
        &self,
        context: SealContext,
        head: &[u8],
    ) -> Result<DecodedEntry, StoreOperationOutcome> {
        let plain = self.unseal_head(context, head)?;
        codec::decode(&plain, self.settings.max_entry).ok_or(StoreOperationOutcome::Damaged)
    }

    /// What stands under the key of an entry, opened if it is sealed.
    ///
    /// What should be encrypted and is not was written without the secret, by this fleet or by somebody
    /// else: it is not believed.
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

    /// The secrets by which the chunks of an entry are opened, if they are sealed.
    pub(super) fn sealing_keys_for(&self, head: &[u8]) -> Option<SealingKeys> {
        self.settings.sealing_keys.clone().filter(|_| sealed::is_sealed(head))
    }
}

/// The entry in these bytes, on another thread if it is large once it is unpacked.
pub(super) async fn decode(plain: Bytes, limit: usize) -> Option<DecodedEntry> {
    if codec::declared_length(&plain).is_none_or(|length| length <= INLINE_DECODE_LIMIT) {
        return codec::decode(&plain, limit);
    }
    tokio::task::spawn_blocking(move || codec::decode(&plain, limit)).await.ok().flatten()
}

/// Puts the chunks of a response into it, opened if they are sealed. Takes its time: megabytes are checked
/// and unpacked.
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

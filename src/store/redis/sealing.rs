//! What is not for everyone stands in Redis encrypted, if the operator gave a secret for that.

use std::borrow::Cow;

use bytes::Bytes;

use super::{Shared, writer::CHUNK};
use crate::{
    entry::{
        Entry,
        codec::{
            self, Chunked, Decoded, Encoded, Packing,
            sealed::{self, Opened, Place, Seals},
        },
    },
    key::partition,
    telemetry::Outcome,
};

/// Content of up to this many bytes is unpacked by the way.
pub(super) const BY_THE_WAY: usize = 64 << 10;

/// Whose value it is: the digest of its key, and whether it must not be readable.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub digest: u128,
    is_secret: bool,
}

impl Subject {
    /// The entry whose key has this digest and this text.
    pub fn new(digest: u128, key_text: &[u8]) -> Self {
        Self { digest, is_secret: partition::is_partitioned(key_text) }
    }

    /// The same for what is only to be cleared away, encrypted or not.
    pub const fn as_found(self) -> Self {
        Self { is_secret: false, ..self }
    }
}

impl Shared {
    /// An entry as it is written. `None` if it has to be encrypted and cannot be.
    ///
    /// Compressing and encrypting take their time for a large one: then it is done on another thread.
    pub(super) async fn written(
        &self,
        subject: Subject,
        entry: &Entry,
        packing: Packing,
    ) -> Option<Encoded> {
        let seals = self.settings.seals.clone().filter(|_| subject.is_secret);
        if entry.heap_size() as u64 <= u64::from(CHUNK.get()) {
            return write(seals.as_ref(), subject.digest, entry, packing);
        }
        let entry = entry.clone();
        let written = move || write(seals.as_ref(), subject.digest, &entry, packing);
        tokio::task::spawn_blocking(written).await.ok().flatten()
    }

    /// Reads what stands under the key of an entry, or says why that cannot be read.
    ///
    /// Unpacking takes its time for what is large, however small it is packed: then it is done on another
    /// thread.
    pub(super) async fn read_head(
        &self,
        subject: Subject,
        head: &Bytes,
    ) -> Result<Decoded, Outcome> {
        let plain = match self.opened(subject, head)? {
            Cow::Owned(plain) => Bytes::from(plain),
            Cow::Borrowed(_) => head.clone(),
        };
        decoded(plain, self.settings.max_entry).await.ok_or(Outcome::Damaged)
    }

    /// The same on this thread, for what is not large or where no request waits.
    pub(super) fn read_head_here(&self, subject: Subject, head: &[u8]) -> Result<Decoded, Outcome> {
        let plain = self.opened(subject, head)?;
        codec::decode(&plain, self.settings.max_entry).ok_or(Outcome::Damaged)
    }

    /// What stands under the key of an entry, opened if it is sealed.
    ///
    /// What should be encrypted and is not was written without the secret, by this fleet or by somebody
    /// else: it is not believed.
    fn opened<'h>(&self, subject: Subject, head: &'h [u8]) -> Result<Cow<'h, [u8]>, Outcome> {
        let seals = self.settings.seals.as_ref();
        match (sealed::is_sealed(head), seals) {
            (true, Some(seals)) => match seals.open_head(subject.digest, head) {
                Opened::Plain(plain) => Ok(Cow::Owned(plain)),
                Opened::Damaged => Err(Outcome::Damaged),
                Opened::Locked => Err(Outcome::Locked),
            },
            (true, None) => Err(Outcome::Locked),
            (false, Some(_)) if subject.is_secret => Err(Outcome::Locked),
            (false, _) => Ok(Cow::Borrowed(head)),
        }
    }

    /// The secrets by which the chunks of an entry are opened, if they are sealed.
    pub(super) fn seals_of(&self, head: &[u8]) -> Option<Seals> {
        self.settings.seals.clone().filter(|_| sealed::is_sealed(head))
    }
}

/// The entry in these bytes, on another thread if it is large once it is unpacked.
pub(super) async fn decoded(plain: Bytes, limit: usize) -> Option<Decoded> {
    if codec::announced_length(&plain).is_none_or(|length| length <= BY_THE_WAY) {
        return codec::decode(&plain, limit);
    }
    tokio::task::spawn_blocking(move || codec::decode(&plain, limit)).await.ok().flatten()
}

/// Puts the chunks of a response into it, opened if they are sealed. Takes its time: megabytes are checked
/// and unpacked.
pub fn finish(
    seals: Option<&Seals>,
    digest: u128,
    chunked: Chunked,
    chunks: &[Bytes],
) -> Option<Entry> {
    let Some(seals) = seals else { return chunked.finish(chunks) };
    let place = |number| Place::Chunk(chunked.generation(), number);
    let opened = chunks.iter().zip(0..).map(|(it, n)| seals.open_chunk(digest, place(n), it));
    let opened: Vec<Bytes> = opened.collect::<Option<_>>()?;
    chunked.finish(&opened)
}

fn write(seals: Option<&Seals>, digest: u128, entry: &Entry, packing: Packing) -> Option<Encoded> {
    let written = codec::encode(entry, packing);
    match seals {
        Some(seals) => seals.seal(digest, packing.generation, &written),
        None => Some(written),
    }
}

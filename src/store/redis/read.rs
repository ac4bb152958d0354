//! Reads entries. Their content is in the head or in chunks.

use std::time::Instant;

use bytes::Bytes;
use fred::interfaces::KeysInterface as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    breaker::Generation,
    chunks,
    connection::TrafficClass,
    error::CommandError,
    inner::StoreInner,
    keys::NamespaceKeys,
    queue::QueuedWrite,
    sealing::{self, SealContext},
};
use crate::{
    entry::{
        Entry,
        codec::{ChunkedResponse, DecodedHead, sealed::SealingKeys},
    },
    key::CacheKey,
    telemetry::{StoreOperation, StoreOperationOutcome},
};

impl StoreInner {
    /// Returns the entry under this key in a namespace, or `None` if Redis does not have the entry
    /// or does not reply in time.
    pub(super) async fn get(&self, namespace: &NamespaceKeys, key: &CacheKey) -> Option<Entry> {
        let Some(generation) = self.breaker.permit_within(self.settings.read_deadline).await else {
            self.metrics.count(StoreOperation::Get, StoreOperationOutcome::Open);
            return None;
        };
        let started = Instant::now();
        let context = SealContext::new(key.digest(), key.text());
        let read = self.read(generation, namespace, context).await;
        let (outcome, entry) = match read {
            Ok(ReadOutcome::Entry(entry)) if entry.matches_key(key) => {
                (StoreOperationOutcome::Hit, Some(entry.with_clock_offset(-self.clock.offset())))
            }
            Ok(ReadOutcome::Entry(_) | ReadOutcome::Absent) => (StoreOperationOutcome::Miss, None),
            Ok(ReadOutcome::Unreadable(outcome)) => (outcome, None),
            Err(error) => (error.outcome(), None),
        };
        self.metrics.observe(StoreOperation::Get, outcome, started.elapsed());
        entry
    }

    async fn read(
        &self,
        generation: Generation,
        namespace: &NamespaceKeys,
        context: SealContext,
    ) -> Result<ReadOutcome, CommandError> {
        let connection = self.pool.connection(generation, TrafficClass::Small);
        let key = namespace.entry(context.digest);
        let Some(head) = connection.get(key).await? else { return Ok(ReadOutcome::Absent) };
        match self.read_head(context, &head).await {
            Ok(DecodedHead::Entry(entry)) => Ok(ReadOutcome::Entry(entry)),
            Ok(DecodedHead::Chunked(chunked)) => {
                let body = (chunked, self.sealing_keys_for(&head));
                // Boxed, because chunks are rare and would enlarge the future of every read.
                Box::pin(self.read_chunks(generation, (namespace, context.digest), body)).await
            }
            Err(outcome) => Ok(ReadOutcome::Unreadable(outcome)),
        }
    }

    async fn read_chunks(
        &self,
        generation: Generation,
        (namespace, digest): (&NamespaceKeys, u128),
        (chunked, sealing_keys): (ChunkedResponse, Option<SealingKeys>),
    ) -> Result<ReadOutcome, CommandError> {
        let connection = self.pool.connection(generation, TrafficClass::Bulk);
        let keys = namespace.chunks(digest, chunked.body_id(), chunked.count());
        let chunks = stream::iter(keys).map(|key| {
            connection.call(|session| async move { session.get::<Option<Bytes>, _>(key).await })
        });
        let chunks: Vec<Option<Bytes>> =
            chunks.buffered(chunks::MAX_CONCURRENT).try_collect().await?;
        let Some(chunks) = chunks.into_iter().collect::<Option<Vec<Bytes>>>() else {
            // The entry was replaced meanwhile, or a chunk was evicted.
            return Ok(ReadOutcome::Absent);
        };
        // On a blocking thread: megabytes are verified and decompressed.
        let finish = move || sealing::assemble(sealing_keys.as_ref(), digest, chunked, &chunks);
        let finished = tokio::task::spawn_blocking(finish).await;
        if let Ok(Some(entry)) = finished {
            return Ok(ReadOutcome::Entry(entry));
        }
        // The entry is removed, because no node can decode it.
        if std::ptr::eq(namespace, &raw const self.keys) {
            self.push(QueuedWrite::Remove { digest });
        }
        Ok(ReadOutcome::Unreadable(StoreOperationOutcome::Damaged))
    }
}

enum ReadOutcome {
    Entry(Entry),
    Absent,
    /// The value cannot be decoded: it is incomplete, of another version, or encrypted differently.
    Unreadable(StoreOperationOutcome),
}

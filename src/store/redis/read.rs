//! Reading an entry, in one piece or in several.

use std::time::Instant;

use bytes::Bytes;
use fred::interfaces::KeysInterface as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Shared,
    fault::Fault,
    guard::Epoch,
    keys::Keys,
    lane::Load,
    queue::Write,
    sealing::{self, Subject},
};
use crate::{
    entry::{
        Entry,
        codec::{Chunked, Decoded, sealed::Seals},
    },
    key::CacheKey,
    telemetry::{Operation, Outcome},
};

/// Parts of one body that are on their way at once.
const CHUNKS: usize = 8;

impl Shared {
    /// The entry under this key of a namespace, if Redis has it and says so in time.
    pub(super) async fn get(&self, namespace: &Keys, key: &CacheKey) -> Option<Entry> {
        let Some(epoch) = self.guard.admits_within(self.settings.read_deadline).await else {
            self.metrics.count(Operation::Get, Outcome::Open);
            return None;
        };
        let started = Instant::now();
        let subject = Subject::new(key.digest(), key.text());
        let read = self.read(epoch, namespace, subject).await;
        let (outcome, entry) = match read {
            Ok(Read::Entry(entry)) if entry.stands_under(key) => {
                (Outcome::Hit, Some(entry.by_clock_ahead(-self.time.ahead())))
            }
            Ok(Read::Entry(_) | Read::Nothing) => (Outcome::Miss, None),
            Ok(Read::Unreadable(outcome)) => (outcome, None),
            Err(fault) => (fault.outcome(), None),
        };
        self.metrics.observe(Operation::Get, outcome, started.elapsed());
        entry
    }

    async fn read(&self, epoch: Epoch, namespace: &Keys, subject: Subject) -> Result<Read, Fault> {
        let lane = self.lanes.lane(epoch, Load::Small);
        let key = namespace.entry(subject.digest);
        let Some(head) = lane.get(key).await? else { return Ok(Read::Nothing) };
        match self.read_head(subject, &head).await {
            Ok(Decoded::Entry(entry)) => Ok(Read::Entry(entry)),
            Ok(Decoded::Chunked(chunked)) => {
                let body = (chunked, self.seals_of(&head));
                // Boxed: it is rare, and its state would make that of every read large.
                Box::pin(self.read_chunks(epoch, (namespace, subject.digest), body)).await
            }
            Err(outcome) => Ok(Read::Unreadable(outcome)),
        }
    }

    async fn read_chunks(
        &self,
        epoch: Epoch,
        (namespace, digest): (&Keys, u128),
        (chunked, seals): (Chunked, Option<Seals>),
    ) -> Result<Read, Fault> {
        let lane = self.lanes.lane(epoch, Load::Large);
        let keys = namespace.chunks(digest, chunked.generation(), chunked.count());
        let chunks = stream::iter(keys).map(|key| {
            lane.ask(|session| async move { session.get::<Option<Bytes>, _>(key).await })
        });
        let chunks: Vec<Option<Bytes>> = chunks.buffered(CHUNKS).try_collect().await?;
        let Some(chunks) = chunks.into_iter().collect::<Option<Vec<Bytes>>>() else {
            // It was replaced meanwhile, or a part was evicted.
            return Ok(Read::Nothing);
        };
        // Megabytes to check and to unpack: other requests of this thread do not wait for that.
        let finish = move || sealing::finish(seals.as_ref(), digest, chunked, &chunks);
        let finished = tokio::task::spawn_blocking(finish).await;
        if let Ok(Some(entry)) = finished {
            return Ok(Read::Entry(entry));
        }
        // Nobody is going to make sense of it.
        if std::ptr::eq(namespace, &raw const self.keys) {
            self.push(Operation::Remove, Write::Remove { digest });
        }
        Ok(Read::Unreadable(Outcome::Damaged))
    }
}

/// What stood under a key.
enum Read {
    Entry(Entry),
    Nothing,
    /// Something that cannot be read: of another version, not whole, or encrypted otherwise.
    Unreadable(Outcome),
}

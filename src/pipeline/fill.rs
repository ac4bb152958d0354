//! A response body on its way from the origin to a store and to everyone who waits for it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use slab::Slab;
use smallvec::SmallVec;

use crate::{
    origin::Complete,
    sync::{AtomicU64, Mutex, Ordering},
};

/// How far the producer may run ahead of the slowest reader once nothing is kept for the store.
const WINDOW: usize = 1 << 20;

/// One body, written once and read by any number of readers at their own pace.
///
/// While it is *kept*, every chunk stays until the end, for the store and for readers that join late;
/// the producer never waits. A body that outgrows the limit, or the node's budget for bodies on their
/// way, turns into a *window*: chunks go once every reader has had them, and the producer is held back
/// by the slowest reader. So memory is bounded whatever the origin sends.
pub struct Fill {
    shared: Mutex<Shared>,
    budget: Arc<Budget>,
    expected: Option<u64>,
    limit: usize,
}

/// The bytes that bodies on their way to the store may take, all together.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

struct Shared {
    chunks: VecDeque<Bytes>,
    /// The number of chunks that are gone from the front.
    gone: usize,
    /// Bytes in `chunks`.
    held: usize,
    retention: Retention,
    end: End,
    readers: Slab<Reader>,
    producer: Option<Waker>,
}

struct Reader {
    /// The number of chunks it has had.
    position: usize,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retention {
    Kept,
    Window,
}

enum End {
    Open,
    Complete(Option<HeaderMap>),
    Failed,
}

/// Why a producer may stop: no reader is left and nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

impl Budget {
    /// A budget of this many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes taken now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes as u64, Ordering::Relaxed);
        before + bytes as u64 <= self.limit
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Fill {
    /// An empty body that is kept up to `limit` bytes and counted against `budget`. `expected` is the
    /// length the origin announced.
    pub fn new(expected: Option<u64>, limit: usize, budget: Arc<Budget>) -> Arc<Self> {
        let shared = Shared {
            chunks: VecDeque::new(),
            gone: 0,
            held: 0,
            retention: Retention::Kept,
            end: End::Open,
            readers: Slab::new(),
            producer: None,
        };
        Arc::new(Self { shared: Mutex::new(shared), budget, expected, limit })
    }

    /// The same with its first reader.
    pub fn with_reader(
        expected: Option<u64>,
        limit: usize,
        budget: Arc<Budget>,
    ) -> (Arc<Self>, FillReader) {
        let fill = Self::new(expected, limit, budget);
        let slot = fill.shared.lock().attach();
        let reader = FillReader { fill: Arc::clone(&fill), slot };
        (fill, reader)
    }

    /// A reader from the first byte; `None` where the first bytes are gone already.
    pub fn reader(self: &Arc<Self>) -> Option<FillReader> {
        let mut shared = self.shared.lock();
        if shared.gone > 0 {
            return None;
        }
        let slot = shared.attach();
        Some(FillReader { fill: Arc::clone(self), slot })
    }

    /// Adds a chunk; waits for the slowest reader where the body is a window. Cancel safe: a chunk is
    /// added before it waits.
    pub async fn push(&self, chunk: Bytes) -> Result<(), Abandoned> {
        self.add(chunk);
        std::future::poll_fn(|context| self.poll_room(context)).await
    }

    /// All of the body if it was kept, in its pieces, with a last chunk that was not added yet.
    pub fn kept(&self, last: Option<&Bytes>) -> Option<Vec<Bytes>> {
        let shared = self.shared.lock();
        let length = shared.held + last.map_or(0, Bytes::len);
        let is_kept = shared.retention == Retention::Kept && length <= self.limit;
        is_kept.then(|| shared.chunks.iter().chain(last).cloned().collect())
    }

    /// Ends the body, all of which has come.
    pub fn complete(&self, trailers: Option<HeaderMap>, _proof: Complete) {
        let mut shared = self.shared.lock();
        shared.end = End::Complete(trailers);
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    /// Ends the body short of its end: readers fail, so that no client takes it for complete.
    pub fn fail(&self) {
        let mut shared = self.shared.lock();
        if matches!(shared.end, End::Open) {
            shared.end = End::Failed;
        }
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    fn add(&self, chunk: Bytes) {
        let mut shared = self.shared.lock();
        let within_budget = self.budget.take(chunk.len());
        shared.held += chunk.len();
        shared.chunks.push_back(chunk);
        if shared.held > self.limit || !within_budget {
            shared.retention = Retention::Window;
        }
        shared.trim(&self.budget);
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    fn poll_room(&self, context: &Context<'_>) -> Poll<Result<(), Abandoned>> {
        let mut shared = self.shared.lock();
        if shared.retention == Retention::Kept || (shared.held < WINDOW && !shared.is_deserted()) {
            return Poll::Ready(Ok(()));
        }
        if shared.is_deserted() {
            return Poll::Ready(Err(Abandoned));
        }
        shared.producer = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.budget.give_back(self.shared.get_mut().held);
    }
}

impl Shared {
    /// A place for a reader from the first byte that is still there.
    fn attach(&mut self) -> usize {
        self.readers.insert(Reader { position: 0, waker: None })
    }

    fn is_deserted(&self) -> bool {
        self.readers.is_empty()
    }

    /// Lets go of what no reader needs any more, once nothing is kept.
    fn trim(&mut self, budget: &Budget) {
        if self.retention == Retention::Kept {
            return;
        }
        let slowest = self.readers.iter().map(|(_, reader)| reader.position).min();
        let slowest = slowest.unwrap_or(usize::MAX);
        while self.gone < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.gone += 1;
            self.held -= chunk.len();
            budget.give_back(chunk.len());
        }
    }

    fn waiting_readers(&mut self) -> SmallVec<[Waker; 8]> {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }

    fn advance(&mut self, slot: usize, budget: &Budget) -> Option<Waker> {
        let reader = self.readers.get_mut(slot)?;
        let was_slowest = reader.position == self.gone;
        reader.position += 1;
        if self.retention == Retention::Kept || !was_slowest {
            return None;
        }
        self.trim(budget);
        self.producer.take()
    }
}

fn wake_all(wakers: SmallVec<[Waker; 8]>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The origin's body broke off, and so must every copy of it.
#[derive(Debug, thiserror::Error)]
#[error("the origin's response broke off")]
pub struct BrokenOff;

/// One reader of a [`Fill`].
pub struct FillReader {
    fill: Arc<Fill>,
    slot: usize,
}

impl Body for FillReader {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let (frame, producer) = ready!(self.poll_next(context));
        if let Some(producer) = producer {
            producer.wake();
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.fill.expected.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

type Next = (Option<Result<Frame<Bytes>, BrokenOff>>, Option<Waker>);

impl FillReader {
    fn poll_next(&self, context: &Context<'_>) -> Poll<Next> {
        let mut guard = self.fill.shared.lock();
        let shared = &mut *guard;
        let Some(reader) = shared.readers.get_mut(self.slot) else {
            return Poll::Ready((None, None));
        };
        if let Some(chunk) = shared.chunks.get(reader.position.saturating_sub(shared.gone)).cloned()
        {
            let producer = shared.advance(self.slot, &self.fill.budget);
            return Poll::Ready((Some(Ok(Frame::data(chunk))), producer));
        }
        match &shared.end {
            End::Open => {
                reader.waker = Some(context.waker().clone());
                Poll::Pending
            }
            End::Failed => Poll::Ready((Some(Err(BrokenOff)), None)),
            End::Complete(trailers) => {
                let at_end = reader.position == shared.gone + shared.chunks.len();
                let trailers = trailers.clone().filter(|_| at_end);
                reader.position = usize::MAX;
                Poll::Ready((trailers.map(|trailers| Ok(Frame::trailers(trailers))), None))
            }
        }
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut shared = self.fill.shared.lock();
        let _gone = shared.readers.try_remove(self.slot);
        shared.trim(&self.fill.budget);
        let producer = shared.producer.take();
        drop(shared);
        if let Some(producer) = producer {
            producer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    fn fill(limit: usize) -> Arc<Fill> {
        Fill::new(None, limit, Budget::new(1 << 30))
    }

    fn chunk(size: usize) -> Bytes {
        Bytes::from(vec![b'x'; size])
    }

    #[tokio::test]
    async fn readers_get_what_came_before_and_after_they_joined() {
        let fill = fill(100);
        fill.push(chunk(1)).await.unwrap();
        let early = fill.reader().unwrap();
        fill.push(chunk(2)).await.unwrap();
        let late = fill.reader().unwrap();
        let proof = Complete::made_up();
        let kept = fill.kept(Some(&chunk(3))).unwrap();
        assert_eq!(kept.iter().map(Bytes::len).sum::<usize>(), 6);
        assert!(fill.kept(Some(&chunk(98))).is_none(), "over the limit with its last chunk");
        fill.complete(None, proof);
        for reader in [early, late] {
            assert_eq!(reader.collect().await.unwrap().to_bytes().len(), 3);
        }
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes_for_the_first_bytes_before_the_body_ends() {
        let fill = fill(100);
        let mut reader = fill.reader().unwrap();
        assert!(reader.frame().now_or_never().is_none());
        fill.push(chunk(1)).await.unwrap();
        assert_eq!(reader.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_failed_body_fails_its_readers_after_what_there_was() {
        let fill = fill(100);
        let mut reader = fill.reader().unwrap();
        fill.push(chunk(1)).await.unwrap();
        fill.fail();
        assert!(reader.frame().await.unwrap().is_ok());
        assert!(reader.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn trailers_reach_readers() {
        let fill = fill(100);
        let reader = fill.reader().unwrap();
        fill.push(chunk(1)).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", http::HeaderValue::from_static("1"));
        fill.complete(Some(trailers.clone()), Complete::made_up());
        assert_eq!(reader.collect().await.unwrap().trailers(), Some(&trailers));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_waits_for_its_slowest_reader_and_holds_a_window() {
        let fill = fill(10);
        let mut reader = fill.reader().unwrap();
        fill.push(chunk(WINDOW / 2)).await.unwrap();
        let mut waiting = Box::pin(fill.push(chunk(WINDOW / 2)));
        assert!((&mut waiting).now_or_never().is_none());
        reader.frame().await.unwrap().unwrap();
        waiting.await.unwrap();
        assert!(fill.reader().is_none(), "the first bytes are gone");
        assert_eq!(fill.budget.used(), WINDOW as u64 / 2);
        assert!(fill.kept(None).is_none());
    }

    #[tokio::test]
    async fn a_window_without_readers_is_abandoned_but_a_kept_body_is_not() {
        let kept = fill(100);
        drop(kept.reader());
        assert_eq!(kept.push(chunk(1)).await, Ok(()));
        let window = fill(10);
        drop(window.reader());
        assert_eq!(window.push(chunk(20)).await, Err(Abandoned));
    }

    #[tokio::test]
    async fn the_budget_turns_bodies_into_windows_and_is_given_back() {
        let budget = Budget::new(10);
        let fill = Fill::new(None, 100, Arc::clone(&budget));
        let reader = fill.reader();
        fill.push(chunk(20)).await.unwrap();
        assert!(fill.kept(None).is_none());
        drop((reader, fill));
        assert_eq!(budget.used(), 0);
    }
}

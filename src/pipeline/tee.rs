//! Tees a response body from the origin to the store and to all its readers.

mod budget;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use slab::Slab;
use smallvec::SmallVec;

use super::body_slice::detached_slice;
use crate::{
    origin::CompletionProof,
    sync::{Mutex, with_timeout},
};

pub(crate) use budget::{BudgetShare, BudgetState, FillBudget, SMALL_BODY};

/// Maximum lead of the producer over the slowest reader in bytes, if the body is not retained. If
/// the budget is exceeded, the lead is one chunk.
const WINDOW: usize = 256 << 10;

/// How long a slow reader may stall the other readers of a body that is not retained.
const MAX_STALL: Duration = Duration::from_secs(5);

/// A body that one producer writes and any number of readers read.
///
/// While the body is *retained*, every chunk stays until the end, for the store and for late
/// readers, and the producer never waits. Once the body is stored, readers switch to the stored
/// copy, and the body's share of the budget is released.
///
/// A body that exceeds the limit or the budget becomes a *window*: a chunk is released once every
/// reader has read it, and the slowest reader holds back the producer. A reader that stalls the
/// others for too long is cut off. Memory is therefore bounded, no matter how much the origin sends
/// and how slowly clients read.
pub(super) struct TeeBody {
    shared: Mutex<TeeInner>,
    expected: Option<u64>,
    limit: usize,
}

struct TeeInner {
    chunks: VecDeque<Bytes>,
    /// The number of chunks released from the front.
    gone: usize,
    /// The number of bytes in `chunks`.
    held: usize,
    /// The complete body once it is stored. `chunks` is then empty, and readers count bytes.
    stored: Option<Bytes>,
    mode: TeeMode,
    share: BudgetShare,
    budget_state: BudgetState,
    state: TeeState,
    readers: Slab<ReaderState>,
    producer: Option<Waker>,
}

struct ReaderState {
    /// The number of chunks that the reader has read; the number of bytes once the body is stored.
    position: usize,
    waker: Option<Waker>,
    /// Whether the reader was cut off because it stalled others for too long.
    is_cut_off: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TeeMode {
    Retain,
    /// Chunks are released once all readers have read them. Holds the cause; `None` if the body was
    /// retained but not stored.
    Window(Option<NotKeptReason>),
}

/// Why a body is no longer retained for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotKeptReason {
    /// The body exceeds the maximum size.
    TooLarge,
    /// The memory budget is used up.
    Budget,
}

impl NotKeptReason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Budget => "budget",
        }
    }
}

enum TeeState {
    Open,
    Complete(Option<HeaderMap>),
    Failed,
}

/// The error if the body has no readers and is not retained, so that the producer may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoReaders;

impl TeeBody {
    /// Creates an empty body that is retained up to `limit` bytes, as long as its share can grow.
    /// `expected` is the announced length.
    pub(super) fn new(expected: Option<u64>, limit: usize, share: BudgetShare) -> Arc<Self> {
        let shared = TeeInner {
            chunks: VecDeque::new(),
            gone: 0,
            held: 0,
            stored: None,
            mode: TeeMode::Retain,
            share,
            budget_state: BudgetState::Available,
            state: TeeState::Open,
            readers: Slab::new(),
            producer: None,
        };
        Arc::new(Self { shared: Mutex::new(shared), expected, limit })
    }

    /// Creates an empty body with its first reader.
    pub(super) fn with_reader(
        expected: Option<u64>,
        limit: usize,
        share: BudgetShare,
    ) -> (Arc<Self>, TeeReader) {
        let tee = Self::new(expected, limit, share);
        let slot = tee.shared.lock().attach();
        let reader = TeeReader { tee: Arc::clone(&tee), slot, read: 0 };
        (tee, reader)
    }

    /// Adds a reader that starts at the first byte. Returns `None` if that byte has been released.
    pub(super) fn reader(self: &Arc<Self>) -> Option<TeeReader> {
        let mut shared = self.shared.lock();
        if shared.gone > 0 {
            return None;
        }
        let slot = shared.attach();
        Some(TeeReader { tee: Arc::clone(self), slot, read: 0 })
    }

    /// Adds a chunk, then waits like [`Self::capacity`]. Cancel safe, because it adds the chunk
    /// before it waits.
    pub(super) async fn push(&self, chunk: Bytes) -> Result<(), NoReaders> {
        self.add(chunk);
        self.capacity().await
    }

    /// Waits until the slowest reader has caught up, if the body is not retained.
    pub(super) async fn capacity(&self) -> Result<(), NoReaders> {
        loop {
            let capacity = std::future::poll_fn(|context| self.poll_capacity(context));
            match with_timeout(MAX_STALL, capacity).await {
                Some(result) => return result,
                None => self.cut_off_slow_readers(),
            }
        }
    }

    /// Returns whether the origin announced the length.
    pub(super) fn has_known_length(&self) -> bool {
        self.expected.is_some()
    }

    /// Returns the chunks of a retained body, followed by `last`, which was not added. Fails if the
    /// body is not retained.
    pub(super) fn kept(&self, last: Option<&Bytes>) -> Result<Vec<Bytes>, NotKeptReason> {
        let shared = self.shared.lock();
        match shared.mode {
            TeeMode::Window(cause) => Err(cause.unwrap_or(NotKeptReason::Budget)),
            TeeMode::Retain if shared.held + last.map_or(0, Bytes::len) > self.limit => {
                Err(NotKeptReason::TooLarge)
            }
            TeeMode::Retain => Ok(shared.chunks.iter().chain(last).cloned().collect()),
        }
    }

    /// Returns which limit stopped the body from being retained; `None` if none did.
    pub(super) fn not_kept(&self) -> Option<NotKeptReason> {
        match self.shared.lock().mode {
            TeeMode::Retain => None,
            TeeMode::Window(cause) => cause,
        }
    }

    /// Switches readers to the stored copy, and releases the share of the budget. The copy must be
    /// complete. Has no effect if the body is not retained.
    pub(super) fn switch_to_stored(&self, body: Bytes) {
        let mut shared = self.shared.lock();
        if shared.mode == TeeMode::Retain && shared.stored.is_none() {
            shared.move_readers();
            shared.chunks = VecDeque::new();
            shared.held = 0;
            shared.share.resize(0);
            shared.stored = Some(body);
        }
    }

    /// Stops retaining the body, so that chunks are released once all readers have read them.
    pub(super) fn stop_retaining(&self) {
        self.shared.lock().stop_retaining();
    }

    /// Marks the body as complete, so that readers end after the last chunk.
    pub(super) fn complete(&self, trailers: Option<HeaderMap>, _proof: CompletionProof) {
        let mut shared = self.shared.lock();
        shared.state = TeeState::Complete(trailers);
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    /// Marks the body as failed, so that no reader takes it for complete.
    pub(super) fn fail(&self) {
        let mut shared = self.shared.lock();
        if matches!(shared.state, TeeState::Open) {
            shared.state = TeeState::Failed;
            shared.stop_retaining();
        }
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    /// Adds a chunk. Before the next chunk, call [`Self::capacity`].
    pub(super) fn add(&self, chunk: Bytes) {
        let mut shared = self.shared.lock();
        shared.held += chunk.len();
        shared.chunks.push_back(chunk);
        shared.resize_share();
        if shared.mode == TeeMode::Retain {
            if shared.held > self.limit {
                shared.mode = TeeMode::Window(Some(NotKeptReason::TooLarge));
            } else if shared.budget_state == BudgetState::Exceeded {
                shared.mode = TeeMode::Window(Some(NotKeptReason::Budget));
            }
        }
        shared.trim();
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    fn poll_capacity(&self, context: &Context<'_>) -> Poll<Result<(), NoReaders>> {
        let mut shared = self.shared.lock();
        if shared.mode == TeeMode::Retain {
            return Poll::Ready(Ok(()));
        }
        if shared.has_no_readers() {
            return Poll::Ready(Err(NoReaders));
        }
        let window = if shared.budget_state == BudgetState::Available { WINDOW } else { 1 };
        if shared.held < window {
            return Poll::Ready(Ok(()));
        }
        shared.producer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Cuts off the slowest readers, if other readers wait for the next chunk.
    fn cut_off_slow_readers(&self) {
        let mut shared = self.shared.lock();
        let wakers = shared.cut_off_slow_readers();
        drop(shared);
        wake_all(wakers);
    }
}

impl TeeInner {
    /// Adds a reader that starts at the first byte.
    fn attach(&mut self) -> usize {
        self.readers.insert(ReaderState { position: 0, waker: None, is_cut_off: false })
    }

    fn has_no_readers(&self) -> bool {
        self.readers.iter().all(|(_, reader)| reader.is_cut_off)
    }

    /// Resizes the share of the budget to the bytes held.
    fn resize_share(&mut self) {
        let is_reserved = self.mode == TeeMode::Retain && self.held <= self.share.bytes();
        if !is_reserved {
            self.budget_state = self.share.resize(self.held);
        }
    }

    fn stop_retaining(&mut self) {
        if self.mode == TeeMode::Retain && self.stored.is_none() {
            self.mode = TeeMode::Window(None);
            self.trim();
        }
    }

    /// Releases chunks that no reader needs, unless the body is retained.
    fn trim(&mut self) {
        if self.mode == TeeMode::Retain {
            return;
        }
        let reading = self.readers.iter().filter(|(_, reader)| !reader.is_cut_off);
        let slowest = reading.map(|(_, reader)| reader.position).min().unwrap_or(usize::MAX);
        while self.gone < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.gone += 1;
            self.held -= chunk.len();
        }
        if self.held < self.share.bytes() {
            self.budget_state = self.share.resize(self.held);
        }
    }

    fn waiting_readers(&mut self) -> SmallVec<[Waker; 8]> {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }

    fn advance(&mut self, slot: usize) -> Option<Waker> {
        let reader = self.readers.get_mut(slot)?;
        let was_slowest = reader.position == self.gone;
        reader.position += 1;
        if self.mode == TeeMode::Retain || !was_slowest {
            return None;
        }
        self.trim();
        self.producer.take()
    }

    /// Converts readers' positions from chunks to bytes.
    fn move_readers(&mut self) {
        let mut ends = vec![0];
        let mut end = 0;
        ends.extend(self.chunks.iter().map(|chunk| {
            end += chunk.len();
            end
        }));
        for (_, reader) in &mut self.readers {
            // A reader that has read everything has no position.
            if let Some(end) = ends.get(reader.position) {
                reader.position = *end;
            }
        }
    }

    fn cut_off_slow_readers(&mut self) -> SmallVec<[Waker; 8]> {
        let newest = self.gone + self.chunks.len();
        let others_wait = self.readers.iter().any(|(_, reader)| reader.position == newest);
        let mut wakers = SmallVec::new();
        if !others_wait {
            return wakers;
        }
        for (_, reader) in &mut self.readers {
            if reader.position == self.gone {
                reader.is_cut_off = true;
                wakers.extend(reader.waker.take());
            }
        }
        self.trim();
        wakers
    }
}

fn wake_all(wakers: SmallVec<[Waker; 8]>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The outcome of reading a response that no client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainOutcome {
    /// The response was read to the end, or had no body.
    Complete,
    /// The body was not kept for the store, so reading stopped early.
    NotKept,
    /// The response was truncated.
    Truncated,
}

/// The error if the response was truncated, or this reader was cut off because it was too slow.
#[derive(Debug, thiserror::Error)]
#[error("the response from the origin was truncated")]
pub(crate) struct TruncatedBody;

/// A reader of a [`TeeBody`].
pub(crate) struct TeeReader {
    tee: Arc<TeeBody>,
    slot: usize,
    /// The number of bytes read.
    read: u64,
}

impl Body for TeeReader {
    type Data = Bytes;
    type Error = TruncatedBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TruncatedBody>>> {
        let (frame, producer) = ready!(self.poll_next(context));
        if let Some(producer) = producer {
            producer.wake();
        }
        if let Some(Ok(frame)) = &frame {
            self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.tee.expected.map(|expected| expected.saturating_sub(self.read));
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

type PolledFrame = (Option<Result<Frame<Bytes>, TruncatedBody>>, Option<Waker>);

impl TeeReader {
    /// Reads to the end of the body, as long as it is retained for the store.
    pub(crate) async fn drain(mut self) -> DrainOutcome {
        while let Some(frame) = self.frame().await {
            if frame.is_err() {
                return DrainOutcome::Truncated;
            }
            if self.tee.not_kept().is_some() {
                return DrainOutcome::NotKept;
            }
        }
        DrainOutcome::Complete
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<PolledFrame> {
        let mut guard = self.tee.shared.lock();
        let shared = &mut *guard;
        let Some(reader) = shared.readers.get_mut(self.slot) else {
            return Poll::Ready((None, None));
        };
        if reader.is_cut_off {
            return Poll::Ready((Some(Err(TruncatedBody)), None));
        }
        if let Some(body) = &shared.stored
            && reader.position < body.len()
        {
            let rest = detached_slice(body, reader.position..);
            reader.position = body.len();
            return Poll::Ready((Some(Ok(Frame::data(rest))), None));
        }
        if let Some(chunk) = shared.chunks.get(reader.position.saturating_sub(shared.gone)).cloned()
        {
            let producer = shared.advance(self.slot);
            return Poll::Ready((Some(Ok(Frame::data(chunk))), producer));
        }
        match &shared.state {
            TeeState::Open => {
                reader.waker = Some(context.waker().clone());
                Poll::Pending
            }
            TeeState::Failed => Poll::Ready((Some(Err(TruncatedBody)), None)),
            TeeState::Complete(trailers) => {
                let is_first_time = reader.position != usize::MAX;
                let trailers = trailers.clone().filter(|_| is_first_time);
                reader.position = usize::MAX;
                Poll::Ready((trailers.map(|trailers| Ok(Frame::trailers(trailers))), None))
            }
        }
    }
}

impl Drop for TeeReader {
    fn drop(&mut self) {
        let mut shared = self.tee.shared.lock();
        let _gone = shared.readers.try_remove(self.slot);
        shared.trim();
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

    fn tee(limit: usize) -> Arc<TeeBody> {
        TeeBody::new(None, limit, FillBudget::new(1 << 30).share())
    }

    fn chunk(size: usize) -> Bytes {
        Bytes::from(vec![b'x'; size])
    }

    #[tokio::test]
    async fn readers_get_what_came_before_and_after_they_joined() {
        let tee = tee(100);
        tee.push(chunk(1)).await.unwrap();
        let early = tee.reader().unwrap();
        tee.push(chunk(2)).await.unwrap();
        let late = tee.reader().unwrap();
        let proof = CompletionProof::for_test();
        let kept = tee.kept(Some(&chunk(3))).unwrap();
        assert_eq!(kept.iter().map(Bytes::len).sum::<usize>(), 6);
        let too_large = tee.kept(Some(&chunk(98)));
        assert_eq!(too_large, Err(NotKeptReason::TooLarge), "over the limit with its last chunk");
        tee.complete(None, proof);
        for reader in [early, late] {
            assert_eq!(reader.collect().await.unwrap().to_bytes().len(), 3);
        }
    }

    #[tokio::test]
    async fn a_waiting_reader_wakes_for_the_first_bytes_before_the_body_ends() {
        let tee = tee(100);
        let mut reader = tee.reader().unwrap();
        assert!(reader.frame().now_or_never().is_none());
        tee.push(chunk(1)).await.unwrap();
        assert_eq!(reader.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_failed_body_fails_its_readers_after_what_there_was() {
        let tee = tee(100);
        let mut reader = tee.reader().unwrap();
        tee.push(chunk(1)).await.unwrap();
        tee.fail();
        assert!(reader.frame().await.unwrap().is_ok());
        assert!(reader.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_failed_body_gives_the_budget_back_as_it_is_read() {
        let budget = FillBudget::new(100);
        let (tee, mut reader) = TeeBody::with_reader(None, 100, budget.share());
        tee.push(chunk(10)).await.unwrap();
        tee.push(chunk(20)).await.unwrap();
        tee.fail();
        reader.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), 20);
        drop(reader);
        assert_eq!(budget.used(), 0);
        assert!(tee.reader().is_none(), "nothing is left to read");
    }

    #[tokio::test]
    async fn trailers_reach_readers() {
        let tee = tee(100);
        let reader = tee.reader().unwrap();
        tee.push(chunk(1)).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", http::HeaderValue::from_static("1"));
        tee.complete(Some(trailers.clone()), CompletionProof::for_test());
        assert_eq!(reader.collect().await.unwrap().trailers(), Some(&trailers));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_waits_for_its_slowest_reader_and_holds_a_window() {
        let tee = tee(10);
        let mut reader = tee.reader().unwrap();
        tee.push(chunk(WINDOW / 2)).await.unwrap();
        let mut waiting = Box::pin(tee.push(chunk(WINDOW / 2)));
        assert!((&mut waiting).now_or_never().is_none());
        reader.frame().await.unwrap().unwrap();
        waiting.await.unwrap();
        assert!(tee.reader().is_none(), "the first bytes are gone");
        assert_eq!(tee.shared.lock().share.bytes(), WINDOW / 2);
        assert_eq!(tee.kept(None), Err(NotKeptReason::TooLarge));
    }

    #[tokio::test]
    async fn a_window_without_readers_is_abandoned_but_a_kept_body_is_not() {
        let kept = tee(100);
        drop(kept.reader());
        assert_eq!(kept.push(chunk(1)).await, Ok(()));
        let window = tee(10);
        drop(window.reader());
        assert_eq!(window.push(chunk(20)).await, Err(NoReaders));
    }

    #[tokio::test]
    async fn the_budget_turns_bodies_into_windows_and_is_given_back() {
        let budget = FillBudget::new(10);
        let tee = TeeBody::new(None, 100, budget.share());
        let reader = tee.reader();
        assert!(tee.push(chunk(20)).now_or_never().is_none(), "one chunk at a time");
        assert_eq!(tee.kept(None), Err(NotKeptReason::Budget));
        drop((reader, tee));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn readers_go_on_in_the_stored_copy_and_the_budget_is_free_at_once() {
        let budget = FillBudget::new(100);
        let (tee, unread) = TeeBody::with_reader(Some(6), 100, budget.reserve(Some(6)).unwrap());
        let mut halfway = tee.reader().unwrap();
        tee.push(Bytes::from("abc")).await.unwrap();
        assert_eq!(halfway.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert_eq!(budget.used(), 6, "all of it is reserved from the start");
        tee.switch_to_stored(Bytes::from("abcdef"));
        tee.complete(None, CompletionProof::for_test());
        assert_eq!(budget.used(), 0);
        let late = tee.reader().unwrap();
        for (reader, expected) in [(unread, "abcdef"), (halfway, "def"), (late, "abcdef")] {
            assert_eq!(reader.collect().await.unwrap().to_bytes(), expected);
        }
    }

    #[tokio::test]
    async fn a_complete_body_that_is_not_stored_goes_as_it_is_read() {
        let budget = FillBudget::new(100);
        let (tee, mut reader) = TeeBody::with_reader(None, 100, budget.share());
        tee.push(chunk(10)).await.unwrap();
        tee.push(chunk(10)).await.unwrap();
        tee.complete(None, CompletionProof::for_test());
        tee.stop_retaining();
        reader.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), 10);
        assert_eq!(reader.collect().await.unwrap().to_bytes().len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_holds_up_others_is_cut_off() {
        let tee = tee(10);
        let mut slow = tee.reader().unwrap();
        let mut quick = tee.reader().unwrap();
        let push = tee.push(chunk(WINDOW));
        let read = async {
            quick.frame().await.unwrap().unwrap();
            quick.frame().await
        };
        let more = async {
            push.await.unwrap();
            tee.push(chunk(1)).await
        };
        let (next, more) = tokio::join!(read, more);
        assert_eq!((next.unwrap().unwrap().into_data().unwrap().len(), more), (1, Ok(())));
        assert!(slow.frame().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_alone_may_be_as_slow_as_it_likes() {
        let tee = tee(10);
        let mut slow = tee.reader().unwrap();
        let push = tee.push(chunk(WINDOW));
        let read = async {
            tokio::time::sleep(MAX_STALL * 10).await;
            slow.frame().await
        };
        let (pushed, read) = tokio::join!(push, read);
        assert!(pushed.is_ok() && read.unwrap().is_ok());
    }
}

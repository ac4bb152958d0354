//! A response body on its way from the origin to a store and to everyone who waits for it.

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

use super::{fetch::Drained, part::part_of};
use crate::{
    origin::Complete,
    sync::{Mutex, within},
};

pub use budget::{FillBudget, Room, SMALL, Share};

/// How far the producer may run ahead of the slowest reader once nothing is kept for the store. Where the
/// budget is exceeded, by one chunk.
const WINDOW: usize = 256 << 10;

/// How long a slow reader of a window may hold up others.
const HOLD_UP: Duration = Duration::from_secs(5);

/// One body, written once and read by any number of readers at their own pace.
///
/// While it is *kept*, every chunk stays until the end, for the store and for readers that join late;
/// the producer never waits. Once it is stored, readers go on in the stored copy, and its share of the
/// budget is free. A body that outgrows the limit, or the node's budget for bodies on their way, turns into
/// a *window*: chunks go once every reader has had them, and the producer is held back by the slowest
/// reader; one that holds up others for long is cut off. So memory is bounded whatever the origin sends and
/// however slowly clients read.
pub struct Fill {
    shared: Mutex<Shared>,
    expected: Option<u64>,
    limit: usize,
}

struct Shared {
    chunks: VecDeque<Bytes>,
    /// The number of chunks that are gone from the front.
    gone: usize,
    /// Bytes in `chunks`.
    held: usize,
    /// All of the body, once it is stored: then there are no chunks, and readers are at bytes of it.
    stored: Option<Bytes>,
    retention: Retention,
    share: Share,
    room: Room,
    end: End,
    readers: Slab<Reader>,
    producer: Option<Waker>,
}

struct Reader {
    /// The number of chunks it has had; of a stored body, the number of bytes.
    position: usize,
    waker: Option<Waker>,
    /// It has held up others for too long.
    is_cut_off: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retention {
    Kept,
    /// With the cause, unless it is merely not stored although it was kept.
    Window(Option<NotKept>),
}

/// Why a body is not kept for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKept {
    /// It is larger than what is stored.
    TooLarge,
    /// Bodies on their way to the store take all the memory that they may.
    Budget,
}

impl NotKept {
    /// As the metric's label has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Budget => "budget",
        }
    }
}

enum End {
    Open,
    Complete(Option<HeaderMap>),
    Failed,
}

/// Why a producer may stop: no reader is left and nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

impl Fill {
    /// An empty body that is kept up to `limit` bytes, and as far as its share of the budget can grow.
    /// `expected` is the length the origin announced.
    pub fn new(expected: Option<u64>, limit: usize, share: Share) -> Arc<Self> {
        let shared = Shared {
            chunks: VecDeque::new(),
            gone: 0,
            held: 0,
            stored: None,
            retention: Retention::Kept,
            share,
            room: Room::Enough,
            end: End::Open,
            readers: Slab::new(),
            producer: None,
        };
        Arc::new(Self { shared: Mutex::new(shared), expected, limit })
    }

    /// The same with its first reader.
    pub fn with_reader(
        expected: Option<u64>,
        limit: usize,
        share: Share,
    ) -> (Arc<Self>, FillReader) {
        let fill = Self::new(expected, limit, share);
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
        self.room().await
    }

    /// Waits for the slowest reader where the body is a window.
    pub async fn room(&self) -> Result<(), Abandoned> {
        loop {
            let room = std::future::poll_fn(|context| self.poll_room(context));
            match within(HOLD_UP, room).await {
                Some(room) => return room,
                None => self.cut_off_laggards(),
            }
        }
    }

    /// Whether the origin announced its length.
    pub fn is_announced(&self) -> bool {
        self.expected.is_some()
    }

    /// All of the body if it was kept, in its pieces, with a last chunk that was not added yet.
    pub fn kept(&self, last: Option<&Bytes>) -> Result<Vec<Bytes>, NotKept> {
        let shared = self.shared.lock();
        match shared.retention {
            Retention::Window(cause) => Err(cause.unwrap_or(NotKept::Budget)),
            Retention::Kept if shared.held + last.map_or(0, Bytes::len) > self.limit => {
                Err(NotKept::TooLarge)
            }
            Retention::Kept => Ok(shared.chunks.iter().chain(last).cloned().collect()),
        }
    }

    /// Why it is not kept, if so.
    pub fn not_kept(&self) -> Option<NotKept> {
        match self.shared.lock().retention {
            Retention::Kept => None,
            Retention::Window(cause) => cause,
        }
    }

    /// Lets readers go on in the stored copy of the body, and gives its share of the budget back. To be
    /// called with all of the body, which was kept.
    pub fn hand_over(&self, body: Bytes) {
        let mut shared = self.shared.lock();
        if shared.retention == Retention::Kept && shared.stored.is_none() {
            shared.move_readers();
            shared.chunks = VecDeque::new();
            shared.held = 0;
            shared.share.resize(0);
            shared.stored = Some(body);
        }
    }

    /// Lets chunks go as readers have had them: the body is not stored.
    pub fn let_go(&self) {
        self.shared.lock().let_go();
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
            shared.let_go();
        }
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    /// Adds a chunk; [`Self::room`] says when the next one may come.
    pub fn add(&self, chunk: Bytes) {
        let mut shared = self.shared.lock();
        shared.held += chunk.len();
        shared.chunks.push_back(chunk);
        shared.take_room();
        if shared.retention == Retention::Kept {
            if shared.held > self.limit {
                shared.retention = Retention::Window(Some(NotKept::TooLarge));
            } else if shared.room == Room::Exceeded {
                shared.retention = Retention::Window(Some(NotKept::Budget));
            }
        }
        shared.trim();
        let wakers = shared.waiting_readers();
        drop(shared);
        wake_all(wakers);
    }

    fn poll_room(&self, context: &Context<'_>) -> Poll<Result<(), Abandoned>> {
        let mut shared = self.shared.lock();
        if shared.retention == Retention::Kept {
            return Poll::Ready(Ok(()));
        }
        if shared.is_deserted() {
            return Poll::Ready(Err(Abandoned));
        }
        let window = if shared.room == Room::Enough { WINDOW } else { 1 };
        if shared.held < window {
            return Poll::Ready(Ok(()));
        }
        shared.producer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Cuts off the slowest readers, if others wait for what comes next.
    fn cut_off_laggards(&self) {
        let mut shared = self.shared.lock();
        let wakers = shared.cut_off_laggards();
        drop(shared);
        wake_all(wakers);
    }
}

impl Shared {
    /// A place for a reader from the first byte that is still there.
    fn attach(&mut self) -> usize {
        self.readers.insert(Reader { position: 0, waker: None, is_cut_off: false })
    }

    fn is_deserted(&self) -> bool {
        self.readers.iter().all(|(_, reader)| reader.is_cut_off)
    }

    /// Has the share cover what is held.
    fn take_room(&mut self) {
        let is_reserved = self.retention == Retention::Kept && self.held <= self.share.bytes();
        if !is_reserved {
            self.room = self.share.resize(self.held);
        }
    }

    fn let_go(&mut self) {
        if self.retention == Retention::Kept && self.stored.is_none() {
            self.retention = Retention::Window(None);
            self.trim();
        }
    }

    /// Lets go of what no reader needs any more, once nothing is kept.
    fn trim(&mut self) {
        if self.retention == Retention::Kept {
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
            self.room = self.share.resize(self.held);
        }
    }

    fn waiting_readers(&mut self) -> SmallVec<[Waker; 8]> {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }

    fn advance(&mut self, slot: usize) -> Option<Waker> {
        let reader = self.readers.get_mut(slot)?;
        let was_slowest = reader.position == self.gone;
        reader.position += 1;
        if self.retention == Retention::Kept || !was_slowest {
            return None;
        }
        self.trim();
        self.producer.take()
    }

    /// Has the readers count bytes in place of chunks.
    fn move_readers(&mut self) {
        let mut ends = vec![0];
        let mut end = 0;
        ends.extend(self.chunks.iter().map(|chunk| {
            end += chunk.len();
            end
        }));
        for (_, reader) in &mut self.readers {
            // One that has had everything has no place any more.
            if let Some(end) = ends.get(reader.position) {
                reader.position = *end;
            }
        }
    }

    fn cut_off_laggards(&mut self) -> SmallVec<[Waker; 8]> {
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

/// The origin's body broke off, and so must every copy of it; or this reader was too slow for the others.
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
    /// Reads to the end, as long as the body is kept for the store.
    pub async fn drained(mut self) -> Drained {
        while let Some(frame) = self.frame().await {
            if frame.is_err() {
                return Drained::BrokenOff;
            }
            if self.fill.not_kept().is_some() {
                return Drained::NotKept;
            }
        }
        Drained::Whole
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Next> {
        let mut guard = self.fill.shared.lock();
        let shared = &mut *guard;
        let Some(reader) = shared.readers.get_mut(self.slot) else {
            return Poll::Ready((None, None));
        };
        if reader.is_cut_off {
            return Poll::Ready((Some(Err(BrokenOff)), None));
        }
        if let Some(body) = &shared.stored
            && reader.position < body.len()
        {
            let rest = part_of(body, reader.position..);
            reader.position = body.len();
            return Poll::Ready((Some(Ok(Frame::data(rest))), None));
        }
        if let Some(chunk) = shared.chunks.get(reader.position.saturating_sub(shared.gone)).cloned()
        {
            let producer = shared.advance(self.slot);
            return Poll::Ready((Some(Ok(Frame::data(chunk))), producer));
        }
        match &shared.end {
            End::Open => {
                reader.waker = Some(context.waker().clone());
                Poll::Pending
            }
            End::Failed => Poll::Ready((Some(Err(BrokenOff)), None)),
            End::Complete(trailers) => {
                let is_first_time = reader.position != usize::MAX;
                let trailers = trailers.clone().filter(|_| is_first_time);
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

    fn fill(limit: usize) -> Arc<Fill> {
        Fill::new(None, limit, FillBudget::new(1 << 30).share())
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
        let too_large = fill.kept(Some(&chunk(98)));
        assert_eq!(too_large, Err(NotKept::TooLarge), "over the limit with its last chunk");
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
    async fn a_failed_body_gives_the_budget_back_as_it_is_read() {
        let budget = FillBudget::new(100);
        let (fill, mut reader) = Fill::with_reader(None, 100, budget.share());
        fill.push(chunk(10)).await.unwrap();
        fill.push(chunk(20)).await.unwrap();
        fill.fail();
        reader.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), 20);
        drop(reader);
        assert_eq!(budget.used(), 0);
        assert!(fill.reader().is_none(), "nothing is left to read");
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
        assert_eq!(fill.shared.lock().share.bytes(), WINDOW / 2);
        assert_eq!(fill.kept(None), Err(NotKept::TooLarge));
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
        let budget = FillBudget::new(10);
        let fill = Fill::new(None, 100, budget.share());
        let reader = fill.reader();
        assert!(fill.push(chunk(20)).now_or_never().is_none(), "one chunk at a time");
        assert_eq!(fill.kept(None), Err(NotKept::Budget));
        drop((reader, fill));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn readers_go_on_in_the_stored_copy_and_the_budget_is_free_at_once() {
        let budget = FillBudget::new(100);
        let (fill, unread) = Fill::with_reader(Some(6), 100, budget.reserve(Some(6)).unwrap());
        let mut halfway = fill.reader().unwrap();
        fill.push(Bytes::from("abc")).await.unwrap();
        assert_eq!(halfway.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert_eq!(budget.used(), 6, "all of it is reserved from the start");
        fill.hand_over(Bytes::from("abcdef"));
        fill.complete(None, Complete::made_up());
        assert_eq!(budget.used(), 0);
        let late = fill.reader().unwrap();
        for (reader, expected) in [(unread, "abcdef"), (halfway, "def"), (late, "abcdef")] {
            assert_eq!(reader.collect().await.unwrap().to_bytes(), expected);
        }
    }

    #[tokio::test]
    async fn a_complete_body_that_is_not_stored_goes_as_it_is_read() {
        let budget = FillBudget::new(100);
        let (fill, mut reader) = Fill::with_reader(None, 100, budget.share());
        fill.push(chunk(10)).await.unwrap();
        fill.push(chunk(10)).await.unwrap();
        fill.complete(None, Complete::made_up());
        fill.let_go();
        reader.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), 10);
        assert_eq!(reader.collect().await.unwrap().to_bytes().len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_holds_up_others_is_cut_off() {
        let fill = fill(10);
        let mut slow = fill.reader().unwrap();
        let mut quick = fill.reader().unwrap();
        let push = fill.push(chunk(WINDOW));
        let read = async {
            quick.frame().await.unwrap().unwrap();
            quick.frame().await
        };
        let more = async {
            push.await.unwrap();
            fill.push(chunk(1)).await
        };
        let (next, more) = tokio::join!(read, more);
        assert_eq!((next.unwrap().unwrap().into_data().unwrap().len(), more), (1, Ok(())));
        assert!(slow.frame().await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_alone_may_be_as_slow_as_it_likes() {
        let fill = fill(10);
        let mut slow = fill.reader().unwrap();
        let push = fill.push(chunk(WINDOW));
        let read = async {
            tokio::time::sleep(HOLD_UP * 10).await;
            slow.frame().await
        };
        let (pushed, read) = tokio::join!(push, read);
        assert!(pushed.is_ok() && read.unwrap().is_ok());
    }
}

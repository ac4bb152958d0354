//! HTTP/2 streams whose client does not take its response are reset.
//!
//! On HTTP/1.1 a client that does not read blocks its connection, and the connection's own timer closes that.
//! On HTTP/2 other streams go on, so each stream has to be watched: a window of 0 keeps a response, and what
//! it is made of, in memory for as long as its client likes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::futures::TaskLocalFuture,
    time::{Instant, Sleep},
};

use super::{Counters, Pressure, queued::Pieces};

tokio::task_local! {
    static STREAM: Arc<Progress>;
}

/// How often a stream that waits for its client is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long a client may keep the server waiting while memory or connections to the origin are short.
const UNDER_PRESSURE: Duration = Duration::from_secs(3);

/// How far a response has got on one HTTP/2 stream.
///
/// Twice the number of pieces that were given to the protocol, and one more while it is the client's
/// turn: it has to take what was given before the body is asked for more.
#[derive(Debug, Default)]
pub(super) struct Progress {
    given: AtomicU64,
    /// What of the response is queued.
    pub(super) pieces: Arc<Pieces>,
}

const CLIENT: u64 = 1;

impl Progress {
    /// That of the stream whose task runs.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The head of the response, or a piece of its body, was given to the protocol.
    pub(super) fn note_given(&self) {
        self.given.store((self.given.load(Relaxed) | CLIENT).wrapping_add(2), Relaxed);
    }

    /// The body has nothing to give: what is waited for is not the client.
    pub(super) fn note_source_waits(&self) {
        self.given.store(self.given.load(Relaxed) & !CLIENT, Relaxed);
    }

    fn state(&self) -> u64 {
        self.given.load(Relaxed)
    }
}

/// How long clients may keep streams waiting.
#[derive(Clone)]
pub(super) struct Patience {
    /// Without pressure.
    pub(super) idle_timeout: Duration,
    /// Whether memory or connections to the origin are short.
    pub(super) pressure: Pressure,
    /// Where resets are counted.
    pub(super) counters: Arc<Counters>,
}

impl Patience {
    fn now(&self) -> Duration {
        let is_high = self.pressure.is_high();
        if is_high { self.idle_timeout.min(UNDER_PRESSURE) } else { self.idle_timeout }
    }
}

/// Runs the tasks of a connection's streams.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub(super) Patience);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        let progress = Arc::<Progress>::default();
        let future = STREAM.scope(Arc::clone(&progress), future);
        let watch = StallWatch::new(progress, self.0.clone());
        tokio::spawn(WatchedStream { future: Some(future), watch });
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream. Dropping it early resets the stream with CANCEL, and frees what was queued
    /// for it.
    struct WatchedStream<F> {
        #[pin]
        future: Option<TaskLocalFuture<Arc<Progress>, F>>,
        watch: StallWatch,
    }
}

impl<F: Future> Future for WatchedStream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if future.poll(cx).is_ready() || this.watch.poll_stalled(cx).is_ready() {
            this.future.set(None);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Finds a stream that waits for its client for too long.
struct StallWatch {
    progress: Arc<Progress>,
    patience: Patience,
    seen: u64,
    /// Since when nothing has changed.
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl StallWatch {
    fn new(progress: Arc<Progress>, patience: Patience) -> Self {
        Self { progress, patience, seen: 0, since: Instant::now(), timer: None }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let state = self.progress.state();
        if state & CLIENT == 0 {
            self.timer = None;
            self.seen = state;
            return Poll::Pending;
        }
        let now = Instant::now();
        if state != self.seen {
            (self.seen, self.since) = (state, now);
        }
        let tick = TICK.min(self.patience.idle_timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(tick)));
        while timer.as_mut().poll(cx).is_ready() {
            if now.saturating_duration_since(self.since) >= self.patience.now() {
                self.patience.counters.note_stalled();
                tracing::debug!("resetting a stream whose client does not take its response");
                return Poll::Ready(());
            }
            timer.as_mut().reset(now + tick);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(pressure: &Pressure) -> Patience {
        let (idle_timeout, counters) = (Duration::from_mins(1), Arc::default());
        Patience { idle_timeout, pressure: pressure.clone(), counters }
    }

    async fn stalls_after(progress: &Arc<Progress>, patience: &Patience) -> Option<u64> {
        let started = Instant::now();
        let mut watch = StallWatch::new(Arc::clone(progress), patience.clone());
        let stalled = std::future::poll_fn(|cx| watch.poll_stalled(cx));
        let stalled = tokio::time::timeout(Duration::from_mins(10), stalled).await;
        stalled.ok().map(|()| started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_takes_nothing_stalls_a_stream() {
        let pressure = Pressure::default();
        let (progress, patience) = (Arc::<Progress>::default(), patience(&pressure));
        assert_eq!(stalls_after(&progress, &patience).await, None, "the handler is at work");
        progress.note_given();
        assert_eq!(stalls_after(&progress, &patience).await, Some(60));
        progress.note_source_waits();
        assert_eq!(stalls_after(&progress, &patience).await, None, "a stream of events");
        progress.note_given();
        pressure.set_high(true);
        assert_eq!(stalls_after(&progress, &patience).await, Some(3));
        assert_eq!(patience.counters.stalled.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_now_and_then_is_waited_for() {
        let pressure = Pressure::default();
        let (progress, patience) = (Arc::<Progress>::default(), patience(&pressure));
        progress.note_given();
        let taking = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                progress.note_given();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            after = stalls_after(&progress, &patience) => {
                assert!(matches!(after, Some(310..=312)), "{after:?}");
            }
            () = taking => {}
        }
    }
}

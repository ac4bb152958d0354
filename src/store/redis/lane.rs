//! Lanes: connections that belong to one thread.
//!
//! Each thread that asks Redis has sessions of its own, made when it first asks, and served by the same
//! runtime as the request that waits. So an answer wakes no other thread. What several requests ask for in
//! one turn of their thread goes out as one command: that halves the work on both sides. What moves large
//! values has a lane of its own: a small value never waits behind a large one.

use std::{
    cell::RefCell,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fred::{interfaces::KeysInterface as _, types::FromValue};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::AbortHandle,
};

use super::{
    fault::Fault,
    guard::{Epoch, Guard},
};
use crate::redis::{Call, Client, Clocks, Connector, Purpose, Script};

/// This many answers in a row that stay out open the guard, or fewer that take this long together.
const LATE: u32 = 5;
const SILENCE: Duration = Duration::from_millis(500);
/// After this many deadlines a command that was not sent yet never is.
const GIVEN_UP: u32 = 10;
/// How often a thread goes through all that has come before an answer counts as late.
const LOOKS: usize = 3;
/// Values asked for by one command.
const KEYS: usize = 64;

/// What a lane carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Entries, leases: small and urgent.
    Small,
    /// Parts of large bodies; whatever nobody waits for.
    Large,
}

/// How long answers may take, by load.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Of what a request waits for.
    pub small: Duration,
    /// Of what moves much, or what nobody waits for.
    pub large: Duration,
}

/// The lanes of one Redis, over all threads.
pub struct Lanes {
    id: u64,
    connector: Connector,
    guard: Arc<Guard>,
    deadlines: Deadlines,
    probe: Bytes,
}

/// One connection of one thread. Dropped, it is closed.
pub struct Lane {
    line: Arc<Line>,
    serving: AbortHandle,
}

/// What those who ask share with the task that serves them.
struct Line {
    epoch: Epoch,
    clocks: Arc<Clocks>,
    deadline: Duration,
    /// How many values one command may ask for: in a cluster they seldom stand together.
    keys: usize,
    probe: Bytes,
    session: OnceLock<Option<Arc<Client>>>,
    opened: Notify,
    asked: Mutex<Vec<Asked>>,
    come: Notify,
    late: AtomicU32,
    /// How many answers in a row may stay out.
    patience: u32,
    guard: Arc<Guard>,
}

/// A value that somebody waits for.
struct Asked {
    key: Bytes,
    tell: oneshot::Sender<Value>,
}

type Value = Result<Option<Bytes>, Fault>;

struct Place {
    owner: u64,
    load: Load,
    lane: Arc<Lane>,
}

thread_local! {
    static LANES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

static OWNERS: AtomicU64 = AtomicU64::new(0);

impl Lanes {
    /// No lanes yet. `probe` is a key that may be asked for at any time.
    pub fn new(
        connector: Connector,
        guard: Arc<Guard>,
        deadlines: Deadlines,
        probe: Bytes,
    ) -> Self {
        Self { id: OWNERS.fetch_add(1, Relaxed), connector, guard, deadlines, probe }
    }

    /// This thread's lane for such a load, made anew where it has broken.
    pub fn lane(&self, epoch: Epoch, load: Load) -> Arc<Lane> {
        LANES.with_borrow_mut(|places| {
            let is_ours = |place: &Place| place.owner == self.id && place.load == load;
            if let Some(place) = places.iter().find(|place| is_ours(place))
                && place.lane.is_usable(epoch)
            {
                return Arc::clone(&place.lane);
            }
            places.retain(|place| place.lane.is_alive() && !is_ours(place));
            let lane = self.begin(epoch, load);
            places.push(Place { owner: self.id, load, lane: Arc::clone(&lane) });
            lane
        })
    }

    /// A lane that no thread shares: what goes over it keeps its order.
    pub fn begin(&self, epoch: Epoch, load: Load) -> Arc<Lane> {
        let deadline = match load {
            Load::Small => self.deadlines.small,
            Load::Large => self.deadlines.large,
        };
        let line = Arc::new(Line {
            epoch,
            clocks: Arc::clone(self.connector.clocks()),
            deadline,
            keys: if self.connector.is_cluster() { 1 } else { KEYS },
            probe: self.probe.clone(),
            session: OnceLock::new(),
            opened: Notify::new(),
            asked: Mutex::default(),
            come: Notify::new(),
            late: AtomicU32::new(0),
            patience: patience(deadline),
            guard: Arc::clone(&self.guard),
        });
        let (served, connector) = (Arc::clone(&line), self.connector.clone());
        let serving = tokio::spawn(async move { served.serve(&connector).await }).abort_handle();
        Arc::new(Lane { line, serving })
    }
}

impl Lane {
    /// The value under a key. It is asked for together with what others ask for just now.
    pub async fn get(&self, key: Bytes) -> Value {
        self.line.enqueue(key).await.unwrap_or(Err(Fault::Open))
    }

    /// What `ask` brings, asked over this lane's session. How that went is told to the guard.
    pub async fn ask<T, A>(&self, ask: impl FnOnce(fred::clients::Client) -> A) -> Result<T, Fault>
    where
        A: Future<Output = Result<T, fred::error::Error>>,
    {
        let session = self.line.session().await?;
        let result = self.line.within(ask((***session).clone())).await;
        self.line.note(&result);
        result
    }

    /// What a script answers. It has no effect if Redis gets to it later than `within` from now, or within
    /// the time after which its session gives up.
    pub async fn run<R: FromValue>(
        &self,
        script: &Script,
        call: Call,
        within: Option<Duration>,
    ) -> Result<R, Fault> {
        let (clocks, given_up) = (&*self.line.clocks, self.line.given_up());
        let until = |within: Option<Duration>| Instant::now() + within.unwrap_or(given_up);
        self.ask(|session| async move { script.run(&session, clocks, call, until(within)).await })
            .await
    }

    /// What time it is at the server of a key, in milliseconds.
    pub async fn time(&self, key: Bytes) -> Result<i64, Fault> {
        let clocks = &*self.line.clocks;
        self.ask(|session| async move { crate::redis::time(&session, clocks, &key).await }).await
    }

    /// Whether it can still be used in this epoch.
    pub fn is_usable(&self, epoch: Epoch) -> bool {
        self.line.epoch == epoch && self.is_alive()
    }

    fn is_alive(&self) -> bool {
        let session = self.line.session.get();
        session.is_none_or(|session| session.as_ref().is_some_and(|it| !it.has_ended()))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Line {
    fn enqueue(&self, key: Bytes) -> oneshot::Receiver<Value> {
        let (tell, told) = oneshot::channel();
        let mut asked = self.asked.lock();
        asked.push(Asked { key, tell });
        let is_first = asked.len() == 1;
        drop(asked);
        if is_first {
            self.come.notify_one();
        }
        told
    }

    /// Connects, and asks for what comes together.
    async fn serve(self: &Arc<Self>, connector: &Connector) {
        let session = self.connect(connector).await;
        let session = self.session.get_or_init(|| session);
        self.opened.notify_waiters();
        let Some(session) = session else {
            self.asked.lock().clear();
            return;
        };
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.come.notified() => {
                    let mut asked = std::mem::take(&mut *self.asked.lock());
                    while !asked.is_empty() {
                        let rest = asked.split_off(self.keys.min(asked.len()));
                        answers.push(self.answer((***session).clone(), asked));
                        asked = rest;
                    }
                }
                Some(()) = answers.next() => {}
            }
        }
    }

    /// Meanwhile nobody waits for longer than for an answer.
    async fn connect(&self, connector: &Connector) -> Option<Arc<Client>> {
        let purpose = Purpose::Watched(self.given_up());
        let mut connected = pin!(connector.connected(purpose));
        let session = loop {
            match tokio::time::timeout(self.deadline, connected.as_mut()).await {
                Ok(session) => break session,
                Err(_) => self.asked.lock().clear(),
            }
        };
        match session {
            Ok(session) => {
                let session = Arc::new(session);
                self.guard.enlist(self.epoch, &session).then_some(session)
            }
            Err(error) => {
                self.guard.open(self.epoch, &Fault::of(&error));
                None
            }
        }
    }

    async fn answer(self: &Arc<Self>, session: fred::clients::Client, asked: Vec<Asked>) {
        let keys: Vec<Bytes> = asked.iter().map(|asked| asked.key.clone()).collect();
        let values = self.within(session.mget::<Vec<Option<Bytes>>, _>(keys)).await;
        self.note(&values);
        let mut values = values.map(Vec::into_iter);
        for asked in asked {
            let value = match &mut values {
                Ok(values) => values.next().ok_or(Fault::Open),
                Err(fault) => Err(fault.clone()),
            };
            let _gone_already = asked.tell.send(value);
        }
    }

    /// An answer that comes in time.
    ///
    /// A thread that is behind with its work finds out about an answer late, though it has come. So where
    /// the deadline is over, what has come by now is looked through first.
    async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, Fault> {
        let mut answer = pin!(answer);
        let mut answered = match tokio::time::timeout(self.deadline, answer.as_mut()).await {
            Ok(answered) => Poll::Ready(answered),
            Err(_) => Poll::Pending,
        };
        for _ in 0..LOOKS {
            if answered.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
            answered = futures_util::poll!(answer.as_mut());
        }
        match answered {
            Poll::Ready(answered) => answered.map_err(|error| Fault::of(&error)),
            Poll::Pending => Err(Fault::Late),
        }
    }

    async fn session(&self) -> Result<&Arc<Client>, Fault> {
        if self.session.get().is_none() {
            let opened = self.opened.notified();
            if self.session.get().is_none() {
                let _opened_or_late = tokio::time::timeout(self.deadline, opened).await;
            }
        }
        match self.session.get() {
            Some(Some(session)) => Ok(session),
            Some(None) => Err(Fault::Open),
            None => Err(Fault::Late),
        }
    }

    /// After which time nothing is expected of a command any more.
    fn given_up(&self) -> Duration {
        self.deadline.saturating_mul(GIVEN_UP)
    }

    fn note<T>(self: &Arc<Self>, result: &Result<T, Fault>) {
        match result {
            Ok(_) | Err(Fault::Refused(_) | Fault::Strange(_) | Fault::Overdue) => {
                if self.late.load(Relaxed) != 0 {
                    self.late.store(0, Relaxed);
                }
            }
            Err(cause @ Fault::Late) => match self.late.fetch_add(1, Relaxed) + 1 {
                1 => {
                    let suspect = Arc::clone(self);
                    tokio::spawn(async move { suspect.check().await });
                }
                late if late >= self.patience => self.guard.open(self.epoch, cause),
                _ => {}
            },
            Err(cause @ Fault::Gone(_)) => self.guard.open(self.epoch, cause),
            Err(Fault::Open | Fault::Full | Fault::Unsealed) => {}
        }
    }

    /// Asks until there is an answer, or too many stayed out: a server that hangs is found out, however
    /// little it is asked.
    async fn check(self: Arc<Self>) {
        let Some(Some(session)) = self.session.get() else { return };
        let session = (***session).clone();
        while (1..self.patience).contains(&self.late.load(Relaxed)) {
            match self.within(session.get::<Option<Bytes>, _>(self.probe.clone())).await {
                Err(cause @ Fault::Late) => {
                    if self.late.fetch_add(1, Relaxed) + 1 >= self.patience {
                        self.guard.open(self.epoch, &cause);
                    }
                }
                answer => return self.note(&answer),
            }
        }
    }
}

fn patience(deadline: Duration) -> u32 {
    let answers = SILENCE.as_millis() / deadline.as_millis().max(1);
    u32::try_from(answers).unwrap_or(LATE).clamp(2, LATE)
}

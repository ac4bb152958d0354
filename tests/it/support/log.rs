//! Nodes, as far as they have a purge log; and ways to Redis that can be closed.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use larder::testing::{
    fence::{Fence, FenceStamp, Purge, PurgeMode, PurgeSource, ResponseAttributes, Selector},
    purge::{
        AppliedPurges, ExpectedResponse, LinkState, LogRetention, PurgeLog, RedisLogSettings,
        SyncState, UnsyncedPolicy, WatermarkRaise,
    },
    redis::{RedisConnector, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Handle,
    sync::watch,
    task::JoinSet,
};

use super::redis::Redis;

/// What a node uses that does not hear the log.
pub(crate) const UNSYNCED_TTL: Duration = Duration::from_secs(1);

/// One node, as far as it has a log.
pub(crate) struct LogNode {
    pub(crate) log: PurgeLog,
}

impl LogNode {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::with_retention(settings, LogRetention::default())
    }

    /// A node whose log keeps these records.
    pub(crate) fn with_retention(settings: &Settings, retention: LogRetention) -> Self {
        let connector = RedisConnector::new(settings).unwrap();
        let log = RedisLogSettings { connector, prefix: "larder", retention };
        let unsynced = UnsyncedPolicy::Bounded(UNSYNCED_TTL);
        let applied_purges = Arc::new(AppliedPurges::in_fleet(unsynced));
        Self { log: PurgeLog::in_redis(log, applied_purges, &Handle::current()) }
    }

    /// A node that follows the log.
    pub(crate) async fn start(url: &str) -> Self {
        let node = Self::of(&Settings::parse(url).unwrap());
        node.wait_until_following().await;
        node
    }

    pub(crate) async fn until(&self, holds: impl FnMut(&SyncState) -> bool) {
        self.log.sync_state().wait_for(holds).await.unwrap();
    }

    pub(crate) async fn wait_until_following(&self) {
        self.until(|sync_state| sync_state.link == LinkState::Following).await;
    }

    pub(crate) async fn wait_until_lagging(&self) {
        self.until(|sync_state| sync_state.link == LinkState::Lagging).await;
    }

    pub(crate) async fn wait_for_seq(&self, seq: u64) {
        self.until(|sync_state| sync_state.fence.seq >= seq).await;
    }

    /// Until another log than this one is followed.
    pub(crate) async fn wait_for_other_log(&self, fence: Fence) {
        self.until(|sync_state| sync_state.fence.log != fence.log).await;
    }

    /// Purges, and waits for no other node.
    pub(crate) async fn purge(&self, tag: &str) -> u64 {
        self.log.append(tag_purge(tag), Duration::ZERO).await.unwrap().seq
    }

    pub(crate) fn fence(&self) -> Fence {
        self.log.applied_purges().fence()
    }

    pub(crate) fn stamp(&self) -> FenceStamp {
        self.log.applied_purges().stamp()
    }

    /// Whether what was asked for at this stamp, and has this tag, may be used.
    pub(crate) fn may_use(&self, stamp: FenceStamp, tag: &str) -> bool {
        may_use(self.log.applied_purges(), stamp, tag)
    }

    pub(crate) fn raises(&self) -> Vec<WatermarkRaise> {
        let count = |raise| usize::try_from(self.log.applied_purges().raises(raise)).unwrap();
        WatermarkRaise::ALL.into_iter().flat_map(|raise| vec![raise; count(raise)]).collect()
    }
}

/// Whether what was asked for at this stamp, and has this tag, may be used.
pub(crate) fn may_use(applied_purges: &AppliedPurges, stamp: FenceStamp, tag: &str) -> bool {
    let tags = [tag.to_owned()];
    let expected = ExpectedResponse {
        url: b"host/path",
        attributes: ResponseAttributes::default(),
        tags: Some(&tags),
    };
    applied_purges.may_join(&stamp, &expected, Instant::now())
}

pub(crate) async fn start_two(url: &str, other_url: &str) -> (LogNode, LogNode) {
    tokio::join!(LogNode::start(url), LogNode::start(other_url))
}

pub(crate) fn tag_purge(tag: &str) -> Purge {
    let selectors = vec![Selector::Tag(tag.into())];
    Purge { mode: PurgeMode::Hard, selectors, source: PurgeSource::Api, reason: None, warm: false }
}

/// A way to a server that can be closed, blocked or slow.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections end, and new ones do not last.
    Closed,
    /// Connections stay and new ones are taken, but nothing is carried any more.
    Blocked,
    /// The same, but what was to be carried comes when the way is open again.
    Stalled,
    /// What the client sends is carried; what the server answers comes when the way is open again.
    RepliesStalled,
    /// Whatever is carried takes a while.
    Slow,
    /// Every other connection is blocked.
    Half,
}

/// How long whatever is carried takes on a slow way.
const SLOW_DELAY: Duration = Duration::from_millis(120);

impl State {
    /// What this is for the connection of this number.
    fn of(self, number: usize) -> Self {
        match self {
            Self::Half if number.is_multiple_of(2) => Self::Blocked,
            Self::Half => Self::Open,
            state => state,
        }
    }

    /// Whether connections last.
    fn keeps_connections(self) -> bool {
        !matches!(self, Self::Closed | Self::Blocked)
    }

    /// Whether what the client sends is carried.
    fn carries_calls(self) -> bool {
        matches!(self, Self::Open | Self::RepliesStalled | Self::Slow)
    }

    /// Whether what the server answers is carried.
    fn carries_answers(self) -> bool {
        matches!(self, Self::Open | Self::Slow)
    }
}

impl FaultProxy {
    pub(crate) async fn to(redis: &Redis) -> Self {
        let server = redis.url();
        let server = server.trim_start_matches("redis://").trim_end_matches("/0").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, states) = watch::channel(State::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                while connections.try_join_next().is_some() {}
                let connection = FaultConnection { number, states: states.clone() };
                connections.spawn(connection.carry(client, server.clone()));
            }
        });
        Self { address, state, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    pub(crate) fn block(&self) {
        self.state.send_replace(State::Blocked);
    }

    pub(crate) fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    pub(crate) fn stall_replies(&self) {
        self.state.send_replace(State::RepliesStalled);
    }

    pub(crate) fn slow_down(&self) {
        self.state.send_replace(State::Slow);
    }

    pub(crate) fn halve(&self) {
        self.state.send_replace(State::Half);
    }

    pub(crate) fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

/// A connection, and what becomes of the bridge under it.
#[derive(Clone)]
struct FaultConnection {
    number: usize,
    states: watch::Receiver<State>,
}

impl FaultConnection {
    async fn carry(mut self, client: TcpStream, server: String) {
        let mut end = self.clone();
        tokio::select! {
            _end = self.clone().both_ways(client, server) => return,
            () = end.until(|state| !state.keeps_connections()) => {}
        }
        self.until(|state| state != State::Blocked).await;
    }

    async fn both_ways(mut self, mut client: TcpStream, server: String) -> io::Result<()> {
        self.until(State::carries_calls).await;
        let mut server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let calls = self.clone().one_way(from_client, to_server, State::carries_calls);
        let answers = self.one_way(from_server, to_client, State::carries_answers);
        tokio::try_join!(calls, answers).map(drop)
    }

    async fn one_way(
        mut self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        is_carried: fn(State) -> bool,
    ) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut bytes).await?;
            if *self.states.borrow() == State::Slow {
                tokio::time::sleep(SLOW_DELAY).await;
            }
            self.until(is_carried).await;
            match length {
                0 => return to.shutdown().await,
                length => to.write_all(&bytes[..length]).await?,
            }
        }
    }

    /// Waits until the bridge is like this for this connection, or gone.
    async fn until(&mut self, is: impl Fn(State) -> bool) {
        let number = self.number;
        let _or_gone = self.states.wait_for(|state| is(state.of(number))).await.is_ok();
    }
}

//! Nodes reduced to a purge log, and connections to Redis with faults.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use larder::testing::{
    fence::{Fence, FenceStamp, Purge, PurgeMode, PurgeSource, ResponseAttributes, Selector},
    purge::{
        AppliedPurges, IncompleteResponse, LogRetention, PurgeLog, RedisLogSettings, SyncState,
        TailState, UnsyncedPolicy, WatermarkRaise,
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

/// The age of responses that a node may serve while out of sync.
pub(crate) const UNSYNCED_TTL: Duration = Duration::from_secs(1);

/// A node with a purge log and nothing else.
pub(crate) struct LogNode {
    pub(crate) log: PurgeLog,
}

impl LogNode {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::with_retention(settings, LogRetention::default())
    }

    /// Creates a node whose log retains these records.
    pub(crate) fn with_retention(settings: &Settings, retention: LogRetention) -> Self {
        let connector = RedisConnector::new(settings).unwrap();
        let log = RedisLogSettings { connector, prefix: "larder", retention };
        let unsynced = UnsyncedPolicy::Bounded(UNSYNCED_TTL);
        let applied_purges = Arc::new(AppliedPurges::in_fleet(unsynced));
        Self { log: PurgeLog::in_redis(log, applied_purges, &Handle::current()) }
    }

    /// Starts a node that follows the log.
    pub(crate) async fn start(url: &str) -> Self {
        let node = Self::of(&Settings::parse(url).unwrap());
        node.wait_until_following().await;
        node
    }

    pub(crate) async fn until(&self, holds: impl FnMut(&SyncState) -> bool) {
        self.log.sync_state().wait_for(holds).await.unwrap();
    }

    pub(crate) async fn wait_until_following(&self) {
        self.until(|sync_state| sync_state.link == TailState::Following).await;
    }

    pub(crate) async fn wait_until_lagging(&self) {
        self.until(|sync_state| sync_state.link == TailState::Lagging).await;
    }

    pub(crate) async fn wait_for_seq(&self, seq: u64) {
        self.until(|sync_state| sync_state.fence.seq >= seq).await;
    }

    /// Waits until the node follows another log than this one.
    pub(crate) async fn wait_for_other_log(&self, fence: Fence) {
        self.until(|sync_state| sync_state.fence.log != fence.log).await;
    }

    /// Purges without waiting for other nodes.
    pub(crate) async fn purge(&self, tag: &str) -> u64 {
        self.log.append(tag_purge(tag), Duration::ZERO).await.unwrap().seq
    }

    pub(crate) fn fence(&self) -> Fence {
        self.log.applied_purges().fence()
    }

    pub(crate) fn stamp(&self) -> FenceStamp {
        self.log.applied_purges().stamp()
    }

    /// Returns true if a response with this stamp and tag may be served.
    pub(crate) fn may_use(&self, stamp: FenceStamp, tag: &str) -> bool {
        may_use(self.log.applied_purges(), stamp, tag)
    }

    pub(crate) fn raises(&self) -> Vec<WatermarkRaise> {
        let count = |raise| usize::try_from(self.log.applied_purges().raises(raise)).unwrap();
        WatermarkRaise::ALL.into_iter().flat_map(|raise| vec![raise; count(raise)]).collect()
    }
}

/// Returns true if a response with this stamp and tag may be served.
pub(crate) fn may_use(applied_purges: &AppliedPurges, stamp: FenceStamp, tag: &str) -> bool {
    let tags = [tag.to_owned()];
    let expected = IncompleteResponse {
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

/// A proxy to a server that can be closed, blocked or slowed down.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections are closed at once.
    Closed,
    /// Connections are accepted and stay open, but data is discarded.
    Blocked,
    /// Connections are accepted and stay open, but data is delayed until the fault ends.
    Stalled,
    /// Commands arrive, but replies are delayed until the fault ends.
    RepliesStalled,
    /// All data is delayed by a constant time.
    Slow,
    /// Every other connection is blocked.
    Half,
}

/// The delay of data in the slow state.
const SLOW_DELAY: Duration = Duration::from_millis(120);

impl State {
    /// Returns the state for the connection with this number.
    fn of(self, number: usize) -> Self {
        match self {
            Self::Half if number.is_multiple_of(2) => Self::Blocked,
            Self::Half => Self::Open,
            state => state,
        }
    }

    /// Returns true if connections stay open.
    fn keeps_connections(self) -> bool {
        !matches!(self, Self::Closed | Self::Blocked)
    }

    /// Returns true if data from the client arrives.
    fn carries_calls(self) -> bool {
        matches!(self, Self::Open | Self::RepliesStalled | Self::Slow)
    }

    /// Returns true if data from the server arrives.
    fn carries_replies(self) -> bool {
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

/// A connection, and the state of its proxy.
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
        let answers = self.one_way(from_server, to_client, State::carries_replies);
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

    /// Waits until the connection's state matches, or the proxy is dropped.
    async fn until(&mut self, is: impl Fn(State) -> bool) {
        let number = self.number;
        let _or_gone = self.states.wait_for(|state| is(state.of(number))).await.is_ok();
    }
}

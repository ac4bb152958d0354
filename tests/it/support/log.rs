//! Nodes, as far as they have a purge log; and ways to Redis that can be closed.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use larder::{
    fence::{Facets, Fence, Mode, Purge, Selector, Source, Stamp},
    purge::{Expected, Fences, Link, Log, RedisLog, Retention, Rise, Standing, WhenUnsynced},
    redis::{Connector, Settings},
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
pub(crate) struct Node {
    pub(crate) log: Log,
}

impl Node {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::keeping(settings, Retention::default())
    }

    /// A node whose log keeps these records.
    pub(crate) fn keeping(settings: &Settings, retention: Retention) -> Self {
        let connector = Connector::new(settings).unwrap();
        let log = RedisLog { connector, prefix: "larder", retention };
        let unsynced = WhenUnsynced::Bounded(UNSYNCED_TTL);
        let fences = Arc::new(Fences::in_fleet(unsynced));
        Self { log: Log::in_redis(log, fences, &Handle::current()) }
    }

    /// A node that follows the log.
    pub(crate) async fn start(url: &str) -> Self {
        let node = Self::of(&Settings::parse(url).unwrap());
        node.follows().await;
        node
    }

    pub(crate) async fn until(&self, holds: impl FnMut(&Standing) -> bool) {
        self.log.standing().wait_for(holds).await.unwrap();
    }

    pub(crate) async fn follows(&self) {
        self.until(|standing| standing.link == Link::Following).await;
    }

    pub(crate) async fn is_apart(&self) {
        self.until(|standing| standing.link == Link::Apart).await;
    }

    pub(crate) async fn reaches(&self, seq: u64) {
        self.until(|standing| standing.fence.seq >= seq).await;
    }

    /// Until another log than this one is followed.
    pub(crate) async fn leaves(&self, fence: Fence) {
        self.until(|standing| standing.fence.log != fence.log).await;
    }

    /// Purges, and waits for no other node.
    pub(crate) async fn purge(&self, tag: &str) -> u64 {
        self.log.append(of_tag(tag), Duration::ZERO).await.unwrap().seq
    }

    pub(crate) fn fence(&self) -> Fence {
        self.log.fences().fence()
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.log.fences().stamp()
    }

    /// Whether what was asked for at this stamp, and has this tag, may be used.
    pub(crate) fn spares(&self, stamp: Stamp, tag: &str) -> bool {
        spares(self.log.fences(), stamp, tag)
    }

    pub(crate) fn rises(&self) -> Vec<Rise> {
        let count = |rise| usize::try_from(self.log.fences().rises(rise)).unwrap();
        Rise::ALL.into_iter().flat_map(|rise| vec![rise; count(rise)]).collect()
    }
}

/// Whether what was asked for at this stamp, and has this tag, may be used.
pub(crate) fn spares(fences: &Fences, stamp: Stamp, tag: &str) -> bool {
    let tags = [tag.to_owned()];
    let expected = Expected { url: b"host/path", facets: Facets::default(), tags: Some(&tags) };
    fences.may_join(&stamp, &expected, Instant::now())
}

pub(crate) async fn two(url: &str, other_url: &str) -> (Node, Node) {
    tokio::join!(Node::start(url), Node::start(other_url))
}

pub(crate) fn of_tag(tag: &str) -> Purge {
    let selectors = vec![Selector::Tag(tag.into())];
    Purge { mode: Mode::Hard, selectors, source: Source::Api, reason: None, warm: false }
}

/// A way to a server that can be closed, blocked or slow.
pub(crate) struct Bridge {
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
    Deaf,
    /// Whatever is carried takes a while.
    Slow,
    /// Every other connection is blocked.
    Half,
}

/// How long whatever is carried takes on a slow way.
const SLOWLY: Duration = Duration::from_millis(120);

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
    fn keeps(self) -> bool {
        !matches!(self, Self::Closed | Self::Blocked)
    }

    /// Whether what the client sends is carried.
    fn carries_calls(self) -> bool {
        matches!(self, Self::Open | Self::Deaf | Self::Slow)
    }

    /// Whether what the server answers is carried.
    fn carries_answers(self) -> bool {
        matches!(self, Self::Open | Self::Slow)
    }
}

impl Bridge {
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
                let way = Way { number, states: states.clone() };
                connections.spawn(way.carry(client, server.clone()));
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

    pub(crate) fn deafen(&self) {
        self.state.send_replace(State::Deaf);
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
struct Way {
    number: usize,
    states: watch::Receiver<State>,
}

impl Way {
    async fn carry(mut self, client: TcpStream, server: String) {
        let mut end = self.clone();
        tokio::select! {
            _end = self.clone().both_ways(client, server) => return,
            () = end.until(|state| !state.keeps()) => {}
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
                tokio::time::sleep(SLOWLY).await;
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

//! Nodes, as far as they have a purge log; and ways to Redis that can be closed.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use larder::{
    fence::{Facets, Fence, Mode, Purge, Selector, Source, Stamp},
    purge::{Expected, Fences, Link, Log, RedisLog, Rise, Standing, WhenUnsynced},
    redis::{Connector, Settings},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
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
        let connector = Connector::new(settings).unwrap();
        let log = RedisLog { connector, prefix: "larder" };
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

/// A way to a server that can be closed or blocked.
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
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(carry(client, server.clone(), states.clone()));
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

    pub(crate) fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn carry(mut client: TcpStream, server: String, mut states: watch::Receiver<State>) {
    if *states.borrow_and_update() == State::Open {
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        tokio::select! {
            _end = copy_bidirectional(&mut client, &mut server) => return,
            _changed = states.changed() => {}
        }
    }
    let _no_more = states.wait_for(|state| *state != State::Blocked).await;
}

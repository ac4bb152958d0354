//! Tests of the store against real servers, and against servers that misbehave.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    net::{TcpListener, UnixStream},
    runtime::Handle,
};

use super::{RedisHealth, RedisStore, Settings, chunks, error::RedisRefusal, sealing};
use crate::{
    entry::{
        CompleteBody, Entry, ResponseDraft, VarySelection,
        codec::{self, EncodeOptions, sealed::SealingKeys},
    },
    fence::{FenceStamp, OwnedResponseAttributes},
    field::Timestamp,
    key::{CacheKey, OriginTarget, partition, uri::Scheme},
    policy::freshness::{Constraints, Freshness},
    redis,
    store::{FetchClaim, LeaseResult, MemoryStore, PutOutcome, Store, TieredStore},
    telemetry::Metrics,
};

/// A `redis-server` on its own socket. Dropping it ends the process.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(options: &[&str]) -> Self {
        let mut server = Self::absent();
        server.run(options).await;
        server
    }

    /// Returns a socket path without a server.
    pub(crate) fn absent() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), child: None }
    }

    pub(crate) async fn run(&mut self, options: &[&str]) {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(self.socket()).arg("--dir").arg(self.folder.path()).args(options);
        self.child = Some(command.stdout(Stdio::null()).spawn().unwrap());
        while UnixStream::connect(self.socket()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Sends a signal. A stopped server (`-STOP`) still accepts commands, and executes them later.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Returns the output of `redis-cli` for these arguments.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        let output = command.arg("-s").arg(self.socket()).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        connection: redis::Settings::parse(url).unwrap(),
        // A long deadline, because the machine that runs the tests may be busy.
        read_deadline: Duration::from_millis(250),
        prefix: "larder".to_owned(),
        version: "v1".to_owned(),
        compress_above: 4096,
        max_entry: 8 << 20,
        sealing_keys: None,
        stale_for: Duration::ZERO,
    }
}

pub(crate) fn start(settings: Settings) -> RedisStore {
    RedisStore::start(settings, Metrics::new().for_redis(), &Handle::current()).unwrap()
}

/// Returns a store with long deadlines, because the machine that runs the tests may be busy.
fn store_with_long_deadlines(server: &Server) -> RedisStore {
    let settings = settings(&server.url());
    let command_deadline = Duration::from_secs(5);
    let connection = redis::Settings { command_deadline, ..settings.connection };
    start(Settings { connection, read_deadline: Duration::from_secs(2), ..settings })
}

fn store(server: &Server) -> RedisStore {
    start(settings(&server.url()))
}

fn key(path: &str) -> CacheKey {
    CacheKey::from_text(path.as_bytes())
}

fn response(key: &CacheKey, body: Vec<u8>) -> Entry {
    let draft = ResponseDraft {
        key: key.clone(),
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain"),
        )]),
        freshness: Freshness {
            received_at: Timestamp::from_seconds(1000),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_mins(1),
            stale_while_revalidate: Some(30),
            stale_if_error: None,
            usable_for: None,
            constraints: Constraints::default(),
        },
        tags: vec!["kpi:revenue".to_owned()],
        attributes: OwnedResponseAttributes::default(),
        stamp: FenceStamp::default(),
        requested_at: Timestamp::from_seconds(1000),
    };
    Entry::Response(Arc::new(draft.complete(&CompleteBody::for_test([body.into()])).unwrap()))
}

fn body_of(entry: Option<Entry>) -> Option<Vec<u8>> {
    match entry? {
        Entry::Response(response) => Some(response.body().to_vec()),
        Entry::Variants(_) => None,
    }
}

/// Returns incompressible bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_one_node_puts_another_one_gets() {
    let server = Server::start().await;
    let (one, other) = (store_with_long_deadlines(&server), store_with_long_deadlines(&server));
    let key = key("/a");
    assert_eq!(one.put(&key, response(&key, b"hello".to_vec())), PutOutcome::Stored);
    one.flush().await;
    let Some(Entry::Response(found)) = other.get(&key).await else { panic!("it is not there") };
    assert_eq!(&*found.body(), b"hello");
    assert_eq!(found.fields().first("content-type"), Some(&b"text/plain"[..]));
    assert_eq!(found.tags().collect::<Vec<_>>(), ["kpi:revenue"]);
    one.remove(key.digest());
    one.flush().await;
    assert!(other.get(&key).await.is_none());
}

#[tokio::test]
async fn the_version_before_is_read_until_it_no_longer_counts() {
    let server = Server::start().await;
    let before = store_with_long_deadlines(&server);
    let now = Settings { version: "v2".to_owned(), ..before.inner.settings.clone() };
    let now = start(now);
    let (small, large) = (key("/small"), key("/large"));
    before.put(&small, response(&small, b"hello".to_vec()));
    before.put(&large, response(&large, noise(1 << 20)));
    before.flush().await;
    assert!(now.get_previous(&small).await.is_none(), "it knows of none");
    now.set_previous_version("v1", Instant::now() + Duration::from_hours(1));
    assert_eq!(body_of(now.get_previous(&small).await).unwrap(), b"hello");
    assert_eq!(body_of(now.get_previous(&large).await).unwrap().len(), 1 << 20);
    assert!(now.get(&small).await.is_none(), "another namespace");
    now.set_previous_version("v1", Instant::now());
    assert!(now.get_previous(&small).await.is_none(), "its time is over");
}

#[tokio::test]
async fn every_key_has_an_end() {
    let server = Server::start().await;
    let store = store_with_long_deadlines(&server);
    let (small, large) = (key("/small"), key("/large"));
    store.put(&small, response(&small, b"hello".to_vec()));
    store.put(&large, response(&large, noise(1 << 20)));
    store.flush().await;
    assert!(matches!(store.claim_fetch(&small).await, FetchClaim::Lead(_)));
    let keys = server.cli(&["KEYS", "*"]);
    assert_eq!(keys.lines().count(), 2 + 5 + 1, "{keys}");
    for key in keys.lines() {
        assert!(key.starts_with("larder:v1:"), "{key}");
        let left: u64 = server.cli(&["PTTL", key]).parse().unwrap();
        let expected = if key.contains(":l:") { 3 } else { 60 + 30 + 600 };
        assert!(left <= expected * 1000 && left + 5000 > expected * 1000, "{key}: {left}");
    }
}

/// Returns a store with secrets of 32 equal bytes each.
fn sealing(server: &Server, secrets: &[u8]) -> RedisStore {
    let secrets: Vec<[u8; 32]> = secrets.iter().map(|byte| [*byte; 32]).collect();
    let sealing_keys = SealingKeys::new(secrets.iter().map(|secret| &secret[..]));
    let store_with_long_deadlines = store_with_long_deadlines(server);
    start(Settings { sealing_keys, ..store_with_long_deadlines.inner.settings.clone() })
}

/// Returns a key in the partition of one identity.
fn own_key(path: &str) -> CacheKey {
    let partition = partition::of_identity(&[7; 16]);
    let plain = OriginTarget::plain(Scheme::Http, "secret.example", path);
    OriginTarget { partition: (&partition[..]).into(), ..plain }.key()
}

/// Returns all values in Redis as one text.
fn dump(server: &Server) -> String {
    let keys = server.cli(&["KEYS", "*"]);
    keys.lines().map(|key| server.cli(&["--no-raw", "GET", key])).collect()
}

#[tokio::test]
async fn what_is_not_for_everyone_cannot_be_read_in_redis() {
    let server = Server::start().await;
    let (one, other) = (sealing(&server, &[1]), sealing(&server, &[1]));
    let (small, large) = (own_key("/small"), own_key("/large"));
    let body = "private text ".repeat(60_000).into_bytes();
    let noisy = [noise(600 << 10), b"private text".to_vec()].concat();
    one.put(&small, response(&small, body.clone()));
    one.put(&large, response(&large, noisy.clone()));
    let variant = small.variant(b"private text");
    one.add_variant(&small.variant(b"index"), selection(), (Vec::new(), variant.digest()));
    one.flush().await;
    for (key, body) in [(&small, body), (&large, noisy)] {
        assert_eq!(body_of(other.get(key).await), Some(body));
    }
    assert!(other.get(&small.variant(b"index")).await.is_some());
    let all = dump(&server);
    for text in ["private text", "secret.example", "text/plain", "kpi:revenue", "accept"] {
        assert!(!all.contains(text), "{text}");
    }
    assert!(server.cli(&["KEYS", "*:c:*"]).lines().count() > 1);
}

#[tokio::test]
async fn what_is_for_everyone_stays_readable_and_small() {
    let server = Server::start().await;
    let (with, without) = (sealing(&server, &[1]), store_with_long_deadlines(&server));
    let key = key("/a");
    with.put(&key, response(&key, b"hello".to_vec()));
    with.flush().await;
    assert_eq!(body_of(without.get(&key).await), Some(b"hello".to_vec()));
}

#[tokio::test]
async fn secrets_are_rotated_without_a_miss() {
    let server = Server::start().await;
    let key = own_key("/a");
    let read = async |secrets: &[u8]| body_of(sealing(&server, secrets).get(&key).await);
    let write = async |secrets: &[u8], body: &[u8]| {
        let store = sealing(&server, secrets);
        store.put(&key, response(&key, body.to_vec()));
        store.flush().await;
    };
    write(&[1], b"old").await;
    assert_eq!(read(&[1, 2]).await, Some(b"old".to_vec()));
    assert_eq!(read(&[2, 1]).await, Some(b"old".to_vec()));
    assert_eq!(read(&[2]).await, None, "its secret is gone");
    write(&[2, 1], b"new").await;
    assert_eq!(read(&[1, 2]).await, Some(b"new".to_vec()));
    assert_eq!(read(&[2]).await, Some(b"new".to_vec()));
    assert_eq!(read(&[1]).await, None);
}

#[tokio::test]
async fn what_cannot_be_decrypted_is_a_miss_and_counted() {
    let server = Server::start().await;
    let metrics = Metrics::new();
    let settings = Settings {
        sealing_keys: SealingKeys::new([&[1; 32][..]]),
        ..store_with_long_deadlines(&server).inner.settings.clone()
    };
    let store = RedisStore::start(settings, metrics.for_redis(), &Handle::current()).unwrap();
    let (one, other) = (own_key("/one"), own_key("/other"));
    store.put(&one, response(&one, b"one".to_vec()));
    store.put(&other, response(&other, b"other".to_vec()));
    store.flush().await;
    let names = [&one, &other].map(|key| format!("larder:v1:e:{:032x}", key.digest()));
    assert_eq!(server.cli(&["COPY", &names[0], &names[1], "REPLACE"]), "1");
    assert!(store.get(&other).await.is_none(), "it belongs to another key");
    // Written without the secret, as by a node before the change, or by an attacker with write
    // access.
    let without = store_with_long_deadlines(&server);
    assert!(without.get(&one).await.is_none());
    without.put(&other, response(&other, b"planted".to_vec()));
    without.flush().await;
    assert!(store.get(&other).await.is_none(), "it is not encrypted");
    assert_eq!(body_of(store.get(&one).await), Some(b"one".to_vec()));
    let text = metrics.render();
    let counted = "larder_store_operations_total{op=\"get\",result=\"locked\",tier=\"redis\"} 2";
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn encrypted_entries_keep_their_order_and_their_indexes_merge() {
    let server = Server::start().await;
    let (one, other) = (sealing(&server, &[1]), sealing(&server, &[2, 1]));
    let key = own_key("/a");
    let at = |seconds: u64, body: &[u8]| match response(&key, body.to_vec()) {
        Entry::Response(response) => {
            let requested_at = Timestamp::from_seconds(seconds);
            Entry::Response(Arc::new(response.with_freshness(
                response.freshness,
                FenceStamp::default(),
                requested_at,
            )))
        }
        entry @ Entry::Variants(_) => entry,
    };
    one.put(&key, at(3000, b"later"));
    one.flush().await;
    other.put(&key, at(2000, b"earlier"));
    other.flush().await;
    assert_eq!(body_of(one.get(&key).await), Some(b"later".to_vec()));
    let target = own_key("/varies");
    for (store, variant) in [(&one, 1), (&other, 2), (&other, 3)] {
        store.add_variant(&target, selection(), (Vec::new(), variant));
        store.flush().await;
    }
    let Some(Entry::Variants(index)) = other.get(&target).await else { panic!("no index") };
    assert_eq!(index.recent, [1, 2, 3]);
}

fn selection() -> VarySelection {
    let set = [http::header::ACCEPT].into_iter().collect();
    VarySelection {
        set,
        seen: Timestamp::from_seconds(1000),
        codings: Vec::new(),
        languages: Vec::new(),
    }
}

#[tokio::test]
async fn large_bodies_are_cut_and_put_together() {
    let server = Server::start().await;
    let store = store_with_long_deadlines(&server);
    let (key, body) = (key("/large"), noise(3 << 20));
    store.put(&key, response(&key, body.clone()));
    store.flush().await;
    assert_eq!(body_of(store.get(&key).await), Some(body));
    // Replacing the entry removes the chunks of the first one.
    let body = noise(2 << 20);
    store.put(&key, response(&key, body.clone()));
    store.flush().await;
    assert_eq!(body_of(store.get(&key).await), Some(body));
    assert_eq!(server.cli(&["DBSIZE"]), "10");
    // An entry without one of its chunks is a miss.
    let part = server.cli(&["KEYS", "*:c:*:4"]);
    assert_eq!(server.cli(&["DEL", &part]), "1");
    assert!(store.get(&key).await.is_none());
}

#[tokio::test]
async fn what_compresses_takes_less() {
    let server = Server::start().await;
    let store = store_with_long_deadlines(&server);
    let (key, body) = (key("/text"), b"{\"total\": 0, \"next\": null}".repeat(40_000));
    store.put(&key, response(&key, body.clone()));
    store.flush().await;
    assert_eq!(server.cli(&["DBSIZE"]), "1");
    let name = server.cli(&["KEYS", "*"]);
    let size: usize = server.cli(&["STRLEN", &name]).parse().unwrap();
    assert!(size < body.len() / 50, "{size}");
    assert_eq!(body_of(store.get(&key).await), Some(body));
}

#[tokio::test]
async fn damaged_and_strange_values_are_misses() {
    let server = Server::start().await;
    let store = store(&server);
    let key = key("/a");
    store.put(&key, response(&key, b"hello".to_vec()));
    store.flush().await;
    let name = server.cli(&["KEYS", "*"]);
    server.cli(&["SETRANGE", &name, "60", "xx"]);
    assert!(store.get(&key).await.is_none(), "damaged");
    server.cli(&["SET", &name, ""]);
    assert!(store.get(&key).await.is_none(), "empty");
    server.cli(&["DEL", &name]);
    server.cli(&["LPUSH", &name, "x"]);
    assert!(store.get(&key).await.is_none(), "no string at all");
    assert_eq!(store.health(), RedisHealth::Up, "none of this is the server's fault");
    store.put(&key, response(&key, b"anew".to_vec()));
    store.flush().await;
    assert_eq!(body_of(store.get(&key).await), Some(b"anew".to_vec()));
}

#[tokio::test]
async fn what_is_still_to_be_written_is_read_already() {
    let mut server = Server::absent();
    let store = store(&server);
    server.run(&[]).await;
    let key = key("/a");
    store.put(&key, response(&key, b"first".to_vec()));
    store.put(&key, response(&key, b"second".to_vec()));
    // Either no write was executed yet, or all of them were.
    assert_ne!(body_of(store.get(&key).await), Some(b"first".to_vec()));
    store.remove(key.digest());
    assert!(store.get(&key).await.is_none());
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_found_when_it_comes() {
    let mut server = Server::absent();
    let store = store(&server);
    until("down", || matches!(store.health(), RedisHealth::Down(_))).await;
    let key = key("/a");
    assert!(store.get(&key).await.is_none());
    store.put(&key, response(&key, b"lost".to_vec()));
    assert!(matches!(store.claim_fetch(&key).await, FetchClaim::Uncoordinated));
    server.run(&[]).await;
    until("up", || store.health() == RedisHealth::Up).await;
    store.put(&key, response(&key, b"kept".to_vec()));
    store.flush().await;
    assert_eq!(body_of(store.get(&key).await), Some(b"kept".to_vec()));
}

#[tokio::test]
async fn a_server_that_dies_and_returns_is_lost_and_found() {
    let mut server = Server::start().await;
    let store = store(&server);
    let key = key("/a");
    store.put(&key, response(&key, b"hello".to_vec()));
    store.flush().await;
    server.end();
    assert!(store.get(&key).await.is_none());
    until("lost", || !matches!(store.health(), RedisHealth::Up)).await;
    let begin = Instant::now();
    for _ in 0..1000 {
        assert!(store.get(&key).await.is_none());
    }
    assert!(begin.elapsed() < Duration::from_millis(200), "nobody waits for what is away");
    server.run(&[]).await;
    until("up", || store.health() == RedisHealth::Up).await;
    assert!(store.get(&key).await.is_none(), "it came back empty");
    store.put(&key, response(&key, b"again".to_vec()));
    store.flush().await;
    assert_eq!(body_of(store.get(&key).await), Some(b"again".to_vec()));
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_still_read() {
    let server = Server::start().await;
    let store = store(&server);
    let (old, new) = (key("/old"), key("/new"));
    store.put(&old, response(&old, b"hello".to_vec()));
    store.flush().await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    store.put(&new, response(&new, b"lost".to_vec()));
    store.flush().await;
    assert_eq!(store.health(), RedisHealth::RefusingWrites(RedisRefusal::OutOfMemory));
    assert_eq!(body_of(store.get(&old).await), Some(b"hello".to_vec()));
    assert!(store.get(&new).await.is_none());
    assert!(matches!(store.claim_fetch(&new).await, FetchClaim::Uncoordinated));
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    store.put(&new, response(&new, b"kept".to_vec()));
    store.flush().await;
    assert_eq!(store.health(), RedisHealth::Up);
    assert_eq!(body_of(store.get(&new).await), Some(b"kept".to_vec()));
}

#[tokio::test]
async fn a_user_who_may_not_is_named() {
    let server = Server::with(&["--requirepass", "secret"]).await;
    let store = store(&server);
    until("refused", || matches!(store.health(), RedisHealth::Down(_))).await;
    assert_eq!(store.health().to_string(), "down (not-allowed)");
    let url = server.url().replace("redis+unix://", "redis+unix://:secret@host");
    let store = start(settings(&url));
    until("let in", || store.health() == RedisHealth::Up).await;
}

/// Starts a server that accepts connections and commands, but never replies.
async fn hanging_server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    (url, silent)
}

#[tokio::test]
async fn a_server_that_never_answers_costs_nobody_anything() {
    let (url, silent) = hanging_server().await;
    let settings = Settings { read_deadline: Duration::from_millis(20), ..settings(&url) };
    let store = TieredStore::new(Some(MemoryStore::new(1 << 20, 1 << 20)), Some(start(settings)));
    let key = key("/a");
    let begin = Instant::now();
    assert!(store.get(&key).await.is_none());
    assert!(begin.elapsed() < Duration::from_secs(1));
    until("down", || matches!(store.health(), Some(RedisHealth::Down(_)))).await;
    let begin = Instant::now();
    assert_eq!(store.put(&key, response(&key, b"hello".to_vec())).await, PutOutcome::Stored);
    assert_eq!(body_of(store.get(&key).await), Some(b"hello".to_vec()));
    assert!(begin.elapsed() < Duration::from_millis(100), "memory goes on alone");
    assert_eq!(store.health_line().unwrap(), "redis: down (no reply in time)");
    silent.abort();
}

#[tokio::test]
async fn a_server_that_stops_to_answer_is_left_alone_within_a_second() {
    let server = Server::start().await;
    let settings = settings(&server.url());
    let store = Arc::new(start(settings));
    let key = key("/a");
    store.put(&key, response(&key, b"hello".to_vec()));
    store.flush().await;
    assert!(store.get(&key).await.is_some());
    server.signal("-STOP");
    let begin = Instant::now();
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { store.get(&key).await.is_some() })
        })
        .collect();
    for asked in asking {
        assert!(!asked.await.unwrap());
    }
    until("lost", || store.health() != RedisHealth::Up).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(store.get(&key).await.is_none());
    server.signal("-CONT");
    until("up", || store.health() == RedisHealth::Up).await;
    assert_eq!(body_of(store.get(&key).await), Some(b"hello".to_vec()));
}

#[tokio::test]
async fn one_node_leads_and_the_others_hear_of_it() {
    let server = Server::start().await;
    let stores = [store(&server), store(&server), store(&server)];
    let key = key("/cold");
    for store in &stores {
        until("subscribed", || store.inner.waiters.is_subscribed()).await;
    }
    let FetchClaim::Lead(lease) = stores[0].claim_fetch(&key).await else {
        panic!("nobody else asked")
    };
    let mut following = Vec::new();
    for store in &stores {
        let FetchClaim::Follow(follow) = store.claim_fetch(&key).await else {
            panic!("there is a leader")
        };
        following.push(follow);
    }
    stores[0].put(&key, response(&key, b"fetched".to_vec()));
    lease.release(LeaseResult::Stored);
    for (follow, store) in following.into_iter().zip(&stores) {
        assert_eq!(follow.result().await, LeaseResult::Stored);
        assert_eq!(body_of(store.get(&key).await), Some(b"fetched".to_vec()));
    }
    assert_eq!(server.cli(&["KEYS", "*:[lw]:*"]), "", "nothing is left behind");
    assert!(matches!(stores[1].claim_fetch(&key).await, FetchClaim::Lead(_)));
}

#[tokio::test]
async fn a_lease_that_is_dropped_lets_the_next_one_lead() {
    let server = Server::start().await;
    let (one, other) = (store(&server), store(&server));
    until("subscribed", || other.inner.waiters.is_subscribed()).await;
    let key = key("/cold");
    let FetchClaim::Lead(lease) = one.claim_fetch(&key).await else { panic!("nobody else asked") };
    let FetchClaim::Follow(follow) = other.claim_fetch(&key).await else {
        panic!("there is a leader")
    };
    drop(lease);
    assert_eq!(follow.result().await, LeaseResult::Abandoned);
    assert!(matches!(other.claim_fetch(&key).await, FetchClaim::Lead(_)));
}

#[tokio::test]
async fn the_lease_of_a_dead_node_runs_out() {
    let server = Server::start().await;
    let (one, other) = (store(&server), store(&server));
    until("subscribed", || other.inner.waiters.is_subscribed()).await;
    let key = key("/cold");
    let FetchClaim::Lead(lease) = one.claim_fetch(&key).await else { panic!("nobody else asked") };
    let FetchClaim::Follow(follow) = other.claim_fetch(&key).await else {
        panic!("there is a leader")
    };
    // As if the process had died: the lease is neither renewed nor released.
    let name = server.cli(&["KEYS", "*:l:*"]);
    server.cli(&["PEXPIRE", &name, "1"]);
    let begin = Instant::now();
    assert_eq!(follow.result().await, LeaseResult::Abandoned);
    assert!(begin.elapsed() < Duration::from_secs(5));
    let FetchClaim::Lead(next) = other.claim_fetch(&key).await else {
        panic!("the lease has run out")
    };
    lease.release(LeaseResult::Stored);
    one.flush().await;
    assert!(
        matches!(one.claim_fetch(&key).await, FetchClaim::Follow(_)),
        "the late one ended nobody else's"
    );
    drop(next);
}

#[tokio::test]
async fn a_lease_is_renewed_while_it_is_held() {
    let server = Server::start().await;
    let store = store(&server);
    let key = key("/slow");
    let FetchClaim::Lead(lease) = store.claim_fetch(&key).await else {
        panic!("nobody else asked")
    };
    let name = server.cli(&["KEYS", "*:l:*"]);
    let left = || server.cli(&["PTTL", &name]).parse::<i64>().unwrap();
    server.cli(&["PEXPIRE", &name, "1900"]);
    until("renewed", || left() > 2000).await;
    lease.release(LeaseResult::NotShareable);
    store.flush().await;
    until("landed", || server.cli(&["EXISTS", &name]) == "0").await;
}

/// A time that is longer than any request waits for a reply from Redis.
const GIVEN_UP: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn a_claim_that_redis_executes_late_is_not_granted() {
    let server = Server::start().await;
    let store = store(&server);
    let FetchClaim::Lead(first) = store.claim_fetch(&key("/first")).await else {
        panic!("nobody else asked")
    };
    first.release(LeaseResult::Abandoned);
    until("landed", || server.cli(&["KEYS", "*:l:*"]).is_empty()).await;
    server.signal("-STOP");
    let (one, other) = (key("/one"), key("/other"));
    let claims = [store.claim_fetch(&one), store.claim_fetch(&other)];
    let claims = futures_util::future::join_all(claims).await;
    tokio::time::sleep(GIVEN_UP).await;
    server.signal("-CONT");
    assert_eq!(server.cli(&["KEYS", "*:l:*"]), "", "nobody takes these leases");
    until("up", || store.health() == RedisHealth::Up).await;
    let executed = server.cli(&["INFO", "commandstats"]);
    assert!(executed.contains("cmdstat_evalsha"), "{executed}");
    drop(claims);
}

#[tokio::test]
async fn a_lease_whose_fetch_ends_while_redis_is_away_is_given_back() {
    let server = Server::start().await;
    let (store, other) = (store(&server), store(&server));
    until("subscribed", || other.inner.waiters.is_subscribed()).await;
    let key = key("/cold");
    let FetchClaim::Lead(lease) = store.claim_fetch(&key).await else {
        panic!("nobody else asked")
    };
    let name = server.cli(&["KEYS", "*:l:*"]);
    server.cli(&["PEXPIRE", &name, "600000"]);
    server.signal("-STOP");
    while store.health() == RedisHealth::Up {
        store.get(&key).await;
    }
    lease.release(LeaseResult::Stored);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.signal("-CONT");
    until("given back", || server.cli(&["EXISTS", &name]) == "0").await;
}

#[tokio::test]
async fn what_redis_gets_to_too_late_is_not_stored() {
    let server = Server::start().await;
    let store = store(&server);
    let (before, late) = (key("/before"), key("/late"));
    store.put(&before, response(&before, b"hello".to_vec()));
    store.flush().await;
    server.signal("-STOP");
    store.put(&late, response(&late, b"hello".to_vec()));
    // Ten deadlines of 250 ms, and some margin.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    server.signal("-CONT");
    assert_eq!(server.cli(&["DBSIZE"]), "1");
}

#[tokio::test]
async fn a_clock_of_redis_that_is_set_costs_one_round_trip() {
    let server = Server::start().await;
    let store = store(&server);
    let FetchClaim::Lead(_first) = store.claim_fetch(&key("/first")).await else {
        panic!("nobody asked")
    };
    // As if the server's clock had been an hour behind when it was read.
    let (clocks, now) = (store.inner.connector.clocks(), Instant::now());
    let trip = redis::clock::RoundTrip { sent: now, answered: now };
    clocks.record(b"any", 1, trip);
    assert!(matches!(store.claim_fetch(&key("/second")).await, FetchClaim::Lead(_)));
    let granted = server.cli(&["KEYS", "*:l:*"]);
    assert_eq!(granted.lines().count(), 2, "{granted}");
}

#[tokio::test]
async fn how_long_redis_keeps_what_is_stale_changes_with_the_configuration() {
    let server = Server::start().await;
    let store = TieredStore::new(None, Some(store_with_long_deadlines(&server)));
    let key = key("/a");
    let left = || {
        let name = server.cli(&["KEYS", "*:e:*"]);
        server.cli(&["PTTL", &name]).parse::<u64>().unwrap() / 1000
    };
    store.put(&key, response(&key, b"hello".to_vec())).await;
    store.flush().await;
    assert!(left() < 60 + 30 + 601, "{}", left());
    store.set_stale_for(Duration::from_hours(6));
    store.put(&key, response(&key, b"hello".to_vec())).await;
    store.flush().await;
    assert!(left() > 6 * 3600, "{}", left());
}

#[tokio::test]
async fn a_removal_is_seen_by_reads_under_way_even_if_it_cannot_be_written() {
    let server = Server::absent();
    let store = store(&server);
    until("down", || matches!(store.health(), RedisHealth::Down(_))).await;
    let before = store.removals();
    store.remove(key("/a").digest());
    assert_ne!(store.removals(), before);
}

#[test]
fn what_is_large_once_it_is_unpacked_is_unpacked_on_another_thread() {
    let options =
        EncodeOptions { compress_above: 0, chunk: chunks::SIZE, body_id: 0, clock_offset: 0 };
    let packed = |length| {
        let packed = codec::encode(&response(&key("/a"), vec![b'x'; length]), options).head;
        assert!(packed.len() < 1 << 10, "a few bytes stand for many");
        Box::pin(sealing::decode(packed.into(), 1 << 20))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let other_thread = tokio::task::spawn_blocking(move || released.recv().is_ok());
        let small = packed(sealing::INLINE_DECODE_LIMIT - 1024).now_or_never();
        assert!(small.is_some_and(|entry| entry.is_some()), "here, at once");
        let mut large = packed(sealing::INLINE_DECODE_LIMIT + 1);
        assert!((&mut large).now_or_never().is_none(), "the other thread is busy");
        release.send(()).unwrap();
        assert!(large.await.is_some() && other_thread.await.unwrap());
    });
}

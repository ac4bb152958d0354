//! Event streams over each protocol, with many listeners, until the node shuts down.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::testing::{
    feed::{Caller, CorsOrigins, Feed, LogUpdate, Settings, TagPattern},
    fence::{Fence, LogId, Purge, PurgeMode, PurgeRecord, PurgeSource, Selector},
    field::Timestamp,
    server::{Connection, Incoming, Settings as ServerSettings},
    telemetry::Metrics,
};
use tokio::{net::TcpStream, sync::mpsc};

use crate::support::{
    process::Process,
    proxy::{Proxy, request, request_with_body},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    serving::{FnHandler, TestServer, reply},
    wire::Wire,
    within, within_seconds,
};

/// A feed behind a server, and the source of its records.
struct Station {
    feed: Arc<Feed>,
    serving: TestServer,
    metrics: Arc<Metrics>,
    records: mpsc::Sender<LogUpdate>,
}

impl Station {
    /// Starts a feed that shows every tag, with an empty log.
    async fn start(listeners: usize) -> Self {
        let tags = vec![TagPattern::parse("*").unwrap()];
        let settings =
            Settings { origins: CorsOrigins::Any, tags, listeners, per_client: listeners };
        let metrics = Metrics::new();
        let now = || Timestamp::from_seconds(1000);
        let feed = Arc::new(Feed::new(Some(settings), Arc::clone(&metrics), Vec::new, now));
        let (records, received) = mpsc::channel(8);
        let fence = Fence { log: LogId(1), seq: 0 };
        let begin = LogUpdate::Begin { fence, at: now(), records: Vec::new() };
        records.send(begin).await.unwrap();
        let (following, answering) = (Arc::clone(&feed), Arc::clone(&feed));
        tokio::spawn(async move { following.follow(received).await });
        let answer = move |request: Request<Incoming>, _: Arc<Connection>| {
            let answer = answering.respond(&request, &Caller::default());
            async move {
                let Some(answer) = answer else { return reply(200, "elsewhere") };
                answer.map(|body| body.map_err(|never: Infallible| match never {}).boxed_unsync())
            }
        };
        let serving = TestServer::start(FnHandler(answer), ServerSettings::default());
        Self { feed, serving, metrics, records }
    }

    async fn purge(&self, seq: u64, tag: &str) {
        let selectors = vec![Selector::Tag(tag.into())];
        let purge = Purge {
            mode: PurgeMode::Hard,
            selectors,
            source: PurgeSource::Api,
            reason: None,
            warm: false,
        };
        let record = PurgeRecord { seq, at: Timestamp::from_seconds(seq), purge };
        self.records.send(LogUpdate::Record(LogId(1), Arc::new(record))).await.unwrap();
    }

    /// Connects a listener, and skips its first event.
    async fn listener(&self) -> Wire {
        let mut wire = Wire::connect(self.serving.address).await;
        wire.write(request("GET", "/_larder/events", &[])).await;
        wire.read_until("event: hello\ndata: ").await;
        wire
    }

    /// Waits until there are this many listeners.
    async fn listened_to_by(&self, count: i64) {
        while self.metrics.feed.listeners.get() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_listener_hears_each_purge_as_it_comes() {
    within(async {
        let station = Station::start(10).await;
        let mut wire = Wire::connect(station.serving.address).await;
        wire.write(request("GET", "/_larder/events", &[("origin", "https://a.test")])).await;
        let head = wire.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        for field in ["content-type: text/event-stream\r\n", "access-control-allow-origin: *\r\n"] {
            assert!(head.to_ascii_lowercase().contains(field), "{head}");
        }
        wire.read_until("event: hello\n").await;
        for seq in 1..=3 {
            station.purge(seq, "kpi").await;
            wire.read_until(&format!("id: {seq}\nevent: purge\ndata: {{\"seq\":{seq},")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn over_http2_many_listen_on_one_connection() {
    within(async {
        let station = Station::start(100).await;
        let stream = TcpStream::connect(station.serving.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut bodies = Vec::new();
        for _ in 0..100 {
            let request = Request::get("http://a.test/_larder/events");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
            bodies.push(response.into_body());
        }
        station.listened_to_by(100).await;
        station.purge(1, "kpi").await;
        for body in &mut bodies {
            let mut received = String::new();
            while !received.contains("event: purge\ndata: {\"seq\":1,") {
                let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
                received.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
        drop(bodies);
        station.listened_to_by(0).await;
    })
    .await;
}

#[tokio::test]
async fn who_goes_away_makes_room() {
    within(async {
        let station = Station::start(1).await;
        let first = station.listener().await;
        let mut wire = Wire::connect(station.serving.address).await;
        let refused = wire.exchange(request("GET", "/_larder/events", &[])).await;
        assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("5")));
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        drop(first);
        station.listened_to_by(0).await;
        station.listener().await;
    })
    .await;
}

#[tokio::test]
async fn a_drain_ends_streams_and_nothing_is_cut_off() {
    within(async {
        let station = Station::start(10).await;
        let mut wire = station.listener().await;
        station.serving.drain.start();
        station.purge(1, "kpi").await;
        wire.read_until("event: purge\n").await;
        station.feed.close();
        assert!(wire.read_to_end().await.ends_with("\r\n0\r\n\r\n"), "a body with an end");
        assert_eq!(station.serving.drain.finished(Duration::from_secs(5)).await, 0);
    })
    .await;
}

/// Five thousand listeners, if the limit on open files permits.
#[tokio::test]
async fn thousands_listen_on_one_node() {
    within_seconds(60, async {
        let sockets: usize = open_files();
        let count = 5000.min(sockets.saturating_sub(1000) / 2);
        let station = Station::start(count).await;
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(station.listener().await);
        }
        station.purge(1, "kpi").await;
        station.purge(2, "kpi").await;
        for wire in &mut listeners {
            wire.read_until("id: 1\nevent: purge\n").await;
            wire.read_until("id: 2\nevent: purge\n").await;
        }
        let all = u64::try_from(count).unwrap();
        assert_eq!(station.metrics.feed.sent.get(), 2 * all);
        assert_eq!(station.metrics.feed.resets.get(), 0);
        drop(listeners);
        station.listened_to_by(0).await;
    })
    .await;
}

/// Returns the limit on open files of this process.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test]
async fn a_node_answers_for_events_itself_or_says_that_it_does_not() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(&request.target)).await;
        let proxy = Proxy::before(&origin.url());
        for path in ["/_larder/events", "/_larder/sync", "/_larder/version"] {
            let off = proxy.get(path).await;
            assert_eq!(off.status(), 404);
            assert!(off.body.contains("no `[events]`"), "{}", off.body);
        }
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

const EVENTS: &str = "admin.token = \"secret\"\n[events]\ntags = [\"tile:*\"]\n";

/// Purges by a call, and returns the sequence number.
async fn purge(address: std::net::SocketAddr, body: &str) -> u64 {
    let fields = [("authorization", "Bearer secret")];
    let call = request_with_body("POST", "/v1/purge", &fields, body);
    let receipt = Wire::connect(address).await.exchange(call).await;
    assert_eq!(receipt.status(), 200, "{receipt:?}");
    let receipt: serde_json::Value = serde_json::from_str(&receipt.body).unwrap();
    receipt["seq"].as_u64().unwrap()
}

/// Repeats a purge call until it succeeds, and returns the sequence number.
async fn again_and_again(address: std::net::SocketAddr, body: &str) -> u64 {
    loop {
        let call =
            request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], body);
        let receipt = Wire::connect(address).await.exchange(call).await;
        if receipt.status() == 200 {
            let receipt: serde_json::Value = serde_json::from_str(&receipt.body).unwrap();
            return receipt["seq"].as_u64().unwrap();
        }
        assert_eq!(receipt.status(), 503, "{receipt:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns the JSON response to a `GET` of this target.
async fn get_json(address: std::net::SocketAddr, target: &str) -> serde_json::Value {
    let answer = Wire::connect(address).await.exchange(request("GET", target, &[])).await;
    assert_eq!(answer.status(), 200, "{target}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn who_listens_hears_what_was_purged_by_its_receipt() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(&request.target)).await;
        let proxy = Proxy::with(&origin.url(), EVENTS);
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/_larder/events", &[])).await;
        wire.read_until("event: hello\n").await;
        let hidden = [r#"{"tags":["secret"]}"#, r#"{"urls":["/tile:a"]}"#, r#"{"prefixes":["/"]}"#];
        for body in hidden {
            purge(proxy.admin_address(), body).await;
        }
        let shown = r#"{"tags":["secret","tile:a"],"urls":["/b"],"reason":"why","mode":"soft"}"#;
        let seq = purge(proxy.admin_address(), shown).await;
        let before = wire.read_until("event: purge\n").await;
        assert!(before.ends_with(&format!("id: {seq}\nevent: purge\n")), "{before}");
        let received = wire.read_until("\n\n").await;
        assert!(received.contains("\"mode\":\"soft\",\"tags\":[\"tile:a\"]}\n"), "{received}");
        let synced = get_json(proxy.address, "/_larder/sync?since=1").await;
        assert_eq!(synced["purges"].as_array().unwrap().len(), 1);
        assert_eq!(get_json(proxy.address, "/_larder/version").await["seq"], seq);
        proxy.reconfigure(&origin.url(), "");
        assert_eq!(proxy.get("/_larder/version").await.status(), 404);
        wire.read_until("\r\n0\r\n\r\n").await;
    })
    .await;
}

#[tokio::test]
async fn a_place_of_one_node_is_a_place_on_every_other() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(&request.target)).await;
        let configuration = format!("{EVENTS}[store]\n{}", redis.store());
        let nodes = [0, 1].map(|_| Proxy::with(&origin.url(), &configuration));
        for node in &nodes {
            node.until_synced().await;
            while node.get("/_larder/version").await.status() == 503 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let begin = get_json(nodes[0].address, "/_larder/sync").await["next"].clone();
        let first = purge(nodes[0].admin_address(), r#"{"tags":["tile:a"]}"#).await;
        let second = purge(nodes[1].admin_address(), r#"{"tags":["tile:b"]}"#).await;
        for node in &nodes {
            let target = format!("/_larder/sync?since={}", begin.as_str().unwrap());
            let synced = loop {
                let synced = get_json(node.address, &target).await;
                if synced["seq"] == second {
                    break synced;
                }
            };
            let seqs = [&synced["purges"][0]["seq"], &synced["purges"][1]["seq"]];
            assert_eq!((seqs, &synced["reset"]), ([&first.into(), &second.into()], &false.into()));
        }
        let mut wire = nodes[1].connect().await;
        let place = format!("{first}-{}", begin.as_str().unwrap().split_once('-').unwrap().1);
        wire.write(request("GET", "/_larder/events", &[("last-event-id", &place)])).await;
        wire.read_until(&format!("id: {second}\nevent: purge\n")).await;
        redis.restart().await;
        let third = again_and_again(nodes[0].admin_address(), r#"{"tags":["tile:c"]}"#).await;
        let before = wire.read_until("event: purge\n").await;
        assert!(before.ends_with(&format!("id: {third}\nevent: purge\n")), "{before}");
        assert!(!before.contains("event: reset"), "{before}");
    })
    .await;
}

#[tokio::test]
async fn a_listener_costs_little_memory() {
    within_seconds(60, async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        let text = "listen = \"127.0.0.1:0\"\norigin = \"http://127.0.0.1:1\"\nlog.access = \"off\"\n\
                    [admin]\nlisten = \"127.0.0.1:0\"\n[events]\ntags = \"*\"\nper_client = 5000\n";
        std::fs::write(&file, text).unwrap();
        let process = Process::run(&["--config", file.to_str().unwrap()]).await;
        let count = 5000.min(open_files().saturating_sub(1000));
        let before = process.memory();
        let mut listeners = Vec::new();
        for _ in 0..count {
            let mut wire = Wire::connect(process.address).await;
            wire.write(request("GET", "/_larder/events", &[])).await;
            wire.read_until("retry: ").await;
            listeners.push(wire);
        }
        let each = (process.memory() - before) / u64::try_from(count).unwrap();
        println!("{count} listeners, {each} bytes each");
        assert!(each < 24 << 10, "{each} bytes");
    })
    .await;
}

//! The fast path of HTTP/1.1: whoever sends what, the responses are those that hyper's way gives.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, LazyLock, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use larder::testing::server::{
    BodyFile, BodyFiles, Connection, Declined, Deferrer, FastPathMode, Handler, ImmediateResponder,
    Incoming, PlainRequest, ResponseBatch, Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    certificate::Certificate,
    fleet::short_sleep,
    proxy::{Proxy, request, request_with_body},
    random::Random,
    script::{OriginResponse, ScriptedOrigin},
    serving::{BoxBody, FnHandler, TestServer, reply},
    token::{bearer_until, by_token, now, outcome},
    wire::{RawOrigin, Wire, header},
    within, within_seconds,
};

/// A handler that tells which way a request took: `fast` or `usual`, and its path. It declines
/// `/declined`, and sends a long body for `/long`, for `/file` from a file, and a longer one for
/// `/huge`.
struct Tell;

impl Handler for Tell {
    type Body = BoxBody;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        _: &Arc<Connection>,
    ) -> Response<BoxBody> {
        reply(200, format!("usual {}", request.uri()))
    }

    fn immediate_responder(
        self: &Arc<Self>,
        _: HeaderMap,
        _: &Arc<Connection>,
        _: &Arc<dyn Deferrer<BoxBody>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        Some(TellFast)
    }
}

struct TellFast;

impl ImmediateResponder for TellFast {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        batch.head().extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        if request.path == "/declined" {
            return Err(Declined::Request);
        }
        let body = match request.path {
            "/long" | "/file" => long_body(),
            "/huge" => "x".repeat(HUGE),
            path => {
                let sent = String::from_utf8_lossy(request.content.unwrap_or_default());
                format!("fast {path} {sent}").trim_end().to_owned()
            }
        };
        let length = format!("content-length: {}\r\n\r\n", body.len());
        batch.head().extend_from_slice(length.as_bytes());
        if request.path == "/file" && batch.sends_files() {
            batch.push_file(body.into(), &FILE);
        } else {
            batch.push_body(body.as_bytes(), || body.clone().into());
        }
        Ok(())
    }
}

const LONG: usize = 100_000;

/// More than all buffers between client and server take.
const HUGE: usize = 32 << 20;

fn long_body() -> String {
    format!("fast {}", "x".repeat(LONG))
}

/// The long body in a file.
static FILE: LazyLock<Arc<BodyFile>> = LazyLock::new(|| {
    let (body, files) = (long_body(), BodyFiles::new(1, 1 << 20));
    Arc::new(files.turn(body.len()).unwrap().create(body.as_bytes()).unwrap())
});

fn get(path: &str) -> String {
    request("GET", path, &[])
}

/// Responds by the path: each kind of response that the cache treats in its own way.
async fn origin() -> RawOrigin {
    RawOrigin::start(|mut wire, _| async move {
        while let Some(head) = wire.try_read_head().await {
            let Some(body) = wire.try_read_body(&head).await else { return };
            let mut words = head.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let path = target.split('?').next().unwrap();
            let reply = origin_reply(path, &body);
            let reply = if method == "HEAD" {
                reply.split_inclusive("\r\n\r\n").next().unwrap().to_owned()
            } else {
                reply
            };
            if !wire.try_write(reply).await {
                return;
            }
        }
    })
    .await
}

fn origin_reply(path: &str, sent: &str) -> String {
    let text = |bytes: usize| format!("{path} ").repeat(bytes / (path.len() + 1) + 1);
    let (status, fields, body) = match path {
        "/fresh" => ("200 OK", "ETag: \"f\"\r\nContent-Type: text/plain\r\n", text(900)),
        "/modified" => (
            "200 OK",
            "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\nLink: <a>\r\nLink: <b>\r\n",
            text(10),
        ),
        "/long" => ("200 OK", "ETag: \"l\"\r\n", text(20_000)),
        "/large" => ("200 OK", "ETag: \"m\"\r\n", text(1_100_000)),
        "/empty" => ("200 OK", "", String::new()),
        "/language" => ("200 OK", "Vary: Accept-Language\r\n", text(50)),
        "/cors" => ("200 OK", "Access-Control-Allow-Origin: *\r\nSurrogate-Key: a\r\n", text(50)),
        "/none" => ("204 No Content", "", String::new()),
        "/moved" => ("301 Moved Permanently", "Location: /fresh\r\n", text(5)),
        "/missing" => ("404 Not Found", "", text(5)),
        "/odd" => ("299 Odd", "", text(5)),
        "/trailers" => {
            return "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
                .to_owned();
        }
        "/passed" => ("200 OK", "Cache-Control: no-store\r\n", text(30)),
        "/graphql" => ("200 OK", "Content-Type: application/json\r\n", "{\"data\":1}".to_owned()),
        "/search" => ("200 OK", "Content-Type: application/json\r\n", format!("[{sent}]")),
        _ => return format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sent}", sent.len()),
    };
    let length = match status {
        "204 No Content" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let cached = if fields.contains("no-store") { "" } else { "Cache-Control: max-age=60\r\n" };
    format!("HTTP/1.1 {status}\r\n{cached}{fields}{length}\r\n{body}")
}

const PATHS: [&str; 14] = [
    "/fresh",
    "/modified",
    "/long",
    "/large",
    "/empty",
    "/language",
    "/cors",
    "/none",
    "/moved",
    "/missing",
    "/odd",
    "/trailers",
    "/passed",
    "/other",
];

const SUFFIXES: [&str; 6] = ["", "", "", "?", "?a=b&c", "?x[]=1"];

/// Fields of a request besides `Host`, some of which are refused.
const FIELDS: [&str; 29] = [
    "",
    "Accept: */*\r\nUser-Agent: test\r\n",
    "accept:*/*\r\n",
    "Connection: keep-alive\r\n",
    "Connection: close\r\n",
    "Connection: x\r\nX: y\r\n",
    "Accept-Language: de\r\n",
    "Accept-Language: en;q=0.5, de\r\n",
    "Accept-Encoding: gzip, br\r\n",
    "Accept-Encoding: identity;q=0\r\n",
    "If-None-Match: \"f\"\r\n",
    "If-None-Match: \"g\"\r\n",
    "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n",
    "If-Match: \"f\"\r\n",
    "Range: bytes=0-3\r\n",
    "Range: bytes=90000-\r\n",
    "Range: bytes=1-2,4-5\r\n",
    "Range: bytes=0-3\r\nIf-Range: \"f\"\r\n",
    "Cache-Control: no-cache\r\n",
    "Cache-Control: no-store\r\n",
    "Cache-Control: max-age=0\r\n",
    "Cache-Control: only-if-cached\r\n",
    "Cookie: _ga=1\r\n",
    "Cookie: session=1\r\n",
    "Authorization: Bearer x\r\n",
    "X-Forwarded-Host: other\r\nX-Request-ID: 0123456789abcdef\r\n",
    "Upgrade: websocket\r\nConnection: upgrade\r\n",
    "Content-Length: 0\r\n",
    "Origin: https://a.test\r\n",
];

/// Paths of requests with content, which the routes of some tests key.
const PATHS_WITH_CONTENT: [&str; 4] = ["/graphql", "/graphql", "/search", "/other"];

/// Contents, some of which servers read as the same, or do not read.
const CONTENTS: [&str; 8] = [
    "{\"query\":\"{a}\"}",
    "{\"query\":\"{a}\"}",
    "{\"query\":\"{b}\"}",
    "{\"query\":\"{ a }\",\"variables\":{}}",
    "{\"query\":\"mutation {a}\"}",
    "{\"query\":\"{__schema{types{name}}}\"}",
    "[1, 2]",
    "GET /fresh HTTP/1.1\r\nHost: api.test\r\n\r\n",
];

/// Whole messages that no plain request is like.
const ODD: [&str; 12] = [
    "\r\n",
    "\r\n\r\nGET /fresh HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "GET /fresh HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive\r\n\r\n",
    "GET http://api.test/fresh HTTP/1.1\r\nHost: other\r\n\r\n",
    "GET /fresh HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "POST /other HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello",
    "POST /other HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT /fresh HTTP/1.1\r\nHost: api.test\r\nContent-Length: 46\r\n\r\nGET /fresh HTTP/1.1\r\nHost: smuggled.test\r\n\r\n  ",
    "OPTIONS * HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "GET /fresh HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "GET /_larder/unknown HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "GET /caf%C3%A9/../fresh HTTP/1.1\r\nHost: api.test\r\n\r\n",
];

/// Messages after which the connection ends.
const LAST: [&str; 7] = [
    "GET /fresh#a HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "GET /fresh HTTP/1.1\r\n\r\n",
    "GET /fresh HTTP/1.1\nHost: api.test\n\n",
    "GET /fresh HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /fr esh HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "GET /fresh HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
    "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n",
];

/// Returns fields of the same names, with values of their own.
fn varied_fields(random: &mut Random) -> String {
    let tag = random.pick(&["f", "g", "l"]);
    let (language, user) = (random.pick(&["de", "en"]), random.below(3));
    let id = random.below(1000);
    format!(
        "X-Request-ID: {id}\r\nIf-None-Match: \"{tag}\"\r\nAccept-Language: {language}\r\n\
         Authorization: Bearer {user}\r\n"
    )
}

/// Returns the messages of one connection, in which fields or their names mostly repeat, and how
/// they are split.
fn conversation(random: &mut Random) -> (Vec<u8>, Vec<usize>) {
    let mut text = String::new();
    let mut fields = (*random.pick::<&str>(&FIELDS)).to_owned();
    let is_varied = random.one_in(3);
    for _ in 0..=random.below(12) {
        if random.one_in(8) {
            text.push_str(random.pick::<&str>(&ODD));
            continue;
        }
        if random.one_in(4) {
            (*random.pick::<&str>(&FIELDS)).clone_into(&mut fields);
        } else if is_varied {
            fields = varied_fields(random);
        }
        if random.one_in(3) {
            let (path, content) = (random.pick(&PATHS_WITH_CONTENT), random.pick(&CONTENTS));
            let method = if random.one_in(5) { "QUERY" } else { "POST" };
            let length = content.len();
            write!(
                text,
                "{method} {path} HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n{fields}\r\n{content}"
            )
            .unwrap();
            continue;
        }
        let method = if random.one_in(5) { "HEAD" } else { "GET" };
        let (path, suffix) = (random.pick(&PATHS), random.pick(&SUFFIXES));
        let repeats = if random.one_in(2) { random.below(4) } else { 0 };
        for _ in 0..=repeats {
            write!(text, "{method} {path}{suffix} HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n")
                .unwrap();
        }
    }
    text.push_str(random.pick::<&str>(&LAST));
    let length = text.len();
    let splits = match random.below(4) {
        0 => Vec::new(),
        1 => (1..length).collect(),
        _ => (0..random.below(8)).map(|_| random.below(length)).collect(),
    };
    // Whole heads arrive in one piece most of the time.
    let heads = text.match_indices("\r\n\r\n").map(|(at, _)| at + 4);
    let mut splits: Vec<usize> = if random.one_in(3) { splits } else { heads.collect() };
    splits.sort_unstable();
    (text.into_bytes(), splits)
}

/// Sends bytes in pieces, and returns everything that comes until the end.
async fn exchange(address: SocketAddr, (bytes, splits): &(Vec<u8>, Vec<usize>)) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut from, mut to) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        while let Ok(1..) = from.read_buf(&mut received).await {}
        String::from_utf8_lossy(&received).into_owned()
    });
    let mut start = 0;
    for end in splits.iter().copied().chain([bytes.len()]) {
        let piece = &bytes[start..end.max(start)];
        // The connection may have ended before.
        if to.write_all(piece).await.is_err() {
            break;
        }
        start = end.max(start);
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
    reading.await.unwrap()
}

/// Replaces what differs from run to run.
fn comparable(responses: &str) -> String {
    let lines = responses.split_inclusive("\r\n").map(|line| {
        let name = line.split(':').next().unwrap_or_default();
        match name {
            "date" | "x-request-id" => format!("{name}: …\r\n"),
            _ => line.to_owned(),
        }
    });
    lines.collect()
}

/// Returns the counters of requests, without those that are zero.
async fn counted(proxy: &Proxy) -> Vec<String> {
    let text = proxy.admin("/metrics").await.body;
    let counters = [
        "larder_requests_total{",
        "larder_response_bytes_total{",
        "larder_uncached_total{",
        "larder_refused_requests_total{",
        "larder_request_duration_seconds_count{",
    ];
    let lines = text
        .lines()
        .filter(|line| counters.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0"));
    lines.map(str::to_owned).collect()
}

/// Returns the access log without times and identifiers.
async fn logged(proxy: &Proxy) -> Vec<String> {
    proxy.get("/last").await;
    let lines = proxy.log_with("/last").await;
    let lines = lines.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        for name in ["ts", "dur_ms", "request_id"] {
            line.as_object_mut().unwrap().remove(name);
        }
        line.to_string()
    });
    lines.collect()
}

/// Compares this mode with hyper's way: responses, metrics and the access log.
///
/// Few clients leave descriptors for files of large bodies, which are hit again and again.
/// The leak detector is off: it sends some hits another way, at times of its own, on which fields
/// come in another order.
async fn compare(fast_path: FastPathMode, toml: &str, seeds: std::ops::Range<u64>) {
    let toml = &format!("limits.connections = 100\ndefaults.detect_leaks = false\n{toml}");
    let origin = origin().await;
    let modes = [fast_path, FastPathMode::Off];
    let [fast, usual] = modes.map(|mode| Proxy::with_fast_path(&origin.url(), toml, mode));
    let mut hits = 0;
    for seed in seeds.clone() {
        let conversation = conversation(&mut Random::seeded(seed + 1));
        let expected = comparable(&exchange(usual.address, &conversation).await);
        let got = comparable(&exchange(fast.address, &conversation).await);
        let sent = String::from_utf8_lossy(&conversation.0);
        assert_eq!(got, expected, "seed {seed}, split at {:?}:\n{sent}", conversation.1);
        hits += expected.matches("x-api-cache: HIT").count();
    }
    assert!(hits > seeds.count(), "{hits} hits");
    assert_eq!(counted(&fast).await, counted(&usual).await);
    assert_eq!(logged(&fast).await, logged(&usual).await);
}

#[tokio::test]
async fn repeated_requests_get_the_responses_that_hyper_gives() {
    within_seconds(120, compare(FastPathMode::On, "", 0..150)).await;
}

#[tokio::test]
async fn first_requests_would_get_the_responses_that_hyper_gives() {
    within_seconds(120, compare(FastPathMode::Eager, "", 1000..1150)).await;
}

#[tokio::test]
async fn routes_change_nothing_about_that() {
    let toml = "server_timing = false\n\
        [[route]]\nname = \"public\"\nmatch = \"/fresh\"\npartition = \"everyone\"\nttl = \"1m\"\n\
        [[route]]\nname = \"coded\"\nmatch = \"/long\"\nttl = \"1m\"\nencode = [\"gzip\"]\n\
        [[route]]\nname = \"graphql\"\nmatch = \"/graphql\"\ngraphql = true\nttl = \"1m\"\n\
        [[route]]\nname = \"search\"\nmatch = \"POST|QUERY /search\"\nkey = \"json-body\"\nttl = \"1m\"\n\
        [[route]]\nname = \"private\"\nmatch = \"/modified\"\nttl = \"1m\"\npartition = \"user\"\n\
        [[route]]\nname = \"audited\"\nmatch = \"/cors\"\nttl = \"1m\"\nclient_cache = \"no-cache\"\n";
    within_seconds(120, compare(FastPathMode::Eager, toml, 2000..2100)).await;
}

#[tokio::test]
async fn the_length_that_a_client_sends_counts_and_not_that_of_the_request_before() {
    within(async {
        let toml = "[[route]]\nname = \"search\"\nmatch = \"POST|QUERY /search\"\nkey = \"json-body\"\n\
            ttl = \"1m\"\nbypass = { header = [\"content-length: 6\"] }\n";
        let origin = origin().await;
        let proxy = Proxy::with_fast_path(&origin.url(), toml, FastPathMode::On);
        let mut wire = proxy.connect().await;
        for (content, result) in
            [("[1,2]", "MISS"), ("[1,2]", "HIT"), ("[1, 2]", "BYPASS"), ("[1,2]", "HIT")]
        {
            let fields = [("content-type", "application/json")];
            let sent = request_with_body("POST", "/search", &fields, content);
            assert_eq!(wire.exchange(sent).await.cache(), result, "{content}");
        }
    })
    .await;
}

/// The connection remembers the response whose tag a condition lists.
#[tokio::test]
async fn a_condition_counts_for_its_own_request_and_target() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with_fast_path(&origin.url(), "", FastPathMode::On);
        for path in ["/fresh", "/long"] {
            proxy.get(path).await;
        }
        let mut wire = proxy.connect().await;
        for (path, tags, status) in [
            ("/fresh", "\"f\"", 304),
            ("/fresh", "\"f\"", 304),
            ("/long", "\"f\"", 200),
            ("/fresh", "\"f\"", 304),
            ("/fresh", "\"l\"", 200),
            ("/long", "\"l\"", 304),
            ("/fresh", "\"l\"", 200),
            ("/fresh", "\"l\", W/\"f\"", 304),
            ("/long", "\"l\", W/\"f\"", 304),
        ] {
            let sent = request("GET", path, &[("if-none-match", tags)]);
            let reply = wire.exchange(sent).await;
            assert_eq!((reply.status(), reply.cache()), (status, "HIT"), "{path} {tags}");
        }
    })
    .await;
}

/// The connection keeps the plan of a request that repeats.
#[tokio::test]
async fn repeated_requests_with_a_token_end_with_it_and_a_reload_counts_at_once() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("x")).await;
        let toml = by_token("user");
        let proxy = Proxy::with_fast_path(&origin.url(), &toml, FastPathMode::On);
        let token = bearer_until("zoe", "r", now() + 30);
        let mut wire = proxy.connect().await;
        let mut get = async |target: &str| {
            outcome(&wire.exchange(request("GET", target, &[("authorization", &token)])).await)
        };
        for expected in ["MISS cold", "HIT -", "HIT -", "HIT -"] {
            assert_eq!(get("/a").await, expected);
        }
        for target in ["/a?", "/a?b", "/a?b&c", "/", "/a/b"] {
            assert_eq!(get(target).await, "MISS cold", "{target}");
        }
        for _ in 0..3 {
            assert_eq!(get("/a").await, "HIT -");
        }
        proxy.reconfigure(&origin.url(), &format!("{toml}\nbypass = {{ query = [\"b\"] }}"));
        assert_eq!(get("/a").await, "HIT -");
        for _ in 0..3 {
            assert_eq!(get("/a?b").await, "BYPASS rule-bypass");
        }
        for _ in 0..3 {
            assert_eq!(get("/a").await, "HIT -");
        }
        proxy.advance(40);
        assert_eq!(get("/a").await, "BYPASS unverified-token");
    })
    .await;
}

/// The connection keeps the plan of a request that repeats, for as long as its fields are the same.
#[tokio::test]
async fn users_who_repeat_a_target_on_one_connection_get_their_own_responses() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(request.header("authorization").unwrap_or("none"))
        })
        .await;
        let toml =
            "[[route]]\nname = \"own\"\nmatch = \"/**\"\nttl = \"1m\"\npartition = \"user\"\n";
        for mode in [FastPathMode::On, FastPathMode::Eager] {
            let proxy = Proxy::with_fast_path(&origin.url(), toml, mode);
            let mut wire = proxy.connect().await;
            let mut known = Vec::new();
            for user in [1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 2, 1, 2, 3, 3, 3, 1] {
                let token = format!("Bearer user-{user}");
                let sent = request("GET", "/a", &[("authorization", &token)]);
                let response = wire.exchange(sent).await;
                assert_eq!(response.body, token, "{mode:?}");
                let expected = if known.contains(&user) { "HIT" } else { "MISS" };
                assert_eq!(response.cache(), expected, "{token} {mode:?}");
                known.push(user);
            }
        }
    })
    .await;
}

/// The connection keeps the head of a request that repeats, if its response takes time.
#[tokio::test]
async fn repeated_requests_reach_the_origin_like_the_first_one_and_with_ids_of_their_own() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("x").with("cache-control", "no-store")).await;
        let toml = "[[route]]\nname = \"public\"\nmatch = \"/a\"\nttl = \"1m\"\n\
            partition = \"everyone\"\n";
        for (id, is_kept) in [(None, false), (Some("an-id"), true), (Some("not an id"), false)] {
            let proxy = Proxy::with_fast_path(&origin.url(), toml, FastPathMode::Eager);
            let mut wire = proxy.connect().await;
            let earlier = origin.requests();
            let fields = [("accept", "text/html"), ("cookie", "session=1"), ("x-own", "b")];
            let id_field = id.map(|id| ("x-request-id", id));
            let fields: Vec<_> = fields.into_iter().chain(id_field).collect();
            for _ in 0..5 {
                let reply = wire.exchange(request("GET", "/a?b=1", &fields)).await;
                assert_eq!(reply.summary(), "200 MISS x");
            }
            let received = origin.received().split_off(earlier);
            let ids: HashSet<_> =
                received.iter().map(|received| received.header("x-request-id").unwrap()).collect();
            assert_eq!(ids.len(), if is_kept { 1 } else { 5 }, "{ids:?}");
            assert_eq!(ids.iter().any(|used| Some(*used) == id), is_kept, "{ids:?}");
            let heads: HashSet<String> = received
                .iter()
                .map(|received| {
                    let id = received.header("x-request-id").unwrap();
                    received.head.replace(&format!("{id}\r\n"), "-\r\n")
                })
                .collect();
            assert_eq!(heads.len(), 1, "{heads:?}");
            let head = heads.into_iter().next().unwrap();
            assert_eq!((header(&head, "cookie"), header(&head, "x-own")), (None, Some("b")));
        }
    })
    .await;
}

#[tokio::test]
async fn each_request_of_a_trusted_proxy_gets_the_response_for_its_host() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let host = request.header("x-forwarded-host").unwrap_or("none");
            OriginResponse::fresh(format!("for {host}"))
        })
        .await;
        let toml = "trusted_proxies = [\"127.0.0.0/8\"]";
        let proxy = Proxy::with_fast_path(&origin.url(), toml, FastPathMode::Eager);
        let fields = [
            "X-Forwarded-Host: a.test",
            "X-Forwarded-Host: b.test",
            "Forwarded: host=c.test",
            "Forwarded: host=d.test",
            "X-Request-ID: 1",
            "X-Forwarded-Host: b.test",
        ];
        let requests: String = fields
            .map(|field| format!("GET /a HTTP/1.1\r\nHost: api.test\r\n{field}\r\n\r\n"))
            .concat();
        let last = "GET /last HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n";
        let bytes = format!("{requests}{last}").into_bytes();
        let mut responses = String::new();
        for _ in 0..2 {
            responses = exchange(proxy.address, &(bytes.clone(), Vec::new())).await;
        }
        let bodies: Vec<&str> = responses.split("for ").skip(1).map(|rest| &rest[..4]).collect();
        let expected = ["a.te", "b.te", "c.te", "d.te", "api.", "b.te", "api."];
        assert_eq!(bodies, expected, "{responses}");
        assert_eq!(responses.matches("x-api-cache: HIT").count(), expected.len(), "{responses}");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_responses_in_order() {
    // More than any buffer between the two takes.
    const REQUESTS: usize = 2000;
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with_fast_path(&origin.url(), "", FastPathMode::On);
        let mut wire = proxy.connect().await;
        let paths = ["/long", "/fresh"];
        let bodies =
            paths.map(|path| origin_reply(path, "").split_once("\r\n\r\n").unwrap().1.to_owned());
        for path in paths.repeat(2) {
            wire.exchange(get(path)).await;
        }
        let io = wire.into_io();
        let (from, mut to) = tokio::io::split(io);
        let all = paths.map(get).concat().repeat(REQUESTS / 2);
        let writing = tokio::spawn(async move {
            to.write_all(all.as_bytes()).await.unwrap();
            to
        });
        let mut wire = Wire::new(tokio::io::join(from, tokio::io::sink()));
        for number in 0..REQUESTS {
            let reply = wire.read_reply().await;
            assert_eq!(reply.cache(), "HIT");
            assert!(reply.body == bodies[number % 2], "response {number}: {}", reply.head);
        }
        drop(writing.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn plain_requests_take_the_fast_path() {
    within(async {
        let server = TestServer::start(Tell, Settings::default());
        let mut wire = Wire::connect(server.address).await;
        let other = request("GET", "/g", &[("accept", "x")]);
        let closing = request("GET", "/i", &[("connection", "close")]);
        for (sent, expected) in [
            (get("/a"), "fast /a"),
            (get("/b"), "fast /b"),
            (get("/c?d"), "fast /c"),
            (request_with_body("POST", "/d", &[], "body"), "fast /d body"),
            (request_with_body("POST", "/d", &[], "else"), "fast /d else"),
            (request_with_body("QUERY", "/d", &[], "body"), "fast /d body"),
            (request_with_body("PUT", "/d", &[], "body"), "usual /d"),
            (request_with_body("POST", "/d", &[], "longer"), "fast /d longer"),
            (get("/e"), "fast /e"),
            (other.clone(), "fast /g"),
            (other, "fast /g"),
            (closing, "usual /i"),
        ] {
            assert_eq!(wire.exchange(&sent).await.body, expected, "{sent}");
        }
        assert_eq!(wire.read_to_end().await, "");
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_get_their_responses_in_order_whatever_way_they_take() {
    within(async {
        let server = TestServer::start(Tell, Settings::default());
        let mut wire = Wire::connect(server.address).await;
        assert_eq!(wire.exchange(get("/0")).await.body, "fast /0");
        for long in ["/long", "/file"] {
            let sent = ["/1", long, "/2", "/declined", "/3"].map(get).concat();
            wire.write(sent).await;
            assert_eq!(wire.read_reply().await.body, "fast /1");
            assert_eq!(wire.read_reply().await.body, long_body());
            for rest in ["/2", "/declined", "/3"] {
                assert_eq!(wire.read_reply().await.body, format!("usual {rest}"));
            }
        }
        // A head in two parts is hyper's, and the next one is not.
        let split = get("/4");
        let (first, second) = split.split_at(20);
        wire.write(first).await;
        wire.write(second).await;
        wire.read_reply().await;
        assert_eq!(wire.exchange(get("/5")).await.body, "fast /5");
        let post = request_with_body("POST", "/6", &[], "GET /");
        assert_eq!(wire.exchange(&post).await.body, "fast /6 GET /");
        wire.write(post.repeat(2)).await;
        for _ in 0..2 {
            assert_eq!(wire.read_reply().await.body, "fast /6 GET /");
        }
        // Content that arrives later is hyper's with its head.
        let (first, second) = post.split_at(post.len() - 2);
        wire.write(first).await;
        wire.write(second).await;
        wire.read_reply().await;
        assert_eq!(wire.exchange(&post).await.body, "fast /6 GET /");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_leaves_says_so_to_those_who_repeat_requests() {
    within(async {
        let server = TestServer::start(Tell, Settings::default());
        let mut wire = Wire::connect(server.address).await;
        wire.exchange(get("/a")).await;
        assert_eq!(wire.exchange(get("/b")).await.body, "fast /b");
        server.drain.leave();
        let reply = wire.exchange(get("/c")).await;
        assert_eq!((reply.header("connection"), &*reply.body), (Some("close"), "usual /c"));
        assert_eq!(wire.read_to_end().await, "");
    })
    .await;
}

#[tokio::test]
async fn whoever_repeats_requests_and_reads_nothing_is_closed_and_counted() {
    within(async {
        for long in ["/long", "/file"] {
            let idle_timeout = Duration::from_millis(200);
            let server = TestServer::start(Tell, Settings { idle_timeout, ..Settings::default() });
            let mut wire = Wire::connect(server.address).await;
            wire.exchange(get("/a")).await;
            let mut io = wire.into_io();
            // Ends with an error once the server has closed.
            while io.write_all(get(long).as_bytes()).await.is_ok() {}
            assert_eq!(server.counters.stalled.load(Ordering::Relaxed), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_reads_nothing_of_one_response_is_counted_once() {
    within(async {
        let idle_timeout = Duration::from_millis(200);
        let server = TestServer::start(Tell, Settings { idle_timeout, ..Settings::default() });
        let mut wire = Wire::connect(server.address).await;
        wire.write(get("/huge")).await;
        while server.counters.stalled.load(Ordering::Relaxed) == 0 {
            short_sleep().await;
        }
        while server.counters.open.load(Ordering::Relaxed) > 0 {
            short_sleep().await;
        }
        assert_eq!(server.counters.stalled.load(Ordering::Relaxed), 1);
    })
    .await;
}

/// Returns the number of complete responses.
fn complete_responses(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length: usize = head.rsplit(": ").next().unwrap().parse().unwrap();
        let Some(rest) = bytes.get(end + 4 + length..) else { break };
        (bytes, count) = (rest, count + 1);
    }
    count
}

/// TLS keeps up to 64 KiB that the socket does not accept. In some of these numbers of responses,
/// the last one ends there.
#[tokio::test]
async fn a_client_that_reads_late_over_tls_gets_the_last_response_whole() {
    within_seconds(60, async {
        let certificate = Certificate::new();
        let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
        let server = TestServer::start(Tell, settings);
        for count in 1..40 {
            let mut stream = connect_slowly(&certificate, server.address).await;
            request_slowly(&mut stream, count).await;
            let mut received = Vec::new();
            while complete_responses(&received) < count {
                let read = stream.read_buf(&mut received);
                let read = tokio::time::timeout(Duration::from_secs(5), read).await;
                assert!(read.is_ok_and(|read| read.unwrap() > 0), "{count}: {}", received.len());
            }
        }
    })
    .await;
}

/// TLS keeps what the socket does not accept, and hyper flushes it at the end.
#[tokio::test]
async fn a_client_that_does_not_read_over_tls_is_disconnected() {
    within(async {
        let certificate = Certificate::new();
        let (tls, idle_timeout) = (Some(certificate.server()), Duration::from_millis(200));
        let server = TestServer::start(Tell, Settings { tls, idle_timeout, ..Settings::default() });
        let mut stream = connect_slowly(&certificate, server.address).await;
        stream.write_all(get("/huge").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        while server.counters.stalled.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        while server.counters.open.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// hyper has ended the request, since it holds the rest of the body.
#[tokio::test]
async fn a_client_that_reads_steadily_gets_the_whole_response_whatever_else_it_has_begun() {
    within_seconds(60, async {
        let timeout = Duration::from_secs(1);
        let (header_timeout, idle_timeout) = (timeout, timeout);
        let settings = Settings { header_timeout, idle_timeout, ..Settings::default() };
        let handler = FnHandler(|_, _: Arc<Connection>| async { reply(200, "x".repeat(HUGE)) });
        let server = TestServer::start(handler, settings);
        for begun in ["", "GET /"] {
            let mut wire = Wire::connect(server.address).await;
            wire.write(get("/a") + begun).await;
            wire.read_head().await;
            let (mut left, started) = (HUGE, std::time::Instant::now());
            while left > 0 {
                let part = left.min(HUGE / 512);
                wire.read_exact(part).await;
                left -= part;
                short_sleep().await;
            }
            assert!(started.elapsed() > 2 * timeout, "read too fast to show anything");
        }
    })
    .await;
}

/// Larder may not read the rest of a head before it has sent the responses.
#[tokio::test]
async fn a_head_that_has_begun_does_not_limit_the_responses_before_it() {
    within(async {
        let header_timeout = Duration::from_millis(100);
        let settings = Settings { header_timeout, ..Settings::default() };
        let handler = FnHandler(move |_, _: Arc<Connection>| async move {
            tokio::time::sleep(3 * header_timeout).await;
            reply(200, "late")
        });
        let server = TestServer::start(handler, settings);
        let (first, second) = (get("/a"), get("/b"));
        let (begun, rest) = second.split_at(20);
        let mut wire = Wire::connect(server.address).await;
        wire.write(format!("{first}{begun}")).await;
        assert_eq!(wire.read_reply().await.body, "late");
        wire.write(rest).await;
        assert_eq!(wire.read_reply().await.body, "late");
        wire.write(begun).await;
        assert_eq!(wire.read_to_end_bytes().await, b"", "closed, since the head is due now");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_no_more_gets_the_response_before_its_last_request() {
    within(async {
        let server = TestServer::start(Tell, Settings::default());
        let mut wire = Wire::connect(server.address).await;
        wire.write(["/huge", "/declined"].map(get).concat()).await;
        wire.finish().await;
        assert_eq!(wire.read_reply().await.body.len(), HUGE);
    })
    .await;
}

/// A handler like [`Tell`] that counts the responses on the fast path.
struct Counted(watch::Sender<usize>);

impl Handler for Counted {
    type Body = BoxBody;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        _: &Arc<Connection>,
    ) -> Response<BoxBody> {
        reply(200, format!("usual {}", request.uri()))
    }

    fn immediate_responder(
        self: &Arc<Self>,
        _: HeaderMap,
        _: &Arc<Connection>,
        _: &Arc<dyn Deferrer<BoxBody>>,
    ) -> Option<impl ImmediateResponder + 'static> {
        Some(CountedFast(Arc::clone(self)))
    }
}

struct CountedFast(Arc<Counted>);

impl ImmediateResponder for CountedFast {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        self.0.0.send_modify(|count| *count += 1);
        TellFast.respond(request, batch)
    }
}

/// Requests a long response again and again, each in a piece of its own, until the server no longer
/// reads. Returns the number of responses.
async fn fill(
    io: &mut (impl AsyncWrite + Unpin),
    count: &mut watch::Receiver<usize>,
    long: &str,
) -> usize {
    loop {
        let before = *count.borrow();
        io.write_all(get(long).as_bytes()).await.unwrap();
        let answered = count.wait_for(|count| *count > before);
        if tokio::time::timeout(Duration::from_millis(500), answered).await.is_err() {
            return before;
        }
    }
}

#[tokio::test]
async fn a_shutdown_lets_whoever_repeats_requests_read_what_is_on_its_way() {
    for long in ["/long", "/file"] {
        shut_down_while_full(long).await;
    }
}

async fn shut_down_while_full(long: &str) {
    within(async {
        let (sender, mut count) = watch::channel(0);
        let server = TestServer::start(Counted(sender), Settings::default());
        let mut wire = Wire::connect(server.address).await;
        wire.exchange(get("/a")).await;
        let mut io = wire.into_io();
        let answered = fill(&mut io, &mut count, long).await;
        assert!(answered > 1, "more than one fits into the buffers");
        io.write_all(get("/late").repeat(400).as_bytes()).await.unwrap();
        server.drain.leave();
        server.drain.start();
        let mut received = Vec::new();
        io.read_to_end(&mut received).await.expect("no reset");
        let fast = assert_whole(&String::from_utf8(received).unwrap());
        assert_eq!(fast, answered - 1, "all but the first");
    })
    .await;
}

/// Fails if a response is cut off. Returns the number of those on the fast path.
fn assert_whole(received: &str) -> usize {
    let mut rest = received;
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let length = header(head, "content-length").unwrap();
        let length: usize = length.parse().unwrap();
        assert!(behind.len() >= length, "a response is cut off");
        rest = &behind[length..];
    }
    assert_eq!(rest, "");
    received.matches("fast ").count()
}

/// The server has not read all requests, which would turn the close into a reset.
#[tokio::test]
async fn a_shutdown_over_tls_ends_the_stream_behind_the_last_response() {
    within_seconds(60, async {
        let certificate = Certificate::new();
        for count in (2..40).step_by(3) {
            let settings = Settings { tls: Some(certificate.server()), ..Settings::default() };
            let server = TestServer::start(Tell, settings);
            let mut stream = connect_slowly(&certificate, server.address).await;
            request_slowly(&mut stream, count).await;
            server.drain.leave();
            server.drain.start();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.expect("neither a reset nor a truncation");
            let fast = assert_whole(&String::from_utf8(received).unwrap());
            assert!((1..=count).contains(&fast), "{fast} of {count}");
        }
    })
    .await;
}

/// Connects over TLS, with a small buffer for what the client receives.
async fn connect_slowly(certificate: &Certificate, address: SocketAddr) -> TlsStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// Sends requests for long responses, and reads none of them.
async fn request_slowly(stream: &mut TlsStream<TcpStream>, count: usize) {
    for _ in 0..count {
        stream.write_all(get("/long").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        short_sleep().await;
    }
}

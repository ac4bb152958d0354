//! Random, mutated and smuggled requests on raw sockets: no panic, no hang, and no byte of one connection
//! in another.

use std::{collections::HashSet, fmt::Write as _, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    process::Process,
    proxy::{Proxy, request},
    random::Random,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::RawOrigin,
    within,
};

const REQUESTS: usize = 10_000;
const CONNECTIONS: usize = 2_500;
/// How long a connection may take to be answered or closed after its client's end.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Tokens are what each connection writes into its requests, and no other one does.
fn tokens(bytes: &[u8]) -> HashSet<String> {
    let text = String::from_utf8_lossy(bytes);
    let ends = text.match_indices("Tok-").map(|(start, token)| &text[start + token.len()..]);
    ends.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect()
}

/// Answers with all that it was sent, so that whatever goes astray is seen; what may be stored has only
/// what it is selected by in it.
fn echo(request: &OriginRequest) -> OriginResponse {
    let token = request.header("x-token").unwrap_or_default();
    match (request.target.contains("stored"), request.target.contains("vary")) {
        (true, true) => {
            OriginResponse::fresh(format!("{} {token}", request.target)).with("vary", "x-token")
        }
        (true, false) => OriginResponse::fresh(request.target.clone()),
        _ => OriginResponse::ok(format!("{}{}", request.head, request.body)),
    }
}

const METHODS: &[&str] =
    &["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW", "CONNECT"];
const LINES: &[&str] = &[
    "Accept: */*",
    "Accept-Encoding: gzip;q=0.5, *;q=0",
    "Authorization: Basic eA==",
    "Cache-Control: no-cache, max-age=-1, \"",
    "Cache-Control: max-stale, only-if-cached",
    "Connection: close",
    "Connection: keep-alive, host, content-length",
    "Connection: upgrade",
    "Content-Length: 5",
    "Content-Length: 5, 5",
    "Content-Length: 99999999999999999999",
    "Content-Type: text/plain",
    "Cookie: sid=1; =;;",
    "Expect: 100-continue",
    "Forwarded: for=\"[::1]\"",
    "Host: other.test",
    "If-Match: *",
    "If-Modified-Since: yesterday",
    "If-None-Match: W/\"x\", *, \"",
    "If-Range: \"x\"",
    "Max-Forwards: 0",
    "Range: bytes=0-0, -1, 5-2",
    "Range: bytes=18446744073709551615-",
    "TE: trailers, deflate;q=0.5",
    "Trailer: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Via: 1.1 larder",
    "X-Bytes: \u{e4}\u{7f}",
    "X-Forwarded-For: 1, 2, 3",
    " folded: line",
    "no colon",
];
const BODIES: &[&str] = &[
    "",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "fffffffffffffffff\r\n",
    "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n",
];

/// One request that has `token` in its target and in a field.
fn generated(random: &mut Random, token: &str) -> Vec<u8> {
    let stored = random.pick(&["", "stored/", "stored/vary/", "vary/"]);
    let version = if random.one_in(20) { "1.0" } else { "1.1" };
    let prefix = if random.one_in(10) { "http://api.test" } else { "" };
    let method = random.pick(METHODS);
    let mut text = format!("{method} {prefix}/{stored}{token}?q HTTP/{version}\r\n");
    write!(text, "Host: api.test\r\nX-Token: {token}\r\n").unwrap();
    for _ in 0..random.below(4) {
        text.push_str(random.pick::<&str>(LINES));
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    if random.one_in(3) {
        text.push_str(random.pick::<&str>(BODIES));
    }
    text.into_bytes()
}

/// Changes some bytes, at random.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let place = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[place] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes.insert(place, *random.pick(b"\r\n\0 :,;%\t\"\xff/")),
            2 => drop(bytes.remove(place)),
            3 => bytes.truncate(place.max(1)),
            4 => {
                let piece = bytes[place..].iter().copied().take(40).collect::<Vec<u8>>();
                bytes.splice(place..place, piece);
            }
            _ => bytes[place] ^= 0x20,
        }
    }
}

/// Sends everything at once, ends, and gives all that comes back.
async fn converse(address: SocketAddr, sent: Vec<u8>) -> Result<Vec<u8>, String> {
    let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut read, mut write) = socket.into_split();
    let mut got = Vec::new();
    let both = async {
        // A connection that was refused may be gone before all of it is written.
        let writing = async {
            let _refused = write.write_all(&sent).await;
            let _gone = write.shutdown().await;
        };
        let reading = async {
            let _reset = read.read_to_end(&mut got).await;
        };
        tokio::join!(writing, reading);
    };
    match tokio::time::timeout(TIMEOUT, both).await {
        Ok(()) => Ok(got),
        Err(_) => Err(format!("hangs after {:?}", String::from_utf8_lossy(&sent))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_break_nothing_and_leak_nothing() {
    let origin = ScriptedOrigin::start(echo).await;
    let url = origin.url();
    let arguments = ["--origin", &url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::run(&arguments).await;
    let address = process.address;
    let mut connections = JoinSet::new();
    let mut answered = 0;
    for number in 0..CONNECTIONS {
        let mut random = Random::seeded(number as u64 + 1);
        let mut sent = Vec::new();
        for pipelined in 0..REQUESTS / CONNECTIONS {
            let token = format!("Tok-{number:05}{pipelined:03}");
            let mut one = generated(&mut random, &token);
            if random.one_in(2) {
                mutate(&mut random, &mut one);
            }
            sent.extend(one);
        }
        connections.spawn(async move {
            let got = converse(address, sent.clone()).await.unwrap();
            let own = tokens(&sent);
            for token in tokens(&got) {
                let got = String::from_utf8_lossy(&got);
                assert!(own.contains(&token), "{token} in {got:?} for {own:?}");
            }
            !got.is_empty()
        });
        if connections.len() >= 64 {
            answered += usize::from(connections.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(ended) = connections.join_next().await {
        answered += usize::from(ended.unwrap());
    }
    assert!(answered > CONNECTIONS / 2, "only {answered} were answered at all");
    let printed = process.messages();
    assert!(!printed.contains("panicked"), "{printed}");
    assert_eq!(process.get("/well").await.status(), 200, "it is as well as before");
    let open = process.get_admin("/metrics").await.body;
    assert!(open.contains("larder_connections "), "{open}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order_and_apart() {
    let origin = ScriptedOrigin::start(|request| {
        let response = OriginResponse::ok(request.target.clone());
        let control = if request.target.contains("stored") { "max-age=60" } else { "no-store" };
        response.with("cache-control", control)
    })
    .await;
    let proxy = Proxy::before(&origin.url());
    let mut connections = JoinSet::new();
    for number in 0..50 {
        let mut wire = proxy.connect().await;
        connections.spawn(async move {
            let target = |place| match place % 2 {
                0 => format!("/stored/{place}"),
                _ => format!("/{number}/{place}"),
            };
            let requests: String =
                (0..20).map(|place| request("GET", &target(place), &[])).collect();
            wire.write(requests).await;
            for place in 0..20 {
                assert_eq!(wire.read_reply().await.body, target(place));
            }
        });
    }
    within(connections.join_all()).await;
}

/// What an attacker sends first, and what a victim asks for then.
#[tokio::test]
async fn no_smuggled_request_poisons_what_others_get() {
    within(async {
        let evil = "GET /evil HTTP/1.1\r\nHost: api.test\r\nX-Evil: ";
        let attacks = [
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}", evil.len() + 5),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n{evil}"),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{evil}"),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{evil}"),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}"),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}"),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nX: y\nContent-Length: 5\r\n\r\n{evil}"),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nConnection: content-length\r\nContent-Length: {}\r\n\r\n{evil}", evil.len()),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n{evil}"),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n{evil}"),
            format!("POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n{evil}"),
            format!("GET /a HTTP/1.1\r\nHost: api.test\r\nUpgrade: h2c\r\nConnection: upgrade, http2-settings\r\n\r\n{evil}"),
            format!("GET /a\r\nHost: api.test\r\n\r\n{evil}"),
            format!("GET /b HTTP/1.1\r\n\tHost: api.test\r\nHost: api.test\r\n\r\n{evil}"),
        ];
        for (number, attack) in attacks.iter().enumerate() {
            let origin = ScriptedOrigin::start(|request| {
                OriginResponse::fresh(format!("{} {}", request.target, request.header("x-evil").unwrap_or("-")))
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            let mut attacker = proxy.connect().await;
            attacker.write(attack).await;
            attacker.finish().await;
            attacker.read_to_end_bytes().await;
            for target in ["/victim", "/a", "/victim", "/a"] {
                let reply = proxy.get(target).await;
                assert_eq!(reply.body, format!("{target} -"), "attack {number}");
            }
            let targets: Vec<_> = origin.received().into_iter().map(|request| request.target).collect();
            assert!(targets.iter().filter(|target| *target == "/victim").count() <= 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_an_origin_sends_beyond_its_response_answers_nobody() {
    within(async {
        let evil = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil";
        for (what, method, first) in [
            ("too long", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
            ("304 with a body", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
            ("204 with a body", "GET", "HTTP/1.1 204 No Content\r\n\r\n"),
            ("HEAD with a body", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            ("chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ] {
            let origin = RawOrigin::start(move |mut wire, connection| async move {
                while wire.try_read_head().await.is_some() {
                    if connection == 0 {
                        wire.write(format!("{first}{evil}")).await;
                    } else {
                        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
                    }
                }
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.send(method, "/attack", &[]).await;
            for _ in 0..3 {
                assert_eq!(proxy.get("/victim").await.body, "good", "{what}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_interim_responses_ends() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            let link = "x".repeat(1000);
            for _ in 0..20_000 {
                let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\n\r\n");
                if !wire.try_write(hints).await {
                    return;
                }
            }
            wire.try_write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/a", &[("Connection", "close")])).await;
        let got = wire.read_to_end().await;
        let last = &got[got.rfind("HTTP/1.1 ").unwrap()..];
        assert!(last.starts_with("HTTP/1.1 200") || last.starts_with("HTTP/1.1 502"), "{last}");
    })
    .await;
}

//! Bodies: what counts as complete, and what becomes of requests whose client goes away.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::unbounded_channel,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{
    certificate::Certificate,
    frames::{self, CANCEL, End, Http2Wire, INTERNAL_ERROR, NO_ERROR, Received, Step},
    gate::Gate,
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Wire},
    within,
};

const FRESH: &[(&str, &str)] = &[(":status", "200"), ("cache-control", "max-age=100")];
const FRESH_WITH_LENGTH: &[(&str, &str)] =
    &[(":status", "200"), ("cache-control", "max-age=100"), ("content-length", "100")];

/// Ways in which an HTTP/2 origin leaves a response of fourteen bytes unfinished.
fn unfinished() -> Vec<(&'static str, Vec<Step>)> {
    let begun = |head| vec![Step::Fields(head, End::No), Step::Data("fourteen bytes", End::No)];
    let then = |head, ends: &[Step]| [begun(head), ends.to_vec()].concat();
    let mut cases = Vec::new();
    for head in [FRESH, FRESH_WITH_LENGTH] {
        cases.extend([
            ("reset without an error", then(head, &[Step::Reset(NO_ERROR)])),
            ("reset with an error", then(head, &[Step::Reset(CANCEL)])),
            ("gone away", then(head, &[Step::GoAway(NO_ERROR), Step::Close])),
            ("connection lost", then(head, &[Step::Close])),
        ]);
    }
    cases.push(("short", then(FRESH_WITH_LENGTH, &[Step::Data("", End::Stream)])));
    cases
}

#[tokio::test]
async fn a_response_without_its_end_is_cut_and_not_stored() {
    within(async {
        for (case, steps) in unfinished() {
            let origin = frames::origin(&steps).await;
            let proxy = Proxy::before(&format!("h2c://{}", origin.address));
            for method in ["GET", "GET", "POST"] {
                let mut wire = proxy.connect().await;
                wire.write(request(method, "/", &[("content-length", "0")])).await;
                let head = wire.read_head().await;
                assert!(!head.contains("HIT"), "{case}: {head}");
                assert_eq!(wire.try_read_body(&head).await, None, "{case}: {method}");

                let mut frames = Http2Wire::connect(proxy.address).await;
                frames.request(1, method, End::Stream).await;
                let received = frames.receive(1).await.unwrap();
                assert!(!received.is_ended, "{case}: {method}");
                assert_ne!(received.reset, Some(NO_ERROR), "{case}: {method}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_is_complete_by_its_end_of_stream_whatever_carries_it() {
    within(async {
        let trailers: &[(&str, &str)] = &[("x-sum", "7")];
        for (case, end) in [
            ("the data", vec![Step::Data("whole", End::Stream)]),
            ("an empty frame", vec![Step::Data("whole", End::No), Step::Data("", End::Stream)]),
            ("trailers", vec![Step::Data("whole", End::No), Step::Fields(trailers, End::Stream)]),
            (
                "the data, and a reset that says the request need not go on",
                vec![Step::Data("whole", End::Stream), Step::Reset(NO_ERROR)],
            ),
        ] {
            let steps = [vec![Step::Fields(FRESH, End::No)], end].concat();
            let origin = frames::origin(&steps).await;
            let proxy = Proxy::before(&format!("h2c://{}", origin.address));
            assert_eq!(proxy.get("/").await.summary(), "200 MISS whole", "{case}");
            let mut frames = Http2Wire::connect(proxy.address).await;
            frames.request(1, "POST", End::Stream).await;
            let whole = Received { data: "whole".into(), is_ended: true, reset: None };
            assert_eq!(frames.receive(1).await, Some(whole), "{case}");
            assert_eq!(proxy.get("/").await.body, "whole");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_without_content_needs_no_more_than_its_head() {
    within(async {
        let no_content: &[(&str, &str)] = &[(":status", "204"), ("cache-control", "max-age=100")];
        let not_modified: &[(&str, &str)] = &[(":status", "304"), ("content-length", "100")];
        for (method, head, status) in [
            ("GET", no_content, 204),
            ("POST", no_content, 204),
            ("POST", not_modified, 304),
            ("HEAD", FRESH_WITH_LENGTH, 200),
        ] {
            let mut ends = vec![vec![Step::Fields(head, End::Stream)]];
            if status != 304 {
                ends.push(vec![Step::Fields(head, End::No), Step::Data("", End::Stream)]);
            }
            for steps in ends {
                let origin = frames::origin(&steps).await;
                let proxy = Proxy::before(&format!("h2c://{}", origin.address));
                let mut wire = proxy.connect().await;
                for _ in 0..2 {
                    wire.write(request(method, "/", &[])).await;
                    assert_eq!(wire.read_reply_to(method).await.status(), status, "{method}");
                }
                let mut frames = Http2Wire::connect(proxy.address).await;
                frames.request(1, method, End::Stream).await;
                assert!(frames.receive(1).await.unwrap().is_ended, "{method} {status}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn all_readers_of_a_response_that_breaks_off_fail() {
    within(async {
        let gate = Gate::closed();
        let steps = [
            Step::Fields(FRESH, End::No),
            Step::Data("fourteen bytes", End::No),
            Step::Wait(gate.clone()),
            Step::Reset(NO_ERROR),
        ];
        let origin = frames::origin(&steps).await;
        let proxy = Proxy::before(&format!("h2c://{}", origin.address));
        let mut wires = Vec::new();
        for _ in 0..3 {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/", &[])).await;
            let head = wire.read_head().await;
            assert_eq!(wire.read_exact(18).await, "E\r\nfourteen bytes\r", "{head}");
            wires.push(wire);
        }
        let mut frames = Http2Wire::connect(proxy.address).await;
        frames.request(1, "GET", End::Stream).await;
        gate.open();
        for mut wire in wires {
            assert_eq!(wire.read_to_end().await, "\n", "no last chunk");
        }
        assert!(!frames.receive(1).await.unwrap().is_ended);
        assert_eq!(origin.connections(), 1);
        let mut ranged = proxy.connect().await;
        let reply = ranged.try_exchange(request("GET", "/", &[("range", "bytes=0-3")])).await;
        assert_eq!(reply, None, "there is no range of what is not whole");
    })
    .await;
}

#[tokio::test]
async fn the_code_with_which_an_origin_resets_a_stream_does_not_reach_clients() {
    within(async {
        const REFUSED_STREAM: u32 = 7;
        for code in [REFUSED_STREAM, CANCEL] {
            let steps =
                [Step::Fields(FRESH, End::No), Step::Data("processed", End::No), Step::Reset(code)];
            let origin = frames::origin(&steps).await;
            let proxy = Proxy::before(&format!("h2c://{}", origin.address));
            for method in ["GET", "POST"] {
                let mut frames = Http2Wire::connect(proxy.address).await;
                frames.request(1, method, End::Stream).await;
                assert_eq!(frames.receive(1).await.unwrap().reset, Some(INTERNAL_ERROR));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn trailers_hold_nothing_that_only_a_head_may_hold() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            while wire.try_read_head().await.is_some() {
                let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=100\r\n\
                            trailer: x-sum, content-length\r\n\
                            transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n";
                let trailers = "x-sum: 7\r\ncontent-length: 3\r\nconnection: x-own\r\n\
                                x-own: 1\r\nkeep-alive: timeout=5\r\ncontent-encoding: br\r\n\
                                transfer-encoding: chunked\r\n\r\n";
                wire.write(format!("{head}{trailers}")).await;
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for cache in ["MISS", "HIT"] {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/http1", &[("te", "trailers")])).await;
            let head = wire.read_head().await;
            assert!(head.contains(&format!("x-api-cache: {cache}")), "{head}");
            let read = wire.read_chunks().await;
            assert_eq!(read, ("whole".to_owned(), "x-sum: 7\r\n".to_owned()), "{cache}");
        }
        for _miss_and_hit in 0..2 {
            let mut frames = Http2Wire::connect(proxy.address).await;
            frames.request(1, "GET", End::Stream).await;
            let whole = Received { data: "whole".into(), is_ended: true, reset: None };
            assert_eq!(frames.receive(1).await, Some(whole));
        }
    })
    .await;
}

#[tokio::test]
async fn trailers_are_stored_behind_the_body() {
    within(async {
        let head: &[(&str, &str)] = &[
            (":status", "200"),
            ("cache-control", "max-age=100"),
            ("trailer", "x-sum, set-cookie"),
        ];
        let trailers: &[(&str, &str)] = &[("x-sum", "7"), ("set-cookie", "a=b")];
        let http2 = frames::origin(&[
            Step::Fields(head, End::No),
            Step::Data("whole", End::No),
            Step::Fields(trailers, End::Stream),
        ])
        .await;
        let http1 = RawOrigin::start(|mut wire, _| async move {
            while wire.try_read_head().await.is_some() {
                let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=100\r\n\
                            trailer: x-sum, set-cookie\r\ntransfer-encoding: chunked\r\n\r\n";
                let body = "5;extension=1\r\nwhole\r\n0\r\nx-sum: 7\r\nset-cookie: a=b\r\n\r\n";
                wire.write(format!("{head}{body}")).await;
            }
        })
        .await;
        for origin in [format!("h2c://{}", http2.address), http1.url()] {
            let proxy = Proxy::before(&origin);
            for cache in ["MISS", "HIT", "HIT"] {
                let mut wire = proxy.connect().await;
                wire.write(request("GET", "/", &[("te", "trailers")])).await;
                let head = wire.read_head().await;
                assert!(head.contains(&format!("x-api-cache: {cache}")), "{head}");
                let (body, trailers) = wire.read_chunks().await;
                assert_eq!(body, "whole");
                assert!(trailers.contains("x-sum: 7\r\n"), "{cache} {trailers}");
                assert!(cache == "MISS" || !trailers.contains("a=b"), "{trailers}");
            }
            let mut frames = Http2Wire::connect(proxy.address).await;
            frames.request(1, "GET", End::Stream).await;
            let whole = Received { data: "whole".into(), is_ended: true, reset: None };
            assert_eq!(frames.receive(1).await, Some(whole));
            let part = proxy.get_with("/", &[("range", "bytes=1-2")]).await;
            assert_eq!(part.summary(), "206 HIT ho");
            let head = proxy.send("HEAD", "/", &[]).await;
            assert_eq!(head.summary(), "200 HIT ");
        }
    })
    .await;
}

/// How an HTTP/1.1 origin ends a body.
#[derive(Debug, Clone, Copy)]
enum Close {
    Cleanly,
    Abruptly,
}

#[tokio::test]
async fn a_body_that_the_close_ends_is_complete_only_by_a_clean_close() {
    within(async {
        let certificate = Certificate::new();
        let ca = format!("origin.tls.ca = {:?}", certificate.chain());
        let mut http1 = (*certificate.server()).clone();
        http1.alpn_protocols.clear();
        let acceptor = TlsAcceptor::from(Arc::new(http1));
        for close in [Close::Cleanly, Close::Abruptly] {
            for (tls, toml) in [(None, ""), (Some(acceptor.clone()), &*ca)] {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let gate = Gate::closed();
                let port = closing(tls, close, gate.clone()).await;
                let proxy = Proxy::with(&format!("{scheme}://localhost:{port}"), toml);
                let mut wire = proxy.connect().await;
                wire.write(request("GET", "/", &[])).await;
                let head = wire.read_head().await;
                assert_eq!(wire.read_exact(20).await, "F\r\nuntil the close\r\n");
                gate.open();
                let rest = wire.try_read_until(b"0\r\n\r\n").await.unwrap_or_default();
                let again = proxy.connect().await.try_exchange(request("GET", "/", &[])).await;
                match close {
                    Close::Cleanly => {
                        assert_eq!(rest, "0\r\n\r\n", "{scheme} {head}");
                        assert_eq!(again.unwrap().cache(), "HIT", "{scheme}");
                    }
                    Close::Abruptly => {
                        assert_eq!((&*rest, again), ("", None), "{scheme} {head}");
                    }
                }
            }
        }
    })
    .await;
}

/// An origin that ends each response by closing the connection, once the gate is open: with FIN or RST,
/// over TLS with or without `close_notify`. Gives its port.
async fn closing(tls: Option<TlsAcceptor>, close: Close, gate: Gate) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Some(acceptor) = &tls {
                let stream = acceptor.accept(stream).await.unwrap();
                until_close(stream, close, &gate).await;
                continue;
            }
            if matches!(close, Close::Abruptly) {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            until_close(stream, close, &gate).await;
        }
    });
    port
}

async fn until_close(mut io: impl AsyncRead + AsyncWrite + Unpin, close: Close, gate: &Gate) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        io.read_buf(&mut read).await.unwrap();
    }
    let reply = "HTTP/1.1 200 OK\r\ncache-control: max-age=100\r\n\r\nuntil the close";
    io.write_all(reply.as_bytes()).await.unwrap();
    io.flush().await.unwrap();
    gate.passed().await;
    if let Close::Cleanly = close {
        io.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_knows_the_end_by_the_close_alone_is_reset() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("part").cut(&gate)).await;
        let certificate = Certificate::new();
        let tls =
            format!("tls.cert = {:?}\ntls.key = {:?}", certificate.chain(), certificate.key());
        for (method, toml) in [("GET", ""), ("POST", ""), ("GET", &*tls)] {
            let proxy = Proxy::with(&origin.url(), toml);
            let stream = TcpStream::connect(proxy.address).await.unwrap();
            let head = format!("{method} / HTTP/1.0\r\nhost: api.test\r\n\r\n");
            let ended = if toml.is_empty() {
                until_end(stream, &head, &gate).await
            } else {
                let connector = TlsConnector::from(certificate.client(&[]));
                let name = "localhost".try_into().unwrap();
                until_end(connector.connect(name, stream).await.unwrap(), &head, &gate).await
            };
            assert!(ended.is_err(), "{method} {toml}: {ended:?}");
        }
    })
    .await;
}

/// What follows the first bytes of a body, which the origin is let to break off then.
async fn until_end(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
    gate: &Gate,
) -> io::Result<usize> {
    io.write_all(head.as_bytes()).await?;
    let mut read = Vec::new();
    while !read.ends_with(b"part") {
        io.read_buf(&mut read).await?;
    }
    gate.open();
    io.read_to_end(&mut read).await
}

/// How a client leaves an upload unfinished of which an origin has five bytes.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Closes,
    Resets(u32),
}

const LEAVING: [Leaving; 3] = [Leaving::Closes, Leaving::Resets(NO_ERROR), Leaving::Resets(CANCEL)];

/// How an upload is framed.
const FRAMINGS: [&str; 3] = [
    "content-length: 10\r\n\r\nhello",
    "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/2",
];

/// A client in the middle of its upload.
enum Uploading {
    Http1(Wire),
    Http2(Http2Wire),
}

impl Uploading {
    async fn start(proxy: &Proxy, framing: &str) -> Self {
        if framing == "HTTP/2" {
            let mut frames = Http2Wire::connect(proxy.address).await;
            frames.request(1, "POST", End::No).await;
            frames.play(1, &[Step::Data("hello", End::No)]).await;
            return Self::Http2(frames);
        }
        let mut wire = proxy.connect().await;
        wire.write(format!("POST / HTTP/1.1\r\nhost: api.test\r\n{framing}")).await;
        Self::Http1(wire)
    }

    /// What stays open of the connection.
    async fn leave(self, leaving: Leaving) -> Option<Http2Wire> {
        match (self, leaving) {
            (Self::Http2(mut frames), Leaving::Resets(code)) => {
                frames.play(1, &[Step::Reset(code)]).await;
                Some(frames)
            }
            (Self::Http1(wire), _) => {
                drop(wire);
                None
            }
            (Self::Http2(_), Leaving::Closes) => None,
        }
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_does_not_reach_an_http2_origin_as_complete() {
    within(async {
        for leaving in LEAVING {
            let (origin, mut reports) = frames::reading().await;
            let proxy = Proxy::before(&format!("h2c://{}", origin.address));
            for framing in FRAMINGS {
                let uploading = Uploading::start(&proxy, framing).await;
                while reports.recv().await.unwrap().data != "hello" {}
                let _open = uploading.leave(leaving).await;
                let received = reports.recv().await.unwrap();
                assert!(!received.is_ended && received.reset.is_some(), "{leaving:?} {received:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_does_not_reach_an_http1_origin_as_complete() {
    within(async {
        for leaving in LEAVING {
            let (report, mut reports) = unbounded_channel();
            let origin = RawOrigin::start(move |mut wire, _| {
                let report = report.clone();
                async move {
                    let before = wire.read_until("hello").await;
                    report.send(before).unwrap();
                    report.send(wire.read_to_end().await).unwrap();
                }
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            for framing in FRAMINGS {
                let uploading = Uploading::start(&proxy, framing).await;
                reports.recv().await.unwrap();
                let _open = uploading.leave(leaving).await;
                let rest = reports.recv().await.unwrap();
                assert_eq!(rest.trim(), "", "{leaving:?}");
            }
        }
    })
    .await;
}

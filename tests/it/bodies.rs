//! Bodies: what counts as complete, and what becomes of requests whose client goes away.

use tokio::sync::mpsc::unbounded_channel;

use crate::support::{
    frames::{self, CANCEL, End, Frames, NO_ERROR, Received, Step},
    gate::Gate,
    proxy::{Proxy, request},
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

                let mut frames = Frames::connect(proxy.address).await;
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
            let mut frames = Frames::connect(proxy.address).await;
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
                let mut frames = Frames::connect(proxy.address).await;
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
        let mut frames = Frames::connect(proxy.address).await;
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
    Http2(Frames),
}

impl Uploading {
    async fn start(proxy: &Proxy, framing: &str) -> Self {
        if framing == "HTTP/2" {
            let mut frames = Frames::connect(proxy.address).await;
            frames.request(1, "POST", End::No).await;
            frames.play(1, &[Step::Data("hello", End::No)]).await;
            return Self::Http2(frames);
        }
        let mut wire = proxy.connect().await;
        wire.write(format!("POST / HTTP/1.1\r\nhost: api.test\r\n{framing}")).await;
        Self::Http1(wire)
    }

    /// What stays open of the connection.
    async fn leave(self, leaving: Leaving) -> Option<Frames> {
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

//! Outcomes of unsafe requests: known or not, whoever still waits for them.

use std::sync::Mutex;

use crate::support::{
    frames::{self, End, Http2Wire, NO_ERROR, Step},
    gate::Gate,
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Wire},
    within,
};

const ORDERS: &str = r#"
[[route]]
name = "orders"
match = "/orders/**"
on_write = { purge = ["totals"] }
[[route]]
name = "totals"
match = "GET /totals"
tags = ["totals"]
"#;

/// What is stored for `/orders/1`, and for what writes to it purge by a tag.
async fn stored(proxy: &Proxy) -> [String; 2] {
    let mut found = [String::new(), String::new()];
    for (found, target) in found.iter_mut().zip(["/orders/1", "/totals"]) {
        proxy.get(target).await.cache().clone_into(found);
    }
    found
}

async fn fill(proxy: &Proxy) {
    while stored(proxy).await != ["HIT", "HIT"] {}
}

/// An origin that answers reads, and other requests as `answer` does with the connection.
async fn origin<R>(answer: impl Fn(Wire) -> R + Clone + Send + Sync + 'static) -> RawOrigin
where
    R: Future<Output = ()> + Send + 'static,
{
    RawOrigin::start(move |mut wire, _| {
        let answer = answer.clone();
        async move {
            while let Some(head) = wire.try_read_head().await {
                if !head.starts_with("GET") || head.contains("x-http-method-override") {
                    wire.try_read_body(&head).await;
                    return answer(wire).await;
                }
                let ok =
                    "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 0\r\n\r\n";
                wire.try_write(ok).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_write_runs_to_its_end_although_its_client_is_gone() {
    within(async {
        for (method, body) in [("PUT", "new"), ("DELETE", ""), ("POST", "new"), ("ODD", "")] {
            let gate = Gate::closed();
            let held = gate.clone();
            let origin = ScriptedOrigin::start(move |request| match &*request.method {
                "GET" => OriginResponse::fresh(request.before.to_string()),
                _ => OriginResponse::ok("").after(&held),
            })
            .await;
            let proxy = Proxy::with(&origin.url(), ORDERS);
            fill(&proxy).await;
            let asked = origin.requests();
            let mut wire = proxy.connect().await;
            wire.write(request_with_body(method, "/orders/1", &[], body)).await;
            origin.wait_for_requests(asked + 1).await;
            assert_eq!(origin.last().body, body);
            drop(wire);
            left(&proxy).await;
            assert_eq!(stored(&proxy).await, ["HIT", "HIT"], "{method}");
            gate.open();
            while stored(&proxy).await[0] != "MISS" {}
            assert_eq!(proxy.metric("larder_write_purges_total", "applied").await, 1, "{method}");
        }
    })
    .await;
}

/// Waits until the log says that a client went away before its response.
async fn left(proxy: &Proxy) {
    while !proxy.log_text().contains("\"status\":499") {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_http2_client_that_resets_its_stream_does_not_end_its_write() {
    within(async {
        let (begun, gate) = (Gate::closed(), Gate::closed());
        let (has_begun, held) = (begun.clone(), gate.clone());
        let origin = origin(move |mut wire| {
            let (begun, held) = (has_begun.clone(), held.clone());
            async move {
                begun.open();
                held.passed().await;
                wire.write("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        while proxy.get("/").await.cache() != "HIT" {}
        let mut frames = Http2Wire::connect(proxy.address).await;
        frames.request(1, "POST", End::No).await;
        frames.play(1, &[Step::Data("whole", End::Stream)]).await;
        begun.passed().await;
        frames.play(1, &[Step::Reset(NO_ERROR)]).await;
        left(&proxy).await;
        gate.open();
        while proxy.get("/").await.cache() != "MISS" {}
    })
    .await;
}

#[tokio::test]
async fn an_unknown_outcome_purges_as_a_success_does() {
    within(async {
        let closing = origin(|wire| async move { drop(wire) }).await;
        let silent = origin(|mut wire| async move { drop(wire.read_to_end().await) }).await;
        let interim = origin(|mut wire| async move {
            wire.write("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        })
        .await;
        let no_http = origin(|mut wire| async move { wire.write("hello\r\n\r\n").await }).await;
        for (case, origin, status) in [
            ("closed", closing, 502),
            ("silent", silent, 504),
            ("only an interim response", interim, 502),
            ("not HTTP", no_http, 502),
        ] {
            let proxy = Proxy::with(
                &origin.url(),
                &format!("origin.first_byte_timeout = \"100ms\"\n{ORDERS}"),
            );
            fill(&proxy).await;
            let mut wire = proxy.connect().await;
            wire.write(request_with_body("POST", "/orders/1", &[], "new")).await;
            let reply = loop {
                let reply = wire.read_reply_to("POST").await;
                if reply.status() >= 200 {
                    break reply;
                }
            };
            assert_eq!(reply.status(), status, "{case}");
            assert_eq!(stored(&proxy).await, ["MISS", "MISS"], "{case}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_from_an_http2_origin_leaves_the_outcome_unknown() {
    within(async {
        let origin = frames::origin(&[Step::Reset(NO_ERROR)]).await;
        let proxy = Proxy::before(&format!("h2c://{}", origin.address));
        let reply = proxy.send("DELETE", "/a", &[]).await;
        assert_eq!(reply.status(), 502);
        assert_eq!(proxy.metric("larder_write_purges_total", "applied").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_leaves_the_outcome_unknown() {
    within(async {
        let (begun, ended) = (Gate::closed(), Gate::closed());
        let (has_begun, has_ended) = (begun.clone(), ended.clone());
        let origin = RawOrigin::start(move |mut wire, _| {
            let (begun, ended) = (has_begun.clone(), has_ended.clone());
            async move {
                while let Some(head) = wire.try_read_head().await {
                    if head.starts_with("POST") {
                        wire.read_until("hello").await;
                        begun.open();
                        assert_eq!(wire.read_to_end().await.trim(), "");
                        return ended.open();
                    }
                    let ok =
                        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 0\r\n\r\n";
                    wire.try_write(ok).await;
                }
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ORDERS);
        fill(&proxy).await;
        let mut wire = proxy.connect().await;
        wire.write(request("POST", "/orders/1", &[("content-length", "10")]) + "hello").await;
        begun.passed().await;
        drop(wire);
        ended.passed().await;
        while stored(&proxy).await[0] != "MISS" {}
    })
    .await;
}

#[tokio::test]
async fn a_request_of_which_nothing_was_sent_purges_nothing() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("")).await;
        let proxy = Proxy::with(&origin.url(), ORDERS);
        fill(&proxy).await;
        drop(origin);
        for (method, body) in [("POST", "new"), ("DELETE", "")] {
            let mut wire = proxy.connect().await;
            wire.write(request_with_body(method, "/orders/1", &[], body)).await;
            assert_eq!(wire.read_reply().await.status(), 502);
            assert_eq!(stored(&proxy).await, ["HIT", "HIT"], "{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_outcomes_of_one_client_and_target_are_merged_and_none_is_dropped() {
    within(async {
        let origin = origin(|wire| async move { drop(wire) }).await;
        let proxy = Proxy::before(&origin.url());
        let purges = || proxy.metric("larder_write_purges_total", "applied");
        for _ in 0..5 {
            assert_eq!(proxy.send("DELETE", "/a", &[]).await.status(), 502);
        }
        assert_eq!(purges().await, 1);
        proxy.send("DELETE", "/b", &[]).await;
        assert_eq!(purges().await, 2, "another target waits for nothing");
        while purges().await != 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_redirect_elsewhere_purges_the_target_and_no_tags() {
    within(async {
        for (status, location, expected) in [
            (302, "/login", ["MISS", "HIT"]),
            (307, "https://id.test/login", ["MISS", "HIT"]),
            (302, "/orders/1?done", ["MISS", "MISS"]),
            (303, "/orders/2", ["MISS", "MISS"]),
            (200, "/elsewhere", ["MISS", "MISS"]),
            (401, "/login", ["HIT", "HIT"]),
        ] {
            let origin = ScriptedOrigin::start(move |request| match &*request.method {
                "GET" => OriginResponse::fresh(""),
                _ => OriginResponse::status(status, "").with("location", location),
            })
            .await;
            let proxy = Proxy::with(&origin.url(), ORDERS);
            fill(&proxy).await;
            proxy.get("/login").await;
            proxy.send("DELETE", "/orders/1", &[]).await;
            assert_eq!(stored(&proxy).await, expected, "{status} {location}");
            assert_eq!(proxy.get("/login").await.cache(), "HIT", "{status} {location}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_read_that_an_override_field_makes_a_write_invalidates_its_target() {
    within(async {
        for (status, expected) in [(200, ["MISS", "MISS"]), (403, ["HIT", "HIT"])] {
            let origin = origin(move |mut wire| async move {
                wire.write(format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n")).await;
            })
            .await;
            let proxy = Proxy::with(&origin.url(), ORDERS);
            fill(&proxy).await;
            let fields = [("x-http-method-override", "DELETE")];
            assert_eq!(proxy.get_with("/orders/1", &fields).await.status(), status);
            assert_eq!(stored(&proxy).await, expected, "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_drain_waits_for_writes_whose_clients_are_gone() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("").after(&gate)).await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        wire.write(request_with_body("POST", "/a", &[], "new")).await;
        origin.wait_for_requests(1).await;
        drop(wire);
        left(&proxy).await;
        let order = Mutex::new(Vec::new());
        let drained = async {
            proxy.node.drain().await;
            order.lock().unwrap().push("drained");
        };
        let answered = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            order.lock().unwrap().push("answered");
            gate.open();
        };
        tokio::join!(drained, answered);
        assert_eq!(*order.lock().unwrap(), ["answered", "drained"]);
    })
    .await;
}

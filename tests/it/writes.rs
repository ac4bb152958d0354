//! Tags out of bodies, and what writes through the proxy make of what is stored.

use std::fmt::Write as _;

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request, request_with_body, sum},
    redis::{Redis, WriteRefusal},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

const PRODUCTS: &str = r#"
admin.token = "secret"
[[route]]
name = "products"
match = "/products/{page}"
tags = ["page:{page}", "product:{$.items[*].id}"]
"#;

fn json(body: impl Into<String>) -> OriginResponse {
    OriginResponse::fresh(body).with("content-type", "application/json")
}

async fn purge_tag(proxy: &Proxy, tag: &str) -> String {
    let body = format!(r#"{{"tags":["{tag}"]}}"#);
    let call = request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], &body);
    let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    reply.body
}

async fn metric(proxy: &Proxy, name: &str, labels: &str) -> u64 {
    let call = request("GET", "/metrics", &[("authorization", "Bearer secret")]);
    let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
    sum(&reply.body, name, labels)
}

async fn send(proxy: &Proxy, method: &str, target: &str, body: &str) -> Reply {
    let mut wire = proxy.connect().await;
    wire.write(request_with_body(method, target, &[], body)).await;
    wire.read_reply_to(method).await
}

#[tokio::test]
async fn a_response_is_purged_by_what_its_body_says() {
    within(async {
        let body = r#"{"items":[{"id":7},{"id":"ä"}]}"#;
        let origin = ScriptedOrigin::always(json(body)).await;
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        for (tag, expected) in [
            ("product:7", "MISS"),
            ("product:ä", "MISS"),
            ("page:1", "MISS"),
            ("product:8", "HIT"),
            ("product", "HIT"),
        ] {
            proxy.get("/products/1").await;
            assert_eq!(proxy.get("/products/1").await.cache(), "HIT");
            purge_tag(&proxy, tag).await;
            assert_eq!(proxy.get("/products/1").await.cache(), expected, "{tag}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_gives_its_tags_however_it_is_spelled() {
    within(async {
        let origin = ScriptedOrigin::always(json("{}")).await;
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        for spelling in ["/products/%31", "/products/%2531"] {
            proxy.get(spelling).await;
            assert_eq!(proxy.get(spelling).await.cache(), "HIT");
            purge_tag(&proxy, "page:1").await;
            assert_eq!(proxy.get(spelling).await.cache(), "MISS");
        }
    })
    .await;
}

#[tokio::test]
async fn a_purge_that_comes_while_the_body_arrives_is_not_missed() {
    within(async {
        for (tag, expected) in [("product:7", "MISS"), ("product:8", "HIT")] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let end = format!(r#"{{"id":7}}],"number":{}}}"#, request.before);
                let response = json(r#"{"items":["#);
                if request.before == 0 {
                    response.then(&waiting, end)
                } else {
                    response.then(&Gate::closed(), "")
                }
            })
            .await;
            let proxy = Proxy::with(&origin.url(), PRODUCTS);
            let mut first = proxy.connect().await;
            first.write(request("GET", "/products/1", &[])).await;
            first.read_head().await;
            purge_tag(&proxy, tag).await;
            gate.open();
            let (body, _) = first.read_chunks().await;
            assert!(body.ends_with("\"number\":0}"), "{body}");
            let mut second = proxy.connect().await;
            second.write(request("GET", "/products/1", &[])).await;
            let head = second.read_head().await;
            assert!(head.contains(&format!("x-api-cache: {expected}")), "{tag}: {head}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_whose_tags_are_not_read_yet_is_joined_unless_any_tag_was_purged() {
    within(async {
        for (purged, requests) in [(None, 1), (Some("product:8"), 2)] {
            let gate = Gate::closed();
            let origin = ScriptedOrigin::always(json(r#"{"items":["#).then(&gate, "]}")).await;
            let proxy = Proxy::with(&origin.url(), PRODUCTS);
            let mut wires = Vec::new();
            for number in 0..2 {
                let mut wire = proxy.connect().await;
                wire.write(request("GET", "/products/1", &[])).await;
                wire.read_head().await;
                wires.push(wire);
                if let Some(tag) = purged.filter(|_| number == 0) {
                    purge_tag(&proxy, tag).await;
                }
            }
            assert_eq!(origin.requests(), requests, "{purged:?}");
            gate.open();
            for mut wire in wires {
                assert_eq!(wire.read_chunks().await.0, r#"{"items":[]}"#);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_stored_and_counted() {
    within(async {
        let long = format!("[{}]", " ".repeat(1 << 20));
        let many: String = (0..2000).fold(String::new(), |mut list, id| {
            write!(list, "{}{{\"id\":{id}}}", if id == 0 { "" } else { "," }).unwrap();
            list
        });
        let many = format!(r#"{{"items":[{many}]}}"#);
        let cases = [
            ("coding", json("{}").with("content-encoding", "br"), "tags-unreadable"),
            ("too-long", json(long.clone()), "tags-unreadable"),
            ("too-long", json("").then(&opened(), long), "detail=cold"),
            ("malformed", json("{"), "detail=cold"),
            ("tags", json(many), "detail=cold"),
        ];
        for (cause, response, reported) in cases {
            let origin = ScriptedOrigin::always(response).await;
            let proxy = Proxy::with(&origin.url(), PRODUCTS);
            let first = proxy.get("/products/1").await;
            let status = first.header("cache-status").unwrap();
            assert!(status.contains(reported) && !status.contains("stored"), "{cause}: {status}");
            let labels = format!("cause=\"{cause}\",route=\"products\"");
            while metric(&proxy, "larder_untagged_responses_total", &labels).await == 0 {
                tokio::task::yield_now().await;
            }
            assert_ne!(proxy.get("/products/1").await.cache(), "HIT", "{cause}");
        }
    })
    .await;
}

fn opened() -> Gate {
    let gate = Gate::closed();
    gate.open();
    gate
}

#[tokio::test]
async fn what_is_no_json_is_stored_without_tags_of_its_body() {
    within(async {
        let response = OriginResponse::fresh("{").with("content-type", "text/html");
        let origin = ScriptedOrigin::always(response.with("content-encoding", "br")).await;
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        proxy.get("/products/html").await;
        assert_eq!(proxy.get("/products/html").await.cache(), "HIT");
        purge_tag(&proxy, "page:html").await;
        assert_eq!(proxy.get("/products/html").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn long_json_reaches_clients_before_its_tags_are_read_and_is_stored() {
    within(async {
        let body = format!(r#"{{"items":[{{"id":7}}],"text":"{}"}}"#, "x".repeat(900_000));
        let origin = ScriptedOrigin::always(json(body.clone())).await;
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        assert!(proxy.get("/products/1").await.body == body);
        while proxy.get("/products/1").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
        assert_eq!(origin.requests(), 1);
        purge_tag(&proxy, "product:7").await;
        assert_eq!(proxy.get("/products/1").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn the_origin_is_asked_for_a_coding_that_can_be_read() {
    within(async {
        let origin = ScriptedOrigin::always(json("{}")).await;
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        let codings = [("accept-encoding", "gzip, br, zstd")];
        proxy.get_with("/products/1", &codings).await;
        assert_eq!(origin.last().header("accept-encoding"), Some("gzip"));
        proxy.get_with("/elsewhere", &codings).await;
        assert_eq!(origin.last().header("accept-encoding"), Some("gzip, br, zstd"));
    })
    .await;
}

const STOCKS: &str = r#"
admin.token = "secret"
[[route]]
name = "stocks"
match = "/stocks/{user}/**"
tags = ["stocks:{user}", "range:{?range}"]
on_write = { purge = ["stocks:{user}", "range:{?range}", "totals"] }
[[route]]
name = "totals"
match = "GET /totals"
tags = ["totals"]
"#;

/// An origin whose answers to `GET` count how often each target was asked for; it answers writes so.
async fn counting(written: OriginResponse) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| match &*request.method {
        "GET" => OriginResponse::fresh(request.before.to_string()),
        _ => written.clone(),
    })
    .await
}

#[tokio::test]
async fn a_successful_write_purges_what_its_route_says() {
    within(async {
        let targets = ["/stocks/7/a", "/stocks/8/b?range=5d", "/stocks/8/c?range=1d", "/totals"];
        for (method, status, expected) in [
            ("POST", 200, ["MISS", "MISS", "HIT", "MISS"]),
            ("DELETE", 204, ["MISS", "MISS", "HIT", "MISS"]),
            ("PUT", 303, ["MISS", "MISS", "HIT", "MISS"]),
            ("POST", 409, ["HIT"; 4]),
            ("POST", 500, ["HIT"; 4]),
            ("OPTIONS", 200, ["HIT"; 4]),
        ] {
            let origin = counting(OriginResponse::status(status, "")).await;
            let proxy = Proxy::with(&origin.url(), STOCKS);
            for target in targets {
                proxy.get(target).await;
            }
            let answer = send(&proxy, method, "/stocks/%37/orders?range=5d", "{}").await;
            assert_eq!((answer.status(), answer.cache()), (status, "BYPASS"));
            for (target, expected) in targets.into_iter().zip(expected) {
                assert_eq!(proxy.get(target).await.cache(), expected, "{method} {status} {target}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_in_another_spelling_purges_what_its_route_says() {
    within(async {
        let spellings = [
            "/Stocks/7/orders",
            "//stocks/7/orders",
            "/stocks%2F7/orders",
            "/stocks;x/7/orders",
            "/x/../stocks/7/orders",
        ];
        for spelling in spellings {
            let origin = counting(OriginResponse::ok("")).await;
            let proxy = Proxy::with(&origin.url(), STOCKS);
            let targets = ["/stocks/7/a", "/totals"];
            for target in targets {
                proxy.get(target).await;
            }
            send(&proxy, "POST", spelling, "{}").await;
            for target in targets {
                assert_eq!(proxy.get(target).await.cache(), "MISS", "{spelling}: {target}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_is_one_record() {
    within(async {
        let written =
            OriginResponse::ok("").with("location", "/x").with("cache-group-invalidation", "\"g\"");
        let origin = counting(written).await;
        let proxy = Proxy::with(&origin.url(), STOCKS);
        send(&proxy, "POST", "/stocks/7/orders?range=5d", "{}").await;
        let receipt = purge_tag(&proxy, "any").await;
        assert!(receipt.starts_with(r#"{"seq":2"#), "{receipt}");
        assert_eq!(metric(&proxy, "larder_write_purges_total", "applied").await, 1);
    })
    .await;
}

#[tokio::test]
async fn groups_are_invalidated_by_what_answers_a_write_and_by_nothing_else() {
    within(async {
        let groups = "\"a b\", \"c\";x=1";
        let origin = ScriptedOrigin::start(move |request| {
            let response =
                OriginResponse::fresh(request.before.to_string()).with("cache-groups", "\"a b\"");
            match &*request.target {
                "/page" => response,
                "/broken" => response.with("cache-group-invalidation", "\"a b\", c"),
                _ => response.with("cache-group-invalidation", groups),
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let elsewhere = [("host", "elsewhere.test")];
        proxy.get("/page").await;
        proxy.get_with("/page", &elsewhere).await;
        for (method, target, expected) in [
            ("GET", "/shop", "HIT"),
            ("OPTIONS", "/shop", "HIT"),
            ("POST", "/broken", "HIT"),
            ("POST", "/shop", "MISS"),
        ] {
            let answer = proxy.send(method, target, &[("content-length", "0")]).await;
            let reported = answer.header("cache-group-invalidation");
            assert_eq!(
                reported.is_some_and(|reported| reported == groups),
                target == "/shop",
                "it is kept"
            );
            assert_eq!(proxy.get("/page").await.cache(), expected, "{method} {target}");
            assert_eq!(proxy.get_with("/page", &elsewhere).await.cache(), "HIT", "another host");
        }
    })
    .await;
}

/// The answer to a write that carries what it has made of the target.
fn representation(target: &str, body: &str) -> OriginResponse {
    OriginResponse::fresh(body).with("content-location", target)
}

#[tokio::test]
async fn a_new_representation_in_the_answer_to_a_write_is_stored() {
    within(async {
        for (method, status) in [("PUT", 200), ("PUT", 201), ("PATCH", 200), ("POST", 200)] {
            let origin = counting(representation("/a", "new").status_of(status)).await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            let answer = send(&proxy, method, "/a", "new").await;
            assert_eq!(answer.summary(), format!("{status} BYPASS new"));
            let reported = answer.header("cache-status").unwrap();
            assert!(reported.contains("fwd=method") && reported.contains("stored"), "{reported}");
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT new", "{method}");
            assert_eq!(origin.requests(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_does_not_say_that_it_is_the_representation_is_not_stored() {
    within(async {
        let fresh = || OriginResponse::fresh("new");
        for (method, response) in [
            ("PUT", fresh()),
            ("PUT", representation("/b", "new")),
            ("POST", OriginResponse::ok("new").with("content-location", "/a")),
            ("PATCH", representation("/a", "new").status_of(202)),
            ("DELETE", representation("/a", "new")),
            ("PUT", representation("http://elsewhere.test/a", "new")),
            (
                "PUT",
                OriginResponse::ok("new")
                    .with("content-location", "/a")
                    .with("cache-control", "private, max-age=60"),
            ),
        ] {
            let origin = counting(response).await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            send(&proxy, method, "/a", "").await;
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS 1", "{method}");
        }
        let origin = counting(representation("/a", "new")).await;
        let proxy = Proxy::before(&origin.url());
        let credentials = [("authorization", "Bearer x"), ("content-length", "0")];
        proxy.send("PUT", "/a", &credentials).await;
        assert_eq!(proxy.get("/a").await.cache(), "MISS", "it is for its writer");
        let method = [("x-http-method-override", "DELETE"), ("content-length", "0")];
        proxy.send("POST", "/b", &method).await;
        assert_eq!(proxy.get("/b").await.cache(), "MISS", "it may be the answer to something else");
    })
    .await;
}

#[tokio::test]
async fn a_write_that_another_overtook_is_not_stored() {
    within(async {
        for (overtaking, stored) in [
            (Some(("PUT", "/a")), false),
            (Some(("PUT", "/b")), true),
            (Some(("POST", "/stocks/7/x")), true),
            (None, true),
        ] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin =
                ScriptedOrigin::start(move |request| match (&*request.method, &*request.target) {
                    ("PUT", "/a") if request.before == 0 => {
                        representation("/a", "first").after(&waiting)
                    }
                    ("PUT", "/a") => OriginResponse::ok("second"),
                    _ => OriginResponse::fresh("current"),
                })
                .await;
            let proxy = Proxy::with(&origin.url(), STOCKS);
            let mut first = proxy.connect().await;
            first.write(request_with_body("PUT", "/a", &[], "first")).await;
            origin.wait_for_requests(1).await;
            if let Some((method, target)) = overtaking {
                send(&proxy, method, target, "second").await;
            }
            gate.open();
            assert_eq!(first.read_reply_to("PUT").await.summary(), "200 BYPASS first");
            let expected = if stored { "200 HIT first" } else { "200 MISS current" };
            assert_eq!(proxy.get("/a").await.summary(), expected, "{overtaking:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_written_through_is_purged_like_anything_else() {
    within(async {
        let json = || representation("/products/1", r#"{"items":[{"id":7}]}"#);
        let origin = counting(json().with("content-type", "application/json")).await;
        for purged in ["product:7", "page:1"] {
            let proxy = Proxy::with(&origin.url(), PRODUCTS);
            send(&proxy, "PUT", "/products/1", "{}").await;
            assert_eq!(proxy.get("/products/1").await.cache(), "HIT");
            purge_tag(&proxy, purged).await;
            assert_eq!(proxy.get("/products/1").await.cache(), "MISS", "{purged}");
        }
        let proxy = Proxy::with(&origin.url(), PRODUCTS);
        send(&proxy, "PUT", "/products/1", "{}").await;
        proxy.send("DELETE", "/products/1", &[]).await;
        assert_eq!(proxy.get("/products/1").await.cache(), "MISS");
    })
    .await;
}

/// Two nodes with one Redis, which answer hits.
async fn fleet(redis: &Redis, origin: &ScriptedOrigin) -> [Proxy; 2] {
    let toml = format!("[store]\n{}", redis.store());
    let nodes = [Proxy::with(&origin.url(), &toml), Proxy::with(&origin.url(), &toml)];
    for node in &nodes {
        while node.get("/warm").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
    }
    nodes
}

/// Asks until this is the answer.
async fn until(proxy: &Proxy, target: &str, expected: &str) {
    while proxy.get(target).await.summary() != expected {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_write_on_one_node_is_known_to_the_others() {
    within(async {
        let redis = Redis::start().await;
        let origin = counting(representation("/b", "written").status_of(201)).await;
        let [one, other] = fleet(&redis, &origin).await;
        one.get("/a").await;
        until(&other, "/a", "200 HIT 0").await;
        send(&one, "POST", "/a", "").await;
        assert_eq!(one.metric("larder_write_purges_total", "").await, 1);
        assert_eq!(one.get("/a").await.summary(), "200 MISS 1");
        until(&other, "/a", "200 HIT 1").await;
        send(&one, "PUT", "/b", "").await;
        assert_eq!(one.get("/b").await.summary(), "200 HIT written");
        until(&other, "/b", "200 HIT written").await;
    })
    .await;
}

#[tokio::test]
async fn writes_to_other_targets_at_the_same_time_keep_none_from_being_stored() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(|request| match &*request.method {
            "PUT" => representation(&request.target, "written").status_of(200),
            _ => OriginResponse::fresh("current"),
        })
        .await;
        let [one, _] = fleet(&redis, &origin).await;
        let targets: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
        let mut wires = Vec::new();
        for target in &targets {
            let mut wire = one.connect().await;
            wire.write(request_with_body("PUT", target, &[], "")).await;
            wires.push(wire);
        }
        for wire in &mut wires {
            assert_eq!(wire.read_reply_to("PUT").await.summary(), "200 BYPASS written");
        }
        let mut stored = 0;
        for target in &targets {
            stored += u64::from(one.get(target).await.summary() == "200 HIT written");
        }
        let late = one.metric("larder_write_purges_total", "result=\"late\"").await;
        assert!(stored + late >= 20, "{stored} stored, {late} late");
    })
    .await;
}

#[tokio::test]
async fn a_write_is_answered_without_the_log_and_gets_there_later() {
    within(async {
        let redis = Redis::start().await;
        let origin = counting(representation("/a", "written")).await;
        let [one, other] = fleet(&redis, &origin).await;
        one.get("/a").await;
        until(&other, "/a", "200 HIT 0").await;
        redis.refuse_writes(WriteRefusal::Memory).await;
        assert_eq!(send(&one, "PUT", "/a", "").await.summary(), "200 BYPASS written");
        assert_eq!(one.metric("larder_write_purges_total", "pending").await, 1);
        assert_eq!(one.get("/a").await.summary(), "200 MISS 1", "it holds here, and is not stored");
        redis.accept_writes().await;
        while other.get("/a").await.body == "0" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Reads by POST, routes that nothing is stored of, and one with writes.
const READS_BY_POST: &str = r#"
admin.token = "secret"
[[route]]
name = "graphql"
match = "POST /graphql"
on_write = { invalidate = false }
[[route]]
name = "search"
match = "POST /search"
on_write = { invalidate = false, purge = ["searches"] }
[[route]]
name = "checkout"
match = "/checkout/**"
cache = false
"#;

#[tokio::test]
async fn writes_that_can_invalidate_nothing_are_no_records_of_the_purge_log() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.method.clone())).await;
        let proxy = Proxy::with(&origin.url(), READS_BY_POST);
        let records = || metric(&proxy, "larder_purge_records_total", "");
        let before = records().await;
        let mut wire = proxy.connect().await;
        for number in 0..500 {
            let target = if number % 2 == 0 { "/graphql" } else { "/checkout/cart" };
            let reply = wire.exchange(request_with_body("POST", target, &[], "{}")).await;
            assert_eq!(reply.status(), 200);
        }
        assert_eq!(records().await, before);
        proxy.get("/graphql").await;
        send(&proxy, "POST", "/graphql", "{}").await;
        assert_eq!(proxy.get("/graphql").await.cache(), "HIT");
        send(&proxy, "POST", "/search", "{}").await;
        assert_eq!(records().await, before + 1, "the tags that the route names are purged");
        send(&proxy, "PUT", "/graphql", "{}").await;
        assert_eq!(proxy.get("/graphql").await.cache(), "MISS", "another method is another route");
    })
    .await;
}

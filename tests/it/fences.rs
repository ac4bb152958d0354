//! Purged means gone: purged responses are not used again, whatever was in progress.

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request, sum},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

/// An origin that counts the requests for each target, with the tag `t` and the path as tags.
async fn counting() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        let tags = format!("t {}", &request.target[1..]);
        OriginResponse::fresh(request.before.to_string()).with("surrogate-key", &tags)
    })
    .await
}

const TOKEN: &str = "admin.token = \"secret\"";

async fn purge(proxy: &Proxy, json: &str) -> Reply {
    let length = json.len().to_string();
    let fields = [("authorization", "Bearer secret"), ("content-length", &*length)];
    let call = request("POST", "/v1/purge", &fields) + json;
    Wire::connect(proxy.admin_address()).await.exchange(call).await
}

/// Returns the number of requests that joined another fetch.
async fn waiting_for_others(proxy: &Proxy) -> u64 {
    let metrics = request("GET", "/metrics", &[("authorization", "Bearer secret")]);
    let reported = Wire::connect(proxy.admin_address()).await.exchange(metrics).await;
    sum(&reported.body, "larder_collapsed_requests_total", "")
}

#[tokio::test]
async fn all_variants_of_a_url_go_with_it() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("a").with("vary", "x-color")).await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        let colors = [[("x-color", "red")], [("x-color", "blue")]];
        for color in &colors {
            proxy.get_with("/a", color).await;
            assert_eq!(proxy.get_with("/a", color).await.cache(), "HIT");
        }
        purge(&proxy, r#"{"urls":["/a"]}"#).await;
        for color in &colors {
            assert_eq!(proxy.get_with("/a", color).await.cache(), "MISS");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_being_fetched_when_the_purge_came_is_never_served_after_it() {
    within(async {
        for selector in [r#"{"tags":["t"]}"#, r#"{"urls":["/a"]}"#, r#"{"everything":true}"#] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let response = OriginResponse::fresh(request.before.to_string()).with("xkey", "t");
                if request.before == 0 { response.after(&waiting) } else { response }
            })
            .await;
            let proxy = Proxy::with(&origin.url(), TOKEN);
            let mut before = proxy.connect().await;
            before.write(request("GET", "/a", &[])).await;
            origin.wait_for_requests(1).await;
            purge(&proxy, selector).await;
            // It was requested after the purge, and must not join the fetch that began before.
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS 1", "{selector}");
            gate.open();
            assert_eq!(before.read_reply().await.body, "0", "it asked before the purge");
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT 1", "{selector}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_still_arriving_is_joined_unless_the_purge_selects_its_tags() {
    within(async {
        for (tag, expected) in [("other", "200 MISS 0end"), ("t", "200 MISS 1end")] {
            let gate = Gate::closed();
            let waiting = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let response = OriginResponse::fresh(request.before.to_string()).with("xkey", "t");
                response.then(&waiting, "end")
            })
            .await;
            let proxy = Proxy::with(&origin.url(), TOKEN);
            let mut first = proxy.connect().await;
            first.write(request("GET", "/a", &[])).await;
            first.read_head().await;
            purge(&proxy, &format!(r#"{{"tags":["{tag}"]}}"#)).await;
            let mut second = proxy.connect().await;
            second.write(request("GET", "/a", &[])).await;
            second.read_head().await;
            gate.open();
            assert_eq!(origin.requests(), if tag == "t" { 2 } else { 1 });
            let (body, _) = second.read_chunks().await;
            assert_eq!(format!("200 MISS {body}"), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_soft_purge_serves_once_more_while_it_fetches_anew() {
    within(async {
        let gate = Gate::closed();
        let waiting = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response = OriginResponse::fresh(request.before.to_string()).with("xkey", "t");
            if request.before == 1 { response.after(&waiting) } else { response }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        proxy.get("/a").await;
        assert_eq!(purge(&proxy, r#"{"tags":["t"],"mode":"soft"}"#).await.status(), 200);
        let stale = proxy.get("/a").await;
        assert_eq!(stale.summary(), "200 STALE 0");
        assert!(stale.header("cache-status").unwrap().contains("detail=soft-purged"));
        origin.wait_for_requests(2).await;
        gate.open();
        while proxy.get("/a").await.cache() == "STALE" {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 1");
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_soft_purge_does_not_serve_what_must_be_revalidated() {
    within(async {
        let response = OriginResponse::ok("a").with("cache-control", "max-age=60, must-revalidate");
        let origin = ScriptedOrigin::always(response.with("xkey", "t")).await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        proxy.get("/a").await;
        purge(&proxy, r#"{"tags":["t"],"mode":"soft"}"#).await;
        assert_eq!(proxy.get("/a").await.cache(), "EXPIRED");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_hard_purge_after_a_soft_one_wins() {
    within(async {
        let origin = counting().await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        proxy.get("/a").await;
        purge(&proxy, r#"{"tags":["t"],"mode":"soft"}"#).await;
        purge(&proxy, r#"{"urls":["/a"]}"#).await;
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS 1");
    })
    .await;
}

#[tokio::test]
async fn a_write_spares_what_was_asked_for_after_it() {
    within(async {
        let origin = counting().await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        proxy.get("/a").await;
        proxy.send("DELETE", "/a", &[]).await;
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn what_was_purged_while_a_request_waited_is_not_revived_by_a_304() {
    within(async {
        let gate = Gate::closed();
        let waiting = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response = |status| OriginResponse::status(status, request.before.to_string());
            let with_tag = |response: OriginResponse| {
                response.with("etag", "\"x\"").with("cache-control", "max-age=10").with("xkey", "t")
            };
            match (request.before, request.header("if-none-match")) {
                (1, _) => response(500).after(&waiting),
                (_, Some(_)) => with_tag(OriginResponse::status(304, "")),
                _ => with_tag(response(200)),
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), TOKEN);
        assert_eq!(proxy.get("/a").await.body, "0");
        proxy.advance(20);
        let (mut leader, mut follower) = (proxy.connect().await, proxy.connect().await);
        leader.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(2).await;
        follower.write(request("GET", "/a", &[])).await;
        while waiting_for_others(&proxy).await < 1 {
            tokio::task::yield_now().await;
        }
        purge(&proxy, r#"{"tags":["t"]}"#).await;
        gate.open();
        assert_eq!(leader.read_reply().await.status(), 500);
        assert_eq!(follower.read_reply().await.body, "2", "fetched anew, not revalidated");
        assert_eq!(origin.last().header("if-none-match"), None);
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
    })
    .await;
}

//! An origin that fails: what those who wait for the same fetch get, and what it costs the origin.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::JoinSet;

use crate::support::{
    fleet::Fleet,
    gate::Gate,
    proxy::{Proxy, request},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Reply, Wire},
    within, within_seconds,
};

const FIELDS: &[(&str, &str)] = &[];

/// Waits until this many requests wait for another's fetch.
async fn until_waiting(proxy: &Proxy, followers: u64) {
    while proxy.metric("larder_collapsed_requests_total", "").await < followers {
        tokio::task::yield_now().await;
    }
}

/// Connections that have asked for `/a` and wait, each with these fields.
async fn waiting(proxy: &Proxy, clients: usize, fields: &[(&str, &str)]) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..clients {
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/a", fields)).await;
        wires.push(wire);
    }
    wires
}

async fn replies(wires: Vec<Wire>) -> Vec<Reply> {
    let mut tasks = JoinSet::new();
    for mut wire in wires {
        tasks.spawn(async move { wire.read_reply().await });
    }
    tasks.join_all().await
}

/// An origin that answers all requests alike once a gate is open.
async fn held(response: OriginResponse) -> (ScriptedOrigin, Gate) {
    let gate = Gate::closed();
    (ScriptedOrigin::always(response.after(&gate)).await, gate)
}

#[tokio::test]
async fn an_error_is_tried_once_more_and_then_shared_by_all_who_wait() {
    within(async {
        let (origin, gate) = held(OriginResponse::status(503, "down").with("x-shard", "7")).await;
        let proxy = Proxy::before(&origin.url());
        let wires = waiting(&proxy, 200, FIELDS).await;
        until_waiting(&proxy, 199).await;
        gate.open();
        let replies = replies(wires).await;
        for reply in &replies {
            assert_eq!(
                (reply.summary().as_str(), reply.header("x-shard")),
                ("503 MISS down", Some("7"))
            );
        }
        let is_collapsed = |reply: &&Reply| {
            reply.header("cache-status").is_some_and(|status| status.contains("; collapsed"))
        };
        assert_eq!(replies.iter().filter(is_collapsed).count(), 198);
        assert_eq!(origin.requests(), 2, "the first one, and one of those who waited");
    })
    .await;
}

#[tokio::test]
async fn one_request_that_breaks_the_origin_breaks_no_other() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.header("x-break") {
            Some(_) => OriginResponse::status(500, "broken").after(&held),
            None => OriginResponse::fresh("whole"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let first = waiting(&proxy, 1, &[("X-Break", "yes")]).await;
        origin.wait_for_requests(1).await;
        let others = waiting(&proxy, 20, FIELDS).await;
        until_waiting(&proxy, 20).await;
        gate.open();
        assert_eq!(replies(first).await[0].summary(), "500 MISS broken");
        for reply in replies(others).await {
            assert_eq!((reply.status(), reply.body.as_str()), (200, "whole"));
        }
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_says_when_to_come_again_is_not_asked_again() {
    within(async {
        let (origin, gate) =
            held(OriginResponse::status(503, "down").with("retry-after", "30")).await;
        let proxy = Proxy::before(&origin.url());
        let wires = waiting(&proxy, 20, FIELDS).await;
        until_waiting(&proxy, 19).await;
        gate.open();
        for reply in replies(wires).await {
            assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("30")));
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_rate_limit_is_shared_with_its_retry_after() {
    within(async {
        let (origin, gate) =
            held(OriginResponse::status(429, "slow down").with("retry-after", "9")).await;
        let proxy = Proxy::before(&origin.url());
        let wires = waiting(&proxy, 20, FIELDS).await;
        until_waiting(&proxy, 19).await;
        gate.open();
        for reply in replies(wires).await {
            assert_eq!(reply.summary(), "429 MISS slow down");
            assert_eq!(reply.header("retry-after"), Some("9"));
        }
        assert_eq!(origin.requests(), 2, "the limit may be that of one client");
    })
    .await;
}

#[tokio::test]
async fn an_error_for_one_client_tells_others_its_status_and_no_more() {
    within(async {
        for (name, value) in [
            ("set-cookie", "sid=leader"),
            ("cache-control", "private"),
            ("cache-control", "no-store"),
            ("vary", "*"),
        ] {
            let response =
                OriginResponse::status(503, "for you").with("retry-after", "5").with(name, value);
            let (origin, gate) = held(response.with("x-user", "leader")).await;
            let proxy = Proxy::before(&origin.url());
            let wires = waiting(&proxy, 20, FIELDS).await;
            until_waiting(&proxy, 19).await;
            gate.open();
            let replies = replies(wires).await;
            let personal = replies.iter().filter(|reply| reply.body == "for you");
            assert_eq!(personal.count(), origin.requests(), "{name}: {value}");
            assert_eq!(origin.requests(), 1, "{name}: {value}");
            for other in replies.iter().filter(|reply| reply.body != "for you") {
                assert_eq!((other.status(), other.header("retry-after")), (503, Some("5")));
                assert_eq!(other.header("content-type"), Some("application/problem+json"));
                assert_eq!((other.header("set-cookie"), other.header("x-user")), (None, None));
                let status = other.header("cache-status").unwrap();
                assert!(status.contains("fwd-status=503; collapsed"), "{status}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_in_one_language_is_not_for_those_who_ask_for_another() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let language = request.header("accept-language").unwrap().to_owned();
            let response = OriginResponse::status(503, language).with("vary", "accept-language");
            response.with("retry-after", "5").after(&held)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let german = waiting(&proxy, 5, &[("Accept-Language", "de")]).await;
        let french = waiting(&proxy, 5, &[("Accept-Language", "fr")]).await;
        until_waiting(&proxy, 9).await;
        gate.open();
        for reply in replies(german).await {
            assert!(reply.body == "de" || reply.body.contains("The origin failed"));
        }
        for reply in replies(french).await {
            assert!(reply.body == "fr" || reply.body.contains("The origin failed"));
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_not_shared() {
    within(async {
        for status in [401, 403, 404, 400] {
            let (origin, gate) =
                held(OriginResponse::status(status, "no").with("cache-control", "no-store")).await;
            let proxy = Proxy::before(&origin.url());
            let wires = waiting(&proxy, 10, FIELDS).await;
            until_waiting(&proxy, 9).await;
            gate.open();
            replies(wires).await;
            assert_eq!(origin.requests(), 10, "{status}: each asks for itself");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_origin_costs_all_who_wait_one_attempt() {
    within(async {
        let gate = Gate::closed();
        let origin = RawOrigin::start({
            let gate = gate.clone();
            move |mut wire, _| {
                let gate = gate.clone();
                async move {
                    wire.read_head().await;
                    gate.passed().await;
                }
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let wires = waiting(&proxy, 200, FIELDS).await;
        until_waiting(&proxy, 199).await;
        gate.open();
        for reply in replies(wires).await {
            assert_eq!(reply.status(), 502);
        }
        assert_eq!(origin.connections(), 1);
        assert_eq!(proxy.metric("larder_origin_errors_total", "").await, 1);
    })
    .await;
}

#[tokio::test]
async fn stale_wins_over_sharing_an_error() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.before {
            0 => OriginResponse::ok("old").with("cache-control", "max-age=10, stale-if-error=60"),
            _ => OriginResponse::status(503, "down").after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        let wires = waiting(&proxy, 50, FIELDS).await;
        until_waiting(&proxy, 49).await;
        gate.open();
        for reply in replies(wires).await {
            assert_eq!(reply.summary(), "200 STALE old");
        }
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn what_one_request_allows_to_be_stale_is_not_for_others() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.before {
            0 => OriginResponse::ok("old").with("cache-control", "max-age=10"),
            _ => OriginResponse::status(503, "down").with("retry-after", "5").after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        let lenient = waiting(&proxy, 1, &[("Cache-Control", "stale-if-error=60")]).await;
        origin.wait_for_requests(2).await;
        let strict = waiting(&proxy, 5, FIELDS).await;
        until_waiting(&proxy, 5).await;
        gate.open();
        assert_eq!(replies(lenient).await[0].summary(), "200 STALE old");
        for reply in replies(strict).await {
            assert_eq!(reply.status(), 503);
        }
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_nodes_of_a_fleet_do_not_all_ask_an_origin_that_fails() {
    within_seconds(60, async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::status(503, "down").after(&gate)).await;
        let redis = Redis::start().await;
        let fleet = Fleet::sharing(&redis, 5, &origin.url(), "").await;
        fleet.ready(&redis).await;
        let fleet = Arc::new(fleet);
        let mut tasks = JoinSet::new();
        for client in 0..50 {
            let fleet = Arc::clone(&fleet);
            tasks.spawn(async move { fleet.get(client % 5, "/a").await.status() });
        }
        origin.wait_for_requests(1).await;
        while fleet.total("larder_collapsed_requests_total", "").await < 45 {
            tokio::task::yield_now().await;
        }
        gate.open();
        for status in tasks.join_all().await {
            assert_eq!(status, 503);
        }
        assert!(origin.requests() <= 3, "{} requests", origin.requests());
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_bridged_at_once_and_probed() {
    within(async {
        let toml = "[defaults]\nstale_if_error = \"1h\"";
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(request.target.clone()).with("cache-control", "max-age=10")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), toml);
        let targets: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
        for target in &targets {
            proxy.get(target).await;
        }
        drop(origin);
        proxy.advance(11);
        for target in &targets {
            assert_eq!(proxy.get(target).await.summary(), format!("200 STALE {target}"));
        }
        let attempts = proxy.metric("larder_origin_errors_total", "").await;
        assert_eq!(attempts, 1, "all others go by what the first one found");
        proxy.advance(1);
        for target in &targets {
            assert_eq!(proxy.get(target).await.cache(), "STALE");
        }
        while proxy.metric("larder_origin_errors_total", "").await < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.metric("larder_origin_errors_total", "").await, 2, "the probe");
        assert_eq!(proxy.get("/cold").await.status(), 502);
    })
    .await;
}

#[tokio::test]
async fn a_url_that_times_out_is_bridged_at_once_and_others_are_asked_for() {
    within(async {
        let hangs = Gate::closed();
        let held = hangs.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response =
                OriginResponse::ok("x").with("cache-control", "max-age=10, stale-if-error=3600");
            if request.target == "/slow" && request.before == 1 {
                response.after(&held)
            } else {
                response
            }
        })
        .await;
        let origin_toml = "origin.first_byte_timeout = \"300ms\"";
        let proxy = Proxy::with(&origin.url(), origin_toml);
        proxy.get("/slow").await;
        proxy.get("/quick").await;
        proxy.advance(11);
        assert_eq!(proxy.get("/slow").await.cache(), "STALE");
        let asked = origin.requests();
        assert_eq!(proxy.get("/slow").await.cache(), "STALE");
        assert_eq!(origin.requests(), asked, "not again at once");
        assert_eq!(proxy.get("/quick").await.cache(), "EXPIRED");
        proxy.advance(1);
        assert_eq!(proxy.get("/slow").await.cache(), "STALE", "a probe goes in the background");
        while proxy.get("/slow").await.cache() != "HIT" {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_bridged_unless_the_file_says_otherwise() {
    within(async {
        for (toml, control, expected) in [
            ("", "max-age=10", "200 STALE 1"),
            ("[defaults]\nstale_if_disconnected = \"0\"", "max-age=10", "502 MISS"),
            ("[defaults]\nstale_if_error = \"0\"", "max-age=10", "502 MISS"),
            ("", "max-age=10, must-revalidate", "502 MISS"),
            ("", "s-maxage=10", "502 MISS"),
            ("", "max-age=10, stale-if-error=0", "502 MISS"),
        ] {
            let origin =
                ScriptedOrigin::always(OriginResponse::ok("1").with("cache-control", control))
                    .await;
            let proxy = Proxy::with(&origin.url(), toml);
            proxy.get("/a").await;
            drop(origin);
            proxy.advance(600);
            let reply = proxy.get("/a").await;
            assert!(
                reply.summary().starts_with(expected),
                "{toml}, {control}: {}",
                reply.summary()
            );
            if expected.starts_with("200") {
                let status = reply.header("cache-status").unwrap();
                assert!(status.ends_with("detail=stale-if-disconnected"), "{status}");
            }
            proxy.advance(11);
            assert_eq!(proxy.get("/a").await.status(), 502, "ten minutes after it became stale");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_status_or_a_time_out_is_no_lost_connection() {
    within(async {
        let never = Gate::closed();
        for failure in
            [OriginResponse::status(503, "down"), OriginResponse::ok("late").after(&never)]
        {
            let response = [OriginResponse::ok("1").with("cache-control", "max-age=10"), failure];
            let origin = ScriptedOrigin::in_turn(response).await;
            let toml = "origin.first_byte_timeout = \"200ms\"";
            let proxy = Proxy::with(&origin.url(), toml);
            proxy.get("/a").await;
            proxy.advance(11);
            assert!(proxy.get("/a").await.status() >= 503);
        }
    })
    .await;
}

#[tokio::test]
async fn exact_credentials_get_nothing_stale_from_an_origin_that_is_gone() {
    within(async {
        let toml = "[[route]]\nname = \"mine\"\nmatch = \"/**\"\npartition = \"user\"\n\
                    stale_if_disconnected = \"1h\"";
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("1").with("cache-control", "max-age=10"))
                .await;
        let proxy = Proxy::with(&origin.url(), toml);
        let alice = [("Authorization", "Bearer alice")];
        assert_eq!(proxy.get_with("/a", &alice).await.cache(), "MISS");
        assert_eq!(proxy.get_with("/a", &alice).await.cache(), "HIT");
        drop(origin);
        proxy.advance(11);
        assert_eq!(proxy.get_with("/a", &alice).await.status(), 502);
    })
    .await;
}

/// Waits until health checks keep all requests from the origin.
async fn until_unhealthy(proxy: &Proxy) {
    while proxy.metric("larder_origin_errors_total", "no-healthy-server").await == 0 {
        assert!(proxy.get("/cold").await.status() >= 500);
    }
}

#[tokio::test]
async fn an_origin_that_health_checks_find_gone_is_bridged_like_one_that_requests_find_gone() {
    within(async {
        let toml = "origin.health = { path = \"/healthz\", every = \"100ms\" }";
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("1").with("cache-control", "max-age=10"))
                .await;
        let proxy = Proxy::with(&origin.url(), toml);
        assert_eq!(proxy.get("/a").await.status(), 200);
        drop(origin);
        until_unhealthy(&proxy).await;
        proxy.advance(11);
        let reply = proxy.get("/a").await;
        assert_eq!(reply.summary(), "200 STALE 1");
        let status = reply.header("cache-status").unwrap();
        assert!(status.ends_with("detail=stale-if-disconnected"), "{status}");
    })
    .await;
}

#[tokio::test]
async fn an_origin_whose_health_checks_are_errors_is_no_lost_connection() {
    within(async {
        for (rule, expected) in [("", 502), ("[defaults]\nstale_if_error = \"1h\"", 200)] {
            let toml =
                format!("origin.health = {{ path = \"/healthz\", every = \"100ms\" }}\n{rule}");
            let ill = Arc::new(AtomicBool::new(false));
            let is_ill = Arc::clone(&ill);
            let origin = ScriptedOrigin::start(move |request| {
                if request.target == "/healthz" && is_ill.load(Ordering::SeqCst) {
                    return OriginResponse::status(503, "ill");
                }
                if request.target == "/cold" {
                    return OriginResponse::status(500, "no");
                }
                OriginResponse::ok("1").with("cache-control", "max-age=10")
            })
            .await;
            let proxy = Proxy::with(&origin.url(), &toml);
            assert_eq!(proxy.get("/a").await.status(), 200);
            ill.store(true, Ordering::SeqCst);
            until_unhealthy(&proxy).await;
            proxy.advance(11);
            assert_eq!(proxy.get("/a").await.status(), expected, "{rule}");
        }
    })
    .await;
}

/// Waits until a node uses its Redis.
async fn until_synced(proxy: &Proxy) {
    while proxy.metric("larder_purge_log_synced", "").await != 1
        || proxy.metric("larder_store_breaker_open", "").await != 0
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_reaches_no_origin_serves_what_others_have_fetched() {
    within_seconds(60, async {
        let redis = Redis::start().await;
        let toml = format!("[store]\n{}", redis.store());
        let fresh = |body| OriginResponse::ok(body).with("cache-control", "max-age=10");
        let (near, far) = (
            ScriptedOrigin::always(fresh("old")).await,
            ScriptedOrigin::always(fresh("new")).await,
        );
        let (cut_off, other) = (Proxy::with(&near.url(), &toml), Proxy::with(&far.url(), &toml));
        for proxy in [&cut_off, &other] {
            until_synced(proxy).await;
        }
        assert_eq!(cut_off.get("/a").await.body, "old");
        drop(near);
        for proxy in [&cut_off, &other] {
            proxy.advance(11);
        }
        assert_eq!(cut_off.get("/a").await.summary(), "200 STALE old");
        assert_eq!(other.get("/a").await.body, "new");
        while cut_off.get("/a").await.body != "new" {
            tokio::task::yield_now().await;
        }
        assert_eq!(cut_off.get("/a").await.cache(), "HIT");
    })
    .await;
}

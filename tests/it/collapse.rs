//! Many who ask for the same at the same time cost the origin one request.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

/// Waits until this many requests wait for another's fetch.
async fn until_waiting(proxy: &Proxy, followers: u64) {
    while proxy.metric("larder_collapsed_requests_total", "").await < followers {
        tokio::task::yield_now().await;
    }
}

/// Connections that have asked for `target` and wait.
async fn waiting(proxy: &Proxy, target: &str, clients: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..clients {
        let mut wire = proxy.connect().await;
        wire.write(request("GET", target, &[])).await;
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

#[tokio::test]
async fn a_thousand_clients_cost_one_request_and_get_bytes_before_its_end() {
    within(async {
        let (head, rest) = (Gate::closed(), Gate::closed());
        let response = OriginResponse::fresh("first ").then(&rest, "last").after(&head);
        let origin = ScriptedOrigin::always(response).await;
        let proxy = Proxy::before(&origin.url());
        let mut wires = waiting(&proxy, "/a", 1000).await;
        until_waiting(&proxy, 999).await;
        head.open();
        for wire in &mut wires {
            let head = wire.read_head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(wire.read_until("first ").await, "6\r\nfirst ", "the origin has not ended");
        }
        rest.open();
        let mut tasks = JoinSet::new();
        for mut wire in wires {
            tasks.spawn(async move {
                assert_eq!(wire.read_exact(2).await, "\r\n");
                wire.read_chunks().await.0
            });
        }
        let bodies = tasks.join_all().await;
        assert!(bodies.len() == 1000 && bodies.iter().all(|body| body == "last"));
        assert_eq!(origin.requests(), 1);
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT first last");
    })
    .await;
}

#[tokio::test]
async fn followers_are_told_so() {
    within(async {
        let gate = Gate::closed();
        let response = OriginResponse::fresh("a").after(&gate);
        let response = response.with("cache-control", "public").with("set-cookie", "sid=leader");
        let origin = ScriptedOrigin::always(response).await;
        let proxy = Proxy::before(&origin.url());
        let mut leader = waiting(&proxy, "/a", 1).await;
        origin.wait_for_requests(1).await;
        let followers = waiting(&proxy, "/a", 5).await;
        until_waiting(&proxy, 5).await;
        gate.open();
        let leader = leader.remove(0).read_reply().await;
        assert_eq!(leader.all("set-cookie"), ["sid=leader"]);
        for follower in replies(followers).await {
            assert_eq!(follower.summary(), "200 MISS a");
            assert!(follower.header("cache-status").unwrap().contains("; collapsed"));
            assert!(follower.all("set-cookie").is_empty(), "it is the leader's");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_comes_late_gets_the_body_from_its_beginning() {
    within(async {
        let rest = Gate::closed();
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("first ").then(&rest, "last")).await;
        let proxy = Proxy::before(&origin.url());
        let mut leader = waiting(&proxy, "/a", 1).await;
        leader[0].read_until("first ").await;
        let late = waiting(&proxy, "/a", 1).await;
        until_waiting(&proxy, 1).await;
        rest.open();
        assert_eq!(replies(late).await[0].body, "first last");
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_others_their_response() {
    within(async {
        let (head, rest) = (Gate::closed(), Gate::closed());
        let response = OriginResponse::fresh("first ").then(&rest, "last").after(&head);
        let origin = ScriptedOrigin::always(response).await;
        let proxy = Proxy::before(&origin.url());
        let leader = waiting(&proxy, "/a", 1).await;
        origin.wait_for_requests(1).await;
        let followers = waiting(&proxy, "/a", 3).await;
        until_waiting(&proxy, 3).await;
        drop(leader);
        proxy.log(1).await;
        head.open();
        rest.open();
        for follower in replies(followers).await {
            assert_eq!((follower.status(), follower.body.as_str()), (200, "first last"));
        }
        assert_eq!(origin.requests(), 1);
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_goes_away_midway_leaves_the_others_their_response() {
    within(async {
        let rest = Gate::closed();
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("first ").then(&rest, "last")).await;
        let proxy = Proxy::before(&origin.url());
        let mut leader = waiting(&proxy, "/a", 1).await;
        leader[0].read_until("first ").await;
        let followers = waiting(&proxy, "/a", 3).await;
        until_waiting(&proxy, 3).await;
        drop(leader);
        proxy.log(1).await;
        rest.open();
        for follower in replies(followers).await {
            assert_eq!(follower.body, "first last");
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_shared_releases_all_and_is_remembered() {
    within(async {
        let first = Gate::closed();
        let together = Gate::closed();
        let (one, rest) = (first.clone(), together.clone());
        let origin = ScriptedOrigin::start(move |request| {
            let gate = if request.before == 0 { &one } else { &rest };
            let own = format!("{}", request.before);
            OriginResponse::ok(own).with("cache-control", "private").after(gate)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let burst = waiting(&proxy, "/a", 10).await;
        until_waiting(&proxy, 9).await;
        assert_eq!(origin.requests(), 1);
        first.open();
        // All nine are at the origin at once: none waits for another.
        origin.wait_for_requests(10).await;
        let next = waiting(&proxy, "/a", 10).await;
        origin.wait_for_requests(20).await;
        together.open();
        let mut bodies: Vec<usize> = replies(burst.into_iter().chain(next).collect())
            .await
            .iter()
            .map(|reply| reply.body.parse().unwrap())
            .collect();
        bodies.sort_unstable();
        assert_eq!(bodies, (0..20).collect::<Vec<_>>(), "everyone has an answer of their own");
    })
    .await;
}

#[tokio::test]
async fn identities_never_share_a_fetch() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let who =
                request.header("authorization").or(request.header("cookie")).unwrap_or("nobody");
            OriginResponse::fresh(who).after(&held)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let identities = [
            Some(("Authorization", "Bearer alice")),
            Some(("Authorization", "Bearer bob")),
            Some(("Cookie", "sid=carol")),
            Some(("Cookie", "sid=dave")),
            None,
        ];
        let mut wires = Vec::new();
        for identity in identities {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/a", identity.as_slice())).await;
            wires.push(wire);
        }
        origin.wait_for_requests(identities.len()).await;
        gate.open();
        for (identity, mut wire) in identities.iter().zip(wires) {
            let expected = identity.map_or("nobody", |(_, value)| value);
            assert_eq!(wire.read_reply().await.body, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn followers_who_want_another_variant_get_theirs() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let language = request.header("accept-language").unwrap().to_owned();
            OriginResponse::fresh(language).with("vary", "accept-language").after(&held)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let mut wires = Vec::new();
        for number in 0..30 {
            let language = ["de", "en", "fr"][number % 3];
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/a", &[("Accept-Language", language)])).await;
            wires.push((language, wire));
        }
        until_waiting(&proxy, 29).await;
        gate.open();
        for (language, mut wire) in wires {
            assert_eq!(wire.read_reply().await.body, language);
        }
        assert_eq!(origin.requests(), 3, "one for each language");
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_a_failure_for_all_and_asks_once() {
    within(async {
        let gate = Gate::closed();
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("").cut(&gate).after(&gate)).await;
        let proxy = Proxy::before(&origin.url());
        let wires = waiting(&proxy, "/a", 10).await;
        until_waiting(&proxy, 9).await;
        drop(origin);
        for reply in replies(wires).await {
            assert_eq!((reply.status(), reply.cache()), (502, "MISS"));
        }
        assert_eq!(proxy.metric("larder_origin_errors_total", "").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_complete_for_nobody_and_not_stored() {
    within(async {
        for response in [
            OriginResponse::fresh("first"),
            OriginResponse::fresh("first").with("content-length", "100"),
        ] {
            let (first, again) = (Gate::closed(), Gate::closed());
            let response = response.cut(&first);
            let origin =
                ScriptedOrigin::in_turn([response, OriginResponse::fresh("whole").after(&again)])
                    .await;
            let proxy = Proxy::before(&origin.url());
            let mut wires = waiting(&proxy, "/a", 1).await;
            wires[0].read_until("first").await;
            wires.extend(waiting(&proxy, "/a", 9).await);
            until_waiting(&proxy, 9).await;
            first.open();
            for (number, mut wire) in wires.into_iter().enumerate() {
                let rest = wire.read_to_end().await;
                assert!(!rest.ends_with("0\r\n\r\n"), "client {number}: {rest}");
            }
            again.open();
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS whole");
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_during_a_fetch_keeps_its_result_out_of_the_store() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin =
            ScriptedOrigin::start(move |request| match (request.method.as_str(), request.before) {
                ("GET", 0) => OriginResponse::fresh("old").after(&held),
                ("GET", _) => OriginResponse::fresh("new"),
                _ => OriginResponse::status(204, ""),
            })
            .await;
        let proxy = Proxy::before(&origin.url());
        let before = waiting(&proxy, "/a", 1).await;
        origin.wait_for_requests(1).await;
        proxy.send("PUT", "/a", &[]).await;
        let after = proxy.get("/a").await;
        assert_eq!(after.body, "new", "it does not join a fetch that began before the write");
        gate.open();
        assert_eq!(replies(before).await[0].body, "old");
        assert_eq!(proxy.get("/a").await.body, "new");
    })
    .await;
}

#[tokio::test]
async fn a_write_during_a_fetch_of_ones_own_keeps_its_result_out_of_the_store() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin =
            ScriptedOrigin::start(move |request| match (request.method.as_str(), request.before) {
                ("GET", 0) => OriginResponse::fresh("old").after(&held),
                ("GET", _) => OriginResponse::fresh("new"),
                _ => OriginResponse::status(204, ""),
            })
            .await;
        let proxy = Proxy::before(&origin.url());
        let mut before = proxy.connect().await;
        before.write(request("GET", "/a", &[("Cache-Control", "no-cache")])).await;
        origin.wait_for_requests(1).await;
        proxy.send("PUT", "/a", &[]).await;
        gate.open();
        assert_eq!(before.read_reply().await.body, "old");
        assert_eq!(proxy.get("/a").await.body, "new");
    })
    .await;
}

#[tokio::test]
async fn a_write_during_a_fetch_of_a_variant_keeps_it_out_of_the_store() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response = match (request.method.as_str(), request.before) {
                ("GET", 0) => OriginResponse::fresh("old").after(&held),
                ("GET", _) => OriginResponse::fresh("new"),
                _ => OriginResponse::status(204, ""),
            };
            response.with("vary", "accept-language")
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let before = waiting(&proxy, "/a", 1).await;
        origin.wait_for_requests(1).await;
        proxy.send("PUT", "/a", &[]).await;
        gate.open();
        assert_eq!(replies(before).await[0].body, "old");
        assert_eq!(proxy.get("/a").await.body, "new");
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT new");
    })
    .await;
}

#[tokio::test]
async fn a_write_during_a_revalidation_keeps_what_was_stored_out() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin =
            ScriptedOrigin::start(move |request| match (request.method.as_str(), request.before) {
                ("GET", 0) => OriginResponse::ok("old")
                    .with("cache-control", "max-age=10")
                    .with("etag", "\"1\""),
                ("GET", 1) => {
                    OriginResponse::status(304, "").with("cache-control", "max-age=10").after(&held)
                }
                ("GET", _) => OriginResponse::fresh("new"),
                _ => OriginResponse::status(204, ""),
            })
            .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(11);
        let before = waiting(&proxy, "/a", 1).await;
        origin.wait_for_requests(2).await;
        proxy.send("PUT", "/a", &[]).await;
        gate.open();
        replies(before).await;
        assert_eq!(proxy.get("/a").await.body, "new");
    })
    .await;
}

#[tokio::test]
async fn requests_of_one_target_on_other_hosts_are_not_collapsed() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            OriginResponse::fresh(request.header("host").unwrap()).after(&held)
        })
        .await;
        let proxy = Arc::new(Proxy::before(&origin.url()));
        let mut tasks = JoinSet::new();
        for host in ["a.test", "b.test", "a.test:81"] {
            let proxy = Arc::clone(&proxy);
            tasks.spawn(async move {
                assert_eq!(proxy.get_with("/a", &[("Host", host)]).await.body, host);
            });
        }
        origin.wait_for_requests(3).await;
        gate.open();
        tasks.join_all().await;
    })
    .await;
}

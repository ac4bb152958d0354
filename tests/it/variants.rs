//! Variants, validation and refreshes: what no client's request, and no error of the origin, may take
//! away from what is stored for others.

use crate::support::{
    fleet::short_sleep,
    gate::Gate,
    proxy::{Proxy, request_with_body},
    random::Random,
    redis::Redis,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

const HOT: &str = "max-age=10";
const RENEWED: &str = "max-age=10, stale-while-revalidate=60";
const BRIDGED: &str = "max-age=10, stale-if-error=600";
const TOKEN: (&str, &str) = ("Authorization", "Bearer secret");
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

/// Asks until the refresh in the background has stored this body.
async fn until_hit(proxy: &Proxy, target: &str, body: &str) {
    loop {
        let reply = proxy.get(target).await;
        if reply.cache() == "HIT" && reply.body == body {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until this many requests wait for another's fetch.
async fn until_waiting(proxy: &Proxy, followers: u64) {
    while proxy.metric("larder_collapsed_requests_total", "").await < followers {
        tokio::task::yield_now().await;
    }
}

/// An origin whose representation changes with each request that is not conditional on the newest one.
fn versioned(request: &OriginRequest, version: usize, control: &str) -> OriginResponse {
    let tag = format!("\"{version}\"");
    let is_current = request.header("if-none-match") == Some(&tag);
    let response = if is_current {
        OriginResponse::status(304, "")
    } else {
        OriginResponse::ok(format!("{version}"))
    };
    response.with("etag", &tag).with("cache-control", control)
}

#[tokio::test]
async fn a_head_that_starts_a_refresh_renews_the_stored_response() {
    within(async {
        for (changed, body) in [(false, "0"), (true, "1")] {
            let origin = ScriptedOrigin::start(move |request| {
                versioned(request, usize::from(changed && request.before > 0), RENEWED)
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.send("HEAD", "/a", &[]).await.cache(), "STALE");
            origin.wait_for_requests(2).await;
            assert_eq!(origin.last().method, "GET");
            assert_eq!(origin.last().header("if-none-match"), Some("\"0\""));
            until_hit(&proxy, "/a", body).await;
            assert_eq!(origin.requests(), 2, "nothing was fetched anew");
        }
    })
    .await;
}

#[tokio::test]
async fn the_directives_of_a_client_do_not_reach_a_refresh_in_the_background() {
    within(async {
        let origin = ScriptedOrigin::start(|request| versioned(request, 0, RENEWED)).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        assert_eq!(proxy.get_with("/a", &[NO_STORE]).await.cache(), "STALE");
        origin.wait_for_requests(2).await;
        assert_eq!(origin.last().header("cache-control"), None);
        until_hit(&proxy, "/a", "0").await;
    })
    .await;
}

#[tokio::test]
async fn no_store_on_a_request_removes_nothing() {
    within(async {
        for control in [HOT, "no-cache"] {
            let origin = ScriptedOrigin::start(move |request| versioned(request, 0, control)).await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            let own = proxy.get_with("/a", &[NO_STORE]).await;
            assert_eq!(own.summary(), "200 REVALIDATED 0", "{control}");
            let other = proxy.get("/a").await;
            assert_eq!(other.summary(), "200 REVALIDATED 0", "{control}: it is still stored");
        }
    })
    .await;
}

#[tokio::test]
async fn what_answers_no_store_replaces_nothing() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            versioned(request, usize::from(request.before == 1), HOT)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        assert_eq!(proxy.get_with("/a", &[NO_STORE]).await.body, "1");
        assert_eq!(proxy.get("/a").await.summary(), "200 REVALIDATED 0");
    })
    .await;
}

#[tokio::test]
async fn an_error_on_a_refresh_keeps_the_stored_response() {
    within(async {
        for status in [400, 405, 406, 408, 412, 416, 421, 425, 429, 431, 500, 501, 503] {
            let origin = ScriptedOrigin::start(move |request| match request.before {
                1 => OriginResponse::status(status, "no"),
                _ => versioned(request, 0, HOT),
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.get("/a").await.status(), status);
            let next = proxy.get("/a").await;
            assert_eq!(next.summary(), "200 REVALIDATED 0", "{status}: it is still stored");
        }
    })
    .await;
}

#[tokio::test]
async fn a_verdict_about_the_resource_ends_the_stored_response() {
    within(async {
        for status in [200, 401, 403, 404, 410] {
            let origin = ScriptedOrigin::start(move |request| match request.before {
                0 => versioned(request, 0, BRIDGED),
                1 => OriginResponse::status(status, "own").with("cache-control", "no-store"),
                _ => OriginResponse::status(503, "down"),
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.get("/a").await.summary(), format!("{status} MISS own"));
            assert_eq!(proxy.get("/a").await.summary(), "503 MISS down", "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_does_not_keep_others_from_sharing_a_fetch() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.header("accept") {
            Some("x/y") => OriginResponse::status(406, "no"),
            _ => versioned(request, 0, HOT).after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for target in ["/cold", "/warm"] {
            gate.open();
            if target == "/warm" {
                proxy.get(target).await;
                proxy.advance(15);
            }
            let odd = [("Cache-Control", "no-cache"), ("Accept", "x/y")];
            assert_eq!(proxy.get_with(target, &odd).await.status(), 406);
        }
        let waited = proxy.metric("larder_collapsed_requests_total", "").await;
        for target in ["/cold", "/warm"] {
            let asked = origin.requests();
            let all = futures_util::future::join_all((0..5).map(|_| proxy.get(target))).await;
            assert!(all.iter().all(|reply| reply.body == "0"), "{target}");
            assert_eq!(origin.requests(), asked + 1, "{target}: one fetch for all");
        }
        assert!(proxy.metric("larder_collapsed_requests_total", "").await >= waited);
        assert_eq!(origin.last().header("if-none-match"), Some("\"0\""), "it was still stored");
    })
    .await;
}

#[tokio::test]
async fn what_one_identity_may_not_share_says_nothing_about_what_others_do() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.header("authorization") {
            Some(_) => OriginResponse::ok("own").with("cache-control", "private"),
            None => OriginResponse::fresh("all").after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let own = proxy.get_with("/a", &[("Authorization", "Bearer alice")]).await;
        assert_eq!(own.body, "own");
        let others = futures_util::future::join_all((0..5).map(|_| proxy.get("/a")));
        let opened = async {
            until_waiting(&proxy, 4).await;
            gate.open();
        };
        let (others, ()) = tokio::join!(others, opened);
        assert!(others.iter().all(|reply| reply.body == "all"));
        assert_eq!(origin.requests(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_stale_response_bridges_too_many_requests() {
    within(async {
        let origin = ScriptedOrigin::start(move |request| match request.before {
            1 => OriginResponse::status(429, "slow down"),
            _ => versioned(request, 0, BRIDGED),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        let stale = proxy.get("/a").await;
        assert_eq!(stale.summary(), "200 STALE 0");
        assert!(stale.header("cache-status").unwrap().ends_with("detail=stale-if-error"));
        assert_eq!(proxy.get("/a").await.summary(), "200 REVALIDATED 0");
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_says_when_to_come_again_is_not_asked_before() {
    within(async {
        for (status, control, reason) in [
            (429, RENEWED, "stale-while-revalidate"),
            (429, BRIDGED, "stale-if-error"),
            (503, BRIDGED, "stale-if-error"),
        ] {
            let origin = ScriptedOrigin::start(move |request| match request.before {
                1 => OriginResponse::status(status, "slow down").with("retry-after", "20"),
                _ => versioned(request, 0, control),
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.get("/a").await.cache(), "STALE");
            origin.wait_for_requests(2).await;
            while proxy.metric("larder_origin_requests_total", "").await < 2 {}
            for _ in 0..5 {
                proxy.advance(3);
                let stale = proxy.get("/a").await;
                assert_eq!(stale.summary(), "200 STALE 0");
                assert!(stale.header("cache-status").unwrap().ends_with(reason), "{stale:?}");
                let head = proxy.send("HEAD", "/a", &[]).await;
                assert_eq!((head.status(), head.cache()), (200, "STALE"));
            }
            assert_eq!(origin.requests(), 2, "{status} {control}");
            let reload = proxy.get_with("/a", &[("Cache-Control", "no-cache")]).await;
            assert_eq!(reload.summary(), "200 REVALIDATED 0", "whoever insists is heard");
            proxy.advance(15);
            proxy.get("/a").await;
            until_hit(&proxy, "/a", "0").await;
            assert_eq!(origin.requests(), 4, "{status} {control}: it is asked again");
        }
    })
    .await;
}

#[tokio::test]
async fn a_rate_limit_of_one_client_holds_up_no_refresh_for_others() {
    within(async {
        let origin = ScriptedOrigin::start(move |request| match request.header("authorization") {
            Some(_) => OriginResponse::status(429, "slow down").with("retry-after", "20"),
            None => versioned(request, 0, BRIDGED),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        proxy.get_with("/a", &[("Authorization", "Bearer x")]).await;
        assert_eq!(proxy.get("/a").await.summary(), "200 REVALIDATED 0");
    })
    .await;
}

#[tokio::test]
async fn a_redirect_that_repeats_one_clients_parameter_takes_nothing_from_others() {
    within(async {
        let origin =
            ScriptedOrigin::start(move |request| match request.target.split_once("next=") {
                Some((_, to)) => {
                    OriginResponse::status(302, "").with("location", &format!("/{to}"))
                }
                None => versioned(request, 0, HOT),
            })
            .await;
        let route = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = { \"302\" = \"1m\" }\n\
                     query = { ignore = [\"next\"], forward = \"all\" }";
        let proxy = Proxy::with(&origin.url(), route);
        proxy.get("/a").await;
        proxy.advance(15);
        let reply = proxy.get("/a?next=mine").await;
        assert!(reply.header("cache-status").unwrap().ends_with("detail=ignored-parameter"));
        assert_eq!(proxy.get("/a").await.summary(), "200 REVALIDATED 0");
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_wants_to_be_left_alone_for_long_is_asked_all_the_same() {
    within(async {
        let origin = ScriptedOrigin::start(move |request| match request.before {
            1 => OriginResponse::status(429, "never").with("retry-after", "86400"),
            _ => versioned(request, 0, "max-age=10, stale-if-error=86400"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        assert_eq!(proxy.get("/a").await.cache(), "STALE");
        proxy.advance(299);
        assert_eq!(proxy.get("/a").await.cache(), "STALE");
        proxy.advance(1);
        assert_eq!(proxy.get("/a").await.cache(), "REVALIDATED");
        assert_eq!(origin.requests(), 3);
    })
    .await;
}

#[tokio::test]
async fn heads_of_a_stale_response_share_one_validation() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.before {
            0 => versioned(request, 0, HOT),
            _ => versioned(request, 0, HOT).after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        let heads = futures_util::future::join_all((0..5).map(|_| proxy.send("HEAD", "/a", &[])));
        let opened = async {
            until_waiting(&proxy, 4).await;
            gate.open();
        };
        let (heads, ()) = tokio::join!(heads, opened);
        for head in heads {
            assert_eq!((head.status(), head.cache()), (200, "REVALIDATED"));
            assert_eq!((head.header("content-length"), &*head.body), (Some("1"), ""));
        }
        assert_eq!(origin.requests(), 2);
        assert_eq!(origin.last().method, "GET");
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 0");
    })
    .await;
}

#[tokio::test]
async fn a_head_that_finds_another_representation_replaces_what_is_stored() {
    within(async {
        for fields in [&[][..], &[("Cache-Control", "no-cache")]] {
            let origin = ScriptedOrigin::start(|request| {
                versioned(request, usize::from(request.before > 0), HOT)
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            if fields.is_empty() {
                proxy.advance(15);
            }
            let head = proxy.send("HEAD", "/a", fields).await;
            assert_eq!((head.status(), head.header("etag")), (200, Some("\"1\"")));
            assert_eq!((head.header("content-length"), &*head.body), (Some("1"), ""));
            until_hit(&proxy, "/a", "1").await;
            assert_eq!(origin.requests(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn head_and_range_are_bridged_as_get_is() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::ok("0123456789").with("cache-control", BRIDGED).with("etag", "\"1\""),
        )
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        drop(origin);
        proxy.advance(15);
        let head = proxy.send("HEAD", "/a", &[]).await;
        assert_eq!((head.status(), head.cache()), (200, "STALE"));
        assert_eq!(head.header("content-length"), Some("10"));
        let part = proxy.get_with("/a", &[("Range", "bytes=2-4")]).await;
        assert_eq!(part.summary(), "206 STALE 234");
    })
    .await;
}

#[tokio::test]
async fn a_range_of_a_stale_response_is_cut_from_what_is_validated() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let (tag, body) = match request.before {
                0 | 1 => ("\"1\"", "0123456789"),
                _ => ("\"2\"", "abcdefghijkl"),
            };
            let is_current = request.header("if-none-match") == Some(tag);
            let response =
                if is_current { OriginResponse::status(304, "") } else { OriginResponse::ok(body) };
            response.with("etag", tag).with("cache-control", HOT)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        let range = [("Range", "bytes=2-4")];
        proxy.advance(15);
        assert_eq!(proxy.get_with("/a", &range).await.summary(), "206 REVALIDATED 234");
        assert_eq!(origin.last().header("range"), None);
        proxy.advance(15);
        let part = proxy.get_with("/a", &range).await;
        assert_eq!(part.summary(), "206 EXPIRED cde");
        assert_eq!(part.header("content-range"), Some("bytes 2-4/12"));
        assert_eq!(part.header("content-length"), Some("3"));
        until_hit(&proxy, "/a", "abcdefghijkl").await;
        proxy.advance(15);
        let outdated = [("Range", "bytes=2-4"), ("If-Range", "\"1\"")];
        assert_eq!(proxy.get_with("/a", &outdated).await.summary(), "200 REVALIDATED abcdefghijkl");
        let beyond = proxy.get_with("/a", &[("Range", "bytes=50-")]).await;
        assert_eq!((beyond.status(), beyond.header("content-range")), (416, Some("bytes */12")));
        assert_eq!(origin.requests(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_304_about_another_representation_updates_nothing() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some(_) => {
                OriginResponse::status(304, "").with("etag", "\"other\"").with("x-a", "other")
            }
            None => OriginResponse::ok(format!("{}", request.before))
                .with("etag", "\"1\"")
                .with("cache-control", HOT),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        let fetched = proxy.get("/a").await;
        assert_eq!(fetched.summary(), "200 EXPIRED 2", "asked once more, without a condition");
        assert_eq!(fetched.header("x-a"), None);
        assert_eq!(origin.last().header("if-none-match"), None);
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
    })
    .await;
}

#[tokio::test]
async fn a_304_that_varies_by_more_than_what_is_stored_updates_nothing() {
    within(async {
        for (field, value) in [("vary", "X-A"), ("vary", "*"), ("access-control-allow-origin", "a")]
        {
            let origin = ScriptedOrigin::start(move |request| {
                let asker = ["x-a", "origin"].into_iter().find_map(|name| request.header(name));
                let (is_first, is_condition) =
                    (request.before == 0, request.header("if-none-match"));
                let response = if is_condition.is_some() {
                    OriginResponse::status(304, "")
                } else {
                    OriginResponse::ok(asker.unwrap_or("none").to_owned())
                };
                let response = response.with("etag", "\"1\"").with("cache-control", HOT);
                if is_first { response } else { response.with(field, value) }
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            let get =
                async |asker| proxy.get_with("/a", &[("X-A", asker), ("Origin", asker)]).await;
            assert_eq!(proxy.get("/a").await.body, "none");
            proxy.advance(15);
            assert_eq!(get("1").await.body, "1", "{field}: {value}");
            assert_eq!(get("2").await.summary(), "200 MISS 2", "{field}: {value}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_304_to_an_unconditional_request_is_a_failure_and_validates_nothing() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("0").with("cache-control", BRIDGED),
            OriginResponse::status(304, "").with("cache-control", BRIDGED),
            OriginResponse::ok("2").with("cache-control", BRIDGED),
        ])
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE 0");
        assert_eq!(proxy.get("/a").await.summary(), "200 EXPIRED 2");
    })
    .await;
}

#[tokio::test]
async fn what_is_softly_purged_outlives_an_error_on_its_refresh() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.before {
            1 => OriginResponse::status(400, "no"),
            _ => versioned(request, 0, "max-age=600"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        proxy.get("/a").await;
        let json = "{\"urls\":[\"http://api.test/a\"],\"mode\":\"soft\"}";
        let call = request_with_body("POST", "/v1/purge", &[TOKEN], json);
        let mut wire = Wire::connect(proxy.admin_address()).await;
        assert_eq!(wire.exchange(call).await.status(), 200);
        assert_eq!(proxy.get("/a").await.cache(), "STALE");
        origin.wait_for_requests(2).await;
        until_hit(&proxy, "/a", "0").await;
        assert_eq!(origin.last().header("if-none-match"), Some("\"0\""));
    })
    .await;
}

/// An origin that answers the first refresh with 304 behind the gate, and all later requests with a new
/// representation.
async fn late(gate: &Gate) -> ScriptedOrigin {
    let held = gate.clone();
    ScriptedOrigin::start(move |request| match request.before {
        0 => OriginResponse::ok("0").with("etag", "\"0\"").with("cache-control", RENEWED),
        1 => OriginResponse::status(304, "").with("cache-control", "max-age=600").after(&held),
        _ => OriginResponse::ok("2").with("etag", "\"2\"").with("cache-control", "max-age=600"),
    })
    .await
}

/// Has a refresh answered after a newer response was stored; what is stored then.
async fn overtaken(proxy: &Proxy, origin: &ScriptedOrigin, gate: &Gate) {
    proxy.get("/a").await;
    proxy.advance(15);
    assert_eq!(proxy.get("/a").await.cache(), "STALE");
    origin.wait_for_requests(2).await;
    proxy.advance(1);
    let reload = proxy.get_with("/a", &[("Cache-Control", "no-cache")]).await;
    assert_eq!(reload.summary(), "200 EXPIRED 2");
    until_hit(proxy, "/a", "2").await;
    gate.open();
    while proxy.metric("larder_origin_requests_total", "").await < 3 {}
}

#[tokio::test]
async fn a_304_that_comes_late_does_not_undo_what_was_stored_since() {
    within(async {
        let gate = Gate::closed();
        let origin = late(&gate).await;
        let proxy = Proxy::before(&origin.url());
        overtaken(&proxy, &origin, &gate).await;
        for _ in 0..50 {
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
        }
    })
    .await;
}

#[tokio::test]
async fn a_404_that_comes_late_does_not_remove_what_was_stored_since() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.before {
            0 => OriginResponse::ok("0").with("etag", "\"0\"").with("cache-control", RENEWED),
            1 => OriginResponse::status(404, "").with("cache-control", "no-store").after(&held),
            _ => OriginResponse::ok("2").with("etag", "\"2\"").with("cache-control", "max-age=600"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        overtaken(&proxy, &origin, &gate).await;
        for _ in 0..50 {
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
        }
    })
    .await;
}

#[tokio::test]
async fn without_memory_a_304_that_comes_late_undoes_nothing_either() {
    within(async {
        let gate = Gate::closed();
        let (origin, redis) = (late(&gate).await, Redis::start().await);
        let store = format!("[store]\nmemory = \"0\"\n{}timeout = \"5s\"", redis.store());
        let proxy = Proxy::with(&origin.url(), &store);
        until_shared(&proxy).await;
        overtaken(&proxy, &origin, &gate).await;
        for _ in 0..50 {
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT 2");
        }
    })
    .await;
}

/// An origin that says which page may read its answer, and forgets `Vary` where no page asks.
async fn cors(vary: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| {
        let Some(page) = request.header("origin") else { return OriginResponse::fresh("plain") };
        let response = OriginResponse::fresh(page).with("access-control-allow-origin", page);
        if vary.is_empty() { response } else { response.with("vary", vary) }
    })
    .await
}

const PAGES: [[(&str, &str); 1]; 2] =
    [[("Origin", "https://a.test")], [("Origin", "https://b.test")]];

#[tokio::test]
async fn a_response_without_vary_hides_no_variant() {
    within(async {
        for vary in ["Origin", ""] {
            let origin = cors(vary).await;
            let proxy = Proxy::before(&origin.url());
            for page in &PAGES {
                assert_eq!(proxy.get_with("/a", page).await.cache(), "MISS");
            }
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS plain");
            for page in &PAGES {
                let hit = proxy.get_with("/a", page).await;
                assert_eq!(hit.summary(), format!("200 HIT {}", page[0].1), "{vary}");
                assert_eq!(hit.header("access-control-allow-origin"), Some(page[0].1));
            }
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT plain");
            let other = proxy.get_with("/a", &[("Origin", "https://c.test")]).await;
            assert_eq!(other.summary(), "200 MISS https://c.test");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_for_one_page_is_not_shared_with_another() {
    within(async {
        let origin = cors("").await;
        let proxy = Proxy::before(&origin.url());
        for cache in ["MISS", "HIT"] {
            for page in &PAGES {
                let reply = proxy.get_with("/a", page).await;
                assert_eq!(reply.summary(), format!("200 {cache} {}", page[0].1));
                assert_eq!(reply.header("vary"), Some("Origin"), "others below must know, too");
            }
        }
        let origin = ScriptedOrigin::always(
            OriginResponse::fresh("all").with("access-control-allow-origin", "*"),
        )
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get_with("/a", &PAGES[0]).await;
        let other = proxy.get_with("/a", &PAGES[1]).await;
        assert_eq!((other.cache(), other.header("vary")), ("HIT", None));
    })
    .await;
}

#[tokio::test]
async fn a_response_that_varies_by_the_clients_address_is_not_stored() {
    within(async {
        for field in ["X-Forwarded-For", "Forwarded"] {
            let origin = ScriptedOrigin::start(move |request| {
                let address = request.header(&field.to_ascii_lowercase()).unwrap_or("none");
                OriginResponse::fresh(address.to_owned()).with("vary", field)
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            for asked in 1..3 {
                let reply = proxy.get("/a").await;
                assert!(reply.body.contains("127.0.0.1"), "Larder says it: {}", reply.body);
                assert_eq!((reply.cache(), origin.received().len()), ("MISS", asked), "{field}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn of_several_variants_that_match_the_latest_answers() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let vary = request.header("x-vary").unwrap_or("x-a").to_owned();
            OriginResponse::fresh(format!("{}", request.before)).with("vary", &vary)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let by = |vary, a| [("X-Vary", vary), ("X-A", a), ("X-B", "1")];
        proxy.get_with("/a", &by("x-a", "1")).await;
        proxy.advance(1);
        let reload = [&by("x-b", "1")[..], &[("Cache-Control", "no-cache")]].concat();
        assert_eq!(proxy.get_with("/a", &reload).await.body, "1");
        proxy.advance(1);
        let third = [("X-Vary", "x-a"), ("X-A", "2"), ("X-B", "2")];
        assert_eq!(proxy.get_with("/a", &third).await.summary(), "200 MISS 2");
        assert_eq!(proxy.get_with("/a", &by("x-a", "1")).await.summary(), "200 HIT 1");
    })
    .await;
}

#[tokio::test]
async fn a_coding_that_a_client_does_not_accept_is_not_served() {
    within(async {
        for vary in [Some("Accept-Encoding"), None] {
            let origin = ScriptedOrigin::start(move |request| {
                let accepted = request.header("accept-encoding").unwrap_or("").to_owned();
                let coding = ["xxx", "br", "gzip"].into_iter().find(|it| accepted.contains(it));
                let response = OriginResponse::fresh(coding.unwrap_or("plain"));
                let response = coding
                    .iter()
                    .fold(response, |response, it| response.with("content-encoding", it));
                vary.iter().fold(response, |response, vary| response.with("vary", vary))
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            let get = async |accepted| proxy.get_with("/a", &[("Accept-Encoding", accepted)]).await;
            assert_eq!(get("xxx, gzip").await.summary(), "200 MISS xxx");
            assert_eq!(get("gzip").await.summary(), "200 MISS gzip", "{vary:?}");
            assert_eq!(get("identity").await.body, "plain", "{vary:?}");
            let refusing = get("br;q=0, gzip").await;
            assert_eq!(refusing.summary(), "200 HIT gzip", "it accepts less than another did");
            assert_eq!(get("gzip").await.summary(), "200 HIT gzip", "{vary:?}");
            let all = proxy.get_with("/a", &[("Accept-Encoding", "*")]).await;
            assert_eq!(all.status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn clients_that_accept_the_same_codings_share_a_response() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::fresh("a")
                .with("content-encoding", "gzip")
                .with("vary", "Accept-Encoding"),
        )
        .await;
        let proxy = Proxy::before(&origin.url());
        for (place, accepted) in [
            "gzip, deflate, br, zstd",
            "deflate, gzip, br, zstd",
            "GZIP,deflate,br,zstd",
            "gzip, compress, deflate, br",
            "gzip, deflate, br",
            "gzip, deflate",
            "deflate, gzip",
            "gzip",
        ]
        .into_iter()
        .enumerate()
        {
            let reply = proxy.get_with("/a", &[("Accept-Encoding", accepted)]).await;
            let is_first = place == 0 || accepted.contains("compress");
            assert_eq!(reply.cache(), if is_first { "MISS" } else { "HIT" }, "{accepted}");
        }
        let refused = proxy.get_with("/a", &[("Accept-Encoding", "br, zstd")]).await;
        assert_eq!(refused.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn what_a_route_adds_to_the_key_is_in_vary() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some("\"a\"") => OriginResponse::status(304, "").with("cache-control", HOT),
            _ => OriginResponse::ok("a")
                .with("etag", "\"a\"")
                .with("vary", "Accept-Encoding")
                .with("cache-control", if request.target == "/own" { "no-store" } else { HOT }),
        })
        .await;
        let toml = "[[route]]\nname = \"all\"\nmatch = \"/**\"\n\
                    vary = { headers = [\"accept-language\"], cookies = [\"currency\"] }";
        let proxy = Proxy::with(&origin.url(), toml);
        let vary = "Accept-Encoding, accept-language, Cookie";
        let fields = |reply: &Reply| reply.all("vary").join(", ");
        for cache in ["MISS", "HIT"] {
            let reply = proxy.get("/a").await;
            assert_eq!((reply.cache(), &*fields(&reply)), (cache, vary));
        }
        let unchanged = proxy.get_with("/a", &[("If-None-Match", "\"a\"")]).await;
        assert_eq!((unchanged.status(), &*fields(&unchanged)), (304, vary));
        proxy.advance(15);
        for cache in ["REVALIDATED", "HIT"] {
            let reply = proxy.get("/a").await;
            assert_eq!((reply.cache(), &*fields(&reply)), (cache, vary));
        }
        assert_eq!(fields(&proxy.get("/own").await), vary, "what is not stored here may be below");
        assert_eq!(fields(&proxy.send("HEAD", "/cold", &[]).await), vary);
    })
    .await;
}

#[tokio::test]
async fn what_a_route_adds_is_in_vary_once() {
    within(async {
        let gate = Gate::closed();
        let response =
            OriginResponse::fresh("a").with("vary", "COOKIE").with("vary", "Accept-Language");
        let origin = ScriptedOrigin::always(response.after(&gate)).await;
        let toml = "[[route]]\nname = \"all\"\nmatch = \"/**\"\n\
                    vary = { headers = [\"accept-language\"], cookies = [\"currency\"] }";
        let proxy = Proxy::with(&origin.url(), toml);
        let replies = futures_util::future::join_all((0..2).map(|_| proxy.get("/a")));
        let opened = async {
            until_waiting(&proxy, 1).await;
            gate.open();
        };
        let (replies, ()) = tokio::join!(replies, opened);
        for reply in replies {
            assert_eq!(reply.all("vary").join(", "), "COOKIE, Accept-Language");
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn cold_variants_of_one_target_are_all_stored() {
    within(async {
        let redis = Redis::start().await;
        let shared = format!("[store]\nmemory = \"0\"\n{}timeout = \"5s\"", redis.store());
        for store in ["", &*shared] {
            let gate = Gate::closed();
            let held = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let own = request.header("x-a").unwrap_or_default().to_owned();
                OriginResponse::fresh(own).with("vary", "x-a").after(&held)
            })
            .await;
            let proxy = Proxy::with(&origin.url(), store);
            if !store.is_empty() {
                until_shared(&proxy).await;
            }
            let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
            let all = async || {
                let get = async |name| proxy.get_with("/a", &[("X-A", name)]).await;
                futures_util::future::join_all(names.iter().map(|name| get(name))).await
            };
            let opened = async {
                until_waiting(&proxy, 19).await;
                gate.open();
            };
            tokio::join!(all(), opened);
            until_flushed(&proxy).await;
            for (reply, name) in all().await.iter().zip(&names) {
                assert_eq!(reply.summary(), format!("200 HIT {name}"));
            }
        }
    })
    .await;
}

/// Waits until a node stores in Redis and knows all that was purged.
async fn until_shared(proxy: &Proxy) {
    while !proxy.admin("/readyz").await.body.contains("redis: up") {
        short_sleep().await;
    }
    proxy.until_synced().await;
}

/// Waits until Redis has what is to be written, where there is one.
async fn until_flushed(proxy: &Proxy) {
    while proxy.metric("larder_store_queue_writes", "").await > 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        proxy.admin("/readyz").await;
    }
}

#[tokio::test]
async fn foreign_variants_do_not_evict_one_in_use() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(request.header("x-a").unwrap_or_default()).with("vary", "x-a")
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let used = [("X-A", "used")];
        proxy.get_with("/a", &used).await;
        for number in 0..200 {
            assert_eq!(proxy.get_with("/a", &used).await.summary(), "200 HIT used", "{number}");
            proxy.get_with("/a", &[("X-A", &number.to_string())]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_route_vary_does_not_use_what_was_stored_before() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(request.header("accept-language").unwrap_or_default())
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get_with("/a", &[("Accept-Language", "de")]).await;
        let toml = "[[route]]\nname = \"all\"\nmatch = \"/**\"\nvary = { headers = [\"accept-language\"] }";
        proxy.reconfigure(&origin.url(), toml);
        let other = proxy.get_with("/a", &[("Accept-Language", "en")]).await;
        assert_eq!(other.summary(), "200 MISS en");
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nothing_fresh_for_longer() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(format!("{}", request.before)).with("cache-control", HOT)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.set_back(3600);
        proxy.advance(9);
        let hit = proxy.get("/a").await;
        assert_eq!((hit.summary(), hit.header("age")), ("200 HIT 0".to_owned(), Some("9")));
        proxy.advance(1);
        assert_eq!(proxy.get("/a").await.summary(), "200 EXPIRED 1");
    })
    .await;
}

/// Whether a value of `Accept-Encoding` accepts a coding, or a body without one: by RFC 9110 section
/// 12.5.3, and written apart from Larder's own code.
fn accepts(field: &str, coding: &str) -> bool {
    let weight_of = |name: &str| {
        field.split(',').find_map(|member| {
            let (item, weight) = member.split_once(";q=").unwrap_or((member, "1"));
            (item.trim() == name).then(|| weight.trim().parse::<f32>().unwrap() > 0.0)
        })
    };
    weight_of(coding).or(weight_of("*")).unwrap_or(coding == "identity")
}

#[tokio::test]
async fn a_client_gets_the_language_that_it_lists_first() {
    within(async {
        // As most frameworks do: the first of several with the same weight.
        let origin = ScriptedOrigin::start(|request| {
            let listed = request.header("accept-language").unwrap_or("en");
            let language = listed.split([',', ';', '-']).next().unwrap().to_owned();
            OriginResponse::fresh(&language)
                .with("vary", "accept-language")
                .with("content-language", &language)
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for _ in 0..2 {
            for (listed, language) in
                [("de, fr", "de"), ("fr, de", "fr"), ("DE", "DE"), ("de", "de"), ("fr;q=0.5", "fr")]
            {
                let reply = proxy.get_with("/a", &[("Accept-Language", listed)]).await;
                assert_eq!(reply.body, language, "{listed}");
            }
        }
        for listed in ["fr-CH, fr;q=0.9, en;q=0.8", "en-US,en"] {
            proxy.get_with("/b", &[("Accept-Language", listed)]).await;
            let reply = proxy.get_with("/b", &[("Accept-Language", listed)]).await;
            assert_eq!(reply.cache(), "HIT", "{listed}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_coding_that_the_origin_chose_for_the_same_codings_is_used_again() {
    within(async {
        let odd = OriginResponse::fresh("a").with("content-encoding", "odd");
        let origin = ScriptedOrigin::always(odd).await;
        let proxy = Proxy::before(&origin.url());
        for (codings, cache) in
            [("gzip, deflate", "MISS"), ("deflate, gzip", "HIT"), ("gzip", "MISS")]
        {
            let reply = proxy.get_with("/a", &[("Accept-Encoding", codings)]).await;
            assert_eq!(reply.cache(), cache, "{codings}");
        }
    })
    .await;
}

#[tokio::test]
async fn no_client_gets_a_coding_that_it_does_not_accept() {
    const CODINGS: [&str; 5] = ["identity", "gzip", "br", "zstd", "xxx"];
    const WEIGHTS: [&str; 4] = ["", "", ";q=0.5", ";q=0"];
    within(async {
        // An origin that uses the coding it was told to, as far as the client accepts it.
        let origin = ScriptedOrigin::start(|request| {
            let (coding, field) = (request.header("x-coding"), request.header("accept-encoding"));
            let coding = coding.filter(|coding| accepts(field.unwrap(), coding));
            let coding = coding.unwrap_or("identity").to_owned();
            let response = OriginResponse::fresh(&coding);
            let response = if coding == "identity" {
                response
            } else {
                response.with("content-encoding", &coding)
            };
            if request.target.ends_with("varies") {
                response.with("vary", "accept-encoding")
            } else {
                response
            }
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let mut random = Random::seeded(9);
        let mut hits = 0;
        for number in 0..1500 {
            let members = (0..=random.below(3)).map(|_| {
                let names = ["gzip", "br", "zstd", "xxx", "identity", "*"];
                format!("{}{}", random.pick(&names), random.pick(&WEIGHTS))
            });
            let mut members: Vec<String> = members.collect();
            members.dedup_by_key(|member| member.split(';').next().unwrap().to_owned());
            let names: Vec<_> = members.iter().map(|it| it.split(';').next().unwrap()).collect();
            if names.iter().any(|name| names.iter().filter(|other| *other == name).count() > 1) {
                continue;
            }
            let field = members.join(", ");
            let target = format!("/{}{}", number / 100, random.pick(&["", "varies"]));
            let fields = [("Accept-Encoding", &*field), ("X-Coding", *random.pick(&CODINGS))];
            let reply = proxy.get_with(&target, &fields).await;
            if reply.cache() == "HIT" {
                hits += 1;
                let is_refused_anyway = !accepts(&field, "identity");
                let is_last_resort = is_refused_anyway && reply.body == "identity";
                assert!(accepts(&field, &reply.body) || is_last_resort, "{field}: {}", reply.body);
            }
        }
        assert!(hits > 300, "{hits}");
    })
    .await;
}

#[tokio::test]
async fn a_range_of_a_stale_response_that_only_the_origin_can_judge_goes_to_it() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("range") {
            Some(range) => OriginResponse::status(416, "").with("x-range", range),
            None => OriginResponse::ok("whole").with("etag", "\"1\""),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        for (method, range) in [("HEAD", "bytes=0-1"), ("GET", "bytes=90-")] {
            let reply = proxy.send(method, "/a", &[("Range", range)]).await;
            assert_eq!((reply.status(), reply.header("x-range")), (416, Some(range)), "{method}");
        }
    })
    .await;
}

/// An origin that has two languages, and answers in the one with the greatest weight.
fn two_languages(request: &OriginRequest) -> OriginResponse {
    let listed = request.header("accept-language").unwrap_or_default();
    let weight = |range: &str| range.split_once(";q=").map_or(1.0, |(_, q)| q.parse().unwrap());
    let ranges = listed.split(',').map(str::trim);
    let known = ranges.filter(|range| range.starts_with("de") || range.starts_with("fr"));
    let best = known.reduce(|best, it| if weight(it) > weight(best) { it } else { best });
    let language = &best.unwrap_or("de")[..2];
    OriginResponse::fresh(language)
        .with("vary", "Accept-Language")
        .with("content-language", language)
}

#[tokio::test]
async fn a_stored_language_answers_each_client_that_prefers_it_to_all_others() {
    within(async {
        let origin = ScriptedOrigin::start(two_languages).await;
        let proxy = Proxy::before(&origin.url());
        let get = async |listed| {
            let reply = proxy.get_with("/a", &[("Accept-Language", listed)]).await;
            format!("{} {}", reply.cache(), reply.body)
        };
        assert_eq!(get("en, de;q=0.9").await, "MISS de");
        assert_eq!(get("fr;q=0.5, de;q=0.8").await, "HIT de");
        assert_eq!(get("de").await, "HIT de");
        assert_eq!(get("fr, de;q=0.8").await, "MISS fr", "another language is preferred");
        assert_eq!(get("it, fr").await, "MISS fr", "two weigh the same");
        assert_eq!(get("*, de;q=0.1").await, "MISS de", "any other language is preferred");
        assert_eq!(get("en;q=0.2, fr;q=0.3").await, "HIT fr");
    })
    .await;
}

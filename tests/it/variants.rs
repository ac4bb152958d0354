//! Variants, validation and refreshes: what no client's request, and no error of the origin, may take
//! away from what is stored for others.

use crate::support::{
    gate::Gate,
    proxy::Proxy,
    script::{Asked, Said, Scripted},
    within,
};

const HOT: &str = "max-age=10";
const RENEWED: &str = "max-age=10, stale-while-revalidate=60";
const BRIDGED: &str = "max-age=10, stale-if-error=600";
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
fn versioned(asked: &Asked, version: usize, control: &str) -> Said {
    let tag = format!("\"{version}\"");
    let is_current = asked.header("if-none-match") == Some(&tag);
    let said = if is_current { Said::status(304, "") } else { Said::ok(format!("{version}")) };
    said.with("etag", &tag).with("cache-control", control)
}

#[tokio::test]
async fn a_head_that_starts_a_refresh_renews_the_stored_response() {
    within(async {
        for (changed, body) in [(false, "0"), (true, "1")] {
            let origin = Scripted::start(move |asked| {
                versioned(asked, usize::from(changed && asked.before > 0), RENEWED)
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.ask("HEAD", "/a", &[]).await.cache(), "STALE");
            origin.asked_for(2).await;
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
        let origin = Scripted::start(|asked| versioned(asked, 0, RENEWED)).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        assert_eq!(proxy.get_with("/a", &[NO_STORE]).await.cache(), "STALE");
        origin.asked_for(2).await;
        assert_eq!(origin.last().header("cache-control"), None);
        until_hit(&proxy, "/a", "0").await;
    })
    .await;
}

#[tokio::test]
async fn no_store_on_a_request_removes_nothing() {
    within(async {
        for control in [HOT, "no-cache"] {
            let origin = Scripted::start(move |asked| versioned(asked, 0, control)).await;
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
        let origin =
            Scripted::start(|asked| versioned(asked, usize::from(asked.before == 1), HOT)).await;
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
            let origin = Scripted::start(move |asked| match asked.before {
                1 => Said::status(status, "no"),
                _ => versioned(asked, 0, HOT),
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
        for status in [401, 403, 404, 410] {
            let origin = Scripted::start(move |asked| match asked.before {
                1 => Said::status(status, "gone").with("cache-control", "no-store"),
                _ => versioned(asked, 0, BRIDGED),
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.get("/a").await.summary(), format!("{status} MISS gone"));
            proxy.get("/a").await;
            assert_eq!(origin.last().header("if-none-match"), None, "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_does_not_keep_others_from_sharing_a_fetch() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = Scripted::start(move |asked| match asked.header("accept") {
            Some("x/y") => Said::status(406, "no"),
            _ => versioned(asked, 0, HOT).after(&held),
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
        let origin = Scripted::start(move |asked| match asked.header("authorization") {
            Some(_) => Said::ok("own").with("cache-control", "private"),
            None => Said::fresh("all").after(&held),
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
        let origin = Scripted::start(move |asked| match asked.before {
            1 => Said::status(429, "slow down"),
            _ => versioned(asked, 0, BRIDGED),
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
            let origin = Scripted::start(move |asked| match asked.before {
                1 => Said::status(status, "slow down").with("retry-after", "20"),
                _ => versioned(asked, 0, control),
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            proxy.advance(15);
            assert_eq!(proxy.get("/a").await.cache(), "STALE");
            origin.asked_for(2).await;
            while proxy.metric("larder_origin_requests_total", "").await < 2 {}
            for _ in 0..5 {
                proxy.advance(3);
                let stale = proxy.get("/a").await;
                assert_eq!(stale.summary(), "200 STALE 0");
                assert!(stale.header("cache-status").unwrap().ends_with(reason), "{stale:?}");
                let head = proxy.ask("HEAD", "/a", &[]).await;
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
async fn an_origin_that_wants_to_be_left_alone_for_long_is_asked_all_the_same() {
    within(async {
        let origin = Scripted::start(move |asked| match asked.before {
            1 => Said::status(429, "never").with("retry-after", "86400"),
            _ => versioned(asked, 0, "max-age=10, stale-if-error=86400"),
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
        let origin = Scripted::start(move |asked| match asked.before {
            0 => versioned(asked, 0, HOT),
            _ => versioned(asked, 0, HOT).after(&held),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.advance(15);
        let heads = futures_util::future::join_all((0..5).map(|_| proxy.ask("HEAD", "/a", &[])));
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
            let origin =
                Scripted::start(|asked| versioned(asked, usize::from(asked.before > 0), HOT)).await;
            let proxy = Proxy::before(&origin.url());
            proxy.get("/a").await;
            if fields.is_empty() {
                proxy.advance(15);
            }
            let head = proxy.ask("HEAD", "/a", fields).await;
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
        let origin = Scripted::always(
            Said::ok("0123456789").with("cache-control", BRIDGED).with("etag", "\"1\""),
        )
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        drop(origin);
        proxy.advance(15);
        let head = proxy.ask("HEAD", "/a", &[]).await;
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
        let origin = Scripted::start(|asked| {
            let (tag, body) = match asked.before {
                0 | 1 => ("\"1\"", "0123456789"),
                _ => ("\"2\"", "abcdefghijkl"),
            };
            let is_current = asked.header("if-none-match") == Some(tag);
            let said = if is_current { Said::status(304, "") } else { Said::ok(body) };
            said.with("etag", tag).with("cache-control", HOT)
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

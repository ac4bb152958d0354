//! Responses behind a login: whose they are, who shares them, and what ends that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::json;

use super::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    proxy::{Proxy, request},
    redis::Redis,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    token::{bearer, bearer_of, bearer_until, by_token, now, outcome},
    within,
};

/// Answers with what the request says about who asks, and for how long.
fn stamped(request: &OriginRequest) -> OriginResponse {
    let of = |name| request.header(name).unwrap_or("-");
    OriginResponse::ok(format!("{} {} {}", of("authorization"), of("cookie"), of("x-api-key")))
}

const EXACT: &str = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"user\"";

const EVERYONE: &str =
    "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"everyone\"";

fn token(value: &str) -> [(&'static str, &str); 1] {
    [("authorization", value)]
}

#[tokio::test]
async fn each_has_a_cache_of_their_own_by_exact_credentials() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        for value in ["Bearer zoe", "Bearer bob"] {
            let first = proxy.get_with("/a", &token(value)).await;
            assert_eq!(
                (first.header("x-api-cache"), &*first.body),
                (Some("MISS"), &*format!("{value} - -"))
            );
            let second = proxy.get_with("/a", &token(value)).await;
            assert_eq!((second.header("x-api-cache"), &second.body), (Some("HIT"), &first.body));
        }
        let both = [("authorization", "Bearer zoe"), ("cookie", "session=1")];
        assert_eq!(proxy.get_with("/a", &both).await.body, "Bearer zoe session=1 -");
        let nobody = proxy.get("/a").await;
        assert_eq!((nobody.header("x-api-cache"), &*nobody.body), (Some("BYPASS"), "- - -"));
        assert!(nobody.header("cache-status").unwrap().contains("detail=no-identity"));
    })
    .await;
}

#[tokio::test]
async fn harmless_cookies_do_not_split_a_users_cache_and_unknown_ones_do() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |cookie: &str| {
            let fields = [("authorization", "Bearer zoe"), ("cookie", cookie)];
            proxy.get_with("/a", &fields).await.header("x-api-cache").unwrap().to_owned()
        };
        assert_eq!(get("_ga=1").await, "MISS");
        assert_eq!(get("_ga=2").await, "HIT");
        assert_eq!(get("zone=1").await, "MISS");
        assert_eq!(get("zone=1; _ga=3").await, "HIT");
        assert_eq!(get("zone=2").await, "MISS");
        assert_eq!(get("theme=dark; zone=2").await, "MISS");
        assert_eq!(get("zone=1; zone=2").await, "BYPASS", "servers take one or the other");
    })
    .await;
}

#[tokio::test]
async fn what_a_partition_gets_is_private_downstream() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::ok("x")
                .with("cache-control", "public, max-age=60, s-maxage=600")
                .with("cdn-cache-control", "max-age=600"),
        )
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        for result in ["MISS", "HIT"] {
            let reply = proxy.get_with("/a", &token("Bearer zoe")).await;
            assert_eq!(reply.header("x-api-cache"), Some(result));
            assert_eq!(reply.header("cache-control"), Some("private, max-age=60"), "{result}");
            assert_eq!(reply.header("cdn-cache-control"), None, "{result}");
        }
    })
    .await;
}

#[tokio::test]
async fn private_responses_and_those_that_set_cookies_are_kept_for_their_user_alone() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            stamped(request).with("cache-control", "private").with("set-cookie", "session=2")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        assert!(proxy.get_with("/a", &token("Bearer zoe")).await.header("set-cookie").is_some());
        let hit = proxy.get_with("/a", &token("Bearer zoe")).await;
        assert_eq!((hit.header("x-api-cache"), hit.header("set-cookie")), (Some("HIT"), None));
        let shared = Proxy::with(&origin.url(), "");
        shared.get("/a").await;
        assert_eq!(shared.get("/a").await.header("x-api-cache"), Some("MISS"));
    })
    .await;
}

#[tokio::test]
async fn what_varies_by_the_credential_is_one_response_for_its_user() {
    within(async {
        let vary = "Authorization, Cookie, Accept-Language";
        let origin =
            ScriptedOrigin::start(move |request| stamped(request).with("vary", vary)).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |cookie: &str, language: &str| {
            let fields = [
                ("authorization", "Bearer zoe"),
                ("cookie", cookie),
                ("accept-language", language),
            ];
            proxy.get_with("/a", &fields).await.header("x-api-cache").unwrap().to_owned()
        };
        assert_eq!(get("_ga=1", "de").await, "MISS");
        assert_eq!(get("_ga=2", "de").await, "HIT");
        assert_eq!(get("_ga=2", "fr").await, "MISS");
    })
    .await;
}

#[tokio::test]
async fn an_origin_is_asked_for_everyone_without_credentials() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            stamped(request).with("set-cookie", "session=2").with("clear-site-data", "\"cookies\"")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EVERYONE);
        let fields = [
            ("authorization", "Bearer zoe"),
            ("x-api-key", "k"),
            ("cookie", "session=1; theme=dark; zone=y"),
        ];
        let first = proxy.get_with("/a", &fields).await;
        assert_eq!((first.header("x-api-cache"), &*first.body), (Some("MISS"), "- theme=dark -"));
        assert_eq!((first.header("set-cookie"), first.header("clear-site-data")), (None, None));
        let second = proxy.get_with("/a", &[("cookie", "theme=dark")]).await;
        assert_eq!(second.header("x-api-cache"), Some("HIT"));
        assert_eq!(second.header("cache-control"), None, "it is public");
        assert_eq!(proxy.get("/a").await.body, "- - -", "another theme");
        let written = proxy.send("POST", "/a", &fields).await;
        assert_eq!(written.body, "Bearer zoe session=1; theme=dark; zone=y k", "as it was sent");
        assert!(written.header("set-cookie").is_some());
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_wants_credentials_after_all_says_so_to_everyone() {
    within(async {
        let response =
            OriginResponse::status(401, "who?").with("cache-control", "public, max-age=60");
        let origin = ScriptedOrigin::always(response).await;
        let proxy = Proxy::with(&origin.url(), EVERYONE);
        for _ in 0..2 {
            let reply = proxy.get_with("/a", &token("Bearer zoe")).await;
            assert_eq!((reply.status(), reply.header("x-api-cache")), (401, Some("MISS")));
            let status = reply.header("cache-status").unwrap();
            assert!(status.contains("detail=credentials-needed"), "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn credentials_go_to_the_origin_once_a_minute_whatever_is_stored() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |target: &str| {
            let reply = proxy.get_with(target, &token("Bearer zoe")).await;
            let status = reply.header("cache-status").unwrap().to_owned();
            (reply.header("x-api-cache").unwrap().to_owned(), status)
        };
        assert_eq!(get("/a").await.0, "MISS");
        assert_eq!(get("/b").await.0, "MISS");
        proxy.advance(59);
        assert_eq!(get("/a").await.0, "HIT");
        proxy.advance(1);
        let (result, status) = get("/a").await;
        assert!(result == "EXPIRED" && status.contains("detail=recheck"), "{result} {status}");
        assert_eq!(get("/a").await.0, "HIT");
        assert_eq!(get("/b").await.0, "HIT", "accepted on the same route");
        assert_eq!(origin.requests(), 3);
    })
    .await;
}

#[tokio::test]
async fn others_with_the_same_credentials_wait_for_the_first() {
    within(async {
        let gate = Gate::closed();
        let behind = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match &*request.target {
            "/first" => stamped(request).after(&behind),
            _ => stamped(request),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let mut first = proxy.connect().await;
        first.write(request("GET", "/first", &token("Bearer zoe"))).await;
        origin.wait_for_requests(1).await;
        let mut others = Vec::new();
        for _ in 0..3 {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/second", &token("Bearer zoe"))).await;
            others.push(wire);
        }
        assert_eq!(proxy.get_with("/second", &token("Bearer bob")).await.body, "Bearer bob - -");
        assert_eq!(origin.requests(), 2, "those of zoe wait");
        gate.open();
        assert_eq!(first.read_reply().await.body, "Bearer zoe - -");
        for wire in &mut others {
            assert_eq!(wire.read_reply().await.body, "Bearer zoe - -");
        }
        assert_eq!(origin.requests(), 3, "they share a fetch once they are accepted");
    })
    .await;
}

#[tokio::test]
async fn refused_credentials_get_nothing_from_the_store_until_they_are_accepted_again() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/a" if request.before == 1 => OriginResponse::status(401, "no"),
            _ => stamped(request),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |target: &str| {
            let reply = proxy.get_with(target, &token("Bearer zoe")).await;
            (reply.status(), reply.header("x-api-cache").unwrap().to_owned())
        };
        assert_eq!(get("/a").await, (200, "MISS".to_owned()));
        assert_eq!(get("/b").await, (200, "MISS".to_owned()));
        proxy.advance(60);
        assert_eq!(get("/a").await, (401, "MISS".to_owned()));
        let (status, result) = get("/b").await;
        assert_eq!((status, &*result), (200, "EXPIRED"), "the origin is asked");
        assert_eq!(get("/b").await, (200, "HIT".to_owned()));
        assert_eq!(get("/a").await, (200, "HIT".to_owned()), "it was not taken away");
    })
    .await;
}

#[tokio::test]
async fn a_logout_ends_what_belongs_to_its_credentials_on_every_node() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = format!(
            "store.redis = \"{}\"\nuser.digest_key = \"{}\"\n[[route]]\nname = \"out\"\nmatch = \"POST /logout\"\n\
             on_success = {{ logout = true }}\n{EXACT}",
            redis.url(),
            "k".repeat(32)
        );
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let get = async |node: usize, target: &str, value: &str| {
            fleet.send(node, ("GET", target), &token(value)).await.cache().to_owned()
        };
        for value in ["Bearer zoe", "Bearer bob"] {
            for node in [0, 1] {
                get(node, "/a", value).await;
                assert_eq!(get(node, "/a", value).await, "HIT");
            }
        }
        fleet.send(0, ("POST", "/logout"), &token("Bearer zoe")).await;
        let before = origin.requests();
        assert_eq!(get(1, "/a", "Bearer zoe").await, "MISS");
        assert_eq!(get(0, "/a", "Bearer bob").await, "HIT");
        assert_eq!(origin.requests(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn a_write_purges_for_its_writer_alone() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |value: &str| {
            proxy.get_with("/a", &token(value)).await.header("x-api-cache").unwrap().to_owned()
        };
        for value in ["Bearer zoe", "Bearer bob"] {
            get(value).await;
        }
        proxy.send("PUT", "/a", &token("Bearer zoe")).await;
        assert_eq!(get("Bearer zoe").await, "MISS");
        assert_eq!(get("Bearer bob").await, "HIT");
        proxy.reconfigure(&origin.url(), &format!("{EXACT}\non_write = {{ everyone = true }}"));
        get("Bearer bob").await;
        proxy.send("PUT", "/a", &token("Bearer zoe")).await;
        assert_eq!(get("Bearer bob").await, "MISS");
    })
    .await;
}

#[tokio::test]
async fn a_further_credential_is_another_writer() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        for further in [("authorization", "Bearer bob"), ("x_api_key", "k-1")] {
            let (alone, both) = (token("Bearer zoe"), [token("Bearer zoe")[0], further]);
            let get = async |fields: &[(&str, &str)]| {
                proxy.get_with("/a", fields).await.header("x-api-cache").unwrap().to_owned()
            };
            for fields in [&alone[..], &both] {
                get(fields).await;
            }
            proxy.send("PUT", "/a", &alone).await;
            assert_eq!(get(&alone).await, "MISS");
            assert_eq!(get(&both).await, "HIT");
            proxy.send("PUT", "/a", &both).await;
            assert_eq!(get(&alone).await, "HIT");
            assert_eq!(get(&both).await, "MISS");
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_of_one_user_with_the_same_rights_share_and_others_do_not() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        let get =
            async |token: &str| outcome(&proxy.get_with("/a", &[("authorization", token)]).await);
        let (first, later) = (bearer("zoe", "read"), bearer_until("zoe", "read", now() + 7200));
        assert_eq!(get(&first).await, "MISS cold");
        assert_eq!(get(&first).await, "HIT -");
        assert_eq!(get(&later).await, "EXPIRED recheck", "the origin has to accept it, too");
        assert_eq!(get(&later).await, "HIT -");
        for other in [bearer("zoe", "read write"), bearer("bob", "read")] {
            assert_eq!(get(&other).await, "MISS cold");
            assert_eq!(get(&other).await, "HIT -");
        }
        assert_eq!(origin.requests(), 4);
    })
    .await;
}

#[tokio::test]
async fn tokens_that_cannot_be_verified_take_no_part() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        let get =
            async |token: &str| outcome(&proxy.get_with("/a", &[("authorization", token)]).await);
        let valid = bearer("zoe", "read");
        get(&valid).await;
        assert_eq!(get(&valid).await, "HIT -");
        let mut forged = valid.clone();
        forged.truncate(valid.len() - 4);
        for token in [&*forged, &bearer_until("zoe", "read", now() - 1), "Bearer x", "Basic eDp5"] {
            assert_eq!(get(token).await, "BYPASS unverified-token", "{token}");
        }
        assert_eq!(outcome(&proxy.get("/a").await), "BYPASS no-identity");
        let both = [("authorization", &*valid), ("cookie", "session=1")];
        assert_eq!(outcome(&proxy.get_with("/a", &both).await), "BYPASS second-credential");
        let query = proxy.get_with("/a?api_key=1", &[("authorization", &valid)]).await;
        assert_eq!(outcome(&query), "BYPASS second-credential");
    })
    .await;
}

#[tokio::test]
async fn everybody_with_a_token_and_the_same_rights_shares_what_is_authenticated() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        let get = async |token: &str, target: &str| {
            let reply = proxy.get_with(target, &[("authorization", token)]).await;
            (outcome(&reply), reply.body.clone())
        };
        let [zoe, bob, admin] = [bearer("zoe", "r"), bearer("bob", "r"), bearer("eve", "r w")];
        assert_eq!(get(&zoe, "/a").await.0, "MISS cold");
        assert_eq!(get(&bob, "/b").await.0, "MISS cold");
        assert_eq!(get(&bob, "/a").await, ("HIT -".to_owned(), format!("{zoe} - -")));
        assert_eq!(get(&admin, "/a").await.0, "MISS cold", "other rights");
        assert_eq!(outcome(&proxy.get("/a").await), "BYPASS no-identity");
    })
    .await;
}

#[tokio::test]
async fn a_claim_separates_and_a_missing_one_takes_no_part() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), &by_token("claim:firm"));
        let get = async |token: &str, target: &str| {
            outcome(&proxy.get_with(target, &[("authorization", token)]).await)
        };
        let [zoe, zack, bob] = [bearer("zoe", "r"), bearer("zack", "r"), bearer("bob", "r")];
        get(&zoe, "/a").await;
        get(&zack, "/b").await;
        assert_eq!(get(&zack, "/a").await, "HIT -", "one tenant");
        assert_eq!(get(&bob, "/a").await, "MISS cold");
        let without = bearer_of(&json!({ "sub": "zoe", "iss": "i", "exp": now() + 60 }));
        assert_eq!(get(&without, "/a").await, "BYPASS no-identity");
        proxy.send("PUT", "/a", &[("authorization", &zoe)]).await;
        assert_eq!(get(&zack, "/a").await, "MISS purged", "a write is for the tenant");
        assert_eq!(get(&bob, "/a").await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn what_varies_by_the_token_is_not_shared_among_tokens() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| stamped(request).with("vary", "Authorization")).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        let fields = bearer("zoe", "r");
        for _ in 0..2 {
            let reply = proxy.get_with("/a", &[("authorization", &fields)]).await;
            assert_eq!(outcome(&reply), "MISS vary-credential");
        }
    })
    .await;
}

#[tokio::test]
async fn the_refusal_of_one_token_is_not_the_answer_to_another() {
    within(async {
        let gate = Gate::closed();
        let behind = gate.clone();
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        let revoked = zoe.clone();
        let origin = ScriptedOrigin::start(move |request| match request.header("authorization") {
            Some(token) if request.target == "/a" && token == revoked => {
                OriginResponse::status(401, "no").after(&behind)
            }
            _ => stamped(request),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for token in [&zoe, &bob] {
            proxy.get_with("/other", &[("authorization", token)]).await;
        }
        let mut leader = proxy.connect().await;
        leader.write(request("GET", "/a", &[("authorization", &zoe)])).await;
        origin.wait_for_requests(3).await;
        let mut follower = proxy.connect().await;
        follower.write(request("GET", "/a", &[("authorization", &bob)])).await;
        while proxy.metric("larder_collapsed_requests_total", "").await == 0 {
            short_sleep().await;
        }
        gate.open();
        assert_eq!(leader.read_reply().await.status(), 401);
        let reply = follower.read_reply().await;
        assert_eq!((reply.status(), &*reply.body), (200, &*format!("{bob} - -")));
        let again = proxy.get_with("/other", &[("authorization", &zoe)]).await;
        assert_eq!(outcome(&again), "EXPIRED recheck", "its token counts no more");
    })
    .await;
}

/// An origin that denies a target to one token.
async fn denying(target: &'static str, token: &str) -> ScriptedOrigin {
    let denied = token.to_owned();
    ScriptedOrigin::start(move |request| match request.header("authorization") {
        Some(token) if request.target == target && token == denied => {
            OriginResponse::status(403, "no")
        }
        _ => stamped(request),
    })
    .await
}

#[tokio::test]
async fn a_target_that_is_denied_to_one_token_stays_there_for_others() {
    within(async {
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        let origin = denying("/a", &zoe).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        let get = async |token: &str, target: &str| {
            let reply = proxy.get_with(target, &[("authorization", token)]).await;
            (reply.status(), outcome(&reply))
        };
        get(&bob, "/a").await;
        assert_eq!(get(&zoe, "/a").await.0, 403);
        assert_eq!(get(&zoe, "/b").await.0, 200);
        assert_eq!(get(&zoe, "/a").await.0, 403, "accepted, but not here");
        assert_eq!(get(&bob, "/a").await, (200, "HIT -".to_owned()));
        assert_eq!(get(&zoe, "/b").await, (200, "HIT -".to_owned()));
    })
    .await;
}

/// Selecting cookies select what the origin sends, not what it allows.
#[tokio::test]
async fn a_denied_url_is_denied_with_whatever_cookies() {
    within(async {
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        for (partition, cookies) in [
            ("authenticated", [None, Some("theme=dark")]),
            ("authenticated", [Some("theme=dark"), None]),
            ("authenticated", [Some("theme=light"), Some("theme=dark")]),
            ("user", [None, Some("theme=dark")]),
        ] {
            let gate = Arc::new(AtomicBool::new(true));
            let (is_allowed, denied) = (Arc::clone(&gate), zoe.clone());
            let origin = ScriptedOrigin::start(move |request| {
                let is_denied =
                    request.header("authorization") == Some(&denied) && !is_allowed.load(SeqCst);
                if is_denied { OriginResponse::status(403, "no") } else { stamped(request) }
            })
            .await;
            let proxy = Proxy::with(&origin.url(), &with_theme(partition));
            let get = async |token: &str, cookie| themed(&proxy, token, cookie).await;
            let (case, hit) = (format!("{partition} {cookies:?}"), (200, "HIT -".to_owned()));
            let [stored, other] = cookies;
            assert_eq!(get(&zoe, stored).await.0, 200, "{case}");
            gate.store(false, SeqCst);
            assert_eq!(get(&zoe, stored).await, hit, "{case}");
            assert_eq!(get(&zoe, other).await.0, 403, "{case}");
            assert_eq!(get(&zoe, stored).await.0, 403, "{case}: denied");
            assert_eq!(get(&bob, stored).await.0, 200, "{case}");
            gate.store(true, SeqCst);
            proxy.advance(1);
            for cookie in [other, stored, other, stored] {
                assert_eq!(get(&zoe, cookie).await.0, 200, "{case}");
            }
            assert_eq!(get(&zoe, stored).await, hit, "{case}: allowed");
        }
    })
    .await;
}

#[tokio::test]
async fn responses_that_differ_by_a_cookie_are_denied_apart_and_once() {
    within(async {
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        for [denied, allowed] in [
            [Some("theme=dark"), Some("theme=light")],
            [None, Some("theme=light")],
            [Some("theme=dark"), None],
        ] {
            let user = zoe.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let is_denied = request.header("authorization") == Some(&user)
                    && request.header("cookie") == denied;
                if is_denied { OriginResponse::status(404, "no") } else { stamped(request) }
            })
            .await;
            let proxy = Proxy::with(&origin.url(), &with_theme("authenticated"));
            let get = async |token: &str, cookie| themed(&proxy, token, cookie).await;
            assert_eq!(get(&bob, denied).await.0, 200);
            assert_eq!(get(&zoe, denied).await.0, 404);
            assert_eq!(get(&zoe, allowed).await.0, 200);
            let records = proxy.metric("larder_purge_records_total", "").await;
            for _ in 0..3 {
                assert_eq!(get(&zoe, denied).await.0, 404, "{denied:?}");
                assert_eq!(get(&zoe, allowed).await, (200, "HIT -".to_owned()), "{denied:?}");
            }
            assert_eq!(get(&bob, denied).await, (200, "HIT -".to_owned()), "{denied:?}");
            assert_eq!(proxy.metric("larder_purge_records_total", "").await, records);
        }
    })
    .await;
}

fn with_theme(partition: &str) -> String {
    format!("user.selecting_cookies = [\"theme\"]\n{}", by_token(partition))
}

/// Returns the status and the outcome of `GET /a` with this token and cookie.
async fn themed(proxy: &Proxy, token: &str, cookie: Option<&str>) -> (u16, String) {
    let fields = [("authorization", Some(token)), ("cookie", cookie)];
    let fields: Vec<_> =
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let reply = proxy.get_with("/a", &fields).await;
    (reply.status(), outcome(&reply))
}

#[tokio::test]
async fn a_target_that_is_denied_on_one_node_is_denied_on_all_although_nothing_was_stored() {
    within(async {
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        let origin = denying("/a", &zoe).await;
        let redis = Redis::start().await;
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("authenticated"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let get = async |node: usize, token: &str, target: &str| {
            let reply = fleet.send(node, ("GET", target), &[("authorization", token)]).await;
            (reply.status(), outcome(&reply))
        };
        assert_eq!(get(0, &zoe, "/a").await.0, 403);
        assert_eq!(get(1, &bob, "/a").await.0, 200);
        assert_eq!(get(1, &zoe, "/b").await.0, 200, "accepted on this node");
        assert_eq!(get(1, &bob, "/a").await, (200, "HIT -".to_owned()));
        assert_eq!(get(1, &zoe, "/a").await.0, 403);
    })
    .await;
}

#[tokio::test]
async fn a_users_response_ends_with_the_token_that_fetched_it() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            stamped(request).with("cache-control", "max-age=10, stale-while-revalidate=600")
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        let get =
            async |token: &str| outcome(&proxy.get_with("/a", &[("authorization", token)]).await);
        let short = bearer_until("zoe", "r", now() + 100);
        let long = bearer("zoe", "r");
        get(&short).await;
        proxy.advance(20);
        assert_eq!(get(&short).await, "STALE stale-while-revalidate");
        origin.wait_for_requests(2).await;
        proxy.advance(90);
        assert_eq!(get(&short).await, "BYPASS unverified-token", "it has ended");
        assert_eq!(get(&long).await, "EXPIRED expired", "nothing is left of what it fetched");
        assert_eq!(get(&long).await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn a_failing_origin_is_bridged_for_credentials_that_it_accepted_lately_and_for_no_others() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.before {
            0 => stamped(request).with("cache-control", "max-age=100"),
            _ => OriginResponse::status(503, "later"),
        })
        .await;
        let toml = by_token("user") + "\nstale_if_error = \"2h\"";
        let proxy = Proxy::with(&origin.url(), &toml);
        let get = async |value: &str| proxy.get_with("/a", &token(value)).await;
        let [known, other] = [bearer("zoe", "r"), bearer_until("zoe", "r", now() + 7200)];
        get(&known).await;
        proxy.advance(200);
        assert_eq!(outcome(&get(&known).await), "STALE stale-if-error");
        assert_eq!(get(&other).await.status(), 503, "the origin has not accepted it");
        proxy.advance(100);
        assert_eq!(get(&known).await.status(), 503, "it may have been revoked since");
    })
    .await;
}

#[tokio::test]
async fn two_users_never_share_a_fetch() {
    within(async {
        let gate = Gate::closed();
        let behind = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match &*request.target {
            "/a" => stamped(request).after(&behind),
            _ => stamped(request),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        let tokens = [bearer("zoe", "r"), bearer("bob", "r")];
        let mut wires = Vec::new();
        for token in &tokens {
            proxy.get_with("/other", &[("authorization", token)]).await;
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/a", &[("authorization", token)])).await;
            wires.push(wire);
        }
        origin.wait_for_requests(4).await;
        gate.open();
        for (wire, token) in wires.iter_mut().zip(&tokens) {
            assert_eq!(wire.read_reply().await.body, format!("{token} - -"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_fetch_is_not_shared_after_the_end_of_its_token() {
    within(async {
        let gate = Gate::closed();
        let behind = gate.clone();
        let (short, long) = (bearer_until("zoe", "r", now() + 100), bearer("zoe", "r"));
        let held = short.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let is_held = request.header("authorization") == Some(&held);
            match (&*request.target, is_held) {
                ("/head", true) => stamped(request).after(&behind),
                ("/body", true) => OriginResponse::fresh("begun ").then(&behind, "ended"),
                _ => stamped(request),
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        for token in [&short, &long] {
            proxy.get_with("/other", &[("authorization", token)]).await;
        }
        let ask = async |token: &str| {
            let mut wires = Vec::new();
            for target in ["/head", "/body"] {
                let mut wire = proxy.connect().await;
                wire.write(request("GET", target, &[("authorization", token)])).await;
                wires.push(wire);
            }
            wires
        };
        let mut leaders = ask(&short).await;
        leaders[1].read_head().await;
        origin.wait_for_requests(3).await;
        proxy.advance(110);
        let mut others = ask(&long).await;
        assert_eq!(others[1].read_reply().await.body, format!("{long} - -"));
        gate.open();
        assert_eq!(others[0].read_reply().await.body, format!("{long} - -"));
        assert_eq!(leaders[0].read_reply().await.body, format!("{short} - -"));
    })
    .await;
}

#[tokio::test]
async fn a_login_warms_the_partition_of_its_caller() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = by_token("user")
            + "\n[[route]]\nname = \"in\"\nmatch = \"POST /in\"\non_success = { warm = [\"/a\", \"/b\"] }";
        let toml = toml.replace("match = \"/**\"", "match = \"GET /**\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        let zoe = bearer("zoe", "r");
        proxy.send("POST", "/in", &[("authorization", &zoe)]).await;
        origin.wait_for_requests(3).await;
        while proxy.metric("larder_store_entries", "").await < 2 {
            short_sleep().await;
        }
        for target in ["/a", "/b"] {
            let reply = proxy.get_with(target, &[("authorization", &zoe)]).await;
            assert_eq!((outcome(&reply), &*reply.body), ("HIT -".to_owned(), &*format!("{zoe} - -")));
        }
        let bob = bearer("bob", "r");
        assert_eq!(outcome(&proxy.get_with("/a", &[("authorization", &bob)]).await), "MISS cold");
    })
    .await;
}

#[tokio::test]
async fn what_one_node_knows_of_credentials_the_others_need_not_ask() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(|request| match request.before {
            2 => OriginResponse::status(401, "no"),
            _ => stamped(request),
        })
        .await;
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("authenticated"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        let get = async |node: usize, target: &str, token: &str| {
            outcome(&fleet.send(node, ("GET", target), &[("authorization", token)]).await)
        };
        get(0, "/a", &zoe).await;
        get(0, "/b", &bob).await;
        // Entries and acceptances of both.
        while redis.keys("*:e:*").await.len() < 4 {
            short_sleep().await;
        }
        assert_eq!(get(1, "/a", &bob).await, "HIT -", "bob was accepted by the other node");
        assert_eq!(get(1, "/b", &zoe).await, "HIT -");
        assert_eq!(origin.requests(), 2);
        for key in redis.keys("*").await {
            assert!(!key.contains("zoe") && !key.contains("bob"), "{key}");
        }
        let refusal = fleet.send(1, ("GET", "/a?2"), &[("authorization", &zoe)]).await;
        assert_eq!(refusal.status(), 200);
        for _ in 0..2 {
            fleet
                .send(1, ("GET", "/c"), &[("authorization", &zoe), ("cache-control", "no-cache")])
                .await;
        }
        let refused = [("authorization", &*zoe), ("cache-control", "no-cache")];
        assert_eq!(fleet.send(1, ("GET", "/c"), &refused).await.status(), 401);
        assert_eq!(get(0, "/a", &zoe).await, "EXPIRED recheck", "no node counts it any more");
        assert_eq!(get(0, "/a", &bob).await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn each_refusal_ends_what_was_accepted_since_the_one_before() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/a" => OriginResponse::status(401, "no"),
            _ => stamped(request),
        })
        .await;
        let toml = by_token("user").replace("\"/**\"", "\"/a\"");
        let other = "[[route]]\nname = \"b\"\nmatch = \"/b\"\nttl = \"1h\"\npartition = \"user\"";
        let proxy = Proxy::with(&origin.url(), &format!("{toml}\n{other}"));
        let zoe = bearer("zoe", "r");
        let get =
            async |target: &str| outcome(&proxy.get_with(target, &[("authorization", &zoe)]).await);
        get("/b").await;
        for _ in 0..2 {
            assert_eq!(get("/b").await, "HIT -");
            get("/a").await;
            assert_eq!(get("/b").await, "EXPIRED recheck");
        }
    })
    .await;
}

#[tokio::test]
async fn a_logout_ends_a_token_that_names_no_user() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = by_token("claim:firm")
            + "\n[[route]]\nname = \"out\"\nmatch = \"POST /logout\"\non_success = { logout = true }";
        let toml = toml.replace("match = \"/**\"", "match = \"GET /**\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        let token = bearer_of(&json!({ "firm": "z", "iss": "i", "exp": now() + 600 }));
        let get = async || outcome(&proxy.get_with("/a", &[("authorization", &token)]).await);
        get().await;
        assert_eq!(get().await, "HIT -");
        proxy.send("POST", "/logout", &[("authorization", &token)]).await;
        assert_eq!(get().await, "EXPIRED recheck");
    })
    .await;
}

#[tokio::test]
async fn a_logout_ends_a_session_that_is_sent_beside_others_only_there() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = format!(
            "[[route]]\nname = \"out\"\nmatch = \"POST /logout\"\non_success = {{ logout = true }}\n{EXACT}"
        );
        let proxy = Proxy::with(&origin.url(), &toml);
        let get = async || outcome(&proxy.get_with("/a", &[("cookie", "session=1")]).await);
        get().await;
        assert_eq!(get().await, "HIT -");
        let both = [("cookie", "session=1; refresh_token=2")];
        proxy.send("POST", "/logout", &both).await;
        assert_eq!(get().await, "MISS purged");
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_asks_for_what_is_not_there_writes_nothing_to_the_log() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::status(404, "no")).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        for number in 0..5 {
            let fields = [("authorization", "Bearer x"), ("range", "bytes=0-1")];
            proxy.get_with(&format!("/r{number}"), &fields).await;
            proxy.send("HEAD", &format!("/h{number}"), &token("Bearer x")).await;
            proxy.get_with(&format!("/g{number}"), &token("Bearer x")).await;
        }
        let purges = proxy.admin("/v1/purges").await.body;
        assert!(!purges.contains("refusal"), "{purges}");
        assert_eq!(proxy.metric("larder_purge_records_total", "").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_purge_of_a_user_selects_it_under_every_issuer_where_none_is_named() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml =
            format!("admin.token = \"admin\"\n{}", by_token("user").replace(", iss = \"i\"", ""));
        let proxy = Proxy::with(&origin.url(), &toml);
        let token = bearer_of(&json!({ "sub": "zoe", "iss": "https://i", "exp": now() + 600 }));
        let get = async || outcome(&proxy.get_with("/a", &[("authorization", &token)]).await);
        get().await;
        assert_eq!(get().await, "HIT -");
        let body = "{\"user\":\"zoe\"}";
        let mut admin = super::support::wire::Wire::connect(proxy.admin_address()).await;
        let fields = [("content-type", "application/json"), ("authorization", "Bearer admin")];
        let reply = admin
            .exchange(super::support::proxy::request_with_body("POST", "/v1/purge", &fields, body))
            .await;
        assert_eq!(reply.status(), 200, "{}", reply.body);
        assert_eq!(get().await, "MISS purged");
    })
    .await;
}

#[tokio::test]
async fn only_a_purge_of_everything_ends_the_acceptance_of_credentials() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let end = now() + 600;
        let [zoe, renewed] = [bearer_until("zoe", "r", end), bearer_until("zoe", "r", end + 1)];
        let bob = bearer("bob", "r");
        for (partition, other, by_user) in
            [("user", &renewed, "MISS purged"), ("authenticated", &bob, "HIT -")]
        {
            let toml = format!("admin.token = \"admin\"\n{}", by_token(partition));
            let proxy = Proxy::with(&origin.url(), &toml);
            let get = async |token: &str| {
                outcome(&proxy.get_with("/a", &[("authorization", token)]).await)
            };
            let purge = async |body: &str| {
                let mut admin = super::support::wire::Wire::connect(proxy.admin_address()).await;
                let fields =
                    [("content-type", "application/json"), ("authorization", "Bearer admin")];
                let request =
                    super::support::proxy::request_with_body("POST", "/v1/purge", &fields, body);
                assert_eq!(admin.exchange(request).await.status(), 200, "{body}");
            };
            for token in [&zoe, other] {
                get(token).await;
                assert_eq!(get(token).await, "HIT -", "{partition}");
            }
            purge("{\"user\":\"zoe\"}").await;
            assert_eq!(get(&zoe).await, by_user, "{partition}");
            for body in ["{\"user\":\"zoe\"}", "{\"urls\":[\"/a\"]}", "{\"routes\":[\"a\"]}"] {
                purge(body).await;
                get(other).await;
                assert_eq!(get(&zoe).await, "HIT -", "{partition} {body}");
            }
            purge("{\"everything\":true}").await;
            get(other).await;
            assert_eq!(get(&zoe).await, "EXPIRED recheck", "{partition}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_end_beyond_all_time_is_no_end() {
    within(async {
        let redis = Redis::start().await;
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("user"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        for end in [u64::MAX, u64::MAX / 1000, 1 << 62, 253_402_300_800] {
            let token = bearer_until("zoe", "r", end);
            let fields = [("authorization", &*token)];
            for node in [0, 1] {
                fleet.send(node, ("GET", "/a"), &fields).await;
                assert_eq!(outcome(&fleet.send(node, ("GET", "/a"), &fields).await), "HIT -");
                assert_eq!(fleet.send(node, ("GET", "/404"), &fields).await.status(), 200);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_spelling_of_the_field_of_a_token_is_a_second_credential() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let of = |name| request.header(name).unwrap_or("-").to_owned();
            OriginResponse::ok(of("x-acme-ident") + &of("x_acme_ident"))
        })
        .await;
        let toml = by_token("user").replace("jwt = { ", "jwt = { header = \"x-acme-ident\", ");
        let proxy = Proxy::with(&origin.url(), &toml);
        let [zoe, bob] = [bearer("zoe", "r"), bearer("bob", "r")];
        let reply = proxy.get_with("/a", &[("x-acme-ident", &zoe), ("x_acme_ident", &bob)]).await;
        let seen = origin.last();
        assert!(
            seen.header("x_acme_ident").is_none() || outcome(&reply).starts_with("BYPASS"),
            "{}",
            outcome(&reply)
        );
    })
    .await;
}

#[tokio::test]
async fn one_request_that_does_not_end_holds_up_no_others_with_its_credentials() {
    within(async {
        let gate = Gate::closed();
        let behind = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match &*request.target {
            "/endless" => stamped(request).after(&behind),
            _ => stamped(request),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let mut first = proxy.connect().await;
        first.write(request("GET", "/endless", &token("Bearer zoe"))).await;
        origin.wait_for_requests(1).await;
        assert_eq!(outcome(&proxy.get_with("/a", &token("Bearer zoe")).await), "MISS cold");
        assert_eq!(outcome(&proxy.get_with("/a", &token("Bearer zoe")).await), "HIT -");
        gate.open();
        first.read_reply().await;
    })
    .await;
}

#[tokio::test]
async fn a_resource_for_everyone_is_asked_for_without_the_field_of_the_token() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let of = |name| request.header(name).unwrap_or("-").to_owned();
            OriginResponse::ok(of("x-acme-ident") + &of("x_acme_ident") + &of("cookie"))
        })
        .await;
        for carrier in ["header = \"x-acme-ident\"", "cookie = \"acme\""] {
            let toml = by_token("everyone").replace("jwt = { ", &format!("jwt = {{ {carrier}, "));
            let proxy = Proxy::with(&origin.url(), &toml);
            let fields =
                [("x-acme-ident", "a.b.c"), ("x_acme_ident", "a.b.c"), ("cookie", "acme=a.b.c")];
            let reply = proxy
                .get_with("/a", if carrier.starts_with('h') { &fields } else { &fields[2..] })
                .await;
            assert_eq!(reply.body, "---");
        }
    })
    .await;
}

#[tokio::test]
async fn a_logout_counts_whatever_page_it_leads_to_and_whatever_its_method() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/logout" => OriginResponse::status(302, "").with("location", "/login"),
            _ => stamped(request),
        })
        .await;
        for (method, named) in [("POST", ""), ("POST", "POST "), ("GET", "GET|POST ")] {
            let toml = format!(
                "[[route]]\nname = \"out\"\nmatch = \"{named}/logout\"\nttl = \"1h\"\non_success = {{ logout = true }}\n{EXACT}"
            );
            let proxy = Proxy::with(&origin.url(), &toml);
            let get = async || outcome(&proxy.get_with("/a", &token("Bearer zoe")).await);
            get().await;
            assert_eq!(get().await, "HIT -");
            assert_eq!(proxy.send(method, "/logout", &token("Bearer zoe")).await.status(), 302);
            assert_eq!(get().await, "MISS purged", "{named}{method}");
        }
    })
    .await;
}

#[tokio::test]
async fn only_a_method_that_is_named_makes_a_safe_request_a_logout() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = format!(
            "[[route]]\nname = \"session\"\nmatch = \"/session\"\nttl = \"1h\"\npartition = \"user\"\non_success = {{ logout = true }}\n{EXACT}"
        );
        let proxy = Proxy::with(&origin.url(), &toml);
        let get = async |target: &str| outcome(&proxy.get_with(target, &token("Bearer zoe")).await);
        get("/a").await;
        get("/session").await;
        assert_eq!(get("/session").await, "HIT -");
        assert_eq!(get("/a").await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn a_key_in_the_query_separates_what_is_for_everyone() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::ok(&request.target)).await;
        let proxy = Proxy::with(&origin.url(), EVERYONE);
        for key in ["zoe", "bob"] {
            let target = format!("/a?api_key={key}");
            let first = proxy.get_with(&target, &token("Bearer x")).await;
            assert_eq!((first.cache(), &*first.body), ("MISS", &*target), "it reaches the origin");
            assert_eq!(proxy.get(&target).await.cache(), "HIT");
        }
        for field in [("authorization", "Bearer y"), ("cookie", "zone=1"), ("x-api-key", "z")] {
            assert_eq!(
                proxy.get_with("/a?api_key=zoe", &[field]).await.cache(),
                "HIT",
                "{field:?}"
            );
        }
        assert_eq!(proxy.send("HEAD", "/a?api_key=zoe", &token("Bearer y")).await.cache(), "HIT");
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn private_responses_are_not_shared_by_those_that_are_logged_in() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/cookie" => stamped(request).with("set-cookie", "session=2"),
            _ => stamped(request).with("cache-control", "private, max-age=60"),
        })
        .await;
        for partition in ["authenticated", "claim:firm"] {
            let proxy = Proxy::with(&origin.url(), &by_token(partition));
            let (zoe, zack) = (bearer("zoe", "r"), bearer("zack", "r"));
            for target in ["/a", "/cookie"] {
                for value in [&zoe, &zack] {
                    let reply = proxy.get_with(target, &token(value)).await;
                    assert_eq!(reply.cache(), "MISS", "{partition} {target}");
                    assert!(reply.body.starts_with(value), "{partition} {target}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_route_may_list_the_field_that_its_partition_is_made_of() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| stamped(request).with("vary", "Authorization")).await;
        let toml = by_token("authenticated") + "\nvary = { headers = [\"authorization\"] }";
        let proxy = Proxy::with(&origin.url(), &toml);
        for value in [bearer("zoe", "r"), bearer("bob", "r")] {
            let get = async || {
                let reply = proxy.get_with("/a", &token(&value)).await;
                (reply.cache().to_owned(), reply.body)
            };
            assert_eq!(get().await, ("MISS".to_owned(), format!("{value} - -")));
            assert_eq!(get().await, ("HIT".to_owned(), format!("{value} - -")));
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_credential_that_is_listed_as_harmless_counts_for_nothing() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let toml = format!(
            "user.harmless_fields = [\"x-api-key\"]\nuser.harmless_cookies = [\"session\"]\n\
             user.harmless_parameters = [\"api_key\"]\n{}",
            by_token("user")
        );
        let proxy = Proxy::with(&origin.url(), &toml);
        let zoe = bearer("zoe", "r");
        let get = async |target: &str, further: &[(&str, &str)]| {
            let fields = [&token(&zoe)[..], further].concat();
            outcome(&proxy.get_with(target, &fields).await)
        };
        assert_eq!(get("/a", &[]).await, "MISS cold");
        assert_eq!(get("/a", &[("x-api-key", "1"), ("cookie", "session=1")]).await, "HIT -");
        assert_eq!(get("/a?api_key=1", &[]).await, "MISS cold");
        assert_eq!(get("/a?api_key=1", &[]).await, "HIT -");
        assert_eq!(get("/a", &[("x-auth-token", "1")]).await, "BYPASS second-credential");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_counts_on_whatever_route_it_comes() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/a" => stamped(request),
            _ => OriginResponse::status(401, "no"),
        })
        .await;
        let plain = "[[route]]\nname = \"plain\"\nmatch = \"/plain\"\n";
        let never = "[[route]]\nname = \"never\"\nmatch = \"/never\"\ncache = false\n";
        let other = "[[route]]\nname = \"b\"\nmatch = \"/b\"\nttl = \"1h\"\npartition = \"user\"\n";
        for (toml, field) in
            [(by_token("user"), bearer("zoe", "r")), (EXACT.to_owned(), "Bearer zoe".to_owned())]
        {
            let toml = toml.replacen("[[route]]", &format!("{plain}{never}{other}[[route]]"), 1);
            let proxy = Proxy::with(&origin.url(), &toml);
            let get = async |target: &str| outcome(&proxy.get_with(target, &token(&field)).await);
            get("/a").await;
            for target in ["/b", "/never", "/plain"] {
                assert_eq!(get("/a").await, "HIT -");
                get(target).await;
                assert_eq!(get("/a").await, "EXPIRED recheck", "{target}");
            }
            assert_eq!(proxy.send("HEAD", "/plain", &token(&field)).await.status(), 401);
            assert_eq!(get("/a").await, "EXPIRED recheck", "HEAD");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_what_was_sent_without_credentials_is_none_of_them() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/a" => stamped(request),
            _ => OriginResponse::status(401, "no"),
        })
        .await;
        let all =
            "[[route]]\nname = \"all\"\nmatch = \"/all\"\nttl = \"1h\"\npartition = \"everyone\"\n";
        let toml = by_token("user").replacen("[[route]]", &format!("{all}[[route]]"), 1);
        let proxy = Proxy::with(&origin.url(), &toml);
        let field = bearer("zoe", "r");
        let get = async |target: &str| outcome(&proxy.get_with(target, &token(&field)).await);
        get("/a").await;
        get("/all").await;
        proxy.send("HEAD", "/all", &token(&field)).await;
        assert_eq!(get("/a").await, "HIT -");
    })
    .await;
}

#[tokio::test]
async fn the_order_of_two_credentials_in_one_field_counts() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |first: &str, last: &str| {
            let fields = [("authorization", first), ("authorization", last)];
            let reply = proxy.get_with("/a", &fields).await;
            (reply.header("x-api-cache").unwrap().to_owned(), reply.body.clone())
        };
        for (first, last) in [("Bearer zoe", "Bearer bob"), ("Bearer bob", "Bearer zoe")] {
            let expected = format!("{first} - -");
            assert_eq!(get(first, last).await, ("MISS".to_owned(), expected.clone()));
            assert_eq!(get(first, last).await, ("HIT".to_owned(), expected));
        }
    })
    .await;
}

//! Responses behind a login: whose they are, who shares them, and what ends that.

use super::support::{
    fleet::Fleet,
    gate::Gate,
    proxy::{Proxy, request},
    redis::Redis,
    script::{Asked, Said, Scripted},
    within,
};

/// Answers with what the request says about who asks, and for how long.
fn stamped(asked: &Asked) -> Said {
    let of = |name| asked.header(name).unwrap_or("-");
    Said::ok(format!("{} {} {}", of("authorization"), of("cookie"), of("x-api-key")))
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
        let origin = Scripted::start(stamped).await;
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
        let origin = Scripted::start(stamped).await;
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
        let origin = Scripted::always(
            Said::ok("x")
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
        let origin = Scripted::start(|asked| {
            stamped(asked).with("cache-control", "private").with("set-cookie", "session=2")
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
        let origin = Scripted::start(move |asked| stamped(asked).with("vary", vary)).await;
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
        let origin = Scripted::start(|asked| {
            stamped(asked).with("set-cookie", "session=2").with("clear-site-data", "\"cookies\"")
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
        let written = proxy.ask("POST", "/a", &fields).await;
        assert_eq!(written.body, "Bearer zoe session=1; theme=dark; zone=y k", "as it was sent");
        assert!(written.header("set-cookie").is_some());
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_wants_credentials_after_all_says_so_to_everyone() {
    within(async {
        let said = Said::status(401, "who?").with("cache-control", "public, max-age=60");
        let origin = Scripted::always(said).await;
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
        let origin = Scripted::start(stamped).await;
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
        let origin = Scripted::start(move |asked| match &*asked.target {
            "/first" => stamped(asked).after(&behind),
            _ => stamped(asked),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let mut first = proxy.connect().await;
        first.write(request("GET", "/first", &token("Bearer zoe"))).await;
        origin.asked_for(1).await;
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
        let origin = Scripted::start(|asked| match asked.target.as_str() {
            "/a" if asked.before == 1 => Said::status(401, "no"),
            _ => stamped(asked),
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
        let origin = Scripted::start(stamped).await;
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
        let origin = Scripted::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), EXACT);
        let get = async |value: &str| {
            proxy.get_with("/a", &token(value)).await.header("x-api-cache").unwrap().to_owned()
        };
        for value in ["Bearer zoe", "Bearer bob"] {
            get(value).await;
        }
        proxy.ask("PUT", "/a", &token("Bearer zoe")).await;
        assert_eq!(get("Bearer zoe").await, "MISS");
        assert_eq!(get("Bearer bob").await, "HIT");
        proxy.reconfigure(&origin.url(), &format!("{EXACT}\non_write = {{ everyone = true }}"));
        get("Bearer bob").await;
        proxy.ask("PUT", "/a", &token("Bearer zoe")).await;
        assert_eq!(get("Bearer bob").await, "MISS");
    })
    .await;
}

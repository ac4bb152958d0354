//! The origin sees exactly what the key says: targets, hosts, parameters and forwarding fields.

mod identities;
mod property;

use crate::support::{
    proxy::Proxy,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    within,
};

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

/// An origin that answers with the target and the fields of this name that it got.
async fn echo(fields: &'static [&'static str]) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| OriginResponse::ok(seen(request, fields))).await
}

fn seen(request: &OriginRequest, fields: &[&str]) -> String {
    let values = fields.iter().map(|name| request.header(name).unwrap_or("-"));
    [request.target.as_str()].into_iter().chain(values).collect::<Vec<_>>().join(" ")
}

fn route(pattern: &str, rest: &str) -> String {
    format!("[[route]]\nname = \"r\"\nmatch = \"{pattern}\"\nttl = \"1h\"\n{rest}\n")
}

#[tokio::test]
async fn another_spelling_of_a_path_is_another_response() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/api/stocks" => OriginResponse::ok("stocks"),
            _ => OriginResponse::ok("not found, says a framework that does not decode"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &route("/api/**", ""));
        for spelling in ["/api/%73tocks", "/api/./stocks", "/api//stocks", "/api/x/../stocks"] {
            proxy.get(spelling).await;
        }
        assert_eq!(proxy.get("/api/stocks").await.body, "stocks");
        assert_eq!(proxy.get("/api/stocks").await.summary(), "200 HIT stocks");
    })
    .await;
}

#[tokio::test]
async fn an_encoded_slash_is_an_ordinary_name_and_cached_as_sent() {
    within(async {
        let origin = echo(&[]).await;
        let proxy = Proxy::with(&origin.url(), &route("/projects/**", ""));
        assert_eq!(proxy.get("/projects/a%2Fb").await.summary(), "200 MISS /projects/a%2Fb");
        assert_eq!(proxy.get("/projects/a%2Fb").await.summary(), "200 HIT /projects/a%2Fb");
        assert_eq!(proxy.get("/projects/a%2fb").await.summary(), "200 MISS /projects/a%2fb");
        assert_eq!(proxy.get("/projects/a/b").await.summary(), "200 MISS /projects/a/b");
    })
    .await;
}

#[tokio::test]
async fn a_path_that_some_servers_read_as_an_uncached_one_is_not_cached() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let toml = "[[route]]\nname = \"account\"\nmatch = \"/account/**\"\ncache = false\n\
                    [[route]]\nname = \"all\"\nmatch = \"/**\"\nttl = \"1h\"\n";
        let proxy = Proxy::with(&origin.url(), toml);
        for target in [
            "//account/me",
            "/account%2fme",
            "/account%252fme",
            "/account;x/me",
            "/static/..%2faccount/me",
            "/static/%2e%2e/account/me",
            "/static\\..\\account\\me",
            "/static/..%5caccount/me",
            "/Account/me",
            "/%61ccount/me",
            "/account/me/",
            "/./account/me",
        ] {
            for _ in 0..2 {
                let reply = proxy.get(target).await;
                assert_eq!(reply.cache(), "BYPASS", "{target}: {}", reply.head);
                assert_eq!(reply.body, target, "it passes as it is");
            }
        }
        assert_eq!(proxy.get("/static/a;b").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn a_path_whose_readings_fall_under_different_routes_passes() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let toml = route("/api/stocks/{symbol}", "")
            + "[[route]]\nname = \"s\"\nmatch = \"/api/**\"\nttl = \"5s\"\n";
        let proxy = Proxy::with(&origin.url(), &toml);
        for target in
            ["/api/stocks/a%2Fb", "/api/%73tocks/a", "/API/stocks/a", "/api/stocks/a%25252Fb"]
        {
            for _ in 0..2 {
                let reply = proxy.get(target).await;
                assert!(
                    reply.header("cache-status").unwrap().contains("ambiguous-target"),
                    "{target}: {}",
                    reply.head
                );
                assert_eq!(reply.body, target);
            }
        }
        assert_eq!(proxy.get("/api/stocks/a%20b").await.cache(), "MISS");
        assert_eq!(proxy.get("/api/stocks/AAPL").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn the_host_reaches_the_origin_in_the_form_of_the_key() {
    within(async {
        let origin = echo(&["host", "x-forwarded-host", "forwarded"]).await;
        let proxy = Proxy::with(&origin.url(), &route("/**", ""));
        let seen = "/a api.test api.test for=127.0.0.1;host=api.test;proto=http";
        for host in
            ["API.Test", "api.test:80", "api.test:", "api.test.", "Api.test.:80", "api.test"]
        {
            let reply = proxy.get_with("/a", &[("Host", host)]).await;
            assert_eq!(reply.body, seen, "{host}");
        }
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        let other = proxy.get_with("/a", &[("Host", "api.test:8080")]).await;
        assert_eq!(other.cache(), "MISS");
        let passed = proxy.send("POST", "/a", &[("Host", "API.test:80")]).await;
        assert_eq!(passed.body, seen, "what is passed has it as well");
    })
    .await;
}

#[tokio::test]
async fn hosts_that_are_not_served_are_refused() {
    within(async {
        let origin = echo(&["host"]).await;
        let proxy = Proxy::with(&origin.url(), "hosts = [\"api.test\", \"*.shop.test\"]");
        for host in ["api.test", "API.test.", "api.test:8080", "eu.shop.test"] {
            assert_eq!(proxy.get_with("/a", &[("Host", host)]).await.status(), 200, "{host}");
        }
        for host in ["evil.test", "api.test.evil", "shop.test", "xapi.test", "127.0.0.1"] {
            let reply = proxy.get_with("/a", &[("Host", host)]).await;
            assert_eq!((reply.status(), reply.cache()), (421, "BYPASS"), "{host}");
            assert!(reply.body.contains("hosts"), "{}", reply.body);
        }
    })
    .await;
}

#[tokio::test]
async fn parameters_that_are_not_in_the_key_are_not_forwarded() {
    within(async {
        let origin = echo(&[]).await;
        let ignoring = route("/i", "query = { ignore = [\"utm_*\"] }");
        let only = "[[route]]\nname = \"o\"\nmatch = \"/o\"\nttl = \"1h\"\nquery = { only = [\"a\"], sort = true }\n";
        let proxy = Proxy::with(&origin.url(), &(ignoring + only));
        let get = async |target: &str| proxy.get(target).await.summary();
        assert_eq!(get("/i?a=1&utm_x=EVIL&b=2").await, "200 MISS /i?a=1&b=2");
        assert_eq!(get("/i?a=1&b=2").await, "200 HIT /i?a=1&b=2");
        assert_eq!(get("/i?utm_x=1").await, "200 MISS /i");
        assert_eq!(get("/o?callback=EVIL&a=2&a=1").await, "200 MISS /o?a=2&a=1");
        let long = format!("/i?utm_x={}", "x".repeat(7000));
        assert_eq!(get(&long).await, "200 HIT /i");
        let mut wire = proxy.connect().await;
        wire.write(crate::support::proxy::request("HEAD", "/i?z=1&utm_x=1", &[])).await;
        wire.read_reply_to("HEAD").await;
        assert!(origin.received().iter().any(|request| request.method == "HEAD" && request.target == "/i?z=1"));
        let posted = proxy.send("POST", "/i?a=1&utm_x=1", &[]).await;
        assert_eq!(posted.body, "/i?a=1&utm_x=1", "what is not stored passes as it is");
    })
    .await;
}

#[tokio::test]
async fn a_parameter_that_servers_split_differently_stays_in_the_key() {
    within(async {
        let origin = echo(&[]).await;
        let ignoring = route("/i", "query = { ignore = [\"utm_*\"] }");
        let only =
            "[[route]]\nname = \"o\"\nmatch = \"/o\"\nttl = \"1h\"\nquery = { only = [\"a\"] }\n";
        let proxy = Proxy::with(&origin.url(), &(ignoring + only));
        for path in ["/i", "/o"] {
            for attack in
                ["?a=good&utm_x=1;a=EVIL", "?a=good&utm_x=1%3Ba=EVIL", "?a=good&utm_x=%00a"]
            {
                let target = format!("{path}{attack}");
                assert_eq!(proxy.get(&target).await.body, target);
            }
            let kept = format!("{path}?a=good&%61=EVIL");
            assert_eq!(proxy.get(&kept).await.body, kept);
            assert_eq!(proxy.get(&format!("{path}?a=good")).await.body, format!("{path}?a=good"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_redirect_that_repeats_an_ignored_parameter_is_not_stored() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let (_, query) = request.target.split_once('?').unwrap_or_default();
            OriginResponse::status(302, "")
                .with("cache-control", "max-age=60")
                .with("location", &format!("/next?{query}"))
        })
        .await;
        let toml = route("/**", "query = { ignore = [\"from\"], forward = \"all\" }");
        let proxy = Proxy::with(&origin.url(), &toml);
        let first = proxy.get("/a?from=secret").await;
        assert_eq!(first.header("location"), Some("/next?from=secret"));
        let other = proxy.get("/a?from=mine").await;
        assert_eq!(other.header("location"), Some("/next?from=mine"));
        assert_eq!(proxy.get("/a").await.header("location"), Some("/next?"));
        assert_eq!(
            proxy.get("/a?from=more").await.header("location"),
            Some("/next?"),
            "stored without one"
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_trusted_proxy_says_of_the_target_is_in_the_key() {
    within(async {
        for (field, one, other) in [
            ("X-Forwarded-Prefix", "/staging", "/production"),
            ("X-Forwarded-Port", "8443", "443"),
            ("X-Forwarded-Host", "a.test", "b.test"),
            ("X-Forwarded-Proto", "https", "http"),
            ("X-Forwarded-Scheme", "https", "http"),
            ("X-Forwarded-Server", "a", "b"),
            ("X-Forwarded-Whatever", "a", "b"),
            ("Front-End-Https", "on", "off"),
            ("X-Original-Host", "a.test", "b.test"),
            ("Forwarded", "for=1.2.3.4;host=a.test", "for=1.2.3.4;host=b.test"),
            ("Forwarded", "proto=https", "proto=http"),
        ] {
            let origin = ScriptedOrigin::start(move |request| {
                OriginResponse::ok(request.header(&field.to_lowercase()).unwrap_or("-").to_owned())
            })
            .await;
            let proxy = Proxy::with(&origin.url(), &(TRUSTING.to_owned() + &route("/**", "")));
            let first = proxy.get_with("/a", &[(field, one)]).await;
            let second = proxy.get_with("/a", &[(field, other)]).await;
            assert_ne!(first.body, second.body, "{field}");
            assert_eq!(second.cache(), "MISS", "{field}");
            let again = proxy.get_with("/a", &[(field, one)]).await;
            assert_eq!((again.cache(), &again.body), ("HIT", &first.body), "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_clients_address_is_not_in_the_key() {
    within(async {
        let origin = echo(&["x-forwarded-for", "x-real-ip", "forwarded"]).await;
        let proxy = Proxy::with(&origin.url(), &(TRUSTING.to_owned() + &route("/**", "")));
        let of = |address: &'static str| [("X-Forwarded-For", address), ("X-Real-IP", address)];
        let first = proxy.get_with("/a", &of("192.0.2.1")).await;
        let forwarded = "for=192.0.2.1;host=api.test;proto=http, for=127.0.0.1";
        assert_eq!(first.body, format!("/a 192.0.2.1, 127.0.0.1 192.0.2.1 {forwarded}"));
        assert_eq!(proxy.get_with("/a", &of("192.0.2.2")).await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxys_fields_agree_with_each_other_when_they_are_forwarded() {
    within(async {
        let origin = echo(&["x-forwarded-host", "forwarded"]).await;
        let proxy = Proxy::with(&origin.url(), &(TRUSTING.to_owned() + &route("/**", "")));
        let evil = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Host", "api.test"),
            ("Forwarded", "host=evil"),
        ];
        let reply = proxy.get_with("/a", &evil).await;
        assert!(!reply.body.contains("evil"), "{}", reply.body);
        let evil = [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "host=evil")];
        proxy.get_with("/b", &evil).await;
        assert!(
            !proxy.get_with("/b", &[("X-Forwarded-For", "192.0.2.1")]).await.body.contains("evil")
        );
    })
    .await;
}

#[tokio::test]
async fn strangers_forwarding_fields_reach_no_origin_however_they_are_spelled() {
    within(async {
        for field in [
            "X_Forwarded_Host",
            "X-Forwarded_Host",
            "X_FORWARDED_PROTO",
            "X-Host",
            "X-Original-Host",
            "Front-End-Https",
            "X-Real-IP",
            "X_Real_IP",
            "X-Url-Scheme",
            "X-Forwarded-User",
            "X_Forwarded_User",
            "X_Original_URL",
            "X_HTTP_Method_Override",
            "Content_Length",
            "Transfer_Encoding",
        ] {
            let origin = ScriptedOrigin::start(move |request| {
                OriginResponse::fresh(if request.head.to_lowercase().contains("evil") {
                    "evil"
                } else {
                    "good"
                })
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            assert_eq!(proxy.get_with("/a", &[(field, "evil")]).await.body, "good", "{field}");
            assert_eq!(proxy.send("POST", "/a", &[(field, "evil")]).await.body, "good", "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn purges_hold_for_every_spelling_of_a_url() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.before.to_string()))
                .await;
        let toml = "admin.token = \"t\"\nadmin.purge_from = [\"127.0.0.0/8\"]\n";
        let proxy = Proxy::with(&origin.url(), toml);
        let spellings = [
            "/api/caf%C3%A9/x",
            "/api/caf%c3%a9/x",
            "/api//caf%C3%A9/x",
            "/api/y/..%2Fcaf%C3%A9/x",
            "/API/caf%C3%A9/X/",
            "/api/caf%25C3%25A9/x",
            "/api\\caf%C3%A9/x;v=1",
        ];
        for purged in ["/api/caf%C3%A9/x", "/Api/caf%C3%A9//x/"] {
            for target in spellings {
                proxy.get(target).await;
                assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
            }
            let reply = proxy.send("PURGE", purged, &[]).await;
            assert_eq!(reply.status(), 200, "{}", reply.body);
            for target in spellings {
                assert_eq!(proxy.get(target).await.cache(), "MISS", "{target} after {purged}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_invalidates_every_spelling_of_its_target() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.before.to_string()))
                .await;
        let proxy = Proxy::before(&origin.url());
        for target in ["/a%2Fb", "/a/b", "/A/b/"] {
            proxy.get(target).await;
            assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
        }
        proxy.send("PUT", "/a/b", &[]).await;
        for target in ["/a%2Fb", "/a/b", "/A/b/"] {
            assert_eq!(proxy.get(target).await.cache(), "MISS", "{target}");
        }
    })
    .await;
}

#[tokio::test]
async fn tags_of_path_parameters_hold_for_every_reading() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.before.to_string())).await;
        let toml = format!(
            "admin.token = \"t\"\nadmin.purge_from = [\"127.0.0.0/8\"]\n{}",
            route("/tiles/{tile}", "tags = [\"tile:{tile}\"]")
        );
        let proxy = Proxy::with(&origin.url(), &toml);
        for target in ["/tiles/sales", "/tiles/%2573ales", "/tiles/Sales"] {
            proxy.get(target).await;
            assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
            let reply = proxy.send("PURGE", "/", &[("Surrogate-Key", "tile:sales")]).await;
            assert_eq!(reply.status(), 200, "{}", reply.body);
            assert_eq!(proxy.get(target).await.cache(), "MISS", "{target}");
        }
    })
    .await;
}

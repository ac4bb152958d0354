//! What an attacker may send so that others get what was made for the attack.

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

/// An origin whose answer depends on a field that is no part of the key.
async fn reflecting(field: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| {
        OriginResponse::fresh(request.header(field).unwrap_or("-"))
    })
    .await
}

#[tokio::test]
async fn strangers_cannot_forward_fields_into_what_others_get() {
    within(async {
        for field in [
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "x-forwarded-scheme",
            "x-forwarded-ssl",
            "x-forwarded-uri",
            "forwarded",
        ] {
            let origin = reflecting(field).await;
            let proxy = Proxy::before(&origin.url());
            let reply = proxy.get_with("/a", &[(field, "evil")]).await;
            assert!(!reply.body.contains("evil"), "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn fields_that_replace_the_target_or_the_method_are_not_cached_with() {
    within(async {
        for field in [
            "x-original-url",
            "x-rewrite-url",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
        ] {
            let origin = reflecting(field).await;
            let proxy = Proxy::before(&origin.url());
            let own = proxy.get_with("/a", &[(field, "evil")]).await;
            assert_eq!(own.body, "evil", "{field} passes");
            assert_eq!(proxy.get("/a").await.body, "-", "{field}");
            let own = proxy.get_with("/a", &[(field, "evil")]).await;
            assert_eq!(own.body, "evil", "{field} is not answered from the store either");
        }
    })
    .await;
}

#[tokio::test]
async fn a_field_that_connection_takes_away_does_not_select_a_variant() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let language = request.header("accept-language").unwrap_or("none").to_owned();
            OriginResponse::fresh(language).with("vary", "accept-language")
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        let attack = [("Accept-Language", "de"), ("Connection", "accept-language")];
        assert_eq!(proxy.get_with("/a", &attack).await.body, "none");
        let victim = proxy.get_with("/a", &[("Accept-Language", "de")]).await;
        assert_eq!(victim.body, "de");
    })
    .await;
}

#[tokio::test]
async fn credentials_that_connection_takes_away_open_nothing() {
    within(async {
        let origin = reflecting("authorization").await;
        let proxy = Proxy::before(&origin.url());
        let attack = [("Authorization", "Bearer a"), ("Connection", "authorization")];
        proxy.get_with("/a", &attack).await;
        let own = proxy.get_with("/a", &[("Authorization", "Bearer b")]).await;
        assert_eq!(own.body, "Bearer b");
    })
    .await;
}

#[tokio::test]
async fn the_scheme_that_a_trusted_proxy_tells_is_part_of_the_target() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("x-forwarded-proto") {
            Some("https") => OriginResponse::fresh("page"),
            _ => OriginResponse::status(301, "").with("location", "https://api.test/a"),
        })
        .await;
        let toml = "trusted_proxies = [\"127.0.0.0/8\"]\n[defaults]\nttl = \"1h\"";
        let proxy = Proxy::with(&origin.url(), toml);
        let https = [("X-Forwarded-Proto", "https")];
        assert_eq!(proxy.get("/a").await.status(), 301);
        assert_eq!(proxy.get_with("/a", &https).await.summary(), "200 MISS page");
        assert_eq!(proxy.get("/a").await.status(), 301);
        assert_eq!(proxy.get_with("/a", &https).await.summary(), "200 HIT page");
        let plain = Proxy::with(&origin.url(), "[defaults]\nttl = \"1h\"");
        for _ in 0..2 {
            assert_eq!(plain.get_with("/a", &https).await.status(), 301, "a stranger's word");
        }
    })
    .await;
}

#[tokio::test]
async fn a_get_with_a_body_is_not_cached() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.body.clone())).await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        let fat = "GET /a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 4\r\n\r\nevil";
        assert_eq!(wire.exchange(fat).await.summary(), "200 BYPASS evil");
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS ");
        assert_eq!(wire.exchange(fat).await.summary(), "200 BYPASS evil");
    })
    .await;
}

#[tokio::test]
async fn the_answer_to_head_is_not_the_answer_to_get() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.method.as_str() {
            "HEAD" => OriginResponse::fresh("").with("content-length", "0").with("x-evil", "1"),
            _ => OriginResponse::fresh("whole"),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.send("HEAD", "/a", &[]).await;
        let got = proxy.get("/a").await;
        assert_eq!((got.summary().as_str(), got.header("x-evil")), ("200 MISS whole", None));
    })
    .await;
}

#[tokio::test]
async fn another_spelling_of_a_path_poisons_no_plain_one() {
    within(async {
        // An origin that compares targets byte by byte.
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/a/b" => OriginResponse::fresh("right"),
            _ => OriginResponse::fresh("wrong").status_of(404),
        })
        .await;
        for spelling in ["/a/./b", "/x/../a/b", "/a/c/../b", "/a/%2e/b", "/../a/b"] {
            let proxy = Proxy::before(&origin.url());
            assert_eq!(proxy.get(spelling).await.body, "wrong");
            assert_eq!(proxy.get("/a/b").await.body, "right", "{spelling}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_that_one_clients_fields_provoke_is_not_stored_for_others() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("x-long") {
            Some(_) => OriginResponse::status(431, "too large"),
            None => OriginResponse::fresh("right"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "[defaults]\nttl = \"1h\"");
        for status in [400, 403, 413, 431] {
            let target = format!("/{status}");
            let attack = proxy.get_with(&target, &[("X-Long", &"x".repeat(1000))]).await;
            assert_eq!(attack.status(), 431);
            assert_eq!(proxy.get(&target).await.body, "right");
        }
    })
    .await;
}

#[tokio::test]
async fn ranges_of_an_encoded_variant_are_of_that_variant() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let gzip = request.header("accept-encoding").is_some_and(|codings| codings == "gzip");
            let response = if gzip {
                OriginResponse::fresh("GZIPPED")
                    .with("content-encoding", "gzip")
                    .with("etag", "\"g\"")
            } else {
                OriginResponse::fresh("plaintext").with("etag", "\"p\"")
            };
            response.with("vary", "accept-encoding")
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.get_with("/a", &[("Accept-Encoding", "gzip")]).await;
        let range = ("Range", "bytes=0-3");
        let plain = proxy.get_with("/a", &[range]).await;
        assert_eq!((plain.body.as_str(), plain.header("content-encoding")), ("plai", None));
        let gzip = proxy.get_with("/a", &[range, ("Accept-Encoding", "gzip")]).await;
        assert_eq!((gzip.body.as_str(), gzip.header("content-encoding")), ("GZIP", Some("gzip")));
        let mixed = [range, ("Accept-Encoding", "gzip"), ("If-Range", "\"p\"")];
        assert_eq!(proxy.get_with("/a", &mixed).await.body, "GZIPPED", "not of the other one");
    })
    .await;
}

#[tokio::test]
async fn a_host_cannot_be_split_into_another_key() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.header("host").unwrap()))
                .await;
        let proxy = Proxy::before(&origin.url());
        for (host, target) in
            [("api.test", "/a"), ("api.test:8080", "/a"), ("evil.test", "/api.test/a")]
        {
            let reply = proxy.get_with(target, &[("Host", host)]).await;
            assert_eq!(reply.summary(), format!("200 MISS {host}"));
        }
        for host in ["api.test/", "api.test#", "api.test, evil", "api.test?x", "evil@api.test", ""]
        {
            let reply = proxy.get_with("/a", &[("Host", host)]).await;
            assert_eq!(reply.status(), 400, "{host}");
        }
    })
    .await;
}

#[tokio::test]
async fn many_variants_of_one_target_do_not_fill_the_store() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("a").with("vary", "x-random")).await;
        let proxy = Proxy::before(&origin.url());
        for number in 0..200 {
            proxy.get_with("/a", &[("X-Random", &number.to_string())]).await;
        }
        let entries = proxy.metric("larder_store_entries", "").await;
        assert!(entries <= 70, "{entries}");
        assert!(proxy.metric("larder_variants_limited_total", "").await >= 130);
    })
    .await;
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_not_stored() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::status(304, "")
                .with("cache-control", "max-age=60")
                .with("etag", "\"1\""),
            OriginResponse::fresh("right"),
        ])
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS right");
    })
    .await;
}

#[tokio::test]
async fn what_a_trusted_proxy_tells_of_the_host_is_part_of_the_key() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let reported = request.header("x-forwarded-host").unwrap_or_default().to_owned();
            OriginResponse::fresh(&reported)
        })
        .await;
        let proxy = Proxy::with(&origin.url(), "trusted_proxies = [\"127.0.0.0/8\"]");
        let by = |host: &'static str| [("Host", "api.test"), ("X-Forwarded-Host", host)];
        assert_eq!(proxy.get_with("/a", &by("evil.test")).await.summary(), "200 MISS evil.test");
        assert_eq!(proxy.get_with("/a", &by("shop.test")).await.summary(), "200 MISS shop.test");
        assert_eq!(proxy.get_with("/a", &by("shop.test")).await.summary(), "200 HIT shop.test");
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
        for client in ["for=1.2.3.4;host=b.test", "for=5.6.7.8;host=b.test"] {
            proxy.get_with("/a", &[("Forwarded", client)]).await;
        }
        let third = proxy.get_with("/a", &[("Forwarded", "for=9.9.9.9;host=b.test")]).await;
        assert_eq!(third.cache(), "HIT", "who asks is no part of the key");
    })
    .await;
}

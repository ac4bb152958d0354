//! What others already speak: deliveries of vendors, sent once and again, and purge calls of other caches.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{
    proxy::{Proxy, request, request_with_body},
    redis::{Redis, WriteRefusal},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

const ROUTE: &str = r#"
[[route]]
name = "tiles"
match = "/tiles/{tile}"
tags = ["tile:{tile}", "tiles"]
"#;

const WEBHOOKS: &str = r#"
[[webhook]]
name = "code"
scheme = "gitlab"
secret = "secret"
[[webhook.on]]
event = "Push Hook"
purge = ["tile:{$.tile}"]
[[webhook.on]]
event = "Push Hook"
purge = ["tiles"]
mode = "soft"
[[webhook]]
name = "other"
scheme = "bearer"
secret = "secret"
id_from = "$.delivery"
[[webhook.on]]
purge = ["tile:{$.tile}"]
[[webhook]]
name = "chat"
scheme = "slack"
secret = "secret"
[[webhook.on]]
purge = ["tiles"]
"#;

async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::fresh(format!("{} {}", request.target, request.before))
    })
    .await
}

async fn post(address: SocketAddr, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    let mut wire = Wire::connect(address).await;
    wire.write(request_with_body("POST", path, fields, body)).await;
    wire.read_reply().await
}

/// Stores a target, and makes sure that it is.
async fn fill(proxy: &Proxy, target: &str) {
    proxy.get(target).await;
    assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
}

#[tokio::test]
async fn a_delivery_that_comes_again_purges_nothing_again() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{WEBHOOKS}"));
        let deliver = async |id: &str, body: &str| {
            let event = ("x-gitlab-event", "Push Hook");
            let fields = [("x-gitlab-token", "secret"), event, ("idempotency-key", id)];
            post(proxy.address, "/_larder/webhooks/code", &fields, body).await
        };
        let body = r#"{"tile":"a"}"#;
        for (id, body, expected, cached) in [
            ("1", body, r#"{"seq":2,"nodes":{"applied":1,"total":1}}"#, "MISS"),
            ("1", body, r#"{"seq":2,"nodes":{"applied":1,"total":1},"duplicate":true}"#, "HIT"),
            ("2", body, r#"{"seq":4,"nodes":{"applied":1,"total":1}}"#, "MISS"),
            (
                "1",
                r#"{"tile":"a","attempt":2}"#,
                r#"{"seq":2,"nodes":{"applied":1,"total":1},"duplicate":true}"#,
                "HIT",
            ),
            ("", body, r#"{"seq":6,"nodes":{"applied":1,"total":1}}"#, "MISS"),
            ("", body, r#"{"seq":8,"nodes":{"applied":1,"total":1}}"#, "MISS"),
        ] {
            fill(&proxy, "/tiles/a").await;
            let answer = deliver(id, body).await;
            assert_eq!((answer.status(), &*answer.body), (200, expected));
            assert_eq!(proxy.get("/tiles/a").await.cache(), cached, "{id} {body}");
        }
        let labels = r#"result="duplicate",webhook="code""#;
        assert_eq!(proxy.metric("larder_webhook_deliveries_total", labels).await, 2);
        let labels = r#"result="duplicate",source="webhook""#;
        assert_eq!(proxy.metric("larder_purges_total", labels).await, 4);
    })
    .await;
}

#[tokio::test]
async fn the_same_id_of_another_webhook_or_for_another_purge_is_another_delivery() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{WEBHOOKS}"));
        let bearer = ("authorization", "Bearer secret");
        let other = async |body: &str| {
            post(proxy.address, "/_larder/webhooks/other", &[bearer], body).await.body
        };
        let code = [
            ("x-gitlab-token", "secret"),
            ("x-gitlab-event", "Push Hook"),
            ("idempotency-key", "1"),
        ];
        let body = r#"{"tile":"a","delivery":1}"#;
        let answer = post(proxy.address, "/_larder/webhooks/code", &code, body).await;
        assert_eq!(answer.body, r#"{"seq":2,"nodes":{"applied":1,"total":1}}"#);
        assert_eq!(other(body).await, r#"{"seq":3,"nodes":{"applied":1,"total":1}}"#);
        assert_eq!(
            other(r#"{"tile":"b","delivery":1}"#).await,
            r#"{"seq":4,"nodes":{"applied":1,"total":1}}"#
        );
        assert_eq!(
            other(body).await,
            r#"{"seq":3,"nodes":{"applied":1,"total":1},"duplicate":true}"#
        );
    })
    .await;
}

#[tokio::test]
async fn a_challenge_that_is_not_signed_is_not_answered() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), WEBHOOKS);
        let body = r#"{"type":"url_verification","challenge":"x"}"#;
        let refused = post(proxy.address, "/_larder/webhooks/chat", &[], body).await;
        assert_eq!((refused.status(), refused.body.contains("challenge")), (401, false));
    })
    .await;
}

#[tokio::test]
async fn a_delivery_that_purged_nothing_counts_as_new_when_it_comes_again() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let toml = format!("{ROUTE}{WEBHOOKS}[store]\n{}", redis.store());
        let proxy = Proxy::with(&origin.url(), &toml);
        let fields = [("authorization", "Bearer secret")];
        let deliver = async |delivery: u8| {
            let body = format!(r#"{{"tile":"a","delivery":{delivery}}}"#);
            post(proxy.address, "/_larder/webhooks/other", &fields, &body).await
        };
        while deliver(0).await.status() == 503 {
            tokio::task::yield_now().await;
        }
        redis.refuse_writes(WriteRefusal::Memory).await;
        let refused = deliver(1).await;
        assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
        redis.accept_writes().await;
        let first = deliver(1).await;
        assert_eq!((first.status(), first.body.contains("duplicate")), (200, false), "{first:?}");
        assert!(deliver(1).await.body.contains(r#""duplicate":true"#));
    })
    .await;
}

/// A call on the admin listener with the token `secret`.
async fn call(proxy: &Proxy, path: &str, fields: &[(&str, &str)], body: &str) -> Reply {
    let fields = [fields, &[("authorization", "Bearer secret")]].concat();
    post(proxy.admin_address(), path, &fields, body).await
}

#[tokio::test]
async fn a_call_under_a_name_of_its_own_purges_once() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{ROUTE}"));
        let purge = async |key: &str, body: &str| {
            call(&proxy, "/v1/purge", &[("idempotency-key", key)], body).await
        };
        let (one, other) = (r#"{"tags":["tiles"]}"#, r#"{"tags":["tile:a"]}"#);
        for (key, body, expected, cached) in [
            ("k", one, r#"{"seq":1,"nodes":{"applied":1,"total":1}}"#, "MISS"),
            ("k", one, r#"{"seq":1,"nodes":{"applied":1,"total":1},"duplicate":true}"#, "HIT"),
            ("l", one, r#"{"seq":2,"nodes":{"applied":1,"total":1}}"#, "MISS"),
            ("k", other, r#"{"seq":3,"nodes":{"applied":1,"total":1}}"#, "MISS"),
        ] {
            fill(&proxy, "/tiles/a").await;
            let answer = purge(key, body).await;
            assert_eq!((answer.status(), &*answer.body), (200, expected));
            assert_eq!(proxy.get("/tiles/a").await.cache(), cached);
        }
        for key in ["", "é", &"k".repeat(256)] {
            assert_eq!(purge(key, one).await.status(), 400, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_purged_is_told_the_latest_first() {
    within(async {
        let origin = origin().await;
        let toml = format!("admin.token = \"secret\"\n{ROUTE}{WEBHOOKS}");
        let proxy = Proxy::with(&origin.url(), &toml);
        let body = r#"{"tags":["a"],"urls":["/b"],"mode":"soft","reason":"new prices"}"#;
        assert_eq!(call(&proxy, "/v1/purge", &[], body).await.status(), 200);
        let fields = [("authorization", "Bearer secret")];
        post(proxy.address, "/_larder/webhooks/other", &fields, r#"{"tile":"a"}"#).await;
        let send = async |path: &str| {
            let mut wire = Wire::connect(proxy.admin_address()).await;
            let answer = wire.exchange(request("GET", path, &fields)).await;
            (answer.status(), serde_json::from_str::<Value>(&answer.body).unwrap())
        };
        let (status, list) = send("/v1/purges").await;
        let seqs = |list: &Value| -> Vec<u64> {
            let purges = list["purges"].as_array().unwrap();
            purges.iter().map(|purge| purge["seq"].as_u64().unwrap()).collect()
        };
        assert_eq!((status, seqs(&list)), (200, vec![2, 1]));
        assert_eq!(list["purges"][0]["source"], json!({ "webhook": "other" }));
        let (status, mut first) = send("/v1/purges/1").await;
        let at = first["at"].take();
        assert!(at.as_str().unwrap().ends_with('Z'), "{at}");
        let passage = [first["applied"][0]["at"].take(), first["acknowledged_at"].take()];
        assert!(passage.iter().all(|at| at.as_str().unwrap().ends_with('Z')), "{passage:?}");
        let expected = json!({
            "seq": 1, "at": null, "mode": "soft", "source": "api", "reason": "new prices",
            "selectors": [{ "tag": "a" }, { "url": "/b" }],
            "applied": [{ "at": null }], "acknowledged_at": null,
        });
        assert_eq!((status, first), (200, expected));
        assert_eq!(seqs(&send("/v1/purges?limit=1").await.1), [2]);
        assert_eq!(seqs(&send("/v1/purges?before=2&limit=5").await.1), [1]);
        for path in ["/v1/purges/3", "/v1/purges/x"] {
            assert_eq!(send(path).await.0, 404, "{path}");
        }
        for path in ["/v1/purges?limit=x", "/v1/purges?limit", "/v1/purges?tag=a"] {
            assert_eq!(send(path).await.0, 400, "{path}");
        }
        assert_eq!(proxy.admin("/v1/purges").await.status(), 401);
    })
    .await;
}

#[tokio::test]
async fn clients_of_fastly_purge_as_they_are_used_to() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{ROUTE}"));
        let soft = ("fastly-soft-purge", "1");
        let ok = |seq: u64| format!(r#"{{"id":"{seq}","status":"ok"}}"#);
        let cases = [
            ("/service/x/purge/tile%3Aa", None, "", ok(1), "MISS"),
            ("/service/x/purge/tile:b", None, "", ok(2), "HIT"),
            ("/service/x/purge_all", Some(soft), "", ok(3), "MISS"),
            ("/purge/api.test/tiles/a", None, "", ok(4), "MISS"),
            ("/purge/http%3A%2F%2Fapi.test%2Ftiles%2Fa", None, "", ok(5), "MISS"),
            ("/purge/api.test/tiles/b", None, "", ok(6), "HIT"),
            (
                "/service/x/purge",
                Some(("surrogate-key", "tile:b tile:a")),
                "",
                r#"{"tile:a":"7","tile:b":"7"}"#.to_owned(),
                "MISS",
            ),
            (
                "/service/x/purge",
                None,
                r#"{"surrogate_keys":["tiles"]}"#,
                r#"{"tiles":"8"}"#.to_owned(),
                "MISS",
            ),
            ("/service/x/purge/tiles", Some(soft), "", ok(9), "STALE"),
        ];
        for (path, field, body, expected, cached) in cases {
            fill(&proxy, "/tiles/a").await;
            let fields: Vec<_> = field.into_iter().chain([("fastly-key", "secret")]).collect();
            let answer = post(proxy.admin_address(), path, &fields, body).await;
            assert_eq!((answer.status(), answer.body), (200, expected), "{path}");
            assert_eq!(proxy.get("/tiles/a").await.cache(), cached, "{path}");
        }
        for path in ["/service/x/purge", "/service/x/purge/%00", "/purge/a b@c/"] {
            let path = path.replace(' ', "%20");
            let refused = call(&proxy, &path, &[], "").await;
            assert_eq!(refused.status(), 400, "{path}");
            assert!(refused.body.starts_with(r#"{"detail":""#), "{}", refused.body);
            assert!(refused.body.contains(r#""msg":"No purge""#), "{}", refused.body);
        }
        fill(&proxy, "/tiles/c").await;
        let purged = proxy.send("PURGE", "/tiles/c", &[("fastly-key", "secret")]).await;
        assert_eq!((purged.status(), proxy.get("/tiles/c").await.cache()), (200, "MISS"));
    })
    .await;
}

#[tokio::test]
async fn clients_of_cloudflare_purge_as_they_are_used_to() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{ROUTE}"));
        let zones = ["/zones/x/purge_cache", "/client/v4/zones/x/purge_cache"];
        let cases = [
            (r#"{"files":["http://api.test/tiles/a"]}"#, "MISS"),
            (r#"{"files":[{"url":"http://api.test/tiles/a","headers":{}}]}"#, "MISS"),
            (r#"{"tags":["tile:a"]}"#, "MISS"),
            (r#"{"tags":["tile:b"]}"#, "HIT"),
            (r#"{"hosts":["api.test"]}"#, "MISS"),
            (r#"{"hosts":["api"]}"#, "HIT"),
            (r#"{"prefixes":["api.test/tiles"]}"#, "MISS"),
            (r#"{"purge_everything":true}"#, "MISS"),
        ];
        for (number, (body, cached)) in cases.into_iter().enumerate() {
            fill(&proxy, "/tiles/a").await;
            let answer = call(&proxy, zones[number % 2], &[], body).await;
            let document: Value = serde_json::from_str(&answer.body).unwrap();
            let result = json!({ "id": (number + 1).to_string() });
            let expected =
                json!({ "success": true, "errors": [], "messages": [], "result": result });
            assert_eq!((answer.status(), document), (200, expected), "{body}");
            assert_eq!(proxy.get("/tiles/a").await.cache(), cached, "{body}");
        }
        let refused = call(&proxy, zones[0], &[], r#"{"urls":["/a"]}"#).await;
        let document: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status(), &document["success"]), (400, &json!(false)));
        assert_eq!(
            (&document["errors"][0]["code"], &document["result"]),
            (&json!(1012), &Value::Null)
        );
    })
    .await;
}

#[tokio::test]
async fn no_call_is_answered_as_done_while_a_node_may_use_what_it_purges() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let toml = format!("admin.token = \"secret\"\n{ROUTE}[store]\n{}", redis.store());
        let proxy = Proxy::with(&origin.url(), &toml);
        proxy.until_synced().await;
        // A node that went without a word, and uses for a minute what it has asked for.
        let nodes = "{larder:log}:nodes";
        let gone = "1 60000 on 00000000000000aa 1";
        let now = redis.command(&["TIME"]).await.members()[0].text();
        let gone = gone.replacen('1', &format!("{now}000"), 1);
        redis.command(&["HSET", nodes, "00000000000000cc", &gone]).await;
        let tag = r#"{"tags":["tiles"]}"#;
        let (own, fastly, cloudflare) = tokio::join!(
            call(&proxy, "/v1/purge", &[], tag),
            call(&proxy, "/service/x/purge/tiles", &[], ""),
            call(&proxy, "/zones/x/purge_cache", &[], tag),
        );
        assert!(own.body.contains(r#""missing":["00000000000000cc"]"#), "{own:?}");
        for answer in [own, fastly, cloudflare] {
            assert_eq!(answer.status(), 202, "{answer:?}");
        }
    })
    .await;
}

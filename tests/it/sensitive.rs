//! Routes whose responses and URLs stay in the memory of nodes.

use super::support::{
    fleet::{Fleet, short_sleep},
    proxy::{Proxy, request, request_with_body},
    redis::Redis,
    resp::Value,
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

const TOKEN: &str = "admin.token = \"secret\"\nadmin.purge_from = [\"127.0.0.1\"]\n";

const ROUTE: &str =
    "[[route]]\nname = \"records\"\nmatch = \"/records/**\"\nsensitive = true\nttl = \"1h\"\n";

const DIGEST_KEY: &str = "[user]\ndigest_key = \"0123456789abcdef0123456789abcdef\"\n";

async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::fresh(format!("{} of patient", request.target)))
        .await
}

/// All that Redis answered, in one text.
fn text(answer: &Value) -> String {
    match answer {
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// What was purged lately, as operators see it.
async fn audit(proxy: &Proxy) -> String {
    let fields = [("authorization", "Bearer secret")];
    let mut wire = Wire::connect(proxy.admin_address()).await;
    wire.exchange(request("GET", "/v1/purges", &fields)).await.body
}

#[tokio::test]
async fn nothing_of_a_sensitive_route_reaches_redis() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let toml = format!("{ROUTE}{DIGEST_KEY}[store]\n{}", redis.store());
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        for node in [0, 1] {
            assert_eq!(fleet.get(node, "/records/4711?x=1").await.cache(), "MISS");
            assert_eq!(fleet.get(node, "/records/4711?x=1").await.cache(), "HIT");
        }
        let reply = fleet.send(0, ("PUT", "/records/4711?x=1"), &[]).await;
        assert_eq!(reply.status(), 200);
        for node in [0, 1] {
            assert_eq!(fleet.get(node, "/records/4711?x=1").await.cache(), "MISS");
        }
        assert!(redis.keys("*:l:*").await.is_empty(), "no lease, which each fetch claims first");
        // What may be there is there soon; then so would be the rest.
        assert_eq!(fleet.get(0, "/plain").await.cache(), "MISS");
        while redis.keys("*:e:*").await.is_empty() {
            short_sleep().await;
        }
        assert_eq!(redis.keys("*:e:*").await.len(), 1);
        let log = text(&redis.command(&["XRANGE", "larder:log", "-", "+"]).await);
        assert!(log.contains("larder:url:"), "{log}");
        assert!(!log.contains("records/4711"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn purges_on_a_sensitive_route_name_no_url() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("{TOKEN}{ROUTE}"));
        let target = "/records/4711";
        let stores = async || {
            assert_eq!(proxy.get(target).await.cache(), "MISS");
            assert_eq!(proxy.get("/records/4712").await.cache(), "HIT");
            assert_eq!(proxy.get(target).await.cache(), "HIT");
        };
        proxy.get("/records/4712").await;
        stores().await;
        assert_eq!(proxy.send("DELETE", target, &[]).await.status(), 200);
        stores().await;
        assert_eq!(proxy.send("PURGE", target, &[]).await.status(), 200);
        stores().await;
        let purge = async |json: &str| {
            let call =
                request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], json);
            let mut wire = Wire::connect(proxy.admin_address()).await;
            assert_eq!(wire.exchange(call).await.status(), 200, "{json}");
        };
        purge(r#"{"urls": ["http://api.test/records/4711"]}"#).await;
        stores().await;
        let audit_before = audit(&proxy).await;
        assert!(!audit_before.contains("4711"), "{audit_before}");
        assert_eq!(audit_before.matches("larder:url:").count(), 3, "{audit_before}");
        // A path on every host is the caller's own word.
        purge(r#"{"urls": ["/records/4711"]}"#).await;
        stores().await;
        purge(r#"{"prefixes": ["api.test/records/4711"]}"#).await;
        stores().await;
    })
    .await;
}

#[tokio::test]
async fn a_write_on_a_sensitive_route_without_a_digest_key_purges_the_route() {
    within(async {
        let (origin, redis) = (origin().await, Redis::start().await);
        let toml = format!("{ROUTE}[store]\n{}", redis.store());
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        for node in [0, 1] {
            assert_eq!(fleet.get(node, "/records/4711").await.cache(), "MISS");
            assert_eq!(fleet.get(node, "/records/4711").await.cache(), "HIT");
        }
        fleet.send(0, ("PUT", "/records/4711"), &[]).await;
        for node in [0, 1] {
            assert_eq!(fleet.get(node, "/records/4711").await.cache(), "MISS");
        }
        let log = text(&redis.command(&["XRANGE", "larder:log", "-", "+"]).await);
        assert!(!log.contains("4711") && log.contains("records"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn what_was_stored_before_a_route_became_sensitive_is_not_used() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &ROUTE.replace("true", "false"));
        assert_eq!(proxy.get("/records/1").await.cache(), "MISS");
        assert_eq!(proxy.get("/records/1").await.cache(), "HIT");
        proxy.reconfigure(&origin.url(), ROUTE);
        assert_eq!(proxy.get("/records/1").await.cache(), "MISS");
        assert_eq!(proxy.get("/records/1").await.cache(), "HIT");
        proxy.reconfigure(&origin.url(), &format!("{ROUTE}{DIGEST_KEY}"));
        assert_eq!(proxy.get("/records/1").await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn the_access_log_has_the_pattern_of_a_sensitive_route_only() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        for target in ["/records/4711?name=zoe", "/records/4711?name=zoe", "/plain"] {
            proxy.get(target).await;
        }
        proxy.send("POST", "/records/4711?name=zoe", &[]).await;
        let lines = proxy.log(4).await;
        let paths: Vec<_> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/records/**", "/records/**", "/plain", "/records/**"]);
        let text = proxy.log_text();
        assert!(!text.contains("4711") && !text.contains("zoe"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn nothing_of_a_sensitive_route_is_warmed() {
    within(async {
        let origin = origin().await;
        let warming = "[[route]]\nname = \"start\"\nmatch = \"/start\"\n\
                       on_success = { warm = [\"/records/1\", \"/other\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{TOKEN}{ROUTE}{warming}"));
        proxy.get("/records/1").await;
        assert_eq!(proxy.get("/records/1").await.cache(), "HIT");
        let call = r#"{"everything": true, "warm": true}"#;
        let call =
            request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], call);
        let mut wire = Wire::connect(proxy.admin_address()).await;
        assert_eq!(wire.exchange(call).await.status(), 200);
        proxy.send("POST", "/start", &[]).await;
        while !origin.received().iter().any(|request| request.target == "/other") {
            short_sleep().await;
        }
        let asked = origin.received();
        let records = asked.iter().filter(|request| request.target == "/records/1");
        assert_eq!(records.count(), 1);
        assert_eq!(proxy.get("/records/1").await.cache(), "MISS");
    })
    .await;
}

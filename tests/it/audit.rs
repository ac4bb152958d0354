//! Audits: a share of the hits is compared with the origin in the background.

use serde_json::{Value, json};

use crate::support::{
    gate::Gate,
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

const AUDIT: &str = "[[route]]\nname = \"data\"\nmatch = \"/**\"\nttl = \"1m\"\naudit = \"100%\"\n";

/// Waits for the report of the first route in which so many audits have ended.
async fn report(proxy: &Proxy, ended: u64) -> Value {
    loop {
        let reply = proxy.admin("/v1/shadow").await;
        let report: Value = serde_json::from_str(&reply.body).unwrap();
        let route = report["routes"][0].clone();
        let skipped = route["skipped"].as_object();
        let skipped = skipped.into_iter().flat_map(|it| it.values()).filter_map(Value::as_u64);
        if route["compared"].as_u64().unwrap() + skipped.sum::<u64>() >= ended {
            return route;
        }
    }
}

#[tokio::test]
async fn hits_are_compared_in_the_background_and_served_as_they_are() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(
                json!({"value": request.before / 2, "at": request.before}).to_string(),
            )
        })
        .await;
        let compare = "compare = { ignore = [\"$.at\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{AUDIT}{compare}"));
        assert_eq!(proxy.get("/a").await.cache(), "MISS");
        let first = r#"200 HIT {"at":0,"value":0}"#;
        assert_eq!(proxy.get("/a").await.summary(), first);
        report(&proxy, 1).await;
        proxy.advance(40);
        assert_eq!(proxy.get("/a").await.summary(), first);
        let report = report(&proxy, 2).await;
        assert_eq!(proxy.send("HEAD", "/a", &[]).await.cache(), "HIT");
        assert_eq!(report["mode"], "audit");
        assert_eq!((&report["requests"], &report["compared"]), (&json!(2), &json!(2)));
        assert_eq!(report["wrong"], 1);
        assert_eq!(report["samples"][0]["age"], 40.0);
        assert_eq!(report["samples"][0]["differences"][0]["at"], "$.value");
        assert_eq!(origin.requests(), 3, "one for each audit");
        let labels = "mode=\"audit\",result=\"different\"";
        assert_eq!(proxy.metric("larder_comparisons_total", labels).await, 1);
        let metrics = proxy.admin("/metrics").await.body;
        let line = "larder_staleness_seconds_bucket{mode=\"audit\",route=\"data\",le=\"60\"} 1";
        assert!(metrics.contains(line), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn an_audit_asks_as_a_refresh_would() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a").with("etag", "\"1\"")).await;
        let keys = "partition = \"everyone\"\nquery = { ignore = [\"utm_*\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{AUDIT}{keys}"));
        proxy.get("/a").await;
        let fields = [
            ("authorization", "Bearer x"),
            ("if-none-match", "\"1\""),
            ("cache-control", "max-stale"),
            ("x-request-id", "not usable"),
        ];
        assert_eq!(proxy.get_with("/a?utm_source=b", &fields).await.status(), 304);
        let report = report(&proxy, 1).await;
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(1), &json!(0)));
        let asked = origin.last();
        assert_eq!(asked.target, "/a");
        for field in ["authorization", "if-none-match", "cache-control"] {
            assert_eq!(asked.header(field), None, "{field}");
        }
        assert_eq!(asked.header("x-request-id").map(str::len), Some(32));
    })
    .await;
}

#[tokio::test]
async fn what_is_purged_before_the_origin_responds_was_not_wrong() {
    within(async {
        let gate = Gate::closed();
        let held = OriginResponse::ok("b").after(&gate);
        let origin =
            ScriptedOrigin::start(move |request| match (request.method.as_str(), request.before) {
                ("GET", 1) => held.clone(),
                _ => OriginResponse::ok("a"),
            })
            .await;
        let proxy = Proxy::with(&origin.url(), AUDIT);
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        origin.wait_for_requests(2).await;
        proxy.send("DELETE", "/a", &[]).await;
        gate.open();
        let report = report(&proxy, 1).await;
        assert_eq!((&report["compared"], &report["skipped"]), (&json!(0), &json!({"purged": 1})));
    })
    .await;
}

#[tokio::test]
async fn a_slow_origin_gets_four_audits_at_a_time() {
    within(async {
        let gate = Gate::closed();
        let (first, held) = (OriginResponse::ok("a"), OriginResponse::ok("a").after(&gate));
        let origin =
            ScriptedOrigin::start(
                move |request| {
                    if request.before == 0 { first.clone() } else { held.clone() }
                },
            )
            .await;
        let proxy = Proxy::with(&origin.url(), AUDIT);
        proxy.get("/a").await;
        for _ in 0..10 {
            assert_eq!(proxy.get("/a").await.cache(), "HIT");
        }
        let busy = report(&proxy, 6).await;
        assert_eq!(busy["skipped"], json!({"busy": 6}));
        assert_eq!(origin.requests(), 5);
        gate.open();
        assert_eq!(report(&proxy, 10).await["compared"], 4);
    })
    .await;
}

#[tokio::test]
async fn an_origin_that_fails_an_audit_changes_nothing() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("a"),
            OriginResponse::status(500, "down"),
            OriginResponse::status(404, "gone"),
        ])
        .await;
        let proxy = Proxy::with(&origin.url(), AUDIT);
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        assert_eq!(report(&proxy, 1).await["skipped"], json!({"origin-error": 1}));
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
        let report = report(&proxy, 2).await;
        let difference = json!({"at": "status", "stored": "200", "live": "404"});
        assert_eq!(report["samples"][0]["differences"], json!([difference]));
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT a");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_in_an_audit_counts_as_any_refusal() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("a"),
            OriginResponse::status(401, "no"),
            OriginResponse::status(401, "no"),
        ])
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{AUDIT}partition = \"user\"\n"));
        let anna = [("authorization", "Bearer anna")];
        proxy.get_with("/a", &anna).await;
        assert_eq!(proxy.get_with("/a", &anna).await.cache(), "HIT");
        assert_eq!(report(&proxy, 1).await["wrong"], 1);
        assert_eq!(proxy.get_with("/a", &anna).await.status(), 401);
    })
    .await;
}

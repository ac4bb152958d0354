//! Shadow mode: clients get the origin's responses, and Larder measures what the cache would do.

use serde_json::{Value, json};

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

const SHADOW: &str = "[[route]]\nname = \"data\"\nmatch = \"/**\"\nttl = \"1m\"\nshadow = true\n";

/// The report of the route `data`.
async fn report(proxy: &Proxy) -> Value {
    let reply = proxy.admin("/v1/shadow").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let report: Value = serde_json::from_str(&reply.body).unwrap();
    report["routes"][0].clone()
}

#[tokio::test]
async fn clients_get_the_origins_responses_and_hits_are_counted() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok(r#"{"a":1}"#)).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for _ in 0..10 {
            let reply = proxy.get("/a").await;
            assert_eq!(reply.summary(), r#"200 BYPASS {"a":1}"#);
            let status = reply.header("cache-status").unwrap();
            assert!(status.ends_with("; fwd=bypass; fwd-status=200; detail=shadow"), "{status}");
        }
        assert_eq!(origin.requests(), 10);
        let report = report(&proxy).await;
        assert_eq!(report["requests"], 10);
        assert_eq!(report["results"], json!({"HIT": 9, "MISS": 1}));
        assert_eq!(report["hit_ratio"], 0.9);
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(9), &json!(0)));
        assert_eq!(report["saved"]["bytes"], 63);
        assert_eq!(proxy.metric("larder_shadow_requests_total", "cache=\"HIT\"").await, 9);
        assert_eq!(proxy.metric("larder_comparisons_total", "result=\"same\"").await, 9);
    })
    .await;
}

#[tokio::test]
async fn a_users_data_on_a_shared_route_is_found_within_a_hundred_requests() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let user = request.header("authorization").unwrap_or("nobody");
            OriginResponse::ok(format!(r#"{{"profile":{{"email":"{user}@example.com"}}}}"#))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}partition = \"everyone\"\n"));
        for number in 0..100 {
            let user = format!("Bearer {}", ["alice", "bob", "carol"][number % 3]);
            let reply = proxy.get_with("/me", &[("authorization", &user)]).await;
            assert!(reply.body.contains(&user), "each client gets its own response");
        }
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 99, "MISS": 1}));
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(99), &json!(66)));
        let sample = &report["samples"][0];
        assert_eq!(sample["inputs"], json!(["credentials"]));
        assert_eq!(sample["path"], "/me");
        assert_eq!(sample["differences"][0]["at"], "$.profile.email");
        assert!(!report.to_string().contains("alice"), "{report}");
        let advice = report["advice"][0].as_str().unwrap();
        assert!(advice.contains("partition"), "{advice}");
    })
    .await;
}

//! Audits and leak detection on routes that encode: both look at the body as it is stored.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::{BROWSER, ROUTE, encodable, get, json};
use crate::support::{
    fleet::short_sleep,
    proxy::Proxy,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    within,
};

/// The report of the only route, once all audits have ended.
async fn audited(proxy: &Proxy) -> Value {
    loop {
        let mut report: Value =
            serde_json::from_str(&proxy.admin("/v1/shadow").await.body).unwrap();
        let route = report["routes"][0].take();
        let skipped = route["skipped"].as_object().into_iter().flatten();
        let skipped: u64 = skipped.filter_map(|(_, count)| count.as_u64()).sum();
        if route["requests"].as_u64() == route["compared"].as_u64().map(|it| it + skipped) {
            return route;
        }
        short_sleep().await;
    }
}

#[tokio::test]
async fn an_audit_of_a_coded_hit_compares_the_body_as_it_is_stored() {
    within(async {
        let is_changed = Arc::new(AtomicBool::new(false));
        let changed = Arc::clone(&is_changed);
        // Long documents are encoded, and parsed, on other threads.
        let origin = ScriptedOrigin::start(move |request| {
            let body = if request.target == "/short" { json(4096) } else { json(40_000) };
            let price = if changed.load(Ordering::SeqCst) { 2 } else { 1 };
            encodable(format!("{{\"price\":{price},\"rows\":{body}}}"))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}audit = \"100%\"\n"));
        for path in ["/short", "/long"] {
            get(&proxy, path, &[]).await;
            for coding in ["br", "zstd", "gzip"] {
                let accepted = ("accept-encoding", coding);
                let coded = loop {
                    let hit = get(&proxy, path, &[accepted]).await;
                    audited(&proxy).await;
                    if hit.coding() == coding {
                        break hit;
                    }
                };
                let current = [accepted, ("if-none-match", coded.etag())];
                assert_eq!(get(&proxy, path, &current).await.status(), 304);
                audited(&proxy).await;
            }
        }
        let report = audited(&proxy).await;
        assert!(report["compared"].as_u64().unwrap() >= 12, "{report}");
        assert_eq!((&report["wrong"], &report["skipped"]), (&json!(0), &Value::Null), "{report}");
        is_changed.store(true, Ordering::SeqCst);
        for path in ["/short", "/long"] {
            assert_eq!(get(&proxy, path, &[BROWSER]).await.summary(), "200 HIT br");
        }
        let report = audited(&proxy).await;
        assert_eq!(report["wrong"], 2, "{report}");
        assert_eq!(report["samples"][0]["differences"][0]["at"], "$.price");
    })
    .await;
}

const COMPARISONS: &str = "larder_leak_comparisons_total";

/// Two users request a public response in all codings, until their hits were compared.
async fn until_compared(proxy: &Proxy) {
    let mut coded = 0;
    while proxy.metric(COMPARISONS, "").await == 0 {
        for accepted in [BROWSER.1, "zstd", "gzip", "identity"] {
            for user in ["Bearer alice", "Bearer robert"] {
                let fields = [("authorization", user), ("accept-encoding", accepted)];
                let reply = get(proxy, "/a", &fields).await;
                coded += usize::from(reply.coding() != "-");
            }
        }
    }
    assert!(coded > 40, "{coded}");
}

/// A public page with a number that is new in each response.
fn page(request: &OriginRequest, name: &str) -> OriginResponse {
    let (number, rows) = (request.before, json(4096));
    encodable(format!("{{\"at\":{number},\"user\":\"{name}\",\"rows\":{rows}}}"))
        .with("cache-control", "public")
}

#[tokio::test]
async fn coded_hits_of_two_requesters_raise_no_alarm() {
    within(async {
        let origin = ScriptedOrigin::start(|request| page(request, "all")).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        until_compared(&proxy).await;
        assert_eq!(proxy.metric(COMPARISONS, "result=\"leak\"").await, 0);
        assert_eq!(proxy.metric(COMPARISONS, "result=\"failed\"").await, 0);
        assert_eq!(proxy.admin("/v1/quarantine").await.body, r#"{"routes":[]}"#);
        let asked = origin.received().into_iter();
        let compared = asked.filter(|it| it.header("accept-encoding") == Some("identity"));
        assert!(compared.count() >= 2, "the origin is asked for bodies without a coding");
    })
    .await;
}

#[tokio::test]
async fn a_leak_behind_coded_hits_is_found() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let name = request.header("authorization").unwrap_or("nobody").to_owned();
            page(request, &name)
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        until_compared(&proxy).await;
        let list = loop {
            let list: Value =
                serde_json::from_str(&proxy.admin("/v1/quarantine").await.body).unwrap();
            if !list["routes"][0].is_null() {
                break list;
            }
            short_sleep().await;
        };
        assert_eq!(list["routes"][0]["places"], json!(["$.user"]), "{list}");
        assert_eq!(proxy.metric(COMPARISONS, "result=\"leak\"").await, 1);
    })
    .await;
}

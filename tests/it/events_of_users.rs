//! Private events of users with real tokens, for as long as the tokens are valid.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    token::{bearer, bearer_until, by_token, now, signed},
    wire::{Reply, Wire},
    within,
};

const EVENTS: &str = "admin.token = \"secret\"\nevents.tags = [\"tile:*\", \"stocks:{user}\"]\n\
                      events.allow_origins = [\"https://app.test\"]\n";

fn configuration(events: &str) -> String {
    let logout =
        "\n[[route]]\nname = \"out\"\nmatch = \"POST /out\"\non_success = { logout = true }";
    let routes = by_token("user").replace("\"/**\"", "\"GET /**\"");
    format!("{events}{routes}{logout}")
}

/// Opens a stream, and skips its first event.
async fn listen(proxy: &Proxy, field: (&str, &str)) -> Wire {
    let mut wire = proxy.connect().await;
    wire.write(request("GET", "/_larder/events", &[field])).await;
    wire.read_until("event: hello\n").await;
    wire
}

async fn purge(proxy: &Proxy, tag: &str) {
    let body = json!({ "tags": [tag] }).to_string();
    let call = request_with_body("POST", "/v1/purge", &[("authorization", "Bearer secret")], &body);
    let receipt = Wire::connect(proxy.admin_address()).await.exchange(call).await;
    assert_eq!(receipt.status(), 200, "{receipt:?}");
}

async fn open(proxy: &Proxy, fields: &[(&str, &str)]) -> Reply {
    let mut wire = proxy.connect().await;
    wire.write(request("HEAD", "/_larder/events", fields)).await;
    wire.read_reply_to("HEAD").await
}

#[tokio::test]
async fn a_user_hears_of_its_own_tags_by_token_and_by_cookie() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        for carrier in ["authorization", "cookie"] {
            let mut toml = configuration(EVENTS);
            if carrier == "cookie" {
                toml = toml.replace("iss = \"i\"", "iss = \"i\", cookie = \"session\"");
            }
            let proxy = Proxy::with(&origin.url(), &toml);
            let value = |user| match carrier {
                "cookie" => {
                    let claims = json!({ "sub": user, "iss": "i", "exp": now() + 600 });
                    format!("theme=dark; session={}", signed(&claims))
                }
                _ => bearer(user, "read"),
            };
            let (zoe, bob) = (value("zoe"), value("bob"));
            let mut streams = Vec::new();
            for (field, own) in [
                ((carrier, &*zoe), Some("stocks:zoe")),
                ((carrier, &*bob), Some("stocks:bob")),
                (("accept", "*/*"), None),
            ] {
                streams.push((listen(&proxy, field).await, own));
            }
            for tag in ["stocks:zoe", "stocks:bob", "stocks:zoe2", "tile:a"] {
                purge(&proxy, tag).await;
            }
            for (wire, own) in &mut streams {
                let received = wire.read_until("\"tile:a\"").await;
                assert_eq!(
                    received.matches("stocks:").count(),
                    usize::from(own.is_some()),
                    "{received}"
                );
                let own = own.map(|own| format!("\"tags\":[\"{own}\"]"));
                assert!(own.is_none_or(|own| received.contains(&own)), "{carrier}: {received}");
            }
            let synced = proxy.get_with("/_larder/sync?since=0", &[(carrier, &zoe)]).await.body;
            assert!(synced.contains("stocks:zoe\"") && !synced.contains("bob"), "{synced}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_stream_of_a_user_ends_with_the_token() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let proxy = Proxy::with(&origin.url(), &configuration(EVENTS));
        let short = bearer_until("zoe", "read", now() + 2);
        let long = bearer("zoe", "read");
        let mut lasting = listen(&proxy, ("authorization", &long)).await;
        let mut ending = listen(&proxy, ("authorization", &short)).await;
        let received = ending.read_until("\r\n0\r\n\r\n").await;
        assert!(received.contains("event: end\ndata: {\"reason\":\"expired\"}\n"), "{received}");
        purge(&proxy, "stocks:zoe").await;
        let received = lasting.read_until("stocks:zoe").await;
        assert!(!received.contains("event: end"), "{received}");
    })
    .await;
}

#[tokio::test]
async fn the_stream_of_a_user_ends_when_its_token_is_refused_or_logged_out() {
    within(async {
        static IS_REVOKED: AtomicBool = AtomicBool::new(false);
        let origin = ScriptedOrigin::start(|request| match &*request.target {
            "/revoked" if IS_REVOKED.load(Ordering::Relaxed) => OriginResponse::status(401, "no"),
            _ => OriginResponse::ok("x"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &configuration(EVENTS));
        let (zoe, bob) = (bearer("zoe", "read"), bearer("bob", "read"));
        let mut others = listen(&proxy, ("authorization", &bob)).await;
        for (method, target) in [("POST", "/out"), ("GET", "/revoked")] {
            IS_REVOKED.store(false, Ordering::Relaxed);
            assert_eq!(proxy.get_with("/a", &[("authorization", &zoe)]).await.status(), 200);
            let mut wire = listen(&proxy, ("authorization", &zoe)).await;
            IS_REVOKED.store(true, Ordering::Relaxed);
            proxy.send(method, target, &[("authorization", &zoe)]).await;
            let received = wire.read_until("\r\n0\r\n\r\n").await;
            assert!(received.contains("{\"reason\":\"revoked\"}"), "{method} {target}: {received}");
            // Until the origin accepts the token again, it identifies no user, and only public
            // events are visible.
            let mut again = listen(&proxy, ("authorization", &zoe)).await;
            purge(&proxy, "stocks:zoe").await;
            purge(&proxy, "tile:a").await;
            let received = again.read_until("tile:a").await;
            assert!(!received.contains("stocks:zoe"), "{received}");
        }
        purge(&proxy, "stocks:bob").await;
        let received = others.read_until("stocks:bob").await;
        assert!(!received.contains("event: end"), "{received}");
    })
    .await;
}

#[tokio::test]
async fn a_feed_of_users_is_for_users_and_for_pages_that_are_listed() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let events = EVENTS.replace("\"tile:*\", ", "");
        let proxy = Proxy::with(&origin.url(), &configuration(&events));
        let (zoe, late) = (bearer("zoe", "read"), bearer_until("zoe", "read", now() - 1));
        for target in ["/_larder/events", "/_larder/sync", "/_larder/version"] {
            for fields in [vec![], vec![("authorization", &*late)]] {
                let refused = proxy.get_with(target, &fields).await;
                assert_eq!(refused.status(), 401, "{target}");
                assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
            }
        }
        let page = [("authorization", &*zoe), ("origin", "https://app.test")];
        let allowed = open(&proxy, &page).await;
        assert_eq!(allowed.status(), 200);
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.test"));
        assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
        let other = open(&proxy, &[page[0], ("origin", "https://evil.test")]).await;
        assert_eq!(other.header("access-control-allow-origin"), None);
        assert_eq!(other.header("access-control-allow-credentials"), None);
        let asked = [("origin", "https://app.test"), ("access-control-request-method", "GET")];
        let preflight = proxy.send("OPTIONS", "/_larder/events", &asked).await;
        assert_eq!(preflight.status(), 204);
        assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
        let fields = preflight.header("access-control-allow-headers").unwrap();
        assert!(fields.contains("Authorization"), "{fields}");
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

//! What belongs to a user is purged by the user, however the purge comes, and nothing names the user.

use std::{fmt::Write as _, process::Command};

use aws_lc_rs::hmac;
use serde_json::json;

use crate::support::{
    fleet::{Fleet, short_sleep},
    proxy::{Proxy, request, request_with_body},
    redis::Redis,
    resp::Value,
    script::{OriginResponse, ScriptedOrigin},
    token::{bearer, bearer_of, by_token, now, outcome},
    wire::Wire,
    within,
};

const BILLING: &str = r#"
[[webhook]]
name = "billing"
scheme = "hmac"
secrets = ["new"]
header = "x-signature"
event_from = "x-event"
[[webhook.on]]
users = ["{$.customer}"]
"#;

/// Delivers to the webhook, signed.
async fn deliver(fleet: &Fleet, body: &str) -> u16 {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"new"), body.as_bytes());
    let mut signature = String::new();
    tag.as_ref().iter().for_each(|byte| write!(signature, "{byte:02x}").unwrap());
    let fields = [("x-signature", &*signature), ("x-event", "changed")];
    let call = request_with_body("POST", "/_larder/webhooks/billing", &fields, body);
    Wire::connect(fleet.addresses()[0]).await.exchange(call).await.status()
}

/// Purges with the command line.
fn run(fleet: &Fleet, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .args(["purge", "--token", "secret", "--admin", &fleet.nodes[0].admin.to_string()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All that Redis answered, in one text.
fn text(answer: &Value) -> String {
    match answer {
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.text(),
    }
}

/// All that stands in Redis: keys, entries and the purge log.
async fn in_redis(redis: &Redis) -> String {
    let mut all = text(&redis.command(&["XRANGE", "larder:log", "-", "+"]).await);
    for key in redis.keys("*").await {
        let value = redis.command(&["GET", &key]).await;
        all =
            format!("{all} {key} {}", if value.is_error() { String::new() } else { text(&value) });
    }
    all
}

async fn audit(fleet: &Fleet) -> String {
    let call = request("GET", "/v1/purges", &[("authorization", "Bearer secret")]);
    Wire::connect(fleet.nodes[1].admin).await.exchange(call).await.body
}

#[tokio::test]
async fn a_user_is_purged_by_call_command_and_webhook_and_named_nowhere() {
    within(async {
        let (origin, redis) =
            (ScriptedOrigin::always(OriginResponse::ok("x")).await, Redis::start().await);
        let toml = format!("store.redis = \"{}\"\n{}{BILLING}", redis.url(), by_token("user"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let (read, write) =
            (bearer("zoe-unmistakable", "read"), bearer("zoe-unmistakable", "write"));
        let bob = bearer("bob", "read");
        let get = async |node: usize, token: &str| {
            fleet.send(node, ("GET", "/a"), &[("authorization", token)]).await.cache().to_owned()
        };
        let fill = async || {
            for token in [&read, &write, &bob] {
                for node in [0, 1] {
                    get(node, token).await;
                    assert_eq!(get(node, token).await, "HIT");
                }
            }
        };
        let user = "zoe-unmistakable";
        for way in ["call", "command", "webhook"] {
            fill().await;
            let before = audit(&fleet).await.matches("user").count();
            match way {
                "call" => drop(fleet.purge(0, &json!({ "user": user }).to_string()).await),
                "command" => run(&fleet, &["--user", user, "--iss", "i"]),
                _ => {
                    assert_eq!(
                        deliver(&fleet, &json!({ "customer": user }).to_string()).await,
                        200
                    );
                }
            }
            for (token, expected) in [(&read, "MISS"), (&write, "MISS"), (&bob, "HIT")] {
                assert_eq!(get(1, token).await, expected, "{way}");
            }
            assert!(audit(&fleet).await.matches("user").count() > before, "{way}");
        }
        fill().await;
        fleet.purge(0, r#"{"user":"zoe-unmistakable","iss":"other"}"#).await;
        assert_eq!(get(1, &read).await, "HIT", "a user of another issuer");
        while redis.keys("*:e:*").await.is_empty() {
            short_sleep().await;
        }
        let (audit, redis) = (audit(&fleet).await, in_redis(&redis).await);
        assert!(redis.contains("larder:") && redis.len() > 500, "{redis}");
        for text in [audit, redis] {
            assert!(!text.contains("unmistakable"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_writer_sees_its_write_on_another_node_whatever_its_rights() {
    within(async {
        let (origin, redis) =
            (ScriptedOrigin::always(OriginResponse::ok("x")).await, Redis::start().await);
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("user"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let (read, write, bob) = (bearer("zoe", "r"), bearer("zoe", "r w"), bearer("bob", "r"));
        let get = async |token: &str| {
            fleet.send(1, ("GET", "/a"), &[("authorization", token)]).await.cache().to_owned()
        };
        for _ in 0..5 {
            for token in [&read, &write, &bob] {
                get(token).await;
                assert_eq!(get(token).await, "HIT");
            }
            fleet.send(0, ("PUT", "/a"), &[("authorization", &write)]).await;
            assert_eq!(get(&read).await, "MISS");
            assert_eq!(get(&write).await, "MISS");
            assert_eq!(get(&bob).await, "HIT");
        }
        // Leases of a Redis that has just begun are waited for: some answers go out before the acknowledgement.
        assert_eq!(fleet.metric(0, "larder_write_purges_total", "").await, 5);
    })
    .await;
}

#[tokio::test]
async fn tags_by_user_are_purged_by_the_writes_of_that_user() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let toml = by_token("user").replace("\"/**\"", "\"GET /**\"")
            + "\ntags = [\"stocks\", \"stocks:{user}\"]\n[[route]]\nname = \"buy\"\n\
               match = \"POST /buy\"\non_write = { purge = [\"stocks:{user}\"] }";
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{toml}"));
        let (zoe, bob) = (bearer("zoe", "r"), bearer("bob", "r"));
        let get = async |token: &str| {
            outcome(&proxy.get_with("/stocks", &[("authorization", token)]).await)
        };
        for token in [&zoe, &bob] {
            get(token).await;
            assert_eq!(get(token).await, "HIT -");
        }
        proxy.send("POST", "/buy", &[]).await;
        assert_eq!((get(&zoe).await, get(&bob).await), ("HIT -".into(), "HIT -".into()));
        let other = bearer_of(&json!({ "sub": "zoe", "iss": "other", "exp": now() + 60 }));
        proxy.send("POST", "/buy", &[("authorization", &other)]).await;
        assert_eq!(get(&zoe).await, "HIT -", "not a user of this issuer");
        proxy.send("POST", "/buy", &[("authorization", &zoe)]).await;
        assert_eq!((get(&zoe).await, get(&bob).await), ("MISS purged".into(), "HIT -".into()));
    })
    .await;
}

//! Purging by every trigger: the admin API, `PURGE`, webhooks, the command line.

use std::{fmt::Write as _, net::SocketAddr, process::Command};

use aws_lc_rs::hmac;

use crate::support::{
    process::Process,
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

const ROUTE: &str = r#"
[[route]]
name = "tiles"
match = "/tiles/{tile}"
tags = ["tile:{tile}", "tiles"]
query = { ignore = ["utm_*"] }
"#;

const SHOP: &str = r#"
[[webhook]]
name = "shop"
scheme = "hmac"
secrets = ["new", "old"]
header = "x-signature"
prefix = "sha256="
event_from = "x-event"
[[webhook.on]]
event = "changed"
purge = ["tile:{$.items[*].tile}"]
"#;

/// An origin with responses that stay fresh for a minute and differ each time.
async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::fresh(format!("{} {}", request.target, request.before))
    })
    .await
}

async fn send(
    address: SocketAddr,
    (method, target): (&str, &str),
    fields: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut wire = Wire::connect(address).await;
    wire.write(request_with_body(method, target, fields, body)).await;
    wire.read_reply_to(method).await
}

async fn call(proxy: &Proxy, token: &str, body: &str) -> Reply {
    let token = format!("Bearer {token}");
    let fields = [("authorization", &*token)];
    send(proxy.admin_address(), ("POST", "/v1/purge"), &fields, body).await
}

/// Delivers an event to the shop's webhook, signed with this secret.
async fn deliver(proxy: &Proxy, secret: &str, event: &str, body: &str) -> Reply {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
    let mut signature = "sha256=".to_owned();
    tag.as_ref().iter().for_each(|byte| write!(signature, "{byte:02x}").unwrap());
    let fields = [("x-signature", &*signature), ("x-event", event)];
    send(proxy.address, ("POST", "/_larder/webhooks/shop"), &fields, body).await
}

/// Stores these targets, and checks that they are hits.
async fn fill(proxy: &Proxy, targets: &[&str]) {
    for target in targets {
        proxy.get(target).await;
        assert_eq!(proxy.get(target).await.cache(), "HIT", "{target}");
    }
}

/// Returns the cache result of each target.
async fn cached(proxy: &Proxy, targets: &[&str]) -> Vec<String> {
    let mut words = Vec::new();
    for target in targets {
        words.push(proxy.get(target).await.cache().to_owned());
    }
    words
}

/// Returns the receipt of a standalone node.
fn receipt_of(seq: usize) -> String {
    format!(r#"{{"seq":{seq},"nodes":{{"applied":1,"total":1}}}}"#)
}

#[tokio::test]
async fn a_call_purges_what_it_selects_and_nothing_else() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{ROUTE}"));
        let targets = ["/tiles/a", "/tiles/b?x=1", "/other/c"];
        let cases = [
            (r#"{"tags":["tile:a"]}"#, ["MISS", "HIT", "HIT"]),
            (r#"{"tags":["tiles"],"reason":"new prices"}"#, ["MISS", "MISS", "HIT"]),
            (r#"{"tags":["tile"]}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"urls":["http://API.test:80/tiles/b?x=1&utm_source=y"]}"#, ["HIT", "MISS", "HIT"]),
            (r#"{"urls":["/other/%63"]}"#, ["HIT", "HIT", "MISS"]),
            (r#"{"urls":["https://elsewhere.test/tiles/a"]}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"prefixes":["api.test/tiles/"]}"#, ["MISS", "MISS", "HIT"]),
            (r#"{"patterns":["/*/b?*"]}"#, ["HIT", "MISS", "HIT"]),
            (r#"{"patterns":["API.test/*/a","*/c"]}"#, ["MISS", "HIT", "MISS"]),
            (r#"{"patterns":["elsewhere.test/*"]}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"routes":["tiles"]}"#, ["MISS", "MISS", "HIT"]),
            (r#"{"routes":["unmatched"]}"#, ["HIT", "HIT", "MISS"]),
            (r#"{"routes":["tiles"],"patterns":["*a"]}"#, ["MISS", "HIT", "HIT"]),
            (r#"{"routes":["unmatched"],"tags":["tiles"]}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"version":"v1","urls":["/other/c"]}"#, ["HIT", "HIT", "MISS"]),
            (r#"{"version":"v2"}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"user":"u1"}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"user":"u1","everything":true}"#, ["HIT", "HIT", "HIT"]),
            (r#"{"version":"v1"}"#, ["MISS", "MISS", "MISS"]),
            (r#"{"everything":true}"#, ["MISS", "MISS", "MISS"]),
        ];
        for (number, (body, expected)) in cases.into_iter().enumerate() {
            fill(&proxy, &targets).await;
            let receipt = call(&proxy, "secret", body).await;
            assert_eq!(receipt.status(), 200, "{body}: {receipt:?}");
            assert_eq!(receipt.body, receipt_of(number + 1));
            assert_eq!(cached(&proxy, &targets).await, expected, "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_cannot_be_meant_or_is_not_allowed_purges_nothing() {
    within(async {
        let origin = origin().await;
        let tokens = "admin.tokens = [{ token = \"all\", may = [\"read\", \"purge\"] }, { token = \"reader\", may = [\"read\"] }]";
        let proxy = Proxy::with(&origin.url(), tokens);
        fill(&proxy, &["/a"]).await;
        let everything = r#"{"everything":true}"#;
        assert_eq!(call(&proxy, "wrong", everything).await.status(), 401);
        assert_eq!(call(&proxy, "reader", everything).await.status(), 403);
        for body in ["", "{}", "[]", r#"{"tags":[]}"#, r#"{"tags":[""]}"#, r#"{"tag":["a"]}"#] {
            let refused = call(&proxy, "all", body).await;
            assert_eq!(refused.status(), 400, "{body}");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
            let advice = ["selector", "`tags[0]` is invalid"];
            assert!(advice.iter().any(|text| refused.body.contains(text)), "{}", refused.body);
        }
        let large = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(1 << 20));
        assert_eq!(call(&proxy, "all", &large).await.status(), 413);
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn without_a_token_nobody_purges() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::before(&origin.url());
        let refused = call(&proxy, "", r#"{"everything":true}"#).await;
        assert_eq!(refused.status(), 403);
        assert!(refused.body.contains("`admin.token`"), "{}", refused.body);
        let passed = proxy.send("PURGE", "/a", &[]).await;
        assert_eq!((passed.status(), origin.last().method.as_str()), (200, "PURGE"));
    })
    .await;
}

#[tokio::test]
async fn purge_is_a_method_where_somebody_may_use_it() {
    within(async {
        let origin = origin().await;
        let toml = format!("admin.token = \"secret\"\nadmin.purge_from = [\"127.0.0.1\"]\n{ROUTE}");
        let proxy = Proxy::with(&origin.url(), &toml);
        let targets = ["/tiles/a", "/tiles/b"];
        for (target, fields, expected) in [
            ("/tiles/%61?utm_medium=x", &[][..], ["MISS", "HIT"]),
            ("/", &[("xkey", "tile:b, nothing")], ["HIT", "MISS"]),
            ("/tiles/a", &[("surrogate-key", "tiles")], ["MISS", "MISS"]),
        ] {
            fill(&proxy, &targets).await;
            let receipt = proxy.send("PURGE", target, fields).await;
            assert_eq!(receipt.status(), 200, "{receipt:?}");
            assert!(receipt.body.starts_with(r#"{"seq":"#), "{}", receipt.body);
            assert_eq!(cached(&proxy, &targets).await, expected, "{target} {fields:?}");
        }
        fill(&proxy, &targets).await;
        let forwarded = ("x-forwarded-for", "127.0.0.1");
        let refused = proxy.send("PURGE", "/tiles/a", &[forwarded]).await;
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(proxy.send("PURGE", "/", &[("xkey", "")]).await.status(), 400);
        assert_eq!(cached(&proxy, &targets).await, ["HIT", "HIT"]);
        let by_token = [forwarded, ("authorization", "Bearer secret")];
        assert_eq!(proxy.send("PURGE", "/tiles/a", &by_token).await.status(), 200);
        assert_eq!(cached(&proxy, &targets).await, ["MISS", "HIT"]);
        assert!(origin.received().iter().all(|request| request.method == "GET"));
    })
    .await;
}

/// Fields in which proxies name a client or themselves, with a value that would be authorised.
const NAMING: [(&str, &str); 22] = [
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1"),
    ("via", "1.1 proxy"),
    ("x-real-ip", "127.0.0.1"),
    ("X_Real_IP", "127.0.0.1"),
    ("x_forwarded_for", "127.0.0.1"),
    ("x-forwarded", "127.0.0.1"),
    ("x-forwarded-host", "api.test"),
    ("x-forwarded-proto", "http"),
    ("x-original-forwarded-for", "127.0.0.1"),
    ("true-client-ip", "127.0.0.1"),
    ("cf-connecting-ip", "127.0.0.1"),
    ("cf-connecting-ipv6", "::1"),
    ("cf-ray", "1"),
    ("cdn-loop", "cdn"),
    ("x-client-ip", "127.0.0.1"),
    ("client-ip", "127.0.0.1"),
    ("x-cluster-client-ip", "127.0.0.1"),
    ("fastly-client-ip", "127.0.0.1"),
    ("x-envoy-external-address", "127.0.0.1"),
    ("x-azure-clientip", "127.0.0.1"),
    ("forwarded-for", "127.0.0.1"),
];

#[tokio::test]
async fn an_address_gives_no_right_to_what_came_through_an_unknown_proxy() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), "admin.purge_from = [\"127.0.0.1\"]");
        fill(&proxy, &["/a"]).await;
        for field in NAMING {
            let refused = proxy.send("PURGE", "/a", &[field]).await;
            assert_eq!(refused.status(), 403, "{field:?}");
        }
        assert_eq!(cached(&proxy, &["/a"]).await, ["HIT"]);
        assert_eq!(proxy.send("PURGE", "/a", &[("accept", "*/*")]).await.status(), 200);
        assert_eq!(cached(&proxy, &["/a"]).await, ["MISS"]);
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_has_only_the_right_of_the_client_that_it_names() {
    within(async {
        let origin = origin().await;
        let toml = "trusted_proxies = [\"127.0.0.0/8\"]\nadmin.purge_from = [\"127.0.0.1\", \"192.0.2.0/24\"]";
        let proxy = Proxy::with(&origin.url(), toml);
        let status = async |fields: &[(&str, &str)]| proxy.send("PURGE", "/a", fields).await.status();
        assert_eq!(status(&[]).await, 403, "a proxy that names no client");
        for (name, _) in &NAMING[2..] {
            assert_eq!(status(&[(name, "192.0.2.7")]).await, 403, "{name} alone");
        }
        let (named, outside) = (("x-forwarded-for", "192.0.2.7"), ("x-forwarded-for", "198.51.100.1"));
        let (element, elsewhere) = (("forwarded", "for=192.0.2.7"), ("forwarded", "for=198.51.100.1"));
        assert_eq!(status(&[outside]).await, 403);
        assert_eq!(status(&[elsewhere]).await, 403);
        assert_eq!(status(&[named, elsewhere]).await, 403, "two that contradict each other");
        for name in ["x-real-ip", "true-client-ip", "cf-connecting-ip", "x_real_ip"] {
            assert_eq!(status(&[named, (name, "198.51.100.1")]).await, 403, "{name} contradicts");
            assert_eq!(status(&[named, (name, "192.0.2.7")]).await, 200, "{name} agrees");
        }
        assert_eq!(status(&[named]).await, 200);
        assert_eq!(status(&[element]).await, 200);
        assert_eq!(status(&[named, element, ("via", "1.1 proxy")]).await, 200);
        assert_eq!(origin.requests(), 0, "none of them is for the origin");
    })
    .await;
}

#[tokio::test]
async fn a_signed_delivery_purges_what_its_payload_names() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{SHOP}"));
        let targets = ["/tiles/a", "/tiles/b", "/tiles/c"];
        let body = r#"{"items":[{"tile":"a"},{"tile":"b"}]}"#;
        for secret in ["new", "old"] {
            fill(&proxy, &targets).await;
            let receipt = deliver(&proxy, secret, "changed", body).await;
            assert_eq!(receipt.status(), 200, "{receipt:?}");
            assert_eq!(cached(&proxy, &targets).await, ["MISS", "MISS", "HIT"]);
        }
        let ignored = deliver(&proxy, "new", "other", body).await;
        assert_eq!((ignored.status(), ignored.body.contains("no rule")), (202, true));
        let empty = deliver(&proxy, "new", "changed", "{}").await;
        assert_eq!((empty.status(), empty.body.contains("no value")), (202, true));
        assert_eq!(deliver(&proxy, "wrong", "changed", body).await.status(), 401);
        assert_eq!(deliver(&proxy, "new", "changed", "{").await.status(), 400);
        assert_eq!(cached(&proxy, &targets).await, ["HIT", "HIT", "HIT"]);
        for (result, count) in
            [("purged", 2), ("ignored", 1), ("empty", 1), ("refused", 1), ("malformed", 1)]
        {
            let labels = format!(r#"result="{result}",webhook="shop""#);
            assert_eq!(proxy.metric("larder_webhook_deliveries_total", &labels).await, count);
        }
        assert_eq!(proxy.metric("larder_webhook_unfilled_total", "shop").await, 1);
        let labels = r#"mode="hard",result="appended",source="webhook""#;
        assert_eq!(proxy.metric("larder_purges_total", labels).await, 2);
        assert_eq!(origin.requests(), 7, "deliveries are not the origin's");
    })
    .await;
}

/// An invalid signature; without any signature a body is not read.
const SIGNED: (&str, &str) = ("x-signature", "sha256=00");

#[tokio::test]
async fn what_is_no_delivery_is_refused_with_a_problem_document() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), SHOP);
        let shop = "/_larder/webhooks/shop";
        for (method, target, status) in [
            ("POST", "/_larder/webhooks/other", 404),
            ("POST", "/_larder/webhooks/", 404),
            ("GET", "/_larder/other", 404),
            ("GET", shop, 405),
            ("PURGE", shop, 403),
        ] {
            let refused = send(proxy.address, (method, target), &[], "{}").await;
            assert_eq!(refused.status(), status, "{method} {target}");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
            assert_eq!(refused.header("cache-control"), Some("no-store"));
        }
        let mut wire = proxy.connect().await;
        wire.write(request("POST", shop, &[SIGNED, ("content-length", "1048577")])).await;
        assert_eq!(wire.read_reply().await.status(), 413);
        let mut wire = proxy.connect().await;
        wire.write(request("POST", shop, &[SIGNED, ("transfer-encoding", "chunked")])).await;
        let chunk = "x".repeat(1 << 16);
        for _ in 0..=16 {
            wire.try_write(format!("10000\r\n{chunk}\r\n")).await;
        }
        assert_eq!(wire.read_reply().await.status(), 413);
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn webhooks_and_tokens_change_with_the_configuration() {
    within(async {
        let origin = origin().await;
        let proxy = Proxy::before(&origin.url());
        assert_eq!(deliver(&proxy, "new", "other", "{}").await.status(), 404);
        proxy.reconfigure(&origin.url(), SHOP);
        assert_eq!(deliver(&proxy, "new", "other", "{}").await.status(), 202);
        proxy.reconfigure(&origin.url(), &SHOP.replace("\"old\"", "\"older\""));
        assert_eq!(deliver(&proxy, "old", "other", "{}").await.status(), 401);
        proxy.reconfigure(&origin.url(), "admin.token = \"later\"");
        assert_eq!(call(&proxy, "later", r#"{"tags":["a"]}"#).await.status(), 200);
        assert_eq!(proxy.send("PURGE", "/a", &[]).await.status(), 401);
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_command_line_purges_and_says_what_went_wrong() {
    within(async {
        let origin = origin().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        let text = format!(
            "listen = \"127.0.0.1:0\"\norigin = \"{}\"\nadmin = {{ listen = \"127.0.0.1:0\", token = \"secret\" }}",
            origin.url()
        );
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let node = Process::run(&["--config", file]).await;
        node.get("/a").await;
        assert_eq!(node.get("/a").await.cache(), "HIT");
        let admin = node.admin.to_string();
        let run = |further: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_larder"))
                .args(["purge", "--url", "/a", "--admin", &admin])
                .args(further)
                .env_remove("LARDER_ADMIN_TOKEN")
                .output()
                .unwrap();
            let printed = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(printed).unwrap())
        };
        let (code, printed) = run(&["--token", "wrong"]);
        assert_eq!(code, Some(1));
        assert!(printed.contains("LARDER_ADMIN_TOKEN"), "{printed}");
        assert_eq!(node.get("/a").await.cache(), "HIT");
        assert_eq!(run(&["--config", file]), (Some(0), receipt_of(1) + "\n"));
        assert_eq!(node.get("/a").await.cache(), "MISS");
        node.kill();
        let (code, printed) = run(&["--token", "secret"]);
        assert_eq!(code, Some(1));
        assert!(printed.contains("no response from") && printed.contains("--admin"), "{printed}");
    })
    .await;
}

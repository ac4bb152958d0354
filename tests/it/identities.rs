//! What proves who asks: gateways, and keys that an issuer publishes.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::json;

use super::support::{
    proxy::Proxy,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    token::{bearer, bearer_of, by_token, now, outcome},
    within,
};

const ROUTE: &str = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"user\"";

/// Answers with what the request says about its user.
fn stamped(request: &OriginRequest) -> OriginResponse {
    let of = |name| request.header(name).unwrap_or("-");
    OriginResponse::ok(format!(
        "{} {} {}",
        of("x-user-id"),
        of("x_user_id"),
        of("x-forwarded-groups")
    ))
}

fn behind_gateway(from: &str) -> String {
    format!("user.header = {{ name = \"x-user-id\", from = \"{from}\" }}\n{ROUTE}")
}

#[tokio::test]
async fn each_user_of_a_gateway_has_a_cache_of_their_own() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let proxy = Proxy::with(&origin.url(), &behind_gateway("127.0.0.0/8"));
        for fields in [
            vec![("x-user-id", "zoe")],
            vec![("x-user-id", "bob")],
            vec![("x-user-id", "zoe"), ("x-forwarded-groups", "admin")],
        ] {
            let groups = fields.get(1).map_or("-", |(_, groups)| groups);
            let expected = format!("{} - {groups}", fields[0].1);
            for result in ["MISS", "HIT"] {
                let reply = proxy.get_with("/a", &fields).await;
                assert_eq!((reply.header("x-api-cache"), &*reply.body), (Some(result), &*expected));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_cannot_say_what_only_the_gateway_may() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let fields = [("x-user-id", "zoe"), ("x_user_id", "zoe"), ("x-forwarded-groups", "admin")];
        let stranger = Proxy::with(&origin.url(), &behind_gateway("192.0.2.1"));
        let reply = stranger.get_with("/a", &fields).await;
        assert_eq!((reply.header("x-api-cache"), &*reply.body), (Some("BYPASS"), "- - -"));
        assert!(reply.header("cache-status").unwrap().contains("detail=no-identity"));
        let gateway = Proxy::with(&origin.url(), &behind_gateway("127.0.0.1"));
        assert_eq!(gateway.get_with("/a", &fields).await.body, "zoe - admin");
    })
    .await;
}

#[tokio::test]
async fn tokens_are_verified_with_the_keys_of_their_issuer() {
    within(async {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = BASE64.encode(pair.public_key().as_ref());
        let set = format!(r#"{{"keys":[{{"kid":"k","kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
        let issuer = ScriptedOrigin::always(OriginResponse::ok(set)).await;
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let url = issuer.url();
        let proxy = Proxy::with(
            &origin.url(),
            &format!("user.jwt = {{ jwks = \"{url}/keys\", aud = \"api\", iss = \"i\" }}\n{ROUTE}"),
        );
        let signed = [r#"{"alg":"EdDSA","kid":"k"}"#, r#"{"sub":"zoe","iss":"i","aud":"api"}"#];
        let signed = signed.map(|it| BASE64.encode(it)).join(".");
        let signature = BASE64.encode(pair.sign(signed.as_bytes()));
        let token = [("authorization", &*format!("Bearer {signed}.{signature}"))];
        // Until the keys have come, requests pass.
        while proxy.get_with("/a", &token).await.header("x-api-cache") != Some("MISS") {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.get_with("/a", &token).await.header("x-api-cache"), Some("HIT"));
        let metrics = proxy.admin("/metrics").await.body;
        assert!(metrics.contains("larder_jwks_keys 1"), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn what_a_gateways_user_does_is_for_that_user() {
    within(async {
        let origin = ScriptedOrigin::start(stamped).await;
        let logout =
            "\n[[route]]\nname = \"out\"\nmatch = \"POST /out\"\non_success = { logout = true }";
        let toml = behind_gateway("127.0.0.1").replace("\"/**\"", "\"GET /**\"");
        let proxy =
            Proxy::with(&origin.url(), &format!("{toml}\ntags = [\"of:{{user}}\"]{logout}"));
        let get = async |user: &str| {
            proxy.get_with("/a", &[("x-user-id", user)]).await.cache().to_owned()
        };
        for (method, target) in [("PUT", "/a"), ("POST", "/_larder/clear"), ("POST", "/out")] {
            for user in ["zoe", "bob"] {
                get(user).await;
                assert_eq!(get(user).await, "HIT");
            }
            let fields = [("x-user-id", "zoe"), ("x-requested-with", "fetch")];
            assert_eq!(proxy.send(method, target, &fields).await.status(), 200, "{target}");
            assert_eq!((get("zoe").await, get("bob").await), ("MISS".into(), "HIT".into()));
        }
        let fields = [("x-user-id", "zoe"), ("x-requested-with", "fetch")];
        let clear = proxy.send("POST", "/_larder/clear", &fields).await;
        assert_eq!(clear.status(), 200, "a logout does not end what the gateway says");
        assert_eq!(proxy.send("POST", "/out", &fields).await.status(), 200);
        let clear = proxy.send("POST", "/_larder/clear", &fields).await;
        assert_eq!(clear.status(), 200, "nor before the next read");
    })
    .await;
}

#[tokio::test]
async fn a_token_in_a_cookie_names_its_user() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(request.header("cookie").unwrap_or("-"))
        })
        .await;
        let toml = by_token("user").replace("iss = \"i\"", "iss = \"i\", cookie = \"login\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        let [zoe, bob] = ["zoe", "bob"].map(|user| bearer(user, "r").replace("Bearer ", "login="));
        let get = async |cookie: &str| {
            let reply = proxy.get_with("/a", &[("cookie", cookie)]).await;
            (outcome(&reply), reply.body)
        };
        for cookie in [&zoe, &bob] {
            assert_eq!(get(cookie).await, ("MISS cold".into(), cookie.clone()));
            assert_eq!(get(&format!("_ga=1; {cookie}")).await, ("HIT -".into(), cookie.clone()));
        }
        let forged = zoe.get(..zoe.len() - 4).unwrap();
        for (cookie, expected) in [
            (forged.to_owned(), "BYPASS unverified-token"),
            (format!("{zoe}; {bob}"), "BYPASS unverified-token"),
            (format!("{zoe}; sessionid=1"), "BYPASS second-credential"),
            ("other=1".to_owned(), "BYPASS no-identity"),
        ] {
            assert_eq!(get(&cookie).await.0, expected, "{cookie}");
        }
        let beside = [("cookie", &*zoe), ("authorization", "Bearer x")];
        assert_eq!(outcome(&proxy.get_with("/a", &beside).await), "BYPASS second-credential");
    })
    .await;
}

#[tokio::test]
async fn several_claims_separate_together_and_each_has_to_be_there() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let proxy = Proxy::with(&origin.url(), &by_token("claim:firm,team"));
        let token = |user: &str, claims: serde_json::Value| {
            let mut all = json!({ "sub": user, "iss": "i", "exp": now() + 600 });
            let further = claims.as_object().unwrap().clone();
            all.as_object_mut().unwrap().extend(further);
            bearer_of(&all)
        };
        let get = async |target: &str, token: &str| {
            outcome(&proxy.get_with(target, &[("authorization", token)]).await)
        };
        let zoe = token("zoe", json!({ "firm": "f", "team": "t" }));
        let zack = token("zack", json!({ "team": "t", "firm": "f" }));
        get("/a", &zoe).await;
        get("/b", &zack).await;
        assert_eq!(get("/a", &zack).await, "HIT -");
        for other in [
            json!({ "firm": "f", "team": "u" }),
            json!({ "firm": "t", "team": "f" }),
            json!({ "firm": "ft", "team": "t" }),
        ] {
            let other = token("zoe", other);
            assert_eq!(get("/a", &other).await, "MISS cold");
        }
        for none in [
            json!({ "firm": "f" }),
            json!({ "firm": "f", "team": "" }),
            json!({ "firm": "f", "team": null }),
            json!({ "firm": "f", "team": ["t"] }),
            json!({ "firm": "f", "team": { "t": 1 } }),
            json!({ "firm": "f", "team": 1.5 }),
        ] {
            assert_eq!(get("/a", &token("zoe", none)).await, "BYPASS no-identity");
        }
        proxy.send("PUT", "/a", &[("authorization", &zack)]).await;
        assert_eq!(get("/a", &zoe).await, "MISS purged");
    })
    .await;
}

#[tokio::test]
async fn published_keys_are_kept_over_a_reload() {
    within(async {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = BASE64.encode(pair.public_key().as_ref());
        let set = format!(r#"{{"keys":[{{"kid":"k","kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#);
        let issuer =
            ScriptedOrigin::in_turn([OriginResponse::ok(set), OriginResponse::status(500, "away")])
                .await;
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let toml = |audience: &str| {
            let url = issuer.url();
            format!(
                "user.jwt = {{ jwks = \"{url}/keys\", aud = \"{audience}\", iss = \"i\" }}\n{ROUTE}"
            )
        };
        let proxy = Proxy::with(&origin.url(), &toml("api"));
        let signed = [r#"{"alg":"EdDSA","kid":"k"}"#, r#"{"sub":"zoe","iss":"i","aud":"api"}"#];
        let signed = signed.map(|it| BASE64.encode(it)).join(".");
        let signature = BASE64.encode(pair.sign(signed.as_bytes()));
        let token = [("authorization", &*format!("Bearer {signed}.{signature}"))];
        while proxy.get_with("/a", &token).await.cache() != "MISS" {
            tokio::task::yield_now().await;
        }
        for ttl in ["2h", "3h"] {
            proxy.reconfigure(&origin.url(), &toml("api").replace("1h", ttl));
            assert_eq!(proxy.get_with("/a", &token).await.cache(), "HIT");
        }
        proxy.reconfigure(&origin.url(), &toml("other"));
        let refused = proxy.get_with("/a", &token).await;
        assert_eq!(outcome(&refused), "BYPASS unverified-token", "what was remembered is gone");
        assert_eq!(issuer.requests(), 1);
    })
    .await;
}

//! What proves who asks: gateways, and keys that an issuer publishes.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};

use super::support::{
    proxy::Proxy,
    script::{Asked, Said, Scripted},
    within,
};

const ROUTE: &str = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"user\"";

/// Answers with what the request says about its user.
fn stamped(asked: &Asked) -> Said {
    let of = |name| asked.header(name).unwrap_or("-");
    Said::ok(format!("{} {} {}", of("x-user-id"), of("x_user_id"), of("x-forwarded-groups")))
}

fn behind_gateway(from: &str) -> String {
    format!("user.header = {{ name = \"x-user-id\", from = \"{from}\" }}\n{ROUTE}")
}

#[tokio::test]
async fn each_user_of_a_gateway_has_a_cache_of_their_own() {
    within(async {
        let origin = Scripted::start(stamped).await;
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
        let origin = Scripted::start(stamped).await;
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
        let issuer = Scripted::always(Said::ok(set)).await;
        let origin = Scripted::always(Said::ok("x")).await;
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

//! `POST /_larder/clear`: users purge their own responses, with real tokens.

use serde_json::Value;

use crate::support::{
    fleet::Fleet,
    proxy::{Proxy, request},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    token::{bearer, bearer_until, by_token, now},
    wire::Wire,
    within,
};

const CLEAR: &str = "/_larder/clear";

#[tokio::test]
async fn a_user_clears_its_own_on_every_node() {
    within(async {
        let (origin, redis) =
            (ScriptedOrigin::always(OriginResponse::ok("x")).await, Redis::start().await);
        let toml = format!("store.redis = \"{}\"\n{}", redis.url(), by_token("user"));
        let fleet = Fleet::start(2, &origin.url(), &toml).await;
        fleet.ready(&redis).await;
        let [read, write] = [bearer("zoe", "read"), bearer("zoe", "read write")];
        let bob = bearer("bob", "read");
        let get = async |node: usize, token: &str| {
            fleet.send(node, ("GET", "/a"), &[("authorization", token)]).await.cache().to_owned()
        };
        for token in [&read, &write, &bob] {
            for node in [0, 1] {
                get(node, token).await;
                assert_eq!(get(node, token).await, "HIT");
            }
        }
        let receipt = fleet.send(0, ("POST", CLEAR), &[("authorization", &read)]).await;
        assert_eq!(receipt.status(), 200, "{receipt:?}");
        let receipt: Value = serde_json::from_str(&receipt.body).unwrap();
        assert_eq!(receipt["nodes"]["applied"], 2);
        for (token, expected) in [(&read, "MISS"), (&write, "MISS"), (&bob, "HIT")] {
            assert_eq!(get(1, token).await, expected);
        }
        assert_eq!(get(0, &bob).await, "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_origin_clears_nothing_with_a_users_cookie() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let toml = by_token("user").replace("iss = \"i\"", "iss = \"i\", cookie = \"session\"");
        let toml =
            format!("events.allow_origins = [\"https://app.test\"]\nevents.tags = \"a\"\n{toml}");
        let proxy = Proxy::with(&origin.url(), &toml);
        let cookie = bearer("zoe", "read").replace("Bearer ", "session=");
        let own = ("cookie", &*cookie);
        for (field, expected) in [
            (None, 403),
            (Some(("origin", "https://evil.test")), 403),
            (Some(("origin", "null")), 403),
            (Some(("origin", "http://api.test.evil.test")), 403),
            (Some(("origin", "https://app.test")), 200),
            (Some(("origin", "http://api.test")), 200),
            (Some(("x-requested-with", "fetch")), 200),
        ] {
            proxy.get_with("/a", &[own]).await;
            assert_eq!(proxy.get_with("/a", &[own]).await.cache(), "HIT");
            let fields: Vec<_> = [own].into_iter().chain(field).collect();
            assert_eq!(proxy.send("POST", CLEAR, &fields).await.status(), expected, "{field:?}");
            let left = proxy.get_with("/a", &[own]).await;
            assert_eq!(left.cache() == "HIT", expected == 403, "{field:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn clearing_again_and_again_is_one_record_a_second() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let proxy =
            Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{}", by_token("user")));
        let zoe = bearer("zoe", "read");
        let mut wires = Vec::new();
        for _ in 0..20 {
            let mut wire = proxy.connect().await;
            wire.write(request("POST", CLEAR, &[("authorization", &zoe)])).await;
            wires.push(wire);
        }
        for wire in &mut wires {
            assert_eq!(wire.read_reply().await.status(), 200);
        }
        let call = request("GET", "/v1/purges", &[("authorization", "Bearer secret")]);
        let audit = Wire::connect(proxy.admin_address()).await.exchange(call).await.body;
        let records = audit.matches("\"clear\"").count();
        assert!((1..=3).contains(&records), "{audit}");
        assert!(!audit.contains("zoe"), "{audit}");
    })
    .await;
}

#[tokio::test]
async fn only_a_known_user_clears_and_only_where_users_are_known() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("x")).await;
        let proxy = Proxy::with(&origin.url(), &by_token("user"));
        let (zoe, late) = (bearer("zoe", "read"), bearer_until("zoe", "read", now() - 1));
        for fields in [vec![], vec![("authorization", &*late)], vec![("cookie", "session=1")]] {
            let fields: Vec<_> = fields.into_iter().chain([("x-requested-with", "x")]).collect();
            let refused = proxy.send("POST", CLEAR, &fields).await;
            assert_eq!(
                (refused.status(), refused.header("www-authenticate")),
                (401, Some("Bearer"))
            );
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        }
        let read = proxy.get_with(CLEAR, &[("authorization", &zoe)]).await;
        assert_eq!((read.status(), read.header("allow")), (405, Some("POST, OPTIONS")));
        for toml in
            ["", "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"\npartition = \"user\""]
        {
            let off = Proxy::with(&origin.url(), toml);
            assert_eq!(off.send("POST", CLEAR, &[("authorization", &zoe)]).await.status(), 404);
        }
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

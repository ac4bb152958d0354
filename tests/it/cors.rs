//! Which fields scripts of other origins may read.

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    wire::Reply,
    within,
};

/// An API whose answers pages of `https://app.test` may read, with a field of its own.
async fn readable() -> ScriptedOrigin {
    ScriptedOrigin::always(
        OriginResponse::fresh("a")
            .with("etag", "\"1\"")
            .with("access-control-allow-origin", "https://app.test")
            .with("access-control-allow-credentials", "true")
            .with("access-control-expose-headers", "X-Total")
            .with("x-total", "7"),
    )
    .await
}

const PAGE: (&str, &str) = ("origin", "https://app.test");

/// The field names that a browser lets a script read, in lower case (Fetch, "CORS-exposed header-name list").
fn exposed(reply: &Reply) -> Vec<String> {
    let lines = reply.head.lines().filter_map(|line| line.split_once(':'));
    let values =
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("access-control-expose-headers"));
    let names = values.flat_map(|(_, value)| value.split(','));
    names.map(|name| name.trim().to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn scripts_of_other_origins_read_where_a_response_came_from() {
    within(async {
        let origin = readable().await;
        let proxy = Proxy::before(&origin.url());
        let known = [PAGE, ("if-none-match", "\"1\"")];
        for (fields, expected) in
            [(&[PAGE][..], "200 MISS"), (&[PAGE], "200 HIT"), (&known, "304 HIT")]
        {
            let reply = proxy.send("GET", "/a", fields).await;
            assert_eq!(format!("{} {}", reply.status(), reply.cache()), expected);
            let names = exposed(&reply);
            assert_eq!(names, ["x-total", "x-api-cache", "cache-status", "age"], "{expected}");
        }
        let passed = proxy.send("POST", "/a", &[PAGE, ("content-length", "0")]).await;
        assert!(exposed(&passed).contains(&"x-api-cache".to_owned()), "{passed:?}");
    })
    .await;
}

#[tokio::test]
async fn responses_that_other_origins_cannot_read_expose_nothing() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        for _ in 0..2 {
            assert!(exposed(&proxy.send("GET", "/a", &[PAGE]).await).is_empty());
        }
    })
    .await;
}

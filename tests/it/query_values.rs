//! Equivalent query values: lists that differ only in order, and defaults that may be omitted.

use crate::support::{
    proxy::{Proxy, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

const QUOTES: &str = "admin.token = \"secret\"\n[[route]]\nname = \"quotes\"\nmatch = \"/quotes\"\nttl = \"1m\"\n\
    query = { lists = [\"symbols\"], defaults = { page = 1 } }\n\
    tags = [\"page:{?page}\", \"quotes:{?symbols}\"]\n";

async fn targets() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::ok(request.target.clone())).await
}

#[tokio::test]
async fn the_origin_receives_lists_and_defaults_as_they_are_keyed() {
    within(async {
        let origin = targets().await;
        let proxy = Proxy::with(&origin.url(), QUOTES);
        for (target, expected) in [
            ("/quotes?symbols=MSFT,AAPL&page=1", "200 MISS /quotes?symbols=AAPL,MSFT"),
            ("/quotes?symbols=AAPL,MSFT", "200 HIT /quotes?symbols=AAPL,MSFT"),
            ("/quotes?page=1&symbols=MSFT,AAPL", "200 HIT /quotes?symbols=AAPL,MSFT"),
            ("/quotes?symbols=MSFT,AAPL&page=2", "200 MISS /quotes?symbols=AAPL,MSFT&page=2"),
            ("/quotes?page=1", "200 MISS /quotes"),
            ("/quotes", "200 HIT /quotes"),
            ("/quotes?page=1&page=2", "200 MISS /quotes?page=1&page=2"),
            ("/quotes?symbols=b,a;c", "200 MISS /quotes?symbols=b,a;c"),
        ] {
            assert_eq!(proxy.get(target).await.summary(), expected, "{target}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_forwarded_beside_the_key_has_the_same_values() {
    within(async {
        let origin = targets().await;
        let routes = QUOTES.replace("lists =", "ignore = [\"x\"], forward = \"all\", lists =");
        let proxy = Proxy::with(&origin.url(), &routes);
        let sent = proxy.get("/quotes?x=1&symbols=b,a&page=1").await;
        assert_eq!(sent.summary(), "200 MISS /quotes?x=1&symbols=a,b");
        assert_eq!(proxy.get("/quotes?symbols=a,b&x=2").await.cache(), "HIT");
        assert_eq!(proxy.get("/quotes?page=1&x=2").await.summary(), "200 MISS /quotes?x=2");
    })
    .await;
}

#[tokio::test]
async fn purges_find_each_spelling_by_url_and_by_tag() {
    within(async {
        let origin = targets().await;
        let proxy = Proxy::with(&origin.url(), QUOTES);
        for call in [
            r#"{"urls":["http://api.test/quotes?page=1&symbols=b,a"]}"#,
            r#"{"urls":["http://api.test/quotes?symbols=a,b"]}"#,
            r#"{"tags":["page:1"]}"#,
            r#"{"tags":["quotes:a,b"]}"#,
        ] {
            assert_eq!(proxy.get("/quotes?symbols=b,a").await.cache(), "MISS", "{call}");
            assert_eq!(proxy.get("/quotes?symbols=a,b&page=1").await.cache(), "HIT");
            let fields = [("host", "localhost"), ("authorization", "Bearer secret")];
            let call = request_with_body("POST", "/v1/purge", &fields, call);
            let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
            assert_eq!(reply.status(), 200);
        }
        assert_eq!(proxy.get("/quotes?symbols=b,a").await.cache(), "MISS");
        proxy.send("PUT", "/quotes?symbols=b,a&page=1", &[("content-length", "0")]).await;
        assert_eq!(
            proxy.get("/quotes?symbols=a,b").await.cache(),
            "MISS",
            "a write finds them too"
        );
    })
    .await;
}

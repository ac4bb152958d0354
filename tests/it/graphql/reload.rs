//! Reloads that change how a route reads requests: nothing is served under the old meaning.

use serde_json::json;

use super::{answer, cache, percent, persisted, query, send, shop, status, with_ttl};
use crate::support::{proxy::Proxy, script::ScriptedOrigin, within};

/// The GraphQL route, with the field in `Vary` that all of them have.
fn with_graphql() -> String {
    format!("{}vary = {{ headers = [\"accept\"] }}\n", with_ttl())
}

/// The same route, which reads bodies as this says.
fn with_key(key: &str) -> String {
    with_graphql().replace("graphql = true", key)
}

#[tokio::test]
async fn responses_that_were_stored_before_a_route_read_graphql_are_not_served() {
    within(async {
        let origin = shop().await;
        let canonical = json!({ "query": "{product}" }).to_string();
        let by_get = format!("/graphql?query={}", percent("{product}"));
        for key in ["key = \"body\"", "key = \"json-body\""] {
            let proxy = Proxy::with(&origin.url(), &with_key(key));
            for expected in ["MISS", "HIT"] {
                assert_eq!(send(&proxy, &canonical).await.cache(), expected, "{key}");
                assert_eq!(proxy.get(&by_get).await.cache(), expected, "{key}");
            }
            proxy.reconfigure(&origin.url(), &with_graphql());
            // Stored without tags, a mutation would not select them.
            assert_eq!(send(&proxy, &canonical).await.cache(), "MISS", "{key}");
            assert_eq!(proxy.get(&by_get).await.cache(), "MISS", "{key}");
            query(&proxy, "mutation { product }").await;
            assert_eq!(send(&proxy, &canonical).await.cache(), "MISS", "{key}");
            assert_eq!(proxy.get(&by_get).await.cache(), "MISS", "{key}");
            proxy.reconfigure(&origin.url(), &with_key("key = \"body\""));
            assert_eq!(query(&proxy, "mutation { product }").await.cache(), "MISS", "as it says");
        }
    })
    .await;
}

#[tokio::test]
async fn errors_that_were_stored_before_a_route_read_graphql_are_not_served() {
    within(async {
        let failing = |_: &_| answer(&json!({ "errors": [{ "message": "down" }] }));
        let origin = ScriptedOrigin::start(failing).await;
        let body = json!({ "query": "{a}" }).to_string();
        let proxy = Proxy::with(&origin.url(), &with_key("key = \"json-body\""));
        for expected in ["MISS", "HIT"] {
            assert_eq!(send(&proxy, &body).await.cache(), expected);
        }
        proxy.reconfigure(&origin.url(), &with_graphql());
        let reply = send(&proxy, &body).await;
        assert_eq!(reply.cache(), "MISS");
        assert!(status(&reply).contains("graphql-errors"), "{reply:?}");
    })
    .await;
}

#[tokio::test]
async fn a_route_that_no_longer_reads_graphql_passes_and_purges() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_graphql());
        assert_eq!(cache(&proxy, "{ product }").await, "MISS");
        assert_eq!(cache(&proxy, "{ product }").await, "HIT");
        proxy.reconfigure(&origin.url(), &with_key(""));
        let reply = query(&proxy, "{ brand }").await;
        assert!(status(&reply).contains("method-not-cacheable"), "{reply:?}");
        proxy.reconfigure(&origin.url(), &with_graphql());
        assert_eq!(cache(&proxy, "{ product }").await, "MISS", "any POST was a write");
    })
    .await;
}

#[tokio::test]
async fn operations_that_are_listed_no_more_pass_and_return_with_their_new_lifetime() {
    within(async {
        let origin = shop().await;
        let listed = |operations: &str| {
            with_ttl().replace("ttl = \"1m\"", &format!("operation = {{ {operations} }}"))
        };
        let proxy = Proxy::with(&origin.url(), &listed("A = \"1h\""));
        let ask = async || cache(&proxy, "query A { product }").await;
        assert_eq!((ask().await, ask().await), ("MISS".to_owned(), "HIT".to_owned()));
        proxy.reconfigure(&origin.url(), &listed("B = \"1h\""));
        assert_eq!(ask().await, "BYPASS");
        cache(&proxy, "mutation { product }").await;
        proxy.reconfigure(&origin.url(), &listed("A = \"10s\""));
        assert_eq!(ask().await, "MISS", "the mutation was noticed meanwhile");
        assert_eq!(ask().await, "HIT");
        proxy.advance(11);
        assert_eq!(ask().await, "EXPIRED");
    })
    .await;
}

#[tokio::test]
async fn names_and_hashes_of_documents_are_read_anew() {
    within(async {
        let origin = shop().await;
        let listed = |list: &str| format!("{}documents = '{list}'\n", with_ttl());
        let by_name = json!({ "documentId": "d" }).to_string();
        let proxy = Proxy::with(&origin.url(), &listed(r#"{"d":"query A { product }"}"#));
        assert_eq!(send(&proxy, &by_name).await.cache(), "MISS");
        assert_eq!(send(&proxy, &by_name).await.cache(), "HIT");
        proxy.reconfigure(&origin.url(), &listed(r#"{"d":"mutation A { product }"}"#));
        let reply = send(&proxy, &by_name).await;
        assert!(status(&reply).contains("graphql-mutation"), "{reply:?}");
        proxy.reconfigure(&origin.url(), &listed("{}"));
        let reply = send(&proxy, &by_name).await;
        assert!(status(&reply).contains("graphql-unknown-document"), "{reply:?}");
        proxy.reconfigure(&origin.url(), &with_ttl());
        persisted::ask(&proxy, &persisted::persisting("{ brand }")).await;
        assert_eq!(persisted::ask(&proxy, &persisted::by_hash("{ brand }")).await.cache(), "HIT");
        proxy.reconfigure(&origin.url(), &with_ttl());
        let asked = persisted::ask(&proxy, &persisted::by_hash("{ brand }")).await;
        assert!(asked.body.contains("PersistedQueryNotFound"), "{asked:?}");
    })
    .await;
}

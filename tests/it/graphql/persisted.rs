//! Persisted queries: automatic ones, and documents that the origin has registered.

use serde_json::{Value, json};

use super::{JSON, answer, echo, percent, query, records, send, send_with, shop, status, with_ttl};
use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    wire::Reply,
    within,
};

fn hash(document: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, document.as_bytes());
    const_hex::encode(digest)
}

/// A request by the hash of a document.
pub(super) fn by_hash(document: &str) -> Value {
    let persisted = json!({ "version": 1, "sha256Hash": hash(document) });
    json!({ "extensions": { "persistedQuery": persisted } })
}

/// A request that persists a document.
pub(super) fn persisting(document: &str) -> Value {
    let mut request = by_hash(document);
    request["query"] = document.into();
    request
}

fn by_get(document: &str) -> String {
    format!("/graphql?extensions={}", percent(&by_hash(document)["extensions"].to_string()))
}

pub(super) async fn ask(proxy: &Proxy, request: &Value) -> Reply {
    send(proxy, &request.to_string()).await
}

#[tokio::test]
async fn a_persisted_query_is_stored_with_the_document_that_it_stands_for() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let document = "query A { a }";
        let mut wrong = by_hash("{ b }");
        wrong["query"] = document.into();
        assert_eq!(ask(&proxy, &wrong).await.cache(), "BYPASS");
        let first = ask(&proxy, &persisting(document)).await;
        assert_eq!(first.cache(), "MISS");
        assert!(
            first.body.contains(r#"{\"operationName\":\"A\",\"query\":\"query A{a}\"}"#),
            "{first:?}"
        );
        for request in
            [by_hash(document), json!({ "query": document }), json!({ "query": "query A{a}" })]
        {
            assert_eq!(ask(&proxy, &request).await.cache(), "HIT", "{request}");
        }
        let first = proxy.get(&by_get(document)).await;
        assert_eq!(first.cache(), "MISS", "another method");
        assert!(first.body.contains("query=query%20A%7Ba%7D"), "{first:?}");
        assert_eq!(proxy.get(&by_get(document)).await.cache(), "HIT");
    })
    .await;
}

/// A server that knows all documents by their hashes already.
async fn knowing() -> ScriptedOrigin {
    ScriptedOrigin::start(|_| answer(&json!({ "data": { "a": 1 } }))).await
}

#[tokio::test]
async fn the_client_is_asked_for_a_document_that_only_the_origin_knows_and_nothing_is_purged() {
    within(async {
        let origin = knowing().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        assert_eq!(query(&proxy, "{ other }").await.cache(), "MISS");
        let document = "query A { a }";
        let batch = Value::from(vec![by_hash(document), by_hash("{ b }")]);
        let error = json!({ "errors": [{
            "message": "PersistedQueryNotFound",
            "extensions": { "code": "PERSISTED_QUERY_NOT_FOUND" },
        }] });
        let asked = [
            (ask(&proxy, &by_hash(document)).await, error.clone()),
            (proxy.get(&by_get(document)).await, error.clone()),
            (ask(&proxy, &batch).await, Value::from(vec![error.clone(), error])),
        ];
        for (reply, expected) in asked {
            assert_eq!(reply.status(), 200, "{reply:?}");
            assert!(status(&reply).contains("graphql-unknown-document"), "{reply:?}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(reply.header("cache-control"), Some("private, no-store"));
            assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), expected);
        }
        assert_eq!((origin.requests(), records(&proxy).await), (1, 0));
        assert_eq!(ask(&proxy, &persisting(document)).await.cache(), "MISS");
        assert_eq!(ask(&proxy, &by_hash(document)).await.cache(), "HIT");
        assert_eq!(query(&proxy, "{ other }").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_that_it_is_asked_for_the_document() {
    within(async {
        let origin = knowing().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let fields = [JSON, ("origin", "https://app.example.com")];
        let reply = send_with(&proxy, &fields, &by_hash("{ a }").to_string()).await;
        let cors = ["access-control-allow-origin", "access-control-allow-credentials", "vary"];
        assert_eq!(
            cors.map(|name| reply.header(name)),
            [Some("https://app.example.com"), Some("true"), Some("Origin")]
        );
        let plain = ask(&proxy, &by_hash("{ a }")).await;
        assert_eq!(cors.map(|name| plain.header(name)), [None; 3]);
    })
    .await;
}

#[tokio::test]
async fn the_origin_gets_documents_although_clients_send_hashes() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            if request.body.contains("persistedQuery") && !request.body.contains("mutation") {
                return OriginResponse::status(400, "{}").with("content-type", "application/json");
            }
            let product = json!({ "__typename": "Product", "id": 1 });
            answer(&json!({ "data": { "product": product } }))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let mutation = "mutation M { product }";
        assert_eq!(ask(&proxy, &by_hash(mutation)).await.status(), 200, "asked for the document");
        assert_eq!(records(&proxy).await, 0);
        assert_eq!(ask(&proxy, &persisting(mutation)).await.status(), 200);
        assert_eq!(records(&proxy).await, 1);
        for request in [by_hash(mutation), Value::from(vec![by_hash(mutation)])] {
            let reply = ask(&proxy, &request).await;
            assert_eq!((reply.status(), reply.cache()), (200, "BYPASS"), "{reply:?}");
        }
        assert_eq!(records(&proxy).await, 3);
    })
    .await;
}

#[tokio::test]
async fn shadow_mode_leaves_unknown_hashes_to_the_origin() {
    within(async {
        let origin = knowing().await;
        let proxy = Proxy::with(&origin.url(), &format!("{}shadow = true\n", with_ttl()));
        let reply = ask(&proxy, &by_hash("{ a }")).await;
        assert!(reply.body.contains("data"), "{reply:?}");
        assert_eq!(records(&proxy).await, 0);
    })
    .await;
}

#[tokio::test]
async fn with_a_list_of_documents_unknown_ones_are_left_to_the_origin() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &format!("{}documents = \"{{}}\"\n", with_ttl()));
        let mut request = by_hash("{ product }");
        request["operationName"] = "product".into();
        let reply = ask(&proxy, &request).await;
        assert!(status(&reply).contains("graphql-unknown-document"), "{reply:?}");
        assert!(reply.body.contains("Product"), "{reply:?}");
        assert_eq!(records(&proxy).await, 1, "it may be a mutation");
    })
    .await;
}

#[tokio::test]
async fn a_registered_document_is_forwarded_by_its_name() {
    within(async {
        let origin = echo().await;
        let list = r#"documents = '{"q1":"query A { a }","m1":"mutation M { a }"}'"#;
        let proxy = Proxy::with(&origin.url(), &format!("{}{list}\n", with_ttl()));
        let first = send(&proxy, r#"{ "documentId": "q1" }"#).await;
        assert_eq!(first.cache(), "MISS");
        assert!(
            first.body.contains(r#"{\"documentId\":\"q1\",\"operationName\":\"A\"}"#),
            "{first:?}"
        );
        assert_eq!(send(&proxy, r#"{"documentId":"q1","operationName":"A"}"#).await.cache(), "HIT");
        let mutation = send(&proxy, r#"{"documentId":"m1"}"#).await;
        assert!(status(&mutation).contains("graphql-mutation"), "{mutation:?}");
        let other = send(&proxy, r#"{"documentId":"q2"}"#).await;
        assert!(status(&other).contains("graphql-unknown-document"), "{other:?}");
    })
    .await;
}

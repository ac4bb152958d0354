//! GraphQL on several nodes that share a Redis.

use serde_json::{Value, json};

use super::{JSON, ROUTE, answer, persisted, shop, status};
use crate::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    proxy::request_with_body,
    redis::Redis,
    script::ScriptedOrigin,
    wire::{Reply, Wire},
    within,
};

async fn fleet(redis: &Redis, origin: &ScriptedOrigin) -> Fleet {
    let toml = format!("{ROUTE}ttl = \"1m\"\n[store]\n{}", redis.store());
    let fleet = Fleet::start(2, &origin.url(), &toml).await;
    fleet.ready(redis).await;
    fleet
}

/// Sends a request to a node without waiting for its reply.
async fn begin(fleet: &Fleet, node: usize, body: &Value) -> Wire {
    let mut wire = Wire::connect(fleet.addresses()[node]).await;
    wire.write(request_with_body("POST", "/graphql", &[JSON], &body.to_string())).await;
    wire
}

async fn send(fleet: &Fleet, node: usize, body: &Value) -> Reply {
    begin(fleet, node, body).await.read_reply_to("POST").await
}

async fn query(fleet: &Fleet, node: usize, document: &str) -> String {
    send(fleet, node, &json!({ "query": document })).await.cache().to_owned()
}

#[tokio::test]
async fn spellings_of_one_query_on_two_nodes_cost_the_origin_one_request() {
    within(async {
        let gate = Gate::closed();
        let closed = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            answer(&json!({ "data": { "n": request.before } })).after(&closed)
        })
        .await;
        let redis = Redis::start().await;
        let fleet = fleet(&redis, &origin).await;
        let mut waiting = Vec::new();
        for number in 0..10 {
            let document = ["{ a }", "{a}", "{a,} # same"][number % 3];
            waiting.push(begin(&fleet, number % 2, &json!({ "query": document })).await);
        }
        while fleet.total("larder_collapsed_requests_total", "").await < 8
            || fleet.total("larder_store_operations_total", "op=\"claim\"").await < 2
        {
            short_sleep().await;
        }
        gate.open();
        for mut wire in waiting {
            let reply = wire.read_reply_to("POST").await;
            assert_eq!((reply.status(), &*reply.body), (200, r#"{"data":{"n":0}}"#), "{reply:?}");
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_one_node_stores_is_a_hit_on_the_other_until_a_mutation_on_either() {
    within(async {
        let (origin, redis) = (shop().await, Redis::start().await);
        let fleet = fleet(&redis, &origin).await;
        for (writer, reader) in [(0, 1), (1, 0)] {
            assert_eq!(query(&fleet, writer, "{ product }").await, "MISS");
            assert_eq!(query(&fleet, reader, "{product}").await, "HIT");
            assert_eq!(
                query(&fleet, reader, "{ brand }").await,
                if writer == 0 { "MISS" } else { "HIT" }
            );
            assert_eq!(query(&fleet, writer, "mutation { product }").await, "BYPASS");
            assert_eq!(query(&fleet, reader, "{ product }").await, "MISS");
            assert_eq!(query(&fleet, writer, "{ product }").await, "HIT");
            assert_eq!(query(&fleet, reader, "{ brand }").await, "HIT", "another type");
            assert_eq!(query(&fleet, writer, "mutation { scalar }").await, "BYPASS");
            assert_eq!(query(&fleet, reader, "{ product }").await, "MISS");
            assert_eq!(query(&fleet, writer, "{ brand }").await, "MISS");
            query(&fleet, writer, "mutation { product }").await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_node_asks_once_for_a_document_and_shares_the_response() {
    within(async {
        let (origin, redis) = (shop().await, Redis::start().await);
        let fleet = fleet(&redis, &origin).await;
        let (document, by_hash) = ("{ product }", persisted::by_hash("{ product }"));
        for (node, stored) in [(0, "MISS"), (1, "HIT")] {
            let asked = send(&fleet, node, &by_hash).await;
            assert!(asked.body.contains("PersistedQueryNotFound"), "{asked:?}");
            assert!(status(&asked).contains("graphql-unknown-document"), "{asked:?}");
            let whole = send(&fleet, node, &persisted::persisting(document)).await;
            assert_eq!(whole.cache(), stored, "{whole:?}");
            assert_eq!(send(&fleet, node, &by_hash).await.cache(), "HIT");
        }
        assert_eq!(origin.requests(), 1);
        query(&fleet, 0, "mutation { product }").await;
        assert_eq!(send(&fleet, 1, &by_hash).await.cache(), "MISS", "asked for by hash, too");
        assert_eq!(send(&fleet, 0, &by_hash).await.cache(), "HIT");
    })
    .await;
}

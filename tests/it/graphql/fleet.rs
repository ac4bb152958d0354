//! GraphQL on several nodes that share a Redis.

use std::sync::atomic::{AtomicUsize, Ordering};

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

async fn query(fleet: &Fleet, node: usize, document: &str) -> Reply {
    send(fleet, node, &json!({ "query": document })).await
}

/// A shop with one product, whose price is the number of mutations so far.
async fn priced() -> ScriptedOrigin {
    let mutations = AtomicUsize::new(0);
    ScriptedOrigin::start(move |request| {
        let is_mutation = usize::from(request.body.contains("mutation"));
        let price = mutations.fetch_add(is_mutation, Ordering::SeqCst) + is_mutation;
        let product = json!({ "__typename": "Product", "id": 1, "price": price });
        answer(&json!({ "data": { "product": product } }))
    })
    .await
}

fn price(reply: &Reply) -> u64 {
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    document["data"]["product"]["price"].as_u64().unwrap()
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

/// Asks one node and then the other, each time for something new, until the other has found in Redis
/// what the first has stored. A busy Redis may be too late for one of them.
async fn until_shared(fleet: &Fleet, redis: &Redis, (writer, reader): (usize, usize)) {
    for number in 0.. {
        let field = format!("a{number}of{reader}");
        let (first, spelling) = (format!("{{ {field} }}"), format!("{{{field}}} # the same"));
        let before = redis.keys("larder:v1:e:*").await.len();
        assert_eq!(query(fleet, writer, &first).await.cache(), "MISS");
        while redis.keys("larder:v1:e:*").await.len() == before {
            short_sleep().await;
        }
        if query(fleet, reader, &spelling).await.cache() == "HIT" {
            return;
        }
    }
}

#[tokio::test]
async fn what_one_node_stores_is_a_hit_on_the_other() {
    within(async {
        let (origin, redis) = (shop().await, Redis::start().await);
        let fleet = fleet(&redis, &origin).await;
        until_shared(&fleet, &redis, (0, 1)).await;
        query(&fleet, 0, "mutation { scalar }").await;
        until_shared(&fleet, &redis, (1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_mutation_on_one_node_purges_all() {
    within(async {
        let (origin, redis) = (priced().await, Redis::start().await);
        let fleet = fleet(&redis, &origin).await;
        for mutations in 0..6 {
            for node in [0, 1, 0, 1] {
                let reply = query(&fleet, node, "{ product }").await;
                assert_eq!(price(&reply), mutations, "{reply:?}");
            }
            let writer = usize::from(mutations % 2 == 1);
            let reply = query(&fleet, writer, "mutation { setPrice }").await;
            assert_eq!(price(&reply), mutations + 1, "{reply:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn each_node_asks_for_a_document_once_and_a_mutation_purges_what_was_asked_by_hash() {
    within(async {
        let (origin, redis) = (priced().await, Redis::start().await);
        let fleet = fleet(&redis, &origin).await;
        let (document, by_hash) = ("{ product }", persisted::by_hash("{ product }"));
        for node in 0..2 {
            let asked = send(&fleet, node, &by_hash).await;
            assert!(asked.body.contains("PersistedQueryNotFound"), "{asked:?}");
            assert!(status(&asked).contains("graphql-unknown-document"), "{asked:?}");
            send(&fleet, node, &persisted::persisting(document)).await;
            while send(&fleet, node, &by_hash).await.cache() != "HIT" {
                short_sleep().await;
            }
        }
        query(&fleet, 0, "mutation { setPrice }").await;
        for node in [1, 0] {
            assert_eq!(price(&send(&fleet, node, &by_hash).await), 1);
        }
    })
    .await;
}

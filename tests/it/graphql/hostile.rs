//! Requests that are meant to be read in two ways, or to cost much.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    JSON, echo,
    persisted::{ask, by_hash, persisting},
    query, send, send_with, status, with_ttl,
};
use crate::support::{proxy::Proxy, within};

#[tokio::test]
async fn absent_null_and_empty_members_are_one_request_and_others_are_not() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let mut expected = "MISS";
        for body in [
            r#"{"query":"{a}"}"#,
            r#"{"query":"{a}","variables":null}"#,
            r#"{"query":"{a}","variables":{}}"#,
            r#"{"query":"{a}","operationName":null,"extensions":null}"#,
        ] {
            let reply = send(&proxy, body).await;
            assert_eq!(reply.cache(), expected, "{body}");
            assert!(reply.body.contains(r#"{\"query\":\"{a}\"}"#), "{reply:?}");
            expected = "HIT";
        }
        for (body, cache) in [
            (r#"{"query":"{a}","variables":{"a":null}}"#, "MISS"),
            (r#"{"query":"{a}","extensions":{"trace":1}}"#, "MISS"),
            (r#"{"query":"{a}","operationName":""}"#, "BYPASS"),
            (r#"{"query":"{a}","variables":""}"#, "BYPASS"),
        ] {
            assert_eq!(send(&proxy, body).await.cache(), cache, "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_type_of_the_request_separates_responses() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let body = json!({ "query": "{ a }" }).to_string();
        for media in
            ["application/json", "application/graphql-response+json", "application/graphql+json"]
        {
            for expected in ["MISS", "HIT"] {
                let reply = send_with(&proxy, &[("content-type", media)], &body).await;
                assert_eq!(reply.cache(), expected, "{media}");
                assert!(reply.body.contains(media), "{reply:?}");
            }
        }
        let two = [JSON, ("content-type", "text/plain")];
        assert_eq!(send_with(&proxy, &two, &body).await.cache(), "BYPASS");
    })
    .await;
}

#[tokio::test]
async fn a_document_costs_little_however_it_is_made() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let repeated = |count, part: &dyn Fn(usize) -> String| -> String {
            (0..count).map(part).collect::<Vec<_>>().concat()
        };
        let chain = repeated(2500, &|at| format!("fragment F{at} on M{{...F{}}}", at + 1));
        let operations = repeated(2000, &|at| format!("mutation A{at}{{...F0}}"));
        let many = format!("{operations}{}", &chain[..20_000]);
        for document in [
            "{".repeat(60_000),
            format!("{{a{}", "(a:[".repeat(15_000)),
            format!("mutation{{...F0}}{chain}"),
            format!("{}fragment Z on M{{a}}", many.rsplit_once("fragment").unwrap().0),
            format!("{{a(s:\"{}\")}}", "\\u0061".repeat(8_000)),
            format!("#{}\n{{a}}", "#".repeat(60_000)),
        ] {
            let began = Instant::now();
            let reply = query(&proxy, &document).await;
            let took = began.elapsed();
            assert!(reply.status() == 200, "{reply:?}");
            // Parsing takes milliseconds; a path of quadratic cost takes minutes.
            assert!(took < Duration::from_secs(10), "{took:?}: {}", &document[..60]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_many_hashes_makes_no_large_request_of_one_document() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let document = format!("{{a(s:\"{}\")}}", "x".repeat(50_000));
        ask(&proxy, &persisting(&document)).await;
        for (count, is_whole) in [(2, true), (400, false)] {
            let batch = Value::from(vec![by_hash(&document); count]).to_string();
            send(&proxy, &batch).await;
            let length = origin.last().body.len();
            assert_eq!(length > 50_000 * count, is_whole, "{count} hashes became {length} bytes");
            assert!(is_whole || length == batch.len(), "as sent");
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_many_hashes_is_answered_within_its_own_size() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let hash = "0".repeat(64);
        let one =
            json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
        let batch = Value::from(vec![one; 400]).to_string();
        let reply = send(&proxy, &batch).await;
        assert!(status(&reply).contains("graphql-unknown-document"), "{reply:?}");
        assert!(reply.body.len() < batch.len(), "{} {}", reply.body.len(), batch.len());
        assert_eq!(origin.requests(), 0);
    })
    .await;
}

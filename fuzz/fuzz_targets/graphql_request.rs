//! A canonical GraphQL document or request is its own canonical form, by `POST` and by `GET`, and a
//! document that holds a mutation alone is no query.
#![no_main]

use larder::testing::graphql::fuzzed::{canonical_document, canonical_query, canonical_request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = canonical_query(text);
    let Some(document) = canonical_document(text) else { return };
    assert_eq!(canonical_document(&document).as_deref(), Some(&*document));
    let json = serde_json::json!({ "query": text }).to_string();
    let Some((body, query)) = canonical_request(&json) else { return };
    assert_eq!(canonical_request(&body), Some((body.clone(), query.clone())));
    assert_eq!(canonical_query(&query), Some(body));
    // It has one operation, or the request would have to name one.
    assert!(!document.starts_with("mutation"));
});

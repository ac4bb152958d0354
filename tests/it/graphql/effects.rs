//! What requests change: a query never purges, in whatever way it leaves the cache, and a mutation
//! does in the same way.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{
    JSON, answer, cache, percent, query, records, send, send_with, shop, status, with_ttl,
};
use crate::support::{
    frames::{End, Http2Wire, Step},
    proxy::{Proxy, request, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Reply},
    within,
};

/// A way in which a request leaves the cache.
struct WayOut {
    /// Further keys of the route.
    rule: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// Makes the body of a document.
    body: fn(&str) -> Vec<u8>,
    reason: &'static str,
}

fn plain(document: &str) -> Vec<u8> {
    json!({ "query": document }).to_string().into()
}

fn zipped(document: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&plain(document)).unwrap();
    packed.finish().unwrap()
}

fn large(document: &str) -> Vec<u8> {
    json!({ "query": document, "variables": { "a": "x".repeat(70_000) } }).to_string().into()
}

fn marked(document: &str) -> Vec<u8> {
    [b"\xef\xbb\xbf".as_slice(), &plain(document)].concat()
}

fn repeated(document: &str) -> Vec<u8> {
    format!(r#"{{"query":"{{ a }}","query":{}}}"#, Value::from(document)).into()
}

fn deep(document: &str) -> Vec<u8> {
    let deep = format!("{}{}", "[".repeat(99), "]".repeat(99));
    format!(r#"{{"variables":{{"a":{deep}}},"query":{}}}"#, Value::from(document)).into()
}

fn listed(document: &str) -> Vec<u8> {
    json!({ "query": document, "variables": [] }).to_string().into()
}

fn misnamed(document: &str) -> Vec<u8> {
    json!({ "query": document, "operationName": "" }).to_string().into()
}

fn extended(document: &str) -> Vec<u8> {
    json!({ "query": document, "x": 1 }).to_string().into()
}

fn batch(document: &str) -> Vec<u8> {
    json!([{ "query": document }]).to_string().into()
}

fn bare(document: &str) -> Vec<u8> {
    document.into()
}

fn form(document: &str) -> Vec<u8> {
    format!("query={}", percent(document)).into()
}

/// All ways out of the plan of a request by `POST`. What is not here, Larder answers itself: a loop, a
/// host that is not served, a full budget, a hash that is not known.
const WAYS_OUT: &[WayOut] = &[
    way("", &[("if-none-match", "\"a\"")], "precondition"),
    way("", &[("if-match", "\"a\"")], "precondition"),
    way("", &[("if-unmodified-since", "Thu, 01 Jan 2026 00:00:00 GMT")], "precondition"),
    way("", &[("range", "bytes=0-1")], "precondition"),
    way("", &[("connection", "upgrade"), ("upgrade", "websocket")], "upgrade"),
    way("", &[("cache-control", "no-store")], "request-no-store"),
    way("bypass = { header = [\"x-live\"] }", &[("x-live", "1")], "rule-bypass"),
    way("cache = false", &[], "rule-bypass"),
    way("operation = { other = \"1m\" }", &[], "graphql-operation"),
    way("partition = \"user\"\nuser.header = X", &[], "no-identity"),
    way("shadow = true", &[], "shadow"),
    WayOut { target: "/graphql/", ..way("", &[], "method-not-cacheable") },
    WayOut { target: "/graphql/", ..way(BESIDE_UNCACHED, &[], "method-not-cacheable") },
    WayOut { target: "/x/..%2fgraphql", ..way("", &[], "method-not-cacheable") },
    WayOut { target: "/graphql?operationName=B", ..way("", &[], "graphql-unclear") },
    WayOut { body: zipped, ..way("", &[("content-encoding", "gzip")], "graphql-unclear") },
    WayOut { body: large, ..way("", &[], "body-key-too-large") },
    WayOut { body: large, ..way("", &[("transfer-encoding", "chunked")], "body-key-too-large") },
    WayOut { body: marked, ..way("", &[], "graphql-unclear") },
    WayOut { body: repeated, ..way("", &[], "graphql-unclear") },
    WayOut { body: deep, ..way("", &[], "graphql-unclear") },
    WayOut { body: listed, ..way("", &[], "graphql-unclear") },
    WayOut { body: misnamed, ..way("", &[], "graphql-unclear") },
    WayOut { body: extended, ..way("", &[], "graphql-unclear") },
    WayOut { body: batch, ..way("", &[], "graphql-batch") },
    with_type("application/json; charset=iso-8859-1", plain, "graphql-unclear"),
    with_type("application/graphql", bare, "body-not-json"),
    with_type("application/x-www-form-urlencoded", form, "body-not-json"),
];

/// Another route for whatever is not the GraphQL route as written.
const BESIDE_UNCACHED: &str = "[[route]]\nname = \"others\"\nmatch = \"/**\"\ncache = false";

const fn way(
    rule: &'static str,
    fields: &'static [(&'static str, &'static str)],
    reason: &'static str,
) -> WayOut {
    WayOut { rule, target: "/graphql", fields, body: plain, reason }
}

const fn with_type(media: &'static str, body: fn(&str) -> Vec<u8>, reason: &'static str) -> WayOut {
    let fields: &'static [(&'static str, &'static str)] = match media.len() {
        19 => &[("content-type", "application/graphql")],
        33 => &[("content-type", "application/x-www-form-urlencoded")],
        _ => &[("content-type", "application/json; charset=iso-8859-1")],
    };
    WayOut { body, ..way("", fields, reason) }
}

impl WayOut {
    async fn send(&self, proxy: &Proxy, document: &str) -> Reply {
        let mut fields = self.fields.to_vec();
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            fields.push(JSON);
        }
        let body = (self.body)(document);
        let is_chunked = fields.iter().any(|(name, _)| *name == "transfer-encoding");
        let length = body.len().to_string();
        if !is_chunked {
            fields.push(("content-length", &length));
        }
        let mut wire = proxy.connect().await;
        wire.write(request("POST", self.target, &fields)).await;
        if is_chunked {
            for part in body.chunks(30_000) {
                wire.write(format!("{:x}\r\n", part.len())).await;
                wire.write(part).await;
                wire.write("\r\n").await;
            }
            wire.write("0\r\n\r\n").await;
        } else {
            wire.write(body).await;
        }
        wire.read_reply_to("POST").await
    }

    fn proxy(&self, origin: &ScriptedOrigin) -> Proxy {
        let (rule, users) = match self.rule.strip_suffix("\nuser.header = X") {
            Some(rule) => (rule, USERS),
            None => (self.rule, ""),
        };
        Proxy::with(&origin.url(), &format!("{}{rule}\n{users}", with_ttl()))
    }
}

const USERS: &str = "[user]\nheader = { name = \"x-user\", from = [\"127.0.0.1\"] }\n";

#[tokio::test]
async fn a_graphql_query_never_purges_in_whatever_way_it_leaves_the_cache() {
    within(async {
        let origin = shop().await;
        for way in WAYS_OUT {
            let proxy = way.proxy(&origin);
            // A response without an object would purge the whole route.
            for document in ["{ scalar }", "{ product }", "{ __typename }"] {
                let reply = way.send(&proxy, document).await;
                let what = format!("{} {:?} {:?}", way.rule, way.fields, reply);
                assert_eq!(reply.status(), 200, "{what}");
                assert!(status(&reply).contains(way.reason), "{} in {what}", way.reason);
                assert_eq!(records(&proxy).await, 0, "{document} {what}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_mutation_purges_in_whatever_way_it_passes() {
    within(async {
        let origin = shop().await;
        for way in WAYS_OUT {
            let proxy = way.proxy(&origin);
            let reply = way.send(&proxy, "mutation { product }").await;
            assert_eq!(reply.cache(), "BYPASS", "{reply:?}");
            let what = format!("{} {:?} {:?}", way.rule, way.fields, reply);
            assert_eq!(records(&proxy).await, 1, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_query_purges_nothing_if_the_origin_does_not_answer_and_a_large_mutation_does() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            if let Some(head) = wire.try_read_head().await {
                drop(wire.try_read_body(&head).await);
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let body = |document: &str| String::from_utf8(large(document)).unwrap();
        assert_eq!(send(&proxy, &body("{ product }")).await.status(), 502);
        assert_eq!(records(&proxy).await, 0);
        assert_eq!(send(&proxy, &body("mutation { product }")).await.status(), 502);
        assert_eq!(records(&proxy).await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_override_field_makes_a_query_a_write() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let fields = [JSON, ("x-http-method-override", "DELETE")];
        send_with(&proxy, &fields, &json!({ "query": "{ product }" }).to_string()).await;
        assert_eq!(records(&proxy).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_mutation_by_get_purges_if_the_origin_executes_it_and_not_if_it_refuses() {
    within(async {
        let origin = shop().await;
        let refusing = ScriptedOrigin::start(|request| {
            let is_write = request.method == "GET" && request.target.contains("mutation");
            let errors = json!({ "errors": [{ "message": "use POST" }] });
            if is_write {
                answer(&errors).status_of(405)
            } else {
                answer(&json!({ "data": { "product": 1 } }))
            }
        })
        .await;
        let by_get = format!("/graphql?query={}", percent("mutation { product }"));
        for (origin, rule, field, expected) in [
            (&refusing, "", "x-none", 0),
            (&origin, "", "x-none", 1),
            (&origin, "bypass = { header = [\"x-live\"] }\n", "x-live", 1),
            (&origin, "cache = false\n", "x-none", 1),
        ] {
            let proxy = Proxy::with(&origin.url(), &format!("{}{rule}", with_ttl()));
            cache(&proxy, "{ product }").await;
            let reply = proxy.get_with(&by_get, &[(field, "1")]).await;
            assert_eq!(reply.cache(), "BYPASS", "{reply:?}");
            assert_eq!(records(&proxy).await, expected, "{rule} {reply:?}");
            if rule.is_empty() {
                let is_purged = cache(&proxy, "{ product }").await == "MISS";
                assert_eq!(is_purged, expected == 1, "{reply:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn queries_by_get_never_purge() {
    within(async {
        let origin = shop().await;
        let rules = "bypass = { header = [\"x-live\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{}{rules}", with_ttl()));
        let query = format!("/graphql?query={}", percent("{ scalar }"));
        for (target, field) in [
            (&*query, "x-none"),
            (&query, "x-live"),
            (&query, "range"),
            (&query, "if-match"),
            ("/graphql?query=mutation{__typename}", "x-none"),
            ("/graphql?query={a", "x-none"),
            ("/graphql", "x-none"),
        ] {
            for method in ["GET", "HEAD"] {
                proxy.send(method, target, &[(field, "bytes=0-1")]).await;
                assert_eq!(records(&proxy).await, 0, "{method} {target} {field}");
            }
        }
        let mut wire = proxy.connect().await;
        let body = json!({ "query": "mutation { scalar }" }).to_string();
        wire.write(request_with_body("GET", &query, &[JSON], &body)).await;
        wire.read_reply().await;
        assert_eq!(records(&proxy).await, 0, "the body of a GET has no meaning");
    })
    .await;
}

#[tokio::test]
async fn a_query_over_http2_never_purges_and_a_mutation_does() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let mut frames = Http2Wire::connect(proxy.address).await;
        for (stream, document, expected) in [(1, "{ scalar }", 0), (3, "mutation { product }", 1)] {
            let fields = &[
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/graphql"),
                (":authority", "api.test"),
                ("content-type", "application/json"),
                ("if-none-match", "\"a\""),
            ];
            let body: &'static str = json!({ "query": document }).to_string().leak();
            let steps = [Step::Fields(fields, End::No), Step::Data(body, End::Stream)];
            frames.play(stream, &steps).await;
            assert!(frames.receive(stream).await.unwrap().is_ended);
            assert_eq!(records(&proxy).await, expected, "{document}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_of_several_parts_or_of_events_is_streamed_and_not_stored() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let media = match request.header("accept") {
                Some(accept) if accept.starts_with("multipart/mixed") => {
                    "multipart/mixed; boundary=\"-\"; deferSpec=20220824"
                }
                _ => "text/event-stream",
            };
            OriginResponse::fresh("---").with("content-type", media)
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        for accept in ["multipart/mixed;deferSpec=20220824, application/json", "text/event-stream"]
        {
            let body = json!({ "query": "{ a ... @defer { b } }" }).to_string();
            for _ in 0..2 {
                let reply = send_with(&proxy, &[JSON, ("accept", accept)], &body).await;
                assert_eq!(reply.cache(), "MISS");
                assert!(status(&reply).contains("graphql-response"), "{reply:?}");
                assert!(!status(&reply).contains("stored"), "{reply:?}");
            }
        }
        assert_eq!(query(&proxy, "subscription { a }").await.cache(), "BYPASS");
        assert_eq!(records(&proxy).await, 0);
    })
    .await;
}

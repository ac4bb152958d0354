//! GraphQL: what is stored under which key, for how long, and what mutations make invalid.

mod effects;
mod fleet;
mod hostile;
mod persisted;
mod reload;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request, request_with_body},
    random::Random,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within,
};

const ROUTE: &str = "[[route]]\nname = \"graphql\"\nmatch = \"/graphql\"\ngraphql = true\n";
const JSON: (&str, &str) = ("content-type", "application/json");

fn with_ttl() -> String {
    format!("admin.token = \"secret\"\n{ROUTE}ttl = \"1m\"\n")
}

fn answer(document: &Value) -> OriginResponse {
    OriginResponse::ok(document.to_string()).with("content-type", "application/json")
}

/// An origin that answers by all that it receives of a request.
async fn echo() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| answer(&json!({ "data": { "seen": seen(request) } }))).await
}

/// All that a request says about its document.
fn seen(request: &OriginRequest) -> String {
    let field = |name| request.header(name).unwrap_or("-");
    let OriginRequest { method, target, body, .. } = request;
    format!("{method} {target} {} {} {body}", field("content-type"), field("content-length"))
}

/// A shop: `product` and `brand` are objects, `scalar` is none. Mutations answer as they are named.
async fn shop() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        let product = json!({ "__typename": "Product", "id": 1 });
        let data = |name: &str| match name {
            "product" => json!({ "product": product }),
            "products" => json!({ "products": [product, { "__typename": "Product", "id": 2 }] }),
            "brand" => json!({ "brand": { "__typename": "Brand", "id": "b" } }),
            _ => json!({ name: 1 }),
        };
        let names = ["products", "product", "brand", "scalar", "refused", "broken", "skipped"];
        let asked = format!("{} {}", request.target, request.body);
        let name = names.into_iter().find(|name| asked.contains(name)).unwrap_or("none");
        match name {
            "refused" => answer(&json!({ "errors": [{ "message": "no" }], "data": { "a": null } })),
            "skipped" => answer(&json!({ "data": {} })),
            "broken" => OriginResponse::status(500, "{}").with("content-type", "application/json"),
            _ => answer(&json!({ "data": data(name) })),
        }
    })
    .await
}

async fn send(proxy: &Proxy, body: &str) -> Reply {
    send_with(proxy, &[JSON], body).await
}

async fn send_with(proxy: &Proxy, fields: &[(&str, &str)], body: &str) -> Reply {
    let mut wire = proxy.connect().await;
    wire.write(request_with_body("POST", "/graphql", fields, body)).await;
    wire.read_reply_to("POST").await
}

async fn query(proxy: &Proxy, document: &str) -> Reply {
    send(proxy, &json!({ "query": document }).to_string()).await
}

async fn cache(proxy: &Proxy, document: &str) -> String {
    query(proxy, document).await.cache().to_owned()
}

/// The `Cache-Status` of a reply.
fn status(reply: &Reply) -> &str {
    reply.header("cache-status").unwrap_or_default()
}

fn percent(text: &str) -> String {
    percent_encoding::percent_encode(text.as_bytes(), percent_encoding::NON_ALPHANUMERIC)
        .to_string()
}

/// Number of records in the purge log.
async fn records(proxy: &Proxy) -> usize {
    let call = request("GET", "/v1/purges", &[("authorization", "Bearer secret")]);
    let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    let document: Value = serde_json::from_str(&reply.body).unwrap();
    document["purges"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn spellings_of_one_query_are_forwarded_and_stored_as_one() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let canonical = r#"{"operationName":"A","query":"query A($n:Int){a(n:$n)}","variables":{"n":1}}"#;
        let seen = format!("POST /graphql application/json {} {canonical}", canonical.len());
        let mut expected = "MISS";
        for body in [
            r##"{ "variables": { "n": 1 }, "query": "# all\nquery A($n: Int) {\n  a(n: $n),\n}" }"##,
            r#"{"operationName":"A","query":"query A($n:Int){a(n:$n)}","variables":{"n":1}}"#,
            r#"{"operationName":null,"\u0071uery":"query A ($n:Int) { a(n:$n) }","extensions":{},"variables":{"n":1}}"#,
        ] {
            let reply = send(&proxy, body).await;
            assert_eq!(reply.cache(), expected, "{body}");
            assert_eq!(status(&reply).contains("stored"), expected == "MISS", "{reply:?}");
            assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap()["data"]["seen"], seen);
            expected = "HIT";
        }
        for other in [
            r#"{"query":"query A($n:Int){a(n:$n)}","variables":{"n":2}}"#,
            r#"{"query":"query A($n:Int){a(n:$n)}","variables":{"n":1.0}}"#,
            r#"{"query":"query A($n:Int){a(n:$n) b}","variables":{"n":1}}"#,
            r#"{"query":"query A($n:Int){a(n:$n)}","variables":{"n":1},"extensions":{"a":1}}"#,
        ] {
            assert_eq!(send(&proxy, other).await.cache(), "MISS", "{other}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_query_by_get_is_forwarded_and_stored_in_one_form() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let first = proxy.get("/graphql?query=query+A+{+a+}&variables={%22n%22:%201}").await;
        assert_eq!(first.cache(), "MISS");
        assert!(
            first.body.contains(
                "GET /graphql?operationName=A&query=query%20A%7Ba%7D&variables=%7B%22n%22%3A1%7D"
            ),
            "{}",
            first.body
        );
        let encoded =
            format!("/graphql?variables=%7B%22n%22:1}}&query={}", percent("query A { a } # c"));
        assert_eq!(proxy.get(&encoded).await.cache(), "HIT");
        assert_eq!(proxy.get("/graphql?query={b}").await.cache(), "MISS");
        for (target, reason) in [
            ("/graphql", "graphql-unclear"),
            ("/graphql?query=mutation{a}", "graphql-mutation"),
            ("/graphql?query={a}&query={a}", "graphql-unclear"),
            ("/graphql?query=subscription{a}", "graphql-subscription"),
        ] {
            let reply = proxy.get(target).await;
            assert_eq!(reply.cache(), "BYPASS", "{target}");
            assert!(status(&reply).contains(reason), "{target}: {reply:?}");
            assert!(reply.body.contains(&format!("GET {target} ")), "as sent: {}", reply.body);
        }
    })
    .await;
}

#[tokio::test]
async fn operations_have_their_own_lifetimes_and_others_pass() {
    within(async {
        let origin = echo().await;
        let listed = "operation = { Long = \"1h\", Short = \"10s\" }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{listed}"));
        let documents = ["query Long { a }", "query Short { a }", "query Other { a }", "{ a }"];
        let states = async |proxy: &Proxy| {
            let mut states = Vec::new();
            for document in documents {
                states.push(cache(proxy, document).await);
            }
            states.join(" ")
        };
        assert_eq!(states(&proxy).await, "MISS MISS BYPASS BYPASS");
        let other = query(&proxy, "query Other { a }").await;
        assert!(status(&other).contains("graphql-operation"), "{other:?}");
        assert_eq!(states(&proxy).await, "HIT HIT BYPASS BYPASS");
        proxy.advance(11);
        assert_eq!(states(&proxy).await, "HIT EXPIRED BYPASS BYPASS");
        let all = "operation = { Long = \"1h\", \"*\" = \"10s\" }\n";
        proxy.reconfigure(&origin.url(), &format!("{ROUTE}{all}"));
        assert_eq!(states(&proxy).await, "HIT HIT MISS MISS");
    })
    .await;
}

#[tokio::test]
async fn no_mutation_is_stored_or_answered_by_the_cache_however_it_is_written() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let gaps = ["", " ", "\n\t", ",", "\u{feff}", "# query {\n", "#\"\"\"\r"];
        let mut sent = 0;
        for gap in gaps {
            for document in [
                format!("{gap}mutation{gap} {{ a }}"),
                format!("{gap}mutation query{gap} {{ query: a }}"),
                format!("fragment F on M {{ a }}{gap} mutation M @x {{ ...F }}"),
            ] {
                let plain = json!({ "query": document });
                for body in [
                    plain.to_string(),
                    json!({ "operationName": null, "variables": {}, "query": document })
                        .to_string(),
                    plain.to_string().replace("mutation", "\\u006dutation"),
                    format!("{{\"query\":\"{{a}}\",{}", plain.to_string().trim_start_matches('{')),
                    json!([{ "query": "{ a }" }, plain]).to_string(),
                    json!({ "query": document, "note": 1 }).to_string(),
                ] {
                    for _ in 0..2 {
                        let before = origin.requests();
                        let reply = send(&proxy, &body).await;
                        assert_eq!(
                            (reply.cache(), origin.requests()),
                            ("BYPASS", before + 1),
                            "{body}"
                        );
                        sent += 1;
                    }
                }
            }
            let target = format!("/graphql?query={}", percent(&format!("{gap}mutation {{ a }}")));
            assert_eq!(proxy.get(&target).await.cache(), "BYPASS", "{target}");
        }
        let named = json!({ "query": "query Q { a } mutation M { a }", "operationName": "M" });
        assert_eq!(send(&proxy, &named.to_string()).await.cache(), "BYPASS");
        assert!(sent > 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_query_of_data_passes_for_its_reason() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        for (body, reason) in [
            (json!({ "query": "mutation M { a }" }).to_string(), "graphql-mutation"),
            (json!({ "query": "subscription S { a }" }).to_string(), "graphql-subscription"),
            (
                json!({ "query": "{ __schema { types { name } } }" }).to_string(),
                "graphql-introspection",
            ),
            (json!([{ "query": "{ a }" }]).to_string(), "graphql-batch"),
            (json!({ "id": "7" }).to_string(), "graphql-unknown-document"),
            (json!({ "query": "{ a }", "operationName": "B" }).to_string(), "graphql-unclear"),
            ("{ not json".to_owned(), "graphql-unclear"),
        ] {
            for _ in 0..2 {
                let reply = send(&proxy, &body).await;
                assert_eq!(reply.cache(), "BYPASS", "{body}");
                assert!(status(&reply).contains(reason), "{body}: {reply:?}");
                let seen: Value = serde_json::from_str(&reply.body).unwrap();
                let seen = seen["data"]["seen"].as_str().unwrap();
                assert!(seen.ends_with(&body), "as sent: {seen}");
            }
        }
        for media in ["application/graphql", "multipart/form-data; boundary=x"] {
            let other = send_with(&proxy, &[("content-type", media)], "{ a }").await;
            assert!(status(&other).contains("body-not-json"), "{other:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn queries_append_nothing_to_the_purge_log_and_failed_mutations_neither() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        for document in [
            "{ product }",
            "{ product }",
            "{ __schema { a } }",
            "subscription { a }",
            "query A { a } query B { b }",
            "mutation { refused }",
            "mutation { broken }",
            "mutation { __typename }",
            "mutation { none: __typename ...F } fragment F on Mutation { __typename }",
            "mutation { skipped @skip(if: true) }",
        ] {
            query(&proxy, document).await;
        }
        send(&proxy, &json!([{ "query": "{ product }" }]).to_string()).await;
        assert_eq!(records(&proxy).await, 0);
        query(&proxy, "mutation { product }").await;
        assert_eq!(records(&proxy).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_mutation_purges_the_types_of_its_response_and_nothing_else() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let fill = async |proxy: &Proxy| {
            for document in ["{ products }", "{ product }", "{ brand }", "{ scalar }"] {
                cache(proxy, document).await;
            }
        };
        let states = async |proxy: &Proxy| {
            let mut states = Vec::new();
            for document in ["{ products }", "{ product }", "{ brand }", "{ scalar }"] {
                states.push(cache(proxy, document).await);
            }
            states.join(" ")
        };
        fill(&proxy).await;
        assert_eq!(states(&proxy).await, "HIT HIT HIT HIT");
        query(&proxy, "mutation { product }").await;
        assert_eq!(states(&proxy).await, "MISS MISS HIT HIT");
        query(&proxy, "mutation { brand }").await;
        assert_eq!(states(&proxy).await, "HIT HIT MISS HIT");
        query(&proxy, "mutation { scalar }").await;
        assert_eq!(states(&proxy).await, "MISS MISS MISS MISS", "nobody knows what it has changed");
        let by_get = "/graphql?query={brand}";
        proxy.get(by_get).await;
        assert_eq!(proxy.get(by_get).await.cache(), "HIT");
        query(&proxy, "mutation { scalar }").await;
        assert_eq!(proxy.get(by_get).await.cache(), "MISS");
        for document in ["{ products }", "{ product }", "{ brand }", "{ scalar }"] {
            cache(&proxy, document).await;
        }
        let objects = format!("{}on_write = {{ purge_by_response = \"objects\" }}\n", with_ttl());
        proxy.reconfigure(&origin.url(), &objects);
        query(&proxy, "mutation { product }").await;
        assert_eq!(states(&proxy).await, "MISS MISS HIT HIT", "both have object 1");
    })
    .await;
}

#[tokio::test]
async fn a_listed_mutation_purges_its_own_tags_and_a_setting_may_keep_the_rest() {
    within(async {
        let origin = shop().await;
        let rules = "on_write = { invalidate = false, purge_by_operation = \
                     { drop = [\"Brand:{$.variables.id}\"], note = \"notes\" } }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{}{rules}", with_ttl()));
        for document in ["{ product }", "{ brand }"] {
            cache(&proxy, document).await;
        }
        let mutation = |name: &str, id: &str| {
            let query = format!("mutation {name}($id: ID) {{ scalar }}");
            json!({ "query": query, "variables": { "id": id } }).to_string()
        };
        for (name, id, expected) in [
            ("other", "b", "HIT HIT"),
            ("note", "b", "HIT HIT"),
            ("drop", "c", "HIT HIT"),
            ("drop", "b", "HIT MISS"),
        ] {
            send(&proxy, &mutation(name, id)).await;
            let states = [cache(&proxy, "{ product }").await, cache(&proxy, "{ brand }").await];
            assert_eq!(states.join(" "), expected, "{name} {id}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_purge_by_type_object_or_url_selects_the_responses_to_queries() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        for (selection, expected) in [
            (r#"{"tags":["Product:2"]}"#, "MISS HIT HIT"),
            (r#"{"tags":["type:Product"]}"#, "MISS MISS HIT"),
            (r#"{"urls":["/graphql"]}"#, "MISS MISS MISS"),
        ] {
            for document in ["{ products }", "{ product }", "{ brand }"] {
                cache(&proxy, document).await;
            }
            let call = request_with_body(
                "POST",
                "/v1/purge",
                &[("authorization", "Bearer secret")],
                selection,
            );
            let reply = Wire::connect(proxy.admin_address()).await.exchange(call).await;
            assert_eq!(reply.status(), 200, "{reply:?}");
            let mut states = Vec::new();
            for document in ["{ products }", "{ product }", "{ brand }"] {
                states.push(cache(&proxy, document).await);
            }
            assert_eq!(states.join(" "), expected, "{selection}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_with_errors_is_not_stored_and_replaces_nothing() {
    within(async {
        let fails = Arc::new(AtomicUsize::new(0));
        let failing = Arc::clone(&fails);
        let origin = ScriptedOrigin::start(move |_| match failing.load(Ordering::SeqCst) {
            0 => answer(&json!({ "data": { "a": 1 } })),
            _ => answer(&json!({ "data": { "a": null }, "errors": [{ "message": "down" }] })),
        })
        .await;
        let rule = "ttl = \"10s\"\nstale_if_error = \"1h\"\n";
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{rule}"));
        fails.store(1, Ordering::SeqCst);
        for _ in 0..2 {
            let reply = query(&proxy, "{ a }").await;
            assert_eq!(reply.cache(), "MISS");
            assert!(status(&reply).contains("graphql-errors"), "{reply:?}");
        }
        fails.store(0, Ordering::SeqCst);
        assert_eq!(cache(&proxy, "{ a }").await, "MISS");
        assert_eq!(cache(&proxy, "{ a }").await, "HIT");
        proxy.advance(11);
        fails.store(1, Ordering::SeqCst);
        let reply = query(&proxy, "{ a }").await;
        assert!(reply.body.contains("down"), "{reply:?}");
        fails.store(0, Ordering::SeqCst);
        assert_eq!(cache(&proxy, "{ a }").await, "EXPIRED", "what was stored is still there");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_no_json_is_not_stored_and_accept_separates_responses() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let accept = request.header("accept").unwrap_or("-").to_owned();
            if accept.starts_with("text/html") {
                return OriginResponse::ok("<html>").with("content-type", "text/html");
            }
            answer(&json!({ "data": { "accept": accept } }))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let ask = async |accept: &str| {
            let body = json!({ "query": "{ a }" }).to_string();
            send_with(&proxy, &[JSON, ("accept", accept)], &body).await
        };
        let page = ask("text/html,*/*;q=0.8").await;
        assert_eq!((page.cache(), &*page.body), ("MISS", "<html>"));
        assert!(status(&page).contains("graphql-response"), "{page:?}");
        for accept in ["application/json", "application/graphql-response+json"] {
            assert_eq!(ask(accept).await.cache(), "MISS");
            let reply = ask(accept).await;
            assert_eq!(reply.cache(), "HIT");
            assert!(reply.body.contains(accept), "{reply:?}");
            assert!(reply.header("vary").unwrap_or_default().to_lowercase().contains("accept"));
        }
        assert_eq!(&*ask("text/html,*/*;q=0.8").await.body, "<html>");
    })
    .await;
}

#[tokio::test]
async fn hints_of_the_response_count_as_its_cache_control() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let hints = if request.body.contains("own") {
                json!([{ "path": ["own"], "maxAge": 60, "scope": "PRIVATE" }])
            } else if request.body.contains("never") {
                json!([{ "path": ["a"], "maxAge": 60 }, { "path": ["never"], "maxAge": 0 }])
            } else {
                json!([{ "path": ["a"], "maxAge": 60 }, { "path": ["b"], "maxAge": 20 }])
            };
            let extensions = json!({ "cacheControl": { "version": 1, "hints": hints } });
            answer(&json!({ "data": {}, "extensions": extensions }))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        assert_eq!(cache(&proxy, "{ a b }").await, "MISS");
        let hit = query(&proxy, "{ a b }").await;
        assert_eq!((hit.cache(), hit.header("cache-control")), ("HIT", Some("max-age=20")));
        proxy.advance(21);
        assert_eq!(cache(&proxy, "{ a b }").await, "EXPIRED");
        for (document, reason) in [("{ own }", "private"), ("{ never }", "zero-ttl")] {
            cache(&proxy, document).await;
            let reply = query(&proxy, document).await;
            assert_eq!(reply.cache(), "MISS", "{document}");
            assert!(status(&reply).contains(reason), "{reply:?}");
        }
        proxy.reconfigure(&origin.url(), &format!("{ROUTE}partition = \"user\"\n"));
        let own = async |token: &str| {
            let body = json!({ "query": "{ own }" }).to_string();
            let fields = [JSON, ("authorization", token)];
            send_with(&proxy, &fields, &body).await.cache().to_owned()
        };
        assert_eq!(own("Bearer a").await, "MISS");
        assert_eq!(own("Bearer a").await, "HIT");
        assert_eq!(own("Bearer b").await, "MISS");
    })
    .await;
}

#[tokio::test]
async fn queries_collapse_and_are_refreshed_in_the_background_with_their_document() {
    within(async {
        let gate = Gate::closed();
        let waiting = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let response =
                answer(&json!({ "data": { "seen": request.body, "n": request.before } }));
            if request.before == 0 { response.after(&waiting) } else { response }
        })
        .await;
        let rule = "ttl = \"10s\"\nstale_while_revalidate = \"1m\"\n";
        let proxy = Proxy::with(&origin.url(), &format!("{ROUTE}{rule}"));
        let (first, second, ()) =
            tokio::join!(query(&proxy, "{ a }"), query(&proxy, "{a # same\n}"), async {
                origin.wait_for_requests(1).await;
                gate.open();
            });
        assert_eq!(first.body, second.body);
        assert_eq!(origin.requests(), 1);
        proxy.advance(11);
        assert_eq!(cache(&proxy, "{ a }").await, "STALE");
        origin.wait_for_requests(2).await;
        loop {
            let reply = query(&proxy, "{ a }").await;
            if reply.cache() == "HIT" {
                assert!(reply.body.contains(r#"{\"query\":\"{a}\"}"#), "{reply:?}");
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_mutation_that_is_too_large_to_be_read_purges_all_that_it_may_have_changed() {
    within(async {
        let origin = shop().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        cache(&proxy, "{ product }").await;
        cache(&proxy, "{ brand }").await;
        let large = format!("mutation {{ product }} #{}", "x".repeat(70_000));
        let reply = query(&proxy, &large).await;
        assert!(status(&reply).contains("body-key-too-large"), "{reply:?}");
        assert_eq!(cache(&proxy, "{ product }").await, "MISS");
        assert_eq!(cache(&proxy, "{ brand }").await, "HIT");
    })
    .await;
}

#[tokio::test]
async fn users_have_their_own_responses_and_an_unknown_mutation_ends_only_the_writers() {
    within(async {
        let origin = shop().await;
        let rule = "partition = \"user\"\n[user]\nheader = { name = \"x-user\", from = [\"127.0.0.1\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{}{rule}", with_ttl()));
        let ask = async |user: &str, document: &str| {
            let body = json!({ "query": document }).to_string();
            send_with(&proxy, &[JSON, ("x-user", user)], &body).await.cache().to_owned()
        };
        for user in ["a", "b"] {
            assert_eq!(ask(user, "{ scalar }").await, "MISS");
            assert_eq!(ask(user, "{ scalar }").await, "HIT");
        }
        assert_eq!(ask("a", "mutation { scalar }").await, "BYPASS");
        assert_eq!(ask("b", "{ scalar }").await, "HIT");
        assert_eq!(ask("a", "{ scalar }").await, "MISS");
        let anonymous = query(&proxy, "{ scalar }").await;
        assert!(status(&anonymous).contains("no-identity"), "{anonymous:?}");
        assert_eq!(ask("a", "{ scalar }").await, "HIT", "a query purges nothing, even if it passes");
    })
    .await;
}

/// One of many spellings of one of a few requests.
fn spelling(random: &mut Random) -> (Vec<(&'static str, &'static str)>, String) {
    let gap = ["", " ", "\n", ", ", "#x\n"][random.below(5)];
    let name = ["", "A", "B"][random.below(3)];
    let field = ["a", "b", "a(s:\"x y\")", "a(s:\"x  y\")", "a(n:1)", "a(n:1.0)"][random.below(6)];
    let alias = ["", "c:"][random.below(2)];
    let head = if name.is_empty() { String::new() } else { format!("query{gap} {name}") };
    let document = format!("{gap}{head}{gap}{{{gap}{alias}{gap}{field}{gap}}}");
    let mut request = json!({ "query": document });
    match random.below(4) {
        0 => request["variables"] = json!({}),
        1 => request["variables"] = json!({ "x": *random.pick(&["1", " 1"]), "y": null }),
        _ => {}
    }
    match random.below(4) {
        0 => request["operationName"] = Value::Null,
        1 if !name.is_empty() => request["operationName"] = name.into(),
        2 => request["extensions"] = json!({ "e": random.below(2) }),
        _ => {}
    }
    let body = match random.below(4) {
        0 => format!("{request:#}"),
        1 => request.to_string().replace("query\"", "quer\\u0079\""),
        2 => request.to_string().replace(":\"x y\"", ":\"x\\u0020y\""),
        _ => request.to_string(),
    };
    let media = ["application/json", "application/json; charset=utf-8"][random.below(2)];
    (vec![("content-type", media)], body)
}

#[tokio::test]
async fn requests_that_share_a_response_are_the_same_to_a_server_that_sees_every_detail() {
    within(async {
        let origin = echo().await;
        let proxy = Proxy::with(&origin.url(), &with_ttl());
        let other = Proxy::with(&origin.url(), &with_ttl());
        let mut random = Random::seeded(7);
        let mut hits = 0;
        for _ in 0..400 {
            let (fields, body) = spelling(&mut random);
            let shared = send_with(&proxy, &fields, &body).await;
            // Without anything stored, the origin answers this very request.
            let call = request_with_body(
                "POST",
                "/v1/purge",
                &[("authorization", "Bearer secret")],
                r#"{"everything":true}"#,
            );
            Wire::connect(other.admin_address()).await.exchange(call).await;
            let own = send_with(&other, &fields, &body).await;
            assert_eq!(own.cache(), "MISS", "{body}");
            assert_eq!(shared.body, own.body, "{body}");
            hits += usize::from(shared.cache() == "HIT");
        }
        assert!(hits > 100, "{hits}");
    })
    .await;
}

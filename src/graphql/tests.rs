//! Properties of the module as a whole: no spelling of a mutation is a query, and a canonical
//! request means the same as the original request.

use std::collections::BTreeSet;

use apollo_parser::{Lexer, TokenKind};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn classified(json: &str) -> RequestClass {
    let documents = DocumentCache::default();
    Classifier { documents: &documents, registered: None }.of_body(json, None)
}

fn of_query(query: &str) -> RequestClass {
    let documents = DocumentCache::default();
    let classifier = Classifier { documents: &documents, registered: None };
    classifier.of_query(query)
}

fn canonical_body(json: &Value) -> String {
    match classified(&json.to_string()) {
        RequestClass::Query(request) => request.to_json(),
        other => panic!("{json}: {other:?}"),
    }
}

/// Documents whose executed operation is a mutation, with the name to execute.
fn mutations() -> Vec<(String, Option<&'static str>)> {
    let ignored =
        ["", " ", "\n\t", "\r", ",,", "\u{feff}", "# query {\n", "# \"\"\" {\r", "#\n#q\n,"];
    let heads = [
        "mutation",
        "mutation M",
        "mutation query",
        "mutation M($q: String = \"query { a }\")",
        "mutation M @a(b: [1, 2]) @c",
        "mutation M($query: [Int!]! = [1]) @d(s: \"\"\"mutation\"\"\")",
    ];
    let selections = [
        "{ deleteProduct(id: 1) { id } }",
        "{ query: deleteProduct(id: 1) { query } }",
        "{ ...F ... on Mutation { a } }",
        "{ a(s: \"}\") b(s: \"# {\") }",
    ];
    let fragment = "fragment F on Mutation { a { query mutation subscription } }";
    let mut documents = Vec::new();
    for gap in ignored {
        for head in heads {
            for selection in selections {
                let operation = format!("{gap}{head}{gap} {selection}");
                let name = match head {
                    "mutation query" => Some("query"),
                    _ if head.ends_with("mutation") => None,
                    _ => Some("M"),
                };
                documents.push((operation.clone(), None));
                documents.push((format!("{fragment}{gap}{operation}"), None));
                if let Some(name) = name {
                    let others = "query A { a } subscription S { s }";
                    documents.push((format!("{others}{operation}"), Some(name)));
                    documents.push((format!("{operation}{gap}{others}{fragment}"), Some(name)));
                }
            }
        }
    }
    documents
}

/// Bodies that send one document, in canonical JSON.
fn bodies(document: &str, name: Option<&str>) -> Vec<String> {
    let plain = json!({ "query": document, "operationName": name });
    vec![
        plain.to_string(),
        json!({ "query": document, "operationName": name, "variables": { "a": [1, { "b": null }] } }).to_string(),
        json!({ "query": document, "operationName": name, "extensions": { "a": 1 }, "variables": null }).to_string(),
        json!([plain]).to_string(),
        json!([{ "query": "{ a }" }, plain]).to_string(),
        json!({ "query": document, "operationName": name, "unknown": 1 }).to_string(),
        json!({ "query": document, "operationName": name, "id": "x" }).to_string(),
        json!({ "query": document, "operationName": name, "variables": "{}" }).to_string(),
        json!({ "query": document, "operationName": "no such operation" }).to_string(),
    ]
}

#[test]
fn no_spelling_of_a_mutation_is_a_read() {
    let mut spellings = BTreeSet::new();
    for (document, name) in mutations() {
        for body in bodies(&document, name) {
            let class = classified(&body);
            assert!(matches!(class, RequestClass::Write(..)), "{body}: {class:?}");
            spellings.insert(body);
        }
        let name = name.map(|name| format!("&operationName={name}")).unwrap_or_default();
        for query in [
            format!("query={}{name}", percent(&document, |byte| !byte.is_ascii_alphanumeric())),
            format!("query={}{name}&variables={{}}", percent(&document, |_| true)),
            format!(
                "a=1{name}&query={}",
                percent(&document, |byte| byte != b'm').replace("%20", "+")
            ),
        ] {
            let class = of_query(&query);
            assert!(
                matches!(class, RequestClass::Write(Uncached::Mutation, _)),
                "{query}: {class:?}"
            );
            spellings.insert(query);
        }
    }
    assert!(spellings.len() > 5000, "{}", spellings.len());
}

fn percent(text: &str, is_encoded: impl Fn(u8) -> bool) -> String {
    let encoded = |byte: u8| match byte {
        byte if is_encoded(byte) || !byte.is_ascii() => format!("%{byte:02x}"),
        byte => char::from(byte).to_string(),
    };
    text.bytes().map(encoded).collect()
}

#[test]
fn spellings_of_one_query_have_one_body() {
    let body = r#"{"operationName":"A","query":"query A($n:Int){a(n:$n){b}}","variables":{"n":1}}"#;
    let document = "query A($n: Int) { a(n: $n) { b } }";
    for request in [
        json!({ "query": document, "variables": { "n": 1 } }),
        json!({ "query": document, "variables": { "n": 1 }, "operationName": "A" }),
        json!({ "query": "# all\nquery A ( $n:Int, ) {\n a(n:$n) {b,} }", "variables": { "n": 1 }, "operationName": null }),
        json!({ "query": document, "variables": { "n": 1 }, "extensions": {} }),
        json!({ "query": document, "variables": { "n": 1 }, "extensions": null, "id": null }),
    ] {
        assert_eq!(canonical_body(&request), body, "{request}");
    }
    for other in [
        json!({ "query": document, "variables": { "n": 2 } }),
        json!({ "query": document }),
        json!({ "query": "query A($n: Int) { a(n: $n) { c } }", "variables": { "n": 1 } }),
        json!({ "query": document, "variables": { "n": 1 }, "extensions": { "a": 1 } }),
        json!({ "query": format!("{document} query B {{ b }}"), "operationName": "A", "variables": { "n": 1 } }),
    ] {
        assert_ne!(canonical_body(&other), body, "{other}");
    }
    assert_eq!(canonical_body(&json!({ "query": "{ a }", "variables": {} })), r#"{"query":"{a}"}"#);
}

fn written(name: &str) -> WrittenOperation {
    WrittenOperation { name: Some(name.into()), ..WrittenOperation::default() }
}

#[test]
fn what_is_no_query_is_passed_for_its_reason() {
    use RequestClass::{Read, Write};
    let named = |name: &str| vec![written(name)];
    let in_batch = |position, name| WrittenOperation { position: Some(position), ..written(name) };
    for (request, expected) in [
        (json!({ "query": "mutation M { a }" }), Write(Uncached::Mutation, named("M"))),
        (json!({ "query": "subscription S { a }" }), Read(Uncached::Subscription)),
        (json!({ "query": "{ __schema { a } }" }), Read(Uncached::Introspection)),
        (json!([{ "query": "{ a }" }, { "query": "{ b }" }]), Read(Uncached::Batch)),
        (
            json!([{ "query": "mutation M { a }" }, { "query": "mutation N { b }" }]),
            Write(Uncached::Batch, vec![in_batch(0, "M"), in_batch(1, "N")]),
        ),
        (json!([]), Read(Uncached::Batch)),
        (json!({ "query": "{ a }", "more": 1 }), Read(Uncached::Unclear)),
        (
            json!({ "query": "{ a }", "Query": "mutation { a }" }),
            Write(Uncached::Unclear, vec![WrittenOperation::default()]),
        ),
        (json!({ "query": "{ a }", "operationName": "" }), Read(Uncached::Unclear)),
        (json!({ "query": "{ a }", "variables": [] }), Read(Uncached::Unclear)),
        (
            json!({ "query": "mutation { a }", "variables": [] }),
            Write(Uncached::Unclear, vec![WrittenOperation::default()]),
        ),
        (json!({ "query": "mutation { __typename }" }), Read(Uncached::Mutation)),
        (json!([{ "query": "mutation { __typename }" }]), Read(Uncached::Batch)),
        (json!({ "query": "query A { a } query B { b }" }), Read(Uncached::Unclear)),
        (json!({ "query": "query {" }), Read(Uncached::Unclear)),
        (
            json!({ "query": "mutation {" }),
            Write(Uncached::Unclear, vec![WrittenOperation::default()]),
        ),
        (json!({ "query": 1 }), Write(Uncached::Unclear, vec![WrittenOperation::default()])),
        (json!({}), Write(Uncached::Unclear, vec![WrittenOperation::default()])),
        (json!("text"), Write(Uncached::Unclear, vec![WrittenOperation::default()])),
        (
            json!({ "documentId": "x" }),
            Write(Uncached::UnknownDocument, vec![WrittenOperation::default()]),
        ),
    ] {
        assert_eq!(classified(&request.to_string()), expected, "{request}");
    }
}

#[test]
fn the_url_of_a_post_may_repeat_the_name_of_the_operation_and_say_nothing_else() {
    let documents = DocumentCache::default();
    let classifier = Classifier { documents: &documents, registered: None };
    let body = json!({ "query": "query A { a }" }).to_string();
    for url in ["", "operationName=A", "op=x&v=2", "operationName=%41&queryId=1"] {
        let class = classifier.of_body(&body, Some(url));
        assert!(matches!(class, RequestClass::Query(_)), "{url}: {class:?}");
    }
    let mutation = json!({ "query": "query A { a } mutation B { b }", "operationName": "A" });
    for url in
        ["operationName=B", "operationName", "Query=x", "query[]=x", "%71uery=x", "variables={}"]
    {
        let class = classifier.of_body(&body, Some(url));
        assert_eq!(class, RequestClass::Read(Uncached::Unclear), "{url}");
        let class = classifier.of_body(&mutation.to_string(), Some(url));
        assert!(matches!(class, RequestClass::Write(Uncached::Unclear, _)), "{url}: {class:?}");
    }
    for url in ["query=mutation{a}", "query=%6Dutation{a}", "a=1&extensions={}", "documentId=m"] {
        let class = classifier.of_body(&body, Some(url));
        assert!(matches!(class, RequestClass::Write(Uncached::Unclear, _)), "{url}: {class:?}");
    }
}

#[test]
fn forms_and_documents_are_read_and_not_keyed() {
    let documents = DocumentCache::default();
    let classifier = Classifier { documents: &documents, registered: None };
    let mutation = RequestClass::Write(Uncached::Mutation, vec![written("M")]);
    let read = RequestClass::Read(Uncached::NotJson);
    assert_eq!(classifier.of_document("query A { a }", None), read);
    assert_eq!(classifier.of_document("mutation M { a }", None), mutation);
    assert_eq!(classifier.of_form("query=query+A+{a}&variables=", None), read);
    assert_eq!(classifier.of_form("query=%6dutation+M+{a}", None), mutation);
    for (document, url) in [("query A { a }", "query=mutation{a}"), ("mutation {", "")] {
        let class = classifier.of_document(document, Some(url));
        assert!(matches!(class, RequestClass::Write(Uncached::Unclear, _)), "{url}: {class:?}");
    }
    for form in ["query={a}&query=mutation{a}", "query={a};x=1", "id=m"] {
        let class = classifier.of_form(form, None);
        assert!(matches!(class, RequestClass::Write(..)), "{form}: {class:?}");
    }
}

#[test]
fn a_get_is_keyed_by_its_canonical_query() {
    let canonical = |query: &str| match of_query(query) {
        RequestClass::Query(request) => request.to_query(),
        other => panic!("{query}: {other:?}"),
    };
    let expected = "v=2&operationName=A&query=query%20A%28%24n%3AInt%29%7Ba%28n%3A%24n%29%7D&variables=%7B%22n%22%3A1%7D";
    for query in [
        "query=query+A($n:Int){a(n:$n)}&variables={\"n\":1}&v=2",
        "v=2&variables=%7B+%22n%22:1%7D&query=query%20A(%24n:+Int)+%7Ba(n:%24n)%7D&operationName=A",
        "v=2&variables={\"n\":1}&query=query A($n:Int){a(n:$n)}%23c&extensions=",
    ] {
        assert_eq!(canonical(query), expected, "{query}");
    }
    assert_eq!(canonical(expected), expected);
    for query in [
        "",
        "query={a}&query={a}",
        "query={a}&Query={b}",
        "query={a}&query[]={b}",
        "query={a};variables={}",
        "query={a}&variables=1",
        "query={a}&variables={",
        "query={a",
        "documentId=1",
    ] {
        let class = of_query(query);
        assert!(matches!(class, RequestClass::Read(_)), "{query}: {class:?}");
    }
    assert!(matches!(
        of_query("query=subscription{a}"),
        RequestClass::Read(Uncached::Subscription)
    ));
}

mod persisted {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    const DOCUMENT: &str = "query A { a }";

    fn hash(text: &str) -> String {
        const_hex::encode(digest(&SHA256, text.as_bytes()))
    }

    fn by_hash(hash: &str) -> Value {
        json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } })
    }

    fn with(mut request: Value, name: &str, value: &str) -> String {
        request[name] = value.into();
        request.to_string()
    }

    #[test]
    fn a_persisted_query_is_the_query_that_it_stands_for() {
        let documents = DocumentCache::default();
        let classifier = Classifier { documents: &documents, registered: None };
        let body = |json: &str| match classifier.of_body(json, None) {
            RequestClass::Query(request) => Ok(request.to_json()),
            other => Err(Box::new(other)),
        };
        let by_hash = by_hash(&hash(DOCUMENT));
        let unknown = RequestClass::Unpersisted(UnpersistedRequest::Single);
        assert_eq!(body(&by_hash.to_string()), Err(Box::new(unknown.clone())));
        let wrong = with(by_hash.clone(), "query", "query A { b }");
        assert_eq!(body(&wrong), Err(Box::new(RequestClass::Read(Uncached::Unclear))));
        assert_eq!(
            body(&by_hash.to_string()),
            Err(Box::new(unknown)),
            "nothing was learned from it"
        );
        let plain = body(&json!({ "query": DOCUMENT }).to_string());
        assert_eq!(body(&with(by_hash.clone(), "query", DOCUMENT)), plain);
        assert_eq!(body(&by_hash.to_string()), plain);
        let mut noted = with(by_hash.clone(), "query", DOCUMENT);
        noted = noted.replace("\"version\":1", "\"miss\":true,\"version\":1");
        assert_eq!(body(&noted), plain, "some clients add a note");
        let upper = super::persisted::by_hash(&hash(DOCUMENT).to_ascii_uppercase());
        assert_eq!(body(&upper.to_string()), plain);
        let wrong = with(by_hash, "query", "mutation A { b }");
        assert_eq!(
            body(&wrong),
            Err(Box::new(RequestClass::Write(Uncached::Unclear, vec![written("A")])))
        );
    }

    #[test]
    fn a_request_that_persists_its_document_does_so_each_time() {
        let whole = with(by_hash(&hash(DOCUMENT)), "query", DOCUMENT);
        for (body, is_repeatable) in
            [(whole, false), (json!({ "query": DOCUMENT }).to_string(), true)]
        {
            let RequestClass::Query(request) = classified(&body) else { panic!("{body}") };
            assert_eq!(request.is_repeatable(), is_repeatable, "{body}");
        }
    }

    #[test]
    fn a_persisted_mutation_is_a_write() {
        let documents = DocumentCache::default();
        let classifier = Classifier { documents: &documents, registered: None };
        let mutation = "mutation M { a }";
        let by_hash = by_hash(&hash(mutation));
        let expected = RequestClass::Write(Uncached::Mutation, vec![written("M")]);
        for body in [with(by_hash.clone(), "query", mutation), by_hash.to_string()] {
            assert_eq!(classifier.of_body(&body, None), expected);
        }
        let query = format!("extensions={}", percent(&by_hash["extensions"].to_string(), |_| true));
        assert_eq!(classifier.of_query(&query), expected);
    }

    #[test]
    fn a_batch_by_hash_is_asked_for_its_documents_unless_it_has_one() {
        let documents = DocumentCache::default();
        let classifier = Classifier { documents: &documents, registered: None };
        let of = |batch: &[Value]| classifier.of_body(&Value::from(batch).to_string(), None);
        let (one, other) = (by_hash(&hash(DOCUMENT)), by_hash(&hash("{b}")));
        let asked = |count| RequestClass::Unpersisted(UnpersistedRequest::Batch(count));
        assert_eq!(of(&[one.clone(), other.clone()]), asked(2));
        let mut whole = one.clone();
        whole["query"] = DOCUMENT.into();
        let unknown = WrittenOperation { position: Some(1), ..WrittenOperation::default() };
        assert_eq!(
            of(&[whole, other.clone()]),
            RequestClass::Write(Uncached::Batch, vec![unknown]),
            "its client does not expect to be asked for what it has sent"
        );
        assert_eq!(of(&[one.clone(), other]), asked(2), "one of them is known now");
        assert_eq!(of(std::slice::from_ref(&one)), RequestClass::Read(Uncached::Batch));
    }

    #[test]
    fn what_passes_by_hash_gets_its_document() {
        let documents = DocumentCache::default();
        let classifier = Classifier { documents: &documents, registered: None };
        let mutation = "mutation M($a: Int) { a(a: $a) }";
        let mut by_hash = by_hash(&hash(mutation));
        by_hash["variables"] = json!({ "a": 1 });
        assert_eq!(classifier.with_documents(&by_hash.to_string()), None);
        classifier.of_body(&with(by_hash.clone(), "query", mutation), None);
        let whole = r#"{"query":"mutation M($a:Int){a(a:$a)}","variables":{"a":1}}"#;
        assert_eq!(classifier.with_documents(&by_hash.to_string()).as_deref(), Some(whole));
        let batch = json!([{ "query": "{ b }" }, by_hash]).to_string();
        let expected = format!(r#"[{{"query":"{{ b }}"}},{whole}]"#);
        assert_eq!(classifier.with_documents(&batch), Some(expected));
        let odd = with(by_hash.clone(), "note", "x");
        for sent in [whole.to_owned(), with(by_hash, "query", mutation), odd] {
            assert_eq!(classifier.with_documents(&sent), None, "{sent}");
        }
    }

    #[test]
    fn an_origin_that_registers_documents_is_asked_for_those_that_are_not_known_here() {
        let documents = DocumentCache::default();
        let registered = RegisteredDocuments::parse(b"{}").unwrap();
        let classifier = Classifier { documents: &documents, registered: Some(&registered) };
        let class = classifier.of_body(&by_hash(&hash(DOCUMENT)).to_string(), None);
        let written = vec![WrittenOperation::default()];
        assert_eq!(class, RequestClass::Write(Uncached::UnknownDocument, written));
    }

    #[test]
    fn a_registered_document_is_sent_by_its_name() {
        let manifest = json!({ "operations": [
            { "id": "q1", "body": DOCUMENT, "name": "A", "type": "query" },
            { "id": "m1", "body": "mutation M { a }" },
            { "id": hash(DOCUMENT), "body": DOCUMENT },
        ] });
        let documents = DocumentCache::default();
        let registered = RegisteredDocuments::parse(manifest.to_string().as_bytes()).unwrap();
        let classifier = Classifier { documents: &documents, registered: Some(&registered) };
        for member in ["id", "documentId", "doc_id"] {
            let RequestClass::Query(request) = classifier
                .of_body(&json!({ member: "q1", "variables": { "a": 1 } }).to_string(), None)
            else {
                panic!("{member}")
            };
            let mut sent = json!({ "operationName": "A", "variables": { "a": 1 } });
            sent[member] = "q1".into();
            assert_eq!(request.to_json(), sent.to_string());
            assert_eq!(request.operation(), Some("A"));
            let mutation = classifier.of_body(&json!({ member: "m1" }).to_string(), None);
            assert_eq!(mutation, RequestClass::Write(Uncached::Mutation, vec![written("M")]));
        }
        let RequestClass::Query(request) =
            classifier.of_body(&by_hash(&hash(DOCUMENT)).to_string(), None)
        else {
            panic!()
        };
        let mut sent = by_hash(&hash(DOCUMENT));
        sent["operationName"] = "A".into();
        assert_eq!(request.to_json(), sent.to_string());
        let map = json!({ "q1": DOCUMENT });
        assert!(
            RegisteredDocuments::parse(map.to_string().as_bytes()).unwrap().find("q1").is_some()
        );
    }

    #[test]
    fn a_list_that_cannot_be_read_is_an_error() {
        let parse =
            |json: &str| RegisteredDocuments::parse(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(parse("{"), "not JSON");
        assert!(parse("[]").starts_with("expected an object"));
        assert!(parse(r#"{"a":1}"#).starts_with("expected an object"));
        assert!(parse(r#"{"operations":[{"id":"a"}]}"#).starts_with("expected an object"));
        assert_eq!(parse(r#"{"a":"{"}"#), "document `a`: not a GraphQL document");
    }
}

/// Generates documents with selections, arguments, fragments and variables.
fn document() -> impl Strategy<Value = String> {
    let name = "[a-zA-Z_][a-zA-Z0-9_]{0,6}";
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("-2.5e3".to_owned()),
        Just("\"a # b\"".to_owned()),
        Just("\"\"".to_owned()),
        Just("\"\"\"a \" b\"\"\"".to_owned()),
        Just("null".to_owned()),
        "[A-Z]{1,4}",
        Just("$v".to_owned()),
    ];
    let value = value.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|it| format!("[{}]", it.join(" "))),
            inner.prop_map(|it| format!("{{k:{it}}}")),
        ]
    });
    let field = (name, prop::option::of(value)).prop_map(|(name, value)| match value {
        Some(value) => format!("{name}(x:{value})"),
        None => name,
    });
    let field = field.boxed();
    let selection = field.clone().prop_recursive(4, 20, 3, move |inner| {
        let inner = prop::collection::vec(inner, 1..3).prop_map(|it| it.join(" "));
        prop_oneof![
            (field.clone(), inner.clone()).prop_map(|(field, inner)| format!("{field}{{{inner}}}")),
            inner.prop_map(|inner| format!("...on T{{{inner}}}")),
        ]
    });
    (prop::option::of(name), prop::collection::vec(selection, 1..4)).prop_map(
        |(name, selections)| {
            let name = name.map(|name| format!("query {name}($v:Int=1)")).unwrap_or_default();
            format!("{name}{{{}}}", selections.join(" "))
        },
    )
}

fn tokens(document: &str) -> Vec<(TokenKind, String)> {
    let is_ignored =
        |kind| matches!(kind, TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma);
    let tokens = Lexer::new(document).map(|token| token.unwrap());
    tokens.filter(|it| !is_ignored(it.kind())).map(|it| (it.kind(), it.data().to_owned())).collect()
}

proptest! {
    #[test]
    fn a_canonical_document_has_the_same_tokens(document in document(), gaps in prop::collection::vec("[ ,\n\r\t]|#[ -~]{0,5}\n|\u{feff}", 40)) {
        let mut gaps = gaps.into_iter().cycle();
        let spelled: String = tokens(&document).iter().flat_map(|(_, data)| [data.clone(), gaps.next().unwrap()]).collect();
        let (plain, spelled) = (super::document::Document::parse(&document), super::document::Document::parse(&spelled));
        let (Ok(plain), Ok(spelled)) = (plain, spelled) else { panic!("{document}") };
        prop_assert_eq!(spelled.text(), plain.text());
        prop_assert_eq!(tokens(plain.text()), tokens(&document));
        let again = super::document::Document::parse(plain.text()).unwrap();
        prop_assert_eq!(again.text(), plain.text());
    }

    #[test]
    fn a_canonical_request_is_its_own_canonical_form(document in document(), variables in prop::collection::btree_map("[a-z]{1,3}", any::<i32>(), 0..4)) {
        let body = canonical_body(&json!({ "query": document, "variables": variables }));
        prop_assert_eq!(&canonical_body(&serde_json::from_str(&body).unwrap()), &body);
        let RequestClass::Query(request) = classified(&body) else { panic!("{body}") };
        let RequestClass::Query(by_url) = of_query(&request.to_query()) else { panic!("{body}") };
        prop_assert_eq!(by_url.to_json(), body);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}()\",:\\\\u0d81e.a \\-+#!$@=|&\n\réqm]{0,40}") {
        let _ = super::document::Document::parse(&text);
        let _ = classified(&json!({ "query": text }).to_string());
        let _ = of_query(&text);
    }
}

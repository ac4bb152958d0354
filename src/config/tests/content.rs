//! Tests of routes with the request body in the key, and of parameters in canonical form.

use super::{errors, parse, warnings};
use crate::route::ContentRule;

fn route(keys: &str) -> String {
    format!("[[route]]\nname = \"a\"\n{keys}\n")
}

#[test]
fn a_key_says_which_posts_are_reads() {
    let rule = |keys: &str| {
        let text = route(&format!("match = \"/a\"\n{keys}"));
        parse(&format!("origin = \"http://o\"\n{text}")).routes.routes()[0].content
    };
    assert_eq!(rule(""), ContentRule::Query);
    assert_eq!(rule("key = \"json-body\""), ContentRule::Json);
    assert_eq!(rule("key = \"body\""), ContentRule::Bytes);
    let unknown = errors(&route("match = \"/a\"\nkey = \"json-boddy\""));
    assert!(unknown.contains("expected one of `json-body`, `body`"), "{unknown}");
    assert!(unknown.contains("did you mean `json-body`?"), "{unknown}");
    let logout = "match = \"POST /a\"\nkey = \"body\"\non_success = { logout = true }";
    assert!(errors(&route(logout)).contains("`key` makes `POST` a read"));
}

#[test]
fn a_key_without_posts_or_without_a_cache_is_pointed_at() {
    let useless = "`key` has no effect: only `POST` and `QUERY` are read by their body";
    for (keys, expected) in [
        ("match = \"GET /a\"\nkey = \"json-body\"", Some(useless)),
        ("match = \"PUT|GET /a\"\nkey = \"body\"", Some(useless)),
        ("match = \"/a\"\nkey = \"json-body\"", None),
        ("match = \"QUERY /a\"\nkey = \"json-body\"", None),
        ("match = \"POST /a\"\nkey = \"json-body\"\nttl = \"1m\"\ntags = [\"t\"]", None),
        (
            "match = \"POST /a\"\nkey = \"body\"\ncache = false",
            Some("`key` stores nothing: the route is not cached"),
        ),
        (
            "match = \"POST /a\"\nkey = \"body\"\non_write = { purge = [\"t\"] }\ntags = [\"t\"]",
            Some("`on_write` has no effect: this route has no unsafe methods"),
        ),
        (
            "match = \"POST|PUT /a\"\nkey = \"body\"\non_write = { purge = [\"t\"] }\ntags = [\"t\"]",
            None,
        ),
        ("match = \"POST /search\"\nkey = \"json-body\"", None),
    ] {
        assert_eq!(warnings(&route(keys)), Vec::from_iter(expected), "{keys}");
    }
    let reads = warnings(&route("match = \"POST /search\""));
    assert!(reads[0].contains("each `POST` here is a write"), "{reads:?}");
}

#[test]
fn lists_and_defaults_are_parameters_of_the_key() {
    let config = parse(&format!(
        "origin = \"http://o\"\n{}",
        route(
            "match = \"/a\"\nquery = { lists = [\"symbols\"], defaults = { page = 1, all = false, sort = \"name\" } }"
        )
    ));
    let query = &config.routes.routes()[0].query;
    let kept = query.kept("symbols=b,a&page=1&all=false&sort=name&x=1");
    assert_eq!(kept.as_deref(), Some("symbols=a,b&x=1"));
    for (keys, expected) in [
        ("defaults = { page = [1, 2] }", "expected one value, such as `page = \"1\"`"),
        ("defaults = { page = { a = 1 } }", "must be a string, a number, a boolean"),
        ("defaults = { \"\" = 1 }", "expected a parameter name"),
        ("lists = [\"a*b\"]", "a `*` is allowed only at the beginning or the end"),
        ("defaults = \"page=1\"", "must be a table, not a string"),
    ] {
        let found = errors(&route(&format!("match = \"/a\"\nquery = {{ {keys} }}")));
        assert!(found.contains(expected), "{keys}: {found}");
    }
    for (keys, name) in [
        ("ignore = [\"page\"], defaults = { page = 1 }", "`page` has no effect in `defaults`"),
        ("only = [\"x\"], lists = [\"symbols\"]", "`symbols` has no effect in `lists`"),
    ] {
        let found = warnings(&route(&format!("match = \"/a\"\nquery = {{ {keys} }}")));
        assert_eq!(found, [format!("{name}: the key omits this parameter")]);
    }
}

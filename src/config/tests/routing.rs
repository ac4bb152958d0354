//! Tests of defaults, tiers and routes.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::{errors, parse, warnings};
use crate::{coding::ContentCoding, key::uri::PathReadings};

#[test]
fn a_ttl_may_differ_by_status_and_goes_status_by_status() {
    let config = parse(
        r#"
        origin = "http://origin"
        [defaults]
        ttl = { "404" = "10s", "301" = "1h" }
        [tier.hot]
        ttl = "5m"
        [[route]]
        name = "a"
        match = "/a"
        tier = "hot"
        ttl = { "200" = "2m", 404 = "1s" }
        "#,
    );
    let ttl = |path: &str| {
        config.routes.select(&Method::GET, "h", &PathReadings::of(path)).route.rule.ttl.clone()
    };
    let times: Vec<_> = ttl("/a").iter().collect();
    let time = |status: u16, seconds| {
        (StatusCode::from_u16(status).unwrap(), Duration::from_secs(seconds))
    };
    let expected = [time(200, 120), time(203, 300), time(204, 300), time(301, 3600), time(404, 1)];
    assert_eq!(times, expected);
    assert!(ttl("/other").is_empty(), "what no route matches has none");
}

#[test]
fn statuses_that_have_no_ttl_are_pointed_at() {
    let text = r#"
[defaults]
ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: invalid status code
     --> proxy.toml:4:9
      |
    4 | ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
      |         ^^^^^
      |
      = help: did you mean `200`?

    error: invalid status code
     --> proxy.toml:4:23
      |
    4 | ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
      |                       ^^^^^
      |
      = help: list each status by its code, as in `"404" = "10s"`

    error: status 405 cannot have a `ttl`: any client can cause it
     --> proxy.toml:4:37
      |
    4 | ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
      |                                     ^^^^^
      |
      = help: remove it, or this response would be served to all other clients; it is stored if the origin's own `Cache-Control` allows it

    error: responses with status 206 are never stored
     --> proxy.toml:4:51
      |
    4 | ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
      |                                                   ^^^^^
      |
      = help: remove it

    error: expected a number with `ms`, `s`, `m`, `h` or `d`, such as `30s`
     --> proxy.toml:4:73
      |
    4 | ttl = { "20O" = "1m", "4xx" = "1m", "405" = "1m", "206" = "1m", "404" = "soon" }
      |                                                                         ^^^^^^
    "#);
    for (text, expected) in [
        (
            "defaults.ttl = 5",
            "a duration in quotes such as `\"30s\"`, or a table of them by status",
        ),
        ("defaults.ttl = { \"404\" = 5 }", "`defaults.ttl.404` must be a duration in quotes"),
        ("defaults.ttl = { default = \"1m\" }", "invalid status code"),
        ("defaults.ttl = { \"414\" = \"1m\" }", "any client can cause it"),
        ("defaults.ttl = { \"600\" = \"1m\" }", "invalid status code"),
        ("defaults.store_unless = \"errors\"", "invalid JSONPath"),
        ("defaults.bypass.refresh = \"yes\"", "`true` or `false`"),
        ("tier.a.client_cache = \"a\\nb\"", "invalid field value"),
        ("defaults.encode = \"brotli\"", "expected one of `br`, `zstd`, `gzip`"),
        ("defaults.encode = [\"br\", \"gzip\", \"br\"]", "this coding is listed twice"),
        ("tier.a.encode_private = \"yes\"", "`true` or `false`"),
        ("tier.a.tags = [\"x{\"]", "proxy.toml:2:"),
    ] {
        let errors = errors(text);
        assert!(errors.contains(expected), "{text} gives\n{errors}");
    }
}

#[test]
fn what_defaults_and_tiers_say_holds_for_routes_that_say_nothing() {
    let config = parse(
        r#"
        origin = "http://origin"
        [defaults]
        tags = ["all", "range:{?range}"]
        query = { ignore = ["utm_*"] }
        vary = { headers = ["x-region"] }
        bypass = { header = ["x-export"] }
        store_unless = "$.errors[0]"
        client_cache = "no-cache"
        encode = ["br", "gzip"]
        [tier.hot]
        tags = ["hot:{id}", "{$.id}"]
        client_cache = "public"
        encode = "zstd"
        client_cache_control = "ignore"
        [[route]]
        name = "a"
        match = "/a/{id}"
        tier = "hot"
        query = { sort = true }
        [[route]]
        name = "b"
        match = "/b"
        tags = []
        store_unless = []
        encode = []
        "#,
    );
    let route =
        |path: &'static str| config.routes.select(&Method::GET, "h", &PathReadings::of(path)).route;
    let (a, b, other) = (route("/a/7"), route("/b"), route("/c"));
    assert_eq!(
        a.tags_of(&PathReadings::of("/a/7"), None, None),
        ["hot:7"],
        "the tier's in place of the defaults'"
    );
    assert_eq!((a.body_tags.len(), b.body_tags.len()), (1, 0));
    assert!(b.tags_of(&PathReadings::of("/b"), None, None).is_empty() && b.store_unless.is_empty());
    assert_eq!(other.tags_of(&PathReadings::of("/c"), Some("range=7d"), None), ["all", "range:7d"]);
    assert!(a.query.keeps("utm_x") && !b.query.keeps("utm_x") && !other.query.keeps("utm_x"));
    assert_eq!(a.client_cache.as_ref().unwrap(), "public");
    assert_eq!(other.client_cache.as_ref().unwrap(), "no-cache");
    assert_eq!(*a.encode, [ContentCoding::Zstd]);
    assert_eq!(*other.encode, [ContentCoding::Brotli, ContentCoding::Gzip]);
    assert!(!b.encodes());
    let mut export = HeaderMap::new();
    export.insert("x-export", "1".parse().unwrap());
    for route in [a, b, other] {
        assert_eq!(route.vary.headers[0], "x-region");
        assert!(route.bypass.applies(None, &export));
    }
    assert_eq!((a.store_unless.len(), other.store_unless.len()), (1, 1));
}

#[test]
fn a_tag_of_a_tier_that_a_route_cannot_fill_in_names_both() {
    let text = r#"
[tier.hot]
tags = ["tile:{tile}"]
[[route]]
name = "tiles"
match = "/tiles/{tile}"
tier = "hot"
[[route]]
name = "all"
match = "/all"
tier = "hot"
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: unknown placeholder `{tile}`
      --> proxy.toml:4:15
       |
     4 | tags = ["tile:{tile}"]
       |               ^^^^^^
    ...
    10 | name = "all"
       |        ----- in this route
       |
       = help: placeholders of this route: `{?parameter}`, `{$.path}`
    "#);
}

#[test]
fn a_refresh_that_never_happens_is_a_warning() {
    let text = |query: &str| {
        format!(
            "[defaults]\nbypass = {{ query = \"nocache\", refresh = true }}\n\
             [[route]]\nname = \"a\"\nmatch = \"/a\"\n{query}"
        )
    };
    let message =
        "`refresh` has no effect: no query parameter of `bypass` is excluded from the key";
    assert_eq!(warnings(&text("")), [message]);
    assert!(warnings(&text("query.ignore = \"nocache\"")).is_empty());
}

fn graphql(keys: &str) -> String {
    format!("[[route]]\nname = \"a\"\nmatch = \"/graphql\"\ngraphql = true\n{keys}\n")
}

#[test]
fn operations_have_routes_of_their_own() {
    let config = parse(&format!(
        "origin = \"http://origin\"\n{}",
        graphql("ttl = { \"404\" = \"1s\" }\noperation = { A = \"1h\", \"*\" = \"1m\" }")
    ));
    let ttl = |operation: Option<&str>| {
        let index = config.routes.for_operation(0, operation).unwrap();
        let ttl = config.routes.route(index).rule.ttl.clone();
        [200_u16, 404].map(|code| ttl.for_status(code.try_into().unwrap()).unwrap().as_secs())
    };
    assert_eq!(ttl(Some("A")), [3600, 1]);
    assert_eq!(ttl(Some("B")), [60, 1]);
    assert_eq!(ttl(None), [60, 1]);
    assert_eq!(config.routes.each().count(), 4);
    let route = config.routes.route(0);
    assert!(route.vary.headers.contains(&http::header::ACCEPT));
    let none = parse(&format!("origin = \"http://origin\"\n{}", graphql("operation = {}")));
    assert_eq!(none.routes.for_operation(0, Some("A")), None);
    let all = parse(&format!("origin = \"http://origin\"\n{}", graphql("")));
    assert_eq!(all.routes.for_operation(0, Some("A")), Some(0));
}

#[test]
fn invalid_graphql_keys_are_pointed_at() {
    for (keys, message) in [
        ("operation = { \"a-b\" = \"1h\" }", "not the name of a GraphQL operation"),
        ("operation = { a = \"soon\" }", "expected a number"),
        ("operation = \"1h\"", "a table of durations"),
        ("documents = \"/etc/list.json\"", "${file:/path/to/documents.json}"),
        ("documents = '{\"a\":\"{\"}'", "document `a`: not a GraphQL document"),
        ("documents = '[]'", "an object of documents by name"),
        ("on_write = { purge_by_response = \"all\" }", "expected one of"),
        ("on_write = { purge_by_operation = { a = \"{order}\" } }", "unknown placeholder"),
        ("on_write = { purge_by_operation = { \"*\" = \"a\" } }", "not the name of"),
        ("key = \"json-body\"", "`key` cannot be combined with `graphql`"),
    ] {
        let found = errors(&graphql(keys));
        assert!(found.contains(message), "{keys}: {found}");
    }
}

#[test]
fn graphql_keys_on_other_routes_are_warned_of() {
    let found = warnings(
        "[[route]]\nname = \"a\"\nmatch = \"/a\"\noperation = { a = \"1h\" }\ndocuments = \"{}\"\n\
         on_write = { purge_by_response = \"types\", purge_by_operation = { a = \"b\" } }",
    );
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.iter().all(|warning| warning.contains("has no effect without `graphql = true`")));
    assert_eq!(warnings(&graphql("on_write = { purge = [\"a\"] }")), [""; 0]);
    let uncached = warnings(&graphql("cache = false\noperation = { a = \"1h\" }"));
    assert_eq!(uncached, ["`operation` has no effect: the route is not cached"]);
    let put = warnings(&graphql("").replace("\"/graphql\"", "\"PUT /graphql\""));
    assert_eq!(put, ["`graphql` has no effect: it is for `POST`, `GET` and `QUERY`"]);
    assert_eq!(warnings(&graphql("").replace("\"/graphql\"", "\"POST /graphql\"")), [""; 0]);
}

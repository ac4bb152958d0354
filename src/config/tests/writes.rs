//! Tests of tags from requests and JSON bodies, and of purges by writes.

use serde_json::json;

use super::{errors, parse, warnings};
use crate::key::uri::PathReadings;

const PRODUCTS: &str = r#"
origin = "http://origin"
[[route]]
name = "products"
match = "/shops/{shop}/products"
tags = ["products", "product:{$.items[*].id}", "{shop}:{?page}"]
on_write = { purge = ["products", "shop:{shop}", "page:{?page}"] }
"#;

#[test]
fn tags_come_from_the_request_and_from_the_body() {
    let config = parse(PRODUCTS);
    let route = &config.routes.routes()[0];
    let (path, query) = (&PathReadings::of("/shops/a/products"), Some("page=2"));
    assert_eq!(route.tags_of(path, query, None), ["products", "a:2"]);
    let document = json!({ "items": [{ "id": 7 }, { "id": 5 }, { "id": 7 }] });
    let tags = route.body_tags_of(path, (query, None), &document);
    assert_eq!(tags.unwrap(), ["product:5", "product:7"]);
}

#[test]
fn a_write_purges_what_its_request_tells() {
    let config = parse(PRODUCTS);
    let path = PathReadings::of("/shops/a/products");
    let purged = config.routes.routes()[0].purged_tags(&path, Some("page=2"), None);
    assert_eq!(purged, ["products", "shop:a", "page:2"]);
}

#[test]
fn templates_that_cannot_be_filled_in_are_pointed_at() {
    let text = r#"
[[route]]
name = "products"
match = "/shops/{shop}/products"
tags = ["product:{$.items[}", "{shp}:{$.id}"]
on_write = { purge = ["product:{$.id}", "cart:{user}"] }
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: invalid JSONPath (RFC 9535)
     --> proxy.toml:6:19
      |
    6 | tags = ["product:{$.items[}", "{shp}:{$.id}"]
      |                   ^^^^^^^^

    error: unknown placeholder `{shp}`
     --> proxy.toml:6:32
      |
    6 | tags = ["product:{$.items[}", "{shp}:{$.id}"]
      |                                ^^^^^
      |
      = help: placeholders of this route: `{shop}`, `{?parameter}`, `{$.path}`

    error: a JSONPath cannot be used here: there is no JSON document
     --> proxy.toml:7:32
      |
    7 | on_write = { purge = ["product:{$.id}", "cart:{user}"] }
      |                                ^^^^^^
      |
      = help: a write purges before its response body is read

    error: `{user}` is not available: `[user]` configures no authentication
     --> proxy.toml:7:47
      |
    7 | on_write = { purge = ["product:{$.id}", "cart:{user}"] }
      |                                               ^^^^^^
      |
      = help: configure `jwt`, or `header` of a trusted gateway, in `[user]`
    "#);
}

#[test]
fn a_write_that_cannot_come_is_a_warning() {
    let text = r#"
[[route]]
name = "products"
match = "GET|OPTIONS /products"
on_write = { purge = ["products"] }
"#;
    assert_eq!(warnings(text), ["`on_write` has no effect: this route has no unsafe methods"]);
}

#[test]
fn a_tag_names_parameters_of_the_key_only() {
    for query in ["{ ignore = [\"page\"] }", "{ only = [\"sort\"] }"] {
        for tag in ["page:{?page}", "{$.id}:{?page}"] {
            let text = format!(
                "[[route]]\nname = \"r\"\nmatch = \"/a\"\n\
                 query = {query}\ntags = [\"{tag}\"]"
            );
            assert!(errors(&text).contains("not part of the key"), "{query} {tag}");
        }
    }
}

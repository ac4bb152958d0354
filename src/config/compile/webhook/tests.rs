//! Tests of webhook settings and their errors.

use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::{
    config::{Config, Environment},
    fence::Selector,
    route::json_path::parse as json_path,
};

const DOCUMENTED: &str = include_str!("../../../../proxy.toml");

fn parse(text: &str) -> Result<Config, String> {
    let environment = Environment {
        variable: &|name| (name != "UNSET").then(|| format!("the value of {name}")),
        file: &|_| Ok("value".to_owned()),
    };
    let text = format!("origin = \"http://origin\"\n{text}");
    Config::parse(&text, "proxy.toml", environment).map_err(|error| error.to_string())
}

fn errors(text: &str) -> String {
    parse(text).unwrap_err()
}

/// Returns the tags that a delivery to a webhook purges.
fn tags(webhook: &Webhook, event: &'static str, payload: &Value) -> Vec<String> {
    let mut headers = HeaderMap::new();
    headers.insert("x-event", http::HeaderValue::from_static(event));
    let mapped =
        webhook.mapping.apply(&webhook.name, (&headers, payload), &|_, _| Vec::new()).unwrap();
    let selectors = mapped.purges.into_iter().flat_map(|purge| purge.selectors);
    let tag = |selector| match selector {
        Selector::Tag(tag) => tag.into_string(),
        other => panic!("{other:?}"),
    };
    selectors.map(tag).collect()
}

#[test]
fn the_documented_webhooks_do_what_the_comments_say() {
    let (_, text) = DOCUMENTED.split_once("\n#[[webhook]]").unwrap();
    let (text, _) = text.split_once("\n[log]").unwrap();
    let config = parse(&format!("[[webhook]]{}", text.replace("\n#", "\n"))).unwrap();
    assert!(config.warnings.problems.is_empty(), "{}", config.warnings);
    let [shop, billing, payments] = &config.webhooks[..] else { panic!("{:?}", config.webhooks) };
    let payload = json!({ "id": 7, "status": "paid", "total": 2, "items": [{ "sku": "a" }] });
    assert_eq!(tags(shop, "order.created", &payload), ["order:7", "orders", "product:a"]);
    assert_eq!(tags(shop, "order.deleted", &payload), [""; 0]);
    assert_eq!(tags(shop, "order.created", &json!({ "status": "paid", "total": 3 })), [""; 0]);
    assert_eq!(tags(billing, "", &json!({})), ["invoices"]);
    let paid = json!({ "type": "invoice.paid", "data": { "object": { "id": "in_1" } } });
    assert_eq!(tags(payments, "", &paid), ["invoice:in_1"]);
    assert!(shop.mapping.rules[0].warm && !billing.mapping.rules[0].warm);
    let SignatureScheme::Hmac(_) = &shop.scheme else { panic!("{shop:?}") };
    assert!(!format!("{config:?}").contains("the value of"), "secrets are not shown");
}

#[test]
fn every_problem_of_a_webhook_is_pointed_at() {
    let text = r#"
[[webhook]]
name = "shop"
scheme = "hmca"
secret = "${UNSET}"
header = "x signature"
[[webhook.on]]
event = "order.created"
when = { "$.status[" = "paid", "$.total" = { "a" = 1 } }
purge = ["order:{id}", "sku:{$.items[*.sku}"]
mode = "weak"
[[webhook]]
name = "shop"
scheme = "bearer"
secret = "a"
prefix = "sha256="
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: expected one of `standard`, `github`, `stripe`, `shopify`, `slack`, `gitlab`, `hmac`, `bearer`
     --> proxy.toml:5:10
      |
    5 | scheme = "hmca"
      |          ^^^^^^
      |
      = help: did you mean `hmac`?

    error: `webhook.secret`: environment variable `UNSET` is not set
     --> proxy.toml:6:10
      |
    6 | secret = "${UNSET}"
      |          ^^^^^^^^^^

    error: invalid JSONPath (RFC 9535)
      --> proxy.toml:10:10
       |
    10 | when = { "$.status[" = "paid", "$.total" = { "a" = 1 } }
       |          ^^^^^^^^^^^

    error: `webhook.on.when.$.total` must be a string, a number, a boolean, or a list of these, not a table
      --> proxy.toml:10:44
       |
    10 | when = { "$.status[" = "paid", "$.total" = { "a" = 1 } }
       |                                            ^^^^^^^^^^^

    error: expected a JSONPath into the payload, such as `{$.id}`
      --> proxy.toml:11:17
       |
    11 | purge = ["order:{id}", "sku:{$.items[*.sku}"]
       |                 ^^^^

    error: invalid JSONPath (RFC 9535): in long-hand segment, expected closing ']'
      --> proxy.toml:11:30
       |
    11 | purge = ["order:{id}", "sku:{$.items[*.sku}"]
       |                              ^^^^^^^^^^^^^

    error: expected one of `hard`, `soft`
      --> proxy.toml:12:8
       |
    12 | mode = "weak"
       |        ^^^^^^

    error: another webhook has this name
      --> proxy.toml:14:8
       |
     4 | name = "shop"
       |        ------ the other one
    ...
    14 | name = "shop"
       |        ^^^^^^

    error: `prefix` requires the scheme `hmac`
      --> proxy.toml:17:10
       |
    17 | prefix = "sha256="
       |          ^^^^^^^^^
    "#);
}

#[test]
fn every_value_that_means_nothing_is_refused() {
    let complete = "secret = \"a\"\nheader = \"x\"\non = [{ purge = \"t\" }]";
    let hmac = |keys: &str| format!("[[webhook]]\nname = \"a\"\nscheme = \"hmac\"\n{keys}");
    let vendor = |scheme: &str, keys: &str| {
        format!(
            "[[webhook]]\nname = \"a\"\nscheme = \"{scheme}\"\nsecret = \"not base64\"\n{keys}\non = [{{ purge = \"t\" }}]"
        )
    };
    let cases = [
        (format!("[[webhook]]\n{complete}"), "`webhook` has no `name`"),
        (format!("[[webhook]]\nname = \"a/b\"\n{complete}"), "part of the URL"),
        (format!("[[webhook]]\nname = \"unknown\"\n{complete}"), "reserved for unknown webhooks"),
        (format!("[[webhook]]\nname = \"a\"\n{complete}"), "`webhook` has no `scheme`"),
        (hmac("header = \"x\"\non = [{ purge = \"t\" }]"), "has no secret: anyone could purge"),
        (hmac("header = \"x\"\nsecrets = []"), "has no secret: anyone could purge"),
        (hmac("header = \"x\"\nsecret = \" \""), "empty secret"),
        (hmac(&format!("secrets = [\"a\"]\n{complete}")), "exclude each other"),
        (hmac("secret = \"a\"\non = [{ purge = \"t\" }]"), "`webhook` has no `header`"),
        (hmac("secret = \"a\"\nheader = \"x\""), "this webhook purges nothing"),
        (hmac(&format!("{complete}\nencoding = \"hx\"")), "did you mean `hex`?"),
        (hmac(&format!("{complete}\nalgorithm = \"md5\"")), "`sha1`, `sha256`, `sha512`"),
        (hmac(&format!("{complete}\nsigned = \"{{id}}\"")), "`{body}` and `{timestamp}`"),
        (
            hmac(&format!("{complete}\nsigned = \"{{timestamp}}{{body}}\"")),
            "`{timestamp}` requires `timestamp_header`",
        ),
        (
            hmac(&format!("{complete}\nsigned = \"{{body}}\"\ntimestamp_header = \"t\"")),
            "is not signed: add `{timestamp}`",
        ),
        (hmac(&format!("{complete}\ntolerance = \"0s\"")), "a value above zero"),
        (hmac(&format!("{complete}\nevent_from = \"a b\"")), "a field name such as `x-event`"),
        (hmac("secret = \"a\"\nheader = \"x\"\non = [{}]"), "has no tags"),
        (hmac("secret = \"a\"\nheader = \"x\"\non = [{ purge = [] }]"), "has no tags"),
        (
            hmac("secret = \"a\"\nheader = \"x\"\non = [{ event = \"e\", purge = \"t\" }]"),
            "the source of the event's name is missing",
        ),
        (
            hmac(
                "secret = \"a\"\nheader = \"x\"\non = [{ when = { \"$.a\" = [] }, purge = \"t\" }]",
            ),
            "this value can never match",
        ),
        (vendor("github", "header = \"x\""), "`header` requires the scheme `hmac` or `bearer`"),
        (vendor("shopify", "encoding = \"hex\""), "`encoding` requires the scheme `hmac`"),
        (vendor("gitlab", "tolerance = \"1m\""), "a scheme with a signed timestamp"),
        (vendor("stripe", "tolerance = \"0s\""), "a value above zero"),
        (vendor("standard", ""), "a base64 secret such as `whsec_"),
        (vendor("slack", "id_from = \"a b\""), "a field name such as `x-event`"),
        ("admin.purge_from = [\"10.0.0.0/33\"]".to_owned(), "expected a network"),
    ];
    for (text, expected) in cases {
        let errors = errors(&text);
        assert!(errors.contains(expected), "{text} gives\n{errors}");
    }
}

#[test]
fn a_tolerance_without_a_time_is_hardly_meant() {
    let text = "[[webhook]]\nname = \"a\"\nscheme = \"hmac\"\nsecret = \"a\"\nheader = \"x\"\ntolerance = \"1m\"\non = [{ purge = \"t\" }]";
    let warnings = parse(text).unwrap().warnings.problems;
    assert!(warnings.len() == 1 && warnings[0].message.contains("has no effect"), "{warnings:?}");
}

#[test]
fn a_vendor_needs_a_secret_and_nothing_else() {
    for vendor in Vendor::ALL {
        let scheme = vendor.as_str();
        let text = format!(
            "[[webhook]]\nname = \"a\"\nscheme = \"{scheme}\"\nsecrets = [\"c2VjcmV0\"]\n\
             on = [{{ event = \"e\", purge = \"t\" }}]"
        );
        let config = parse(&text).unwrap();
        assert!(config.warnings.problems.is_empty(), "{scheme}: {}", config.warnings);
        let [webhook] = &config.webhooks[..] else { panic!("{scheme}") };
        assert_eq!(webhook.mapping.event, vendor.event(), "{scheme}");
        assert_eq!(*webhook.ids, vendor.ids(), "{scheme}");
        assert_eq!(webhook.handshake == Handshake::Slack, vendor == Vendor::Slack);
        let text = format!("{text}\nevent_from = \"x-event\"\nid_from = \"$.delivery\"");
        let config = parse(&text).unwrap();
        let event = Some(ValueLocation::Header("x-event".parse().unwrap()));
        assert_eq!(config.webhooks[0].mapping.event, event, "{scheme}");
        let id = ValueLocation::Payload(json_path("$.delivery").unwrap());
        assert_eq!(*config.webhooks[0].ids, [id], "{scheme}");
    }
}

//! Tests of configurations and their errors.

use std::{io, time::Duration};

use http::{HeaderMap, Method};
use proptest::prelude::*;
use tracing::level_filters::LevelFilter;

mod content;
mod events;
mod identity;
mod routing;
mod schedules;
mod warnings;
mod writes;

use super::{
    settings::{CertificateFiles, LogConfig},
    *,
};
use crate::{
    key::uri::PathReadings,
    origin::{
        ConnectionLimits, HostHeader,
        settings::{HealthCheck, OriginScheme},
    },
    policy::{ClientCacheControl, TtlFrom},
    purge::UnsyncedPolicy,
    redis,
};

const DOCUMENTED: &str = include_str!("../../proxy.toml");

fn parse(text: &str) -> Config {
    parse_in(text, Environment::empty())
}

fn parse_in(text: &str, environment: Environment<'_>) -> Config {
    match Config::parse(text, "proxy.toml", environment) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// Parses `text` with an `origin` added, and returns the text of all errors.
fn errors(text: &str) -> String {
    let text = format!("origin = \"http://origin\"\n{text}");
    Config::parse(&text, "proxy.toml", Environment::empty()).unwrap_err().to_string()
}

fn warnings(text: &str) -> Vec<String> {
    let config = parse(&format!("origin = \"http://origin\"\n{text}"));
    config.warnings.problems.into_iter().map(|finding| finding.message).collect()
}

#[test]
fn the_shown_values_are_the_defaults() {
    let documented = parse(DOCUMENTED);
    let plain = parse("origin = \"http://127.0.0.1:3000\"");
    assert_eq!(documented.listen, plain.listen);
    assert_eq!(documented.origin, plain.origin);
    assert_eq!(documented.limits, plain.limits);
    assert_eq!(documented.admin, plain.admin);
    assert_eq!(documented.store, plain.store);
    assert_eq!(documented.user, plain.user);
    assert_eq!(documented.log, plain.log);
    assert_eq!(documented.server_timing, plain.server_timing);
    assert!(documented.warnings.problems.is_empty());
}

#[test]
fn the_long_form_of_everything_is_understood() {
    let config = parse(
        r#"
        listen = ["127.0.0.1:1", "unix:/run/larder.sock"]
        tls = { cert = "c", key = "k" }
        trusted_proxies = ["10.0.0.0/8", "::1"]
        server_timing = true
        [origin]
        urls = ["https://a", "h2c://b:1"]
        connect_timeout = "2s"
        keep_alive = "4s"
        max_connections = 8
        max_pending = 0
        pending_timeout = "1s"
        max_header_bytes = "16KiB"
        http2 = false
        dns_refresh = "1m"
        retries = 0
        host = "api.internal:81"
        health = { path = "/healthz" }
        tls = { ca = "ca", cert = "c", key = "k", server_name = "s" }
        [limits]
        body = "1MiB"
        [admin]
        listen = "off"
        token = "a"
        tokens = [{ token = "b", may = "read" }]
        [user]
        credentials = "x-pin"
        harmless_fields = ["x-user-theme"]
        harmless_parameters = ["key"]
        session_cookies = ["shop_*"]
        harmless_cookies = ["seen"]
        selecting_cookies = ["flavour"]
        digest_key = "0123456789abcdef0123456789abcdef"
        [log]
        level = "warn"
        access = "off"
        "#,
    );
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.tls, Some(CertificateFiles { cert: "c".into(), key: "k".into() }));
    assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert!(config.server_timing);
    assert_eq!(config.origin.urls[1].scheme, OriginScheme::H2c);
    assert_eq!(config.origin.connect_timeout, Duration::from_secs(2));
    assert_eq!(config.origin.retries, 0);
    let limits =
        ConnectionLimits { connections: 8, pending: 0, pending_timeout: Duration::from_secs(1) };
    assert_eq!((config.origin.keep_alive, config.origin.limits), (Duration::from_secs(4), limits));
    assert_eq!((config.origin.max_header_bytes, config.origin.http2), (16 << 10, false));
    assert_eq!(config.origin.dns_refresh, Duration::from_mins(1));
    assert_eq!(config.origin.host, HostHeader::Literal("api.internal:81".parse().unwrap()));
    let health = HealthCheck { path: "/healthz".into(), interval: Duration::from_secs(5) };
    assert_eq!(config.origin.health, Some(health));
    assert_eq!(config.origin.tls.server_name.as_deref(), Some("s"));
    assert_eq!(config.limits.body, Some(1 << 20));
    assert_eq!(config.admin.listen, None);
    let allowed: Vec<_> =
        config.admin.tokens.iter().map(|token| token.permissions.clone()).collect();
    assert_eq!(allowed, [vec![Permission::Read], vec![Permission::Read, Permission::Purge]]);
    let rules = &config.user.credentials;
    assert!(rules.fields.has(b"x_pin") && rules.harmless_fields.has(b"X-User-Theme"));
    assert!(rules.harmless_parameters.has(b"key") && rules.session_cookies.has(b"shop_id"));
    assert!(rules.harmless_cookies.has(b"seen") && rules.selecting_cookies.has(b"flavour"));
    assert!(config.user.digest_key.is_some());
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert_eq!(config.log, LogConfig { level: LevelFilter::WARN, access: AccessLogFormat::Off });
}

#[test]
fn a_route_goes_before_its_tier_and_its_tier_before_the_defaults() {
    let config = parse(
        r#"
        origin = "http://origin"
        [defaults]
        ttl = "1s"
        ttl_from = "min"
        stale_if_error = "1m"
        client_cache_control = "ignore"
        [tier.hot]
        ttl = "2s"
        stale_if_error = "2m"
        cache = false
        [[route]]
        name = "a"
        match = "/a"
        tier = "hot"
        ttl = "3s"
        cache = true
        [[route]]
        name = "b"
        match = "/b"
        tier = "hot"
        "#,
    );
    let rule = |path: &str| {
        config.routes.select(&Method::GET, "h", &PathReadings::of(path)).route.rule.clone()
    };
    let seconds = |count| Some(Duration::from_secs(count));
    let (a, b, other) = (rule("/a"), rule("/b"), rule("/c"));
    assert_eq!(
        (a.ttl.successes_only(), a.stale_if_error, a.cache),
        (seconds(3), seconds(120), true)
    );
    assert_eq!((b.ttl.successes_only(), b.ttl_from, b.cache), (seconds(2), TtlFrom::Min, false));
    assert_eq!(b.client_cache_control, ClientCacheControl::Ignore);
    assert_eq!((other.ttl.successes_only(), other.stale_if_error), (None, seconds(60)));
}

#[test]
fn routes_carry_all_that_the_file_says() {
    let config = parse(DOCUMENTED);
    let tiles =
        config.routes.select(&Method::HEAD, "h", &PathReadings::of("/dashboard/tiles/kpi")).route;
    let tags = tiles.tags_of(&PathReadings::of("/dashboard/tiles/kpi"), Some("range=7d"), None);
    assert_eq!(tags, ["dashboard", "tile:kpi", "range:7d"]);
    assert_eq!(tiles.client_cache.as_ref().unwrap(), "public, max-age=60");
    let stocks = config.routes.select(&Method::GET, "h", &PathReadings::of("/api/stocks")).route;
    assert!(!stocks.query.keeps("utm_source") && stocks.query.keeps("symbol"));
    assert!(stocks.bypass.applies(Some("nocache=true"), &HeaderMap::new()));
    assert_eq!(stocks.vary.headers[0], "accept-language");
    let reports = config
        .routes
        .select(&Method::POST, "reports.example.com", &PathReadings::of("/2026/q1"))
        .route;
    assert!(reports.query.keeps("from") && !reports.query.keeps("x"));
    assert!(
        !config
            .routes
            .select(&Method::GET, "h", &PathReadings::of("/api/checkout/1"))
            .route
            .rule
            .cache
    );
}

#[test]
fn references_are_replaced_and_never_shown() {
    let environment = Environment {
        variable: &|name| (name == "ORIGIN").then(|| "http://10.0.0.1".to_owned()),
        file: &|_| Ok("hunter2\n".to_owned()),
    };
    let text = "origin = \"${ORIGIN}:81\"\nadmin.token = \"${file:/run/token}\"";
    let config = parse_in(text, environment);
    assert_eq!(config.origin.urls[0].authority.port_u16(), Some(81));
    assert_eq!(config.admin.tokens[0].secret.expose(), "hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    let text = "origin = \"http://o\"\nadmin.tokens = \"${file:/x}\"\nlisten = \"${file:/x}\"";
    let error = Config::parse(text, "proxy.toml", environment).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
}

#[test]
fn flags_go_before_the_file() {
    let flags = CliOverrides {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        origin: vec!["http://flag".parse().unwrap()],
        redis: Some("redis://flag".parse().unwrap()),
        admin: Some("127.0.0.1:1".parse().unwrap()),
        access_log: Some(AccessLogFormat::Off),
    };
    let config =
        Config::parse_with(DOCUMENTED, "proxy.toml", Environment::empty(), &flags).unwrap();
    assert_eq!(config.listen, flags.listen);
    assert_eq!(config.origin.urls, flags.origin);
    assert_eq!(config.store.redis, flags.redis);
    assert_eq!(config.admin.listen, flags.admin);
    assert_eq!(config.log.access, AccessLogFormat::Off);
    assert_eq!(config.routes.routes().len(), 6);
}

#[test]
fn an_unreadable_file_is_named() {
    let error =
        Config::load(Path::new("/nowhere/proxy.toml"), &CliOverrides::default()).unwrap_err();
    let ConfigError::Unreadable { file, cause } = error else { panic!("{error}") };
    assert_eq!(file, "/nowhere/proxy.toml");
    assert_eq!(cause.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_unknown_key_is_pointed_at_with_a_suggestion() {
    insta::assert_snapshot!(errors("[[route]]\nname = \"a\"\nmach = \"/a\""), @r#"
    error: unknown key `mach` in `route`
     --> proxy.toml:4:1
      |
    4 | mach = "/a"
      | ^^^^
      |
      = help: did you mean `match`?
    "#);
    insta::assert_snapshot!(errors("[log]\nfile = \"larder.log\""), @r#"
    error: unknown key `file` in `log`
     --> proxy.toml:3:1
      |
    3 | file = "larder.log"
      | ^^^^
      |
      = help: known keys: `level`, `access`
    "#);
}

#[test]
fn several_errors_are_shown_at_once_in_the_order_of_the_file() {
    let text = r#"
listen = "0.0.0.0"
[admin]
token = "${LARDER_ADMIN_TOKEN}"
[store]
memory = 256
[tier.hot]
ttl = "5 minutes"
[[route]]
name = "a"
match = "/a/{x}"
tier = "hto"
tags = ["x:{x}", "user:{user}"]
[[route]]
name = "a"
match = "/b/**/c"
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: expected an IP address and port such as `0.0.0.0:8080`, or `unix:/path`
     --> proxy.toml:3:10
      |
    3 | listen = "0.0.0.0"
      |          ^^^^^^^^^

    error: `admin.token`: environment variable `LARDER_ADMIN_TOKEN` is not set
     --> proxy.toml:5:9
      |
    5 | token = "${LARDER_ADMIN_TOKEN}"
      |         ^^^^^^^^^^^^^^^^^^^^^^^

    error: `store.memory` must be a size in quotes such as `"64KiB"`, not a number
     --> proxy.toml:7:10
      |
    7 | memory = 256
      |          ^^^

    error: expected a number with `ms`, `s`, `m`, `h` or `d`, such as `30s`
     --> proxy.toml:9:7
      |
    9 | ttl = "5 minutes"
      |       ^^^^^^^^^^^

    error: unknown tier
      --> proxy.toml:13:8
       |
    13 | tier = "hto"
       |        ^^^^^
       |
       = help: did you mean `hot`?

    error: `{user}` is not available: `[user]` configures no authentication
      --> proxy.toml:14:24
       |
    14 | tags = ["x:{x}", "user:{user}"]
       |                        ^^^^^^
       |
       = help: configure `jwt`, or `header` of a trusted gateway, in `[user]`

    error: another route has this name
      --> proxy.toml:16:8
       |
    11 | name = "a"
       |        --- the other one
    ...
    16 | name = "a"
       |        ^^^

    error: `**` must be the last segment; use `{name}` for one segment
      --> proxy.toml:17:13
       |
    17 | match = "/b/**/c"
       |             ^^
    "#);
}

#[test]
fn broken_toml_is_pointed_at() {
    insta::assert_snapshot!(errors("[log\nlevel = \"info\""), @"
    error: unclosed table, expected `]`
     --> proxy.toml:2:5
      |
    2 | [log
      |     ^
    ");
}

#[test]
fn no_secret_is_shown_with_what_is_wrong_beside_or_in_it() {
    for text in [
        "admin.token = \"hunter2 \"",
        "admin.tokens = [{ token = \"hunter2\", may = [\"write\"] }]",
        "admin.tokn = \"hunter2\"",
        "admin.token = \"hunter2",
        "[store]\nredis = \"redis://u:hunter2@host:port\"",
        "[store]\nredis = \"redis://u:1/hunter2@host\"",
        "[store]\nredis = \"redis://u:1?hunter2@host\"",
        "[store]\nredis = \"redis-cluster://host?node=u:hunter2@host\"",
        "[store]\nredis = \"redis://a\"\nencrypt_key = \"hunter2\"",
        "origin = { urls = \"http://u:hunter2@host\" }",
        "[[webhook]]\nname = \"a\"\nscheme = \"stripe\"\nsecret = \"hunter2\\u0000\"",
        "[[poll]]\nname = \"a b\"\nurl = \"ftp://u:hunter2@host\"\npurge = \"a\"",
        "[[poll]]\nname = \"a\"\npurge = \"a\"\nurl = \"http://h\"\nheaders = { host = \"hunter2\" }",
    ] {
        let text = format!("listen = \"nothing\"\n{text}");
        let error = Config::parse(&text, "proxy.toml", Environment::empty()).unwrap_err();
        let said = error.to_string();
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let missing = Config::parse("", "proxy.toml", Environment::empty()).unwrap_err().to_string();
    insta::assert_snapshot!(missing, @r#"
    error: no origin is configured
    --> proxy.toml
     = help: set `origin = "http://127.0.0.1:3000"`, or pass `--origin`
    "#);
    insta::assert_snapshot!(errors("[[route]]\nttl = \"1s\""), @"
    error: `route` has no `name`
     --> proxy.toml:2:1
      |
    2 | [[route]]
      | ^^^^^^^^^

    error: `route` has no `match`
     --> proxy.toml:2:1
      |
    2 | [[route]]
      | ^^^^^^^^^
    ");
}

#[test]
fn every_value_that_means_nothing_is_refused() {
    let cases = [
        ("listen = []", "`listen` is empty"),
        ("listen = [\":1\", \":1\"]", "listed twice"),
        ("tls = { cert = \"c\" }", "`tls` has no `key`"),
        ("trusted_proxies = [\"10.0.0.0/33\"]", "expected a network"),
        ("server_timing = \"yes\"", "`true` or `false`, not a string"),
        ("limits.headers = 0", "a value above zero"),
        ("limits.headers = -1", "a whole number, not a negative number"),
        ("limits.header_bytes = \"1KiB\"", "between `8KiB` and `16MiB`"),
        ("limits.idle_timeout = \"0s\"", "a value above zero"),
        ("admin.token = \"\"", "visible ASCII"),
        ("admin.tokens = [{ token = \"a\" }]", "`may` is missing"),
        ("admin.tokens = [{ token = \"a\", may = [\"write\"] }]", "`read`, `purge`"),
        ("log.level = \"inof\"", "did you mean `info`?"),
        ("defaults.ttl_from = \"rules\"", "did you mean `rule`?"),
        ("route = [{ name = \"a b\", match = \"/a\" }]", "one word"),
        ("route = [{ name = \"unmatched\", match = \"/a\" }]", "that no route matches"),
        ("route = [{ name = \"a\", match = \"\" }]", "`route.match` is empty"),
        ("route = [{ name = \"a\", match = \"/a\", tags = [\"\"] }]", "empty tag"),
        ("route = [{ name = \"a\", match = \"/\", query.ignore = \"a*b\" }]", "a `*` is allowed"),
        ("route = [{ name = \"a\", match = \"/\", vary.headers = \"a b\" }]", "invalid field name"),
        (
            "route = [{ name = \"a\", match = \"/\", vary.headers = \"Forwarded\" }]",
            "the client's address",
        ),
        (
            "route = [{ name = \"a\", match = \"/\", vary.cookies = \"a=b\" }]",
            "invalid cookie name",
        ),
        ("user.harmless_cookies = [\"*\"]", "a pattern with `*`"),
        ("user.digest_key = \"short\"", "at least 32 bytes"),
        ("route = [{ name = \"a\", match = \"/\", bypass.query = \"=b\" }]", "`name=value`"),
        (
            "route = [{ name = \"a\", match = \"/\", client_cache = \"a\\nb\" }]",
            "invalid field value",
        ),
        ("route = \"a\"", "a list of tables, not a string"),
        ("tier.hot = \"5m\"", "`tier.hot` must be a table, not a string"),
    ];
    for (text, expected) in cases {
        let errors = errors(text);
        assert!(errors.contains(expected), "{text} gives\n{errors}");
    }
    let origin = |table: &str| {
        let text = format!("[origin]\n{table}");
        Config::parse(&text, "proxy.toml", Environment::empty()).unwrap_err().to_string()
    };
    for (table, expected) in [
        ("urls = []", "no origin is configured"),
        ("urls = [\"http://a/api\"]", "paths of requests are forwarded unchanged"),
        ("urls = [\"http://a\"]\nretries = 11", "at most 10 retries"),
        ("urls = [\"http://a\"]\nmax_connections = 0", "a value above zero"),
        ("urls = [\"http://a\"]\nmax_pending = 1000001", "at most 1000000"),
        ("urls = [\"http://a\"]\nkeep_alive = \"0s\"", "a value above zero"),
        ("urls = [\"http://a\"]\nmax_header_bytes = \"1KiB\"", "between `4KiB` and `16MiB`"),
        ("urls = [\"http://a\"]\nhost = \"a b\"", "`preserve`, `origin` or a host name"),
        ("urls = [\"http://a\"]\nhealth.path = \"x\"", "expected a path"),
        ("urls = [\"https://a\"]\ntls.cert = \"c\"", "`cert` and `key` must be set together"),
    ] {
        let errors = origin(table);
        assert!(errors.contains(expected), "{table} gives\n{errors}");
    }
}

#[test]
fn a_shared_store_is_understood() {
    let text = r#"
origin = "http://origin"
[store]
redis = "rediss://larder:secret@cache.internal/3"
tls = { ca = "ca.pem" }
timeout = "5ms"
prefix = "shop"
version = "2026-11"
grace = "5m"
compress_above = "64KiB"
memory = "0"
unsynced_ttl = "0"
when_unsynced = "serve"
"#;
    let store = parse(text).store;
    let redis = store.redis.unwrap();
    assert_eq!(
        redis.address,
        redis::settings::RedisAddress::Server("cache.internal".to_owned(), 6379)
    );
    assert_eq!((redis.username.as_deref(), redis.database), (Some("larder"), Some(3)));
    assert_eq!(redis.password, Some(redis::Password::new("secret")));
    assert_eq!(
        redis.tls,
        Some(redis::TlsSettings { ca: Some("ca.pem".into()), cert: None, key: None })
    );
    assert_eq!((&*store.prefix, &*store.version), ("shop", "2026-11"));
    assert_eq!(store.grace, Duration::from_mins(5));
    assert_eq!((store.compress_above, store.memory), (65_536, 0));
    assert_eq!(store.timeout, Duration::from_millis(5));
    assert_eq!(store.unsynced, UnsyncedPolicy::Serve);
}

#[test]
fn a_hosted_redis_takes_a_token() {
    let text =
        "origin = \"http://o\"\nstore = { redis = \"rediss://eu1.upstash.io\", token = \"t\" }";
    let redis = parse(text).store.redis.unwrap();
    assert_eq!((redis.username, redis.password), (None, Some(redis::Password::new("t"))));
}

#[test]
fn a_wrong_store_is_explained_without_its_password() {
    let store = |text: &str| errors(&format!("[store]\n{text}"));
    for (text, expected) in [
        ("redis = \"memcached://host\"", "unknown scheme `memcached:`"),
        ("redis = \"redis://u:p@host\"\ntoken = \"t\"", "already has a password"),
        ("redis = \"rediss://host\"\ntls.cert = \"c\"", "`cert` and `key` must be set together"),
        ("prefix = \"a{b}\"", "without braces"),
        ("version = \"\"", "visible ASCII characters"),
        ("timeout = \"0\"", "expected a value above zero"),
        ("when_unsynced = \"server\"", "did you mean `serve`?"),
        ("encrypt_key = \"hunter2\"", "at least 32 bytes"),
        ("encrypt_keys = [\"0123456789abcdef0123456789abcdef\", \"hunter2\"]", "at least 32 bytes"),
        ("encrypt_keys = []", "would not be encrypted"),
        (
            "encrypt_key = \"0123456789abcdef0123456789abcdef\"\nencrypt_keys = [\"0123456789abcdef0123456789abcdef\"]",
            "exclude each other",
        ),
    ] {
        let errors = store(text);
        assert!(errors.contains(expected), "{text} gives\n{errors}");
    }
}

#[test]
fn keys_that_encrypt_in_redis_come_in_order() {
    let keys = |text: &str| {
        let store =
            parse(&format!("origin = \"http://o\"\n[store]\nredis = \"redis://h\"\n{text}")).store;
        store.encrypt_keys.iter().map(|key| key.expose().to_owned()).collect::<Vec<_>>()
    };
    let (old, new) = ("o".repeat(32), "n".repeat(44));
    assert_eq!(keys(&format!("encrypt_keys = [\"{new}\", \"{old}\"]")), [&*new, &*old]);
    assert_eq!(keys(&format!("encrypt_key = \"{old}\"")), [old]);
    assert!(keys("").is_empty());
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let cases = [
        (
            "store.encrypt_key = \"0123456789abcdef0123456789abcdef\"",
            "`store.encrypt_key` has no effect",
        ),
        ("store.token = \"t\"", "`store.token` has no effect"),
        ("store = { redis = \"redis://a\", tls = { ca = \"ca.pem\" } }", "without a `rediss` URL"),
        ("admin.listen = \"0.0.0.0:1\"", "reachable from other machines"),
        ("store = { memory = \"1KiB\", max_object = \"1MiB\" }", "larger than `memory`"),
        (
            "route = [{ name = \"a\", match = \"/\", vary.headers = \"Authorization\" }]",
            "`authorization` in `vary` has no effect on sharing",
        ),
        (
            "route = [{ name = \"a\", match = \"/\", vary.headers = \"x_api_key\" }]",
            "has no effect on sharing",
        ),
        (
            "route = [{ name = \"a\", match = \"/\", vary.cookies = \"sessionid\" }]",
            "is a known session cookie",
        ),
        (
            "user.harmless_fields = [\"auth*\"]",
            "`authorization` in `harmless_fields` has no effect: it always counts as a credential",
        ),
        (
            "user.harmless_fields = [\"cookie\"]",
            "`cookie` in `harmless_fields` has no effect: each cookie is judged by its name",
        ),
        ("route = [{ name = \"a\", match = \"/\", ttl_from = \"min\" }]", "has no effect"),
        (
            "route = [{ name = \"a\", match = \"/**\" }, { name = \"b\", match = \"GET /b\" }]",
            "never matches",
        ),
    ];
    for (text, expected) in cases {
        let warnings = warnings(text);
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{text}: {warnings:?}");
    }
    let tenant = "route = [{ name = \"a\", match = \"/\", vary.headers = \"x-tenant\" }]";
    assert_eq!(warnings(tenant), [""; 0]);
    let quiet = "admin = { listen = \"0.0.0.0:1\", token = \"a\" }\nstore.memory = \"0\"";
    assert_eq!(warnings(quiet), [""; 0]);
}

proptest! {
    #[test]
    fn a_mutated_file_is_read_or_explained(
        edits in prop::collection::vec((0..DOCUMENTED.len(), "[\\[\\]{}\"'=#.,*$é\n a]{0,3}", 0..9_usize), 1..6),
    ) {
        let mut text = DOCUMENTED.to_owned();
        for (at, inserted, removed) in edits {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.floor_char_boundary((start + removed).min(text.len()));
            text.replace_range(start..end, &inserted);
        }
        if let Err(error) = Config::parse(&text, "proxy.toml", Environment::empty()) {
            prop_assert!(error.to_string().starts_with("error: ") || error.to_string().starts_with("warning: "));
        }
    }
}

//! `larder check`, as an operator runs it.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::process::{Command, Output};

use tempfile::TempDir;

/// What `larder check` says in a directory with this `proxy.toml`.
fn check(file: Option<&str>, arguments: &[&str]) -> (Output, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(directory.path().join("proxy.toml"), text).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_larder"))
        .arg("check")
        .args(arguments)
        .current_dir(directory.path())
        .env_remove("LARDER_CONFIG")
        .env("CHECK_TTL", "90s")
        .output()
        .unwrap();
    (output, directory)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const VALID: &str = r#"
origin = "http://127.0.0.1:3000"
defaults.stale_if_error = "10m"

[tier.hot]
ttl = "5m"
stale_while_revalidate = "1m"

[[route]]
name = "tiles"
match = "GET /dashboard/tiles/{tile}"
tier = "hot"
tags = ["tile:{tile}"]
query = { ignore = ["utm_*"], sort = true }

[[route]]
name = "reports"
match = "/reports/**"
ttl = "${CHECK_TTL}"
ttl_from = "rule"

[[route]]
name = "checkout"
match = "/api/checkout/**"
cache = false
"#;

#[test]
fn a_valid_file_shows_its_routes() {
    let (output, _directory) = check(Some(VALID), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    insta::assert_snapshot!(text(&output.stdout), @"
    name       match                        ttl         ttl_from  stale_while_revalidate  stale_if_error  stale_if_disconnected  details
    tiles      GET /dashboard/tiles/{tile}  5m          origin    1m                      10m             10m                    query without utm_*; query sorted; tags tile:{tile}
    reports    /reports/**                  1m30s       rule      -                       10m             10m                    -
    checkout   /api/checkout/**             not cached  -         -                       -               -                      -
    unmatched  (anything else)              -           origin    -                       10m             10m                    -

    Without a partition, a ttl applies only to requests without credentials and unknown cookies; other responses are shared only if the origin allows it: docs/credentials.md

    proxy.toml: valid, 3 routes, 0 warnings
    ");
}

#[test]
fn times_by_status_and_what_defaults_say_are_shown() {
    let file = r#"
origin = "http://127.0.0.1:3000"
[defaults]
query.ignore = "nocache"
bypass = { query = "nocache=true", refresh = true }
[tier.graph]
ttl = "1m"
store_unless = ["$.errors[0]"]
client_cache = "no-cache"
[[route]]
name = "graph"
match = "/graph"
tier = "graph"
ttl = { "404" = "10s" }
"#;
    let (output, _directory) = check(Some(file), &[]);
    assert_eq!(text(&output.stderr), "");
    insta::assert_snapshot!(text(&output.stdout), @"
    name       match            ttl                              ttl_from  stale_while_revalidate  stale_if_error  stale_if_disconnected  details
    graph      /graph           200 1m, 203 1m, 204 1m, 404 10s  origin    -                       -               10m                    query without nocache; bypass by query nocache=true; bypass refreshes the cache; not stored with $.errors[0]; clients no-cache
    unmatched  (anything else)  -                                origin    -                       -               10m                    query without nocache; bypass by query nocache=true; bypass refreshes the cache

    Without a partition, a ttl applies only to requests without credentials and unknown cookies; other responses are shared only if the origin allows it: docs/credentials.md

    proxy.toml: valid, 1 route, 0 warnings
    ");
}

#[test]
fn errors_fail_the_check_without_colours_in_a_pipe() {
    let file = "origin = \"http://127.0.0.1:3000\"\n[store]\nmemroy = \"1GiB\"\n";
    let (output, _directory) = check(Some(file), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    insta::assert_snapshot!(text(&output.stderr), @r#"
    error: unknown key `memroy` in `store`
     --> proxy.toml:3:1
      |
    3 | memroy = "1GiB"
      | ^^^^^^
      |
      = help: did you mean `memory`?
    "#);
}

#[test]
fn warnings_are_shown_and_do_not_fail_the_check() {
    let file = VALID.replace("/api/checkout/**", "/reports/{report}");
    let (output, _directory) = check(Some(&file), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("warning: this route never matches"), "{output:?}");
    assert!(text(&output.stdout).ends_with("proxy.toml: valid, 3 routes, 1 warning\n"));
}

#[test]
fn a_missing_file_is_named() {
    let (output, _directory) = check(None, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: cannot read proxy.toml"), "{output:?}");
    let (output, _directory) = check(None, &["--config", "other.toml"]);
    assert!(text(&output.stderr).starts_with("error: cannot read other.toml"), "{output:?}");
}

#[test]
fn the_documented_file_is_valid() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
    let (output, _directory) = check(None, &["--config", file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn addresses_that_may_purge_and_are_trusted_proxies_are_a_warning() {
    let overlapping = [
        ("[\"10.0.0.0/8\"]", "[\"10.1.0.0/16\"]"),
        ("[\"10.1.2.3\"]", "[\"192.0.2.0/24\", \"10.1.0.0/16\"]"),
        ("[\"::1\"]", "[\"::/0\"]"),
    ];
    for (trusted, purgers) in overlapping {
        let file = format!(
            "trusted_proxies = {trusted}\norigin = \"http://127.0.0.1:1\"\nadmin.purge_from = {purgers}\n"
        );
        let (output, _directory) = check(Some(&file), &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let printed = text(&output.stderr);
        assert!(
            printed.starts_with("warning: some of these addresses are in `trusted_proxies`"),
            "{printed}"
        );
        assert_eq!(printed.matches("warning:").count(), 1, "{printed}");
    }
    let apart = "trusted_proxies = [\"10.0.0.0/8\"]\norigin = \"http://127.0.0.1:1\"\nadmin.purge_from = [\"192.0.2.0/24\", \"::/0\"]\n";
    let (output, _directory) = check(Some(apart), &[]);
    assert_eq!(text(&output.stderr), "");
}

const TESTED: &str = r#"
origin = "http://127.0.0.1:3000"
[[route]]
name = "tiles"
match = "GET /tiles/{tile}"
ttl = "5m"
tags = ["tile:{tile}"]
query = { ignore = ["utm_*"] }
[[route]]
name = "rest"
match = "/**"
cache = false

[[test]]
name = "one"
request = "GET https://api.example.com/tiles/1?a=1&utm_source=x"
response = { status = 200 }
route = "tiles"
outcome = "stored"
ttl = "5m"
tags = ["tile:1"]
query = "a=1"
partition = "none"
same_key_as = "two"

[[test]]
name = "two"
request = "GET https://api.example.com/tiles/1?a=1"
response = { status = 200, headers = { cache-control = "private" } }
outcome = "not-stored"
reason = "private"

[[test]]
name = "three"
request = "POST https://api.example.com/tiles/1"
route = "rest"
outcome = "pass"
"#;

#[test]
fn tests_of_a_configuration_that_hold_pass_the_check() {
    let (output, _directory) = check(Some(TESTED), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).ends_with("\n3 tests, 0 failed\n"), "{output:?}");
}

#[test]
fn a_rule_that_breaks_a_test_fails_the_check_and_says_why() {
    let broken = TESTED
        .replace("ttl = \"5m\"\ntags = [\"tile:{tile}\"]", "ttl = \"1m\"\ntags = [\"tile\"]")
        .replace("ignore = [\"utm_*\"]", "ignore = [\"a\"]")
        .replace("match = \"GET /tiles/{tile}\"", "match = \"/tiles/{tile}\"");
    let (output, _directory) = check(Some(&broken), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).ends_with("\n3 tests, 2 failed\n"), "{output:?}");
    insta::assert_snapshot!(text(&output.stderr));
}

#[test]
fn a_test_that_cannot_be_read_is_an_error_of_the_configuration() {
    let file = r#"
origin = "http://127.0.0.1:3000"
[[test]]
name = "one"
request = "tiles"
[[test]]
name = "two"
request = "GET /"
outcome = "stord"
reason = "privat"
same_key_as = "tow"
[[test]]
name = "three"
request = "GET /"
ttl = "5m"
headers = { "a b" = "c" }
[[test]]
name = "four"
request = "GET /"
"#;
    let (output, _directory) = check(Some(file), &[]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output.stderr));
}

#[test]
fn a_test_of_a_route_that_is_gone_stops_no_node() {
    let file = TESTED.replace("name = \"tiles\"", "name = \"tile\"");
    let config = larder::testing::config::Config::parse(
        &file,
        "proxy.toml",
        larder::testing::config::Environment::empty(),
    );
    assert!(config.is_ok());
    let (output, _directory) = check(Some(&file), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did you mean `tile`?"), "{output:?}");
}

#[test]
fn the_check_explains_a_url() {
    let (output, _directory) =
        check(Some(VALID), &["--explain", "https://a.test/dashboard/tiles/1"]);
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    assert!(
        printed.contains("GET https://a.test/dashboard/tiles/1\n")
            && printed.contains("  tiles  GET /dashboard"),
        "{printed}"
    );
}

const WITH_USERS: &str = r#"
origin = "http://127.0.0.1:3000"
[[route]]
name = "stocks"
match = "/stocks/{stock}"
ttl = "5m"
partition = "user"
tags = ["stocks:{user}"]

[[test]]
name = "zoe"
request = "GET https://api.example.com/stocks/1"
user = { sub = "zoe" }
response = { status = 200, headers = { cache-control = "private" } }
partition = "user"
outcome = "stored"
tags = ["stocks:{user}"]
same_key_as = "zoe again"
other_key_than = ["bob", "zoe with more rights"]

[[test]]
name = "zoe again"
request = "GET https://api.example.com/stocks/1"
user = { sub = "zoe" }
outcome = "lookup"

[[test]]
name = "zoe with more rights"
request = "GET https://api.example.com/stocks/1"
user = { sub = "zoe", scope = "write" }
outcome = "lookup"

[[test]]
name = "bob"
request = "GET https://api.example.com/stocks/1"
user = { sub = "bob" }
outcome = "lookup"

[[test]]
name = "nobody"
request = "GET https://api.example.com/stocks/1"
outcome = "pass"
reason = "no-identity"
"#;

#[test]
fn users_of_tests_need_no_token() {
    for user in [
        "jwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef\" }",
        "jwt = { cookie = \"token\", jwks = \"https://issuer.test/jwks\", iss = \"https://issuer.test\", aud = \"api\" }",
    ] {
        let file = format!("{WITH_USERS}\n[user]\n{user}\n");
        let (output, _directory) = check(Some(&file), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

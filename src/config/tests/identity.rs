//! Tests of authentication.

use super::*;

fn problems(text: &str) -> String {
    let text = format!("origin = \"http://o.test\"\n{text}");
    match Config::parse(&text, "proxy.toml", Environment::empty()) {
        Ok(config) => config.warnings.to_string().trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

const SECRET: &str = "secret = \"0123456789abcdef0123456789abcdef\"";

fn route(partition: &str) -> String {
    format!("[[route]]\nname = \"r\"\nmatch = \"/r\"\nttl = \"1m\"\npartition = \"{partition}\"\n")
}

#[test]
fn what_proves_who_asks_is_read() {
    for jwt in [
        SECRET,
        "secrets = [\"0123456789abcdef0123456789abcdef\", \"base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]",
        "jwks = \"https://i.test/jwks\", aud = \"a\", iss = [\"b\"]",
        "jwks = \"http://127.0.0.1:1/jwks\", aud = \"a\", iss = \"b\"",
        "secret = \"0123456789abcdef0123456789abcdef\", cookie = \"s\", algorithms = [\"HS512\"], claim = \"uid\"",
    ] {
        let text = format!(
            "[user]\njwt = {{ {jwt} }}\nrecheck = \"1m\"\nnarrows = []\n{}",
            route("claim:tenant")
        );
        assert_eq!(problems(&text), "", "{jwt}");
    }
    let text = format!(
        "[user]\nheader = {{ name = \"x-user\", from = \"10.0.0.0/8\" }}\n{}",
        route("authenticated")
    );
    assert_eq!(problems(&text), "");
}

#[test]
fn a_gateway_at_every_address_is_a_warning() {
    for network in ["0.0.0.0/0", "::/0"] {
        let text = format!("[user]\nheader = {{ name = \"x-user\", from = \"{network}\" }}\n");
        assert!(problems(&text).contains("any client could impersonate any user"), "{network}");
    }
}

#[test]
fn a_partition_that_is_misspelt_gets_a_suggestion() {
    let found = problems(&route("users"));
    assert!(
        found.contains("expected `everyone`") && found.contains("did you mean `user`?"),
        "{found}"
    );
}

#[test]
fn a_secret_that_is_not_set_is_one_error() {
    let found = problems("[user]\njwt = { secret = \"${LARDER_NOT_SET}\" }\n");
    assert!(found.contains("`LARDER_NOT_SET` is not set"), "{found}");
    assert!(!found.contains("no key to verify"), "{found}");
}

#[test]
fn what_cannot_prove_who_asks_is_an_error() {
    for (jwt, expected) in [
        ("claim = \"sub\"", "no key to verify tokens"),
        ("secret = \"\"", "the secret is empty"),
        ("secret = \"base64:!\"", "not valid base64"),
        ("secret = \"short\"", "fewer than 32 bytes"),
        ("public_key = \"x\"", "expected a public key in PEM"),
        ("secret = \"a\", jwks = \"https://i.test/\"", "exclude each other"),
        ("jwks = \"https://i.test/\", iss = \"a\"", "no `aud`"),
        ("jwks = \"https://i.test/\", aud = \"a\", iss = []", "no `iss`"),
        ("jwks = \"http://i.test/\", aud = \"a\", iss = \"b\"", "expected `https`"),
        (
            "jwks = \"https://u:p@i.test/\", aud = \"a\", iss = \"b\"",
            "without user name and password",
        ),
        ("jwks = \"ftp://i.test/\", aud = \"a\", iss = \"b\"", "expected a URL"),
        ("secret = \"a\", header = \"cookie\"", "use `cookie = \"NAME\"`"),
        ("secret = \"a\", header = \"x\", cookie = \"y\"", "not in both"),
        ("secret = \"a\", algorithms = [\"none\"]", "expected one of"),
        ("secret = \"a\", algorithms = [\"RS256\"]", "no configured key supports `RS256`"),
    ] {
        let found = problems(&format!("[user]\njwt = {{ {jwt} }}\n"));
        assert!(found.contains(expected), "{jwt}: {found}");
    }
    let both =
        format!("[user]\njwt = {{ {SECRET} }}\nheader = {{ name = \"x\", from = \"10.0.0.1\" }}\n");
    assert!(problems(&both).contains("exclude each other"));
    assert!(problems("[user]\nheader = { name = \"x\" }\n").contains("no `from`"));
}

#[test]
fn a_partition_needs_what_it_is_made_of() {
    let gateway = "[user]\nheader = { name = \"x\", from = \"10.0.0.1\" }\n";
    let redis = "[store]\nredis = \"redis://r.test\"\n";
    for (user, partition, expected) in [
        ("", "authenticated", "requires authentication"),
        ("", "claim:tenant", "requires authentication"),
        (gateway, "claim:tenant", "claims are read from tokens"),
        (redis, "user", "requires `user.digest_key`"),
    ] {
        let found = problems(&format!("{user}{}", route(partition)));
        assert!(found.contains(expected), "{partition}: {found}");
    }
    assert_eq!(problems(&route("user")), "");
    let with_jwt = format!("{redis}[user]\njwt = {{ {SECRET} }}\n{}", route("user"));
    assert_eq!(problems(&with_jwt), "");
    let in_defaults = "[defaults]\npartition = \"authenticated\"\n";
    assert!(problems(in_defaults).contains("requires authentication"));
}

#[test]
fn what_a_partition_keeps_apart_is_not_public_downstream() {
    for (client_cache, is_error) in [
        ("public, max-age=5", true),
        ("max-age=5, S-Maxage = 9", true),
        ("private, max-age=5", false),
        ("max-age=5", false),
    ] {
        let text = format!("{}client_cache = \"{client_cache}\"\n", route("user"));
        assert_eq!(problems(&text).contains("downstream caches"), is_error, "{client_cache}");
        let for_all = format!("{}client_cache = \"{client_cache}\"\n", route("everyone"));
        assert_eq!(problems(&for_all), "");
    }
}

#[test]
fn secrets_of_tokens_are_never_shown() {
    let text = format!("[user]\njwt = {{ {SECRET}, aud = 1 }}\n");
    let text = format!("origin = \"http://o.test\"\n{}", text.replace(", aud = 1", ""));
    let config = Config::parse(&text, "proxy.toml", Environment::empty()).unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

//! Tests of `[events]`.

use super::{errors, parse, warnings};
use crate::feed::{CorsOrigins, TagPattern};

#[test]
fn events_are_understood() {
    let config = parse(
        r#"
        origin = "http://origin"
        [events]
        allow_origins = ["https://App.example.com:443", "http://localhost:5173"]
        tags = ["tile:*", "kpi"]
        listeners = 100
        "#,
    );
    let events = config.events.unwrap();
    let CorsOrigins::Only(origins) = events.origins else { panic!("{:?}", events.origins) };
    assert_eq!(origins, ["https://app.example.com", "http://localhost:5173"]);
    let tags = [TagPattern::Prefix("tile:".into()), TagPattern::Exact("kpi".into())];
    assert_eq!((events.tags.as_slice(), events.listeners), (tags.as_slice(), 100));
}

#[test]
fn without_a_section_there_are_no_events() {
    assert_eq!(parse("origin = \"http://origin\"").events, None);
    let open = parse("origin = \"http://origin\"\n[events]\ntags = \"*\"\nallow_origins = \"*\"");
    let open = open.events.unwrap();
    assert_eq!((open.origins, open.listeners), (CorsOrigins::Any, 5000));
}

#[test]
fn what_cannot_be_meant_is_pointed_at() {
    for (text, said) in [
        (r#"tags = ["stocks:{user}"]"#, "`[user]` configures no authentication"),
        (r#"tags = ["{tile}"]"#, "the only placeholder is `{user}`"),
        (r#"tags = ["stocks:{user}:*"]"#, "`*` cannot be combined with `{user}`"),
        (r#"tags = ["*:a"]"#, "`*` is only allowed at the end"),
        (r#"tags = [""]"#, "a tag is empty"),
        (r#"allow_origins = ["app.example.com"]"#, "expected an origin"),
        (r#"allow_origins = ["https://a.example/app"]"#, "expected an origin"),
        ("listeners = 0", "expected a value above zero"),
    ] {
        let errors = errors(&format!("[events]\n{text}"));
        assert!(errors.contains(said), "{text}: {errors}");
    }
    let jwt = "\n[user]\njwt = { secret = \"0123456789abcdef0123456789abcdef\" }";
    let several = errors(&format!("[events]\ntags = [\"stocks:{{user}}\"]{jwt}"));
    assert!(several.contains("needs one issuer"), "{several}");
    let jwt = jwt.replace(" }", ", iss = \"https://i.example\" }");
    let any = "[events]\nallow_origins = \"*\"\ntags = [\"stocks:{user}\"]";
    let any = errors(&format!("{any}{jwt}"));
    assert!(any.contains("a list of allowed origins"), "{any}");
    let covered = format!("[events]\ntags = [\"stocks:*\", \"stocks:{{user}}\"]{jwt}");
    let covered = warnings(&covered);
    assert!(covered[0].contains("shows everyone"), "{covered:?}");
    assert!(warnings("[events]")[0].contains("`events` has no `tags`"));
    let crowd = warnings("[limits]\nconnections = 10\n[events]\ntags = \"a\"\nlisteners = 10");
    assert!(crowd[0].contains("could occupy all connections"), "{crowd:?}");
}

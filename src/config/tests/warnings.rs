//! Tests of warnings.

use super::warnings;

#[test]
fn what_a_route_without_reads_says_about_stored_responses_has_no_effect() {
    let text = "[[route]]\nname = \"a\"\nmatch = \"POST|PUT /a\"\nttl = \"1m\"\ntags = [\"a\"]\n";
    let message =
        |key: &str| format!("`{key}` has no effect: responses to POST and PUT are not stored");
    assert_eq!(warnings(text), [message("ttl"), message("tags")]);
    assert_eq!(warnings(&text.replace("POST|PUT", "GET|POST")), [""; 0]);
}

#[test]
fn a_purged_tag_that_looks_like_a_slip_is_pointed_at() {
    let routes =
        "[[route]]\nname = \"a\"\nmatch = \"GET /a/{id}\"\ntags = [\"orders\", \"order:{id}\"]\n";
    let purging = |tag: &str| {
        [
            format!("[[schedule]]\ncron = \"@daily\"\npurge = [\"{tag}\"]\n"),
            format!("[[poll]]\nname = \"p\"\nurl = \"http://p\"\npurge = [\"{tag}\"]\n"),
            format!("[[route]]\nname = \"w\"\nmatch = \"POST /w\"\non_write = {{ purge = [\"{tag}\"] }}\n"),
            format!("[[webhook]]\nname = \"w\"\nscheme = \"bearer\"\nsecret = \"s\"\n[[webhook.on]]\npurge = [\"{tag}\"]\n"),
        ]
        .map(|section| warnings(&format!("{routes}{section}")))
    };
    for found in purging("oders") {
        assert_eq!(found, ["no route sets this tag"]);
    }
    for tag in ["orders", "order:7", "sent-by-the-origin"] {
        for found in purging(tag) {
            assert_eq!(found, [""; 0], "{tag}");
        }
    }
}

#[test]
fn encoding_that_never_happens_is_pointed_at() {
    let route = |keys: &str| {
        warnings(&format!("[[route]]\nname = \"a\"\nmatch = \"GET /a\"\nencode = [\"br\"]\n{keys}"))
    };
    let personal = "`encode` has no effect: the responses of this `partition` are personal";
    let off = "`encode` has no effect: coded responses are kept in memory only";
    assert_eq!(route(""), [""; 0]);
    assert_eq!(route("partition = \"user\""), [personal]);
    assert_eq!(route("partition = \"user\"\nencode_private = false"), [personal]);
    assert_eq!(route("partition = \"user\"\nencode_private = true"), [""; 0]);
    assert_eq!(route("cache = false"), ["`encode` has no effect: the route is not cached"]);
    assert_eq!(route("[store]\nmemory = \"0\"\nredis = \"redis://r\""), [off]);
    let open = "`encode_private` has no effect: the responses of this route are not personal";
    assert_eq!(route("encode_private = true"), [open]);
    let unused =
        "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\npartition = \"user\"\nencode_private = true";
    assert_eq!(warnings(unused), ["`encode_private` has no effect without `encode`"]);
}

#[test]
fn a_default_ttl_that_no_route_takes_has_no_effect() {
    let defaults = "[defaults]\nttl = \"1m\"\n";
    let message = "`defaults.ttl` has no effect: no route uses it";
    assert_eq!(warnings(defaults), [message]);
    let own = "[[route]]\nname = \"a\"\nmatch = \"/a\"\nttl = \"5m\"\n";
    assert_eq!(warnings(&format!("{defaults}{own}")), [message]);
    let taken = "[[route]]\nname = \"a\"\nmatch = \"/a\"\n";
    assert_eq!(warnings(&format!("{defaults}{taken}")), [""; 0]);
}

#[test]
fn a_path_without_its_slash_is_taken_for_a_host() {
    let schedule = |warm: &str| format!("[[schedule]]\ncron = \"@daily\"\nwarm = [\"{warm}\"]\n");
    assert_eq!(
        warnings(&schedule("dashboard/x")),
        ["this matches the host `dashboard`; a path begins with `/`"]
    );
    for warm in ["/dashboard/x", "api.test/x", "localhost:3000/x", "http://dashboard/x"] {
        assert_eq!(warnings(&schedule(warm)), [""; 0], "{warm}");
    }
}

const USERS: &str =
    "[user]\njwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef\" }\n";

#[test]
fn partitions_without_effect_and_tags_of_nobody_are_pointed_at() {
    let route = |keys: &str| format!("{USERS}[[route]]\nname = \"a\"\nmatch = \"/a\"\n{keys}");
    assert_eq!(
        warnings(&route("cache = false\npartition = \"user\"")),
        ["`partition` has no effect: the route is not cached"]
    );
    let tags = |partition: &str| {
        warnings(&route(&format!("ttl = \"1m\"\n{partition}\ntags = [\"a:{{user}}\"]")))
    };
    assert_eq!(tags("partition = \"user\""), [""; 0]);
    let message = "this tag is never set: responses of this route do not belong to a single user";
    assert_eq!(tags("partition = \"authenticated\""), [message]);
}

#[test]
fn watching_a_route_that_shares_nothing_has_no_effect() {
    let route = |keys: &str| {
        let file = format!("{USERS}[[route]]\nname = \"a\"\nmatch = \"/a\"\n{keys}");
        [true, false].map(|on| warnings(&format!("{file}\ndetect_leaks = {on}")))
    };
    for (keys, why) in [
        ("partition = \"user\"", "each user has responses of their own"),
        ("partition = \"everyone\"", "requests reach the origin without credentials"),
        ("cache = false", "the route is not cached"),
    ] {
        let message = format!("`detect_leaks` has no effect: {why}");
        assert_eq!(route(keys), [[message.as_str()], [message.as_str()]], "{keys}");
    }
    for keys in ["partition = \"authenticated\"", "partition = \"claim:tenant\"", "ttl = \"1m\""] {
        assert_eq!(route(keys), [[""; 0], [""; 0]], "{keys}");
    }
}

#[test]
fn warming_with_a_token_for_a_route_without_a_partition_is_pointed_at() {
    let file = |partition: &str| {
        format!(
            "{USERS}[[route]]\nname = \"login\"\nmatch = \"POST /login\"\non_success = {{ warm = [\"/items/{{?a}}\"] }}\n[[route]]\nname = \"items\"\nmatch = \"/items/{{item}}\"\nttl = \"1m\"\n{partition}\n"
        )
    };
    let message =
        "prefetches with the caller's token are not stored: route `items` has no `partition`";
    assert_eq!(warnings(&file("")), [message]);
    assert_eq!(warnings(&file("partition = \"user\"")), [""; 0]);
}

#[test]
fn a_post_that_looks_like_a_read_is_pointed_at() {
    let route = |pattern: &str, rest: &str| {
        warnings(&format!("[[route]]\nname = \"a\"\nmatch = \"{pattern}\"\n{rest}"))
    };
    let found = route("POST /graphql", "");
    assert!(found.len() == 1 && found[0].contains("adds a record to the purge log"), "{found:?}");
    for (pattern, rest) in [
        ("POST /graphql", "on_write = { invalidate = false }"),
        ("/graphql", ""),
        ("POST /orders", ""),
    ] {
        assert!(route(pattern, rest).is_empty(), "{pattern} {rest}");
    }
}

#[test]
fn comparisons_that_never_take_place_are_pointed_at() {
    let route = |keys: &str| {
        warnings(&format!("[[route]]\nname = \"a\"\nmatch = \"/a\"\nttl = \"1m\"\n{keys}\n"))
    };
    let none: [&str; 0] = [];
    assert_eq!(route("shadow = true\ncompare = { ignore = [\"$.at\"] }"), none);
    assert_eq!(route("audit = \"1%\"\ncompare = { ignore = [\"$.at\"] }"), none);
    assert_eq!(
        route("shadow = true\naudit = \"1%\""),
        ["`audit` has no effect: shadow mode compares every response"]
    );
    assert_eq!(
        route("compare = { ignore = [\"$.at\"] }"),
        ["`compare` has no effect: the route has neither `shadow` nor `audit`"]
    );
    let why = "the route is not cached";
    assert_eq!(
        route("cache = false\nshadow = true\naudit = \"1%\""),
        [format!("`shadow` has no effect: {why}"), format!("`audit` has no effect: {why}")]
    );
    let writes = "[[route]]\nname = \"a\"\nmatch = \"POST /a\"\nshadow = true\n";
    assert_eq!(
        warnings(writes),
        ["`shadow` has no effect: responses of this route are not stored"]
    );
}

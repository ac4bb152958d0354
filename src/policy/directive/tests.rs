//! Tests of the directive parsers.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn response(cache_control: &str) -> ResponseDirectives {
    ResponseDirectives::parse(&headers(&[("cache-control", cache_control)]))
}

fn request(cache_control: &str) -> RequestDirectives {
    RequestDirectives::parse(&headers(&[("cache-control", cache_control)]))
}

#[test]
fn directives_are_case_insensitive() {
    assert!(response("No-StOrE").no_store);
    assert!(response("Private, max-age=100").private);
    assert_eq!(response("MaX-aGe=3600").max_age, Some(3600));
}

#[test]
fn seconds_are_clamped_and_invalid_ones_are_zero() {
    for (text, seconds) in [
        ("2147483647", 2_147_483_647),
        ("2147483648", MAX_DELTA_SECONDS),
        ("2147483649", MAX_DELTA_SECONDS),
        ("99999999999999999999999999", MAX_DELTA_SECONDS),
        ("003600", 3600),
        ("\"3600\"", 3600),
        ("-3600", 0),
        ("+3600", 0),
        ("'3600'", 0),
        ("3600.0", 0),
        ("a3600", 0),
        ("3600a", 0),
        (" 3600", 0),
        ("", 0),
    ] {
        assert_eq!(response(&format!("max-age={text}")).max_age, Some(seconds), "{text}");
    }
    assert_eq!(response("max-age =3600").max_age, Some(0));
    assert_eq!(response("max-age").max_age, Some(0));
    assert_eq!(response("stale-if-error=x").stale_if_error, None);
}

#[test]
fn directives_within_quotes_do_not_count() {
    assert_eq!(response(r#"extension="max-age=3600", max-age=1"#).max_age, Some(1));
    assert_eq!(response(r#"max-age="1", extension="max-age=3600""#).max_age, Some(1));
    assert!(!response(r#"ext="a, no-store, b", max-age=1"#).no_store);
    assert!(response(r#"ext="a, no-store, b"#).no_store, "an unclosed quote hides nothing");
}

#[test]
fn the_first_of_two_counts() {
    assert_eq!(response("max-age=1, max-age=1800").max_age, Some(1));
    let two_lines =
        headers(&[("cache-control", "max-age=3600"), ("cache-control", "max-age=1800")]);
    assert_eq!(ResponseDirectives::parse(&two_lines).max_age, Some(3600));
}

#[test]
fn a_forbidding_directive_counts_with_any_argument() {
    assert!(response("no-store=yes").no_store);
    assert!(response("no-store =1").no_store);
    assert!(response("private=\"\"").private);
    assert!(response("private=\"not a name\"").private);
    assert!(response("no-cache=\",\"").no_cache);
}

#[test]
fn qualified_directives_withhold_their_fields_only() {
    let directives = response(r#"no-cache="a, B", private="c", max-age=3600"#);
    assert!(!directives.no_cache && !directives.private);
    let names: Vec<_> = directives.qualified_fields.iter().map(HeaderName::as_str).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let both = response(r#"private="a", private"#);
    assert!(both.private);
    for unclear in [r"private=c", r#"private="a b""#, r#"private="a";x"#, r#"pri_vate="a""#] {
        assert!(response(unclear).private, "{unclear}");
    }
}

#[test]
fn a_forbidding_word_counts_between_any_separators() {
    for text in [
        "no-store; private",
        "private max-age=300",
        "max-age=300;private",
        "\"private\"",
        "\"private, max-age=300\"",
        "'private'",
        "ext=private",
        "ext=\"a\" private \"b\"",
        "max-age=300\tPRIVATE",
        "{private}",
        "private:true",
        "Cache-Control: private",
    ] {
        assert!(response(text).private, "{text}");
    }
    for text in ["no_store", "nostore", "NO_STORE=x", "no-store; max-age=0", "max-age=9 no-store."]
    {
        assert!(response(text).no_store && request(text).no_store, "{text}");
    }
    for text in ["no_cache", "no-cache=1", "no-cache;no-transform", "max-age=0 no-cache"] {
        assert!(response(text).no_cache && request(text).no_cache, "{text}");
    }
    assert!(response("max-age=9, Must_Revalidate;").proxy_revalidate);
    assert!(!response("max-age=9, Must_Revalidate;").must_revalidate, "it allows nothing");
    assert_eq!(response("privately, no-storey, x-private, unstore").qualified_fields.len(), 0);
    let plain = response("privately, no-storey, x-private, unstore");
    assert_eq!(plain, ResponseDirectives::default());
}

#[test]
fn what_allows_has_to_be_well_formed() {
    for text in ["public; max-age=9", "public max-age=9", "\"public\"", "public=1", "s-maxage=x"] {
        assert!(!response(text).shareable && !response(text).public, "{text}");
    }
    assert!(response("public").shareable && response("s-maxage=0").shareable);
    for text in ["public; max-age=9", "max-age=9 public", "max-age=\"9\" x", "max-age=9=9"] {
        assert_eq!(response(text).max_age, Some(0), "{text}");
    }
    assert_eq!(response("ext=\"max-age=9 \"").max_age, None);
    for text in ["immutable=1", "must-understand;", "must-understand=1", "must_understand"] {
        assert!(!response(text).immutable && !response(text).must_understand, "{text}");
    }
    for text in ["stale-if-error=9;", "stale_if_error=9", "stale-if-error =9"] {
        assert_eq!(response(text).stale_if_error, None, "{text}");
    }
}

#[test]
fn pragma_counts_where_a_response_has_no_other_directives() {
    assert!(ResponseDirectives::parse(&headers(&[("pragma", "No-cache")])).no_cache);
    let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=9")]);
    assert!(!ResponseDirectives::parse(&both).no_cache);
    let targeted = headers(&[("pragma", "no-cache"), ("cdn-cache-control", "max-age=9")]);
    assert!(!ResponseDirectives::parse(&targeted).no_cache);
}

#[test]
fn targeted_fields_come_first_and_alone() {
    let both =
        headers(&[("cache-control", "no-store"), ("cdn-cache-control", "max-age=600, public")]);
    let directives = ResponseDirectives::parse(&both);
    assert_eq!(directives.source, DirectiveSource::CdnCacheControl);
    assert_eq!(directives.max_age, Some(600));
    assert!(directives.public && !directives.no_store);

    let three = headers(&[
        ("cache-control", "max-age=1"),
        ("surrogate-control", "max-age=2"),
        ("cdn-cache-control", "no-cache=\"a\", s-maxage=3, no-store=?0, stale-if-error=4;x"),
    ]);
    let directives = ResponseDirectives::parse(&three);
    assert_eq!((directives.max_age, directives.s_maxage), (None, Some(3)));
    assert_eq!(directives.stale_if_error, Some(4));
    assert!(!directives.no_store && !directives.no_cache);
    assert_eq!(directives.qualified_fields.len(), 1);
}

#[test]
fn an_invalid_targeted_field_is_ignored_as_a_whole() {
    for invalid in
        ["", "max-age=600,", "MAX-AGE=600", "max-age =600", "no-store, &", "max-age= 600"]
    {
        let map = headers(&[("cache-control", "max-age=1"), ("cdn-cache-control", invalid)]);
        let directives = ResponseDirectives::parse(&map);
        assert_eq!(directives.source, DirectiveSource::CacheControl, "{invalid}");
        assert_eq!(directives.max_age, Some(1), "{invalid}");
    }
}

#[test]
fn a_targeted_field_with_a_directive_of_another_type_is_ignored() {
    for wrong in [
        "max-age=1.5",
        "max-age=\"abc\"",
        "max-age",
        "max-age=(1)",
        "max-age=60, s-maxage=?1",
        "max-age=60, public=yes",
        "max-age=60, stale-if-error=:YQ==:",
        "max-age=60, must-revalidate=1",
    ] {
        let map = headers(&[("cache-control", "max-age=9"), ("cdn-cache-control", wrong)]);
        let directives = ResponseDirectives::parse(&map);
        assert_eq!((directives.max_age, directives.public), (Some(9), false), "{wrong}");
    }
    let negative = headers(&[("cache-control", "max-age=9"), ("cdn-cache-control", "max-age=-5")]);
    assert_eq!(ResponseDirectives::parse(&negative).max_age, Some(0), "a number, but no time");
    let unknown = headers(&[("cdn-cache-control", "max-age=60, x=(1 2), y=1.5")]);
    assert_eq!(ResponseDirectives::parse(&unknown).max_age, Some(60));
}

#[test]
fn a_targeted_field_that_is_ignored_forbids_all_the_same() {
    for (name, value) in [
        ("cdn-cache-control", "no-store, &"),
        ("cdn-cache-control", "No-Store"),
        ("cdn-cache-control", "max-age=60.5, no_store"),
        ("cdn-cache-control", "no-store=0"),
        ("surrogate-control", "no-store; max-age=0"),
        ("surrogate-control", "\"no-store\""),
    ] {
        let map = headers(&[("cache-control", "must-understand, max-age=9"), (name, value)]);
        let directives = ResponseDirectives::parse(&map);
        assert!(directives.no_store && !directives.must_understand, "{name}: {value}");
        assert_eq!(directives.max_age, Some(9));
    }
    let valid = headers(&[("cdn-cache-control", "max-age=60;private, x=?0;no-cache")]);
    let directives = ResponseDirectives::parse(&valid);
    assert!(directives.private && directives.no_cache);
    for value in ["no-store;x=?0", "no-store;x=?0, max-age=60", "y=?0;no-store", "y=?0, no-store"] {
        let map = headers(&[("cdn-cache-control", value)]);
        assert!(ResponseDirectives::parse(&map).no_store, "{value}");
    }
    let named = headers(&[("cdn-cache-control", "private=\"a\", max-age =1")]);
    assert_eq!(ResponseDirectives::parse(&named).qualified_fields.len(), 1);
}

#[test]
fn surrogate_control_gives_freshness_or_forbids() {
    let map = headers(&[("cache-control", "no-store"), ("surrogate-control", "max-age=9;larder")]);
    let directives = ResponseDirectives::parse(&map);
    assert_eq!((directives.max_age, directives.no_store), (Some(9), false));
    let map = headers(&[("cache-control", "max-age=9"), ("surrogate-control", "no-store")]);
    assert!(ResponseDirectives::parse(&map).no_store);
    let map = headers(&[("cache-control", "max-age=9"), ("surrogate-control", "foo")]);
    assert_eq!(ResponseDirectives::parse(&map).source, DirectiveSource::CacheControl);
}

#[test]
fn request_directives_are_read() {
    let directives =
        request("no-cache, no-store, max-age=1, min-fresh=2, max-stale, only-if-cached");
    assert!(directives.no_cache && directives.no_store && directives.only_if_cached);
    assert_eq!((directives.max_age, directives.min_fresh), (Some(1), Some(2)));
    assert_eq!(directives.max_stale, Some(MAX_DELTA_SECONDS));
    assert_eq!(request("max-stale=7, stale-if-error=8").max_stale, Some(7));
    assert_eq!(request("max-age=x, nothing-to-see-here"), RequestDirectives::default());
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let pragma = headers(&[("pragma", "foo, No-Cache")]);
    assert!(RequestDirectives::parse(&pragma).no_cache);
    let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=9")]);
    assert!(!RequestDirectives::parse(&both).no_cache);
    assert_eq!(
        RequestDirectives::parse(&headers(&[("pragma", "foo")])),
        RequestDirectives::default()
    );
}

proptest! {
    #[test]
    fn no_value_makes_the_parsers_panic(value in proptest::collection::vec(0x20u8..0x7f, 0..60)) {
        let mut map = HeaderMap::new();
        for name in ["cache-control", "cdn-cache-control", "surrogate-control", "pragma"] {
            map.insert(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let _ = RequestDirectives::parse(&map);
        let seconds = ResponseDirectives::parse(&map).max_age;
        prop_assert!(seconds.is_none_or(|seconds| seconds <= MAX_DELTA_SECONDS));
    }

    #[test]
    fn a_forbidding_word_of_its_own_is_never_missed(
        before in "[a-z0-9=,;\"' \t\\\\-]{0,16}",
        word in proptest::sample::select(vec!["no-store", "No_Store", "NOSTORE", "no-STORE"]),
        open in proptest::sample::select(SEPARATORS.to_vec()),
        close in proptest::sample::select(SEPARATORS.to_vec()),
        after in "[a-z0-9=,;\"' \t\\\\-]{0,16}",
    ) {
        // A word is exempt only inside a quoted argument of a directive.
        let text = format!("{before}{open}{word}{close}{after}");
        let quotes = |text: &str| text.contains('"');
        let may_hide = quotes(&format!("{before}{open}")) && quotes(&format!("{close}{after}"));
        prop_assert!(may_hide || response(&text).no_store, "{}", text);
        let line = format!("{before},{word},{after}");
        let map = headers(&[("cache-control", &line), ("cache-control", &text)]);
        let hidden = quotes(&before) && quotes(&after);
        prop_assert!(may_hide || hidden || ResponseDirectives::parse(&map).no_store);
    }

    #[test]
    fn junk_beside_it_never_lifts_what_is_forbidden(
        words in proptest::collection::vec(
            proptest::sample::select(vec!["private", "no-store", "max-age=60", "public", "x=\"y\""]),
            1..4,
        ),
        junk in "[a-z0-9=; \t'\"\\\\-]{0,16}",
        is_first: bool,
    ) {
        let plain = words.join(", ");
        let line = if is_first { format!("{junk}, {plain}") } else { format!("{plain}, {junk}") };
        // An odd quote may join the word with the text after it: no directive, or the argument of
        // one.
        prop_assume!(junk.matches('"').count() % 2 == 0 && !junk.contains('\\'));
        let (before, after) = (response(&plain), response(&line));
        prop_assert!(!before.private || after.private, "{}", line);
        prop_assert!(!before.no_store || after.no_store, "{}", line);
        prop_assert!(before.shareable || !after.shareable, "{}", line);
        prop_assert!(before.max_age.is_some() || after.max_age.unwrap_or(0) == 0, "{}", line);
    }
}

const SEPARATORS: [&str; 15] =
    [",", ";", " ", "\t", "\"", "'", "=", ", ", "; ", ":", "/", "(", "\u{a0}", "|", "."];

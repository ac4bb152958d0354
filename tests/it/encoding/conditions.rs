//! Validators and ranges of coded forms.

use super::{BROWSER, ROUTE, encodable, get, json, made, origin_of, send, until_coded};
use crate::support::{
    proxy::{Proxy, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    within,
};

#[tokio::test]
async fn a_copy_in_any_accepted_coding_is_confirmed_with_its_own_tag() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let br = get(&proxy, "/a", &[("accept-encoding", "br")]).await.etag().to_owned();
        let gzip = get(&proxy, "/a", &[("accept-encoding", "gzip")]).await.etag().to_owned();
        let weak = format!("W/{gzip}");
        for (tags, accepted, expected) in [
            (&*br, "br", Some(&*br)),
            (&*gzip, "br, gzip", Some(&*gzip)),
            ("\"v1\"", "br", Some("\"v1\"")),
            (&*weak, "gzip", Some(&*weak)),
            (&*format!("\"x\", {br}"), "br, gzip", Some(&*br)),
            ("\"v1--br-0000000000000000\"", "br", Some("\"v1--br-0000000000000000\"")),
            ("*", "br", Some(&*br)),
            // The client would not be able to read these.
            (&*br, "gzip", None),
            (&*br, "", None),
            ("\"v2\"", "br", None),
            ("\"v2--br-0000000000000000\"", "br", None),
        ] {
            let fields = [("accept-encoding", accepted), ("if-none-match", tags)];
            for method in ["GET", "HEAD"] {
                let reply = send(&proxy, method, "/a", &fields).await;
                let status = if expected.is_some() { 304 } else { 200 };
                assert_eq!((reply.status(), reply.cache()), (status, "HIT"), "{tags} {accepted}");
                assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
                if let Some(tag) = expected {
                    assert_eq!((reply.etag(), reply.coding()), (tag, "-"), "{tags} {accepted}");
                    assert!(reply.bytes.is_empty());
                }
            }
        }
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_copy_outlives_what_the_node_has_stored() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let tag = get(&proxy, "/a", &[BROWSER]).await.etag().to_owned();
        // A node that has nothing stored.
        let other = Proxy::with(&origin.url(), ROUTE);
        for cache in ["MISS", "HIT"] {
            let reply = get(&other, "/a", &[BROWSER, ("if-none-match", &tag)]).await;
            assert_eq!((reply.status(), reply.cache(), reply.etag()), (304, cache, &*tag));
        }
        let reply = get(&other, "/b", &[("if-none-match", &tag)]).await;
        assert_eq!(reply.summary(), "200 MISS -", "without Accept-Encoding any coding is accepted");
    })
    .await;
}

#[tokio::test]
async fn the_origin_sees_its_own_tags_in_conditions() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some("\"v1\"") if request.target != "/a" => {
                OriginResponse::status(304, "").with("etag", "\"v1\"")
            }
            _ => encodable(json(4096)),
        })
        .await;
        let uncached = "[[route]]\nname = \"b\"\nmatch = \"/private\"\ncache = false\n";
        let measured = "[[route]]\nname = \"c\"\nmatch = \"/shadow\"\nshadow = true\n";
        let proxy = Proxy::with(&origin.url(), &format!("{uncached}{measured}{ROUTE}"));
        get(&proxy, "/a", &[]).await;
        let tag = get(&proxy, "/a", &[BROWSER]).await.etag().to_owned();
        let mut wire = proxy.connect().await;
        let put = request_with_body("PUT", "/a", &[("if-match", &tag)], "x");
        wire.exchange(put).await;
        assert_eq!(origin.last().header("if-match"), Some("\"v1\""));
        get(&proxy, "/a", &[("if-match", &tag)]).await;
        assert_eq!(origin.last().header("if-match"), Some("\"v1\""));
        for path in ["/private", "/shadow"] {
            let reply = get(&proxy, path, &[BROWSER, ("if-none-match", &tag)]).await;
            assert_eq!(origin.last().header("if-none-match"), Some("\"v1\""));
            assert_eq!((reply.status(), reply.etag()), (304, &*tag), "{path}");
        }
        let refused = [("accept-encoding", "gzip"), ("if-none-match", &*tag)];
        assert_eq!(get(&proxy, "/private", &refused).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn without_encoding_tags_pass_as_they_are() {
    within(async {
        let origin = origin_of(encodable("short")).await;
        let proxy = Proxy::before(&origin.url());
        let tag = "\"v1--br-0123456789abcdef\"";
        let mut wire = proxy.connect().await;
        wire.exchange(request_with_body("PUT", "/a", &[("if-match", tag)], "x")).await;
        assert_eq!(origin.last().header("if-match"), Some(tag));
    })
    .await;
}

#[tokio::test]
async fn a_range_is_one_of_the_stored_body_unless_if_range_names_a_form() {
    within(async {
        let body = json(4096);
        let origin = origin_of(encodable(&*body)).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let whole = get(&proxy, "/a", &[BROWSER]).await;
        let range = ("range", "bytes=100-199");
        for fields in [&[BROWSER, range][..], &[BROWSER, range, ("if-range", "\"v1\"")]] {
            let part = get(&proxy, "/a", fields).await;
            assert_eq!((part.summary(), part.etag()), ("206 HIT -".to_owned(), "\"v1\""));
            assert_eq!(part.bytes, body.as_bytes()[100..200]);
            let length = body.len();
            assert_eq!(part.header("content-range"), Some(&*format!("bytes 100-199/{length}")));
        }
        let fields = [BROWSER, range, ("if-range", whole.etag())];
        let part = get(&proxy, "/a", &fields).await;
        assert_eq!((part.summary(), part.etag()), ("206 HIT br".to_owned(), whole.etag()));
        assert_eq!(part.bytes, whole.bytes[100..200]);
        let length = whole.bytes.len();
        assert_eq!(part.header("content-range"), Some(&*format!("bytes 100-199/{length}")));
        // Another version, a form that this node does not have, one that the client cannot read.
        for (accepted, tag, coding) in [
            (BROWSER.1, "\"v0--br-0123456789abcdef\"", "br"),
            (BROWSER.1, "\"v1--br-0123456789abcdef\"", "br"),
            (BROWSER.1, "\"v0\"", "br"),
            ("gzip", whole.etag(), "gzip"),
            ("", whole.etag(), "-"),
        ] {
            let fields = [("accept-encoding", accepted), range, ("if-range", tag)];
            let full = get(&proxy, "/a", &fields).await;
            assert_eq!(full.summary(), format!("200 HIT {coding}"), "{tag}");
            assert_eq!(full.decoded(), body, "{tag}");
        }
        let beyond = [BROWSER, ("range", "bytes=3000-"), ("if-range", whole.etag())];
        assert!(whole.bytes.len() < 3000);
        let beyond = get(&proxy, "/a", &beyond).await;
        assert_eq!(beyond.status(), 416);
        assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{length}")));
    })
    .await;
}

#[tokio::test]
async fn a_response_dated_alone_gets_tags_for_its_forms() {
    within(async {
        let response = OriginResponse::fresh(json(4096))
            .with("content-type", "text/plain")
            .with("last-modified", MODIFIED);
        let origin = origin_of(response).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let br = get(&proxy, "/a", &[BROWSER]).await;
        assert!(br.etag().contains("--br-"), "{}", br.etag());
        assert_eq!(br.header("last-modified"), Some(MODIFIED));
        assert_eq!(get(&proxy, "/a", &[]).await.header("etag"), None);
        let current = [BROWSER, ("if-none-match", br.etag())];
        assert_eq!(get(&proxy, "/a", &current).await.status(), 304);
        let since = [BROWSER, ("if-modified-since", MODIFIED)];
        assert_eq!(get(&proxy, "/a", &since).await.status(), 304);
        let other = format!("\"0{}", &br.etag()[2..]);
        assert_eq!(get(&proxy, "/a", &[BROWSER, ("if-none-match", &other)]).await.status(), 200);
    })
    .await;
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A response with both validators.
fn dated(content_type: &str) -> OriginResponse {
    OriginResponse::fresh(json(4096))
        .with("content-type", content_type)
        .with("etag", "\"v1\"")
        .with("last-modified", MODIFIED)
}

const TEXT: &str = "text/plain";
const IMAGE: &str = "image/png";

#[tokio::test]
async fn a_304_by_date_names_no_form() {
    within(async {
        let tagless = OriginResponse::fresh(json(4096))
            .with("content-type", TEXT)
            .with("last-modified", MODIFIED);
        let since = ("if-modified-since", MODIFIED);
        for (response, expected) in
            [(dated(TEXT), "W/\"v1\""), (tagless, "-"), (dated(IMAGE), "\"v1\"")]
        {
            let origin = origin_of(response).await;
            let proxy = Proxy::with(&origin.url(), ROUTE);
            // The client may have the form that the origin sent, or any other.
            for cache in ["MISS", "HIT"] {
                for fields in [&[BROWSER, since][..], &[since]] {
                    let target = format!("/{}", fields.len());
                    let reply = get(&proxy, &target, fields).await;
                    assert_eq!((reply.status(), reply.cache()), (304, cache));
                    assert_eq!(reply.etag(), expected, "{fields:?}");
                    assert_eq!(reply.header("last-modified"), Some(MODIFIED));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_tag_of_a_304_by_date_validates_every_form_and_resumes_none() {
    within(async {
        let origin = origin_of(dated(TEXT)).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let tag = "W/\"v1\"";
        for fields in [&[BROWSER][..], &[]] {
            let current = [fields, &[("if-none-match", tag)]].concat();
            let reply = get(&proxy, "/a", &current).await;
            assert_eq!((reply.status(), reply.cache()), (304, "HIT"));
            let part = [fields, &[("range", "bytes=9-"), ("if-range", tag)]].concat();
            assert_eq!(get(&proxy, "/a", &part).await.status(), 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_date_resumes_no_response_that_has_forms() {
    within(async {
        let part = [("range", "bytes=9-"), ("if-range", MODIFIED)];
        for (response, toml, status) in
            [(dated(TEXT), ROUTE, 200), (dated(TEXT), "", 206), (dated(IMAGE), ROUTE, 206)]
        {
            let origin = origin_of(response).await;
            let proxy = Proxy::with(&origin.url(), toml);
            get(&proxy, "/a", &[]).await;
            // Clients ask for parts without a coding.
            for accepted in [BROWSER.1, "identity", "identity;q=1, *;q=0", ""] {
                let fields = [&part[..], &[("accept-encoding", accepted)]].concat();
                let reply = get(&proxy, "/a", &fields).await;
                assert_eq!((reply.status(), reply.cache()), (status, "HIT"), "{accepted}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_origin_continues_no_form() {
    within(async {
        // An origin that knows nothing of forms.
        let origin = ScriptedOrigin::start(|request| {
            let is_current = |name: &str| request.header(name).is_none_or(|it| it == "\"v1\"");
            if !is_current("if-match") {
                return OriginResponse::status(412, "");
            }
            match request.header("range") {
                Some(_) => OriginResponse::status(206, "x").with("content-range", "bytes 9-9/4096"),
                None => dated(TEXT),
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let tag = get(&proxy, "/a", &[BROWSER]).await.etag().to_owned();
        let range = ("range", "bytes=9-9");
        assert_eq!(get(&proxy, "/a", &[BROWSER, range, ("if-match", &tag)]).await.status(), 412);
        assert_eq!(get(&proxy, "/a", &[BROWSER, ("if-match", &tag)]).await.status(), 200);
        assert_eq!(get(&proxy, "/a", &[range, ("if-match", "\"v1\"")]).await.status(), 206);
        // Nothing is stored for this target.
        let dated = [range, ("if-range", MODIFIED)];
        assert_eq!(get(&proxy, "/b", &dated).await.status(), 200);
        assert_eq!(get(&proxy, "/c", &[range]).await.status(), 206);
    })
    .await;
}

#[tokio::test]
async fn a_passed_304_by_date_names_no_form() {
    within(async {
        let origin = ScriptedOrigin::always(
            OriginResponse::status(304, "")
                .with("etag", "\"v1\"")
                .with("cache-control", "no-store"),
        )
        .await;
        for (toml, expected) in [(ROUTE, "W/\"v1\""), ("", "\"v1\"")] {
            let proxy = Proxy::with(&origin.url(), toml);
            // Nothing is stored, so the origin responds.
            let reply = send(&proxy, "HEAD", "/a", &[("if-modified-since", MODIFIED)]).await;
            assert_eq!((reply.status(), reply.etag()), (304, expected));
        }
    })
    .await;
}

#[tokio::test]
async fn a_form_outlives_validation_and_serves_stale() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some("\"v1\"") => OriginResponse::status(304, "")
                .with("etag", "\"v1\"")
                .with("x-turn", &request.before.to_string())
                .with("cache-control", "max-age=10, stale-while-revalidate=60"),
            Some(other) => panic!("the origin never sent {other}"),
            None => OriginResponse::ok(json(4096))
                .with("content-type", "text/plain")
                .with("etag", "\"v1\"")
                .with("cache-control", "max-age=10, stale-while-revalidate=60"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &ROUTE.replace("ttl = \"1h\"\n", ""));
        get(&proxy, "/a", &[]).await;
        let first = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(first.summary(), "200 HIT br");
        proxy.advance(15);
        let stale = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!((stale.summary(), &stale.bytes), ("200 STALE br".to_owned(), &first.bytes));
        loop {
            let fresh = get(&proxy, "/a", &[BROWSER]).await;
            assert_eq!((fresh.coding(), fresh.etag()), ("br", first.etag()));
            if fresh.cache() == "HIT" {
                assert_eq!(fresh.header("x-turn"), Some("1"), "the head is the new one");
                break;
            }
        }
        proxy.advance(100);
        let revalidated = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(revalidated.summary(), "200 REVALIDATED br");
        assert_eq!(revalidated.header("x-turn"), Some("2"));
        assert_eq!(made(&proxy).await, 1, "the content is the same");
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_always_validated_is_encoded_once() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some(_) => OriginResponse::status(304, "").with("etag", "\"v1\""),
            None => OriginResponse::ok(json(40_000))
                .with("content-type", "text/plain")
                .with("etag", "\"v1\"")
                .with("cache-control", "no-cache"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &ROUTE.replace("ttl = \"1h\"\n", ""));
        get(&proxy, "/a", &[]).await;
        until_coded(&proxy, "/a", "zstd").await;
        for _ in 0..5 {
            let reply = get(&proxy, "/a", &[("accept-encoding", "zstd")]).await;
            assert_eq!(reply.summary(), "200 REVALIDATED zstd");
        }
        assert_eq!(made(&proxy).await, 1);
    })
    .await;
}

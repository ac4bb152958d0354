//! Which requests get which form, and which responses have none.

use super::{BROWSER, ROUTE, encodable, get, json, made, origin_of, send};
use crate::support::{
    proxy::{Proxy, request},
    script::{OriginResponse, ScriptedOrigin},
    token::{bearer, by_token},
    wire::RawOrigin,
    within,
};

#[tokio::test]
async fn a_hit_comes_in_the_coding_that_its_client_prefers() {
    within(async {
        let body = json(4096);
        let origin = origin_of(encodable(&*body)).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        let first = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(first.summary(), "200 MISS -", "the response streams through");
        assert_eq!((first.header("vary"), first.etag()), (Some("Accept-Encoding"), "\"v1\""));
        // Twice: forms of one response do not take each other's heads.
        for (accepted, coding) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, zstd", "zstd"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip;q=1, br;q=0.5", "gzip"),
            ("*", "br"),
            ("br;q=0, *", "zstd"),
            ("deflate", "-"),
            ("identity, br;q=0.5", "-"),
            ("", "-"),
        ]
        .repeat(2)
        {
            let hit = get(&proxy, "/a", &[("accept-encoding", accepted)]).await;
            assert_eq!(hit.summary(), format!("200 HIT {coding}"), "{accepted}");
            assert_eq!(hit.decoded(), body, "{accepted}");
            assert_eq!(hit.header("vary"), Some("Accept-Encoding"), "{accepted}");
            let is_own_tag = hit.etag().starts_with(&format!("\"v1--{coding}-"));
            assert!(if coding == "-" { hit.etag() == "\"v1\"" } else { is_own_tag }, "{accepted}");
        }
        let plain = get(&proxy, "/a", &[]).await;
        assert_eq!((plain.summary(), plain.decoded()), ("200 HIT -".to_owned(), body));
        assert_eq!(origin.requests(), 1);
        assert_eq!(made(&proxy).await, 3, "each form is made once");
    })
    .await;
}

#[tokio::test]
async fn head_says_what_get_would() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        for fields in [&[BROWSER][..], &[]] {
            let head = send(&proxy, "HEAD", "/a", fields).await;
            let get = get(&proxy, "/a", fields).await;
            assert_eq!(head.summary(), get.summary());
            for name in ["content-length", "etag", "vary", "content-encoding", "content-type"] {
                assert_eq!(head.header(name), get.header(name), "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_may_not_be_transformed_is_sent_as_it_is_stored() {
    within(async {
        for (name, value) in [
            ("cache-control", "max-age=60, no-transform"),
            ("content-digest", "sha-256=:AA==:"),
            ("repr-digest", "sha-256=:AA==:"),
            ("digest", "sha-256=AA=="),
            ("signature", "a=:AA==:"),
            ("content-md5", "AA=="),
            ("content-encoding", "deflate"),
            ("content-type", "image/png"),
        ] {
            let response = OriginResponse::ok(json(4096)).with(name, value);
            let response = match name {
                "content-type" => response.with("cache-control", "max-age=60"),
                "cache-control" => response.with("content-type", "text/plain"),
                _ => {
                    response.with("content-type", "text/plain").with("cache-control", "max-age=60")
                }
            };
            let origin = origin_of(response).await;
            let proxy = Proxy::with(&origin.url(), ROUTE);
            let accepted = ("accept-encoding", "deflate, br, gzip");
            for cache in ["MISS", "HIT", "HIT"] {
                let reply = get(&proxy, "/a", &[accepted]).await;
                let coding = if name == "content-encoding" { "deflate" } else { "-" };
                assert_eq!(reply.summary(), format!("200 {cache} {coding}"), "{name}");
                let vary = (name == "content-encoding").then_some("Accept-Encoding");
                assert_eq!(reply.header("vary"), vary, "{name}");
            }
            assert_eq!(made(&proxy).await, 0, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn short_bodies_and_errors_are_sent_as_they_are_stored() {
    within(async {
        for (what, response) in
            [("short", encodable(json(900))), ("error", encodable(json(4096)).status_of(404))]
        {
            let origin = origin_of(response).await;
            let proxy = Proxy::with(&origin.url(), ROUTE);
            get(&proxy, "/a", &[BROWSER]).await;
            let hit = get(&proxy, "/a", &[BROWSER]).await;
            assert_eq!(
                (hit.cache(), hit.coding(), hit.header("vary")),
                ("HIT", "-", None),
                "{what}"
            );
        }
    })
    .await;
}

/// An origin that always sends these bytes.
async fn raw_origin(response: Vec<u8>) -> RawOrigin {
    RawOrigin::start(move |mut wire, _| {
        let response = response.clone();
        async move {
            while wire.try_read_head().await.is_some() {
                wire.write(&response).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn trailers_stay_with_the_body_as_it_is_stored() {
    within(async {
        let body = json(4096);
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-type: text/plain\r\n\
                    trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
        let response = format!("{head}{:x}\r\n{body}\r\n0\r\nx-sum: 7\r\n\r\n", body.len());
        let origin = raw_origin(response.into_bytes()).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        for cache in ["MISS", "HIT", "HIT"] {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/a", &[BROWSER, ("te", "trailers")])).await;
            let head = wire.read_head().await;
            assert!(head.contains(&format!("x-api-cache: {cache}")), "{head}");
            assert!(!head.contains("content-encoding"), "{head}");
            assert_eq!(wire.read_chunks().await.0, body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_does_not_become_smaller_is_tried_once() {
    within(async {
        let noise: Vec<u8> = (0..4096).map(|_| fastrand::u8(..)).collect();
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-type: text/plain\r\n\
                    content-length: 4096\r\n\r\n";
        let response = [head.as_bytes(), &noise].concat();
        let origin = raw_origin(response).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        for cache in ["MISS", "HIT", "HIT", "HIT"] {
            let reply = get(&proxy, "/a", &[BROWSER]).await;
            assert_eq!((reply.summary(), &reply.bytes), (format!("200 {cache} -"), &noise));
            assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
        }
        let tried = proxy.metric("larder_encodings_total", "result=\"not-smaller\"").await;
        assert_eq!(tried, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_forbids_transforming_gets_the_response_as_it_is_stored() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let own = [BROWSER, ("cache-control", "no-transform")];
        assert_eq!(get(&proxy, "/a", &own).await.summary(), "200 HIT -");
        assert_eq!(get(&proxy, "/a", &[BROWSER]).await.summary(), "200 HIT br");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_refuses_the_stored_form_is_answered_by_the_origin() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let reply = get(&proxy, "/a", &[("accept-encoding", "deflate, identity;q=0")]).await;
        assert_eq!((reply.cache(), origin.requests()), ("MISS", 2));
    })
    .await;
}

#[tokio::test]
async fn personal_responses_are_encoded_only_if_the_route_says_so() {
    within(async {
        for (partition, key, coding) in [
            ("user", "", "-"),
            ("authenticated", "", "-"),
            ("user", "encode_private = false\n", "-"),
            ("user", "encode_private = true\n", "br"),
            ("everyone", "", "br"),
        ] {
            let origin = origin_of(encodable(json(4096))).await;
            let file = by_token(partition);
            let encode = format!("{key}encode = [\"br\"]\n");
            let proxy = Proxy::with(&origin.url(), &format!("{file}\n{encode}"));
            let token = bearer("zoe", "read");
            let fields = [("authorization", &*token), BROWSER];
            get(&proxy, "/a", &fields).await;
            let hit = get(&proxy, "/a", &fields).await;
            assert_eq!(hit.summary(), format!("200 HIT {coding}"), "{partition} {key}");
            let vary = (coding == "br").then_some("Accept-Encoding");
            assert_eq!(hit.header("vary"), vary, "{partition} {key}");
        }
    })
    .await;
}

#[tokio::test]
async fn variants_that_the_origin_chooses_are_encoded_each() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let language = request.header("accept-language").unwrap_or("-").to_owned();
            let body = format!("{}{language}", json(4096));
            let response = encodable(body).with("vary", "accept-language, Accept-Encoding");
            // The origin encodes for one coding only.
            match request.header("accept-encoding") {
                Some("deflate") => response.with("content-encoding", "deflate"),
                _ => response,
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        for language in ["de", "en"] {
            for (accepted, coding) in [("br", "br"), ("deflate", "deflate"), ("gzip", "gzip")] {
                let fields = [("accept-language", language), ("accept-encoding", accepted)];
                get(&proxy, "/a", &fields).await;
                let hit = get(&proxy, "/a", &fields).await;
                assert_eq!(hit.summary(), format!("200 HIT {coding}"), "{language}");
                assert_eq!(hit.header("vary"), Some("accept-language, Accept-Encoding"));
                assert!(hit.decoded().ends_with(language));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_reload_turns_encoding_on_and_off() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let off = ROUTE.replace("encode = ", "#");
        let proxy = Proxy::with(&origin.url(), &off);
        get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(get(&proxy, "/a", &[BROWSER]).await.summary(), "200 HIT -");
        proxy.reconfigure(&origin.url(), ROUTE);
        assert_eq!(get(&proxy, "/a", &[BROWSER]).await.summary(), "200 HIT br");
        proxy.reconfigure(&origin.url(), &off);
        let plain = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!((&*plain.summary(), plain.header("vary")), ("200 HIT -", None));
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

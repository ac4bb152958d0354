//! Requests that Larder answers itself stand in the access log as others do.

use crate::support::{
    proxy::{Proxy, request, sum},
    script::{OriginResponse, ScriptedOrigin},
    within,
};

const MORE: &str = "[events]\ntags = [\"a\"]\n[[webhook]]\nname = \"shop\"\nscheme = \"bearer\"\n\
                    secret = \"0123456789abcdef\"\n[[webhook.on]]\npurge = [\"a\"]\n\
                    [[route]]\nname = \"private\"\nmatch = \"/private/{id}\"\nsensitive = true\n";

#[tokio::test]
async fn what_larder_answers_itself_is_logged_and_counted() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{MORE}"));
        let known = [("X-Request-ID", "r-1")];
        proxy.send("GET", "/_larder/version?query=secret", &known).await;
        proxy.send("POST", "/_larder/webhooks/shop", &[("Content-Length", "0")]).await;
        proxy.send("PURGE", "/private/7", &[("Authorization", "Bearer secret")]).await;
        proxy.send("GET", "/_larder/nothing", &[]).await;
        let log = proxy.log(4).await;
        let expected = [
            ("GET", "/_larder/version", 200),
            ("POST", "/_larder/webhooks/shop", 401),
            ("PURGE", "/private/{id}", 200),
            ("GET", "/_larder/nothing", 404),
        ];
        for (line, (method, path, status)) in log.iter().zip(expected) {
            assert_eq!((&line["method"], &line["path"]), (&method.into(), &path.into()));
            assert_eq!((&line["status"], &line["host"]), (&status.into(), &"api.test".into()));
            assert_eq!((&line["route"], line["cache"].is_null()), (&"larder".into(), true));
            assert!(line["bytes"].as_u64().unwrap() > 0, "{line}");
            assert!(!line["request_id"].as_str().unwrap().is_empty(), "{line}");
        }
        assert_eq!(log[0]["request_id"], "r-1");
        assert!(!proxy.log_text().contains("secret"));
        let metrics = proxy.admin("/metrics").await;
        assert_eq!(metrics.status(), 401, "it has a token");
    })
    .await;
}

#[tokio::test]
async fn what_larder_answers_itself_is_counted_by_endpoint() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), MORE);
        proxy.get("/_larder/sync").await;
        proxy.get("/_larder/webhooks/none").await;
        let metrics = proxy.admin("/metrics").await.body;
        let count = |labels: &str| sum(&metrics, "larder_own_requests_total", labels);
        assert_eq!(count("class=\"2xx\",endpoint=\"sync\""), 1, "{metrics}");
        assert_eq!(count("class=\"4xx\",endpoint=\"webhook\""), 1);
        assert_eq!(sum(&metrics, "larder_requests_total", ""), 0);
    })
    .await;
}

#[tokio::test]
async fn an_event_stream_is_logged_when_it_ends() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), MORE);
        let mut stream = proxy.connect().await;
        stream.write(request("GET", "/_larder/events", &[])).await;
        stream.read_until("event: ").await;
        proxy.get("/a").await;
        assert_eq!(proxy.log(1).await[0]["path"], "/a", "the stream goes on");
        drop(stream);
        let line = &proxy.log(2).await[1];
        assert_eq!((&line["path"], &line["status"]), (&"/_larder/events".into(), &200.into()));
        assert!(line["bytes"].as_u64().unwrap() > 0);
    })
    .await;
}

#[tokio::test]
async fn what_the_server_refuses_is_logged_with_its_reason() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), MORE);
        for (raw, reason, path) in [
            ("GET /a HTTP/1.1\r\nX-Request-ID: r-1\r\n\r\n", "host", "/a"),
            (
                "POST /private/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
                "length-and-encoding",
                "/private/{id}",
            ),
            ("no http\r\n\r\n", "malformed", ""),
        ] {
            let before = proxy.log_text().lines().count();
            let mut wire = proxy.connect().await;
            wire.write(raw).await;
            wire.read_to_end().await;
            let line = proxy.log(before + 1).await.pop().unwrap();
            assert_eq!((&line["reason"], &line["path"]), (&reason.into(), &path.into()), "{line}");
            assert_eq!((&line["status"], line["cache"].is_null()), (&400.into(), true), "{line}");
            assert!(!line["request_id"].as_str().unwrap().is_empty());
        }
        assert_eq!(proxy.log(1).await[0]["request_id"], "r-1");
    })
    .await;
}

#[tokio::test]
async fn each_hit_has_a_request_id_in_the_log() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        proxy.get("/a").await;
        proxy.get("/a").await;
        proxy.get_with("/a", &[("X-Request-ID", "r-1")]).await;
        let long = "x".repeat(200);
        proxy.get_with("/a", &[("X-Request-ID", &long)]).await;
        let lines = proxy.log(5).await;
        let id = |line: usize| lines[line]["request_id"].as_str().unwrap();
        assert_eq!(lines[1]["cache"], "HIT");
        assert!(id(1).len() == 32 && id(2).len() == 32 && id(1) != id(2));
        assert_eq!(id(3), "r-1");
        assert_eq!(id(4).len(), 32, "one that the origin would not get either");
    })
    .await;
}

#[tokio::test]
async fn marks_that_reorder_text_are_escaped_in_the_log() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "log.access = \"text\"");
        let path = "/a\u{202e}gpj.exe\u{2066}\u{200f}";
        let mut wire = proxy.connect().await;
        wire.write(request("GET", path, &[])).await;
        wire.read_reply().await;
        let mut text = proxy.log_text();
        while !text.contains('\n') {
            tokio::task::yield_now().await;
            text = proxy.log_text();
        }
        assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{200f}']), "{text:?}");
    })
    .await;
}

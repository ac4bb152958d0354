//! Responses of each endpoint, and access control.

use super::*;

#[tokio::test]
async fn sync_returns_the_events_since_a_position() {
    let feed = feed(3);
    purge(&feed, 4, &["b"]);
    let seqs = |document: &serde_json::Value| -> Vec<u64> {
        let purges = document["purges"].as_array().unwrap();
        purges.iter().map(|purge| purge["seq"].as_u64().unwrap()).collect()
    };
    for since in ["1", &token(1), "2026-01-10T05:47:42Z", "2026-01-10T06:47:42%2B01:00"] {
        let known = document(ask(&feed, &format!("/_larder/sync?since={since}"), &[])).await;
        assert_eq!((&known["seq"], &known["reset"]), (&4.into(), &false.into()), "{since}");
        assert_eq!(seqs(&known), [2, 3], "{since}");
        assert_eq!(known["next"], token(4));
    }
    let of_another = format!("2-{:016x}", 1);
    for since in ["", "9", &of_another, "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
        let reset = document(ask(&feed, &format!("/_larder/sync?since={since}"), &[])).await;
        assert_eq!((&reset["seq"], &reset["reset"]), (&4.into(), &true.into()), "{since}");
        assert_eq!(seqs(&reset), [0; 0]);
    }
    assert_eq!(ask(&feed, "/_larder/sync?since=soon", &[]).status(), 400);
    assert_eq!(ask(&feed, "/_larder/events?since=soon", &[]).status(), 400);
}

#[tokio::test]
async fn version_returns_the_position_and_the_polls() {
    let feed = feed(3);
    let versions = document(ask(&feed, "/_larder/version", &[])).await;
    let polls = serde_json::json!({
        "sales": { "version": "v7", "changed_at": "2026-01-10T05:46:41.000Z" },
        "new": { "version": null, "changed_at": null },
    });
    assert_eq!(versions, serde_json::json!({ "seq": 3, "polls": polls }));
}

#[tokio::test]
async fn documents_are_sent_again_only_if_they_changed() {
    let feed = feed(3);
    for path in ["/_larder/sync?since=1", "/_larder/version"] {
        let before = ask(&feed, path, &[]);
        assert_eq!(before.headers()["cache-control"], "private, no-store");
        assert_eq!(before.headers()["date"], "Sat, 10 Jan 2026 05:48:20 GMT");
        let tag = before.headers()["etag"].to_str().unwrap().to_owned();
        let same = ask(&feed, path, &[("if-none-match", &tag)]);
        assert_eq!(
            (same.status().as_u16(), same.headers()["etag"].to_str().unwrap()),
            (304, &*tag)
        );
        assert!(same.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    let tag = ask(&feed, "/_larder/version", &[]).headers()["etag"].clone();
    purge(&feed, 4, &["b"]);
    let tag = tag.to_str().unwrap();
    assert_eq!(ask(&feed, "/_larder/version", &[("if-none-match", tag)]).status(), 200);
}

#[tokio::test]
async fn only_allowed_origins_may_read() {
    let feed = feed(1);
    for path in ["/_larder/events", "/_larder/sync", "/_larder/version"] {
        let allowed = ask(&feed, path, &[("origin", "https://app.test")]);
        assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.test");
        let readable = &allowed.headers()["access-control-expose-headers"];
        assert_eq!(readable, "Date, ETag, Retry-After");
        assert_eq!(allowed.headers()["vary"], "Origin");
        let other = ask(&feed, path, &[("origin", "https://evil.test")]);
        assert!(!other.headers().contains_key("access-control-allow-origin"));
        assert_eq!(other.headers()["vary"], "Origin");
    }
    let preflight = |origin| {
        let request = Request::options("/_larder/events").header(header::ORIGIN, origin);
        feed.respond(&request.body(()).unwrap(), &Caller::default()).unwrap()
    };
    let allowed = preflight("https://app.test");
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-methods"], "GET, HEAD");
    let fields = allowed.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(fields.contains("Last-Event-ID"));
    let other = preflight("https://evil.test");
    assert!(!other.headers().contains_key("access-control-allow-methods"));
    feed.replace(Some(Settings { origins: CorsOrigins::Any, ..settings(&["a*"]) }));
    let any = ask(&feed, "/_larder/version", &[("origin", "https://evil.test")]);
    assert_eq!(any.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn missing_endpoints_and_methods_are_rejected() {
    let feed = feed(1);
    assert!(
        feed.respond(&Request::get("/_larder/webhooks/a").body(()).unwrap(), &Caller::default())
            .is_none()
    );
    assert!(
        feed.respond(&Request::get("/_larder/events/").body(()).unwrap(), &Caller::default())
            .is_none()
    );
    let post = feed
        .respond(&Request::post("/_larder/events").body(()).unwrap(), &Caller::default())
        .unwrap();
    assert_eq!(
        (post.status().as_u16(), &post.headers()["allow"]),
        (405, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
    let head = Request::builder().method(Method::HEAD).uri("/_larder/events").body(()).unwrap();
    let head = feed.respond(&head, &Caller::default()).unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert!(http_body::Body::is_end_stream(head.body()));
    assert_eq!(feed.hub.metrics.feed.listeners.get(), 0);
}

#[tokio::test]
async fn it_follows_records_until_they_end() {
    let feed = feed(0);
    let (sender, records) = tokio::sync::mpsc::channel(8);
    let fence = Fence { log: LOG, seq: 41 };
    let begin = LogUpdate::Begin { fence, at: second(1), records: Vec::new() };
    sender.send(begin).await.unwrap();
    let everything = Purge {
        mode: PurgeMode::Soft,
        selectors: vec![Selector::Everything],
        source: PurgeSource::Api,
        reason: None,
        warm: false,
    };
    let record = PurgeRecord { seq: 42, at: second(2), purge: everything };
    sender.send(LogUpdate::Record(LOG, Arc::new(record))).await.unwrap();
    drop(sender);
    tokio::time::timeout(Duration::from_secs(5), feed.follow(records)).await.unwrap();
    let known = document(ask(&feed, "/_larder/sync?since=41", &[])).await;
    assert_eq!(known["purges"][0]["everything"], true);
    assert_eq!(known["purges"][0]["mode"], "soft");
}

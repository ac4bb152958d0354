//! The feed without a server: what is answered, and what a listener hears.

use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::BodyExt;

use super::*;
use crate::fence::{Fence, LogId, Mode, Purge, Record, Selector, Source};

const LOG: LogId = LogId(0xfeed);

fn settings(tags: &[&str]) -> Settings {
    let tags = tags.iter().map(|text| TagPattern::parse(text).unwrap()).collect();
    let origin = Origins::parse("https://app.test").unwrap();
    Settings { origins: Origins::Only(vec![origin]), tags, listeners: 2 }
}

fn second(seq: u64) -> Timestamp {
    Timestamp::from_seconds(1_768_024_000 + seq)
}

/// A feed that shows `a…`, and has heard of records 1 to `last`.
fn feed(last: u64) -> Feed {
    let version = |name: &str, version: Option<&str>| Version {
        name: name.into(),
        version: version.map(Into::into),
        changed_at: version.map(|_| second(1)),
    };
    let versions = move || vec![version("sales", Some("v7")), version("new", None)];
    let feed = Feed::new(Some(settings(&["a*"])), Metrics::new(), versions, || second(100));
    begin(&feed, LOG, 0);
    (1..=last).for_each(|seq| purge(&feed, seq, &["a"]));
    feed
}

fn begin(feed: &Feed, log: LogId, seq: u64) {
    let fence = Fence { log, seq };
    feed.hub.tell(&Heard::Begin { fence, at: second(seq), records: Vec::new() });
}

fn purge(feed: &Feed, seq: u64, tags: &[&str]) {
    let log = feed.hub.place().unwrap().log;
    feed.hub.tell(&Heard::Record(log, record(seq, tags)));
}

fn record(seq: u64, tags: &[&str]) -> Arc<Record> {
    let selectors = tags.iter().map(|tag| Selector::Tag((*tag).into())).collect();
    let purge = Purge { mode: Mode::Hard, selectors, source: Source::Api, reason: None };
    Arc::new(Record { seq, at: second(seq), purge })
}

fn ask(feed: &Feed, path: &str, fields: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    feed.answer(&request.body(()).unwrap()).unwrap()
}

/// What comes next; empty at the end.
async fn next(body: &mut Body) -> String {
    match body.frame().await {
        Some(frame) => String::from_utf8(frame.unwrap().into_data().unwrap().into()).unwrap(),
        None => String::new(),
    }
}

/// The stream of a listener, after what it is told before anything else.
async fn listen(feed: &Feed, path: &str, fields: &[(&str, &str)]) -> (Body, String) {
    let response = ask(feed, path, fields);
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = next(&mut body).await;
    let (retry, first) = first.split_once("\n\n").unwrap();
    let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1000..5000).contains(&retry));
    (body, first.to_owned())
}

async fn document(response: Response<Body>) -> serde_json::Value {
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// Where a listener stands who is told so.
fn stand(seq: u64) -> String {
    stand_in(LOG, seq)
}

fn stand_in(log: LogId, seq: u64) -> String {
    format!("id: {seq}-{:016x}\nevent: place\ndata: {{\"seq\":{seq}}}\n\n", log.0)
}

fn token(seq: u64) -> String {
    format!("{seq}-{:016x}", LOG.0)
}

/// The number and name of what a listener heard.
fn heard(frame: &str) -> (u64, &str) {
    let mut lines = frame.lines();
    let id = lines.next().unwrap().strip_prefix("id: ").unwrap().parse().unwrap();
    (id, lines.next().unwrap().strip_prefix("event: ").unwrap())
}

#[tokio::test]
async fn who_comes_anew_hears_what_comes_from_now_on() {
    let feed = feed(3);
    let (mut body, first) = listen(&feed, "/_larder/events", &[]).await;
    assert_eq!(first, format!("id: 3\nevent: hello\ndata: {{\"seq\":3}}\n\n{}", stand(3)));
    purge(&feed, 4, &["b"]);
    purge(&feed, 5, &["b", "a1", "a2"]);
    let event = next(&mut body).await;
    let data = r#"{"seq":5,"at":"2026-01-10T05:46:45.000Z","mode":"hard","tags":["a1","a2"]}"#;
    assert_eq!(event, format!("id: 5\nevent: purge\ndata: {data}\n\n{}", stand(5)));
}

#[tokio::test]
async fn who_comes_back_hears_what_it_missed_once() {
    let feed = feed(5);
    let (of_browser, of_number) = (token(3), "3".to_owned());
    let (of_query, of_time) = ("?since=3", "?since=2026-01-10T05:47:44Z");
    for (path, field) in [("", &of_browser), ("", &of_number), ("?since=1", &of_browser)] {
        let path = format!("/_larder/events{path}");
        let (mut body, first) = listen(&feed, &path, &[("last-event-id", field)]).await;
        assert_eq!(first, stand(3));
        assert_eq!(heard(&next(&mut body).await), (4, "purge"));
        assert_eq!(heard(&next(&mut body).await), (5, "purge"));
        purge(&feed, 6, &["b"]);
    }
    for query in [of_query, of_time] {
        let (mut body, _) = listen(&feed, &format!("/_larder/events{query}"), &[]).await;
        assert_eq!(heard(&next(&mut body).await), (4, "purge"));
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_have_missed_something_begins_anew() {
    let feed = feed(3);
    begin(&feed, LogId(7), 3);
    purge(&feed, 4, &["a"]);
    let of_another = token(3);
    for field in [&*of_another, "2", "9", "something else"] {
        let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", field)]).await;
        let reset = next(&mut body).await;
        assert_eq!(heard(&reset), (4, "reset"), "{field}");
        assert!(
            reset.ends_with(&format!("data: {{\"seq\":4}}\n\n{}", stand_in(LogId(7), 4))),
            "{reset}"
        );
        begin(&feed, LogId(8), 2);
        assert_eq!(heard(&next(&mut body).await), (2, "reset"));
        begin(&feed, LogId(7), 3);
        purge(&feed, 4, &["a"]);
    }
    assert_eq!(feed.hub.metrics.feed.resets.get(), 8);
}

#[tokio::test]
async fn a_log_that_continues_the_last_is_nothing_to_hear_of() {
    let feed = feed(3);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let other = LogId(0xabc);
    feed.hub.tell(&Heard::Record(other, record(4, &[])));
    feed.hub.tell(&Heard::Record(other, record(5, &["a"])));
    let event = next(&mut body).await;
    assert_eq!(heard(&event), (5, "purge"));
    assert!(event.ends_with(&stand_in(other, 5)), "{event}");
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", &token(2))]).await;
    let event = next(&mut body).await;
    assert_eq!(heard(&event), (3, "purge"));
    assert!(event.ends_with(&stand(3)), "{event}");
    assert_eq!(heard(&next(&mut body).await), (5, "purge"));
    let since = format!("/_larder/sync?since={}", token(2));
    let known = document(ask(&feed, &since, &[])).await;
    assert_eq!((&known["reset"], known["purges"].as_array().unwrap().len()), (&false.into(), 2));
    assert_eq!(known["next"], "5-0000000000000abc");
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_of_this_node_is_waited_for() {
    let feed = feed(3);
    let other = LogId(0xabc);
    let place = "5-0000000000000abc";
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", place)]).await;
    let waiting = tokio::spawn(async move { next(&mut body).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    (4..=6).for_each(|seq| feed.hub.tell(&Heard::Record(other, record(seq, &["a"]))));
    assert_eq!(heard(&waiting.await.unwrap()), (6, "purge"));
    let before = tokio::time::Instant::now();
    let place = "5-0000000000000def";
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", place)]).await;
    assert_eq!(heard(&next(&mut body).await), (6, "reset"));
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn what_is_known_at_first_is_known_at_once() {
    let feed = Feed::new(Some(settings(&["a*"])), Metrics::new(), Vec::new, || second(100));
    let place = format!("7-{:016x}", 0xabc);
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", &place)]).await;
    let waiting = tokio::spawn(async move { next(&mut body).await });
    tokio::task::yield_now().await;
    let of = |log, seq| (LogId(log), record(seq, &["a"]));
    let records = vec![of(0xfeed, 6), of(0xabc, 7), of(0xabc, 8)];
    let fence = Fence { log: LOG, seq: 5 };
    feed.hub.tell(&Heard::Begin { fence, at: second(5), records });
    assert_eq!(heard(&waiting.await.unwrap()), (8, "purge"));
    assert_eq!(feed.hub.metrics.feed.resets.get(), 0);
}

#[tokio::test]
async fn a_slow_listener_is_told_and_costs_nothing() {
    let feed = feed(0);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    (1..=5000).for_each(|seq| purge(&feed, seq, &["a"]));
    assert_eq!(heard(&next(&mut body).await), (5000, "reset"));
    purge(&feed, 5001, &["a"]);
    assert_eq!(heard(&next(&mut body).await), (5001, "purge"));
}

#[tokio::test]
async fn all_listeners_share_the_bytes_of_an_event() {
    let feed = feed(0);
    let (mut one, _) = listen(&feed, "/_larder/events", &[]).await;
    let (mut other, _) = listen(&feed, "/_larder/events", &[]).await;
    purge(&feed, 1, &["a"]);
    let one = one.frame().await.unwrap().unwrap().into_data().unwrap();
    let other = other.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(one.as_ptr(), other.as_ptr());
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_and_moves_the_listener_on() {
    let feed = feed(1);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let before = tokio::time::Instant::now();
    assert_eq!(next(&mut body).await, format!(":\n{}", stand(1)));
    assert_eq!(before.elapsed().as_secs(), 15);
    purge(&feed, 2, &["b"]);
    assert_eq!(next(&mut body).await, format!(":\n{}", stand(2)));
}

#[tokio::test(start_paused = true)]
async fn what_is_hidden_does_not_keep_listeners_in_silence() {
    let feed = Arc::new(feed(1));
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let before = tokio::time::Instant::now();
    let hidden = Arc::clone(&feed);
    let purging = tokio::spawn(async move {
        for seq in 2.. {
            tokio::time::sleep(Duration::from_secs(4)).await;
            purge(&hidden, seq, &["b"]);
        }
    });
    assert_eq!(next(&mut body).await, format!(":\n{}", stand(4)));
    assert_eq!(before.elapsed().as_secs(), 15);
    purging.abort();
}

#[tokio::test(start_paused = true)]
async fn before_a_log_is_known_listeners_wait_and_documents_are_not_there() {
    let feed = Feed::new(Some(settings(&["*"])), Metrics::new(), Vec::new, || second(0));
    let (mut body, first) = listen(&feed, "/_larder/events", &[]).await;
    assert_eq!((first.as_str(), next(&mut body).await.as_str()), ("", ":\n\n"));
    for path in ["/_larder/sync", "/_larder/version"] {
        let refused = ask(&feed, path, &[]);
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
    }
    begin(&feed, LOG, 8);
    assert_eq!(heard(&next(&mut body).await), (8, "reset"));
}

#[tokio::test]
async fn only_so_many_listen_at_once() {
    let feed = feed(0);
    let listeners = [ask(&feed, "/_larder/events", &[]), ask(&feed, "/_larder/events", &[])];
    let refused = ask(&feed, "/_larder/events", &[("origin", "https://app.test")]);
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://app.test");
    let metrics = &feed.hub.metrics.feed;
    assert_eq!((metrics.listeners.get(), metrics.refused.get()), (2, 1));
    drop(listeners);
    assert_eq!(metrics.listeners.get(), 0);
    assert_eq!(ask(&feed, "/_larder/events", &[]).status(), 200);
}

#[tokio::test]
async fn a_node_that_ends_sends_everybody_away() {
    let feed = feed(1);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let waiting = tokio::spawn(async move { next(&mut body).await });
    tokio::task::yield_now().await;
    feed.close();
    assert_eq!(waiting.await.unwrap(), "");
    let (mut late, _) = listen(&feed, "/_larder/events", &[]).await;
    assert_eq!(next(&mut late).await, "");
}

#[tokio::test]
async fn sync_tells_what_came_since() {
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
async fn version_tells_how_far_everything_is() {
    let feed = feed(3);
    let versions = document(ask(&feed, "/_larder/version", &[])).await;
    let polls = serde_json::json!({
        "sales": { "version": "v7", "changed_at": "2026-01-10T05:46:41.000Z" },
        "new": { "version": null, "changed_at": null },
    });
    assert_eq!(versions, serde_json::json!({ "seq": 3, "polls": polls }));
}

#[tokio::test]
async fn documents_are_told_again_only_where_they_changed() {
    let feed = feed(3);
    for path in ["/_larder/sync?since=1", "/_larder/version"] {
        let before = ask(&feed, path, &[]);
        assert_eq!(before.headers()["cache-control"], "no-cache");
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
async fn pages_of_allowed_origins_may_read_it_and_others_not() {
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
        feed.answer(&request.body(()).unwrap()).unwrap()
    };
    let allowed = preflight("https://app.test");
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-methods"], "GET, HEAD");
    let fields = allowed.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(fields.contains("Last-Event-ID"));
    let other = preflight("https://evil.test");
    assert!(!other.headers().contains_key("access-control-allow-methods"));
    feed.replace(Some(Settings { origins: Origins::Any, ..settings(&["a*"]) }));
    let any = ask(&feed, "/_larder/version", &[("origin", "https://evil.test")]);
    assert_eq!(any.headers()["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn what_it_does_not_have_it_says() {
    let feed = feed(1);
    assert!(feed.answer(&Request::get("/_larder/webhooks/a").body(()).unwrap()).is_none());
    assert!(feed.answer(&Request::get("/_larder/events/").body(()).unwrap()).is_none());
    let post = feed.answer(&Request::post("/_larder/events").body(()).unwrap()).unwrap();
    assert_eq!(
        (post.status().as_u16(), &post.headers()["allow"]),
        (405, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
    let head = Request::builder().method(Method::HEAD).uri("/_larder/events").body(()).unwrap();
    let head = feed.answer(&head).unwrap();
    assert_eq!(head.headers()["content-type"], "text/event-stream");
    assert!(http_body::Body::is_end_stream(head.body()));
    assert_eq!(feed.hub.metrics.feed.listeners.get(), 0);
}

#[tokio::test]
async fn without_settings_there_is_nothing_and_nobody_stays() {
    let feed = feed(1);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    feed.replace(None);
    assert_eq!(next(&mut body).await, "");
    let off = ask(&feed, "/_larder/events", &[]);
    assert_eq!(off.status(), 404);
    assert_eq!(off.headers()["content-type"], "application/problem+json");
    purge(&feed, 2, &["a"]);
    feed.replace(Some(settings(&["a*"])));
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", "1")]).await;
    assert_eq!(heard(&next(&mut body).await), (2, "reset"));
}

#[tokio::test]
async fn other_tags_leave_listeners_where_they_are_and_forget_what_was() {
    let feed = feed(3);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    feed.replace(Some(settings(&["b"])));
    purge(&feed, 4, &["a", "b"]);
    let event = next(&mut body).await;
    assert!(event.contains(r#""tags":["b"]"#), "{event}");
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", "2")]).await;
    assert_eq!(heard(&next(&mut body).await), (4, "reset"));
}

#[tokio::test]
async fn it_follows_records_until_they_end() {
    let feed = feed(0);
    let (sender, records) = tokio::sync::mpsc::channel(8);
    let fence = Fence { log: LOG, seq: 41 };
    let begin = Heard::Begin { fence, at: second(1), records: Vec::new() };
    sender.send(begin).await.unwrap();
    let everything = Purge {
        mode: Mode::Soft,
        selectors: vec![Selector::Everything],
        source: Source::Api,
        reason: None,
    };
    let record = Record { seq: 42, at: second(2), purge: everything };
    sender.send(Heard::Record(LOG, Arc::new(record))).await.unwrap();
    drop(sender);
    tokio::time::timeout(Duration::from_secs(5), feed.follow(records)).await.unwrap();
    let known = document(ask(&feed, "/_larder/sync?since=41", &[])).await;
    assert_eq!(known["purges"][0]["everything"], true);
    assert_eq!(known["purges"][0]["mode"], "soft");
}

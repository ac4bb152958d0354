//! The events that a listener receives.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Wake, Waker},
};

use super::*;

#[tokio::test]
async fn a_new_client_receives_new_events() {
    let feed = feed(3);
    let (mut body, first) = listen(&feed, "/_larder/events", &[]).await;
    assert_eq!(first, format!("id: 3\nevent: hello\ndata: {{\"seq\":3}}\n\n{}", position(3)));
    purge(&feed, 4, &["b"]);
    purge(&feed, 5, &["b", "a1", "a2"]);
    let event = next(&mut body).await;
    let data = r#"{"seq":5,"at":"2026-01-10T05:46:45.000Z","mode":"hard","tags":["a1","a2"]}"#;
    assert_eq!(event, format!("id: 5\nevent: purge\ndata: {data}\n\n{}", position(5)));
}

#[tokio::test]
async fn a_returning_client_receives_missed_events_once() {
    let feed = feed(5);
    let (of_browser, of_number) = (token(3), "3".to_owned());
    let (of_query, of_time) = ("?since=3", "?since=2026-01-10T05:47:44Z");
    for (path, field) in [("", &of_browser), ("", &of_number), ("?since=1", &of_browser)] {
        let path = format!("/_larder/events{path}");
        let (mut body, first) = listen(&feed, &path, &[("last-event-id", field)]).await;
        assert_eq!(first, position(3));
        assert_eq!(event_of(&next(&mut body).await), (4, "purge"));
        assert_eq!(event_of(&next(&mut body).await), (5, "purge"));
        purge(&feed, 6, &["b"]);
    }
    for query in [of_query, of_time] {
        let (mut body, _) = listen(&feed, &format!("/_larder/events{query}"), &[]).await;
        assert_eq!(event_of(&next(&mut body).await), (4, "purge"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_may_have_missed_events_gets_a_reset() {
    let feed = feed(3);
    begin(&feed, LogId(7), 3);
    purge(&feed, 4, &["a"]);
    let of_another = token(3);
    for field in [&*of_another, "2", "9", "something else"] {
        let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", field)]).await;
        let reset = next(&mut body).await;
        assert_eq!(event_of(&reset), (4, "reset"), "{field}");
        assert!(
            reset.ends_with(&format!("data: {{\"seq\":4}}\n\n{}", position_in(LogId(7), 4))),
            "{reset}"
        );
        begin(&feed, LogId(8), 2);
        assert_eq!(event_of(&next(&mut body).await), (2, "reset"));
        begin(&feed, LogId(7), 3);
        purge(&feed, 4, &["a"]);
    }
    assert_eq!(feed.hub.metrics.feed.resets.get(), 8);
}

#[tokio::test]
async fn a_continuing_log_is_invisible_to_listeners() {
    let feed = feed(3);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let other = LogId(0xabc);
    feed.hub.publish(&LogUpdate::Record(other, record(4, &[])));
    feed.hub.publish(&LogUpdate::Record(other, record(5, &["a"])));
    let event = next(&mut body).await;
    assert_eq!(event_of(&event), (5, "purge"));
    assert!(event.ends_with(&position_in(other, 5)), "{event}");
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", &token(2))]).await;
    let event = next(&mut body).await;
    assert_eq!(event_of(&event), (3, "purge"));
    assert!(event.ends_with(&position(3)), "{event}");
    assert_eq!(event_of(&next(&mut body).await), (5, "purge"));
    let since = format!("/_larder/sync?since={}", token(2));
    let known = document(ask(&feed, &since, &[])).await;
    assert_eq!((&known["reset"], known["purges"].as_array().unwrap().len()), (&false.into(), 2));
    assert_eq!(known["next"], "5-0000000000000abc");
}

#[tokio::test(start_paused = true)]
async fn a_client_ahead_of_this_node_waits() {
    let feed = feed(3);
    let other = LogId(0xabc);
    let position = "5-0000000000000abc";
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", position)]).await;
    let waiting = tokio::spawn(async move { next(&mut body).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    (4..=6).for_each(|seq| feed.hub.publish(&LogUpdate::Record(other, record(seq, &["a"]))));
    assert_eq!(event_of(&waiting.await.unwrap()), (6, "purge"));
    let before = tokio::time::Instant::now();
    let position = "5-0000000000000def";
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", position)]).await;
    assert_eq!(event_of(&next(&mut body).await), (6, "reset"));
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn known_records_are_one_update() {
    let feed = Feed::new(Some(settings(&["a*"])), Metrics::new(), Vec::new, || second(100));
    let position = format!("7-{:016x}", 0xabc);
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", &position)]).await;
    let waiting = tokio::spawn(async move { next(&mut body).await });
    tokio::task::yield_now().await;
    let of = |log, seq| (LogId(log), record(seq, &["a"]));
    let records = vec![of(0xfeed, 6), of(0xabc, 7), of(0xabc, 8)];
    let fence = Fence { log: LOG, seq: 5 };
    feed.hub.publish(&LogUpdate::Begin { fence, at: second(5), records });
    assert_eq!(event_of(&waiting.await.unwrap()), (8, "purge"));
    assert_eq!(feed.hub.metrics.feed.resets.get(), 0);
}

#[tokio::test]
async fn a_slow_listener_gets_a_reset_and_costs_no_memory() {
    let feed = feed(0);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    (1..=5000).for_each(|seq| purge(&feed, seq, &["a"]));
    assert_eq!(event_of(&next(&mut body).await), (5000, "reset"));
    purge(&feed, 5001, &["a"]);
    assert_eq!(event_of(&next(&mut body).await), (5001, "purge"));
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
async fn heartbeats_move_the_listener_on() {
    let feed = feed(1);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let before = tokio::time::Instant::now();
    assert_eq!(next(&mut body).await, format!(":\n{}", position(1)));
    assert_eq!(before.elapsed().as_secs(), 15);
    purge(&feed, 2, &["b"]);
    assert_eq!(next(&mut body).await, format!(":\n{}", position(2)));
}

#[tokio::test(start_paused = true)]
async fn hidden_purges_do_not_delay_heartbeats() {
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
    assert_eq!(next(&mut body).await, format!(":\n{}", position(4)));
    assert_eq!(before.elapsed().as_secs(), 15);
    purging.abort();
}

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn hidden_purges_wake_no_listener() {
    let feed = feed(1);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    let count = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut frame = body.frame();
    assert!(Pin::new(&mut frame).poll(&mut Context::from_waker(&waker)).is_pending());
    (2..1000).for_each(|seq| purge(&feed, seq, &["b"]));
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    purge(&feed, 1000, &["a"]);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
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
    assert_eq!(event_of(&next(&mut body).await), (8, "reset"));
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
async fn a_node_that_shuts_down_ends_all_streams() {
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
async fn without_settings_the_feed_is_disabled() {
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
    assert_eq!(event_of(&next(&mut body).await), (2, "reset"));
}

#[tokio::test]
async fn changed_tags_keep_listeners_and_drop_events() {
    let feed = feed(3);
    let (mut body, _) = listen(&feed, "/_larder/events", &[]).await;
    feed.replace(Some(settings(&["b"])));
    purge(&feed, 4, &["a", "b"]);
    let event = next(&mut body).await;
    assert!(event.contains(r#""tags":["b"]"#), "{event}");
    let (mut body, _) = listen(&feed, "/_larder/events", &[("last-event-id", "2")]).await;
    assert_eq!(event_of(&next(&mut body).await), (4, "reset"));
}

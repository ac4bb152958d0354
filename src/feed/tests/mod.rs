//! Tests of the feed without a server.

use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::BodyExt;

use super::*;
use crate::fence::{Fence, LogId, Purge, PurgeMode, PurgeRecord, PurgeSource, Selector};

mod calls;
mod listening;
mod users;

const LOG: LogId = LogId(0xfeed);

fn settings(tags: &[&str]) -> Settings {
    let tags = tags.iter().map(|text| TagPattern::parse(text).unwrap()).collect();
    let origin = CorsOrigins::parse("https://app.test").unwrap();
    Settings { origins: CorsOrigins::Only(vec![origin]), tags, listeners: 2, per_client: 2 }
}

fn second(seq: u64) -> Timestamp {
    Timestamp::from_seconds(1_768_024_000 + seq)
}

/// A feed that shows the tags `a*`, and has received records 1 to `last`.
fn feed(last: u64) -> Feed {
    let version = |name: &str, version: Option<&str>| DataVersion {
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
    feed.hub.publish(&LogUpdate::Begin { fence, at: second(seq), records: Vec::new() });
}

fn purge(feed: &Feed, seq: u64, tags: &[&str]) {
    let log = feed.hub.position().unwrap().log;
    feed.hub.publish(&LogUpdate::Record(log, record(seq, tags)));
}

fn record(seq: u64, tags: &[&str]) -> Arc<PurgeRecord> {
    let selectors = tags.iter().map(|tag| Selector::Tag((*tag).into())).collect();
    let purge = Purge {
        mode: PurgeMode::Hard,
        selectors,
        source: PurgeSource::Api,
        reason: None,
        warm: false,
    };
    Arc::new(PurgeRecord { seq, at: second(seq), purge })
}

fn ask(feed: &Feed, path: &str, fields: &[(&str, &str)]) -> Response<FeedBody> {
    let mut request = Request::builder().uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    feed.respond(&request.body(()).unwrap(), &Caller::default()).unwrap()
}

/// Returns the next frame; empty at the end of the stream.
async fn next(body: &mut FeedBody) -> String {
    match body.frame().await {
        Some(frame) => String::from_utf8(frame.unwrap().into_data().unwrap().into()).unwrap(),
        None => String::new(),
    }
}

/// Returns the stream of a listener after its first frame, and that frame.
async fn listen(feed: &Feed, path: &str, fields: &[(&str, &str)]) -> (FeedBody, String) {
    let response = ask(feed, path, fields);
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = next(&mut body).await;
    let (retry, first) = first.split_once("\n\n").unwrap();
    let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1000..5000).contains(&retry));
    (body, first.to_owned())
}

async fn document(response: Response<FeedBody>) -> serde_json::Value {
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// The event that moves a client to this position.
fn position(seq: u64) -> String {
    position_in(LOG, seq)
}

fn position_in(log: LogId, seq: u64) -> String {
    format!("id: {seq}-{:016x}\nevent: place\ndata: {{\"seq\":{seq}}}\n\n", log.0)
}

fn token(seq: u64) -> String {
    format!("{seq}-{:016x}", LOG.0)
}

/// The number and the name of an event.
fn event_of(frame: &str) -> (u64, &str) {
    let mut lines = frame.lines();
    let id = lines.next().unwrap().strip_prefix("id: ").unwrap().parse().unwrap();
    (id, lines.next().unwrap().strip_prefix("event: ").unwrap())
}

//! Private events, and streams that end when their users' credentials end.

use super::*;
use crate::fence::Selector;

/// A user whose credential expires in ten minutes.
fn member(user: &str) -> Arc<PartitionMember> {
    Arc::new(PartitionMember {
        partition_digest: [0; 16],
        owner: Some(format!("owner of {user}").into()),
        user: Some(user.into()),
        issuer: "".into(),
        credential: user.bytes().map(u128::from).sum(),
        expires: Some(second(700)),
    })
}

/// A feed that shows these tags, and identifies users by `x-user`. Its clock stands at second 100.
fn feed_of(tags: &[&str]) -> Feed {
    let feed = Feed::new(Some(settings(tags)), Metrics::new(), Vec::new, || second(100));
    begin(&feed, LOG, 0);
    feed.with_users(|headers, _| match headers.get("x-user").map(|user| user.to_str().unwrap()) {
        Some("forged") => Err(Reason::UnverifiedToken),
        Some(user) => Ok(member(user)),
        None => Err(Reason::NoIdentity),
    })
}

fn tags_of(frame: &str) -> serde_json::Value {
    let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    serde_json::from_str::<serde_json::Value>(data).unwrap()["tags"].clone()
}

fn select(feed: &Feed, seq: u64, selectors: Vec<Selector>) {
    let purge = Purge { selectors, ..record(seq, &[]).purge.clone() };
    feed.hub
        .publish(&LogUpdate::Record(LOG, Arc::new(PurgeRecord { seq, at: second(seq), purge })));
}

#[tokio::test]
async fn a_user_hears_of_tags_of_its_own_and_of_nobody_elses() {
    let feed = feed_of(&["kpi", "stocks:{user}"]);
    let (mut one, _) = listen(&feed, "/_larder/events", &[("x-user", "42")]).await;
    let (mut other, _) = listen(&feed, "/_larder/events", &[("x-user", "4")]).await;
    purge(&feed, 1, &["stocks:42"]);
    purge(&feed, 2, &["stocks:4", "kpi"]);
    assert_eq!(tags_of(&next(&mut one).await), serde_json::json!(["stocks:42"]));
    assert_eq!(tags_of(&next(&mut one).await), serde_json::json!(["kpi"]));
    assert_eq!(tags_of(&next(&mut other).await), serde_json::json!(["kpi", "stocks:4"]));
    let sync =
        |user: &'static str| document(ask(&feed, "/_larder/sync?since=0", &[("x-user", user)]));
    let seqs = |document: serde_json::Value| document["purges"].as_array().unwrap().len();
    assert_eq!((seqs(sync("42").await), seqs(sync("4").await)), (2, 1));
}

#[tokio::test]
async fn who_is_not_known_sees_what_everybody_sees_or_is_told_to_come_with_an_identity() {
    let both = feed_of(&["kpi", "stocks:{user}"]);
    purge(&both, 1, &["stocks:42"]);
    purge(&both, 2, &["kpi", "stocks:42"]);
    for fields in [&[][..], &[("x-user", "forged")]] {
        let known = document(ask(&both, "/_larder/sync?since=0", fields)).await;
        assert_eq!(known["purges"].as_array().unwrap().len(), 1);
        assert_eq!(known["purges"][0]["tags"], serde_json::json!(["kpi"]));
    }
    let own = feed_of(&["stocks:{user}"]);
    for path in ["/_larder/events", "/_larder/sync", "/_larder/version"] {
        for fields in [&[][..], &[("x-user", "forged")]] {
            let refused = ask(&own, path, fields);
            assert_eq!(refused.status(), 401, "{path}");
            assert_eq!(refused.headers()["content-type"], "application/problem+json");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            assert_eq!(refused.headers()["cache-control"], "private, no-store");
        }
        assert_eq!(ask(&own, path, &[("x-user", "42")]).status(), 200, "{path}");
    }
}

#[tokio::test]
async fn what_belongs_to_a_user_of_another_issuer_is_not_heard_of() {
    let feed = feed_of(&["stocks:{user}"]);
    let (mut body, _) = listen(&feed, "/_larder/events", &[("x-user", "42")]).await;
    let within = |owner: &str| {
        Selector::All([Selector::User(owner.into()), Selector::Tag("stocks:42".into())].into())
    };
    select(&feed, 1, vec![within("owner of 42 elsewhere")]);
    select(&feed, 2, vec![within("owner of 42")]);
    assert_eq!(event_of(&next(&mut body).await), (2, "purge"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_credential_and_says_so() {
    let feed = feed_of(&["stocks:{user}"]);
    let (mut body, _) = listen(&feed, "/_larder/events", &[("x-user", "42")]).await;
    let before = tokio::time::Instant::now();
    let mut last = next(&mut body).await;
    while last.starts_with(":\n") {
        last = next(&mut body).await;
    }
    assert_eq!(last, "event: end\ndata: {\"reason\":\"expired\"}\n\n");
    assert_eq!(before.elapsed().as_secs(), 600);
    assert_eq!(next(&mut body).await, "");
}

#[tokio::test]
async fn a_stream_ends_when_the_log_ends_its_credential_or_may_have() {
    let feed = feed_of(&["stocks:{user}"]);
    let ended = |user: &str| vec![Selector::Credential(member(user).credential_name().into())];
    let (mut body, _) = listen(&feed, "/_larder/events", &[("x-user", "42")]).await;
    select(&feed, 1, ended("43"));
    purge(&feed, 2, &["stocks:42"]);
    assert_eq!(event_of(&next(&mut body).await), (2, "purge"));
    let waiting = tokio::spawn(async move { (next(&mut body).await, next(&mut body).await) });
    tokio::task::yield_now().await;
    select(&feed, 3, ended("42"));
    let (last, end) = waiting.await.unwrap();
    assert_eq!((&*last, &*end), ("event: end\ndata: {\"reason\":\"revoked\"}\n\n", ""));
    let (mut body, _) = listen(&feed, "/_larder/events", &[("x-user", "42")]).await;
    begin(&feed, LogId(9), 7);
    assert!(next(&mut body).await.starts_with("event: end\n"), "a record may be missing");
}

#[tokio::test]
async fn what_users_alone_hear_pushes_nothing_out_for_everybody() {
    let feed = feed_of(&["kpi", "stocks:{user}"]);
    purge(&feed, 1, &["kpi"]);
    (2..6000).for_each(|seq| purge(&feed, seq, &["stocks:7"]));
    let known = document(ask(&feed, "/_larder/sync?since=0", &[])).await;
    assert_eq!((&known["reset"], known["purges"].as_array().unwrap().len()), (&false.into(), 1));
    let own = document(ask(&feed, "/_larder/sync?since=0", &[("x-user", "7")])).await;
    assert_eq!(own["reset"], true, "of its own too much came since");
}

#[tokio::test]
async fn one_client_takes_no_more_than_its_seats() {
    let settings = Settings { listeners: 10, ..settings(&["kpi", "stocks:{user}"]) };
    let feed = feed_of(&[]);
    feed.replace(Some(settings));
    let from = |address: &str, user: Option<&str>| {
        let mut request = Request::get("/_larder/events");
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        let address = address.parse().ok();
        let caller = Caller { peer: address, client: address };
        feed.respond(&request.body(()).unwrap(), &caller).unwrap()
    };
    let mut taken = vec![from("10.0.0.1", None), from("10.0.0.1", None)];
    assert_eq!(from("10.0.0.1", None).status(), 503);
    taken.extend([
        from("10.0.0.2", None),
        from("10.0.0.1", Some("42")),
        from("10.0.0.3", Some("42")),
    ]);
    assert!(taken.iter().all(|response| response.status() == 200));
    assert_eq!(from("10.0.0.4", Some("42")).status(), 503, "wherever it comes from");
    drop(taken);
    assert_eq!(from("10.0.0.1", None).status(), 200);
}

#[tokio::test]
async fn listed_origins_may_send_credentials() {
    let feed = feed_of(&["stocks:{user}"]);
    let fields = [("origin", "https://app.test"), ("x-user", "42")];
    let allowed = ask(&feed, "/_larder/sync", &fields);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.test");
    assert_eq!(allowed.headers()["access-control-allow-credentials"], "true");
    let other = ask(&feed, "/_larder/sync", &[("origin", "https://evil.test"), ("x-user", "42")]);
    assert!(!other.headers().contains_key("access-control-allow-credentials"));
    let public = feed_of(&["kpi"]);
    let allowed = ask(&public, "/_larder/sync", &fields);
    assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
}

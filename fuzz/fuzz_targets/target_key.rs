//! A key says all that the origin is sent, two requests to the origin have two keys, and what is normal
//! stays as it is when it is made normal once more.
#![no_main]

use http::Uri;
use larder::testing::key::{
    CacheKey, OriginTarget,
    uri::{NamePattern, QueryOrder, QueryRule, PathReadings, Scheme, host, normal_path},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &str, &str, &str, &[u8])| {
    let (is_secure, one, other, asked, text) = input;
    let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
    let mut asked: String =
        asked.chars().filter(|it| it.is_alphanumeric() || "-._~:".contains(*it)).collect();
    while asked.contains("..") {
        asked = asked.replace("..", ".");
    }
    let asked = host::canonical(&asked, scheme);
    assert_eq!(host::canonical(&asked, scheme), asked, "a canonical host stays as it is");
    let (Some(one), Some(other)) = (target(one), target(other)) else { return };
    look_at(&one);

    let keys = [&one, &other].map(|uri| kept_key(scheme, &asked, uri));
    let [(first, sent), (second, sent_by_other)] = keys;
    assert_eq!(sent == sent_by_other, first.text() == second.text(), "one key, one request");
    assert_eq!(CacheKey::from_text(first.text()).digest(), first.digest());

    // Bytes out of Redis are a key of something, or of nothing.
    let key = CacheKey::from_text(text);
    let _ = (key.origin_target(), key.purge_url(), key.requested_host());
});

/// A target as a client's request has it.
fn target(text: &str) -> Option<Uri> {
    format!("/{text}").parse().ok()
}

/// The readings of a path, which routes and purges go by.
fn look_at(uri: &Uri) {
    let readings = PathReadings::of(uri.path());
    assert_eq!(readings.sent(), uri.path());
    let loosest = readings.loosest();
    assert!(readings.each().any(|(_, reading)| reading == loosest));
    assert!(loosest.starts_with('/') && !loosest.contains('\\'));
    if readings.are_fully_decoded() {
        assert_eq!(PathReadings::of(&loosest).loosest(), loosest);
    }
    let normal = normal_path(uri.path());
    assert_eq!(normal_path(&normal), normal);
    assert!(normal == uri.path() || readings.each().any(|(_, reading)| reading == normal));
}

/// The key of a request on a route that leaves out parameters, and what the origin is sent.
fn kept_key(scheme: Scheme, host: &str, uri: &Uri) -> (CacheKey, String) {
    let pattern = |text| NamePattern::parse(text).expect("a pattern");
    let rule = QueryRule {
        ignore: [pattern("utm_*"), pattern("b")].into(),
        order: QueryOrder::Sorted,
        ..QueryRule::default()
    };
    let query = uri.query().and_then(|query| rule.kept(query));
    if let Some(query) = &query {
        assert_eq!(rule.kept(query).as_ref(), Some(query), "what is kept is kept as it is");
    }
    let target = OriginTarget { query, ..OriginTarget::plain(scheme, host, uri.path()) };
    let key = target.key();
    let read = key.origin_target().expect("a key is read again");
    assert_eq!(read, target);
    assert!(!key.purge_url().is_empty());
    (key, target.path_and_query().into_owned())
}

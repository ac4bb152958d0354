//! A client that keeps copies by their tags, validates and resumes them at random, and never ends up
//! with anything but the current version.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{CodedReply, ROUTE, decode, exchange, json};
use crate::support::{
    proxy::{Proxy, request_with_body},
    random::Random,
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

const ACCEPTED: [&str; 8] = [
    "gzip, deflate, br, zstd",
    "gzip",
    "zstd;q=0.5, br;q=0.1",
    "br, *;q=0.1",
    "identity",
    "deflate",
    "gzip;q=0, *",
    "",
];

/// A complete response that the client has received.
struct Copy {
    coding: String,
    bytes: Vec<u8>,
    version: usize,
}

fn body_of(version: usize) -> String {
    json(2000 + 100 * version)
}

/// An origin with a version that each PUT raises.
async fn versioned_origin(version: &Arc<AtomicUsize>) -> ScriptedOrigin {
    let version = Arc::clone(version);
    ScriptedOrigin::start(move |request| {
        if request.method == "PUT" {
            version.fetch_add(1, Ordering::SeqCst);
            return OriginResponse::status(204, "");
        }
        let version = version.load(Ordering::SeqCst);
        let tag = format!("\"{version}\"");
        let is_current = request.header("if-none-match").is_some_and(|tags| tags.contains(&tag));
        if is_current {
            return OriginResponse::status(304, "").with("etag", &tag);
        }
        OriginResponse::fresh(body_of(version))
            .with("content-type", "application/json")
            .with("etag", &tag)
    })
    .await
}

fn is_accepted(accepted: &str, coding: &str) -> bool {
    match accepted {
        "identity" | "deflate" | "" => coding == "-",
        "gzip" => ["-", "gzip"].contains(&coding),
        "zstd;q=0.5, br;q=0.1" | "gzip;q=0, *" => coding != "gzip",
        _ => true,
    }
}

/// Checks a reply against the current version, and returns the copy that the client has then.
fn check(
    reply: &CodedReply,
    (accepted, sent): (&str, &[String]),
    copies: &HashMap<String, Copy>,
    version: usize,
) -> Option<(String, Copy)> {
    let coding = reply.coding();
    assert!(is_accepted(accepted, coding), "{accepted}: {}", reply.head);
    match reply.status() {
        200 => {
            assert!(reply.decoded() == body_of(version), "{}", reply.head);
            let bytes = reply.bytes.clone();
            Some((reply.etag().to_owned(), Copy { coding: coding.to_owned(), bytes, version }))
        }
        304 => {
            assert!(sent.iter().any(|tag| tag == reply.etag()), "{sent:?}: {}", reply.head);
            let copy = &copies[reply.etag()];
            assert!(is_accepted(accepted, &copy.coding), "{accepted}: {}", reply.head);
            assert_eq!(copy.version, version, "{sent:?}: {}", reply.head);
            assert!(decode(&copy.coding, &copy.bytes) == body_of(version));
            None
        }
        206 => {
            let copy = &copies[reply.etag()];
            assert_eq!((&*copy.coding, copy.version), (coding, version), "{}", reply.head);
            let range = reply.header("content-range").unwrap();
            let (first, rest) = range.trim_start_matches("bytes ").split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            assert!(copy.bytes[first..] == reply.bytes, "{}", reply.head);
            assert!(rest.ends_with(&format!("/{}", copy.bytes.len())));
            None
        }
        416 => None,
        other => panic!("{other}: {}", reply.head),
    }
}

#[tokio::test]
async fn a_client_never_keeps_or_assembles_anything_but_the_current_version() {
    within(async {
        let version = Arc::new(AtomicUsize::new(0));
        let origin = versioned_origin(&version).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        let mut random = Random::seeded(11);
        let mut wire = Wire::connect(proxy.address).await;
        let mut copies: HashMap<String, Copy> = HashMap::new();
        let (mut seen, mut coded): (HashMap<u16, usize>, usize) = (HashMap::new(), 0);
        for _ in 0..1500 {
            let now = version.load(Ordering::SeqCst);
            match random.below(40) {
                0 => {
                    wire.exchange(request_with_body("PUT", "/a", &[], "x")).await;
                    // The copies of the version that has just ended are the ones that tempt.
                    copies.retain(|_, copy| copy.version == now);
                    continue;
                }
                1 => proxy.advance(2 * 3600),
                _ => {}
            }
            let accepted = *random.pick(&ACCEPTED);
            let mut tags: Vec<String> = copies.keys().cloned().collect();
            tags.sort_unstable();
            let mut fields = vec![("accept-encoding", accepted.to_owned())];
            let mut sent = Vec::new();
            let choice = if tags.is_empty() { 0 } else { random.below(4) };
            if choice > 1 {
                sent = (0..=random.below(3)).map(|_| random.pick(&tags).clone()).collect();
                fields.push(("if-none-match", sent.join(", ")));
            } else if choice == 1 {
                let tag = random.pick(&tags).clone();
                let from = random.below(copies[&tag].bytes.len());
                fields.push(("range", format!("bytes={from}-")));
                fields.push(("if-range", tag));
            }
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (*name, &**value)).collect();
            let reply = exchange(&mut wire, "GET", "/a", &fields).await;
            *seen.entry(reply.status()).or_default() += 1;
            coded += usize::from(reply.coding() != "-");
            copies.extend(check(&reply, (accepted, &sent), &copies, now));
        }
        assert!(seen[&304] > 50 && seen[&206] > 20 && seen[&200] > 300, "{seen:?}");
        assert!(coded > 100, "{coded}");
    })
    .await;
}

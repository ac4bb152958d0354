//! Tests of keys that an issuer publishes.

use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use super::*;
use crate::{
    telemetry::Metrics,
    user::{DocumentUrl, keys::FetchTiming},
};

const TIMING: FetchTiming = FetchTiming {
    timeout: Duration::from_secs(5),
    min_interval: Duration::from_millis(1),
    interval: Duration::from_hours(1),
    max_age: Duration::from_hours(24),
};

/// An issuer with a scripted response to each request.
struct Issuer {
    url: String,
    response: Arc<Mutex<String>>,
    fetches: mpsc::UnboundedReceiver<()>,
}

impl Issuer {
    async fn start(response: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let response = Arc::new(Mutex::new(response));
        let (answers, (sender, fetches)) = (Arc::clone(&response), mpsc::unbounded_channel());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let answer = answers.lock().clone();
                stream.write_all(answer.as_bytes()).await.unwrap();
                sender.send(()).unwrap();
            }
        });
        Self { url, response, fetches }
    }

    fn users(&self) -> Authenticator {
        self.users_at(TIMING)
    }

    fn users_at(&self, timing: FetchTiming) -> Authenticator {
        let source = DocumentUrl::parse(&self.url).unwrap();
        let rules = TokenRules { keys: KeySource::Jwks(source.clone()), ..rules([]) };
        let keys =
            TokenKeys::published_with_timing(&source, Metrics::new().jwks.clone(), timing).unwrap();
        let users = Authenticator::new(DigestKey::new(&[7; 32]).unwrap());
        users.with_source(IdentitySource::Token(Box::new(rules)), Some(keys), [])
    }

    /// Waits until one more request has been answered and applied.
    async fn was_fetched(&mut self) {
        self.fetches.recv().await.unwrap();
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn set(keys: &[(&str, &Ed25519KeyPair)]) -> String {
    let keys = keys.iter().map(|(kid, pair)| {
        let x = encoded(pair.public_key().as_ref());
        format!(r#"{{"kid":"{kid}","kty":"OKP","crv":"Ed25519","use":"sig","x":"{x}"}}"#)
    });
    answer("200 OK", &format!(r#"{{"keys":[{}]}}"#, keys.collect::<Vec<_>>().join(",")))
}

fn token_of(kid: Option<&str>, pair: &Ed25519KeyPair) -> HeaderMap {
    let kid = kid.map(|kid| format!(r#","kid":"{kid}""#)).unwrap_or_default();
    let header = format!(r#"{{"alg":"EdDSA"{kid}}}"#);
    let message = format!("{}.{}", encoded(header), encoded(r#"{"sub":"u1"}"#));
    bearing(&format!("{message}.{}", encoded(pair.sign(message.as_bytes()))))
}

/// Repeats until the result is as expected, since a fetch takes effect a moment after its response.
async fn becomes(users: &Authenticator, headers: &HeaderMap, expected: Result<(), IdentityError>) {
    let began = Instant::now();
    while user_of(users, headers).map(|_| ()) != expected {
        assert!(began.elapsed() < Duration::from_secs(20), "{expected:?} never came");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tokens_are_verified_with_the_key_of_their_name() {
    let (one, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let mut issuer = Issuer::start(set(&[("a", &one), ("b", &other)])).await;
    let users = issuer.users();
    assert_eq!(user_of(&users, &token_of(Some("a"), &one)).map(|_| ()), Err(IdentityError::NoKeys));
    issuer.was_fetched().await;
    becomes(&users, &token_of(Some("a"), &one), Ok(())).await;
    let found = |kid, pair| user_of(&users, &token_of(kid, pair)).map(|_| ());
    assert_eq!(found(Some("b"), &other), Ok(()));
    assert_eq!(found(Some("b"), &one), Err(IdentityError::Signature));
    assert_eq!(found(Some("c"), &one), Err(IdentityError::UnknownKey));
    assert_eq!(found(None, &one), Err(IdentityError::UnknownKey), "two keys are for its algorithm");
}

#[tokio::test]
async fn a_token_without_a_name_is_verified_with_the_only_key() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut issuer = Issuer::start(set(&[("a", &pair)])).await;
    let users = issuer.users();
    issuer.was_fetched().await;
    becomes(&users, &token_of(None, &pair), Ok(())).await;
}

#[tokio::test]
async fn an_unknown_name_has_the_keys_fetched_again_and_a_removed_key_counts_no_longer() {
    let (old, new) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let mut issuer = Issuer::start(set(&[("old", &old)])).await;
    let users = issuer.users();
    issuer.was_fetched().await;
    becomes(&users, &token_of(Some("old"), &old), Ok(())).await;
    *issuer.response.lock() = set(&[("new", &new)]);
    let unknown = token_of(Some("new"), &new);
    assert_eq!(user_of(&users, &unknown).map(|_| ()), Err(IdentityError::UnknownKey));
    becomes(&users, &unknown, Ok(())).await;
    let removed = user_of(&users, &token_of(Some("old"), &old)).map(|_| ());
    assert_eq!(removed, Err(IdentityError::UnknownKey), "it was remembered");
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_away() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut issuer = Issuer::start(set(&[("a", &pair)])).await;
    let users = issuer.users();
    issuer.was_fetched().await;
    let headers = token_of(Some("a"), &pair);
    becomes(&users, &headers, Ok(())).await;
    let moved = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_owned();
    for response in [answer("500 Oh", ""), answer("200 OK", "[]"), moved] {
        *issuer.response.lock() = response;
        let _unknown = user_of(&users, &token_of(Some("b"), &pair));
        // By the second fetch the result of the first has been applied.
        issuer.was_fetched().await;
        issuer.was_fetched().await;
        assert!(user_of(&users, &headers).is_ok());
    }
}

#[tokio::test]
async fn keys_end_if_the_issuer_is_away_for_too_long() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut issuer = Issuer::start(set(&[("a", &pair)])).await;
    let users = issuer.users_at(FetchTiming { max_age: Duration::ZERO, ..TIMING });
    issuer.was_fetched().await;
    let headers = token_of(Some("a"), &pair);
    becomes(&users, &headers, Ok(())).await;
    *issuer.response.lock() = answer("500 Oh", "");
    let _unknown = user_of(&users, &token_of(Some("b"), &pair));
    becomes(&users, &headers, Err(IdentityError::NoKeys)).await;
}

#[tokio::test]
async fn a_flood_of_unknown_names_has_the_keys_fetched_at_a_bounded_rate() {
    const MIN_INTERVAL: Duration = Duration::from_millis(30);
    let pair = Ed25519KeyPair::generate().unwrap();
    let mut issuer = Issuer::start(set(&[("a", &pair)])).await;
    let began = Instant::now();
    let users = issuer.users_at(FetchTiming { min_interval: MIN_INTERVAL, ..TIMING });
    issuer.was_fetched().await;
    becomes(&users, &token_of(Some("a"), &pair), Ok(())).await;
    for round in 0..4 {
        for kid in 0..100 {
            let _unknown = user_of(&users, &token_of(Some(&format!("{round}-{kid}")), &pair));
        }
        if round < 3 {
            issuer.was_fetched().await;
        }
    }
    assert!(began.elapsed() >= 3 * MIN_INTERVAL, "{:?}", began.elapsed());
}

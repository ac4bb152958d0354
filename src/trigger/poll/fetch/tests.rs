//! Tests of poll requests and of the parsing of responses.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{origin::document::MAX_DOCUMENT_BYTES, trigger::poll::DocumentUrl};

/// Starts a server that sends these responses in turn and records the request heads.
async fn server(answers: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/version?of=sales", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Some(head) = head(&mut stream).await {
                heads.lock().push(head);
                let Some(answer) = answers.next() else { return };
                // The client may close the connection before the end.
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (url, asked)
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap().to_lowercase())
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

fn source(url: &str, path: Option<&str>) -> HttpVersionSource {
    let version = match path {
        Some(path) => VersionFrom::payload(path).unwrap(),
        None => VersionFrom::Validator,
    };
    let poll = Poll {
        name: "sales".into(),
        source: DocumentUrl::parse(url).unwrap(),
        every: Duration::from_secs(1),
        version,
        purge: Box::default(),
        mode: crate::fence::PurgeMode::Hard,
        warm: crate::warm::WarmPlan::default(),
        delay: None,
        alert_after: None,
    };
    HttpVersionSource::new(&poll).unwrap()
}

fn version(answer: Result<PollResponse, VersionFetchError>) -> (String, Option<HeaderValue>) {
    match answer.unwrap() {
        PollResponse::Version(version, tag) => (version.into(), tag),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_tasks_of_a_druid_overlord_are_read() {
    let tasks = r#"[{"id": "b"}, {"id": "a"}]"#;
    let (url, asked) = server(vec![
        answer("200 OK", "", tasks),
        answer("200 OK", "", r#"[{"id": "a"}, {"id": "b"}]"#),
        answer("200 OK", "", "[]"),
    ])
    .await;
    let overlord = source(&url, Some("$[*].id"));
    let first = version(overlord.fetch(None).await);
    assert_eq!(version(overlord.fetch(None).await), first);
    assert_eq!(version(overlord.fetch(None).await), ("[]".to_owned(), None));
    let head = asked.lock()[0].clone();
    assert!(head.starts_with("get /version?of=sales http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\ncache-control: no-cache\r\n"), "{head}");
    assert!(head.contains("\r\nhost: 127.0.0.1:") && !head.contains("if-none-match"), "{head}");
}

#[tokio::test]
async fn a_field_of_a_document_is_the_version() {
    let (url, _) = server(vec![answer("200 OK", "", r#"{"data": {"version": 17}}"#)]).await;
    let found = version(source(&url, Some("$.data.version")).fetch(None).await);
    assert_eq!(found, ("17".to_owned(), None));
    let (url, _) = server(vec![answer("200 OK", "", r#"{"data": {}}"#)]).await;
    let found = source(&url, Some("$.data.version")).fetch(None).await;
    assert!(matches!(found, Ok(PollResponse::NoVersion)), "{found:?}");
}

#[tokio::test]
async fn an_entity_tag_is_the_version_and_makes_the_next_request_conditional() {
    let (url, asked) = server(vec![
        answer("200 OK", "etag: W/\"v1\"\r\n", "a"),
        "HTTP/1.1 304 Not Modified\r\netag: W/\"v1\"\r\n\r\n".to_owned(),
        answer("200 OK", "etag: \"v2\"\r\n", "b"),
    ])
    .await;
    let file = source(&url, None);
    let (first, tag) = version(file.fetch(None).await);
    assert_eq!(first, "\"v1\"");
    assert!(matches!(file.fetch(tag.as_ref()).await, Ok(PollResponse::Unchanged)));
    assert_eq!(version(file.fetch(tag.as_ref()).await).0, "\"v2\"");
    assert!(asked.lock()[1].contains("\r\nif-none-match: w/\"v1\"\r\n"), "{:?}", asked.lock());
}

#[tokio::test]
async fn a_user_in_the_url_is_sent_as_credentials() {
    let (url, asked) = server(vec![answer("200 OK", "", "a")]).await;
    let url = url.replace("http://", "http://u:p@");
    let (found, _) = version(source(&url, None).fetch(None).await);
    assert!(found.starts_with("sha256:"), "{found}");
    assert!(asked.lock()[0].contains("\r\nauthorization: basic dtpw\r\n"), "{:?}", asked.lock());
}

#[tokio::test]
async fn unusable_responses_are_failures() {
    let large = "a".repeat(MAX_DOCUMENT_BYTES + 1);
    let unending =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100001\r\n{large}");
    for (said, expected) in [
        (answer("304 Not Modified", "", ""), "unexpected status 304 Not Modified"),
        (answer("302 Found", "location: /x\r\n", ""), "unexpected status 302 Found"),
        (answer("206 Partial Content", "", "{}"), "unexpected status 206 Partial Content"),
        (answer("503 Service Unavailable", "", "{}"), "unexpected status 503"),
        (answer("200 OK", "", "<html>"), "the response is not JSON"),
        (answer("200 OK", "content-encoding: gzip\r\n", "\u{1f}"), "the response is not JSON"),
        (answer("200 OK", "", &large), "the response is larger than 1 MiB"),
        (unending, "the response is larger than 1 MiB"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(), "invalid response from"),
    ] {
        let (url, _) = server(vec![said]).await;
        let error = source(&url, Some("$.v")).fetch(None).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error = source(&url, None).fetch(None).await.unwrap_err();
    assert!(matches!(error, VersionFetchError::Document(DocumentError::Origin(_))), "{error}");
}

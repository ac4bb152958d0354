//! The examples of `docs/advise.md`.

use std::fmt::Write as _;

use super::{advise, worlds};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/advise.md")).unwrap()
}

/// The first block of the document in this language.
fn block<'a>(document: &'a str, language: &str) -> &'a str {
    let (_, rest) = document.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_proposal_in_the_documents_is_what_is_proposed() {
    let proposal = advise(&worlds::dashboard().log(7));
    let document = document();
    let shown = block(&document, "toml");
    assert!(proposal.contains(shown), "{shown}\n{proposal}");
}

#[test]
fn the_log_format_in_the_documents_shows_changes_by_validators() {
    let document = document();
    let format = block(&document, "nginx");
    // The parts in quotes, joined as nginx joins them.
    let format: String = format.lines().filter_map(|line| line.split('\'').nth(1)).collect();
    let mut log = String::new();
    for at in 0..3000 {
        let time =
            format!("2026-11-23T{:02}:{:02}:{:02}+00:00", at / 1200, at / 20 % 60, at % 20 * 3);
        let values = [
            ("$time_iso8601", time),
            ("$remote_addr", format!("192.0.2.{}", at % 5)),
            ("$remote_user", String::new()),
            ("$host", "api.example.com".to_owned()),
            ("$request", "GET /report?_=1 HTTP/1.1".to_owned()),
            ("$status", "200".to_owned()),
            ("$body_bytes_sent", "512".to_owned()),
            ("$upstream_response_time", "0.300".to_owned()),
            ("$http_user_agent", "agent".to_owned()),
            ("$http_accept_encoding", "br".to_owned()),
            ("$http_accept_language", String::new()),
            ("$sent_http_etag", format!("\\\"{}\\\"", at / 100)),
            ("$sent_http_cache_control", String::new()),
            ("$sent_http_content_type", "application/json".to_owned()),
        ];
        let fill = |text: String, (name, value): &(&str, String)| text.replace(name, value);
        let line = values.iter().fold(format.clone(), fill);
        assert!(!line.contains('$'), "{line}");
        writeln!(log, "{line}").unwrap();
    }
    let proposal = advise(&log);
    assert!(proposal.contains("ttl = \"5m\""), "{proposal}");
    assert!(proposal.contains("the origin takes 292 ms"), "{proposal}");
    assert!(proposal.contains("query = { ignore = [\"_\"] }"), "{proposal}");
}

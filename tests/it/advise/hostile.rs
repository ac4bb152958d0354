//! Logs that are broken, compressed, long, or written by attackers.

use std::{fmt::Write as _, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use larder::testing::advise::{AdviceOptions, Advisor, ProposedTable};
use proptest::prelude::*;

use super::{advise, configuration, run, text};

/// A line of the format `combined`, some seconds after the first one.
fn line(seconds: usize, client: &str, request: &str, size: usize) -> String {
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let time = format!("23/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000");
    format!("{client} - - [{time}] \"{request} HTTP/1.1\" 200 {size} \"-\" \"agent\"\n")
}

/// A log in which `/tiles/a` and `/tiles/b` are read by several clients.
fn tiles(count: usize) -> String {
    let lines = (0..count).map(|at| {
        let request = format!("GET /tiles/{}", ["sales", "stock"][at % 2]);
        line(at, &format!("192.0.2.{}", at % 7), &request, 500)
    });
    lines.collect()
}

#[test]
fn no_value_of_a_user_is_printed() {
    let mut log = tiles(2000);
    let names = ["alice", "bob.smith", "carol@example.com", "Dave%20D", "eve-secretproject"];
    for at in 0..4000 {
        let name = names[at % names.len()];
        let client = format!("198.51.100.{}", at % names.len());
        let own = [
            format!("GET /users/{name}"),
            format!("GET /users/{name}/orders?email={name}"),
            format!("GET /shared/{name}-wedding"),
            format!("GET /u/{name}?{name}=1"),
            format!("PUT /users/{name}"),
            format!("GET /search?q={name}&token=s3cr3t{name}"),
        ];
        log += &line(at * 2, &client, &own[at % own.len()], 300 + name.len());
    }
    let proposal = advise(&log);
    configuration(&proposal);
    assert!(proposal.contains("match = \"GET /tiles/{tile}\""), "{proposal}");
    assert!(proposal.contains("/users/{id}"), "{proposal}");
    let words = ["alice", "smith", "carol", "Dave", "eve", "wedding", "s3cr3t", "198.51", "agent"];
    for word in words {
        assert!(!proposal.contains(word), "{word}\n{proposal}");
    }
}

#[test]
fn a_log_without_clients_shows_only_common_words() {
    let mut log = String::new();
    for at in 0..3000 {
        let time = format!("2026-11-23T{:02}:{:02}:{:02}.000Z", at / 3600, at / 60 % 60, at % 60);
        let path = ["/orders", "/u/alice", "/u/bob", "/profile/carol", "/dave"][at % 5];
        writeln!(log, "{time} MISS 200 GET api.example.com{path} 700B 120.5ms").unwrap();
    }
    let proposal = advise(&log);
    configuration(&proposal);
    assert!(proposal.contains("match = \"GET /orders\""), "{proposal}");
    for name in ["alice", "bob", "carol", "dave"] {
        assert!(!proposal.contains(name), "{name}\n{proposal}");
    }
}

#[test]
fn the_memory_is_bounded_for_any_log() {
    // More than a hundred thousand targets at a hundred and twenty paths of several segments.
    let consonants = "bcdfghjklm".chars();
    let ends = ["alo", "eno", "imu", "oru", "uta", "ara", "esi", "ilo", "opa", "uzo", "ame", "ete"];
    let names: Vec<String> =
        consonants.flat_map(|first| ends.map(|rest| format!("{first}{rest}"))).collect();
    let mut log = GzEncoder::new(Vec::new(), Compression::fast());
    for round in 0..1200_usize {
        for (at, name) in names.iter().enumerate() {
            let item = if round % 8 == 0 { 100_005 } else { 100_000 + round * 131 + at };
            let below = ["", "/info"][round % 2];
            let (client, request) = (round % 12, format!("GET /{name}/{item}{below}"));
            let line = line(round * 60, &format!("192.0.2.{client}"), &request, 500 + round % 50);
            log.write_all(line.as_bytes()).unwrap();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log.gz"), log.finish().unwrap()).unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -d 97656; exec \"$0\" advise log.gz", env!("CARGO_BIN_EXE_larder")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("from 144,000 requests in "));
}

#[test]
fn broken_lines_are_counted_and_the_others_are_used() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = tiles(1000).into_bytes();
    log.extend_from_slice(b"\xff\xfe garbage\n{\"a\":\n");
    log.extend_from_slice(line(1, "192.0.2.1", r"\x16\x03\x01", 0).as_bytes());
    log.extend(std::iter::repeat_n(b'x', 300_000));
    log.push(b'\n');
    log.extend_from_slice(&tiles(10).into_bytes());
    log.extend_from_slice(b"cut of");
    std::fs::write(directory.path().join("access.log"), &log).unwrap();
    let output = run(directory.path(), &["access.log"], b"");
    assert!(output.status.success());
    assert_eq!(
        text(&output.stderr),
        "warning: skipped: 4 lines have an unknown format, 1 lines are no HTTP request\n"
    );
    let proposal = text(&output.stdout);
    assert!(proposal.contains("from 1,010 requests in "), "{proposal}");
    configuration(proposal);
}

#[test]
fn rotated_and_compressed_logs_are_one_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = tiles(3000);
    let end = log[..log.len() / 2].rfind('\n').unwrap() + 1;
    let (old, new) = log.split_at(end);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(old.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    };
    write("old.gz", &packed);
    write("cut.gz", &packed[..packed.len() - 10]);
    write("old.zst", &zstd::encode_all(old.as_bytes(), 1).unwrap());
    write("new", new.as_bytes());
    write("all", log.as_bytes());
    let whole = run(directory.path(), &["all"], b"").stdout;
    for old in ["old.gz", "old.zst"] {
        let output = run(directory.path(), &[old, "new"], b"");
        assert_eq!(text(&output.stdout), text(&whole), "{old}");
    }
    assert_eq!(text(&run(directory.path(), &["-"], log.as_bytes()).stdout), text(&whole));
    let cut = run(directory.path(), &["cut.gz", "new"], b"");
    assert!(cut.status.success());
    assert!(text(&cut.stderr).starts_with("warning: cut.gz: read up to an error: "));
}

#[test]
fn a_log_that_is_none_fails_with_what_is_expected() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("notes.txt"), "Dear diary,\nnothing.\n").unwrap();
    for (arguments, problem) in [
        (["notes.txt"], "no request in the log: 2 lines have an unknown format; expected nginx's"),
        (["missing.log"], "missing.log"),
        (["."], "not a file"),
        (["-"], "no request in the log: it is empty"),
    ] {
        let output = run(directory.path(), &arguments, b"");
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
}

#[test]
fn a_limit_on_outdated_hits_shortens_lifetimes() {
    let directory = tempfile::tempdir().unwrap();
    // It changes every 431 seconds.
    let lines = (0..40_000).map(|at| line(at * 2, "192.0.2.1", "GET /report", 500 + at * 2 / 431));
    std::fs::write(directory.path().join("log"), lines.collect::<String>()).unwrap();
    let of = |arguments: &[&str]| {
        let output = run(directory.path(), arguments, b"");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let proposal = text(&output.stdout).to_owned();
        let line = proposal.lines().find(|line| line.starts_with("ttl = ")).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    assert_eq!(of(&["log"]), "5m");
    assert_eq!(of(&["log", "--max-outdated", "5%"]), "30s");
    let wrong = run(directory.path(), &["log", "--max-outdated", "300"], b"");
    assert!(text(&wrong.stderr).contains("expected a percentage from 0 to 100"));
}

#[test]
fn the_log_of_larder_is_understood() {
    let mut log = String::new();
    for at in 0..2000 {
        let time = format!("2026-11-23T{:02}:{:02}:{:02}.000Z", at / 3600, at / 60 % 60, at % 60);
        let path = ["/tiles/sales", "/tiles/stock", "/account"][at % 3];
        let reason = if path == "/account" { "\"authorization\"" } else { "\"no-freshness\"" };
        writeln!(
            log,
            r#"{{"ts":"{time}","request_id":"r","method":"GET","host":"api.example.com","path":"{path}","route":"unmatched","status":200,"bytes":{},"dur_ms":120.5,"cache":"MISS","reason":{reason}}}"#,
            700 + path.len(),
        )
        .unwrap();
    }
    let proposal = advise(&log);
    configuration(&proposal);
    assert!(proposal.contains("match = \"GET /tiles/{tile}\"\nttl = "), "{proposal}");
    assert!(proposal.contains("match = \"GET /account\"\npartition = \"user\""), "{proposal}");
    assert!(proposal.contains("#   queries: this log omits them"), "{proposal}");
}

/// The proposal for lines, made in this process.
fn proposed(lines: &[String]) -> String {
    let mut advisor = Advisor::new(AdviceOptions { max_outdated: 1.0, host: None });
    loop {
        for line in lines {
            advisor.line(line);
        }
        if !advisor.next_pass() {
            break;
        }
    }
    let proposal = advisor.proposal();
    ProposedTable { advisor: &advisor, proposal: &proposal }.to_string()
}

/// Segments, parameters and methods that are hard to write into TOML or to tell apart.
const PARTS: [&str; 20] = [
    "a",
    "api",
    "v1",
    "users",
    "tiles",
    "17",
    "user",
    "tile",
    "",
    "..",
    "{id}",
    "**",
    "\\x22",
    "'",
    "a b",
    "é",
    "x.json",
    "sessions",
    "%2F",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_proposal_is_a_valid_configuration(
        targets in prop::collection::vec(
            (prop::collection::vec(0..PARTS.len(), 1..5), 0..PARTS.len(), 0..4_usize),
            1..12,
        ),
        seed in any::<u64>(),
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let methods = ["GET", "POST", "PUT", "DELETE"];
        let lines: Vec<String> = (0..600).map(|at| {
            let (segments, name, method) = &targets[rng.usize(0..targets.len())];
            let method = methods[if rng.bool() { 0 } else { *method }];
            let path: Vec<&str> = segments.iter().map(|part| PARTS[*part]).collect();
            let query = format!("?{}={}&page={}", PARTS[*name], rng.u32(0..3), rng.u32(0..2));
            let request = format!("{method} /{}{query}", path.join("/"));
            line(at, &format!("192.0.2.{}", rng.u32(0..9)), &request, rng.usize(0..3))
        }).collect();
        configuration(&proposed(&lines));
    }

    #[test]
    fn no_line_stops_it(lines in prop::collection::vec(".{0,200}", 1..40)) {
        proposed(&lines);
    }
}
